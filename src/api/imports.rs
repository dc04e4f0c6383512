//! `/v1/certificates/import`: a certificate brought along with its key. The key goes in here and never comes out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::post;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::api::certificates::Certificate;
use crate::api::endpoint::{Api, Content, Endpoint, Method, Parameter};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{nullable, object, reference, string, strings, word};
use crate::base::secret::Secret;
use crate::control::actions::Actions;
use crate::control::imports::{Change, Import, ImportError, Imported, Imports};
use crate::control::views::Views;
use crate::model::{NamePattern, TenantId};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Post,
    path: "/v1/certificates/import",
    summary: "Serve a certificate that was issued elsewhere, with its key, for the registered domains that it covers",
    parameters: &[Parameter::Content("CertificateImport")],
    response: "ImportedCertificate",
    status: 200,
    handler: || post(import),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let import = object(&json!({
        "chain_pem": string(),
        "key_pem": string(),
        "tenant": nullable(&string()),
        "domains": strings(),
    }));
    let imported = object(&json!({
        "result": word(&[Change::Imported.as_str(), Change::Unchanged.as_str()]),
        "certificate": reference("Certificate"),
        "domains": strings(),
    }));
    vec![
        ("CertificateImport", import),
        ("ImportedCertificate", imported),
    ]
}

/// A private key on its way in: never printed, wiped when dropped.
pub(super) struct KeyPem(pub(super) Secret);

impl<'de> Deserialize<'de> for KeyPem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::from(text)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateImport {
    chain_pem: String,
    key_pem: KeyPem,
    tenant: Option<String>,
    #[serde(default)]
    domains: Vec<String>,
}

#[derive(Serialize)]
struct ImportedCertificate {
    result: &'static str,
    certificate: Certificate,
    domains: Vec<NamePattern>,
}

impl ImportedCertificate {
    fn of(imported: Imported, views: &Views) -> Self {
        let status = views.certificate_status(&imported.facts);
        Self {
            result: imported.change.as_str(),
            certificate: Certificate::of(imported.facts, status),
            domains: imported.domains,
        }
    }
}

async fn import(
    State(api): State<Api>,
    Granted(grant): Granted,
    Content(content): Content<CertificateImport>,
) -> Result<(StatusCode, Json<ImportedCertificate>), ApiProblem> {
    let import = Import {
        chain: content.chain_pem.into_bytes(),
        key: content.key_pem.0,
        tenant: content.tenant.as_deref().map(tenant).transpose()?,
        domains: content
            .domains
            .iter()
            .map(|name| pattern(name))
            .collect::<Result<_, _>>()?,
    };
    let imported = imports(&api.actions)?.certificate(&grant, import).await?;
    let answer = ImportedCertificate::of(imported, &api.views);
    Ok((StatusCode::OK, Json(answer)))
}

/// What takes imports.
pub(super) fn imports(actions: &Actions) -> Result<&Imports, ApiProblem> {
    let missing = || ApiProblem::new(Code::Internal, "this process takes no imports");
    actions.imports().ok_or_else(missing)
}

pub(super) fn tenant(slug: &str) -> Result<TenantId, ApiProblem> {
    TenantId::parse(slug).map_err(|error| ApiProblem::new(Code::BadParameter, error.to_string()))
}

fn pattern(name: &str) -> Result<NamePattern, ApiProblem> {
    NamePattern::parse(name).map_err(|error| ApiProblem::new(Code::BadParameter, error.to_string()))
}

impl From<ImportError> for ApiProblem {
    fn from(error: ImportError) -> Self {
        let detail = error.to_string();
        match error {
            ImportError::Material(_)
            | ImportError::Check(_)
            | ImportError::Placement(_)
            | ImportError::Credential(_)
            | ImportError::Revoked(_)
            | ImportError::Compromised(_) => Self::new(Code::ImportRefused, detail),
            ImportError::Conflict(_) => Self::new(Code::Conflict, detail),
            ImportError::Vault(_) | ImportError::Account(_) => {
                let cause = std::error::Error::source(&error);
                tracing::error!(%error, cause, "an import cannot be kept");
                Self::new(Code::StoreUnavailable, detail)
            }
            ImportError::Store(error) => Self::of_store(&error),
        }
    }
}
