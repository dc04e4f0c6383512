//! The request's content on its way from the visitor to the upstream, under backpressure and deadlines.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::base::clock::{Instant, monotonic};
use crate::proxy::access::Account;
use crate::proxy::headers;
use crate::proxy::upstream::watch::Watch;

/// How slowly content may come on average, once the first wait has passed: 240 octets per second.
const LEAST_PER_SECOND: u64 = 240;

/// Content from a visitor, as the upstream's connection takes it.
pub(in crate::proxy) struct Upload {
    content: Option<Incoming>,
    watch: Rc<Watch>,
    account: Rc<Account>,
    waits_since: Option<Instant>,
    waited: Duration,
    taken: u64,
}

/// Why content ends early.
#[derive(Debug)]
pub(in crate::proxy) struct UploadError(hyper::Error);

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the visitor's content broke off")
    }
}

impl std::error::Error for UploadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl Upload {
    /// The content of a request, if it has any, over the connection that `watch` watches.
    pub(in crate::proxy) const fn new(
        content: Option<Incoming>,
        watch: Rc<Watch>,
        account: Rc<Account>,
    ) -> Self {
        Self {
            content,
            watch,
            account,
            waits_since: None,
            waited: Duration::ZERO,
            taken: 0,
        }
    }

    /// The content back, where the connection never took any of it.
    pub(in crate::proxy) fn into_untouched(self) -> Option<Incoming> {
        self.content
            .filter(|_| self.taken == 0 && self.waits_since.is_none())
    }

    fn waits(&mut self) {
        let now = monotonic();
        let since = *self.waits_since.get_or_insert(now);
        let single = self.watch.patience().content;
        let in_all = single + Duration::from_secs(self.taken / LEAST_PER_SECOND);
        let left = in_all.saturating_sub(self.waited);
        self.watch.upload_waits(since + single.min(left));
    }

    fn moved(&mut self, bytes: usize) {
        let now = monotonic();
        if let Some(since) = self.waits_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.taken += bytes as u64;
        self.account.received(bytes);
        match self.is_end_stream() {
            // hyper does not ask a body for more that says it has ended.
            true => self.watch.upload_ended(now),
            false => self.watch.upload_moved(now),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(content) = &mut self.content else {
            return Poll::Ready(None);
        };
        match Pin::new(content).poll_frame(cx) {
            Poll::Pending => {
                self.waits();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                self.moved(frame.data_ref().map_or(0, Bytes::len));
                if let Some(trailers) = frame.trailers_mut() {
                    headers::filter_trailers(trailers);
                    self.watch.upload_ended(monotonic());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.watch.upload_failed();
                Poll::Ready(Some(Err(UploadError(error))))
            }
            Poll::Ready(None) => {
                self.watch.upload_ended(monotonic());
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.content.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let content = self.content.as_ref();
        content.map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
