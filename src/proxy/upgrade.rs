//! WebSocket: a tunnel, but only after an upgrade that we forwarded ourselves met its 101.
//!
//! A visitor asks by HTTP/1.1 (RFC 6455 §4.1) or by extended CONNECT over HTTP/2 (RFC 8441); the upstream is always
//! asked by HTTP/1.1. No other protocol is upgraded to: `Upgrade: h2c` and the like never leave here.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use crate::base::clock::{Instant, monotonic};
use crate::proxy::access::{Account, Ending};
use crate::proxy::fault::Fault;
use crate::proxy::pulse::InRequest;
use crate::proxy::worker::Worker;
use crate::telemetry::labels::End;

/// Buffer of each direction of a tunnel.
const BUFFER: usize = 16 * 1024;
/// RFC 6455 §1.3.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;

/// A visitor's wish for a tunnel.
pub(in crate::proxy) struct Wish {
    visitor: OnUpgrade,
    asked: Asked,
}

enum Asked {
    /// By `Connection: upgrade`.
    Http1,
    /// By extended CONNECT; the upstream must answer this `Sec-WebSocket-Accept` to the key we made up.
    Http2 { accept: HeaderValue },
}

/// Takes a visitor's wish for a WebSocket out of a request's head, and makes the head one that may ask an upstream
/// for it. Nothing where there is no such wish; the fields of other upgrades go with the other one-hop fields.
///
/// # Errors
/// [`Fault::Method`] for an extended CONNECT of another protocol; [`Fault::BadRequest`] for a WebSocket handshake
/// that is none.
pub(in crate::proxy) fn take(head: &mut Parts, content: &Incoming) -> Result<Option<Wish>, Fault> {
    if head.method == Method::CONNECT {
        return take_extended_connect(head).map(Some);
    }
    if head.version != Version::HTTP_11
        || !asks_for_websocket(&head.headers)
        || head.method != Method::GET
    {
        return Ok(None);
    }
    if !content.is_end_stream() {
        return Err(Fault::BadRequest("upgrade_with_content"));
    }
    let Some(visitor) = head.extensions.remove::<OnUpgrade>() else {
        return Ok(None);
    };
    Ok(Some(Wish {
        visitor,
        asked: Asked::Http1,
    }))
}

fn asks_for_websocket(fields: &HeaderMap) -> bool {
    is_only(fields, &header::UPGRADE, b"websocket") && nominates_upgrade(fields)
}

fn nominates_upgrade(fields: &HeaderMap) -> bool {
    let values = fields.get_all(header::CONNECTION).iter();
    let mut tokens = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

fn is_only(fields: &HeaderMap, name: &HeaderName, expected: &[u8]) -> bool {
    let mut values = fields.get_all(name).iter();
    values
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(expected))
        && values.next().is_none()
}

fn take_extended_connect(head: &mut Parts) -> Result<Wish, Fault> {
    let protocol = head.extensions.get::<Protocol>().map(Protocol::as_str);
    if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
        return Err(Fault::Method);
    }
    let Some(visitor) = head.extensions.remove::<OnUpgrade>() else {
        return Err(Fault::Internal);
    };
    // RFC 8441 §5: what HTTP/1.1 needs and HTTP/2 does not have.
    let key = STANDARD.encode(rand::random::<[u8; 16]>());
    let accept = accept_of(key.as_bytes());
    let key = HeaderValue::try_from(key).map_err(|_never| Fault::Internal)?;
    head.headers.insert(KEY, key);
    head.method = Method::GET;
    Ok(Wish {
        visitor,
        asked: Asked::Http2 { accept },
    })
}

/// What proves that an upstream read our key (RFC 6455 §4.2.2).
pub(in crate::proxy) fn accept_of(key: &[u8]) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX].concat());
    let text = STANDARD.encode(hash.as_ref());
    HeaderValue::try_from(text).unwrap_or(WEBSOCKET)
}

/// Asks the upstream: to be called when one-hop fields have been removed.
pub(in crate::proxy) fn ask(fields: &mut HeaderMap) {
    fields.insert(header::CONNECTION, UPGRADE);
    fields.insert(header::UPGRADE, WEBSOCKET);
}

impl Wish {
    /// Whether a visitor who is sent `status` takes the tunnel for open, though no upstream switched: extended CONNECT
    /// is granted by any 2xx (RFC 8441 §4).
    pub(in crate::proxy) fn is_granted_by(&self, status: StatusCode) -> bool {
        matches!(self.asked, Asked::Http2 { .. }) && status.is_success()
    }

    /// Checks an upstream's 101, and makes its head the visitor's: to be called before one-hop fields are
    /// removed, and followed by [`Granted::answer`].
    ///
    /// # Errors
    /// [`Fault::Upgrade`] where the upstream switched to another protocol, or does not prove that it read our request.
    pub(in crate::proxy) fn grant(self, fields: &HeaderMap) -> Result<Granted, Fault> {
        let proves = match &self.asked {
            Asked::Http1 => fields.contains_key(ACCEPT),
            Asked::Http2 { accept } => fields.get(ACCEPT) == Some(accept),
        };
        match asks_for_websocket(fields) && proves {
            true => Ok(Granted(self)),
            false => Err(Fault::Upgrade),
        }
    }
}

