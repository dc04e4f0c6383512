//! How the store fails.

use std::fmt;
use std::sync::Arc;

/// A failure of the store. Never "unknown name", never "allowed".
#[derive(Clone, Debug)]
pub enum StoreError {
    /// It cannot be reached or is shutting down.
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
    /// It did not answer before the deadline. A change may still happen.
    Timeout,
    /// The connection broke while committing: the change may or may not have happened.
    Unknown(Arc<dyn std::error::Error + Send + Sync>),
    /// There is no room left where it writes. Reads go on.
    Full(Arc<dyn std::error::Error + Send + Sync>),
    /// It holds something that cannot be so.
    Corrupt(String),
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Trying again cannot help.
    Never,
    /// Try again with a back-off.
    Backoff,
    /// Read again first: it may have happened.
    AfterReading,
}

impl StoreError {
    /// Whether and how to try again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) | Self::Full(_) => Retry::Backoff,
            Self::Timeout | Self::Unknown(_) => Retry::AfterReading,
            Self::Corrupt(_) => Retry::Never,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(_) => f.write_str("the store is not available"),
            Self::Timeout => f.write_str("the store did not answer in time"),
            Self::Unknown(_) => f.write_str("the store broke off while committing"),
            Self::Full(_) => f.write_str("the store has no room left on its disk"),
            Self::Corrupt(what) => write!(f, "the store is corrupt: {what}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(error) | Self::Unknown(error) | Self::Full(error) => Some(&**error),
            Self::Timeout | Self::Corrupt(_) => None,
        }
    }
}
