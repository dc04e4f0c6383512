//! The two protocols: a question as an HTTP request, an HTTP answer as a verdict. Pure.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use serde::{Deserialize, Serialize};

use crate::certs::permission::{Mode, Settings, Verdict};
use crate::model::route::UpstreamName;
use crate::model::{DnsName, TenantId};

/// The longest that an allowing answer may hold, whatever it says.
const LONGEST_ALLOW: Duration = Duration::from_secs(24 * 3600);
/// The longest that a denying answer may hold, whatever it says: a mistake of the hook heals within it.
const LONGEST_DENY: Duration = Duration::from_secs(3600);
/// The most characters kept of a reason.
const LONGEST_REASON: usize = 200;
/// The longest name of an upstream.
const LONGEST_UPSTREAM: usize = 100;

/// Why the hook is asked; a word of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A visitor waits in a handshake for a name that nobody registered.
    Handshake,
    /// The certificate of a name that the hook allowed before is to be renewed.
    Renew,
}

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) name: &'a DnsName,
    pub(super) client: Option<IpAddr>,
    pub(super) reason: Reason,
}

/// An answer that cannot be understood, or that says that the hook is in trouble. Never a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// A status that neither allows nor denies.
    Status(u16),
    /// The content is not what the protocol says.
    Content(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status} neither allows nor denies"),
            Self::Content(what) => write!(f, "the answer is not understood: {what}"),
        }
    }
}

impl std::error::Error for Unusable {}

#[derive(Serialize)]
struct RichQuestion<'a> {
    host: &'a DnsName,
    client_address: Option<IpAddr>,
    reason: Reason,
}

#[derive(Deserialize)]
struct RichAnswer {
    decision: RichDecision,
    tenant: Option<String>,
    reason: Option<String>,
    ttl_seconds: Option<u64>,
    upstream: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RichDecision {
    Allow,
    Deny,
}

/// The request that asks `question`.
pub(super) fn request(
    settings: &Settings,
    question: &Question<'_>,
) -> Result<Request<Bytes>, http::Error> {
    let mut url = settings.ask.clone();
    match settings.mode {
        Mode::Simple => {
            url.query_pairs_mut()
                .append_pair("domain", question.name.as_str());
            Request::builder()
                .method(Method::GET)
                .uri(url.as_str())
                .body(Bytes::new())
        }
        Mode::Rich => {
            let body = RichQuestion {
                host: question.name,
                client_address: question.client,
                reason: question.reason,
            };
            // Three texts always make JSON.
            let body = serde_json::to_vec(&body).unwrap_or_default();
            let json = HeaderValue::from_static("application/json");
            Request::builder()
                .method(Method::POST)
                .uri(url.as_str())
                .header(CONTENT_TYPE, json.clone())
                .header(ACCEPT, json)
                .body(Bytes::from(body))
        }
    }
}

/// What an answer says of `name`, and for how long.
///
/// # Errors
/// [`Unusable`], which is no denial.
pub(super) fn verdict(
    settings: &Settings,
    name: &DnsName,
    status: StatusCode,
    body: &[u8],
) -> Result<(Verdict, Duration), Unusable> {
    match settings.mode {
        Mode::Simple => simple(settings, status),
        Mode::Rich if status.is_success() => rich(settings, name, body),
        Mode::Rich => Err(Unusable::Status(status.as_u16())),
    }
}

/// 2xx allows and 4xx denies. A redirect, a server error and the statuses by which a server asks for patience say
/// nothing about the name: denying by them would stop renewals whenever the hook is in trouble.
fn simple(settings: &Settings, status: StatusCode) -> Result<(Verdict, Duration), Unusable> {
    const PATIENCE: [StatusCode; 3] = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if status.is_success() {
        let allowed = Verdict::Allowed {
            tenant: None,
            upstream: None,
        };
        return Ok((allowed, settings.allow_ttl));
    }
    match status.is_client_error() && !PATIENCE.contains(&status) {
        true => Ok((Verdict::Denied { reason: None }, settings.deny_ttl)),
        false => Err(Unusable::Status(status.as_u16())),
    }
}

fn rich(settings: &Settings, name: &DnsName, body: &[u8]) -> Result<(Verdict, Duration), Unusable> {
    let answer: RichAnswer = serde_json::from_slice(body)
        .map_err(|error| Unusable::Content(printable(&error.to_string())))?;
    let ttl = answer.ttl_seconds.map(Duration::from_secs);
    match answer.decision {
        RichDecision::Allow => {
            let allowed = Verdict::Allowed {
                tenant: answer.tenant.map(|text| tenant(name, &text)).transpose()?,
                upstream: answer.upstream.map(|text| upstream(&text)).transpose()?,
            };
            let ttl = ttl.unwrap_or(settings.allow_ttl).min(LONGEST_ALLOW);
            Ok((allowed, ttl))
        }
        RichDecision::Deny => {
            let reason = answer.reason.map(|text| printable(&text).into());
            let ttl = ttl.unwrap_or(settings.deny_ttl).min(LONGEST_DENY);
            Ok((Verdict::Denied { reason }, ttl))
        }
    }
}

/// A slug; `ask:` only for the name itself, for such a tenant shares nothing.
fn tenant(name: &DnsName, text: &str) -> Result<TenantId, Unusable> {
    let tenant = TenantId::parse(text).map_err(|error| Unusable::Content(error.to_string()))?;
    match tenant.as_str().contains(':') && tenant != TenantId::asked(name) {
        true => Err(Unusable::Content(format!(
            "tenant {text:?} is reserved for the name it holds"
        ))),
        false => Ok(tenant),
    }
}

fn upstream(text: &str) -> Result<UpstreamName, Unusable> {
    let is_name = !text.is_empty()
        && text.len() <= LONGEST_UPSTREAM
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_name {
        true => Ok(UpstreamName::new(text)),
        false => Err(Unusable::Content(
            "the upstream is not the name of one".to_owned(),
        )),
    }
}

fn printable(text: &str) -> String {
    let characters = text.chars().take(LONGEST_REASON);
    characters
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn settings(mode: Mode) -> Settings {
        let ask = Url::parse("http://127.0.0.1:9/allowed?key=1").unwrap();
        Settings {
            mode,
            ..Settings::new(ask)
        }
    }

    fn name() -> DnsName {
        DnsName::parse("shop.example.com").unwrap()
    }

    fn question(name: &DnsName) -> Question<'_> {
        Question {
            name,
            client: Some("192.0.2.7".parse().unwrap()),
            reason: Reason::Handshake,
        }
    }

