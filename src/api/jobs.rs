//! `/v1/jobs`: what the program works on by itself, and when.

use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::domains::DomainProblem;
use crate::api::endpoint::{Api, Endpoint, Method, QueryParameters};
use crate::api::paging::{AFTER, LIMIT, Listing, TENANT, TenantPaging};
use crate::api::problem::{ApiProblem, Granted};
use crate::api::schema::{integer, nullable, object, page, reference, string, timestamp, word};
use crate::base::clock::Timestamp;
use crate::control::views::{JobView, Priority};
use crate::model::TenantId;

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Get,
    path: "/v1/jobs",
    summary: "Jobs, in the order of their keys",
    parameters: &[AFTER, LIMIT, TENANT],
    response: "JobPage",
    status: 200,
    handler: || get(list),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let job = object(&json!({
        "key": string(),
        "tenant": nullable(&string()),
        "status": word(&["running", "due", "waiting", "backing_off"]),
        "priority": word(&["handshake", "expiring", "renewal", "background"]),
        "run_at": timestamp(),
        "leased_until": nullable(&timestamp()),
        "failures": integer(),
        "problem": nullable(&reference("DomainProblem")),
        "order_url": nullable(&string()),
    }));
    vec![("Job", job), ("JobPage", page("Job"))]
}

#[derive(Serialize)]
struct Job {
    key: String,
    tenant: Option<TenantId>,
    status: &'static str,
    priority: &'static str,
    run_at: Timestamp,
    leased_until: Option<Timestamp>,
    failures: u32,
    problem: Option<DomainProblem>,
    order_url: Option<String>,
}

impl Job {
    fn of(view: JobView) -> Self {
        let job = view.record;
        Self {
            status: view.status.as_str(),
            priority: match job.priority {
                Priority::Handshake => "handshake",
                Priority::Expiring => "expiring",
                Priority::Renewal => "renewal",
                Priority::Background => "background",
            },
            key: job.key,
            tenant: job.tenant,
            run_at: job.run_at,
            leased_until: job.leased_until,
            failures: job.failures,
            problem: job.problem.map(DomainProblem::from),
            order_url: job.order_url,
        }
    }
}

async fn list(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(paging): QueryParameters<TenantPaging>,
) -> Result<Json<Listing<Job>>, ApiProblem> {
    let (tenant, page) = paging.request()?;
    let page = api.views.jobs(&grant, tenant.as_ref(), &page).await?;
    Ok(Json(Listing::of(page, Job::of)))
}
