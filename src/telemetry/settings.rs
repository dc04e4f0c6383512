//! What the operator chooses about telemetry.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The checked settings of this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where `/healthz`, `/readyz` and `/metrics` are served; nowhere where absent. Default: 127.0.0.1:9180.
    /// A change needs a restart.
    pub address: Option<SocketAddr>,
    /// How log lines and access records are written. Default: text. A change needs a restart.
    pub format: Format,
    /// Which log events are written, as a filter of `tracing-subscriber`: `info`, or
    /// `info,vestibule::certs=debug`. Default: `info`. Takes effect at reload.
    pub filter: String,
    /// Where access records go. Default: standard output. A change needs a restart.
    pub access: AccessOutput,
    /// How much of a visitor's address an access record shows. Default: full. Takes effect at reload.
    pub client_address: ClientAddress,
    /// How many tenants with the most errors have a metric of their own; at most [`Settings::MOST_WORST_TENANTS`].
    /// Default: 20. A change needs a restart.
    pub worst_tenants: usize,
}

impl Settings {
    /// The most tenants that may have a metric of their own.
    pub const MOST_WORST_TENANTS: usize = 100;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::from(([127, 0, 0, 1], 9180))),
            format: Format::Text,
            filter: "info".to_owned(),
            access: AccessOutput::Stdout,
            client_address: ClientAddress::Full,
            worst_tenants: 20,
        }
    }
}

/// The form of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs, for people.
    Text,
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessOutput {
    /// Standard output; logs go to standard error.
    Stdout,
    /// Appended to a file, made with mode 0640 where absent.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// How much of a visitor's address is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// All of it.
    Full,
    /// Its network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
    Truncated,
    /// Nothing.
    None,
}
