//! `[listen]` and `[limits]`: sockets that do not get in each other's way, whom to believe, what is borne.

use std::net::SocketAddr;

use super::{set, set_from, values};
use crate::config::file::{self, Listen, Main, OldestTls};
use crate::config::mistake::{Finding, Mistakes};
use crate::config::reader::At;
use crate::proxy::facts::TlsVersion;
use crate::proxy::limits::{Deadlines, Limits};
use crate::proxy::settings::{DrainSettings, ProxyProtocol, Settings};

pub(super) fn settle(main: &Main, mistakes: &Mistakes<'_>) -> Settings {
    check(main, mistakes);
    let listen = &main.listen;
    let mut settings = Settings {
        public_https_port: main.edge.https_port.as_ref().map(|at| at.value),
        trusted_proxies: values(listen.trusted_proxies.as_ref()),
        limits: limits(&main.limits),
        deadlines: deadlines(&main.limits),
        drain: drain(listen),
        ..Settings::default()
    };
    if listen.http.is_some() {
        settings.http = values(listen.http.as_ref());
    }
    if listen.https.is_some() {
        settings.https = values(listen.https.as_ref());
    }
    let workers = listen.workers.as_ref();
    let workers = workers.and_then(|at| usize::try_from(at.value).ok()?.try_into().ok());
    settings.workers = workers.unwrap_or(settings.workers);
    if listen.proxy_protocol.as_ref().is_some_and(|at| at.value) {
        settings.proxy_protocol = ProxyProtocol::FromTrusted;
    }
    if let Some(minimum) = &listen.minimum_tls {
        settings.tls.minimum = match minimum.value {
            OldestTls::V12 => TlsVersion::Tls12,
            OldestTls::V13 => TlsVersion::Tls13,
        };
    }
    settings
}

fn drain(section: &Listen) -> DrainSettings {
    let mut drain = DrainSettings::default();
    set(&mut drain.delay, section.drain_delay.as_ref());
    set(&mut drain.idle, section.drain_idle.as_ref());
    set(&mut drain.deadline, section.drain_deadline.as_ref());
    drain
}

fn limits(section: &file::Limits) -> Limits {
    let mut limits = Limits::default();
    let (address, tenant) = (
        &section.connections_per_address,
        &section.connections_per_tenant,
    );
    set_from(&mut limits.connections, section.connections.as_ref());
    set_from(&mut limits.connections_per_address, address.as_ref());
    set_from(&mut limits.connections_per_tenant, tenant.as_ref());
    set_from(&mut limits.handshakes, section.handshakes.as_ref());
    limits.requests = number(section.requests.as_ref());
    limits.requests_per_address = number(section.requests_per_address.as_ref());
    limits.requests_per_tenant = number(section.requests_per_tenant.as_ref());
    set_from(&mut limits.head_bytes, section.head_size.as_ref());
    set_from(&mut limits.target_bytes, section.target_size.as_ref());
    set_from(&mut limits.fields, section.fields.as_ref());
    set(&mut limits.streams, section.streams.as_ref());
    set(&mut limits.control_frames, section.control_frames.as_ref());
    let given_up = section.given_up_requests.as_ref();
    set(&mut limits.given_up_requests, given_up);
    let idle = section.upstream_idle_connections.as_ref();
    set_from(&mut limits.upstream_idle_connections, idle);
    limits
}

fn number(said: Option<&At<u32>>) -> Option<usize> {
    said.and_then(|at| usize::try_from(at.value).ok())
}

fn deadlines(section: &file::Limits) -> Deadlines {
    let mut deadlines = Deadlines::default();
    let (header, hello) = (
        &section.proxy_header_deadline,
        &section.client_hello_deadline,
    );
    set(&mut deadlines.proxy_header, header.as_ref());
    set(&mut deadlines.client_hello, hello.as_ref());
    set(
        &mut deadlines.handshake,
        section.handshake_deadline.as_ref(),
    );
    set(&mut deadlines.head, section.head_deadline.as_ref());
    set(&mut deadlines.keep_alive, section.keep_alive.as_ref());
    set(
        &mut deadlines.keep_alive_crowded,
        section.keep_alive_crowded.as_ref(),
    );
    set(&mut deadlines.read_stall, section.read_stall.as_ref());
    set(&mut deadlines.write_stall, section.write_stall.as_ref());
    set(&mut deadlines.tunnel_idle, section.tunnel_idle.as_ref());
    set(&mut deadlines.upstream_idle, section.upstream_idle.as_ref());
    deadlines
}

/// The ports of the HTTP addresses, as they are or as the default has them; one that the system picks is not known.
pub(super) fn http_ports(listen: &Listen) -> Vec<u16> {
    let addresses = match &listen.http {
        Some(addresses) => addresses.iter().map(|at| at.value).collect(),
        None => Settings::default().http,
    };
    let mut ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
    ports.retain(|port| *port != 0);
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Records listeners that cannot stand beside each other, and a PROXY protocol that nobody may speak.
fn check(main: &Main, mistakes: &Mistakes<'_>) {
    let listen = &main.listen;
    let mut taken: Vec<(&'static str, &At<SocketAddr>)> = Vec::new();
    let lists = [("http", &listen.http), ("https", &listen.https)];
    let addresses = lists
        .into_iter()
        .flat_map(|(key, list)| list.iter().flatten().map(move |at| (key, at)));
    let telemetry = main.telemetry.address.iter();
    let telemetry = telemetry.filter_map(|at| Some(("telemetry", at.value.as_ref()?, at)));
    for (key, address) in addresses {
        refuse_taken(key, (address.value, address.at.clone()), &taken, mistakes);
        taken.push((key, address));
    }
    for (key, address, at) in telemetry {
        refuse_taken(key, (*address, at.at.clone()), &taken, mistakes);
    }
    if let Some([]) = listen.https.as_deref()
        && mistakes.is_empty()
    {
        let finding = Finding::new("https in [listen] names no address");
        let finding = finding.expected("at least one, as in [\"[::]:8443\"]");
        mistakes.add(listen.place.clone(), finding);
    }
    if let Some(proxy_protocol) = listen.proxy_protocol.as_ref().filter(|at| at.value)
        && listen.trusted_proxies.as_ref().is_none_or(Vec::is_empty)
    {
        let finding =
            Finding::new("proxy_protocol without trusted_proxies: nobody would be believed")
                .expected("the ranges of addresses of your load balancers in trusted_proxies")
                .fix("add trusted_proxies = [\"10.0.0.0/8\"] with their range");
        mistakes.add(proxy_protocol.at.clone(), finding);
    }
}

fn refuse_taken(
    key: &str,
    (address, at): (SocketAddr, std::ops::Range<usize>),
    taken: &[(&'static str, &At<SocketAddr>)],
    mistakes: &Mistakes<'_>,
) {
    let clash = taken.iter().find(|(other, first)| {
        clash(first.value, address) && (*other != key || first.value == address)
    });
    if let Some((other, first)) = clash {
        let finding = Finding::new(format!(
            "{address} for {key} is already taken by {} for {other}",
            first.value
        ));
        mistakes.add(at, finding.fix("give one of them another port"));
    }
}

/// Whether both cannot be bound at once: the same port, and the same address or one that holds the other.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || any(a) || any(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_holds_every_other_of_its_port() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:0", "[::]:0", false),
        ] {
            assert_eq!(
                clash(a.parse().unwrap(), b.parse().unwrap()),
                expected,
                "{a} {b}"
            );
        }
    }
}
