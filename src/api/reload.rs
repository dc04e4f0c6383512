//! `/v1/reload`: the configuration, read again.

use axum::extract::State;
use axum::response::Json;
use axum::routing::post;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method};
use crate::api::problem::{ApiProblem, Granted};
use crate::api::schema::{object, strings};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Post,
    path: "/v1/reload",
    summary: "Read the configuration again and swap it in; one with mistakes is refused and changes nothing",
    parameters: &[],
    response: "Reload",
    status: 200,
    handler: || post(reload),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let reload = object(&json!({ "warnings": strings(), "needs_restart": strings() }));
    vec![("Reload", reload)]
}

#[derive(Serialize)]
struct Reload {
    warnings: Vec<String>,
    needs_restart: Vec<String>,
}

async fn reload(
    State(api): State<Api>,
    Granted(grant): Granted,
) -> Result<Json<Reload>, ApiProblem> {
    let done = api.actions.reload(&grant).await?;
    Ok(Json(Reload {
        warnings: done.warnings,
        needs_restart: done.needs_restart,
    }))
}
