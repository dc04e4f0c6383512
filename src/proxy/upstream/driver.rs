//! Runs one connection to an upstream: hyper's state machine, one timer for every deadline, and the knife.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep_until};

use crate::base::clock::{Instant, monotonic};
use crate::proxy::upstream::watch::Watch;

/// Ends when the connection does, in order or not. Dropping it closes the connection.
pub(super) struct Driver<C> {
    connection: C,
    watch: Rc<Watch>,
    timer: Pin<Box<Sleep>>,
    /// When the timer rings: moved forward at once, back only when it has rung.
    rings: Instant,
}

impl<C: Future<Output = hyper::Result<()>> + Unpin> Driver<C> {
    pub(super) fn new(connection: C, watch: Rc<Watch>) -> Self {
        let rings = match watch.due() {
            Some((at, _)) => at,
            None => monotonic() + watch.patience().response,
        };
        Self {
            connection,
            watch,
            timer: Box::pin(sleep_until(rings)),
            rings,
        }
    }

    /// Whether a deadline has passed; arms the timer for the next where not.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let due = self.watch.due();
            if let Some((at, _)) = due
                && at < self.rings
            {
                self.ring_at(at);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let now = monotonic();
            match due {
                Some((at, why)) if at <= now => {
                    self.watch.cut_off(why);
                    return true;
                }
                Some((at, _)) => self.ring_at(at),
                // Nothing is due while a response's head is handed over, and in tunnels.
                None => self.ring_at(now + self.watch.patience().response),
            }
        }
    }

    fn ring_at(&mut self, at: Instant) {
        self.rings = at;
        self.timer.as_mut().reset(at);
    }
}

impl<C: Future<Output = hyper::Result<()>> + Unpin> Future for Driver<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.cut().is_some() {
            return Poll::Ready(());
        }
        if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to upstream ended");
            }
            return Poll::Ready(());
        }
        if self.watch.cut().is_some() || self.is_overdue(cx) {
            return Poll::Ready(());
        }
        self.watch.wake_driver_by(cx);
        Poll::Pending
    }
}
