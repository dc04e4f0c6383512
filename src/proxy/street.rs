//! The TCP stream under TLS: bytes that were read ahead come first, plain HTTP is told from TLS, and the places
//! that the connection has taken are given back when the stream goes, even where a tunnel outlives its request.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::proxy::admission::{AddressPlace, Place, TenantPlace};
use crate::telemetry::family::Entered;

/// How long a last word may take to be sent and read.
const LAST_WORD: Duration = Duration::from_secs(1);
/// What is still read of a visitor who is told that he came wrong, so that the system does not reset the
/// connection before he has read why.
const LINGER_BYTES: u64 = 64 * 1024;

/// What a connection holds until its stream is gone.
#[derive(Debug)]
pub struct Places {
    /// Among all connections.
    pub connection: Place,
    /// Among those of the client's address.
    pub address: Option<AddressPlace>,
    /// Among those of the tenant.
    pub tenant: Option<TenantPlace>,
    /// In the metric of open connections.
    pub counted: Entered,
}

/// A visitor's TCP stream.
#[derive(Debug)]
pub struct Street {
    tcp: TcpStream,
    ahead: Vec<u8>,
    passed: usize,
    first: First,
    written: u64,
    /// What the connection holds.
    pub places: Places,
}

/// A stream whose other side's progress can be told from what we were able to put into a buffer.
pub trait Written {
    /// Bytes that the system has taken for the visitor.
    fn written(&self) -> u64;
}

impl Written for Street {
    fn written(&self) -> u64 {
        self.written
    }
}

impl Written for TlsStream<Street> {
    fn written(&self) -> u64 {
        self.get_ref().0.written
    }
}

/// Whether the first byte has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Awaited,
    Seen,
}

/// The visitor speaks plain HTTP where TLS was expected.
#[derive(Debug)]
pub struct SpeaksHttp;

impl fmt::Display for SpeaksHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain HTTP where TLS was expected")
    }
}

impl std::error::Error for SpeaksHttp {}

impl Street {
    /// A stream of which `ahead` has been read already; the rest begins with TLS.
    #[must_use]
    pub const fn new(tcp: TcpStream, ahead: Vec<u8>, places: Places) -> Self {
        Self {
            tcp,
            ahead,
            passed: 0,
            first: First::Awaited,
            written: 0,
            places,
        }
    }

    /// The same stream, for a port where plain HTTP is expected.
    #[must_use]
    pub fn into_plain(mut self) -> Self {
        self.first = First::Seen;
        self
    }

    /// Sends `word` and closes: within a second, and without regard to whether it arrives.
    pub async fn close_with(mut self, word: &[u8]) {
        let farewell = async {
            self.tcp.write_all(word).await?;
            self.tcp.shutdown().await?;
            let mut rest = self.tcp.take(LINGER_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // Whether the visitor heard it changes nothing for us.
        drop(timeout(LAST_WORD, farewell).await);
    }

    fn note_written(&mut self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.written = self.written.wrapping_add(*bytes as u64);
        }
    }

    fn read_ahead(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.ahead.get(self.passed..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let length = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..length).unwrap_or_default());
        self.passed += length;
        if self.passed == self.ahead.len() {
            (self.ahead, self.passed) = (Vec::new(), 0);
        }
        true
    }

    fn look_at(&mut self, first: Option<&u8>) -> io::Result<()> {
        let Some(byte) = first else { return Ok(()) };
        self.first = First::Seen;
        // A TLS record begins with its type, 22 for a handshake (RFC 8446 §5.1); every method with a letter.
        match byte.is_ascii_uppercase() {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, SpeaksHttp)),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Street {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if !self.read_ahead(buf) {
            ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        }
        match self.first {
            First::Seen => Poll::Ready(Ok(())),
            First::Awaited => Poll::Ready(self.look_at(buf.filled().get(before))),
        }
    }
}

impl AsyncWrite for Street {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.note_written(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.note_written(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}
