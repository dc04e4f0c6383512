//! `/v1/cas`: the certification authorities, whether they are asked, and their accounts.

use axum::extract::State;
use axum::response::Json;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method, Parameter, PathParameter};
use crate::api::paging::Listing;
use crate::api::problem::{ApiProblem, Granted};
use crate::api::schema::{boolean, nullable, object, page, string, strings, timestamp, word};
use crate::base::clock::Timestamp;
use crate::control::authorities::AuthorityView;
use crate::control::views::Page;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::Get,
        path: "/v1/cas",
        summary: "Certification authorities, in order of preference: whether they are asked, and what they say of themselves",
        parameters: &[],
        response: "CaPage",
        status: 200,
        handler: || get(list),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/cas/{name}/rollover",
        summary: "Change the key of the account with an authority; the account stays, with its orders",
        parameters: &[Parameter::Path(
            "name",
            "The authority's name in the configuration",
        )],
        response: "CaAccount",
        status: 200,
        handler: || post(rollover),
    },
];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let ca = object(&json!({
        "name": string(),
        "directory": nullable(&string()),
        "state": word(&["ready", "away", "tried"]),
        "trouble": nullable(&string()),
        "next_probe_at": nullable(&timestamp()),
        "account": nullable(&string()),
        "profile": nullable(&string()),
        "profiles": strings(),
        "terms_of_service": nullable(&string()),
        "website": nullable(&string()),
        "caa_identities": strings(),
        "external_account_required": boolean(),
    }));
    let account = object(&json!({ "account": string() }));
    vec![("Ca", ca), ("CaPage", page("Ca")), ("CaAccount", account)]
}

#[derive(Serialize)]
struct Ca {
    name: String,
    directory: Option<String>,
    state: &'static str,
    trouble: Option<String>,
    next_probe_at: Option<Timestamp>,
    account: Option<String>,
    profile: Option<String>,
    profiles: Vec<String>,
    terms_of_service: Option<String>,
    website: Option<String>,
    caa_identities: Vec<String>,
    external_account_required: bool,
}

impl From<AuthorityView> for Ca {
    fn from(view: AuthorityView) -> Self {
        let (facts, meta) = (view.facts, view.meta);
        let profiles = meta.profiles.into_iter().map(|profile| profile.name);
        Self {
            name: facts.ca.to_string(),
            directory: facts.directory,
            state: facts.standing.as_str(),
            trouble: facts.trouble,
            next_probe_at: view.next_probe_at,
            account: view.account,
            profile: facts.profile,
            profiles: profiles.collect(),
            terms_of_service: meta.terms_of_service,
            website: meta.website,
            caa_identities: meta.caa_identities,
            external_account_required: meta.external_account_required,
        }
    }
}

#[derive(Serialize)]
struct CaAccount {
    account: String,
}

async fn list(
    State(api): State<Api>,
    Granted(grant): Granted,
) -> Result<Json<Listing<Ca>>, ApiProblem> {
    let items = api.views.authorities(&grant).await?;
    let page = Page {
        items,
        next: None,
        unreadable: Vec::new(),
    };
    Ok(Json(Listing::of(page, Ca::from)))
}

async fn rollover(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(name): PathParameter,
) -> Result<Json<CaAccount>, ApiProblem> {
    let account = api.actions.change_account_key(&grant, &name).await?;
    Ok(Json(CaAccount { account }))
}
