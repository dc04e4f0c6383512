//! Where requests go: upstreams, and the routes that choose one.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::base::published::Published;
use crate::model::label::label;
use crate::model::{DnsName, NamePattern, TenantId};

label! {
    /// The name that the configuration gives to an upstream.
    UpstreamName
}

/// A place where an upstream listens, as configured: resolved again and again where it is a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// A fixed address.
    Socket(SocketAddr),
    /// A name and a port.
    Name(DnsName, u16),
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// How connections to an upstream are secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Plain HTTP.
    None,
    /// HTTPS, always verified.
    Verified {
        /// The name that its certificate must hold; the dialled name where absent.
        server_name: Option<DnsName>,
        /// PEM file contents of the roots it must chain to; the public ones where absent.
        roots: Option<Arc<[u8]>>,
    },
}

/// Deadlines towards an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// For a TCP connection and its TLS handshake.
    pub connect: Duration,
    /// From the request's end, or from its last byte sent, to the head of the response.
    pub response: Duration,
    /// Between two reads of a response body.
    pub idle: Duration,
}

impl Default for UpstreamTimeouts {
    /// 5 s, 60 s and 60 s.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(5),
            response: seconds(60),
            idle: seconds(60),
        }
    }
}

/// A backend: one or more addresses that serve the same.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: UpstreamName,
    /// Where it listens, as configured.
    pub addresses: Vec<UpstreamAddress>,
    /// Where it listens now: resolved by a task of the control plane, read by the workers.
    pub resolved: Published<Vec<SocketAddr>>,
    /// Plain or TLS.
    pub tls: UpstreamTls,
    /// Deadlines.
    pub timeouts: UpstreamTimeouts,
}

impl Upstream {
    /// An upstream whose fixed addresses are resolved already; names wait for the resolver.
    #[must_use]
    pub fn new(
        name: UpstreamName,
        addresses: Vec<UpstreamAddress>,
        tls: UpstreamTls,
        timeouts: UpstreamTimeouts,
    ) -> Self {
        let fixed = addresses.iter().filter_map(|address| match address {
            UpstreamAddress::Socket(socket) => Some(*socket),
            UpstreamAddress::Name(..) => None,
        });
        let resolved = Published::new(fixed.collect());
        Self {
            name,
            addresses,
            resolved,
            tls,
            timeouts,
        }
    }
}

/// Fields set and removed on a message's way, in this order: remove, then set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Fields taken out.
    pub remove: Vec<HeaderName>,
    /// Fields set, replacing any of the same name.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Whether nothing is to be done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }
}

/// The beginning of a path, ending at a segment: `/api` covers `/api` and `/api/x`, not `/apix`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(Arc<str>);

impl PathPrefix {
    /// Takes a prefix that begins with `/`; a trailing slash means the same as none. Nothing otherwise.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let valid = text.starts_with('/')
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
        valid.then(|| Self(Arc::from(text.trim_end_matches('/'))))
    }

    /// The prefix of every path.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from(""))
    }

    /// Whether `path` lies at or below the prefix.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&*self.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether it covers every path.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its length: among several that cover a path, the longest wins.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is the root, for clippy's sake beside [`PathPrefix::len`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_root()
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// Whose requests a route is for. The narrowest that matches wins: host, then tenant, then everyone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteScope {
    /// One host, or every host below a wildcard.
    Host(NamePattern),
    /// Every domain of a tenant.
    Tenant(TenantId),
    /// Every domain.
    Everyone,
}

/// Requests of a scope below a path go to an upstream.
#[derive(Clone, Debug)]
pub struct Route {
    /// Whose requests.
    pub scope: RouteScope,
    /// Below which path.
    pub path: PathPrefix,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// Edits of the request on its way there.
    pub request_headers: HeaderEdits,
    /// Edits of the response on its way back.
    pub response_headers: HeaderEdits,
    /// The tenants whose requests it may take, whatever its scope covers; anybody's where absent.
    pub tenants: Option<Arc<BTreeSet<TenantId>>>,
}

impl Route {
    /// Whether it may take a tenant's requests.
    #[must_use]
    pub fn is_for(&self, tenant: &TenantId) -> bool {
        let tenants = self.tenants.as_ref();
        tenants.is_none_or(|tenants| tenants.contains(tenant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let prefix = PathPrefix::new("/api/").unwrap();
        assert!(prefix.covers("/api") && prefix.covers("/api/") && prefix.covers("/api/x"));
        assert!(!prefix.covers("/apix") && !prefix.covers("/"));
        assert!(PathPrefix::new("/").unwrap().covers("/anything"));
        assert!(PathPrefix::new("api").is_none() && PathPrefix::new("/a?b").is_none());
    }
}
