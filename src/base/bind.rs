//! Why an address cannot be listened on, and what to do about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why an address cannot be listened on.
#[derive(Debug)]
pub enum BindError {
    /// Somebody listens there already.
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 need a privilege.
    NotPermitted {
        /// The address.
        address: SocketAddr,
    },
    /// The machine has no such address.
    NotAvailable {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    Failed {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    /// From what the system said of `address`.
    #[must_use]
    pub fn new(address: SocketAddr, source: io::Error) -> Self {
        let kind = source.kind();
        if kind == io::ErrorKind::AddrInUse {
            Self::InUse { address }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::NotPermitted { address }
        } else if kind == io::ErrorKind::AddrNotAvailable {
            Self::NotAvailable { address }
        } else {
            Self::Failed { address, source }
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { address } => write!(
                f,
                "address {address} is in use; `ss -ltnp 'sport = :{}'` shows by which process",
                address.port()
            ),
            Self::NotPermitted { address } => write!(
                f,
                "not permitted to listen on {address}; ports below 1024 need CAP_NET_BIND_SERVICE, \
                 or a socket handed over by systemd"
            ),
            Self::NotAvailable { address } => write!(
                f,
                "this machine has no address {}; `ip address` shows those it has",
                address.ip()
            ),
            Self::Failed { address, .. } => write!(f, "cannot listen on {address}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { source, .. } => Some(source),
            Self::InUse { .. } | Self::NotPermitted { .. } | Self::NotAvailable { .. } => None,
        }
    }
}
