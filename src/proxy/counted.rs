//! An answer's body that keeps its request open in the connection's [`crate::proxy::pulse::Pulse`] until it has
//! been handed over or given up.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::pulse::InRequest;
use crate::proxy::sending::Piece;

/// A body, and the request it answers.
#[derive(Debug)]
pub struct Counted<B> {
    body: B,
    request: InRequest,
}

impl<B> Counted<B> {
    /// The body that ends `request`.
    pub const fn new(body: B, request: InRequest) -> Self {
        Self { body, request }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|data| self.request.hand_out(data)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
