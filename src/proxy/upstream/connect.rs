//! A new connection to an upstream: TCP, TLS where configured, HTTP/1.1, within one deadline.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxy::fault::Fault;
use crate::proxy::upstream::stream::{Received, Stream};
use crate::proxy::upstream::upload::Upload;

/// What is buffered of a response before the visitor takes it.
const BUFFER: usize = 64 * 1024;
/// The largest head of a response.
const MOST_HEAD: usize = 64 * 1024;

/// Why no connection came about.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// Nobody listens there.
    Refused(SocketAddr),
    /// There is no way there.
    Unreachable(SocketAddr, io::Error),
    /// It took too long.
    Timeout(SocketAddr, Duration),
    /// TLS failed: not spoken, or not as it should be.
    Tls(SocketAddr, io::Error),
    /// Its certificate does not prove who it is.
    Certificate(SocketAddr, rustls::CertificateError),
    /// hyper would not have it.
    Http(SocketAddr, hyper::Error),
}

impl ConnectError {
    /// The fault that a request ends with because of it.
    pub(super) const fn fault(&self) -> Fault {
        match self {
            Self::Refused(_) => Fault::Refused,
            Self::Unreachable(..) => Fault::Unreachable,
            Self::Timeout(..) => Fault::ConnectTimeout,
            Self::Tls(..) => Fault::TlsProtocol,
            Self::Certificate(..) => Fault::TlsCertificate,
            Self::Http(..) => Fault::Closed,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(address) => write!(f, "{address} refuses connections"),
            Self::Unreachable(address, _) => write!(f, "{address} cannot be reached"),
            Self::Timeout(address, after) => {
                write!(f, "no connection to {address} within {after:?}")
            }
            Self::Tls(address, _) => write!(f, "{address} does not speak TLS as it should"),
            Self::Certificate(address, why) => {
                write!(f, "the certificate of {address} is not valid: {why}")
            }
            Self::Http(address, _) => write!(f, "{address} closed the connection at once"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(_, error) | Self::Tls(_, error) => Some(error),
            Self::Http(_, error) => Some(error),
            Self::Refused(_) | Self::Timeout(..) | Self::Certificate(..) => None,
        }
    }
}

/// How to prove who is there.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// A connection that nobody drives yet.
pub(super) struct Connected {
    pub(super) sender: Sender,
    pub(super) connection: Connection<TokioIo<Stream>, Upload>,
    pub(super) received: Received,
}

/// Connects to `address` within `deadline`.
pub(super) async fn connect(
    address: SocketAddr,
    proof: Option<Proof>,
    deadline: Duration,
) -> Result<Connected, ConnectError> {
    let connected = tokio::time::timeout(deadline, Box::pin(stream(address, proof)));
    let stream = match connected.await {
        Ok(stream) => stream?,
        Err(_elapsed) => return Err(ConnectError::Timeout(address, deadline)),
    };
    let received = stream.received();
    let mut http = hyper::client::conn::http1::Builder::new();
    http.max_buf_size(BUFFER).max_header_size(MOST_HEAD);
    let handshake = http.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| ConnectError::Http(address, error))?;
    Ok(Connected {
        sender,
        connection,
        received,
    })
}

async fn stream(address: SocketAddr, proof: Option<Proof>) -> Result<Stream, ConnectError> {
    let tcp = TcpStream::connect(address).await;
    let tcp = tcp.map_err(
        |error| match error.kind() == io::ErrorKind::ConnectionRefused {
            true => ConnectError::Refused(address),
            false => ConnectError::Unreachable(address, error),
        },
    )?;
    // Costs latency where it fails, nothing else.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let Some(proof) = proof else {
        return Ok(Stream::plain(tcp));
    };
    let tls = TlsConnector::from(proof.config).connect(proof.name, tcp);
    match tls.await {
        Ok(tls) => Ok(Stream::tls(tls)),
        Err(error) => Err(tls_error(address, error)),
    }
}

fn tls_error(address: SocketAddr, error: io::Error) -> ConnectError {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match rustls {
        Some(rustls::Error::InvalidCertificate(why)) => {
            ConnectError::Certificate(address, why.clone())
        }
        _ => ConnectError::Tls(address, error),
    }
}

/// The way into a connection.
pub(super) type Sender = SendRequest<Upload>;
