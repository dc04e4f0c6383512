//! One name to its addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::base::clock::{Instant, monotonic};
use crate::dns::Settings;
use crate::model::DnsName;

/// Attempts within a look-up's deadline.
const ATTEMPTS: u32 = 2;
/// The longest that an answer is believed: the machine's hosts file gives no time at all.
const LONGEST: Duration = Duration::from_secs(3600);

/// Looks names up. Clones share one cache.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
    deadline: Duration,
}

/// A name's addresses, both families, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses; one at least.
    pub list: Vec<IpAddr>,
    /// For how long they are good, by their records.
    pub ttl: Duration,
}

/// Why there is no resolver.
#[derive(Debug)]
pub enum SetupError {
    /// The system's configuration cannot be read.
    System(NetError),
    /// The resolvers cannot be used.
    Unusable(NetError),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System(_) => {
                "the system's resolvers cannot be read from /etc/resolv.conf: name some in [dns] resolvers"
            }
            Self::Unusable(_) => "the configured resolvers cannot be used",
        })
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) | Self::Unusable(error) => Some(error),
        }
    }
}

/// Why a name has no addresses now.
#[derive(Debug)]
pub enum LookupError {
    /// No resolver answered in time.
    Deadline {
        /// The name.
        name: DnsName,
        /// How long they had.
        deadline: Duration,
    },
    /// The answer is that there are none, or that the name's servers fail.
    NoAddress {
        /// The name.
        name: DnsName,
        /// What the resolvers said.
        source: NetError,
    },
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline { name, deadline } => {
                write!(
                    f,
                    "no resolver gave the address of {name} within {} ms",
                    deadline.as_millis()
                )
            }
            Self::NoAddress { name, .. } => write!(f, "there is no address of {name}"),
        }
    }
}

impl std::error::Error for LookupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoAddress { source, .. } => Some(source),
            Self::Deadline { .. } => None,
        }
    }
}

impl Dns {
    /// A client of the resolvers in `settings`, or of the system's with its search domains and hosts file.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let mut builder = match &*settings.resolvers {
            [] => TokioResolver::builder_tokio().map_err(SetupError::System)?,
            resolvers => {
                let servers = resolvers.iter().copied().map(server).collect();
                TokioResolver::builder_with_config(
                    ResolverConfig::from_name_servers(servers),
                    TokioRuntimeProvider::default(),
                )
            }
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = settings.deadline / ATTEMPTS;
        options.attempts = 1;
        Ok(Self {
            resolver: builder.build().map_err(SetupError::Unusable)?,
            deadline: settings.deadline,
        })
    }

    pub(super) const fn resolver(&self) -> &TokioResolver {
        &self.resolver
    }

    /// The addresses of `name`.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn addresses(&self, name: &DnsName) -> Result<Addresses, LookupError> {
        let asked = self.resolver.lookup_ip(name.as_str());
        let found = tokio::time::timeout(self.deadline, asked)
            .await
            .map_err(|_elapsed| LookupError::Deadline {
                name: name.clone(),
                deadline: self.deadline,
            })?
            .map_err(|source| LookupError::NoAddress {
                name: name.clone(),
                source,
            })?;
        let until = Instant::from_std(found.valid_until());
        Ok(Addresses {
            list: found.iter().collect(),
            ttl: until.saturating_duration_since(monotonic()).min(LONGEST),
        })
    }
}

/// Names no resolver: they are in the settings.
impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

pub(super) fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}
