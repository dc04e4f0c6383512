//! `/v1/drill`: what would happen if, without touching an authority or anything that serves.

use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method, Parameter, QueryParameters};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{
    array, boolean, integer, nullable, object, reference, string, timestamp, word,
};
use crate::base::clock::Timestamp;
use crate::control::drill::{
    Affected, Drilled, DrilledAuthority, DrilledKeys, Next, OUTAGES, RATES, Reckoned, Renewals,
    Speed, Standing, Takes,
};
use crate::model::{NamePattern, TenantId};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Post,
    path: "/v1/drill",
    summary: "Rehearse the replacement of everything, an outage of each CA, and the loss of the key file; changes nothing, asks no CA",
    parameters: &[Parameter::Number(
        "orders_per_second",
        "Orders a second to reckon with: 1 to 1000000; what was measured where absent, else 12",
    )],
    response: "Drill",
    status: 200,
    handler: || post(drill),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let number = json!({ "type": "number" });
    let seconds = nullable(&integer());
    let takes = object(&json!({ "seconds": seconds, "bound_by": string() }));
    let speed = object(&json!({
        "orders_per_second": number,
        "from": word(&["asked", "measured", "assumed"]),
        "issuances": nullable(&integer()),
        "mean_seconds": nullable(&number),
    }));
    let outage = object(&json!({
        "seconds": integer(),
        "renewals_held_up": integer(),
        "expired": integer(),
        "expired_if_next_takes_over": integer(),
    }));
    let expiry = object(&json!({ "domain": string(), "not_after": timestamp() }));
    let state = nullable(&word(&["ready", "away", "tried"]));
    let next = object(&json!({
        "ca": nullable(&string()),
        "state": state,
        "certificates": integer(),
        "takes": nullable(&reference("DrillTakes")),
    }));
    let ca = object(&json!({
        "ca": nullable(&string()),
        "state": state,
        "certificates": integer(),
        "expired": integer(),
        "issued_by_others": integer(),
        "shortest_lifetime_seconds": seconds,
        "longest_lifetime_seconds": seconds,
        "replacing": nullable(&reference("DrillTakes")),
        "outages": array(&reference("DrillOutage")),
        "survives_seconds": seconds,
        "shortest_margin_seconds": seconds,
        "first_to_expire": array(&reference("DrillExpiry")),
        "next": array(&reference("DrillNext")),
    }));
    let tenant = object(&json!({
        "tenant": string(),
        "names": integer(),
        "in_memory": integer(),
        "renewals": word(&["go_on", "stop"]),
    }));
    let name = object(&json!({ "domain": string(), "why": string() }));
    let loss = object(&json!({ "tenant": string(), "names": integer(), "why": string() }));
    let keys = object(&json!({
        "file": string(),
        "restart_fails": nullable(&string()),
        "restart_loses": array(&reference("DrillLoss")),
        "opened": integer(),
        "unreadable": integer(),
        "tenants": array(&reference("DrillTenant")),
        "names": array(&reference("DrillKey")),
    }));
    let drill = object(&json!({
        "at": timestamp(),
        "certificates": integer(),
        "complete": boolean(),
        "speed": reference("DrillSpeed"),
        "replacing_seconds": seconds,
        "cas": array(&reference("DrillCa")),
        "keys": reference("DrillKeys"),
    }));
    vec![
        ("Drill", drill),
        ("DrillSpeed", speed),
        ("DrillCa", ca),
        ("DrillTakes", takes),
        ("DrillOutage", outage),
        ("DrillExpiry", expiry),
        ("DrillNext", next),
        ("DrillKeys", keys),
        ("DrillLoss", loss),
        ("DrillTenant", tenant),
        ("DrillKey", name),
    ]
}

#[derive(Serialize)]
struct Drill {
    at: Timestamp,
    certificates: u64,
    complete: bool,
    speed: DrillSpeed,
    replacing_seconds: Option<u64>,
    cas: Vec<DrillCa>,
    keys: DrillKeys,
}

#[derive(Serialize)]
struct DrillSpeed {
    orders_per_second: f64,
    from: &'static str,
    issuances: Option<u64>,
    mean_seconds: Option<f64>,
}

#[derive(Serialize)]
struct DrillCa {
    ca: Option<String>,
    state: Option<&'static str>,
    certificates: u64,
    expired: u64,
    issued_by_others: u64,
    shortest_lifetime_seconds: Option<u64>,
    longest_lifetime_seconds: Option<u64>,
    replacing: Option<DrillTakes>,
    outages: Vec<DrillOutage>,
    survives_seconds: Option<u64>,
    shortest_margin_seconds: Option<u64>,
    first_to_expire: Vec<DrillExpiry>,
    next: Vec<DrillNext>,
}

#[derive(Serialize)]
struct DrillTakes {
    seconds: Option<u64>,
    bound_by: &'static str,
}

#[derive(Serialize)]
struct DrillOutage {
    seconds: u64,
    renewals_held_up: u64,
    expired: u64,
    expired_if_next_takes_over: u64,
}

#[derive(Serialize)]
struct DrillExpiry {
    domain: NamePattern,
    not_after: Timestamp,
}

#[derive(Serialize)]
struct DrillNext {
    ca: Option<String>,
    state: Option<&'static str>,
    certificates: u64,
    takes: Option<DrillTakes>,
}

#[derive(Serialize)]
struct DrillKeys {
    file: String,
    restart_fails: Option<String>,
    restart_loses: Vec<DrillLoss>,
    opened: u64,
    unreadable: u64,
    tenants: Vec<DrillTenant>,
    names: Vec<DrillKey>,
}

