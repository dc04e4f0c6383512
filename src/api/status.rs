//! `/v1/status`: how the process is.

use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method};
use crate::api::problem::Granted;
use crate::api::schema::{
    array, boolean, integer, nullable, object, reference, string, timestamp, word,
};
use crate::base::clock::Timestamp;
use crate::telemetry::readiness::{ConditionReport, Phase};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Get,
    path: "/v1/status",
    summary: "How the process is: its phase, what is not well, how many names it knows",
    parameters: &[],
    response: "Status",
    status: 200,
    handler: || get(status),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let condition = object(&json!({
        "name": word(&["configuration", "store", "names", "authorities", "clock", "keys", "permission_hook"]),
        "status": word(&["well", "degraded", "unknown"]),
        "reason": nullable(&string()),
    }));
    let status = object(&json!({
        "version": string(),
        "started_at": timestamp(),
        "ready": boolean(),
        "phase": word(&["starting", "serving", "draining"]),
        "conditions": array(&reference("Condition")),
        "domains_known": integer(),
        "domains_complete": boolean(),
    }));
    vec![("Condition", condition), ("Status", status)]
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    started_at: Timestamp,
    ready: bool,
    phase: Phase,
    conditions: Vec<Condition>,
    domains_known: usize,
    domains_complete: bool,
}

#[derive(Serialize)]
struct Condition {
    name: &'static str,
    status: &'static str,
    reason: Option<String>,
}

impl From<ConditionReport> for Condition {
    fn from(condition: ConditionReport) -> Self {
        Self {
            name: condition.name,
            status: condition.status,
            reason: condition.reason.map(String::from),
        }
    }
}

async fn status(State(api): State<Api>, Granted(grant): Granted) -> Json<Status> {
    let view = api.views.status(&grant);
    std::future::ready(Json(Status {
        version: view.version,
        started_at: view.started_at,
        ready: view.report.ready,
        phase: view.report.phase,
        conditions: view
            .report
            .conditions
            .into_iter()
            .map(Condition::from)
            .collect(),
        domains_known: view.domains_known,
        domains_complete: view.domains_complete,
    }))
    .await
}
