//! Runs a hyper connection to its end under our deadlines and the drain, with one timer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::base::clock::{Instant, monotonic};
use crate::proxy::pulse::{Overdue, Pulse};
use crate::proxy::settings::Settings;
use crate::proxy::worker::Worker;

/// How often an idle connection looks whether it has become crowded.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long an idle connection may take to close in order.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// How a connection ended; a label of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// In order, by either side.
    InOrder,
    /// The visitor broke off or broke the protocol.
    Failed,
    /// Something ran out.
    Overdue(Overdue),
    /// The drain's deadline passed.
    Cancelled,
}

impl Ended {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InOrder => "in_order",
            Self::Failed => "failed",
            Self::Overdue(overdue) => overdue.as_str(),
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a connection came back from its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Pause {
    /// It has ended.
    Ended(Ended),
    /// Nothing has come for a while: what is kept ready for requests may be let go.
    Resting,
    /// Something has come for one that rested.
    Awake,
}

/// A connection that can be asked to end.
pub(in crate::proxy) trait Conversation: Unpin {
    /// Goes on with it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause>;
    /// Asks it to end once its requests have.
    fn wind_down(&mut self);
    /// What it does when the drain begins.
    fn at_drain(&mut self);
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn ended(result: hyper::Result<()>) -> Pause {
    Pause::Ended(result.map_or(Ended::Failed, |()| Ended::InOrder))
}

impl<I, S, B> Conversation for http1::UpgradeableConnection<I, S>
where
    Self: Unpin,
    I: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        Future::poll(Pin::new(self), cx).map(ended)
    }

    fn wind_down(&mut self) {
        Pin::new(self).graceful_shutdown();
    }

    /// Nothing: an idle connection waits for one last request, whose answer says `Connection: close`.
    fn at_drain(&mut self) {}
}

impl<I, S, B> Conversation for http1::Connection<I, S>
where
    Self: Unpin,
    I: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        Future::poll(Pin::new(self), cx).map(ended)
    }

    fn wind_down(&mut self) {
        Pin::new(self).graceful_shutdown();
    }

    /// Nothing, as above.
    fn at_drain(&mut self) {}
}

impl<I, S, B, E> Conversation for http2::Connection<I, S, E>
where
    Self: Unpin,
    I: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Error: Into<BoxError>> + 'static,
    E: Http2ServerConnExec<S::Future, B>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        Future::poll(Pin::new(self), cx).map(ended)
    }

    fn wind_down(&mut self) {
        Pin::new(self).graceful_shutdown();
    }

    /// GOAWAY at once, and again when the client has seen it (RFC 9113 §6.8).
    fn at_drain(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

/// Whether an idle connection is given back to its caller to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Rest {
    /// Never.
    Never,
    /// After [`crate::proxy::limits::Deadlines::rest`].
    WhenIdle,
}

/// Drives one connection through all its conversations.
#[derive(Debug)]
pub(in crate::proxy) struct Driver {
    worker: Rc<Worker>,
    settings: Arc<Settings>,
    pulse: Arc<Pulse>,
    timer: Pin<Box<Sleep>>,
    signal: Pin<Box<WaitForCancellationFutureOwned>>,
    draining: bool,
    /// Idle for too long: closing in order until then.
    closes_by: Option<Instant>,
}

/// What is to be done with a connection that waits.
enum Look {
    Drain,
    Close,
    Leave(Pause),
    WaitUntil(Instant),
}

impl Driver {
    /// A driver under these settings; `pulse` is the connection's.
    pub(in crate::proxy) fn new(
        worker: Rc<Worker>,
        settings: Arc<Settings>,
        pulse: Arc<Pulse>,
    ) -> Self {
        let signal = Box::pin(worker.drain.wait());
        Self {
            worker,
            settings,
            pulse,
            timer: Box::pin(sleep_until(monotonic() + LOOK_EVERY)),
            signal,
            draining: false,
            closes_by: None,
        }
    }

    /// The settings that the connection began under.
    pub(in crate::proxy) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// Goes on with a conversation until it ends or pauses.
    pub(in crate::proxy) async fn run(
        &mut self,
        conversation: &mut impl Conversation,
        rest: Rest,
    ) -> Pause {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(pause) = conversation.poll(cx) {
                    return Poll::Ready(pause);
                }
                match self.look(rest, cx) {
                    Look::Drain => conversation.at_drain(),
                    Look::Close => conversation.wind_down(),
                    Look::Leave(pause) => return Poll::Ready(pause),
                    Look::WaitUntil(at) => {
                        if self.set_timer(at, cx) == Poll::Pending {
                            return Poll::Pending;
                        }
                    }
                }
            }
        })
        .await
    }

    fn look(&mut self, rest: Rest, cx: &mut Context<'_>) -> Look {
        if self.signal.as_mut().poll(cx).is_ready() {
            if self.draining {
                return Look::Leave(Pause::Ended(Ended::Cancelled));
            }
            self.draining = true;
            self.pulse.idle_from_now();
            let cancelled = self.worker.tasks.token().cancelled_owned();
            self.signal.set(cancelled);
            return Look::Drain;
        }
        let now = monotonic();
        let look = now + LOOK_EVERY;
        let (keep_alive, deadlines) = (self.keep_alive(), &self.settings.deadlines);
        if let Some(overdue) = self.pulse.give_up_untaken(now, deadlines.write_stall) {
            return self.leave(overdue);
        }
        match self.pulse.due(deadlines, keep_alive) {
            Some((at, Overdue::Idle)) if at <= now => self.close(now),
            Some((at, overdue)) if at <= now => self.leave(overdue),
            Some((at, Overdue::Idle)) if rest == Rest::WhenIdle && !self.draining => {
                let rests_at = (at + self.settings.deadlines.rest)
                    .checked_sub(keep_alive)
                    .unwrap_or(at);
                match rests_at <= now {
                    true => Look::Leave(Pause::Resting),
                    false => Look::WaitUntil(at.min(rests_at)),
                }
            }
            Some((at, _)) => Look::WaitUntil(at.min(look)),
            None => Look::WaitUntil(look),
        }
    }

    fn leave(&self, overdue: Overdue) -> Look {
        if overdue == Overdue::WriteStall {
            self.pulse.stalls();
        }
        Look::Leave(Pause::Ended(Ended::Overdue(overdue)))
    }

    /// An idle connection is asked to close in order, and given a moment for it.
    fn close(&mut self, now: Instant) -> Look {
        match self.closes_by {
            Some(by) if by <= now => Look::Leave(Pause::Ended(Ended::Overdue(Overdue::Idle))),
            Some(by) => Look::WaitUntil(by),
            None => {
                self.closes_by = Some(now + CLOSES_WITHIN);
                Look::Close
            }
        }
    }

    fn keep_alive(&self) -> Duration {
        let deadlines = &self.settings.deadlines;
        let admission = &self.worker.shared.admission;
        if self.draining {
            self.settings.drain.idle
        } else if admission.is_crowded(&self.settings.limits) {
            deadlines.keep_alive_crowded.min(deadlines.keep_alive)
        } else {
            deadlines.keep_alive
        }
    }

    /// Makes the timer ring at `at` at the latest; it is moved only where it would ring later than that.
    fn set_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.as_mut();
        if timer.deadline() > at || timer.is_elapsed() {
            timer.as_mut().reset(at);
        }
        timer.poll(cx)
    }
}
