//! `[limits]`: how much of a visitor is borne, and how long it is waited for.

use std::time::Duration;

use super::seconds;
use crate::config::reader::{At, Table};
use crate::config::value;

#[derive(Debug, Default)]
pub(in crate::config) struct Limits {
    pub(in crate::config) connections: Option<At<u32>>,
    pub(in crate::config) connections_per_address: Option<At<u32>>,
    pub(in crate::config) connections_per_tenant: Option<At<u32>>,
    pub(in crate::config) handshakes: Option<At<u32>>,
    pub(in crate::config) requests: Option<At<u32>>,
    pub(in crate::config) requests_per_address: Option<At<u32>>,
    pub(in crate::config) requests_per_tenant: Option<At<u32>>,
    pub(in crate::config) head_size: Option<At<u64>>,
    pub(in crate::config) target_size: Option<At<u64>>,
    pub(in crate::config) fields: Option<At<u32>>,
    pub(in crate::config) streams: Option<At<u32>>,
    pub(in crate::config) control_frames: Option<At<u32>>,
    pub(in crate::config) given_up_requests: Option<At<u32>>,
    pub(in crate::config) proxy_header_deadline: Option<At<Duration>>,
    pub(in crate::config) client_hello_deadline: Option<At<Duration>>,
    pub(in crate::config) handshake_deadline: Option<At<Duration>>,
    pub(in crate::config) head_deadline: Option<At<Duration>>,
    pub(in crate::config) keep_alive: Option<At<Duration>>,
    pub(in crate::config) keep_alive_crowded: Option<At<Duration>>,
    pub(in crate::config) read_stall: Option<At<Duration>>,
    pub(in crate::config) write_stall: Option<At<Duration>>,
    pub(in crate::config) tunnel_idle: Option<At<Duration>>,
    pub(in crate::config) upstream_idle: Option<At<Duration>>,
    pub(in crate::config) upstream_idle_connections: Option<At<u32>>,
}

pub(super) fn read(mut table: Table<'_>) -> Limits {
    const MOST: u32 = 10_000_000;
    let deadline = || value::duration(Duration::from_millis(100)..=seconds(3600));
    let tunnel_idle = value::duration(Duration::from_millis(100)..=seconds(7 * 86_400));
    let limits = Limits {
        connections: table.optional("connections", value::count(1..=MOST)),
        connections_per_address: table.optional("connections_per_address", value::count(1..=MOST)),
        connections_per_tenant: table.optional("connections_per_tenant", value::count(1..=MOST)),
        handshakes: table.optional("handshakes", value::count(1..=MOST)),
        requests: table.optional("requests", value::count(1..=MOST)),
        requests_per_address: table.optional("requests_per_address", value::count(1..=MOST)),
        requests_per_tenant: table.optional("requests_per_tenant", value::count(1..=MOST)),
        head_size: table.optional("head_size", value::size(8 << 10..=1 << 20)),
        target_size: table.optional("target_size", value::size(1 << 10..=60 << 10)),
        fields: table.optional("fields", value::count(16..=10_000)),
        streams: table.optional("streams", value::count(1..=10_000)),
        control_frames: table.optional("control_frames", value::count(1..=1_000_000)),
        given_up_requests: table.optional("given_up_requests", value::count(1..=1_000_000)),
        proxy_header_deadline: table.optional("proxy_header_deadline", deadline()),
        client_hello_deadline: table.optional("client_hello_deadline", deadline()),
        handshake_deadline: table.optional("handshake_deadline", deadline()),
        head_deadline: table.optional("head_deadline", deadline()),
        keep_alive: table.optional("keep_alive", deadline()),
        keep_alive_crowded: table.optional("keep_alive_crowded", deadline()),
        read_stall: table.optional("read_stall", deadline()),
        write_stall: table.optional("write_stall", deadline()),
        tunnel_idle: table.optional("tunnel_idle", tunnel_idle),
        upstream_idle: table.optional("upstream_idle", deadline()),
        upstream_idle_connections: table
            .optional("upstream_idle_connections", value::count(0..=100_000)),
    };
    table.finish();
    limits
}