    #[test]
    fn asks_simply_with_the_domain_behind_an_existing_query() {
        let name = name();
        let request = request(&settings(Mode::Simple), &question(&name)).unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(
            request.uri().to_string(),
            "http://127.0.0.1:9/allowed?key=1&domain=shop.example.com"
        );
    }

    #[test]
    fn asks_richly_with_host_client_and_reason() {
        let name = name();
        let request = request(&settings(Mode::Rich), &question(&name)).unwrap();
        assert_eq!(request.method(), Method::POST);
        let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        let expected = serde_json::json!({
            "host": "shop.example.com", "client_address": "192.0.2.7", "reason": "handshake",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn only_success_allows_and_only_a_clear_no_denies() {
        let read = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            verdict(&settings(Mode::Simple), &name(), status, b"")
        };
        for status in [200, 204, 299] {
            assert!(
                matches!(read(status), Ok((Verdict::Allowed { .. }, ttl)) if ttl.as_secs() == 3600)
            );
        }
        for status in [400, 401, 403, 404, 410, 422] {
            assert!(
                matches!(read(status), Ok((Verdict::Denied { .. }, ttl)) if ttl.as_secs() == 15)
            );
        }
        for status in [100, 301, 302, 308, 408, 425, 429, 500, 502, 503, 599] {
            assert_eq!(read(status), Err(Unusable::Status(status)), "{status}");
        }
    }

    fn rich(body: &str) -> Result<(Verdict, Duration), Unusable> {
        verdict(
            &settings(Mode::Rich),
            &name(),
            StatusCode::OK,
            body.as_bytes(),
        )
    }

    #[test]
    fn reads_a_rich_answer_and_caps_how_long_it_holds() {
        let allowed = |tenant: Option<&str>, upstream: Option<&str>| Verdict::Allowed {
            tenant: tenant.map(|slug| TenantId::parse(slug).unwrap()),
            upstream: upstream.map(UpstreamName::new),
        };
        let seconds = Duration::from_secs;
        for (body, expected, ttl) in [
            (
                r#"{"decision":"allow"}"#,
                allowed(None, None),
                seconds(3600),
            ),
            (
                r#"{"decision":"allow","tenant":"acme","upstream":"core","ttl_seconds":60,"more":1}"#,
                allowed(Some("acme"), Some("core")),
                seconds(60),
            ),
            (
                r#"{"decision":"allow","tenant":"ask:shop.example.com","ttl_seconds":18446744073709551615}"#,
                allowed(Some("ask:shop.example.com"), None),
                LONGEST_ALLOW,
            ),
            (
                r#"{"decision":"deny","reason":"not\nours","ttl_seconds":99999}"#,
                Verdict::Denied {
                    reason: Some("not ours".into()),
                },
                LONGEST_DENY,
            ),
            (
                r#"{"decision":"deny","ttl_seconds":0}"#,
                Verdict::Denied { reason: None },
                Duration::ZERO,
            ),
        ] {
            assert_eq!(rich(body), Ok((expected, ttl)), "{body}");
        }
    }

    #[test]
    fn garbage_is_neither_yes_nor_no() {
        for body in [
            "",
            "true",
            "{}",
            "[]",
            r#"{"decision":"maybe"}"#,
            r#"{"decision":"allow","tenant":"Not A Slug"}"#,
            r#"{"decision":"allow","tenant":"ask:other.example.com"}"#,
            r#"{"decision":"allow","upstream":""}"#,
            r#"{"decision":"allow","upstream":"a b"}"#,
            r#"{"decision":"allow","ttl_seconds":-1}"#,
            "\u{fffd}\0",
        ] {
            assert!(matches!(rich(body), Err(Unusable::Content(_))), "{body}");
        }
        let denied = verdict(
            &settings(Mode::Rich),
            &name(),
            StatusCode::FORBIDDEN,
            br#"{"decision":"deny"}"#,
        );
        assert_eq!(denied, Err(Unusable::Status(403)));
    }
}
