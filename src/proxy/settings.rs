//! What the operator decides about the proxy: where to listen, how many workers, whom to believe, how much to
//! bear and how long to wait.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;

use crate::proxy::limits::{Deadlines, Limits};
use crate::proxy::tls::TlsPolicy;

/// The checked settings of [`crate::proxy`]. `https`, `http` and `workers` count at the start only; all others
/// may be published anew at any time and hold for connections accepted afterwards, at the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where TLS is spoken. Default `[::]:8443`; `[::]` takes IPv4 too, unless `0.0.0.0` with the same port
    /// stands beside it. Port 0 lets the system choose.
    pub https: Vec<SocketAddr>,
    /// Where challenges are answered and visitors sent on to HTTPS. Default `[::]:8080`.
    pub http: Vec<SocketAddr>,
    /// Worker threads, each with its own run time and sockets. Default: one per available core.
    pub workers: NonZeroUsize,
    /// Whether trusted proxies announce each visitor by the PROXY protocol. Default: not.
    pub proxy_protocol: ProxyProtocol,
    /// Whose PROXY headers and forwarding fields are believed. Default: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// The port that visitors reach HTTPS at, where it is not that of the first address of `https`.
    pub public_https_port: Option<u16>,
    /// How much is borne.
    pub limits: Limits,
    /// How long is waited.
    pub deadlines: Deadlines,
    /// The TLS policy of every tenant that has none of its own.
    pub tls: TlsPolicy,
    /// How connections end when the process does.
    pub drain: DrainSettings,
}

impl Default for Settings {
    fn default() -> Self {
        let any = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        Self {
            https: vec![any(8443)],
            http: vec![any(8080)],
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            proxy_protocol: ProxyProtocol::Off,
            trusted_proxies: Vec::new(),
            public_https_port: None,
            limits: Limits::default(),
            deadlines: Deadlines::default(),
            tls: TlsPolicy::default(),
            drain: DrainSettings::default(),
        }
    }
}

/// The port of HTTPS where the system chooses one.
const HTTPS_PORT: u16 = 8443;

impl Settings {
    /// The port that visitors reach HTTPS at, for redirects; left out of them where it is 443.
    #[must_use]
    pub fn https_port(&self) -> u16 {
        let listened = self.https.first().map(SocketAddr::port);
        let listened = listened.filter(|port| *port != 0);
        self.public_https_port.or(listened).unwrap_or(HTTPS_PORT)
    }

    /// What a reload puts in force in place of `running`: the sockets and workers are those of the start, and so is
    /// what follows from them.
    #[must_use]
    pub fn in_place_of(self, running: &Self) -> Self {
        Self {
            https: running.https.clone(),
            http: running.http.clone(),
            workers: running.workers,
            ..self
        }
    }

    /// Whether what `address` says about visitors is believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|range| range.contains(&address))
    }
}

/// Whether connections begin with a PROXY protocol header (version 1 or 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None is read.
    #[default]
    Off,
    /// A connection from a trusted proxy must begin with one. Anyone else's is taken as the visitor's own, and a
    /// header of theirs is a malformed ClientHello.
    FromTrusted,
}

/// How connections end when the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long connections are still accepted after `/readyz` has begun to answer 503. Default 5 s.
    pub delay: Duration,
    /// How long an idle HTTP/1.1 connection then waits for one last request. Default 5 s.
    pub idle: Duration,
    /// How long requests may take to end after the sockets have closed. Default 30 s.
    pub deadline: Duration,
}

impl Default for DrainSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            delay: seconds(5),
            idle: seconds(5),
            deadline: seconds(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_moves_no_socket_nor_what_follows_from_it() {
        let at = |port: u16| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let running = Settings {
            https: at(8443),
            ..Settings::default()
        };
        let next = Settings {
            https: at(9443),
            ..Settings::default()
        };
        assert_eq!(next.https_port(), 9443);
        let reloaded = next.in_place_of(&running);
        assert_eq!((reloaded.https_port(), &reloaded.https), (8443, &at(8443)));
        let public = Settings {
            public_https_port: Some(443),
            ..running.clone()
        };
        assert_eq!(public.in_place_of(&running).https_port(), 443);
        let chosen = Settings {
            https: at(0),
            ..running
        };
        assert_eq!(chosen.https_port(), HTTPS_PORT);
    }

    #[test]
    fn an_address_is_trusted_within_a_range_in_either_form() {
        let settings = Settings {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Settings::default()
        };
        let trusted = |text: &str| settings.trusts(text.parse().unwrap());
        assert!(trusted("10.1.2.3") && trusted("::ffff:10.1.2.3") && trusted("fd00::1"));
        assert!(!trusted("11.0.0.1") && !trusted("::1"));
    }
}
