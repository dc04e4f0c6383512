//! `[listen]`: where visitors come in.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use ipnet::IpNet;

use super::seconds;
use crate::config::reader::{At, Table};
use crate::config::value;

/// Addresses of one kind to listen on.
const MOST_ADDRESSES: usize = 16;
/// Ranges of trusted proxies.
const MOST_RANGES: usize = 1024;

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum OldestTls {
    V12,
    V13,
}

const TLS: &[(&str, OldestTls)] = &[("1.2", OldestTls::V12), ("1.3", OldestTls::V13)];

#[derive(Debug, Default)]
pub(in crate::config) struct Listen {
    pub(in crate::config) place: Range<usize>,
    pub(in crate::config) http: Option<Vec<At<SocketAddr>>>,
    pub(in crate::config) https: Option<Vec<At<SocketAddr>>>,
    pub(in crate::config) workers: Option<At<u32>>,
    pub(in crate::config) proxy_protocol: Option<At<bool>>,
    pub(in crate::config) trusted_proxies: Option<Vec<At<IpNet>>>,
    pub(in crate::config) minimum_tls: Option<At<OldestTls>>,
    pub(in crate::config) drain_delay: Option<At<Duration>>,
    pub(in crate::config) drain_idle: Option<At<Duration>>,
    pub(in crate::config) drain_deadline: Option<At<Duration>>,
}

pub(super) fn read(mut table: Table<'_>) -> Listen {
    let listen = Listen {
        place: table.place(),
        http: table.list("http", MOST_ADDRESSES, value::socket_address),
        https: table.list("https", MOST_ADDRESSES, value::socket_address),
        workers: table.optional("workers", value::count(1..=1024)),
        proxy_protocol: table.optional("proxy_protocol", value::flag),
        trusted_proxies: table.list("trusted_proxies", MOST_RANGES, value::range),
        minimum_tls: table.optional("minimum_tls", value::word(TLS)),
        drain_delay: table.optional("drain_delay", value::duration(seconds(0)..=seconds(3600))),
        drain_idle: table.optional("drain_idle", value::duration(seconds(0)..=seconds(3600))),
        drain_deadline: table.optional(
            "drain_deadline",
            value::duration(seconds(1)..=seconds(86_400)),
        ),
    };
    table.finish();
    listen
}
