//! Keeping a claimed job ours, and knowing when it may no longer be.

use std::fmt;
use std::time::Duration;

use crate::base::clock::{Instant, monotonic};
use crate::store::job::{Claim, Held};
use crate::store::{Deadline, Store};

/// The wait before a failed extension is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// A lease as we may believe in it: by the monotonic clock, and only for two thirds of its length, so that a slow
/// answer or a skewed clock never makes two holders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    from: Instant,
    length: Duration,
}

/// Why a job is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Somebody else has it.
    Taken,
    /// It could not be extended in time: somebody else may have it.
    Unsure,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "another process works on the certificate",
            Self::Unsure => {
                "another process may work on the certificate: the lease of the job could not be extended in time"
            }
        })
    }
}

impl Lease {
    /// A lease that was asked for at `from`: it began no earlier.
    pub(super) const fn new(from: Instant, length: Duration) -> Self {
        Self { from, length }
    }

    fn sure_until(&self) -> Instant {
        self.from + self.length * 2 / 3
    }

    /// Extends the lease every third of its length; ends only when the job must be given up.
    pub(super) async fn keep(mut self, store: &dyn Store, claim: &Claim) -> Gone {
        let mut next = self.from + self.length / 3;
        loop {
            tokio::time::sleep_until(next.min(self.sure_until())).await;
            let asked = monotonic();
            if asked >= self.sure_until() {
                return Gone::Unsure;
            }
            let left = self.sure_until() - asked;
            match store
                .extend(Deadline::after(left), claim, self.length)
                .await
            {
                Ok(Held::Ours) => {
                    self.from = asked;
                    next = asked + self.length / 3;
                }
                Ok(Held::Lost) => return Gone::Taken,
                Err(error) => {
                    tracing::warn!(job = %claim.key, %error, "the lease could not be extended");
                    next = asked + PAUSE;
                }
            }
        }
    }
}
