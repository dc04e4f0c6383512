//! Whom a request is for: one canonical authority, and whether this connection may carry it.
//!
//! A request names its host in up to three places: the TLS server name, the target (absolute-form or
//! `:authority`), and `Host`. They are read to one [`Authority`] by one function, or the request is refused.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Scheme, Uri};
use http::{Method, Version};

use crate::model::snapshot::KnownDomain;
use crate::model::{DnsName, Snapshot};
use crate::proxy::facts::TlsFacts;
use crate::proxy::fault::Fault;
use crate::proxy::tls::PolicyId;
use std::sync::Arc;

/// The canonical authority of a request: the same for every spelling of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The host.
    pub host: DnsName,
    /// The port, where one was written and is not 443.
    pub port: Option<u16>,
}

/// The port that a target of scheme `https` means without naming it (RFC 9110 §4.2.2).
const DEFAULT_PORT: u16 = 443;

/// A request's head, as far as it names the authority.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The target.
    pub uri: &'a Uri,
    /// The fields.
    pub fields: &'a HeaderMap,
    /// The HTTP version.
    pub version: Version,
    /// The method.
    pub method: &'a Method,
}

impl Authority {
    /// Reads the one authority of a request. `expected` is the server name of the connection, which it most
    /// often is.
    ///
    /// # Errors
    /// [`Fault::BadRequest`] where there is none, more than one, or one that is no host name.
    pub fn of(request: Named<'_>, expected: &DnsName) -> Result<Self, Fault> {
        let host = only_host(request.fields)?;
        if let Some(scheme) = request.uri.scheme()
            && *scheme != Scheme::HTTPS
        {
            return Err(Fault::BadRequest("scheme_not_https"));
        }
        let target = request.uri.authority().map(http::uri::Authority::as_str);
        match (target, host) {
            (None, None) => Err(Fault::BadRequest("host_missing")),
            (None, Some(host)) => Self::read(host, expected),
            // RFC 9112 §3.2: HTTP/1.1 has a Host field whatever the form of its target.
            (Some(_), None) if request.version == Version::HTTP_11 => {
                Err(Fault::BadRequest("host_missing"))
            }
            (Some(target), None) => Self::read(target, expected),
            (Some(target), Some(host)) => {
                let read = Self::read(target, expected)?;
                match Self::read(host, expected)? == read {
                    true => Ok(read),
                    false => Err(Fault::BadRequest("host_and_target_differ")),
                }
            }
        }
    }

    fn read(text: &str, expected: &DnsName) -> Result<Self, Fault> {
        if text == expected.as_str() {
            return Ok(Self {
                host: expected.clone(),
                port: None,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, read_port(port)?),
            None => (text, None),
        };
        let host = match host == expected.as_str() {
            true => expected.clone(),
            false => DnsName::parse(host).map_err(|_wrong| Fault::BadRequest("host_malformed"))?,
        };
        Ok(Self { host, port })
    }

    /// The `Host` field that says it, taken from `spelt` where that is how it is spelt already.
    #[must_use]
    pub fn field(&self, spelt: Option<&HeaderValue>) -> Option<HeaderValue> {
        match (spelt, self.port) {
            (Some(spelt), None) if spelt.as_bytes() == self.host.as_str().as_bytes() => {
                Some(spelt.clone())
            }
            (_, None) => HeaderValue::from_str(self.host.as_str()).ok(),
            (_, Some(port)) => HeaderValue::try_from(format!("{}:{port}", self.host)).ok(),
        }
    }
}

fn only_host(fields: &HeaderMap) -> Result<Option<&str>, Fault> {
    let mut hosts = fields.get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        return Ok(None);
    };
    if hosts.next().is_some() {
        return Err(Fault::BadRequest("several_hosts"));
    }
    let text = host.to_str();
    text.map(Some)
        .map_err(|_not_ascii| Fault::BadRequest("host_malformed"))
}

fn read_port(text: &str) -> Result<Option<u16>, Fault> {
    let wrong = Fault::BadRequest("port_malformed");
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) | Err(_) => Err(wrong),
        Ok(_) if !digits => Err(wrong),
        Ok(DEFAULT_PORT) => Ok(None),
        Ok(port) => Ok(Some(port)),
    }
}

