//! An idle HTTP/1.1 connection without hyper's buffers: only its TLS session waits for the next request.
//!
//! hyper keeps 16 KiB for each connection. Thousands of visitors who have read a page and may come back would
//! cost as much as if they were busy; so between requests that are far apart the stream alone is kept.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::proxy::drive::{Conversation, Ended, Pause};
use crate::proxy::pulse::Overdue;
use crate::proxy::street::Written;
use crate::proxy::watched::Watched;

/// A stream that waits for its next byte.
#[derive(Debug)]
pub(in crate::proxy) struct Resting<'a, S> {
    stream: &'a mut Watched<S>,
    /// Why it closes, once it does.
    closing: Option<Ended>,
}

impl<'a, S> Resting<'a, S> {
    /// Lets `stream` rest.
    pub(in crate::proxy) const fn new(stream: &'a mut Watched<S>) -> Self {
        Self {
            stream,
            closing: None,
        }
    }
}

impl<S: AsyncBufRead + AsyncWrite + Written + Unpin> Conversation for Resting<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        if self.closing.is_none() {
            match ready!(self.stream.poll_readable(cx)) {
                Ok(true) => return Poll::Ready(Pause::Awake),
                Ok(false) => self.closing = Some(Ended::InOrder),
                Err(_broken) => return Poll::Ready(Pause::Ended(Ended::Failed)),
            }
        }
        let closed = ready!(Pin::new(&mut *self.stream).poll_shutdown(cx));
        let ended = match closed {
            Ok(()) => self.closing.unwrap_or(Ended::InOrder),
            Err(_broken) => Ended::Failed,
        };
        Poll::Ready(Pause::Ended(ended))
    }

    fn wind_down(&mut self) {
        self.closing = Some(Ended::Overdue(Overdue::Idle));
    }

    /// Nothing: one last request may come.
    fn at_drain(&mut self) {}
}
