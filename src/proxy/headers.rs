//! The fields of a message on their way through: what belongs to one hop goes, what we vouch for is set by us.
//!
//! The order is a rule: fields nominated by `Connection` first (but none that is protected), then those that always
//! belong to one hop, and only then ours, so that nobody outside can have ours removed or set.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};

use crate::model::TenantId;
use crate::model::route::HeaderEdits;
use crate::proxy::authority::Authority;
use crate::proxy::facts::Endpoints;
use crate::proxy::fault::Fault;
use crate::proxy::forwarded;

/// `Vestibule-Tenant`: whose request it is, for the upstream. Always set by us.
pub const TENANT: HeaderName = HeaderName::from_static("vestibule-tenant");
/// `X-Request-Id`: the same to the upstream, to the visitor and in the access record.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request's fields are made from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Who is connected.
    pub endpoints: &'a Endpoints,
    /// Whom it is for.
    pub authority: &'a Authority,
    /// Whose domain that is.
    pub tenant: &'a TenantId,
    /// Its id.
    pub request_id: &'a HeaderValue,
    /// The visitor's HTTP version.
    pub version: Version,
}

/// Who wrote the forwarding fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The visitor: they are lies until proven otherwise, and are removed.
    Visitor,
    /// A trusted proxy: they are believed and continued.
    TrustedProxy,
}

impl Author {
    /// Of a connection's requests. A trusted proxy that announces its visitor by the PROXY protocol passes the
    /// visitor's own bytes on.
    #[must_use]
    pub fn of(endpoints: &Endpoints) -> Self {
        match endpoints.trusted && endpoints.visitor == endpoints.peer {
            true => Self::TrustedProxy,
            false => Self::Visitor,
        }
    }
}

/// Makes a visitor's fields those of our request to the upstream.
pub fn to_upstream(fields: &mut HeaderMap, origin: Origin<'_>) {
    let trailers = wants_trailers(fields);
    remove_nominated(fields);
    let author = Author::of(origin.endpoints);
    remove_all(fields, |name| is_foreign(name, author));
    if origin.version == Version::HTTP_2 {
        join_cookies(fields);
    }
    if trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    set_host(fields, origin.authority);
    forwarded::set(fields, origin);
    fields.insert(REQUEST_ID, origin.request_id.clone());
    if let Ok(tenant) = HeaderValue::from_str(origin.tenant.as_str()) {
        fields.insert(TENANT, tenant);
    }
}

/// Refuses a response that could be read in two ways: framed by length and in chunks both (RFC 9112 §6.3), or
/// in a coding that we would have to undo.
///
/// # Errors
/// [`Fault::Malformed`].
pub fn check_framing(fields: &HeaderMap) -> Result<(), Fault> {
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    match chunked && !fields.contains_key(header::CONTENT_LENGTH) {
        true => Ok(()),
        false => Err(Fault::Malformed),
    }
}

/// Makes an upstream's fields those of our response.
pub fn to_visitor(fields: &mut HeaderMap, status: StatusCode, request_id: &HeaderValue) {
    remove_nominated(fields);
    // RFC 7838: an alternative service of the upstream's would take visitors away from their proxy.
    remove_all(fields, |name| is_one_hop(name) || name == "alt-svc");
    one_content_length(fields, status);
    fields.insert(REQUEST_ID, request_id.clone());
}

/// Fields that belong to one hop (RFC 9110 §7.6.1, RFC 7540 §3.2.1), in both directions. `Trailer` is not among
/// them since RFC 9110, and without it no trailers pass.
fn is_one_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "http2-settings"
    )
}

/// Whether a request asks for trailers, the only meaning of `TE` that passes a hop.
fn wants_trailers(fields: &HeaderMap) -> bool {
    let values = fields.get_all(header::TE).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Removes what `Connection` nominates, but for the fields that framing, routing and identity rest on: a visitor
/// must not be able to have them removed.
fn remove_nominated(fields: &mut HeaderMap) {
    let Some(first) = fields.get(header::CONNECTION) else {
        return;
    };
    if first.as_bytes().eq_ignore_ascii_case(b"keep-alive")
        || first.as_bytes().eq_ignore_ascii_case(b"close")
    {
        let mut values = fields.get_all(header::CONNECTION).iter();
        if values.nth(1).is_none() {
            return;
        }
    }
    let values = fields.get_all(header::CONNECTION).iter();
    let nominated: Vec<HeaderName> = values
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !is_protected(name.as_str()))
        .collect();
    for name in nominated {
        fields.remove(name);
    }
}

