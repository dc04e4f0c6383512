//! What the outside sees of this edge, and so what a tenant must put into its DNS.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{DnsName, NamePattern};

/// The checked `[edge]` settings that DNS requirements and checks follow from. Default: no name and no address is known,
/// and the ports are 80 and 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The name that tenants' domains should be a CNAME of.
    pub cname_target: Option<DnsName>,
    /// Public IPv4 addresses, for names that cannot be a CNAME.
    pub ipv4: Vec<Ipv4Addr>,
    /// Public IPv6 addresses, for names that cannot be a CNAME.
    pub ipv6: Vec<Ipv6Addr>,
    /// The port that authorities ask at: 80 for every public one (RFC 8555 §8.3).
    pub http_port: u16,
    /// The port that visitors reach HTTPS at.
    pub https_port: u16,
    /// The ports that this edge itself listens at for HTTP; none where that is not known.
    pub http_listening: Vec<u16>,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            cname_target: None,
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            http_port: 80,
            https_port: 443,
            http_listening: Vec::new(),
        }
    }
}

/// One DNS record that a tenant sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRecord {
    /// Its type.
    pub kind: RecordKind,
    /// The name it is set on.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// The types of records that lead a name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Another name.
    Cname,
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
}

impl RecordKind {
    /// As zone files write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cname => "CNAME",
            Self::A => "A",
            Self::Aaaa => "AAAA",
        }
    }
}

impl fmt::Display for DnsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.kind.as_str(), self.value)
    }
}

impl Edge {
    /// Whether the configuration names a name or an address of ours at all: else our own addresses cannot be told from
    /// those of others.
    #[must_use]
    pub const fn is_described(&self) -> bool {
        self.cname_target.is_some() || !self.ipv4.is_empty() || !self.ipv6.is_empty()
    }

    /// Whether `address` is one of ours, as far as the configuration says.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.contains(&address),
            IpAddr::V6(address) => self.ipv6.contains(&address),
        }
    }

    /// What must be forwarded for authorities to reach this edge, as in `port 80 to the 8080 that this edge listens at`;
    /// nothing where it listens at that port itself, or that is not known.
    #[must_use]
    pub fn forwarding(&self) -> Option<String> {
        let (asked, own) = (self.http_port, &self.http_listening);
        let first = own.first().filter(|_| !own.contains(&asked))?;
        Some(format!(
            "port {asked} to the {first} that this edge listens at"
        ))
    }

    /// Where the outside reaches port 80, as in `http://edge.example.net`, where the configuration names a host.
    #[must_use]
    pub fn http_base(&self) -> Option<String> {
        let host = self.cname_target.as_ref()?;
        Some(match self.http_port {
            80 => format!("http://{host}"),
            port => format!("http://{host}:{port}"),
        })
    }

    /// Ways to lead `pattern` here, the best first; a tenant follows one of them. A registered domain itself cannot be a
    /// CNAME (RFC 1034 §3.6.2), so there addresses come first, and the CNAME is for providers that flatten it.
    /// Empty where the edge is not described in the configuration.
    #[must_use]
    pub fn requirements(&self, pattern: &NamePattern) -> Vec<Vec<DnsRecord>> {
        let record = |kind, value: String| DnsRecord {
            kind,
            name: pattern.to_string(),
            value,
        };
        let target = self.cname_target.as_ref();
        let cname = target.map(|target| vec![record(RecordKind::Cname, target.to_string())]);
        let ipv4 = self.ipv4.iter();
        let ipv6 = self.ipv6.iter();
        let addresses: Vec<DnsRecord> = ipv4
            .map(|address| record(RecordKind::A, address.to_string()))
            .chain(ipv6.map(|address| record(RecordKind::Aaaa, address.to_string())))
            .collect();
        let addresses = (!addresses.is_empty()).then_some(addresses);
        let is_apex =
            matches!(pattern, NamePattern::Exact(name) if name.registered_domain() == *name);
        let ways = if is_apex {
            [addresses, cname]
        } else {
            [cname, addresses]
        };
        ways.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Edge {
        Edge {
            cname_target: Some(DnsName::parse("edge.example.net").unwrap()),
            ipv4: vec![Ipv4Addr::new(192, 0, 2, 1)],
            ipv6: vec!["2001:db8::1".parse().unwrap()],
            ..Edge::default()
        }
    }

    #[test]
    fn a_cname_is_asked_for_except_at_the_registered_domain() {
        for (name, kinds) in [
            ("shop.acme.com", [vec!["CNAME"], vec!["A", "AAAA"]]),
            ("*.acme.com", [vec!["CNAME"], vec!["A", "AAAA"]]),
            ("acme.co.uk", [vec!["A", "AAAA"], vec!["CNAME"]]),
        ] {
            let ways = edge().requirements(&NamePattern::parse(name).unwrap());
            let found: Vec<Vec<&str>> = ways
                .iter()
                .map(|way| way.iter().map(|record| record.kind.as_str()).collect())
                .collect();
            assert_eq!(found, kinds, "{name}");
            assert!(ways.iter().flatten().all(|record| record.name == name));
        }
    }

    #[test]
    fn a_port_that_it_does_not_listen_at_must_be_forwarded() {
        let listening = |ports: &[u16]| Edge {
            http_listening: ports.to_vec(),
            ..edge()
        };
        assert_eq!(
            listening(&[8080]).forwarding().as_deref(),
            Some("port 80 to the 8080 that this edge listens at")
        );
        assert_eq!(listening(&[8080, 80]).forwarding(), None);
        assert_eq!(edge().forwarding(), None);
    }

    #[test]
    fn an_edge_that_is_not_described_asks_for_nothing() {
        let name = NamePattern::parse("shop.acme.com").unwrap();
        assert!(Edge::default().requirements(&name).is_empty());
        assert!(!Edge::default().is_described() && edge().is_described());
    }
}
