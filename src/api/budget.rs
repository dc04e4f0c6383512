//! `/v1/budget`: what is left of the authorities' limits.

use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method};
use crate::api::problem::{ApiProblem, Granted};
use crate::api::schema::{array, boolean, integer, nullable, object, reference, string, timestamp};
use crate::base::clock::Timestamp;
use crate::control::budget::{BucketView, BudgetView, Charged, ClassView, LimitView, StopView};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Get,
    path: "/v1/budget",
    summary: "What is left of each CA's limits, what is stopped, and when the next order may go",
    parameters: &[],
    response: "Budgets",
    status: 200,
    handler: || get(budget),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let class = object(&json!({
        "class": string(),
        "reserved": integer(),
        "left": integer(),
        "next_at": nullable(&timestamp()),
    }));
    let bucket = object(&json!({
        "subject": string(),
        "left": integer(),
        "next_at": nullable(&timestamp()),
        "stopped_until": nullable(&timestamp()),
    }));
    let limit = object(&json!({
        "bucket": string(),
        "limit": string(),
        "ours": integer(),
        "left": integer(),
        "in_use": integer(),
        "emptiest": array(&reference("BudgetBucket")),
    }));
    let stop = object(&json!({
        "bucket": string(),
        "subject": string(),
        "stopped_until": nullable(&timestamp()),
    }));
    let budget = object(&json!({
        "ca": string(),
        "renewals_charged": boolean(),
        "spend_percent": integer(),
        "tenant_share_percent": integer(),
        "stopped_until": nullable(&timestamp()),
        "classes": array(&reference("BudgetClass")),
        "limits": array(&reference("BudgetLimit")),
        "stops": array(&reference("BudgetStop")),
    }));
    vec![
        ("BudgetClass", class),
        ("BudgetBucket", bucket),
        ("BudgetLimit", limit),
        ("BudgetStop", stop),
        ("Budget", budget),
        (
            "Budgets",
            object(&json!({ "items": array(&reference("Budget")) })),
        ),
    ]
}

#[derive(Serialize)]
struct Budgets {
    items: Vec<Budget>,
}

#[derive(Serialize)]
struct Budget {
    ca: String,
    renewals_charged: bool,
    spend_percent: u32,
    tenant_share_percent: u32,
    stopped_until: Option<Timestamp>,
    classes: Vec<Class>,
    limits: Vec<Limit>,
    stops: Vec<Stop>,
}

#[derive(Serialize)]
struct Class {
    class: &'static str,
    reserved: u32,
    left: u32,
    next_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Limit {
    bucket: &'static str,
    limit: String,
    ours: u32,
    left: u32,
    in_use: usize,
    emptiest: Vec<Bucket>,
}

#[derive(Serialize)]
struct Bucket {
    subject: String,
    left: u32,
    next_at: Option<Timestamp>,
    stopped_until: Option<Timestamp>,
}

#[derive(Serialize)]
struct Stop {
    bucket: &'static str,
    subject: String,
    stopped_until: Option<Timestamp>,
}

impl From<BudgetView> for Budget {
    fn from(view: BudgetView) -> Self {
        Self {
            ca: view.ca.to_string(),
            renewals_charged: view.renewals_charged == Charged::Yes,
            spend_percent: view.spend_percent,
            tenant_share_percent: view.tenant_share_percent,
            stopped_until: view.stopped_until,
            classes: view.classes.into_iter().map(Class::from).collect(),
            limits: view.limits.into_iter().map(Limit::from).collect(),
            stops: view.stops.into_iter().map(Stop::from).collect(),
        }
    }
}

impl From<StopView> for Stop {
    fn from(view: StopView) -> Self {
        Self {
            bucket: view.bucket,
            subject: view.subject,
            stopped_until: view.stopped_until,
        }
    }
}

impl From<ClassView> for Class {
    fn from(view: ClassView) -> Self {
        Self {
            class: view.class,
            reserved: view.reserved,
            left: view.left,
            next_at: view.next_at,
        }
    }
}

impl From<LimitView> for Limit {
    fn from(view: LimitView) -> Self {
        Self {
            bucket: view.bucket,
            limit: view.limit,
            ours: view.ours,
            left: view.left,
            in_use: view.in_use,
            emptiest: view.emptiest.into_iter().map(Bucket::from).collect(),
        }
    }
}

impl From<BucketView> for Bucket {
    fn from(view: BucketView) -> Self {
        Self {
            subject: view.subject,
            left: view.left,
            next_at: view.next_at,
            stopped_until: view.stopped_until,
        }
    }
}

async fn budget(
    State(api): State<Api>,
    Granted(grant): Granted,
) -> Result<Json<Budgets>, ApiProblem> {
    let views = api.views.budget(&grant).await?;
    let items = views.into_iter().map(Budget::from).collect();
    Ok(Json(Budgets { items }))
}
