//! `[[route]]`: which requests go to which upstream.

use std::ops::Range;

use http::{HeaderName, HeaderValue};

use crate::config::mistake::Finding;
use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;
use crate::model::route::{HeaderEdits, PathPrefix};
use crate::model::{NamePattern, TenantId};

/// Fields that one route removes or sets.
const MOST_FIELDS: usize = 64;

/// Fields that the proxy itself decides about: framing, the connection, and who it says the visitor is. An edit of
/// these would be ignored, or break messages.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vestibule-tenant",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

#[derive(Debug, Default)]
pub(in crate::config) struct Edits(pub(in crate::config) HeaderEdits);

#[derive(Debug)]
pub(in crate::config) struct Route {
    pub(in crate::config) place: Range<usize>,
    pub(in crate::config) tenant: Option<At<TenantId>>,
    pub(in crate::config) host: Option<At<NamePattern>>,
    pub(in crate::config) path: Option<At<PathPrefix>>,
    pub(in crate::config) upstream: At<String>,
    pub(in crate::config) request_headers: Edits,
    pub(in crate::config) response_headers: Edits,
}

pub(super) fn read(mut table: Table<'_>) -> Option<Route> {
    let tenant = table.optional("tenant", value::tenant);
    let host = table.optional("host", value::pattern);
    if let (Some(_), Some(host)) = (&tenant, &host) {
        let finding = Finding::new("a [[route]] with both \"tenant\" and \"host\"");
        let finding = finding.expected("one of them, or none for every domain");
        let fix = "keep \"host\": a host already belongs to one tenant";
        table.mistake(host.at.clone(), finding.fix(fix));
    }
    let path = table.optional("path", path);
    let upstream = table.required("upstream", "the name of an [[upstream]]", value::label);
    let request = table.table("request_headers", "request_headers of [[route]]");
    let response = table.table("response_headers", "response_headers of [[route]]");
    let place = table.place();
    table.finish();
    let (request_headers, response_headers) = (request.map(edits), response.map(edits));
    Some(Route {
        place,
        tenant,
        host,
        path,
        upstream: upstream?,
        request_headers: request_headers.unwrap_or_default(),
        response_headers: response_headers.unwrap_or_default(),
    })
}

fn path(value: &Value<'_>) -> Result<PathPrefix, Wrong> {
    let expected = r#"the beginning of a path, as in "/" or "/api""#;
    let text = value.text().ok_or_else(|| Wrong::expected(expected))?;
    PathPrefix::new(text).ok_or_else(|| {
        let wrong = Wrong::expected(expected);
        match PathPrefix::new(&format!("/{text}")) {
            Some(_) => wrong.fix(format!("write \"/{text}\"")),
            None => wrong,
        }
    })
}

fn edits(mut table: Table<'_>) -> Edits {
    let remove = table.list("remove", MOST_FIELDS, field_name);
    let set = table.table("set", "set");
    table.finish();
    let mut edits = HeaderEdits {
        remove: remove
            .into_iter()
            .flatten()
            .map(|name| name.value)
            .collect(),
        set: Vec::new(),
    };
    if let Some(set) = set {
        for (key, value) in set.entries().into_iter().take(MOST_FIELDS) {
            match editable(key.value) {
                Ok(name) => {
                    let value = set.checked(key.value, value, field_value);
                    edits.set.extend(value.map(|value| (name, value.value)));
                }
                Err(expected) => {
                    let finding = Finding::new(format!("field name {:?}", key.value));
                    set.mistake(key.at, finding.expected(expected));
                }
            }
        }
    }
    Edits(edits)
}

fn field_name(value: &Value<'_>) -> Result<HeaderName, Wrong> {
    editable(value.text().unwrap_or_default()).map_err(Wrong::expected)
}

fn editable(text: &str) -> Result<HeaderName, &'static str> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_source| "the name of a header field, as in \"x-team\"")?;
    match RESERVED.contains(&name.as_str()) {
        false => Ok(name),
        true => Err("a field that the proxy does not decide about itself"),
    }
}

fn field_value(value: &Value<'_>) -> Result<HeaderValue, Wrong> {
    let value = value.text().map(HeaderValue::from_str).and_then(Result::ok);
    value.ok_or_else(|| Wrong::expected("a field value: text without control characters"))
}
