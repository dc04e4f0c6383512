//! `/v1/domains`: why a domain works or does not, and another try.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::certificates::Certificate;
use crate::api::endpoint::{Api, Endpoint, Method, Parameter, PathParameter, QueryParameters};
use crate::api::paging::{AFTER, LIMIT, Listing, TENANT, TenantPaging};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{
    array, integer, nullable, object, page, reference, string, strings, timestamp, word,
};
use crate::base::clock::Timestamp;
use crate::control::actions::JobStanding;
use crate::control::check::{CaaView, CheckProblem, CheckView};
use crate::control::views::DomainView;
use crate::model::certificate::CaId;
use crate::model::domain::{DomainState, Source};
use crate::model::edge::DnsRecord;
use crate::model::problem::{Actor, Problem, ProblemCode};
use crate::model::{DnsName, NamePattern, TenantId};

const NAME: Parameter = Parameter::Path(
    "name",
    "The name as registered: shop.example.com or *.example.com",
);

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::Get,
        path: "/v1/domains",
        summary: "Domains, in the order of their names",
        parameters: &[AFTER, LIMIT, TENANT],
        response: "DomainPage",
        status: 200,
        handler: || get(list),
    },
    Endpoint {
        method: Method::Get,
        path: "/v1/domains/{name}",
        summary: "One domain: its state, what is wrong, what repairs it, its certificate, its DNS",
        parameters: &[NAME],
        response: "Domain",
        status: 200,
        handler: || get(show),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/domains/{name}/check",
        summary: "Look at a name's DNS and at who answers for it, registered or not; costs none of a CA's limits and changes nothing",
        parameters: &[NAME],
        response: "Check",
        status: 200,
        handler: || post(check),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/domains/{name}/retry",
        summary: "Ask for the domain's certificate now, whatever its back-off; one that is good is renewed early. Does not wait for the outcome",
        parameters: &[NAME],
        response: "Retry",
        status: 202,
        handler: || post(retry),
    },
];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let states = DomainState::ALL.map(DomainState::as_str);
    let codes: Vec<&str> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    let problem = object(&json!({
        "code": word(&codes),
        "actor": word(&["customer", "operator", "ca", "platform"]),
        "detail": string(),
        "evidence": strings(),
        "fix": nullable(&string()),
        "first_seen": timestamp(),
        "last_seen": timestamp(),
        "next_retry_at": nullable(&timestamp()),
    }));
    let record = object(&json!({
        "type": word(&["CNAME", "A", "AAAA"]),
        "name": string(),
        "value": string(),
    }));
    let domain = object(&json!({
        "name": string(),
        "tenant": string(),
        "source": word(&["file", "hook", "api"]),
        "state": word(&states),
        "tls_status": word(&["pending", "issued", "failed"]),
        "upstream": nullable(&string()),
        "problem": nullable(&reference("DomainProblem")),
        "certificate": nullable(&reference("Certificate")),
        "next_attempt_at": nullable(&timestamp()),
        "failures": integer(),
        "dns_requirements": array(&array(&reference("DnsRecord"))),
        "created_at": timestamp(),
    }));
    let retry = object(&json!({
        "domain": string(),
        "job": word(&["queued", "running", "backing_off"]),
        "due_in_seconds": integer(),
    }));
    let check = object(&json!({
        "name": string(),
        "looked_at": string(),
        "registered": nullable(&reference("Registered")),
        "http_port": integer(),
        "http_listening": array(&integer()),
        "reached": word(&["here", "elsewhere", "unknown"]),
        "problems": array(&reference("CheckProblem")),
        "seen": strings(),
        "cdn": nullable(&string()),
        "caa": nullable(&reference("Caa")),
        "at": timestamp(),
    }));
    let registered = object(&json!({
        "name": string(),
        "tenant": string(),
        "state": word(&states),
    }));
    let caa = object(&json!({
        "at": nullable(&string()),
        "records": strings(),
        "unread": nullable(&string()),
        "authorities": array(&reference("CaaAuthority")),
    }));
    let caa_authority = object(&json!({
        "ca": string(),
        "permitted": word(&["yes", "no", "unknown"]),
        "why": string(),
        "decided_by": nullable(&string()),
    }));
    let check_problem = object(&json!({
        "blocks": { "type": "boolean" },
        "problem": reference("DomainProblem"),
    }));
    vec![
        ("Caa", caa),
        ("CaaAuthority", caa_authority),
        ("Check", check),
        ("CheckProblem", check_problem),
        ("DomainProblem", problem),
        ("DnsRecord", record),
        ("Domain", domain),
        ("DomainPage", page("Domain")),
        ("Registered", registered),
        ("Retry", retry),
    ]
}

#[derive(Serialize)]
struct Domain {
    name: NamePattern,
    tenant: TenantId,
    source: Source,
    state: DomainState,
    tls_status: &'static str,
    upstream: Option<String>,
    problem: Option<DomainProblem>,
    certificate: Option<Certificate>,
    next_attempt_at: Option<Timestamp>,
    failures: u32,
    dns_requirements: Vec<Vec<Record>>,
    created_at: Timestamp,
}

