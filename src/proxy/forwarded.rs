//! `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239): who visits, for whom, by what.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::proxy::facts::Endpoints;
use crate::proxy::headers::{Author, Origin};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// The longest list of earlier hops that is believed.
const MOST_HOPS_BYTES: usize = 2048;

/// Sets the four fields. What a believed proxy wrote is kept and, where the field is a list, continued. Anyone
/// else's has been removed before.
pub(super) fn set(fields: &mut HeaderMap, origin: Origin<'_>) {
    let visitor = origin.endpoints.visitor.ip().to_canonical();
    let mut address = Text::<48>::default();
    // An address has at most 45 characters.
    let _fits = write!(address, "{visitor}").is_ok();
    let author = Author::of(origin.endpoints);
    let host = fields.get(header::HOST).cloned();
    match author {
        Author::Visitor => {
            set_to(fields, X_FORWARDED_FOR, address.as_bytes());
            fields.insert(X_FORWARDED_PROTO, HTTPS);
        }
        Author::TrustedProxy => {
            append(fields, &X_FORWARDED_FOR, address.as_bytes());
            let proto = fields.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
            if !matches!(proto, Some(b"http" | b"https")) {
                fields.insert(X_FORWARDED_PROTO, HTTPS);
            }
        }
    }
    if let Some(host) = host
        && !(author == Author::TrustedProxy && fields.contains_key(X_FORWARDED_HOST))
    {
        fields.insert(X_FORWARDED_HOST, host);
    }
    let mut element = Text::<400>::default();
    // A host has at most 253 characters, a port five.
    let _fits = write_element(&mut element, visitor, &origin).is_ok();
    match author {
        Author::Visitor => set_to(fields, header::FORWARDED, element.as_bytes()),
        Author::TrustedProxy => append(fields, &header::FORWARDED, element.as_bytes()),
    }
}

/// RFC 7239 §4, §6: an IPv6 address is bracketed, and what holds a colon is quoted.
fn write_element(
    element: &mut Text<400>,
    visitor: IpAddr,
    origin: &Origin<'_>,
) -> std::fmt::Result {
    match visitor {
        IpAddr::V4(v4) => write!(element, "for={v4}")?,
        IpAddr::V6(v6) => write!(element, "for=\"[{v6}]\"")?,
    }
    match origin.authority.port {
        None => write!(element, ";host={}", origin.authority.host)?,
        Some(port) => write!(element, ";host=\"{}:{port}\"", origin.authority.host)?,
    }
    element.write_str(";proto=https")
}

fn set_to(fields: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(value) {
        fields.insert(name, value);
    }
}

fn append(fields: &mut HeaderMap, name: &HeaderName, element: &[u8]) {
    let earlier = fields.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut list = earlier.collect::<Vec<_>>().join(&b", "[..]);
    if list.len() > MOST_HOPS_BYTES {
        list.clear();
    }
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element);
    set_to(fields, name.clone(), &list);
}

/// The visitor as access records show it: behind believed proxies, the last address that one of them did not
/// write about itself; else who is connected.
#[must_use]
pub fn visitor(fields: &HeaderMap, endpoints: &Endpoints) -> IpAddr {
    let author = Author::of(endpoints);
    let last = fields.get_all(X_FORWARDED_FOR).iter().next_back();
    let told = last
        .filter(|_| author == Author::TrustedProxy)
        .and_then(|value| value.to_str().ok())
        .and_then(|list| list.rsplit(',').next())
        .and_then(|address| address.trim().parse::<IpAddr>().ok());
    told.unwrap_or_else(|| endpoints.visitor.ip())
        .to_canonical()
}

/// Text on the stack, of at most `N` octets.
struct Text<const N: usize> {
    octets: [u8; N],
    length: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self {
            octets: [0; N],
            length: 0,
        }
    }
}

impl<const N: usize> Text<N> {
    fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

impl<const N: usize> std::fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let place = self
            .octets
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
