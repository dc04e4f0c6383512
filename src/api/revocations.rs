//! What is done about certificates that are there: revoked, replaced, served again.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method, Parameter, PathParameter, QueryParameters};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{nullable, object, string, timestamp, word};
use crate::base::clock::Timestamp;
use crate::control::actions::certificates::{RevocationAsked, RevocationOrder, RevocationReason};
use crate::model::NamePattern;
use crate::model::certificate::CertificateId;
use crate::model::name::NameError;

const ID: Parameter = Parameter::Path("id", "The certificate's id");

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::Post,
        path: "/v1/certificates/{id}/revoke",
        summary: "Asks that a certificate be revoked. Where it serves, another serves first, unless order says otherwise; \
                  afterwards its key is destroyed, also where nobody here can revoke it. Asked again, the reason may be \
                  raised to key_compromise. Does not wait for it",
        parameters: &[
            ID,
            Parameter::Query(
                "reason",
                "unspecified (the default), key_compromise, affiliation_changed, superseded, cessation_of_operation or \
                 privilege_withdrawn (RFC 5280 §5.3.1)",
            ),
            Parameter::Query("order", "replaced_first (the default) or revoked_first"),
        ],
        response: "Revocation",
        status: 202,
        handler: || post(revoke),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/certificates/{id}/cancel-revocation",
        summary: "Takes a revocation back that nobody was told of yet",
        parameters: &[ID],
        response: "CancelledRevocation",
        status: 200,
        handler: || post(cancel),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/certificates/{id}/replace",
        summary: "Asks that another certificate, with a new key, take the place of one that serves. Does not wait for it",
        parameters: &[ID],
        response: "Replacement",
        status: 202,
        handler: || post(replace),
    },
    Endpoint {
        method: Method::Post,
        path: "/v1/domains/{name}/rollback",
        summary: "Serves an earlier certificate of the domain again, and renews it when half of what it has left is over",
        parameters: &[
            Parameter::Path("name", "The name as registered"),
            Parameter::Query(
                "to",
                "The id of the certificate to serve; else the newest that is older than the present one",
            ),
        ],
        response: "Rollback",
        status: 200,
        handler: || post(roll_back),
    },
];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let revocation = object(&json!({
        "certificate": string(),
        "reason": word(&RevocationReason::ALL.map(RevocationReason::as_str)),
        "order": word(&RevocationOrder::ALL.map(RevocationOrder::as_str)),
        "asked_at": timestamp(),
        "revoked_at": nullable(&timestamp()),
        "taken_for": nullable(&word(&RevocationReason::ALL.map(RevocationReason::as_str))),
        "serial": string(),
        "elsewhere": nullable(&string()),
    }));
    let rollback = object(&json!({
        "domain": string(),
        "certificate": string(),
        "instead_of": string(),
        "renew_at": timestamp(),
    }));
    vec![
        ("Revocation", revocation),
        (
            "CancelledRevocation",
            object(&json!({ "certificate": string() })),
        ),
        ("Replacement", object(&json!({ "certificate": string() }))),
        ("Rollback", rollback),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    reason: Option<RevocationReason>,
    order: Option<RevocationOrder>,
}

#[derive(Serialize)]
struct RevocationAnswer {
    certificate: CertificateId,
    reason: RevocationReason,
    order: RevocationOrder,
    asked_at: Timestamp,
    revoked_at: Option<Timestamp>,
    /// The reason that the authority took last.
    taken_for: Option<RevocationReason>,
    serial: String,
    /// The issuer, where it is none of the configured authorities as far as is known.
    elsewhere: Option<String>,
}

#[derive(Serialize)]
struct CancelledRevocation {
    certificate: CertificateId,
}

#[derive(Serialize)]
struct Replacement {
    certificate: CertificateId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    to: Option<String>,
}

#[derive(Serialize)]
struct Rollback {
    domain: NamePattern,
    certificate: CertificateId,
    instead_of: CertificateId,
    renew_at: Timestamp,
}

async fn revoke(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(id): PathParameter,
    QueryParameters(wanted): QueryParameters<Wanted>,
) -> Result<(StatusCode, Json<RevocationAnswer>), ApiProblem> {
    let certificate = parsed(&id)?;
    let reason = wanted.reason.unwrap_or(RevocationReason::Unspecified);
    let order = wanted.order.unwrap_or(RevocationOrder::ReplacedFirst);
    let asked = api.actions.revoke(&grant, certificate, (reason, order));
    let RevocationAsked {
        revocation,
        serial,
        elsewhere,
    } = asked.await?;
    let answer = RevocationAnswer {
        certificate,
        reason: revocation.reason,
        order: revocation.order,
        asked_at: revocation.asked_at,
        revoked_at: revocation.revoked_at,
        taken_for: revocation.taken_for,
        serial,
        elsewhere,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

async fn cancel(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(id): PathParameter,
) -> Result<Json<CancelledRevocation>, ApiProblem> {
    let certificate = parsed(&id)?;
    api.actions.cancel_revocation(&grant, certificate).await?;
    Ok(Json(CancelledRevocation { certificate }))
}

async fn replace(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(id): PathParameter,
) -> Result<(StatusCode, Json<Replacement>), ApiProblem> {
    let certificate = parsed(&id)?;
    api.actions.replace(&grant, certificate).await?;
    Ok((StatusCode::ACCEPTED, Json(Replacement { certificate })))
}

async fn roll_back(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(name): PathParameter,
    QueryParameters(target): QueryParameters<Target>,
) -> Result<Json<Rollback>, ApiProblem> {
    let wrong = |error: NameError| ApiProblem::new(Code::BadParameter, error.to_string());
    let domain = NamePattern::parse(&name).map_err(wrong)?;
    let to = target.to.as_deref().map(parsed).transpose()?;
    let done = api.actions.roll_back(&grant, &domain, to).await?;
    Ok(Json(Rollback {
        domain,
        certificate: done.certificate,
        instead_of: done.instead_of,
        renew_at: done.renew_at,
    }))
}

fn parsed(id: &str) -> Result<CertificateId, ApiProblem> {
    let wrong = |_| ApiProblem::new(Code::BadParameter, "a certificate's id is a UUID");
    id.parse().map_err(wrong)
}