/// What is wrong with a domain, as written; jobs have it too.
#[derive(Serialize)]
pub(super) struct DomainProblem {
    code: ProblemCode,
    actor: Actor,
    detail: String,
    evidence: Vec<String>,
    fix: Option<String>,
    first_seen: Timestamp,
    last_seen: Timestamp,
    next_retry_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Record {
    r#type: &'static str,
    name: String,
    value: String,
}

#[derive(Serialize)]
struct Check {
    name: NamePattern,
    looked_at: DnsName,
    registered: Option<RegisteredAs>,
    http_port: u16,
    http_listening: Vec<u16>,
    reached: &'static str,
    problems: Vec<Checked>,
    seen: Vec<String>,
    cdn: Option<String>,
    caa: Option<Caa>,
    at: Timestamp,
}

/// As what a name is registered here: itself, or the wildcard above it.
#[derive(Serialize)]
struct RegisteredAs {
    name: NamePattern,
    tenant: TenantId,
    state: DomainState,
}

/// What the CAA records of a name say about each authority.
#[derive(Serialize)]
struct Caa {
    at: Option<DnsName>,
    records: Vec<String>,
    unread: Option<String>,
    authorities: Vec<CaaRuling>,
}

#[derive(Serialize)]
struct CaaRuling {
    ca: CaId,
    permitted: &'static str,
    why: String,
    decided_by: Option<String>,
}

#[derive(Serialize)]
struct Checked {
    blocks: bool,
    problem: DomainProblem,
}

#[derive(Serialize)]
struct Retry {
    domain: NamePattern,
    job: &'static str,
    due_in_seconds: u64,
}

impl From<Problem> for DomainProblem {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code,
            actor: problem.actor,
            detail: problem.detail,
            evidence: problem.evidence,
            fix: problem.fix,
            first_seen: problem.first_seen,
            last_seen: problem.last_seen,
            next_retry_at: problem.next_retry_at,
        }
    }
}

impl From<CheckProblem> for Checked {
    fn from(found: CheckProblem) -> Self {
        Self {
            blocks: found.blocks,
            problem: found.problem.into(),
        }
    }
}

impl From<CheckView> for Check {
    fn from(view: CheckView) -> Self {
        Self {
            name: view.pattern,
            looked_at: view.name,
            registered: view.registered.map(|registered| RegisteredAs {
                name: registered.pattern,
                tenant: registered.tenant,
                state: registered.state,
            }),
            http_port: view.http_port,
            http_listening: view.http_listening,
            reached: view.reached.as_str(),
            problems: view.problems.into_iter().map(Checked::from).collect(),
            seen: view.seen,
            cdn: view.cdn,
            caa: view.caa.map(Caa::from),
            at: view.at,
        }
    }
}

impl From<CaaView> for Caa {
    fn from(view: CaaView) -> Self {
        let authorities = view.authorities.into_iter().map(|authority| CaaRuling {
            ca: authority.ca,
            permitted: match authority.permitted {
                Some(true) => "yes",
                Some(false) => "no",
                None => "unknown",
            },
            why: authority.why,
            decided_by: authority.decided_by,
        });
        Self {
            at: view.at,
            records: view.records,
            unread: view.unread,
            authorities: authorities.collect(),
        }
    }
}

impl From<DnsRecord> for Record {
    fn from(record: DnsRecord) -> Self {
        Self {
            r#type: record.kind.as_str(),
            name: record.name,
            value: record.value,
        }
    }
}

impl Domain {
    fn of(view: DomainView) -> Self {
        let requirements = view.dns_requirements.into_iter();
        Self {
            name: view.pattern,
            tenant: view.tenant,
            source: view.source,
            state: view.state,
            tls_status: view.tls_status.as_str(),
            upstream: view.upstream,
            problem: view.problem.map(DomainProblem::from),
            certificate: view
                .certificate
                .map(|(facts, status)| Certificate::of(facts, status)),
            next_attempt_at: view.next_attempt_at,
            failures: view.failures,
            dns_requirements: requirements
                .map(|way| way.into_iter().map(Record::from).collect())
                .collect(),
            created_at: view.created_at,
        }
    }
}

async fn list(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(paging): QueryParameters<TenantPaging>,
) -> Result<Json<Listing<Domain>>, ApiProblem> {
    let (tenant, page) = paging.request()?;
    let page = api.views.domains(&grant, tenant.as_ref(), &page).await?;
    Ok(Json(Listing::of(page, Domain::of)))
}

async fn show(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(name): PathParameter,
) -> Result<Json<Domain>, ApiProblem> {
    let view = api.views.domain(&grant, &pattern(&name)?).await?;
    Ok(Json(Domain::of(view)))
}

async fn check(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(name): PathParameter,
) -> Result<Json<Check>, ApiProblem> {
    let view = api.views.check(&grant, &pattern(&name)?).await?;
    Ok(Json(view.into()))
}

async fn retry(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(name): PathParameter,
) -> Result<(StatusCode, Json<Retry>), ApiProblem> {
    let domain = pattern(&name)?;
    let (job, due) = match api.actions.retry(&grant, &domain).await? {
        JobStanding::Queued(due) => ("queued", due.as_secs()),
        JobStanding::Running => ("running", 0),
        JobStanding::BackingOff(due, _) => ("backing_off", due.as_secs()),
    };
    let answer = Retry {
        domain,
        job,
        due_in_seconds: due,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

fn pattern(name: &str) -> Result<NamePattern, ApiProblem> {
    NamePattern::parse(name).map_err(|error| ApiProblem::new(Code::BadParameter, error.to_string()))
}
