//! Answers on their way over HTTP/2: whether the visitor takes them.
//!
//! hyper and h2 keep what is handed over until the visitor grants a window for it (RFC 9113 §5.2), for ever where he
//! never does. So each [`Piece`] notes when bytes of it leave and when it is gone. Of an answer that nothing has left for
//! too long the stream is reset, while hyper still has it; where h2 alone has the last of it, only the connection's end
//! gives the memory back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

use crate::proxy::pulse::Pulse;

/// Answers that are listed before those that have gone are swept out.
const LEAST_SWEPT: usize = 64;

/// One answer. Moments are the connection's own marks.
#[derive(Debug, Default)]
pub struct Sending {
    pieces: AtomicU32,
    moved: AtomicU64,
    listed: AtomicBool,
    /// Whether hyper has handed all of it to h2.
    handed_over: AtomicBool,
    given_up: AtomicBool,
    stream: AtomicWaker,
}

impl Sending {
    /// Whether the visitor has not taken all that was handed over.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.pieces.load(Ordering::Relaxed) > 0
    }

    /// Whether the connection's [`Answers`] have it already.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// No more of it will be handed over.
    pub fn handed_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// Ready once the visitor is not waited for any more: the stream's task is to drop its stream, which resets it.
    pub fn poll_given_up(&self, cx: &Context<'_>) -> Poll<()> {
        self.stream.register(cx.waker());
        match self.given_up.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Asks for its stream to be reset; tells whether there is one to ask.
    fn give_up(&self, now: u64) -> bool {
        let is_late = self.handed_over.load(Ordering::Relaxed);
        if is_late || self.given_up.swap(true, Ordering::Relaxed) {
            return false;
        }
        // As long again for the reset to free it.
        self.moved.store(now, Ordering::Relaxed);
        self.stream.wake();
        true
    }
}

/// The answers of a connection that its visitor may still have to take.
#[derive(Debug, Default)]
pub struct Answers {
    listed: Vec<Arc<Sending>>,
    sweep_at: usize,
}

/// What a look at all answers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Since when the one that waits longest has been waiting.
    pub oldest: Option<u64>,
    /// Whether one is stuck that no reset frees.
    pub stuck: bool,
}

impl Answers {
    /// Adds an answer of which a piece was handed out, unless it is there already.
    pub fn add(&mut self, sending: &Arc<Sending>) {
        if sending.listed.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.listed.len() >= self.sweep_at.max(LEAST_SWEPT) {
            self.sweep();
            self.sweep_at = self.listed.len() * 2;
        }
        self.listed.push(Arc::clone(sending));
    }

    fn sweep(&mut self) {
        self.listed.retain(|sending| {
            let waits = sending.waits();
            sending.listed.store(waits, Ordering::Relaxed);
            waits
        });
    }

    /// Gives up those of which nothing has left since `limit`, of which `held_up_until` counts as the earliest: until
    /// then it was not the window that they waited for.
    pub fn give_up(&mut self, limit: u64, held_up_until: u64, now: u64) -> Looked {
        self.sweep();
        let mut looked = Looked {
            oldest: None,
            stuck: false,
        };
        for sending in &self.listed {
            let since = sending.moved.load(Ordering::Relaxed).max(held_up_until);
            if since <= limit && !sending.give_up(now) {
                looked.stuck = true;
            }
            let since = sending.moved.load(Ordering::Relaxed).max(held_up_until);
            looked.oldest = Some(looked.oldest.map_or(since, |oldest| oldest.min(since)));
        }
        looked
    }
}

/// Data of an answer, as hyper passes it on.
#[derive(Debug)]
pub struct Piece {
    data: Bytes,
    way: Option<(Arc<Pulse>, Arc<Sending>)>,
}

impl Piece {
    /// A piece that nobody follows.
    pub(super) const fn plain(data: Bytes) -> Self {
        Self { data, way: None }
    }

    /// A piece of `sending`, which goes over the connection of `pulse`.
    pub(super) fn of(data: Bytes, pulse: &Arc<Pulse>, sending: &Arc<Sending>) -> Self {
        sending.pieces.fetch_add(1, Ordering::Relaxed);
        sending.moved.store(pulse.mark(), Ordering::Relaxed);
        pulse.handed_out(sending);
        Self {
            data,
            way: Some((Arc::clone(pulse), Arc::clone(sending))),
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.data.advance(bytes);
        if let Some((pulse, sending)) = &self.way {
            sending.moved.store(pulse.mark(), Ordering::Relaxed);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some((pulse, sending)) = &self.way {
            sending.pieces.fetch_sub(1, Ordering::Relaxed);
            pulse.gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(moved: u64) -> Arc<Sending> {
        let sending = Sending::default();
        sending.pieces.store(1, Ordering::Relaxed);
        sending.moved.store(moved, Ordering::Relaxed);
        Arc::new(sending)
    }

    #[test]
    fn an_answer_that_nobody_takes_loses_its_stream_and_then_its_connection() {
        let (mut answers, stalled, moves) = (Answers::default(), waiting(10), waiting(90));
        answers.add(&stalled);
        answers.add(&moves);
        let looked = |oldest, stuck| Looked {
            oldest: Some(oldest),
            stuck,
        };
        assert_eq!(answers.give_up(50, 0, 100), looked(90, false));
        assert!(stalled.given_up.load(Ordering::Relaxed));
        assert!(!moves.given_up.load(Ordering::Relaxed));
        assert!(
            answers.give_up(110, 0, 160).stuck,
            "the reset freed nothing"
        );
    }

    #[test]
    fn while_the_connection_was_held_up_no_answer_waited_for_its_window() {
        let (mut answers, held_up) = (Answers::default(), waiting(10));
        answers.add(&held_up);
        assert_eq!(answers.give_up(50, 80, 100).oldest, Some(80));
        assert!(!held_up.given_up.load(Ordering::Relaxed));
    }

    #[test]
    fn the_rest_of_an_answer_that_is_over_is_freed_by_nothing_but_the_end() {
        let (mut answers, tail) = (Answers::default(), waiting(10));
        tail.handed_over();
        answers.add(&tail);
        assert!(answers.give_up(50, 0, 100).stuck);
    }

    #[test]
    fn answers_that_have_gone_are_not_kept() {
        let mut answers = Answers::default();
        for _ in 0..1000 {
            let gone = waiting(1);
            answers.add(&gone);
            gone.pieces.store(0, Ordering::Relaxed);
        }
        assert!(answers.listed.len() <= LEAST_SWEPT + 1);
        assert_eq!(answers.give_up(50, 0, 100).oldest, None);
    }
}
