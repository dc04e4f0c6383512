//! `[edge]`: what the outside sees of this edge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;
use crate::model::DnsName;

/// Public addresses of one family.
const MOST_ADDRESSES: usize = 64;

#[derive(Debug, Default)]
pub(in crate::config) struct Edge {
    pub(in crate::config) cname_target: Option<At<DnsName>>,
    pub(in crate::config) ipv4: Option<Vec<At<Ipv4Addr>>>,
    pub(in crate::config) ipv6: Option<Vec<At<Ipv6Addr>>>,
    pub(in crate::config) http_port: Option<At<u16>>,
    pub(in crate::config) https_port: Option<At<u16>>,
}

pub(super) fn read(mut table: Table<'_>) -> Edge {
    let edge = Edge {
        cname_target: table.optional("cname_target", value::host),
        ipv4: table.list("ipv4", MOST_ADDRESSES, ipv4),
        ipv6: table.list("ipv6", MOST_ADDRESSES, ipv6),
        http_port: table.optional("http_port", value::port),
        https_port: table.optional("https_port", value::port),
    };
    table.finish();
    edge
}

fn ipv4(value: &Value<'_>) -> Result<Ipv4Addr, Wrong> {
    match value::ip_address(value) {
        Ok(IpAddr::V4(address)) => Ok(address),
        Ok(IpAddr::V6(_)) => Err(Wrong::expected("an IPv4 address").fix("move it to ipv6")),
        Err(_) => Err(Wrong::expected(
            r#"an IPv4 address without a port, as in "192.0.2.1""#,
        )),
    }
}

fn ipv6(value: &Value<'_>) -> Result<Ipv6Addr, Wrong> {
    match value::ip_address(value) {
        Ok(IpAddr::V6(address)) => Ok(address),
        Ok(IpAddr::V4(_)) => Err(Wrong::expected("an IPv6 address").fix("move it to ipv4")),
        Err(_) => Err(Wrong::expected(
            r#"an IPv6 address without brackets and port, as in "2001:db8::1""#,
        )),
    }
}
