//! What is kept of a request that has ended.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Uri};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::model::route::UpstreamName;
use crate::model::{DnsName, TenantId};
use crate::telemetry::labels::{End, Protocol};
use crate::telemetry::metrics::EndedRequest;

/// The most octets of a path that are kept.
const MOST_PATH: usize = 1024;

/// A request that has ended.
#[derive(Clone, Debug)]
pub struct AccessRecord {
    /// When its head had been read.
    pub at: Timestamp,
    /// Its id, as passed to the upstream and back.
    pub request: RequestId,
    /// Whose domain it asked for, where that is known.
    pub tenant: Option<TenantId>,
    /// The name it asked for.
    pub domain: Option<DnsName>,
    /// The visitor's address: behind a trusted proxy, what that says it is.
    pub client: IpAddr,
    /// Its connection's TLS; none on port 80.
    pub tls: Option<Tls>,
    /// Its connection's HTTP version.
    pub protocol: Protocol,
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: RequestPath,
    /// The status sent; 0 where none was.
    pub status: u16,
    /// Bytes of its content.
    pub bytes_in: u64,
    /// Bytes of the response's content.
    pub bytes_out: u64,
    /// From its head to the end of the response.
    pub duration: Duration,
    /// The upstream it went to.
    pub upstream: Option<UpstreamName>,
    /// From the request sent there to the head of its response.
    pub upstream_duration: Option<Duration>,
    /// Why it ended.
    pub end: End,
}

impl AccessRecord {
    /// What the metrics want to know of it.
    #[must_use]
    pub const fn for_metrics(&self) -> EndedRequest<'_> {
        EndedRequest {
            tenant: self.tenant.as_ref(),
            status: self.status,
            protocol: self.protocol,
            end: self.end,
            duration: self.duration,
        }
    }
}

/// A request's id: made here, or given by a trusted proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// Made here.
    Made(Uuid),
    /// Taken over from a trusted proxy.
    Given(Arc<str>),
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(id) => fmt::Display::fmt(id, f),
            Self::Given(id) => f.write_str(id),
        }
    }
}

/// A path without its query, at most 1024 octets of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath(Box<str>);

impl RequestPath {
    /// The path of a request's target.
    #[must_use]
    pub fn of(target: &Uri) -> Self {
        let path = target.path();
        let end = path.floor_char_boundary(MOST_PATH);
        Self(Box::from(path.get(..end).unwrap_or_default()))
    }

    /// The path as received, not escaped.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is said of a connection's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The version.
    pub version: TlsVersion,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// The TLS versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl TlsVersion {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_query_and_a_bound() {
        let path = |target: &str| RequestPath::of(&target.parse().unwrap());
        assert_eq!(path("/a/b?token=secret").as_str(), "/a/b");
        assert_eq!(path("https://a.test/x?y").as_str(), "/x");
        assert_eq!(path(&format!("/{}", "a".repeat(5000))).as_str().len(), 1024);
    }
}
