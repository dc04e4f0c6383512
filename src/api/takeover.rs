//! `/v1/import/…`: what another server kept, handed over in parts. Keys go in here and never come out.

use axum::extract::State;
use axum::response::Json;
use axum::routing::post;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Content, Endpoint, Method, Parameter};
use crate::api::imports::{KeyPem, imports, tenant};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{array, nullable, object, reference, string, strings, word};
use crate::control::imports::bring::{Brought, BroughtAccount, Fate, Taken};
use crate::model::{NamePattern, TenantId};

/// Certificates in one request.
const MOST_CERTIFICATES: usize = 100;
/// Certificates that are stored at the same time.
const AT_ONCE: usize = 8;

const RESULTS: [&str; 3] = ["imported", "unchanged", "skipped"];

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::Post,
        path: "/v1/import/accounts",
        summary: "Take over an ACME account of another server",
        parameters: &[Parameter::Content("AccountTakeover")],
        response: "TakeoverResult",
        status: 200,
        handler: || post(account),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/import/certificates",
        summary: "Take over certificates of another server, at most 100 at a time; a result for each",
        parameters: &[Parameter::Content("CertificateTakeover")],
        response: "TakeoverResults",
        status: 200,
        handler: || post(certificates),
    },
];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let account = object(&json!({ "directory": string(), "url": string(), "key_pem": string() }));
    let brought = object(&json!({
        "chain_pem": string(),
        "key_pem": string(),
        "directory": nullable(&string()),
        "account": nullable(&string()),
    }));
    let certificates = object(&json!({
        "tenant": nullable(&string()),
        "certificates": array(&reference("BroughtCertificate")),
    }));
    let result = object(&json!({
        "names": strings(),
        "tenant": nullable(&string()),
        "result": word(&RESULTS),
        "detail": nullable(&string()),
    }));
    let results = object(&json!({ "results": array(&reference("TakeoverResult")) }));
    vec![
        ("AccountTakeover", account),
        ("BroughtCertificate", brought),
        ("CertificateTakeover", certificates),
        ("TakeoverResult", result),
        ("TakeoverResults", results),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountTakeover {
    directory: String,
    url: String,
    key_pem: KeyPem,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateTakeover {
    tenant: Option<String>,
    certificates: Vec<BroughtCertificate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BroughtCertificate {
    chain_pem: KeyPem,
    key_pem: KeyPem,
    directory: Option<String>,
    account: Option<String>,
}

#[derive(Serialize)]
struct TakeoverResult {
    names: Vec<NamePattern>,
    tenant: Option<TenantId>,
    result: &'static str,
    detail: Option<String>,
}

#[derive(Serialize)]
struct TakeoverResults {
    results: Vec<TakeoverResult>,
}

impl TakeoverResult {
    fn of(taken: Taken) -> Self {
        let [imported, unchanged, skipped] = RESULTS;
        let (result, detail) = match taken.fate {
            Fate::Imported => (imported, None),
            Fate::Unchanged => (unchanged, None),
            Fate::Skipped(why) => (skipped, Some(why)),
        };
        Self {
            names: taken.names,
            tenant: taken.tenant,
            result,
            detail,
        }
    }
}

async fn account(
    State(api): State<Api>,
    Granted(grant): Granted,
    Content(content): Content<AccountTakeover>,
) -> Result<Json<TakeoverResult>, ApiProblem> {
    let brought = BroughtAccount {
        directory: content.directory,
        url: content.url,
        key: content.key_pem.0,
    };
    let fate = imports(&api.actions)?.account(&grant, &brought).await;
    Ok(Json(TakeoverResult::of(Taken {
        names: Vec::new(),
        tenant: None,
        fate: fate?,
    })))
}

async fn certificates(
    State(api): State<Api>,
    Granted(grant): Granted,
    Content(content): Content<CertificateTakeover>,
) -> Result<Json<TakeoverResults>, ApiProblem> {
    if content.certificates.len() > MOST_CERTIFICATES {
        let most =
            format!("there are more than {MOST_CERTIFICATES} certificates: send them in parts");
        return Err(ApiProblem::new(Code::BadParameter, most));
    }
    let newcomers = content.tenant.as_deref().map(tenant).transpose()?;
    let imports = imports(&api.actions)?;
    let taken = content.certificates.into_iter().map(|certificate| {
        let brought = Brought {
            chain: certificate.chain_pem.0,
            key: certificate.key_pem.0,
            directory: certificate.directory,
            account: certificate.account,
        };
        let (grant, newcomers) = (&grant, newcomers.as_ref());
        async move { imports.bring(grant, &brought, newcomers).await }
    });
    let taken: Vec<Taken> = stream::iter(taken).buffered(AT_ONCE).try_collect().await?;
    let results = taken.into_iter().map(TakeoverResult::of).collect();
    Ok(Json(TakeoverResults { results }))
}
