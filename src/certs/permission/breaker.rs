//! Stops asking a hook that fails, and tries it again with one call at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::clock::{Instant, monotonic};

/// Failures in a row that open the breaker.
const MOST_FAILURES: u32 = 5;
/// How long it stays open: 1 s, then longer with every failed probe.
const PAUSE: Backoff = Backoff {
    first: Duration::from_secs(1),
    factor: 2,
    most: Duration::from_secs(30),
};
/// How long a probe may be out before another one may go: its caller was dropped.
const LOST_PROBE: Duration = Duration::from_secs(60);

/// A circuit breaker. After five failures in a row it refuses all calls for a second, then lets one through as a
/// probe; the probe's success closes it, its failure doubles the pause, up to 30 s.
#[derive(Debug)]
pub struct Breaker {
    began: Instant,
    state: Mutex<State>,
    /// No call before then, in nanoseconds since `began`; 0 while closed. Read by workers without the lock.
    refuse_until: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    failures: u32,
    probe_since: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            began: monotonic(),
            state: Mutex::default(),
            refuse_until: AtomicU64::new(0),
        }
    }
}

/// What a result did to the breaker; for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// It opened.
    Opened,
    /// It closed again.
    Closed,
}

impl Breaker {
    /// Whether calls are refused at `now` without a look at the probe: cheap, for workers.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        self.since_began(now) < self.refuse_until.load(Ordering::Relaxed)
    }

    /// Whether a call may go out at `now`. Each `true` must be followed by [`Breaker::succeeded`] or
    /// [`Breaker::failed`].
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        let mut state = self.state();
        if state.failures < MOST_FAILURES {
            return true;
        }
        let is_probing = state
            .probe_since
            .is_some_and(|since| now < since + LOST_PROBE);
        if self.is_open(now) || is_probing {
            return false;
        }
        state.probe_since = Some(now);
        true
    }

    /// A call brought an answer.
    pub fn succeeded(&self) -> Turn {
        let mut state = self.state();
        let was_open = state.failures >= MOST_FAILURES;
        *state = State::default();
        self.refuse_until.store(0, Ordering::Relaxed);
        match was_open {
            true => Turn::Closed,
            false => Turn::None,
        }
    }

    /// A call failed at `now`.
    pub fn failed(&self, now: Instant) -> Turn {
        let mut state = self.state();
        // Calls that went out before it opened and fail later say nothing new.
        if state.failures >= MOST_FAILURES && state.probe_since.is_none() {
            return Turn::None;
        }
        state.failures = state.failures.saturating_add(1);
        state.probe_since = None;
        if state.failures < MOST_FAILURES {
            return Turn::None;
        }
        let pause = PAUSE.after(state.failures - MOST_FAILURES + 1);
        self.refuse_until
            .store(self.since_began(now + pause), Ordering::Relaxed);
        match state.failures {
            MOST_FAILURES => Turn::Opened,
            _ => Turn::None,
        }
    }

    fn since_began(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_five_failures_in_a_row_probes_once_and_closes_on_success() {
        let breaker = Breaker::default();
        let at = |millis| breaker.began + Duration::from_millis(millis);
        for _ in 0..4 {
            assert!(breaker.admits(at(0)));
            assert_eq!(breaker.failed(at(0)), Turn::None);
        }
        assert_eq!(breaker.succeeded(), Turn::None);
        for _ in 0..4 {
            assert_eq!(breaker.failed(at(0)), Turn::None);
        }
        assert_eq!(breaker.failed(at(0)), Turn::Opened);
        assert!(breaker.is_open(at(999)) && !breaker.admits(at(999)));
        // One probe, the others wait for its end.
        assert!(!breaker.is_open(at(1000)) && breaker.admits(at(1000)));
        assert!(!breaker.admits(at(1001)));
        assert_eq!(breaker.failed(at(1500)), Turn::None);
        assert!(!breaker.admits(at(3499)) && breaker.admits(at(3500)));
        assert_eq!(breaker.succeeded(), Turn::Closed);
        assert!(breaker.admits(at(3501)) && breaker.admits(at(3501)));
    }

    #[test]
    fn a_probe_whose_caller_vanished_does_not_block_for_ever() {
        let breaker = Breaker::default();
        let start = breaker.began;
        for _ in 0..5 {
            breaker.failed(start);
        }
        // A straggler of before does not lengthen the pause.
        assert_eq!(
            breaker.failed(start + Duration::from_millis(900)),
            Turn::None
        );
        let probe = start + Duration::from_secs(2);
        assert!(breaker.admits(probe) && !breaker.admits(probe));
        assert!(breaker.admits(probe + LOST_PROBE));
    }
}
