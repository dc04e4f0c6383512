//! What fails in passing is done again within the run: a visitor may be waiting, and a back-off costs a minute.

use std::time::Duration;

use crate::base::clock::{Instant, monotonic};
use crate::ca::CaError;
use crate::certs::setback::Lane;

/// The wait before a call is made again; it doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// How often, at most.
const MOST: u32 = 4;
/// The longest wait that an authority may ask for and still be waited for in the run.
const SHORT: Duration = Duration::from_secs(10);
/// How long after the first failure it is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// The further tries that a run has for one thing.
pub(super) struct Again {
    left: u32,
    pause: Duration,
    by: Instant,
    until: Option<Instant>,
}

impl Again {
    /// All of them, until `by` at the latest.
    pub(super) const fn until(by: Instant) -> Self {
        Self {
            left: MOST,
            pause: PAUSE,
            by,
            until: None,
        }
    }

    /// Waits until the call may be made again; `false` where it is of no use in this run.
    pub(super) async fn wait_after(&mut self, error: &CaError) -> bool {
        let now = monotonic();
        let until = *self
            .until
            .get_or_insert_with(|| self.by.min(now + PATIENCE));
        let busy = matches!(Lane::of(error.code()), Lane::Authority | Lane::Limited);
        let wait = match error.retry_after() {
            Some(asked) if busy && asked <= SHORT => asked.max(self.pause),
            // One that cannot be reached may be gone, and another may be there: one try.
            None if matches!(error, CaError::Unreachable { .. }) && self.left < MOST => {
                return false;
            }
            None if error.is_passing() => self.pause,
            Some(_) | None => return false,
        };
        if self.left == 0 || now + wait >= until {
            return false;
        }
        self.left -= 1;
        self.pause *= 2;
        tracing::info!(ca = %error.ca(), %error, wait_ms = wait.as_millis(), "asked again");
        tokio::time::sleep(wait).await;
        true
    }
}
