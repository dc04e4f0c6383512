//! `/v1/tenants`.

use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method, QueryParameters};
use crate::api::paging::{AFTER, LIMIT, Listing, Paging};
use crate::api::problem::{ApiProblem, Granted};
use crate::api::schema::{nullable, object, page, string, strings, timestamp, word};
use crate::base::clock::Timestamp;
use crate::control::views::TenantRecord;
use crate::model::TenantId;
use crate::model::domain::Source;

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Get,
    path: "/v1/tenants",
    summary: "Tenants, in the order of their slugs",
    parameters: &[AFTER, LIMIT],
    response: "TenantPage",
    status: 200,
    handler: || get(list),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let tenant = object(&json!({
        "id": string(),
        "source": word(&["file", "hook", "api"]),
        "ca": strings(),
        "profile": nullable(&string()),
        "created_at": timestamp(),
    }));
    vec![("Tenant", tenant), ("TenantPage", page("Tenant"))]
}

#[derive(Serialize)]
struct Tenant {
    id: TenantId,
    source: Source,
    /// The CAs that it chooses; empty for all.
    ca: Vec<String>,
    profile: Option<String>,
    created_at: Timestamp,
}

impl Tenant {
    fn of(record: TenantRecord, (ca, profile): (Vec<String>, Option<String>)) -> Self {
        Self {
            ca,
            profile,
            id: record.id,
            source: record.source,
            created_at: record.created_at,
        }
    }
}

async fn list(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(paging): QueryParameters<Paging>,
) -> Result<Json<Listing<Tenant>>, ApiProblem> {
    let page = api.views.tenants(&grant, &paging.request()?).await?;
    let of = |record: TenantRecord| {
        let choice = api.views.choice(&record.id);
        Tenant::of(record, choice)
    };
    Ok(Json(Listing::of(page, of)))
}