#[derive(Serialize)]
struct DrillLoss {
    tenant: TenantId,
    names: u64,
    why: String,
}

#[derive(Serialize)]
struct DrillTenant {
    tenant: TenantId,
    names: u64,
    in_memory: u64,
    renewals: &'static str,
}

#[derive(Serialize)]
struct DrillKey {
    domain: NamePattern,
    why: String,
}

impl From<Drilled> for Drill {
    fn from(drilled: Drilled) -> Self {
        Self {
            at: drilled.at,
            certificates: drilled.certificates,
            complete: drilled.complete,
            speed: drilled.speed.into(),
            replacing_seconds: seconds(drilled.replacing),
            cas: drilled.authorities.into_iter().map(DrillCa::from).collect(),
            keys: drilled.keys.into(),
        }
    }
}

impl From<Speed> for DrillSpeed {
    fn from(speed: Speed) -> Self {
        let (from, measured) = match speed {
            Speed::Asked(_) => ("asked", None),
            Speed::Measured {
                issuances, mean, ..
            } => ("measured", Some((issuances, mean))),
            Speed::Assumed(_) => ("assumed", None),
        };
        Self {
            orders_per_second: speed.rate(),
            from,
            issuances: measured.map(|(issuances, _)| issuances),
            mean_seconds: measured.map(|(_, mean)| mean.as_secs_f64()),
        }
    }
}

impl From<DrilledAuthority> for DrillCa {
    fn from(drilled: DrilledAuthority) -> Self {
        let (group, reckoned) = (drilled.group, drilled.reckoned);
        let first = group.first.into_iter();
        Self {
            ca: drilled.ca.map(|ca| ca.to_string()),
            state: drilled.standing.map(Standing::as_str),
            certificates: group.certificates,
            expired: group.expired,
            issued_by_others: group.of_others,
            shortest_lifetime_seconds: group.lifetimes.map(|(least, _)| least.as_secs()),
            longest_lifetime_seconds: group.lifetimes.map(|(_, most)| most.as_secs()),
            replacing: reckoned.map(|reckoned| reckoned.replacing.into()),
            outages: reckoned.map_or_else(Vec::new, outages),
            survives_seconds: reckoned.and_then(|of| of.survives).and_then(seconds),
            shortest_margin_seconds: group.margin.and_then(seconds),
            first_to_expire: first
                .map(|(not_after, domain)| DrillExpiry { domain, not_after })
                .collect(),
            next: drilled.next.into_iter().map(DrillNext::from).collect(),
        }
    }
}

fn outages(reckoned: Reckoned) -> Vec<DrillOutage> {
    let outages = reckoned.outages.into_iter().zip(OUTAGES);
    let outages = outages.map(|(outage, long)| DrillOutage {
        seconds: long.as_secs(),
        renewals_held_up: outage.held_up,
        expired: outage.expired,
        expired_if_next_takes_over: outage.expired_in_spite,
    });
    outages.collect()
}

impl From<Takes> for DrillTakes {
    fn from(takes: Takes) -> Self {
        Self {
            seconds: seconds(takes.long),
            bound_by: takes.bound_by.as_str(),
        }
    }
}

impl From<Next> for DrillNext {
    fn from(next: Next) -> Self {
        Self {
            ca: next.ca.map(|ca| ca.to_string()),
            state: next.standing.map(Standing::as_str),
            certificates: next.certificates,
            takes: next.takes.map(DrillTakes::from),
        }
    }
}

impl From<DrilledKeys> for DrillKeys {
    fn from(keys: DrilledKeys) -> Self {
        let tenants = keys.tenants.into_iter().map(|(tenant, affected)| {
            let Affected {
                names,
                in_memory,
                renewals,
            } = affected;
            DrillTenant {
                tenant,
                names,
                in_memory,
                renewals: match renewals {
                    Renewals::GoOn => "go_on",
                    Renewals::Stop => "stop",
                },
            }
        });
        let names = keys.unreadable_names.into_iter();
        let lost = keys.lost.into_iter().map(|(tenant, lost)| DrillLoss {
            tenant,
            names: lost.names,
            why: lost.why,
        });
        Self {
            file: keys.file.display().to_string(),
            restart_fails: keys.restart,
            restart_loses: lost.collect(),
            opened: keys.opened,
            unreadable: keys.unreadable,
            tenants: tenants.collect(),
            names: names
                .map(|(domain, why)| DrillKey { domain, why })
                .collect(),
        }
    }
}

/// In whole seconds; nothing for ever.
fn seconds(long: Duration) -> Option<u64> {
    (long < Duration::MAX).then_some(long.as_secs())
}

#[derive(Deserialize)]
struct Parameters {
    orders_per_second: Option<String>,
}

/// Orders a second, as asked for.
fn rate(text: &str) -> Result<f64, ApiProblem> {
    let rate = text.parse().ok().filter(|rate| RATES.contains(rate));
    let rate = rate.ok_or_else(|| {
        let (least, most) = (RATES.start(), RATES.end());
        let detail =
            format!("orders_per_second {text:?} is not a whole number from {least} to {most}");
        ApiProblem::new(Code::BadParameter, detail)
    })?;
    Ok(f64::from(rate))
}

async fn drill(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(parameters): QueryParameters<Parameters>,
) -> Result<Json<Drill>, ApiProblem> {
    let rate = parameters.orders_per_second.as_deref().map(rate);
    let rate = rate.transpose()?;
    let drilled = api.actions.drill(&grant, rate).await?;
    Ok(Json(drilled.into()))
}
