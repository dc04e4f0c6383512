//! Rates over all nodes: buckets by the generic cell rate algorithm, one timestamp each.

use std::time::Duration;

/// A cost to take from a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketCost {
    /// Its key: `orders:<account>`.
    pub bucket: String,
    /// How many units.
    pub units: u32,
    /// One unit comes back after so long.
    pub refill: Duration,
    /// The most units that a full bucket holds.
    pub capacity: u32,
}

/// Whether the costs were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// From every bucket.
    Granted,
    /// From none: the first that could not give, and after how long it could.
    Denied {
        /// The bucket.
        bucket: String,
        /// After how long to try again.
        retry_after: Duration,
    },
}
