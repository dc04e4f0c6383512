//! `[[upstream]]`: a backend.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::seconds;
use crate::config::mistake::Finding;
use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;
use crate::model::DnsName;
use crate::model::route::UpstreamAddress;

/// Addresses of one upstream.
const MOST_ADDRESSES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Protocol {
    Http,
    Https,
}

const PROTOCOLS: &[(&str, Protocol)] = &[("http", Protocol::Http), ("https", Protocol::Https)];

#[derive(Debug)]
pub(in crate::config) struct Upstream {
    pub(in crate::config) name: At<String>,
    pub(in crate::config) addresses: Vec<At<UpstreamAddress>>,
    pub(in crate::config) protocol: Protocol,
    pub(in crate::config) server_name: Option<At<DnsName>>,
    pub(in crate::config) root: Option<At<PathBuf>>,
    pub(in crate::config) connect_timeout: Option<At<Duration>>,
    pub(in crate::config) response_timeout: Option<At<Duration>>,
    pub(in crate::config) idle_timeout: Option<At<Duration>>,
}

const ADDRESS: &str = r#"a host and a port, as in "127.0.0.1:3000" or "core.internal:8080""#;

pub(super) fn read(mut table: Table<'_>) -> Option<Upstream> {
    let timeout = || value::duration(Duration::from_millis(10)..=seconds(86_400));
    let name = table.required("name", "a name for routes to refer to", value::label);
    let addresses = table.required_list("addresses", MOST_ADDRESSES, ADDRESS, address);
    let protocol = table.optional("protocol", value::word(PROTOCOLS));
    let protocol = protocol.map_or(Protocol::Http, |protocol| protocol.value);
    if protocol == Protocol::Http {
        for key in ["server_name", "root"] {
            table.forbid(key, "is only for an upstream with protocol = \"https\"");
        }
    }
    let server_name = table.optional("server_name", value::host);
    if protocol == Protocol::Https && server_name.is_none() {
        refuse_ambiguous(&table, &addresses);
    }
    let root = table.optional("root", value::path);
    let connect_timeout = table.optional("connect_timeout", timeout());
    let response_timeout = table.optional("response_timeout", timeout());
    let idle_timeout = table.optional("idle_timeout", timeout());
    table.finish();
    Some(Upstream {
        name: name?,
        addresses,
        protocol,
        server_name,
        root,
        connect_timeout,
        response_timeout,
        idle_timeout,
    })
}

/// Records that several names are dialled and none is said to be the one that certificates must hold: such an
/// upstream could never be verified.
fn refuse_ambiguous(table: &Table<'_>, addresses: &[At<UpstreamAddress>]) {
    let mut names = addresses.iter().filter_map(|at| match &at.value {
        UpstreamAddress::Name(name, _) => Some((name, at)),
        UpstreamAddress::Socket(_) => None,
    });
    let Some((first, _)) = names.next() else {
        return;
    };
    if let Some((other, at)) = names.find(|(name, _)| *name != first) {
        let finding = Finding::new(format!(
            "an [[upstream]] by HTTPS with several names, {first} and {other}, and no \"server_name\""
        ));
        let finding = finding.expected("the one name that the certificate at each address holds");
        let fix =
            format!("add server_name = \"{first}\", or make each name an [[upstream]] of its own");
        table.mistake(at.at.clone(), finding.fix(fix));
    }
}

fn address(value: &Value<'_>) -> Result<UpstreamAddress, Wrong> {
    let text = value.text().ok_or_else(|| Wrong::expected(ADDRESS))?;
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return match socket.port() {
            0 => Err(Wrong::expected("a port from 1 to 65535")),
            _ => Ok(UpstreamAddress::Socket(socket)),
        };
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(Wrong::expected(ADDRESS).fix(format!(
            "write {rest:?}, and protocol = {scheme:?} beside it"
        )));
    }
    let (name, port) = text
        .rsplit_once(':')
        .ok_or_else(|| Wrong::expected(ADDRESS).fix("add the port"))?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Wrong::expected("a port from 1 to 65535"))?;
    match DnsName::parse(name) {
        Ok(name) => Ok(UpstreamAddress::Name(name, port)),
        Err(error) => Err(Wrong::expected(format!("{ADDRESS}: {error}"))),
    }
}
