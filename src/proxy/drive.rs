//! Runs a hyper connection to its end under our deadlines and the drain, with one timer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
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

/// A connection that can be asked to end.
pub(in crate::proxy) trait Conversation:
    Future<Output = hyper::Result<()>>
{
    /// Asks it to end once its requests have.
    fn wind_down(self: Pin<&mut Self>);
    /// What it does when the drain begins.
    fn at_drain(self: Pin<&mut Self>);
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<I, S, B> Conversation for http1::UpgradeableConnection<I, S>
where
    I: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    /// Nothing: an idle connection waits for one last request, whose answer says `Connection: close`.
    fn at_drain(self: Pin<&mut Self>) {}
}

impl<I, S, B> Conversation for http1::Connection<I, S>
where
    I: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    /// Nothing, as above.
    fn at_drain(self: Pin<&mut Self>) {}
}

impl<I, S, B, E> Conversation for http2::Connection<I, S, E>
where
    I: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
    E: Http2ServerConnExec<S::Future, B>,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }

    /// GOAWAY at once, and again when the client has seen it (RFC 9113 §6.8).
    fn at_drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs `connection` to its end.
pub(in crate::proxy) async fn to_end<C: Conversation>(
    worker: &Worker,
    settings: &Settings,
    pulse: &Pulse,
    connection: C,
) -> Ended {
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(monotonic() + LOOK_EVERY));
    let mut signal = pin!(worker.drain.wait());
    let mut driver = Driver {
        worker,
        settings,
        pulse,
        draining: false,
        closes_by: None,
    };
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(result.map_or(Ended::Failed, |()| Ended::InOrder));
            }
            match driver.look(signal.as_mut(), cx) {
                Look::Drain => connection.as_mut().at_drain(),
                Look::Close => connection.as_mut().wind_down(),
                Look::End(ended) => return Poll::Ready(ended),
                Look::WaitUntil(at) => {
                    if set(timer.as_mut(), at, cx) == Poll::Pending {
                        return Poll::Pending;
                    }
                }
            }
        }
    })
    .await
}

struct Driver<'a> {
    worker: &'a Worker,
    settings: &'a Settings,
    pulse: &'a Pulse,
    draining: bool,
    /// Idle for too long: closing in order until then.
    closes_by: Option<Instant>,
}

/// What is to be done with a connection that waits.
enum Look {
    Drain,
    Close,
    End(Ended),
    WaitUntil(Instant),
}

impl Driver<'_> {
    fn look(
        &mut self,
        mut signal: Pin<&mut WaitForCancellationFutureOwned>,
        cx: &mut Context<'_>,
    ) -> Look {
        if signal.as_mut().poll(cx).is_ready() {
            if self.draining {
                return Look::End(Ended::Cancelled);
            }
            self.draining = true;
            self.pulse.idle_from_now();
            signal.set(self.worker.tasks.token().cancelled_owned());
            return Look::Drain;
        }
        let now = monotonic();
        let look = now + LOOK_EVERY;
        match self.pulse.due(&self.settings.deadlines, self.keep_alive()) {
            Some((at, Overdue::Idle)) if at <= now => match self.closes_by {
                Some(by) if by <= now => Look::End(Ended::Overdue(Overdue::Idle)),
                Some(by) => Look::WaitUntil(by),
                None => {
                    self.closes_by = Some(now + CLOSES_WITHIN);
                    Look::Close
                }
            },
            Some((at, overdue)) if at <= now => Look::End(Ended::Overdue(overdue)),
            Some((at, _)) => Look::WaitUntil(at.min(look)),
            None => Look::WaitUntil(look),
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
}

/// Makes `timer` ring at `at` at the latest; it is moved only where it would ring later than that.
fn set(mut timer: Pin<&mut Sleep>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if timer.deadline() > at || timer.is_elapsed() {
        timer.as_mut().reset(at);
    }
    timer.poll(cx)
}
