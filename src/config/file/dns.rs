//! `[dns]`: who is asked for the addresses of upstreams and hooks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::seconds;
use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;

/// Resolvers that are asked in turn.
const MOST_RESOLVERS: usize = 8;
const PORT: u16 = 53;

#[derive(Debug, Default)]
pub(in crate::config) struct Dns {
    pub(in crate::config) resolvers: Option<Vec<At<SocketAddr>>>,
    pub(in crate::config) deadline: Option<At<Duration>>,
}

pub(super) fn read(mut table: Table<'_>) -> Dns {
    let dns = Dns {
        resolvers: table.list("resolvers", MOST_RESOLVERS, resolver),
        deadline: table.optional(
            "deadline",
            value::duration(Duration::from_millis(100)..=seconds(60)),
        ),
    };
    table.finish();
    dns
}

/// An address, with port 53 where it names none.
fn resolver(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    let text = value.text().unwrap_or_default();
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    bare.or_else(|_not_bare| text.parse()).map_err(|_source| {
        Wrong::expected(r#"a resolver's IP address, with a port or without, as in "127.0.0.1:53""#)
    })
}
