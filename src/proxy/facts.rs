//! What is known of a connection once its handshake has ended; nothing of it changes afterwards but its pulse.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::certs::credential::Credential;
use crate::certs::on_demand::Origin;
use crate::model::{DnsName, TenantId};
use crate::proxy::pulse::Pulse;
use crate::proxy::tls::PolicyId;

/// A connection's number, unique within the process; the same in every log line about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Takes the number over.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who is connected to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Who visits: as the PROXY protocol says, else the peer. IPv4 is never written as mapped IPv6.
    pub visitor: SocketAddr,
    /// Who opened the TCP connection.
    pub peer: SocketAddr,
    /// Whether the peer lies within the trusted proxies: only then are its forwarding fields believed.
    pub trusted: bool,
    /// The address that was connected to: ours, or the one in the PROXY header.
    pub local: SocketAddr,
}

/// A connection after its handshake.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// Its number.
    pub id: ConnectionId,
    /// Who is connected to whom.
    pub endpoints: Endpoints,
    /// What the handshake agreed on.
    pub tls: TlsFacts,
    /// What it is doing.
    pub pulse: Arc<Pulse>,
}

/// What a handshake agreed on.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// The server name of the ClientHello, canonical.
    pub server_name: DnsName,
    /// The tenant whose domain that is.
    pub tenant: TenantId,
    /// What served it.
    pub credential: Arc<Credential>,
    /// The TLS version.
    pub version: TlsVersion,
    /// Whether a ticket spared the full handshake.
    pub resumed: bool,
    /// The TLS policy it was made under; a request for another name is served only under the same.
    pub policy: PolicyId,
    /// The protocol chosen by ALPN; HTTP/1.1 for a client without it.
    pub protocol: HttpProtocol,
    /// Where the credential came from.
    pub origin: Origin,
}

/// A TLS version that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl TlsVersion {
    /// The word for it in logs, metrics and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

/// What is spoken inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpProtocol {
    /// RFC 9112.
    Http1,
    /// RFC 9113.
    Http2,
}

impl HttpProtocol {
    /// Its ALPN identifier (RFC 7301 §6).
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// The word for it in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}
