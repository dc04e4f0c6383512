//! `/v1/certificates`. Chains are public; keys never come here.

use axum::extract::State;
use axum::response::Json;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::domains::DomainProblem;
use crate::api::endpoint::{Api, Endpoint, Method, Parameter, PathParameter, QueryParameters};
use crate::api::paging::{AFTER, LIMIT, Listing, TENANT, TenantPaging};
use crate::api::problem::{ApiProblem, Code, Granted};
use crate::api::schema::{
    integer, nullable, object, page, reference, string, strings, timestamp, word,
};
use crate::base::clock::Timestamp;
use crate::control::actions::certificates::{Revocation, RevocationOrder, RevocationReason};
use crate::control::state::{CertificateStatus, CertificateUse};
use crate::control::views::RevokingView;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId, SerialNumber};
use crate::model::standing::{Origin, Purpose};
use crate::model::{NamePattern, TenantId};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::Get,
        path: "/v1/certificates",
        summary: "Certificates, the oldest first; those that are replaced are among them",
        parameters: &[
            AFTER,
            LIMIT,
            TENANT,
            Parameter::Query(
                "serial",
                "Only what has this serial number: hexadecimal in any case, with or without colons; all on one page",
            ),
        ],
        response: "CertificatePage",
        status: 200,
        handler: || get(list),
    },
    Endpoint {
        method: Method::Get,
        path: "/v1/certificates/{id}",
        summary: "One certificate with its chain",
        parameters: &[Parameter::Path("id", "The certificate's id")],
        response: "CertificateWithChain",
        status: 200,
        handler: || get(show),
    },
];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let fields = json!({
        "id": string(),
        "tenant": string(),
        "names": strings(),
        "ca": string(),
        "serial": string(),
        "status": word(&CertificateStatus::ALL.map(CertificateStatus::as_str)),
        "not_before": timestamp(),
        "not_after": timestamp(),
    });
    let mut listed = fields.clone();
    let origin = word(&[Origin::Issued.as_str(), Origin::Imported.as_str()]);
    if let Some(fields) = listed.as_object_mut() {
        let purpose = word(&[Purpose::Server.as_str(), Purpose::Client.as_str()]);
        fields.insert("origin".to_owned(), origin);
        fields.insert("purpose".to_owned(), purpose);
        let used = word(&CertificateUse::ALL.map(CertificateUse::as_str));
        fields.insert("use".to_owned(), used);
        fields.insert("issuer".to_owned(), nullable(&string()));
        fields.insert("client".to_owned(), nullable(&string()));
    }
    let mut with_chain = listed.clone();
    if let Some(fields) = with_chain.as_object_mut() {
        fields.insert("created_at".to_owned(), timestamp());
        fields.insert("chain_pem".to_owned(), string());
        fields.insert("superseded_by".to_owned(), nullable(&string()));
        let revocation = nullable(&reference("CertificateRevocation"));
        fields.insert("revocation".to_owned(), revocation);
        fields.insert("key_destroyed_at".to_owned(), nullable(&timestamp()));
        fields.insert("key_kept_until".to_owned(), nullable(&timestamp()));
    }
    let reason = word(&RevocationReason::ALL.map(RevocationReason::as_str));
    let revocation = object(&json!({
        "reason": reason,
        "order": word(&RevocationOrder::ALL.map(RevocationOrder::as_str)),
        "asked_at": timestamp(),
        "replaced_at": nullable(&timestamp()),
        "revoked_at": nullable(&timestamp()),
        "told_at": nullable(&timestamp()),
        "taken_for": nullable(&reason),
        "kept": nullable(&reason),
        "left_to": nullable(&string()),
        "left_at": nullable(&timestamp()),
        "next_attempt_at": nullable(&timestamp()),
        "failures": integer(),
        "problem": nullable(&reference("DomainProblem")),
    }));
    vec![
        ("CertificateRevocation", revocation),
        ("Certificate", object(&fields)),
        ("CertificateWithChain", object(&with_chain)),
        ("ListedCertificate", object(&listed)),
        ("CertificatePage", page("ListedCertificate")),
    ]
}

/// A certificate as written, in lists and in its domain.
#[derive(Serialize)]
pub(super) struct Certificate {
    id: CertificateId,
    tenant: TenantId,
    names: Vec<NamePattern>,
    ca: CaId,
    serial: String,
    status: &'static str,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Certificate {
    /// From its facts.
    pub(super) fn of(facts: CertificateFacts, status: CertificateStatus) -> Self {
        Self {
            id: facts.id,
            tenant: facts.tenant,
            names: facts.names,
            ca: facts.ca,
            serial: facts.serial,
            status: status.as_str(),
            not_before: facts.not_before,
            not_after: facts.not_after,
        }
    }
}

#[derive(Serialize)]
struct ListedCertificate {
    #[serde(flatten)]
    certificate: Certificate,
    origin: &'static str,
    purpose: &'static str,
    client: Option<String>,
    #[serde(rename = "use")]
    used: &'static str,
    /// As the certificate names it.
    issuer: Option<String>,
}

