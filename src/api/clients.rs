//! `/v1/certificates/issue-client`: a certificate for a client of a tenant. Its key comes out once, here, and is not kept.

use std::error::Error;

use ::pem::Pem;
use axum::extract::State;
use axum::response::Json;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::certificates::{Certificate, pem};
use crate::api::endpoint::{Api, Content, Endpoint, Method, Parameter};
use crate::api::imports::{imports, tenant};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{nullable, object, reference, string};
use crate::control::clients::IssueError;
use crate::model::certificate::CaId;

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Post,
    path: "/v1/certificates/issue-client",
    summary: "Issue a certificate for a client of a tenant, by a CA of your own; the key is in the answer and nowhere else",
    parameters: &[Parameter::Content("ClientRequest")],
    response: "ClientCertificate",
    status: 200,
    handler: || post(issue),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let request =
        object(&json!({ "tenant": string(), "name": string(), "ca": nullable(&string()) }));
    let issued = object(&json!({
        "certificate": reference("Certificate"),
        "chain_pem": string(),
        "key_pem": string(),
    }));
    vec![("ClientRequest", request), ("ClientCertificate", issued)]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientRequest {
    tenant: String,
    name: String,
    ca: Option<String>,
}

/// The one answer that holds a private key.
#[derive(Serialize)]
struct ClientCertificate {
    certificate: Certificate,
    chain_pem: String,
    key_pem: String,
}

async fn issue(
    State(api): State<Api>,
    Granted(grant): Granted,
    Content(content): Content<ClientRequest>,
) -> Result<Json<ClientCertificate>, ApiProblem> {
    let tenant = tenant(&content.tenant)?;
    let ca = content.ca.as_deref().map(CaId::new);
    let imports = imports(&api.actions)?;
    let issued = imports.issue_client(&grant, (&tenant, &content.name), ca.as_ref());
    let issued = issued.await?;
    let status = api.views.certificate_status(&issued.facts);
    let key = Pem::new("PRIVATE KEY", issued.key.expose());
    Ok(Json(ClientCertificate {
        certificate: Certificate::of(issued.facts, status),
        chain_pem: issued.chain.iter().map(|der| pem(der)).collect(),
        key_pem: ::pem::encode(&key),
    }))
}

impl From<IssueError> for ApiProblem {
    fn from(error: IssueError) -> Self {
        let detail = error.to_string();
        match &error {
            IssueError::NoTenant(_) => Self::new(Code::NotFound, detail),
            IssueError::Client(_) => {
                let cause = Error::source(&error);
                tracing::warn!(%error, cause, "no client certificate is issued");
                Self::new(Code::NotIssued, detail)
            }
            IssueError::Store(_) => Self::of_store(&error),
        }
    }
}
