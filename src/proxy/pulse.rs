//! What a connection is doing, and so by when it must do something else.
//!
//! The reading and writing side ([`crate::proxy::watched`]) and each request note what happens; the
//! connection's own task asks for the next deadline after every step. One timer per connection is enough, and
//! it is moved only when it would ring too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::{Instant, monotonic};
use crate::proxy::frames::credit;
use crate::proxy::limits::Deadlines;

/// "Not now", where a moment is stored as milliseconds since the beginning plus one.
const NEVER: u64 = 0;

/// Notes of one connection. Atomic only because an upgraded connection may change threads; nobody contends.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    requests: AtomicU32,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    earned: AtomicU32,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overdue {
    /// No request came.
    Idle,
    /// A head began and did not end.
    Head,
    /// The visitor reads nothing of what we send.
    WriteStall,
}

impl Overdue {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "head_deadline",
            Self::WriteStall => "write_stall",
        }
    }
}

impl Pulse {
    /// A connection that is idle from now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            began: monotonic(),
            requests: AtomicU32::new(0),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(NEVER),
            blocked_since: AtomicU64::new(NEVER),
            earned: AtomicU32::new(0),
        })
    }

    fn mark(&self) -> u64 {
        let since = monotonic()
            .saturating_duration_since(self.began)
            .as_millis();
        u64::try_from(since).unwrap_or(u64::MAX - 1) + 1
    }

    fn moment(&self, mark: u64) -> Option<Instant> {
        let since = mark.checked_sub(1)?;
        Some(self.began + Duration::from_millis(since))
    }

    /// A request has come; it lasts until what is given back is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> InRequest {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.earn(0);
        InRequest(Arc::clone(self))
    }

    /// A tunnel has taken a request's place: the connection is not idle until what is given back is dropped.
    #[must_use]
    pub fn tunnel(self: &Arc<Self>) -> InRequest {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InRequest(Arc::clone(self))
    }

    /// Requests and tunnels that have not ended.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts as idle from now on, if it is idle at all.
    pub fn idle_from_now(&self) {
        self.idle_since.store(self.mark(), Ordering::Relaxed);
    }

    /// Bytes of a head have come.
    pub fn head_begun(&self) {
        if self.head_since.load(Ordering::Relaxed) == NEVER {
            self.head_since.store(self.mark(), Ordering::Relaxed);
        }
    }

    /// No head is open.
    pub fn head_ended(&self) {
        self.head_since.store(NEVER, Ordering::Relaxed);
    }

    /// Something waits for the visitor to read.
    pub fn write_blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == NEVER {
            self.blocked_since.store(self.mark(), Ordering::Relaxed);
        }
    }

    /// The visitor has read some of it.
    pub fn write_moved(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != NEVER {
            self.blocked_since.store(self.mark(), Ordering::Relaxed);
        }
    }

    /// Nothing waits any more: where something did, the connection counts as idle from now on, if it is idle at all.
    pub fn flushed(&self) {
        if self.blocked_since.swap(NEVER, Ordering::Relaxed) != NEVER {
            self.idle_from_now();
        }
    }

    /// A piece of an answer went out, or a request came (0 bytes): what that earns of control frames.
    pub fn earn(&self, bytes: usize) {
        let now = self.earned.load(Ordering::Relaxed);
        let more = now.saturating_add(credit(bytes));
        self.earned.store(more, Ordering::Relaxed);
    }

    /// What was earned since the last call.
    #[must_use]
    pub fn take_earned(&self) -> u32 {
        self.earned.swap(0, Ordering::Relaxed)
    }

    /// The first deadline that holds now, and what is overdue when it passes; nothing while requests run and
    /// writes move, for those have deadlines of their own. While something waits for the visitor to read, the connection
    /// is not idle, whatever has been handed over.
    #[must_use]
    pub fn due(&self, deadlines: &Deadlines, keep_alive: Duration) -> Option<(Instant, Overdue)> {
        let stalled = self.moment(self.blocked_since.load(Ordering::Relaxed));
        let stall = stalled.map(|since| (since + deadlines.write_stall, Overdue::WriteStall));
        if self.requests() > 0 {
            return stall;
        }
        let head = self.moment(self.head_since.load(Ordering::Relaxed));
        let quiet = match head {
            Some(since) => Some((since + deadlines.head, Overdue::Head)),
            None if stall.is_some() => None,
            None => self
                .moment(self.idle_since.load(Ordering::Relaxed))
                .map(|since| (since + keep_alive, Overdue::Idle)),
        };
        [stall, quiet]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

/// A request or a tunnel that has not ended.
#[derive(Debug)]
pub struct InRequest(Arc<Pulse>);

impl InRequest {
    /// A piece of the answer went out.
    pub fn sent(&self, bytes: usize) {
        self.0.earn(bytes);
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.idle_from_now();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_that_of_what_the_connection_is_doing() {
        let deadlines = Deadlines::default();
        let pulse = Pulse::new();
        let due = || {
            pulse
                .due(&deadlines, deadlines.keep_alive)
                .map(|(_, why)| why)
        };
        assert_eq!(due(), Some(Overdue::Idle));
        pulse.head_begun();
        assert_eq!(due(), Some(Overdue::Head));
        let request = pulse.request();
        assert_eq!(due(), None, "a running request has its own deadlines");
        pulse.write_blocked();
        assert_eq!(due(), Some(Overdue::WriteStall));
        pulse.flushed();
        assert_eq!(due(), None);
        pulse.write_blocked();
        drop(request);
        assert_eq!(due(), Some(Overdue::WriteStall), "an answer is on its way");
        pulse.write_moved();
        assert_eq!(due(), Some(Overdue::WriteStall), "the rest of it still is");
        pulse.flushed();
        assert_eq!(due(), Some(Overdue::Idle));
    }

    #[test]
    fn a_head_is_timed_from_its_first_byte() {
        let deadlines = Deadlines::default();
        let pulse = Pulse::new();
        pulse.head_begun();
        let first = pulse.due(&deadlines, deadlines.keep_alive);
        pulse.head_begun();
        assert_eq!(pulse.due(&deadlines, deadlines.keep_alive), first);
    }
}
