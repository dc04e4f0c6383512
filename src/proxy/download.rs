//! The response's content on its way from the upstream to the visitor, under backpressure and deadlines.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::base::clock::monotonic;
use crate::proxy::access::Account;
use crate::proxy::headers;
use crate::proxy::upstream::pools::Lease;
use crate::proxy::upstream::watch::Cut;
use crate::telemetry::labels::End;

/// Content from an upstream. Gives its connection back when it has ended, and closes it when dropped before.
pub(in crate::proxy) struct Download {
    content: Incoming,
    lease: Option<Lease>,
    account: Rc<Account>,
}

/// Content that broke off.
#[derive(Debug)]
pub(in crate::proxy) enum Broken {
    /// The upstream broke it off, or sent what cannot be read.
    Upstream(hyper::Error),
    /// A deadline passed.
    Cut(Cut),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(_) => f.write_str("the upstream broke its content off"),
            Self::Cut(why) => write!(f, "the content was cut off: {why}"),
        }
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Upstream(error) => Some(error),
            Self::Cut(_) => None,
        }
    }
}

impl Download {
    /// The content of a response that came over `lease`. Where there is none, the connection is given back now.
    pub(in crate::proxy) fn new(content: Incoming, lease: Lease, account: Rc<Account>) -> Self {
        let mut this = Self {
            content,
            lease: Some(lease),
            account,
        };
        match this.content.is_end_stream() {
            true => this.end(),
            false => this.visitor_reads(),
        }
        this
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.account.ends(End::Completed);
            lease.give_back();
        }
    }

    fn visitor_reads(&self) {
        if let Some(watch) = self.lease.as_ref().and_then(Lease::watch) {
            watch.visitor_reads();
        }
    }

    fn upstream_waits(&self) {
        if let Some(watch) = self.lease.as_ref().and_then(Lease::watch) {
            watch.response_waits(monotonic());
        }
    }

    /// Content ended in disorder: says why, and closes the connection.
    fn breaks(&mut self, error: Option<hyper::Error>) -> Broken {
        let cut = self
            .lease
            .take()
            .and_then(|lease| lease.watch().and_then(|watch| watch.cut()));
        let broken = match (cut, error) {
            (Some(cut), _) => Broken::Cut(cut),
            (None, Some(error)) => Broken::Upstream(error),
            (None, None) => Broken::Cut(Cut::NotReusable),
        };
        self.account.ends(match &broken {
            Broken::Cut(Cut::ContentTimeout) => End::ClientTimeout,
            Broken::Cut(Cut::ReadTimeout | Cut::ResponseTimeout | Cut::SendTimeout) => {
                End::UpstreamTimeout
            }
            Broken::Cut(Cut::Idle | Cut::Abandoned | Cut::NotReusable) => End::UpstreamClosed,
            Broken::Upstream(error) if error.is_parse() => End::UpstreamMalformed,
            Broken::Upstream(_) => End::UpstreamClosed,
        });
        broken
    }

    fn was_cut(&self) -> bool {
        let watch = self.lease.as_ref().and_then(Lease::watch);
        watch.is_some_and(|watch| watch.cut().is_some())
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.content).poll_frame(cx) {
            Poll::Pending => {
                self.upstream_waits();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                self.account.sent(frame.data_ref().map_or(0, Bytes::len));
                if let Some(trailers) = frame.trailers_mut() {
                    headers::filter_trailers(trailers);
                }
                match self.content.is_end_stream() || frame.is_trailers() {
                    // hyper does not ask a body for more that says it has ended.
                    true => self.end(),
                    false => self.visitor_reads(),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.breaks(Some(error))))),
            // A connection that was cut off must not look like content that has ended.
            Poll::Ready(None) if self.was_cut() => Poll::Ready(Some(Err(self.breaks(None)))),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none() || self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
