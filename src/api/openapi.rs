//! The OpenAPI document, made from the same list of endpoints as the router.

use axum::response::Json;
use axum::routing::get;
use serde_json::{Map, Value, json};

use crate::api::endpoint::{Endpoint, Method, Parameter};
use crate::api::schema::{integer, reference, string};
use crate::api::{
    authorities, budget, certificates, clients, domains, drill, events, imports, jobs, keys,
    problem, reload, revocations, status, takeover, tenants,
};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Get,
    path: "/v1/openapi.json",
    summary: "This document",
    parameters: &[],
    response: "OpenApi",
    status: 200,
    handler: || get(async || Json(document())),
}];

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in crate::api::endpoints() {
        let method = match endpoint.method {
            Method::Get => "get",
            Method::Post => "post",
        };
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(method.to_owned(), operation(endpoint));
        }
    }
    let schemas: Map<String, Value> = [
        status::schemas(),
        tenants::schemas(),
        authorities::schemas(),
        domains::schemas(),
        certificates::schemas(),
        imports::schemas(),
        clients::schemas(),
        budget::schemas(),
        drill::schemas(),
        takeover::schemas(),
        keys::schemas(),
        revocations::schemas(),
        jobs::schemas(),
        events::schemas(),
        reload::schemas(),
        problem::schemas(),
        vec![("OpenApi", json!({ "type": "object" }))],
    ]
    .into_iter()
    .flatten()
    .map(|(name, schema)| (name.to_owned(), schema))
    .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vestibule control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Served on a Unix socket that only its owner can open; the owner is the operator.",
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let parameters: Vec<Value> = endpoint.parameters.iter().filter_map(parameter).collect();
    let mut responses = Map::new();
    let success = content("application/json", endpoint.response, "Success");
    responses.insert(endpoint.status.to_string(), success);
    let problem = content(
        "application/problem+json",
        "Problem",
        "A problem (RFC 9457)",
    );
    responses.insert("default".to_owned(), problem);
    let mut operation =
        json!({ "summary": endpoint.summary, "parameters": parameters, "responses": responses });
    if let (Some(taken), Some(fields)) = (request(endpoint), operation.as_object_mut()) {
        fields.insert("requestBody".to_owned(), taken);
    }
    operation
}

/// What the endpoint takes as its content.
fn request(endpoint: &Endpoint) -> Option<Value> {
    endpoint.parameters.iter().find_map(|parameter| {
        let Parameter::Content(schema) = parameter else {
            return None;
        };
        let schema = json!({ "schema": reference(schema) });
        Some(json!({ "required": true, "content": { "application/json": schema } }))
    })
}

fn parameter(parameter: &Parameter) -> Option<Value> {
    let (name, place, schema, says) = match parameter {
        Parameter::Content(_) => return None,
        Parameter::Path(name, says) => (name, "path", string(), says),
        Parameter::Query(name, says) => (name, "query", string(), says),
        Parameter::Number(name, says) => (name, "query", integer(), says),
    };
    let required = place == "path";
    Some(
        json!({ "name": name, "in": place, "required": required, "description": says, "schema": schema }),
    )
}

fn content(media_type: &str, schema: &str, says: &str) -> Value {
    let mut content = Map::new();
    content.insert(
        media_type.to_owned(),
        json!({ "schema": reference(schema) }),
    );
    json!({ "description": says, "content": content })
}
