//! The stream that hyper reads and writes: notes progress in the connection's [`Pulse`] and stops floods.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::base::clock::monotonic;
use crate::proxy::frames::{Allowance, FrameMeter};
use crate::proxy::pulse::Pulse;
use crate::proxy::street::Written;

/// A stream under watch.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    reading: Reading,
    /// What had been written when last looked at.
    written: u64,
}

/// How heads are told from the rest of what is read.
#[derive(Debug)]
enum Reading {
    /// Whatever comes outside a request begins a head.
    Http1,
    /// Frames tell; and more for nothing than is allowed ends the connection.
    Http2 {
        meter: Box<FrameMeter>,
        most: Allowance,
        /// Whether everything that hyper handed over to be written has been taken: frames are whole then.
        between_frames: bool,
    },
}

/// GOAWAY for every stream so far (2^31 - 1) with `ENHANCE_YOUR_CALM` (RFC 9113 §6.8, §7).
const CALM_DOWN: [u8; 17] = [
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11,
];

/// More control frames came than the connection's work pays for, or more requests were given up than is borne.
#[derive(Debug)]
pub struct Flooded;

impl fmt::Display for Flooded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many HTTP/2 control frames or abandoned requests")
    }
}

impl std::error::Error for Flooded {}

impl<S> Watched<S> {
    /// A stream that speaks HTTP/1.1.
    pub const fn http1(stream: S, pulse: Arc<Pulse>) -> Self {
        Self {
            stream,
            pulse,
            reading: Reading::Http1,
            written: 0,
        }
    }

    /// A stream that speaks HTTP/2 and may send `most` for nothing.
    pub fn http2(stream: S, pulse: Arc<Pulse>, most: Allowance) -> Self {
        let meter = Box::new(FrameMeter::new(monotonic()));
        Self {
            stream,
            pulse,
            reading: Reading::Http2 {
                meter,
                most,
                between_frames: true,
            },
            written: 0,
        }
    }

    fn note_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.reading {
            Reading::Http1 if self.pulse.requests() == 0 && !bytes.is_empty() => {
                self.pulse.head_begun();
            }
            Reading::Http1 => {}
            Reading::Http2 { meter, most, .. } => {
                meter.pass(bytes);
                match meter.is_in_head() {
                    true => self.pulse.head_begun(),
                    false => self.pulse.head_ended(),
                }
                meter.earn(self.pulse.take_earned());
                meter.give_up(self.pulse.take_given_up());
                if meter.is_flooded(*most, monotonic()) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, Flooded));
                }
            }
        }
        Ok(())
    }
}

impl<S: Written> Watched<S> {
    /// Notes what became of a write. That it was taken says nothing yet: TLS has a buffer of its own.
    fn note_write(
        &mut self,
        outcome: Poll<io::Result<usize>>,
        offered: usize,
    ) -> Poll<io::Result<usize>> {
        if let (Reading::Http2 { between_frames, .. }, Poll::Ready(Ok(taken))) =
            (&mut self.reading, &outcome)
        {
            *between_frames = *taken == offered;
        }
        self.note_progress();
        if outcome.is_pending() {
            self.pulse.write_blocked();
        }
        outcome
    }

    /// Notes what became of everything written so far.
    fn note_flush<T>(&mut self, outcome: Poll<T>) -> Poll<T> {
        self.note_progress();
        match outcome {
            Poll::Pending => self.pulse.write_blocked(),
            Poll::Ready(_) => self.pulse.flushed(),
        }
        outcome
    }

    fn note_progress(&mut self) {
        let written = self.stream.written();
        if written != self.written {
            self.written = written;
            self.pulse.write_moved();
        }
    }
}

impl<S: AsyncBufRead + Unpin> Watched<S> {
    /// Whether there is something to read, which stays to be read; not at the stream's end.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let filled = Pin::new(&mut self.stream).poll_fill_buf(cx);
        filled.map_ok(|bytes| !bytes.is_empty())
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Tells a flooding visitor why he is cut off, where no frame is half written and nothing must be waited for.
    fn calm_down(&mut self, cx: &mut Context<'_>) {
        if let Reading::Http2 {
            between_frames: true,
            ..
        } = self.reading
            && let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(cx, &CALM_DOWN)
        {
            // He is cut off whether it arrives or not.
            drop(Pin::new(&mut self.stream).poll_flush(cx));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        let noted = self.note_read(read);
        if noted.is_err() {
            self.calm_down(cx);
        }
        Poll::Ready(noted)
    }
}

impl<S: AsyncWrite + Written + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(outcome, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.note_flush(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.note_flush(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_write(outcome, bufs.iter().map(|buf| buf.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
