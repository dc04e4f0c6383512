//! `/v1/keys`: how the keys at rest stand, the key-encryption key exchanged, a tenant's data keys destroyed. No key ever
//! comes here.

use axum::extract::State;
use axum::response::Json;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method, Parameter, PathParameter, QueryParameters};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{array, integer, nullable, object, reference, string, strings, timestamp};
use crate::base::clock::Timestamp;
use crate::control::keys::{
    Exchanged, Keys, KeysError, KeysView, OwnView, Reason, Underway, Unreadable,
};
use crate::model::TenantId;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::Get,
        path: "/v1/keys",
        summary: "Which key-encryption key wraps, how far an exchange has come, and which data keys do not open",
        parameters: &[],
        response: "Keys",
        status: 200,
        handler: || get(show),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/keys/exchange",
        summary: "Begins to exchange the key-encryption key for a new one while everything serves, or joins the exchange \
                  that is under way; GET /v1/keys tells when it is done",
        parameters: &[Parameter::Query(
            "tenant",
            "The tenant whose own key is exchanged; nothing for the platform's",
        )],
        response: "Keys",
        status: 200,
        handler: || post(exchange),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/keys/renew-data-key",
        summary: "Makes a new data key, which seals from then on; what older ones sealed is sealed anew in the background, and \
                  they are destroyed a minute after the last",
        parameters: &[Parameter::Query(
            "tenant",
            "The tenant whose data key it is; nothing for the platform's, which seals the accounts with the CAs",
        )],
        response: "DataKey",
        status: 200,
        handler: || post(renew),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/tenants/{id}/destroy-keys",
        summary: "Destroys the data keys of a tenant without domains, for good: no Vestibule with this key file opens what \
                  they sealed again, whatever backup is restored",
        parameters: &[Parameter::Path("id", "The tenant's id")],
        response: "DestroyedKeys",
        status: 200,
        handler: || post(destroy),
    },
];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let exchange = object(&json!({ "from": string(), "to": string(), "done": integer() }));
    let exchanged = object(&json!({
        "from": string(),
        "to": string(),
        "data_keys": integer(),
        "retired_file": string(),
    }));
    let unreadable = object(&json!({
        "key_encryption_key": nullable(&string()),
        "file": nullable(&string()),
        "data_keys": integer(),
        "owners": strings(),
        "detail": string(),
    }));
    let keys = object(&json!({
        "key_encryption_key": string(),
        "file": string(),
        "data_keys": nullable(&integer()),
        "counted_at": nullable(&timestamp()),
        "own": array(&reference("OwnKey")),
        "exchange": nullable(&reference("KeyExchange")),
        "last_exchange": nullable(&reference("ExchangedKey")),
        "trouble": nullable(&string()),
        "unreadable": array(&reference("UnreadableKeys")),
    }));
    let own = object(&json!({
        "tenant": string(),
        "file": string(),
        "key_encryption_key": nullable(&string()),
        "trouble": nullable(&string()),
    }));
    let destroyed = object(&json!({
        "tenant": string(),
        "through": integer(),
        "own_file": nullable(&string()),
    }));
    vec![
        ("OwnKey", own),
        (
            "DataKey",
            object(&json!({ "tenant": nullable(&string()), "number": integer() })),
        ),
        ("KeyExchange", exchange),
        ("ExchangedKey", exchanged),
        ("UnreadableKeys", unreadable),
        ("Keys", keys),
        ("DestroyedKeys", destroyed),
    ]
}

#[derive(Serialize)]
struct KeysDocument {
    key_encryption_key: String,
    file: String,
    data_keys: Option<u64>,
    counted_at: Option<Timestamp>,
    own: Vec<OwnKey>,
    exchange: Option<KeyExchange>,
    last_exchange: Option<ExchangedKey>,
    trouble: Option<String>,
    unreadable: Vec<UnreadableKeys>,
}

