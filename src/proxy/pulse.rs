//! What a connection is doing, and so by when it must do something else.
//!
//! The reading and writing side ([`crate::proxy::watched`]) and each request note what happens; the
//! connection's own task asks for the next deadline after every step. One timer per connection is enough, and
//! it is moved only when it would ring too late.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::{Instant, monotonic};
use crate::proxy::frames::credit;
use crate::proxy::limits::Deadlines;
use crate::proxy::sending::{Answers, Piece, Sending};

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
    flushed_at: AtomicU64,
    /// Pieces of answers that the visitor has not taken, over HTTP/2.
    unsent: AtomicU32,
    /// No answer has waited for its window for longer than since then.
    untaken_since: AtomicU64,
    answers: Mutex<Answers>,
    /// The answer to the request that began last, until its stream's task asks.
    begun: Mutex<Option<Arc<Sending>>>,
    stalled: AtomicBool,
    earned: AtomicU32,
    given_up: AtomicU32,
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
    /// The visitor may take nothing of an answer: it is to be looked whether that is so.
    Untaken,
}

impl Overdue {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "head_deadline",
            Self::WriteStall | Self::Untaken => "write_stall",
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
            flushed_at: AtomicU64::new(NEVER),
            unsent: AtomicU32::new(0),
            untaken_since: AtomicU64::new(NEVER),
            answers: Mutex::default(),
            begun: Mutex::default(),
            stalled: AtomicBool::new(false),
            earned: AtomicU32::new(0),
            given_up: AtomicU32::new(0),
        })
    }

    pub(super) fn mark(&self) -> u64 {
        let since = monotonic().saturating_duration_since(self.began);
        millis(since) + 1
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
        InRequest {
            pulse: Arc::clone(self),
            sending: None,
            progress: Progress::Asked,
        }
    }

    /// The same over HTTP/2. The task that hyper has run next is that of its stream: see [`Pulse::begun`].
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> InRequest {
        let sending = Arc::new(Sending::default());
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        *begun = Some(Arc::clone(&sending));
        drop(begun);
        let mut request = self.request();
        request.sending = Some(sending);
        request
    }

    /// The answer to the request whose stream's task begins, where it is the task of one.
    pub fn begun(&self) -> Option<Arc<Sending>> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.take()
    }

    /// A tunnel has taken a request's place: the connection is not idle until what is given back is dropped.
    #[must_use]
    pub fn tunnel(self: &Arc<Self>) -> InRequest {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InRequest {
            pulse: Arc::clone(self),
            sending: None,
            progress: Progress::Answered,
        }
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
            self.flushed_at.store(self.mark(), Ordering::Relaxed);
            self.idle_from_now();
        }
    }

    /// A piece of an answer has been handed out.
    pub(super) fn handed_out(&self, sending: &Arc<Sending>) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
        if !sending.is_listed() {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.add(sending);
        }
        if self.untaken_since.load(Ordering::Relaxed) == NEVER {
            self.untaken_since.store(self.mark(), Ordering::Relaxed);
        }
    }

    /// A piece of an answer has left, or will not be sent.
    pub(super) fn gone(&self) {
        if self.unsent.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_from_now();
        }
    }

    /// Resets the streams of answers of which the visitor has taken nothing for `write_stall`, though the connection
    /// itself moved. Where that does not help, the connection is to end, and what is overdue is given back.
    #[must_use]
    pub fn give_up_untaken(&self, now: Instant, write_stall: Duration) -> Option<Overdue> {
        let since = self.moment(self.untaken_since.load(Ordering::Relaxed))?;
        if now < since + write_stall {
            return None;
        }
        let now = self.mark();
        let held_up_until = match self.blocked_since.load(Ordering::Relaxed) {
            NEVER => self.flushed_at.load(Ordering::Relaxed),
            _ => now,
        };
        let limit = now.saturating_sub(millis(write_stall));
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = answers.give_up(limit, held_up_until, now);
        let oldest = looked.oldest.unwrap_or(NEVER);
        self.untaken_since.store(oldest, Ordering::Relaxed);
        looked.stuck.then_some(Overdue::WriteStall)
    }

    /// The visitor is not waited for any more: what ends from now on ends for that.
    pub fn stalls(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Drops a stream because the visitor takes nothing of it.
    pub fn drop_stalled<T>(&self, stream: T) {
        let before = self.stalled.swap(true, Ordering::Relaxed);
        drop(stream);
        self.stalled.store(before, Ordering::Relaxed);
    }

    /// Whether what ends now ends because the visitor does not read.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
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

    /// Requests that were given up since the last call before an answer to them began.
    #[must_use]
    pub fn take_given_up(&self) -> u32 {
        self.given_up.swap(0, Ordering::Relaxed)
    }

    /// The first deadline that holds now, and what is overdue when it passes; nothing while requests run and
    /// writes move, for those have deadlines of their own. While something waits for the visitor to read, the connection
    /// is not idle, whatever has been handed over.
    #[must_use]
    pub fn due(&self, deadlines: &Deadlines, keep_alive: Duration) -> Option<(Instant, Overdue)> {
        let stalled = self.moment(self.blocked_since.load(Ordering::Relaxed));
        let stall = stalled.map(|since| (since + deadlines.write_stall, Overdue::WriteStall));
        let untaken = self.moment(self.untaken_since.load(Ordering::Relaxed));
        let untaken = untaken.map(|since| (since + deadlines.write_stall, Overdue::Untaken));
        let sending = earlier(stall, untaken);
        if self.requests() > 0 {
            return sending;
        }
        let head = self.moment(self.head_since.load(Ordering::Relaxed));
        let quiet = match head {
            Some(since) => Some((since + deadlines.head, Overdue::Head)),
            None if stall.is_some() || self.unsent.load(Ordering::Relaxed) > 0 => None,
            None => self
                .moment(self.idle_since.load(Ordering::Relaxed))
                .map(|since| (since + keep_alive, Overdue::Idle)),
        };
        earlier(sending, quiet)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

type Due = Option<(Instant, Overdue)>;

fn earlier(one: Due, other: Due) -> Due {
    let both = [one, other].into_iter().flatten();
    both.min_by_key(|(at, _)| *at)
}

/// A request or a tunnel that has not ended.
#[derive(Debug)]
pub struct InRequest {
    pulse: Arc<Pulse>,
    /// Its answer, over HTTP/2.
    sending: Option<Arc<Sending>>,
    progress: Progress,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Asked,
    Answered,
}

impl InRequest {
    /// The same once its answer has begun: who gives it up now has had something of it.
    #[must_use]
    pub fn answered(mut self) -> Self {
        self.progress = Progress::Answered;
        self
    }

    /// Hands a piece of the answer out.
    #[must_use]
    pub fn hand_out(&self, data: Bytes) -> Piece {
        self.pulse.earn(data.len());
        match &self.sending {
            Some(sending) => Piece::of(data, &self.pulse, sending),
            None => Piece::plain(data),
        }
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            sending.handed_over();
        }
        if self.progress == Progress::Asked {
            self.pulse.given_up.fetch_add(1, Ordering::Relaxed);
        }
        self.pulse.idle_from_now();
        self.pulse.requests.fetch_sub(1, Ordering::Relaxed);
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
