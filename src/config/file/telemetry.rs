//! `[telemetry]`: what is told, where, and how much of it.

use std::net::SocketAddr;

use crate::config::reader::{At, Table};
use crate::config::value;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum LogFormat {
    Json,
    Text,
}

/// How much of a visitor's address is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum VisitorAddress {
    Full,
    Truncated,
    None,
}

#[derive(Debug, Default)]
pub(in crate::config) struct Telemetry {
    pub(in crate::config) address: Option<At<SocketAddr>>,
    pub(in crate::config) log_format: Option<At<LogFormat>>,
    pub(in crate::config) client_address: Option<At<VisitorAddress>>,
    pub(in crate::config) worst_tenants: Option<At<u32>>,
}

const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const ADDRESSES: &[(&str, VisitorAddress)] = &[
    ("full", VisitorAddress::Full),
    ("truncated", VisitorAddress::Truncated),
    ("none", VisitorAddress::None),
];

pub(super) fn read(mut table: Table<'_>) -> Telemetry {
    let telemetry = Telemetry {
        address: table.optional("address", value::socket_address),
        log_format: table.optional("log_format", value::word(FORMATS)),
        client_address: table.optional("client_address", value::word(ADDRESSES)),
        worst_tenants: table.optional("worst_tenants", value::count(0..=1000)),
    };
    table.finish();
    telemetry
}
