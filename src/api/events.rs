//! `/v1/events`: who did what, as a hash chain for each tenant and one for the platform.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method, Parameter, QueryParameters};
use crate::api::paging::{AFTER, LIMIT, Listing, TenantPaging};
use crate::api::problem::{ApiProblem, Granted};
use crate::api::schema::{integer, nullable, object, page, string, timestamp, word};
use crate::base::clock::Timestamp;
use crate::control::views::{AuditRecord, KeyOwner};
use crate::model::TenantId;

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Get,
    path: "/v1/events",
    summary: "Audit events, the oldest first: of one tenant, or of the platform itself",
    parameters: &[
        AFTER,
        LIMIT,
        Parameter::Query("tenant", "Whose chain; the platform's own where absent"),
    ],
    response: "EventPage",
    status: 200,
    handler: || get(list),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let event = object(&json!({
        "tenant": nullable(&string()),
        "sequence": integer(),
        "at": timestamp(),
        "actor": word(&["system", "operator", "configuration", "hook"]),
        "kind": string(),
        "subject": string(),
        "detail": { "type": "object" },
        "hash": string(),
    }));
    vec![("Event", event), ("EventPage", page("Event"))]
}

#[derive(Serialize)]
struct Event {
    tenant: Option<TenantId>,
    sequence: u64,
    at: Timestamp,
    actor: &'static str,
    kind: String,
    subject: String,
    detail: Value,
    hash: String,
}

impl From<AuditRecord> for Event {
    fn from(record: AuditRecord) -> Self {
        Self {
            tenant: match record.owner {
                KeyOwner::Platform => None,
                KeyOwner::Tenant(tenant) => Some(tenant),
            },
            sequence: record.sequence,
            at: record.at,
            actor: record.actor.as_str(),
            kind: record.kind,
            subject: record.subject,
            detail: record.detail,
            hash: hexadecimal(&record.hash),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        text
    })
}

async fn list(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(paging): QueryParameters<TenantPaging>,
) -> Result<Json<Listing<Event>>, ApiProblem> {
    let (tenant, page) = paging.request()?;
    let owner = tenant.map_or(KeyOwner::Platform, KeyOwner::Tenant);
    let page = api.views.events(&grant, &owner, &page).await?;
    Ok(Json(Listing::of(page, Event::from)))
}
