//! Where a request goes: a pure function of the snapshot's routes, the domain and the path.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::DnsName;
use crate::model::route::Route;
use crate::model::snapshot::{KnownDomain, Routes};
use crate::proxy::fault::Fault;

/// The route of a request, and the path it is forwarded with.
#[derive(Debug)]
pub struct Chosen<'a> {
    /// The route.
    pub route: Arc<Route>,
    /// The path: as it came, or normalised where the choice depends on it, so that the upstream sees what was
    /// matched.
    pub path: Cow<'a, str>,
}

/// Chooses a route: the upstream that the permission hook gave the domain; then the narrowest scope (host, wildcard
/// host, tenant, everyone) that has a path covering the request's, and in it the longest path. A route that is not for
/// the domain's tenant is none.
///
/// Where none of these scopes has a rule about paths, the path is forwarded byte for byte.
///
/// # Errors
/// [`Fault::NotConfigured`] where the hook's upstream is not configured: another would be another application;
/// [`Fault::NoRoute`] where nothing covers the path; [`Fault::BadRequest`] where rules depend on the path
/// and servers may read it differently.
pub fn choose<'a>(
    routes: &Routes,
    host: &DnsName,
    domain: &KnownDomain,
    path: &'a str,
) -> Result<Chosen<'a>, Fault> {
    if let Some(upstream) = &domain.upstream {
        let route = routes.to_upstream(upstream).ok_or(Fault::NotConfigured)?;
        return Ok(Chosen {
            route: Arc::clone(route),
            path: Cow::Borrowed(path),
        });
    }
    let candidates = routes.candidates(host, &domain.tenant);
    // The longest path comes first, so the first tells whether there is any but the root.
    let may_take = |route: &&Arc<Route>| route.is_for(&domain.tenant);
    let by_path = candidates.iter().any(|list| {
        let first = list.iter().find(may_take);
        first.is_some_and(|route| !route.path.is_root())
    });
    let path = match by_path {
        true => normalised(path)?,
        false => Cow::Borrowed(path),
    };
    let mut all = candidates
        .iter()
        .flat_map(|list| list.iter())
        .filter(may_take);
    let route = all.find(|route| route.path.covers(&path));
    match route {
        Some(route) => Ok(Chosen {
            route: Arc::clone(route),
            path,
        }),
        None => Err(Fault::NoRoute),
    }
}

/// The one spelling of a path that every server reads the same: unreserved characters decoded, `//`, `.` and `..`
/// resolved (RFC 3986 §6.2.2, §5.2.4).
///
/// # Errors
/// [`Fault::BadRequest`] for an encoded slash, backslash or NUL, a backslash, a broken escape, dot segments that
/// carry parameters (`..;`), and more `..` than there are segments.
pub fn normalised(path: &str) -> Result<Cow<'_, str>, Fault> {
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in decoded.split('/').skip(1) {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(Fault::BadRequest("path_leaves_root"))?;
            }
            _ if segment.starts_with(".;") || segment.starts_with("..;") => {
                return Err(Fault::BadRequest("path_ambiguous"));
            }
            _ => kept.push(segment),
        }
    }
    let mut whole = String::with_capacity(path.len());
    for segment in &kept {
        whole.push('/');
        whole.push_str(segment);
    }
    if ends_in_slash || kept.is_empty() {
        whole.push('/');
    }
    Ok(Cow::Owned(whole))
}

/// Whether nothing in `path` needs a second look.
fn is_plain(path: &str) -> bool {
    let mut last = b' ';
    for byte in path.bytes() {
        match byte {
            b'%' | b'\\' => return false,
            b'/' | b'.' if last == b'/' => return false,
            _ => last = byte,
        }
    }
    true
}

