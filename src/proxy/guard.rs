//! What a request must be before anything else looks at it. hyper and h2 have parsed it; this refuses what they
//! let pass and another server might read differently.

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use crate::proxy::fault::Fault;

/// The longest target, path and query.
const MOST_TARGET: usize = 16 * 1024;
/// The most fields.
const MOST_FIELDS: usize = 100;
/// The most octets of all fields, names and values.
const MOST_FIELD_BYTES: usize = 64 * 1024;

/// Refuses a request that is malformed, ambiguous or beyond the limits.
///
/// # Errors
/// [`Fault`] says what is wrong with it.
pub fn check(head: &Parts) -> Result<(), Fault> {
    check_version(head.version)?;
    check_method(head)?;
    check_target(head)?;
    check_fields(&head.headers)
}

fn check_version(version: Version) -> Result<(), Fault> {
    match version {
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        _ => Err(Fault::BadRequest("http_version")),
    }
}

/// CONNECT asks for a tunnel to anywhere, TRACE echoes credentials; only extended CONNECT (RFC 8441) has a use.
fn check_method(head: &Parts) -> Result<(), Fault> {
    if head.method == Method::CONNECT {
        let extended = head.version == Version::HTTP_2
            && head.extensions.get::<Protocol>().is_some()
            && head.uri.path_and_query().is_some();
        return match extended {
            true => Ok(()),
            false => Err(Fault::Method),
        };
    }
    match head.method == Method::TRACE || head.method.as_str().eq_ignore_ascii_case("track") {
        true => Err(Fault::Method),
        false => Ok(()),
    }
}

/// Origin-form or absolute-form only. Asterisk-form (`OPTIONS *`) asks about the server as a whole, which is no
/// tenant's upstream.
fn check_target(head: &Parts) -> Result<(), Fault> {
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    if target.len() > MOST_TARGET {
        return Err(Fault::TargetTooLong);
    }
    if !target.starts_with('/') {
        return Err(Fault::BadRequest("target_form"));
    }
    match target.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(Fault::BadRequest("target_not_ascii")),
    }
}

fn check_fields(fields: &HeaderMap) -> Result<(), Fault> {
    if fields.len() > MOST_FIELDS {
        return Err(Fault::FieldsTooLarge);
    }
    let bytes = |total: usize, (name, value): (&header::HeaderName, &header::HeaderValue)| {
        total + name.as_str().len() + value.len()
    };
    if fields.iter().fold(0, bytes) > MOST_FIELD_BYTES {
        return Err(Fault::FieldsTooLarge);
    }
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (!coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some())
    {
        return Err(Fault::TransferCoding);
    }
    let mut expectations = fields.get_all(header::EXPECT).iter();
    match expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(()),
        false => Err(Fault::Expectation),
    }
}