/// A wish that the upstream granted.
pub(in crate::proxy) struct Granted(Wish);

impl Granted {
    /// Sets what the visitor is told beside the upstream's end-to-end fields; gives the status.
    pub(in crate::proxy) fn answer(&self, fields: &mut HeaderMap) -> StatusCode {
        match self.0.asked {
            Asked::Http1 => {
                fields.insert(header::CONNECTION, UPGRADE);
                fields.insert(header::UPGRADE, WEBSOCKET);
                StatusCode::SWITCHING_PROTOCOLS
            }
            Asked::Http2 { .. } => {
                fields.remove(ACCEPT);
                StatusCode::OK
            }
        }
    }

    /// Carries bytes both ways until one side ends, nothing passes for
    /// [`tunnel_idle`](crate::proxy::limits::Deadlines::tunnel_idle), or the worker's tasks end. The request's account
    /// is closed then, and `held` lets go of the connection. Counted among the worker's tasks, so a drain waits for it.
    pub(in crate::proxy) fn tunnel(
        self,
        worker: &Worker,
        upstream: OnUpgrade,
        ending: Ending,
        held: InRequest,
    ) {
        let tasks = worker.tasks.clone();
        let idle = worker.shared.settings.load().deadlines.tunnel_idle;
        worker.tasks.spawn_local("tunnel", async move {
            let _held = held;
            let both = Box::pin(carry(self.0.visitor, upstream, idle, ending.account()));
            tokio::select! {
                end = both => ending.account().ends(end),
                () = tasks.cancelled() => ending.account().ends(End::Draining),
            }
        });
    }
}

async fn carry(
    visitor: OnUpgrade,
    upstream: OnUpgrade,
    idle: Duration,
    account: &Rc<Account>,
) -> End {
    let both = futures_util::future::try_join(visitor, upstream);
    let (visitor, upstream) = match tokio::time::timeout(idle, both).await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            tracing::debug!(%error, "tunnel did not come about");
            return End::ClientClosed;
        }
        Err(_elapsed) => return End::ClientTimeout,
    };
    let latest = Cell::new(monotonic());
    let mut visitor = Side::new(visitor, &latest, |bytes| account.received(bytes));
    let mut upstream = Side::new(upstream, &latest, |bytes| account.sent(bytes));
    let copy = copy_bidirectional_with_sizes(&mut visitor, &mut upstream, BUFFER, BUFFER);
    tokio::select! {
        copied = copy => {
            if let Err(error) = copied {
                tracing::debug!(%error, "tunnel broke off");
            }
            End::Upgraded
        }
        () = quiet(&latest, idle) => End::ClientTimeout,
    }
}

/// Ends when nothing has passed for `idle`.
async fn quiet(latest: &Cell<Instant>, idle: Duration) {
    loop {
        let until = latest.get() + idle;
        if until <= monotonic() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// One side of a tunnel: counts what is read from it.
struct Side<'a, C> {
    io: TokioIo<Upgraded>,
    latest: &'a Cell<Instant>,
    count: C,
}

impl<'a, C: Fn(usize)> Side<'a, C> {
    fn new(io: Upgraded, latest: &'a Cell<Instant>, count: C) -> Self {
        Self {
            io: TokioIo::new(io),
            latest,
            count,
        }
    }
}

impl<C: Fn(usize) + Unpin> AsyncRead for Side<'_, C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.latest.set(monotonic());
            (self.count)(read);
        }
        polled
    }
}

impl<C: Fn(usize) + Unpin> AsyncWrite for Side<'_, C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_rfc_6455() {
        let accept = accept_of(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_a_websocket_asked_for_in_full_is_a_wish() {
        let check = |upgrade: &[&str], connection: &[&str], expected: bool| {
            let mut fields = HeaderMap::new();
            for value in upgrade {
                fields.append(header::UPGRADE, value.parse().unwrap());
            }
            for value in connection {
                fields.append(header::CONNECTION, value.parse().unwrap());
            }
            assert_eq!(
                asks_for_websocket(&fields),
                expected,
                "{upgrade:?} {connection:?}"
            );
        };
        check(&["websocket"], &["Upgrade"], true);
        check(&["WebSocket"], &["keep-alive, upgrade"], true);
        check(&["websocket"], &["keep-alive", "upgrade"], true);
        check(&["websocket"], &[], false);
        check(&["websocket"], &["close"], false);
        check(&["websocket", "h2c"], &["upgrade"], false);
        check(&["websocket, h2c"], &["upgrade"], false);
        check(&["h2c"], &["upgrade"], false);
    }
}
