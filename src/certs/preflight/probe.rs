//! Our own challenge, asked for as an authority would: at each address, in the name's name, over port 80, redirects
//! followed as authorities follow them (at most ten, to ports 80 and 443, certificates not verified).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::header::{LOCATION, SERVER};
use url::Url;

use crate::certs::preflight::Dial;
use crate::certs::preflight::cdn::Cdn;
use crate::certs::preflight::facts::{Fetch, Found};
use crate::dns::examine::Examiner;
use crate::model::DnsName;
use crate::model::edge::Edge;
use crate::net::address::is_public;
use crate::net::direct::{self, Ask, DirectError, Scheme, Seen};

/// Redirects that Let's Encrypt follows.
const MOST_REDIRECTS: usize = 10;
/// For one step.
const STEP: Duration = Duration::from_secs(4);
/// Of what a server says it is.
const MOST_SERVER: usize = 64;

/// What is asked for, and where one may look.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub(super) examiner: &'a Examiner,
    pub(super) edge: &'a Edge,
    pub(super) dial: Dial,
    pub(super) name: &'a DnsName,
    pub(super) token: &'a str,
    pub(super) expected: &'a str,
}

/// Where the next question goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: Scheme,
    host: DnsName,
    port: u16,
    path: String,
}

impl Probe<'_> {
    /// Whether an address that DNS names may be dialled: a stranger's record never leads into our own network.
    pub(super) fn may_dial(&self, address: IpAddr) -> bool {
        self.dial == Dial::Any || is_public(address) || self.edge.has_address(address)
    }

    /// Asks at one address.
    pub(super) async fn fetch(&self, address: IpAddr) -> Fetch {
        let by_address = Cdn::by_address(address);
        if !self.may_dial(address) {
            return Fetch {
                address,
                found: Found::NotPublic,
                cdn: by_address,
            };
        }
        let (found, by_fields) = self.follow(address).await;
        Fetch {
            address,
            found,
            cdn: by_address.or(by_fields),
        }
    }

    async fn follow(&self, address: IpAddr) -> (Found, Option<Cdn>) {
        let mut place = Place {
            scheme: Scheme::Http,
            host: self.name.clone(),
            port: self.edge.http_port,
            path: format!("/.well-known/acme-challenge/{}", self.token),
        };
        let (mut seen_places, mut cdn, mut at) = (Vec::new(), None, address);
        loop {
            let ask = Ask {
                address: SocketAddr::new(at, place.port),
                host: &place.host,
                path: &place.path,
                scheme: place.scheme,
            };
            let seen = match Box::pin(direct::get(ask, STEP)).await {
                Ok(seen) => seen,
                Err(DirectError::NoRoute(_)) if seen_places.is_empty() => {
                    return (Found::NoRoute, cdn);
                }
                Err(error) => return (Found::Unreachable(told(&place, &error, &seen_places)), cdn),
            };
            cdn = cdn.or_else(|| Cdn::by_fields(&seen.headers));
            if seen.status.is_success() && is_ours(&seen.body, self.expected) {
                return (Found::Ours, cdn);
            }
            let Some(location) = redirect(&seen) else {
                return (other(&seen, &place, &seen_places), cdn);
            };
            seen_places.push(place.clone());
            if seen_places.len() > MOST_REDIRECTS {
                return (
                    Found::Loop(format!("more than {MOST_REDIRECTS} redirects")),
                    cdn,
                );
            }
            let Some(next) = self.next(&place, location) else {
                return (Found::Loop("a redirect that no authority follows: only http and https, to a name, at ports 80 and 443".to_owned()), cdn);
            };
            if seen_places.contains(&next) {
                return (Found::Loop("a redirect in a circle".to_owned()), cdn);
            }
            at = match self.address_of(&next, (&place, at)).await {
                Some(address) => address,
                None => {
                    let why = format!("a redirect to {}, which has no public address", next.host);
                    return (Found::Unreachable(why), cdn);
                }
            };
            place = next;
        }
    }

    /// Where a redirect leads, if an authority follows it.
    fn next(&self, from: &Place, location: &str) -> Option<Place> {
        let scheme = match from.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let base = Url::parse(&format!("{scheme}://{}{}", from.host, from.path)).ok()?;
        let url = base.join(location).ok()?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let usual = match scheme {
            Scheme::Http => self.edge.http_port,
            Scheme::Https => self.edge.https_port,
        };
        let port = url.port().unwrap_or(usual);
        if port != self.edge.http_port && port != self.edge.https_port {
            return None;
        }
        let query = url.query().map(|query| format!("?{query}"));
        Some(Place {
            scheme,
            host: DnsName::parse(url.host_str()?).ok()?,
            port,
            path: format!("{}{}", url.path(), query.unwrap_or_default()),
        })
    }

    /// The address to go on at: the same for the same host, else the first that may be dialled.
    async fn address_of(&self, next: &Place, (from, at): (&Place, IpAddr)) -> Option<IpAddr> {
        if next.host == from.host {
            return Some(at);
        }
        let records = Box::pin(self.examiner.records(&next.host)).await;
        let mut addresses = records.addresses();
        addresses.find(|address| self.may_dial(*address))
    }
}

/// RFC 8555 §8.3: white space at the end is ignored.
fn is_ours(body: &[u8], expected: &str) -> bool {
    body.trim_ascii_end() == expected.as_bytes()
}

fn redirect(seen: &Seen) -> Option<&str> {
    if !matches!(seen.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    seen.headers.get(LOCATION)?.to_str().ok()
}

fn other(seen: &Seen, place: &Place, before: &[Place]) -> Found {
    let server = seen
        .headers
        .get(SERVER)
        .and_then(|value| value.to_str().ok());
    Found::Other {
        status: seen.status.as_u16(),
        server: server.map(|text| text.chars().take(MOST_SERVER).collect()),
        at: (!before.is_empty()).then(|| place.to_string()),
    }
}

fn told(place: &Place, error: &DirectError, before: &[Place]) -> String {
    match before.is_empty() {
        true => format!("port {}: {error}", place.port),
        false => format!("after a redirect to {place}: {error}"),
    }
}

/// Without the path: it holds the token, or what a stranger made up.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.host)
    }
}

#[cfg(test)]
mod tests;