/// Fields that no `Connection` field can nominate away.
fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "transfer-encoding"
            | "trailer"
            | "cookie"
            | "set-cookie"
            | "authorization"
            | "cache-control"
            | "x-request-id"
            | "forwarded"
            | "location"
            | "vary"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("vestibule-")
        || name.starts_with("content-security-policy")
        || name == "strict-transport-security"
}

/// Removes the fields whose names `goes` picks: one pass over the names, and nothing is allocated where none goes.
fn remove_all(fields: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let names = fields.keys().filter(|name| goes(name.as_str()));
    let going: Vec<HeaderName> = names.cloned().collect();
    for name in going {
        fields.remove(name);
    }
}

/// What does not go from a visitor to an upstream: one-hop fields and, from visitors, what pretends to come
/// from a proxy in front of us.
fn is_foreign(name: &str, author: Author) -> bool {
    match name {
        _ if is_one_hop(name) => true,
        // We answer it ourselves, when the upstream's connection takes the content.
        "expect" => true,
        // CGI would make HTTP_PROXY of it (httpoxy).
        "proxy" => true,
        _ if name.starts_with("vestibule-") => true,
        // Many a CGI-like upstream cannot tell `X_Forwarded_For` from `X-Forwarded-For`.
        _ if name.contains('_') => {
            let dashed = name.replace('_', "-");
            is_claim(&dashed) || is_protected(&dashed) || is_foreign(&dashed, author)
        }
        _ => author == Author::Visitor && is_claim(name),
    }
}

/// Fields by which proxies tell upstreams about visitors; from a visitor they are lies.
fn is_claim(name: &str) -> bool {
    matches!(
        name,
        "forwarded"
            | "x-real-ip"
            | "x-client-ip"
            | "client-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "fastly-client-ip"
            | "x-cluster-client-ip"
            | "x-original-forwarded-for"
            | "x-original-host"
            | "x-original-url"
            | "x-rewrite-url"
            | "x-host"
            | "x-url-scheme"
            | "x-request-id"
            | "front-end-https"
            | "client-cert"
            | "client-cert-chain"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-ssl-")
        || name.starts_with("ssl-client")
        || name.starts_with("x-client-cert")
        || name.starts_with("vestibule-")
}

/// RFC 9113 §8.2.3: several cookie fields of HTTP/2 are one in HTTP/1.1.
fn join_cookies(fields: &mut HeaderMap) {
    let mut cookies = fields.get_all(header::COOKIE).iter();
    if cookies.nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = fields
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        fields.insert(header::COOKIE, joined);
    }
}

fn set_host(fields: &mut HeaderMap, authority: &Authority) {
    let spelt = fields.get(header::HOST);
    let is_canonical = authority.port.is_none()
        && spelt.is_some_and(|host| host.as_bytes() == authority.host.as_str().as_bytes());
    if is_canonical {
        return;
    }
    if let Some(host) = authority.field(spelt) {
        fields.insert(header::HOST, host);
    }
}

/// One `Content-Length` at most: hyper has checked that several agree. None with a 204 (RFC 9110 §8.6).
fn one_content_length(fields: &mut HeaderMap, status: StatusCode) {
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        fields.remove(header::CONTENT_LENGTH);
        return;
    }
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    if let Some(first) = lengths.next().cloned()
        && lengths.next().is_some()
    {
        fields.insert(header::CONTENT_LENGTH, first);
    }
}

/// Does what the operator configured: remove, then set. Fields that framing rests on are not edited.
pub fn edit(fields: &mut HeaderMap, edits: &HeaderEdits) {
    let is_framing = |name: &HeaderName| {
        *name == header::CONTENT_LENGTH
            || *name == header::TRANSFER_ENCODING
            || *name == header::CONNECTION
            || *name == header::UPGRADE
    };
    for name in edits.remove.iter().filter(|name| !is_framing(name)) {
        fields.remove(name);
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| !is_framing(name)) {
        fields.insert(name.clone(), value.clone());
    }
}

/// Keeps of a request's or response's trailers only what may come that late (RFC 9110 §6.5.1): nothing that
/// framing, routing, identity or a later hop rests on.
pub fn filter_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| {
        is_foreign(name, Author::Visitor) || is_protected(name) || name == "www-authenticate"
    });
}