/// The domain that `host` belongs to, where this connection may carry requests for it: its own server name while
/// that still belongs to the same tenant; or another name where tenant, TLS policy and certificate agree. Under a
/// wildcard certificate of a third tenant (the platform's own) the two tenants may differ, for
/// browsers put such names on one connection; the request then belongs to its authority's tenant.
///
/// # Errors
/// [`Fault::Misdirected`]: the visitor is to open a connection for that name (RFC 9110 §15.5.20).
pub fn carried(
    host: &DnsName,
    tls: &TlsFacts,
    snapshot: &Snapshot,
    policy: impl FnOnce(&KnownDomain) -> PolicyId,
) -> Result<Arc<KnownDomain>, Fault> {
    let domain = snapshot.domain(host).filter(|domain| domain.served);
    let domain = domain.ok_or(Fault::Misdirected)?;
    let same_tenant = domain.tenant == tls.tenant;
    let carried = if *host == tls.server_name {
        same_tenant
    } else {
        policy(domain) == tls.policy
            && tls.credential.covers(host)
            && (same_tenant || is_shared_wildcard(host, tls, domain))
    };
    match carried {
        true => Ok(Arc::clone(domain)),
        false => Err(Fault::Misdirected),
    }
}

fn is_shared_wildcard(host: &DnsName, tls: &TlsFacts, domain: &KnownDomain) -> bool {
    let owner = tls.credential.tenant();
    *owner != tls.tenant
        && *owner != domain.tenant
        && tls.credential.facts.names.iter().any(|pattern| {
            pattern.is_wildcard() && pattern.covers(host) && pattern.covers(&tls.server_name)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    /// A reference that shares no code: plain string work.
    fn model(text: &str) -> Option<(String, u16)> {
        let lower = text.to_lowercase();
        let (host, port) = match lower.split_once(':') {
            None => (lower.as_str(), 443),
            Some((host, port)) => {
                let plain = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
                let number: u32 = plain.then(|| port.parse().ok()).flatten()?;
                (host, u16::try_from(number).ok().filter(|n| *n > 0)?)
            }
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        let numeric = host.rsplit('.').next()?.chars().all(|c| c.is_ascii_digit());
        (host.split('.').all(label) && !numeric).then(|| (host.to_owned(), port))
    }

    fn spelling() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            4 => prop::sample::select(vec!["a.test", "b.test", "A.Test", "a.test.", "x.a.test", "xn--bcher-kva.test"])
                .prop_map(str::to_owned),
            1 => "[aAbB.@/:,_*%-]{0,6}",
            1 => Just("127.0.0.1".to_owned()),
        ];
        let port = prop_oneof![
            3 => Just(String::new()),
            1 => prop::sample::select(vec![":443", ":8443", ":0", ":", ":+1", ":99999", ":4 4"])
                .prop_map(str::to_owned),
        ];
        (host, port).prop_map(|(host, port)| host + &port)
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]

        #[test]
        fn every_spelling_reads_as_the_model_says(sni in prop::sample::select(vec!["a.test", "b.test"]),
            target in prop::option::of(spelling()), hosts in prop::collection::vec(spelling(), 0..3)) {
            let uri = match &target {
                Some(target) => match format!("https://{target}/").parse::<Uri>() {
                    Ok(uri) if uri.authority().is_some_and(|read| read.as_str() == target) => uri,
                    // The parser before us refuses it, or reads a path in it.
                    _ => return Ok(()),
                },
                None => Uri::from_static("/"),
            };
            let mut fields = HeaderMap::new();
            for host in &hosts {
                fields.append(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            let named = Named { uri: &uri, fields: &fields, version: Version::HTTP_11, method: &Method::GET };
            let expected = match (target.as_deref().map(model), hosts.as_slice()) {
                (None, [host]) => model(host),
                (Some(target), [host]) if target == model(host) => target,
                _ => None,
            };
            let got = Authority::of(named, &DnsName::parse(sni).unwrap()).ok();
            let got = got.map(|own| (own.host.as_str().to_owned(), own.port.unwrap_or(443)));
            prop_assert_eq!(got, expected, "{} {:?} {:?}", sni, target, hosts);
        }
    }
}