fn decode_unreserved(path: &str) -> Result<String, Fault> {
    let broken = Fault::BadRequest("path_escape_broken");
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => return Err(Fault::BadRequest("path_ambiguous")),
            '%' => {
                let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16)).ok_or(broken);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                let byte = u8::try_from(high * 16 + low).map_err(|_never| broken)?;
                match byte {
                    0 | b'/' | b'\\' => return Err(Fault::BadRequest("path_ambiguous")),
                    b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(byte)),
                    _ if byte.is_ascii_alphanumeric() => decoded.push(char::from(byte)),
                    _ => {
                        // RFC 3986 §6.2.2.1: escapes are compared in upper case.
                        decoded.push('%');
                        for digit in [high, low] {
                            decoded.extend(
                                char::from_digit(digit, 16).map(|c| c.to_ascii_uppercase()),
                            );
                        }
                    }
                }
            }
            _ => decoded.push(c),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::route::{
        HeaderEdits, PathPrefix, RouteScope, Upstream, UpstreamName, UpstreamTimeouts, UpstreamTls,
    };
    use crate::model::{NamePattern, TenantId};

    fn route(scope: RouteScope, path: &str, upstream: &str, tenants: Option<&[&str]>) -> Route {
        let timeouts = UpstreamTimeouts::default();
        let name = UpstreamName::new(upstream);
        let upstream = Upstream::new(name, Vec::new(), UpstreamTls::None, timeouts);
        let set = |ids: &[&str]| -> BTreeSet<TenantId> {
            ids.iter().map(|id| TenantId::parse(id).unwrap()).collect()
        };
        Route {
            scope,
            path: PathPrefix::new(path).unwrap(),
            upstream: Arc::new(upstream),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            tenants: tenants.map(|ids| Arc::new(set(ids))),
        }
    }

    #[test]
    fn a_route_of_one_tenants_file_takes_no_other_tenants_name_below_its_wildcard() {
        let host = |text: &str| RouteScope::Host(NamePattern::parse(text).unwrap());
        let routes = Routes::new(
            vec![
                route(host("*.x.test"), "/", "theirs", Some(&["wide"])),
                route(host("a.x.test"), "/api", "theirs", Some(&["wide"])),
                route(RouteScope::Everyone, "/", "core", None),
            ],
            Vec::new(),
        );
        let chosen = |name: &str, tenant: &str| {
            let domain = KnownDomain {
                tenant: TenantId::parse(tenant).unwrap(),
                served: true,
                upstream: None,
            };
            let host = DnsName::parse(name).unwrap();
            let chosen = choose(&routes, &host, &domain, "/api/%61").unwrap();
            (
                chosen.route.upstream.name.to_string(),
                chosen.path.into_owned(),
            )
        };
        let told = |upstream: &str, path: &str| (upstream.to_owned(), path.to_owned());
        assert_eq!(chosen("a.x.test", "own"), told("core", "/api/%61"));
        assert_eq!(chosen("a.x.test", "wide"), told("theirs", "/api/a"));
        assert_eq!(chosen("b.x.test", "wide"), told("theirs", "/api/%61"));
    }

    #[test]
    fn paths_are_normalised_or_refused() {
        let check = |path: &str, expected: Result<&str, &str>| {
            let got = normalised(path);
            let got = got.as_deref().map_err(|fault| fault.reason());
            assert_eq!(got, expected, "{path}");
        };
        for same in [
            "/",
            "/a",
            "/a/b.c",
            "/a/b/",
            "/a.b/c..d",
            "/a;x=1",
            "/a:b@c",
        ] {
            check(same, Ok(same));
            assert!(matches!(normalised(same), Ok(Cow::Borrowed(_))), "{same}");
        }
        check("//a//b", Ok("/a/b"));
        check("/a/./b/../c", Ok("/a/c"));
        check("/a/b/..", Ok("/a/"));
        check("/a/.", Ok("/a/"));
        check("/.hidden/..x", Ok("/.hidden/..x"));
        check("/a//", Ok("/a/"));
        check("/%61dmin/%2e%2E/x", Ok("/x"));
        check("/a%20b%c3%a9", Ok("/a%20b%C3%A9"));
        check("/%7Euser", Ok("/~user"));
        check("/%2561", Ok("/%2561"));
        for ambiguous in [
            "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/..;/a", "/a/.;x",
        ] {
            check(ambiguous, Err("path_ambiguous"));
        }
        check("/..", Err("path_leaves_root"));
        check("/a/../../b", Err("path_leaves_root"));
        for broken in ["/%", "/%2", "/%zz", "/%+1"] {
            check(broken, Err("path_escape_broken"));
        }
    }
}
