//! The first message of a handshake: read in however many pieces it comes, and only by rustls' own parser.

use std::io;

use rustls::server::Acceptor;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::StartHandshake;

use crate::base::clock::Instant;
use crate::model::DnsName;
use crate::proxy::facts::HttpProtocol;
use crate::proxy::report::Reject;
use crate::proxy::street::{SpeaksHttp, Street};

/// The ALPN identifier of TLS-ALPN-01 challenges (RFC 8737 §4).
const ACME_ALPN: &[u8] = b"acme-tls/1";
/// The answer to plain HTTP on the TLS port.
const SPEAK_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 24\r\n\
    Connection: close\r\n\
    \r\n\
    This port speaks HTTPS.\n";

/// A ClientHello, and the handshake it begins.
pub struct Hello {
    /// The server name it asks for (RFC 6066 §3), canonical.
    pub server_name: DnsName,
    /// The handshake, waiting for a configuration.
    pub start: StartHandshake<Street>,
}

/// A visitor who is not served, and the stream to tell it on, where there is one left.
pub struct Refused {
    /// Why.
    pub reject: Reject,
    /// The server name, where one was read.
    pub server_name: Option<DnsName>,
    /// The stream.
    pub street: Option<Street>,
}

/// Reads a ClientHello from `street` until `deadline`.
///
/// # Errors
/// [`Refused`]: nothing useful came, or no name that we could serve. What rustls finds malformed has had its
/// alert already, and plain HTTP its answer.
pub async fn read(street: Street, deadline: Instant) -> Result<Hello, Refused> {
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), street);
    let start = match timeout_at(deadline, &mut acceptor).await {
        Ok(Ok(start)) => start,
        Ok(Err(error)) => {
            let reject = reject_of(&error);
            if let (Reject::PlainHttp, Some(street)) = (reject, acceptor.take_io()) {
                street.close_with(SPEAK_HTTPS).await;
            }
            return Err(Refused::early(reject));
        }
        Err(_elapsed) => return Err(Refused::early(Reject::HelloDeadline)),
    };
    let hello = start.client_hello();
    let alpn = hello.alpn().map(Iterator::collect::<Vec<_>>);
    let fault = alpn.as_deref().and_then(fault_of_alpn);
    // RFC 6066 §3: an address is no server name; rustls has none then.
    let server_name = hello
        .server_name()
        .and_then(|text| DnsName::parse(text).ok());
    let Some(name) = server_name else {
        return Err(Refused {
            reject: Reject::NoServerName,
            server_name: None,
            street: Some(start.io),
        });
    };
    match fault {
        Some(reject) => Err(Refused::named(reject, name, start.io)),
        None => Ok(Hello {
            server_name: name,
            start,
        }),
    }
}

/// What is wrong with the protocols offered: found out here, before a signature is spent on them.
fn fault_of_alpn(offered: &[&[u8]]) -> Option<Reject> {
    let ours = [HttpProtocol::Http1.alpn(), HttpProtocol::Http2.alpn()];
    if offered.contains(&ACME_ALPN) {
        Some(Reject::NoChallenge)
    } else if offered.iter().any(|protocol| ours.contains(protocol)) {
        None
    } else {
        Some(Reject::NothingInCommon)
    }
}

impl Refused {
    /// Before a server name was read, and with nobody left to tell.
    pub(in crate::proxy) const fn early(reject: Reject) -> Self {
        Self {
            reject,
            server_name: None,
            street: None,
        }
    }

    /// A server name that is not served, and the visitor to tell.
    pub(in crate::proxy) const fn named(
        reject: Reject,
        server_name: DnsName,
        street: Street,
    ) -> Self {
        Self {
            reject,
            server_name: Some(server_name),
            street: Some(street),
        }
    }

    /// A handshake that broke after its server name was read.
    pub(in crate::proxy) const fn gone(reject: Reject, server_name: DnsName) -> Self {
        Self {
            reject,
            server_name: Some(server_name),
            street: None,
        }
    }
}

fn reject_of(error: &io::Error) -> Reject {
    match error.get_ref() {
        Some(source) if source.is::<SpeaksHttp>() => Reject::PlainHttp,
        Some(source) if source.is::<rustls::Error>() => Reject::MalformedHello,
        _ => Reject::PeerGone,
    }
}
