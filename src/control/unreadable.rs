//! Keys of a tenant that do not open, seen when somebody looks at its domains.

use crate::base::clock::Timestamp;
use crate::certs::problem::fix;
use crate::certs::resolver::Resolver;
use crate::certs::vault::own::whole;
use crate::certs::vault::{Vault, VaultError};
use crate::control::state::TlsStatus;
use crate::keys::UnwrapError;
use crate::keys::sealed::sealed_by;
use crate::model::domain::DomainState;
use crate::model::edge::Edge;
use crate::model::problem::{Problem, ProblemCode};
use crate::store::StoreError;
use crate::store::record::{CertificateRecord, DomainRecord, KeyOwner};

/// Why the key of a domain's certificate does not open, or none can be sealed for it; nothing where all is well, and of a
/// domain that is not served.
pub(super) async fn problem(
    vault: &Vault,
    (domain, certificate): (&DomainRecord, Option<&CertificateRecord>),
    edge: &Edge,
    now: Timestamp,
) -> Result<Option<Problem>, StoreError> {
    if !domain.state.is_served() {
        return Ok(None);
    }
    let owner = KeyOwner::Tenant(domain.tenant.clone());
    let number = certificate.and_then(|certificate| sealed_by(&certificate.sealed_key));
    match vault.check(&owner, number).await {
        Ok(()) => Ok(None),
        Err(VaultError::Store(error)) => Err(error),
        Err(error) => Ok(Some(told(&error, domain, edge, now))),
    }
}

fn told(error: &VaultError, domain: &DomainRecord, edge: &Edge, now: Timestamp) -> Problem {
    let code = ProblemCode::KeyUnreadable;
    Problem {
        code,
        actor: code.actor(),
        detail: format!("the keys of tenant {} do not open", domain.tenant),
        evidence: vec![whole(error)],
        fix: Some(remedy(error, domain, edge)),
        first_seen: now,
        last_seen: now,
        next_retry_at: None,
    }
}

/// What repairs it, with the file that it takes.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not about a file has the general remedy"
)]
fn remedy(error: &VaultError, domain: &DomainRecord, edge: &Edge) -> String {
    match error {
        VaultError::OwnKek { source, .. } => whole(source.as_ref()),
        VaultError::Unwrap {
            key_file,
            source: UnwrapError::OtherKek { wrapped_by, .. },
            ..
        } => format!(
            "put the file of key-encryption key {wrapped_by} at {} (mode 0600)",
            key_file.display()
        ),
        VaultError::KeyGone { .. } => format!(
            "have another certificate issued: `vestibule domain retry '{}'`",
            domain.pattern
        ),
        _ => fix(ProblemCode::KeyUnreadable, &domain.pattern, edge),
    }
}

/// How a domain stands whose keys do not open: its certificate serves only where it is in memory.
pub(super) fn standing(
    domain: &DomainRecord,
    (state, tls): (DomainState, TlsStatus),
    resolver: &Resolver,
) -> (DomainState, TlsStatus) {
    let state = match domain.certificate {
        Some(_) if matches!(state, DomainState::Active | DomainState::Renewing) => {
            DomainState::Degraded
        }
        Some(_) | None => state,
    };
    let in_memory = domain.certificate.is_some_and(|id| resolver.holds(id));
    match in_memory {
        true => (state, tls),
        false => (state, TlsStatus::Failed),
    }
}
