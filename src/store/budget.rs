//! Rates over all nodes: buckets by the generic cell rate algorithm, one timestamp each.
//!
//! [`Bucket`] is the algorithm, pure; adapters keep its two times in a row. A bucket knows neither its size nor its
//! rate: each cost brings them, so that a limit may change from one taking to the next, and one who may not empty a
//! bucket brings a smaller capacity than one who may.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// A cost to take from a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketCost {
    /// Its key: `orders:<account>`.
    pub bucket: String,
    /// How many units. None takes nothing, and is refused where the bucket is frozen or emptier than `capacity`
    /// allows.
    pub units: u32,
    /// One unit comes back after so long.
    pub refill: Duration,
    /// The most units that a full bucket holds.
    pub capacity: u32,
}

impl BucketCost {
    /// The time that `units` take to come back, in whole milliseconds, rounded up.
    fn lasts(&self, units: u32) -> Duration {
        whole_millis(self.refill).saturating_mul(units)
    }
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

/// A bucket: when it is full again, and until when it gives nothing. The default is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The theoretical arrival time: all that was taken will have come back by then.
    pub full_at: Timestamp,
    /// It gives nothing before.
    pub frozen_until: Timestamp,
}

impl Bucket {
    /// The bucket after `cost` was taken from it at `now`.
    ///
    /// # Errors
    /// After how long it could give. Parts of a millisecond count as a whole one; what never fits is refused with the
    /// time that it would take.
    pub fn take(self, cost: &BucketCost, now: Timestamp) -> Result<Self, Duration> {
        if self.frozen_until > now {
            return Err(self.frozen_until.since(now));
        }
        let full_at = self.full_at.max(now).plus(cost.lasts(cost.units));
        let allowed = now.plus(cost.lasts(cost.capacity));
        match full_at <= allowed && cost.units <= cost.capacity {
            true if cost.units == 0 => Ok(self),
            true => Ok(Self { full_at, ..self }),
            false => Err(full_at.since(allowed)),
        }
    }

    /// The bucket after `cost` was spent elsewhere, whatever it holds: at worst it is empty, never in debt.
    #[must_use]
    pub fn charge(self, cost: &BucketCost, now: Timestamp) -> Self {
        let spent = self.full_at.max(now).plus(cost.lasts(cost.units));
        let empty = now.plus(cost.lasts(cost.capacity));
        Self {
            full_at: spent.min(empty).max(self.full_at),
            ..self
        }
    }

    /// The bucket after the units of `cost` were put back.
    #[must_use]
    pub fn give_back(self, cost: &BucketCost) -> Self {
        Self {
            full_at: self.full_at.minus(cost.lasts(cost.units)),
            ..self
        }
    }

    /// The bucket, stopped until `until`; a longer stop stays.
    #[must_use]
    pub fn freeze(self, until: Timestamp) -> Self {
        Self {
            frozen_until: self.frozen_until.max(until),
            ..self
        }
    }
}

/// A bucket that is not full, or is frozen, as listed: by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRecord {
    /// Its key.
    pub bucket: String,
    /// It is full after so long.
    pub full_in: Duration,
    /// It gives nothing for so long.
    pub frozen_for: Duration,
}

impl BucketRecord {
    /// How many units a bucket of this size and rate still holds, frozen or not.
    #[must_use]
    pub fn left(&self, refill: Duration, capacity: u32) -> u32 {
        let refill = whole_millis(refill).as_millis().max(1);
        let used = self.full_in.as_millis().div_ceil(refill);
        capacity.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }
}

fn whole_millis(duration: Duration) -> Duration {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(units: u32) -> BucketCost {
        BucketCost {
            bucket: "b".to_owned(),
            units,
            refill: Duration::from_secs(36),
            capacity: 3,
        }
    }

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    #[test]
    fn a_full_bucket_gives_its_capacity_and_then_one_unit_each_refill() {
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            bucket = bucket.take(&cost(1), NOW).unwrap();
        }
        assert_eq!(bucket.take(&cost(1), NOW), Err(Duration::from_secs(36)));
        let later = NOW.plus(Duration::from_secs(35));
        assert_eq!(bucket.take(&cost(1), later), Err(Duration::from_secs(1)));
        let refilled = NOW.plus(Duration::from_secs(36));
        let bucket = bucket.take(&cost(1), refilled).unwrap();
        assert!(bucket.take(&cost(1), refilled).is_err());
    }

    #[test]
    fn a_frozen_bucket_gives_nothing_until_it_thaws() {
        let frozen = Bucket::default().freeze(NOW.plus(Duration::from_secs(60)));
        assert_eq!(frozen.take(&cost(1), NOW), Err(Duration::from_secs(60)));
        assert_eq!(frozen.take(&cost(0), NOW), Err(Duration::from_secs(60)));
        assert!(frozen.take(&cost(1), frozen.frozen_until).is_ok());
        assert_eq!(frozen.freeze(NOW), frozen, "a longer stop stays");
    }

    #[test]
    fn more_than_the_capacity_is_never_given_and_nothing_overflows() {
        assert!(Bucket::default().take(&cost(4), NOW).is_err());
        let endless = BucketCost {
            refill: Duration::MAX,
            units: u32::MAX,
            ..cost(0)
        };
        assert!(Bucket::default().take(&endless, Timestamp::MAX).is_err());
        assert!(Bucket::default().take(&cost(0), NOW).is_ok());
        assert_eq!(
            Bucket::default().charge(&endless, Timestamp::MAX).full_at,
            Timestamp::MAX
        );
    }

    #[test]
    fn a_cost_of_nothing_asks_whether_so_much_is_left_and_takes_nothing() {
        let one_left = |capacity: u32| BucketCost {
            capacity: capacity - 1,
            ..cost(0)
        };
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(&one_left(3), NOW), Ok(bucket));
            bucket = bucket.take(&cost(1), NOW).unwrap();
        }
        assert_eq!(bucket.take(&one_left(3), NOW), Err(Duration::from_secs(36)));
    }

    #[test]
    fn what_was_spent_elsewhere_empties_at_worst_and_what_is_given_back_can_be_taken_again() {
        let mut bucket = Bucket::default();
        for _ in 0..9 {
            bucket = bucket.charge(&cost(1), NOW);
        }
        assert_eq!(bucket.take(&cost(1), NOW), Err(Duration::from_secs(36)));
        let bucket = bucket.give_back(&cost(2));
        let bucket = bucket.take(&cost(2), NOW).unwrap();
        assert!(bucket.take(&cost(1), NOW).is_err());
        // A smaller bucket than before is empty, and no fuller than it was.
        let smaller = BucketCost {
            capacity: 1,
            ..cost(1)
        };
        assert_eq!(bucket.charge(&smaller, NOW), bucket);
    }

    #[test]
    fn a_record_tells_what_is_left() {
        let record = |full_in| BucketRecord {
            bucket: String::new(),
            full_in: Duration::from_secs(full_in),
            frozen_for: Duration::ZERO,
        };
        let refill = Duration::from_secs(36);
        for (full_in, left) in [(0, 3), (1, 2), (36, 2), (37, 1), (108, 0), (9999, 0)] {
            assert_eq!(record(full_in).left(refill, 3), left, "{full_in}");
        }
        assert_eq!(record(5).left(Duration::ZERO, 3), 0);
    }
}
