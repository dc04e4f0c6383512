//! What a request must be before anything else looks at it. hyper and h2 have parsed it; this refuses what they
//! let pass and another server might read differently.

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use crate::proxy::fault::Fault;
use crate::proxy::limits::Limits;

/// Refuses a request that is malformed, ambiguous or beyond `limits`: its target by [`Limits::target_bytes`], its
/// fields by [`Limits::fields`], and all their names and values together by [`Limits::head_bytes`].
///
/// # Errors
/// [`Fault`] says what is wrong with it.
pub fn check(head: &Parts, limits: &Limits) -> Result<(), Fault> {
    check_version(head.version)?;
    check_method(head)?;
    check_target(head, limits)?;
    check_fields(&head.headers, limits)
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
fn check_target(head: &Parts, limits: &Limits) -> Result<(), Fault> {
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes {
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

fn check_fields(fields: &HeaderMap, limits: &Limits) -> Result<(), Fault> {
    if fields.len() > limits.fields {
        return Err(Fault::FieldsTooLarge);
    }
    let bytes = |total: usize, (name, value): (&header::HeaderName, &header::HeaderValue)| {
        total + name.as_str().len() + value.len()
    };
    if fields.iter().fold(0, bytes) > limits.head_bytes {
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
