//! The first message of a handshake: read in however many pieces it comes, and only by rustls' own parser.

use std::io;

use rustls::server::Acceptor;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::StartHandshake;

use crate::base::clock::Instant;
use crate::certs::challenge::tls_alpn;
use crate::model::DnsName;
use crate::proxy::facts::HttpProtocol;
use crate::proxy::report::Reject;
use crate::proxy::street::{SpeaksHttp, Street};

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
    /// What it wants.
    pub intent: Intent,
    /// The handshake, waiting for a configuration.
    pub start: StartHandshake<Street>,
}

/// What a ClientHello wants, by the protocols that it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// To be served.
    Serve,
    /// A proof for a certification authority (RFC 8737).
    Prove,
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
    let intent = alpn.as_deref().map_or(Ok(Intent::Serve), intent_of_alpn);
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
    match intent {
        Err(reject) => Err(Refused::named(reject, name, start.io)),
        Ok(intent) => Ok(Hello {
            server_name: name,
            intent,
            start,
        }),
    }
}

/// What the protocols offered ask for, or what is wrong with them: found out here, before a signature is spent on
/// them. An authority offers `acme-tls/1` alone (RFC 8737 §3); beside others it is nobody's proof.
fn intent_of_alpn(offered: &[&[u8]]) -> Result<Intent, Reject> {
    let ours = [HttpProtocol::Http1.alpn(), HttpProtocol::Http2.alpn()];
    let proof = tls_alpn::PROTOCOL.as_bytes();
    match offered {
        [only] if *only == proof => Ok(Intent::Prove),
        _ if offered.contains(&proof) => Err(Reject::NoChallenge),
        _ if offered.iter().any(|protocol| ours.contains(protocol)) => Ok(Intent::Serve),
        _ => Err(Reject::NothingInCommon),
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