impl From<KeysView> for KeysDocument {
    fn from(view: KeysView) -> Self {
        let standing = view.standing;
        let census = standing.census;
        Self {
            key_encryption_key: view.id.to_string(),
            file: view.file.display().to_string(),
            data_keys: census.as_ref().map(|census| census.data_keys),
            counted_at: view.counted_at,
            own: view.own.into_iter().map(OwnKey::from).collect(),
            exchange: standing.exchange.map(KeyExchange::from),
            last_exchange: standing.last.map(ExchangedKey::from),
            trouble: standing.trouble,
            unreadable: census
                .iter()
                .flat_map(|census| census.unreadable.iter().map(UnreadableKeys::from))
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct OwnKey {
    tenant: String,
    file: String,
    key_encryption_key: Option<String>,
    trouble: Option<String>,
}

impl From<OwnView> for OwnKey {
    fn from(own: OwnView) -> Self {
        let (id, trouble) = match own.id {
            Ok(id) => (Some(id.to_string()), None),
            Err(trouble) => (None, Some(trouble)),
        };
        Self {
            tenant: own.tenant,
            file: own.file.display().to_string(),
            key_encryption_key: id,
            trouble,
        }
    }
}

#[derive(Serialize)]
struct KeyExchange {
    from: String,
    to: String,
    done: u64,
}

impl From<Underway> for KeyExchange {
    fn from(exchange: Underway) -> Self {
        Self {
            from: exchange.from.to_string(),
            to: exchange.to.to_string(),
            done: exchange.done,
        }
    }
}

#[derive(Serialize)]
struct ExchangedKey {
    from: String,
    to: String,
    data_keys: u64,
    retired_file: String,
}

impl From<Exchanged> for ExchangedKey {
    fn from(done: Exchanged) -> Self {
        Self {
            from: done.from.to_string(),
            to: done.to.to_string(),
            data_keys: done.data_keys,
            retired_file: done.retired.display().to_string(),
        }
    }
}

#[derive(Serialize)]
struct UnreadableKeys {
    key_encryption_key: Option<String>,
    file: Option<String>,
    data_keys: u64,
    owners: Vec<String>,
    detail: String,
}

impl From<&Unreadable> for UnreadableKeys {
    fn from(group: &Unreadable) -> Self {
        let (id, file) = match &group.reason {
            Reason::Missing { id, file } => {
                (Some(id.to_string()), Some(file.display().to_string()))
            }
            Reason::Unusable { file, .. } | Reason::Vanished { file, .. } => {
                (None, Some(file.display().to_string()))
            }
            Reason::Damaged => (None, None),
        };
        let named = |owner: &str| match owner {
            "" => "(platform)".to_owned(),
            tenant => tenant.to_owned(),
        };
        let owners = group.owners.iter();
        Self {
            key_encryption_key: id,
            file,
            data_keys: group.data_keys,
            owners: owners.map(|owner| named(owner.as_str())).collect(),
            detail: group.to_string(),
        }
    }
}

#[derive(Serialize)]
struct DestroyedKeys {
    tenant: TenantId,
    through: u32,
    own_file: Option<String>,
}

#[derive(Serialize)]
struct DataKey {
    tenant: Option<TenantId>,
    number: u32,
}

#[derive(Deserialize)]
struct Whose {
    tenant: Option<String>,
}

async fn show(
    State(api): State<Api>,
    Granted(grant): Granted,
) -> Result<Json<KeysDocument>, ApiProblem> {
    Ok(Json(keys(&api)?.view(&grant).await.into()))
}

async fn exchange(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(Whose { tenant }): QueryParameters<Whose>,
) -> Result<Json<KeysDocument>, ApiProblem> {
    let tenant = tenant.as_deref().map(read_tenant).transpose()?;
    let begun = keys(&api)?.exchange(&grant, tenant).await;
    let begun = begun.map_err(problem)?;
    Ok(Json(begun.into()))
}

async fn renew(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(Whose { tenant }): QueryParameters<Whose>,
) -> Result<Json<DataKey>, ApiProblem> {
    let tenant = tenant.as_deref().map(read_tenant).transpose()?;
    let made = keys(&api)?.renew(&grant, tenant.clone()).await;
    let number = made.map_err(problem)?;
    Ok(Json(DataKey { tenant, number }))
}

async fn destroy(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(id): PathParameter,
) -> Result<Json<DestroyedKeys>, ApiProblem> {
    let tenant = read_tenant(&id)?;
    let destroyed = keys(&api)?.destroy(&grant, &tenant).await;
    let destroyed = destroyed.map_err(problem)?;
    let own_file = destroyed.own_file.map(|file| file.display().to_string());
    Ok(Json(DestroyedKeys {
        tenant,
        through: destroyed.through,
        own_file,
    }))
}

fn read_tenant(text: &str) -> Result<TenantId, ApiProblem> {
    let wrong = |error: crate::model::tenant::TenantIdError| {
        ApiProblem::new(Code::BadParameter, error.to_string())
    };
    TenantId::parse(text).map_err(wrong)
}

fn keys(api: &Api) -> Result<&Keys, ApiProblem> {
    let missing = || ApiProblem::new(Code::Internal, "this process holds no keys");
    api.actions.keys().ok_or_else(missing)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn problem(error: KeysError) -> ApiProblem {
    let code = match &error {
        KeysError::HasDomains(_) => Code::StillInUse,
        KeysError::NoKeys(_) | KeysError::NoOwnKey(_) => Code::NotFound,
        KeysError::Store(_) => Code::StoreUnavailable,
        KeysError::Exchange(_) | KeysError::Vault(_) | KeysError::Lists(_) => Code::KeysUnavailable,
    };
    if !matches!(code, Code::StillInUse | Code::NotFound) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "an action on keys failed"
        );
    }
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        detail = format!("{detail}: {next}");
        cause = next.source();
    }
    ApiProblem::new(code, detail)
}