#[derive(Serialize)]
struct CertificateWithChain {
    #[serde(flatten)]
    certificate: Certificate,
    origin: &'static str,
    purpose: &'static str,
    client: Option<String>,
    #[serde(rename = "use")]
    used: &'static str,
    /// As the certificate names it.
    issuer: Option<String>,
    created_at: Timestamp,
    superseded_by: Option<CertificateId>,
    revocation: Option<CertificateRevocation>,
    key_destroyed_at: Option<Timestamp>,
    /// When the key will be.
    key_kept_until: Option<Timestamp>,
    chain_pem: String,
}

/// A revocation, asked for or done, with the work on it while that is not done.
#[derive(Serialize)]
struct CertificateRevocation {
    reason: RevocationReason,
    order: RevocationOrder,
    asked_at: Timestamp,
    replaced_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    told_at: Option<Timestamp>,
    /// The reason that the authority took last.
    taken_for: Option<RevocationReason>,
    /// The reason that it stays with.
    kept: Option<RevocationReason>,
    /// The issuer that is to be told, for nobody here can.
    left_to: Option<String>,
    left_at: Option<Timestamp>,
    next_attempt_at: Option<Timestamp>,
    failures: u32,
    problem: Option<DomainProblem>,
}

impl CertificateRevocation {
    fn of(revocation: &Revocation, revoking: Option<RevokingView>) -> Self {
        Self {
            reason: revocation.reason,
            order: revocation.order,
            asked_at: revocation.asked_at,
            replaced_at: revocation.replaced_at,
            revoked_at: revocation.revoked_at,
            told_at: revocation.told_at,
            taken_for: revocation.taken_for,
            kept: revocation.kept,
            left_to: revocation.left_to.as_ref().map(|left| left.issuer.clone()),
            left_at: revocation.left_to.as_ref().map(|left| left.at),
            next_attempt_at: revoking.as_ref().map(|revoking| revoking.next_attempt_at),
            failures: revoking.as_ref().map_or(0, |revoking| revoking.failures),
            problem: revoking
                .and_then(|revoking| revoking.problem)
                .map(DomainProblem::from),
        }
    }
}

/// Which page of the list, or the certificates of which serial number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    after: Option<String>,
    limit: Option<usize>,
    tenant: Option<String>,
    serial: Option<String>,
}

async fn list(
    State(api): State<Api>,
    Granted(grant): Granted,
    QueryParameters(wanted): QueryParameters<Wanted>,
) -> Result<Json<Listing<ListedCertificate>>, ApiProblem> {
    let paging = TenantPaging {
        after: wanted.after,
        limit: wanted.limit,
        tenant: wanted.tenant,
    };
    let (tenant, page) = paging.request()?;
    let (views, tenant) = (&api.views, tenant.as_ref());
    let page = match wanted.serial.as_deref().map(SerialNumber::parse) {
        None => views.certificates(&grant, tenant, &page).await?,
        Some(Ok(serial)) => {
            views
                .certificates_by_serial(&grant, tenant, &serial)
                .await?
        }
        Some(Err(error)) => return Err(ApiProblem::new(Code::BadParameter, error.to_string())),
    };
    Ok(Json(Listing::of(page, |view| ListedCertificate {
        certificate: Certificate::of(view.facts, view.status),
        origin: view.standing.origin.as_str(),
        purpose: view.standing.purpose.as_str(),
        client: view.standing.client,
        used: view.used.as_str(),
        issuer: view.issuer,
    })))
}

async fn show(
    State(api): State<Api>,
    Granted(grant): Granted,
    PathParameter(id): PathParameter,
) -> Result<Json<CertificateWithChain>, ApiProblem> {
    let wrong = |_| ApiProblem::new(Code::BadParameter, "a certificate's id is a UUID");
    let id: CertificateId = id.parse().map_err(wrong)?;
    let view = api.views.certificate(&grant, id).await?;
    let standing = view.standing;
    let revocation = standing
        .revocation
        .as_ref()
        .map(|revocation| CertificateRevocation::of(revocation, view.revoking));
    Ok(Json(CertificateWithChain {
        used: view.used.as_str(),
        issuer: view.issuer,
        superseded_by: standing.superseded_by,
        revocation,
        key_destroyed_at: standing.key_destroyed_at,
        key_kept_until: standing.retire_at,
        certificate: Certificate::of(view.facts, view.status),
        origin: standing.origin.as_str(),
        purpose: standing.purpose.as_str(),
        client: standing.client,
        created_at: view.created_at,
        chain_pem: view.chain.iter().map(|der| pem(der)).collect(),
    }))
}

/// RFC 7468 §5.
pub(super) fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // 48 octets make a line of 64 characters.
    for line in der.chunks(48) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn written_chains_are_read_back() {
        for length in [0, 1, 47, 48, 49, 1000] {
            let der: Vec<u8> = (0..length).map(|n: u16| n.to_be_bytes()[1]).collect();
            let text = pem(&der);
            assert!(text.lines().all(|line| line.len() <= 64));
            let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(read.as_ref(), der);
        }
    }
}
