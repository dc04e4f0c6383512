//! One run of one job: step after step of the table, each committed before the next.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::work::{PATIENCE, Parts};
use super::{Key, Left, Serves, Step, next, obtains};
use crate::base::clock::Timestamp;
use crate::ca::{CaError, RevokedLeaf};
use crate::certs::accounts::AccountError;
use crate::certs::credential::key_sealed_as;
use crate::certs::vault::VaultError;
use crate::model::certificate::CertificateId;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::revocation::Revocation;
use crate::model::standing::CertificateStanding;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{ClaimedJob, JobKey, Priority};
use crate::store::record::{AuditActor, CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, StoreError};
use crate::telemetry::labels::RevocationOutcome;

/// Domains of one certificate whose replacement is asked for at once.
const MOST_DOMAINS: usize = 1000;
/// Steps of one run; there are four, and others may write in between.
const MOST_STEPS: usize = 16;
/// The wait where others kept writing.
const CROWDED: Duration = Duration::from_secs(1);

/// A run in progress.
pub(super) struct Run<'a> {
    pub parts: &'a Parts,
    pub job: &'a ClaimedJob,
    pub id: CertificateId,
    pub tenant: &'a TenantId,
    pub scope: TenantScope,
}

/// How a run ended.
pub(super) enum Ended {
    /// Nothing is left to do.
    Done,
    /// It goes on after so long; what it waits for, where that has a problem.
    Again(Duration, Option<Problem>),
}

/// Why a step was not taken.
#[derive(Debug)]
pub(super) enum Failure {
    Store(StoreError),
    Refused(ApplyError),
    Account(Arc<AccountError>),
    Vault(VaultError),
    Deadline(Duration),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        if let ApplyError::Store(error) = error {
            return Self::Store(error);
        }
        Self::Refused(error)
    }
}

impl Run<'_> {
    /// Takes steps until one has to wait.
    pub(super) async fn steps(&self) -> Result<Ended, Failure> {
        for _ in 0..MOST_STEPS {
            let by = Deadline::after(PATIENCE);
            let store = &self.parts.store;
            let Some(record) = store.certificate(by, &self.scope, self.id).await? else {
                return Ok(Ended::Done);
            };
            let Some(revocation) = record.standing.revocation.clone() else {
                return Ok(Ended::Done);
            };
            match self.step(&record, revocation).await {
                Ok(None) => {}
                Ok(Some(ended)) => return Ok(ended),
                // Somebody else wrote what is known of it meanwhile: read again.
                Err(Failure::Refused(ApplyError::GuardFailed(Guard::StandingIs(..)))) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(Ended::Again(CROWDED, None))
    }

    async fn step(
        &self,
        record: &CertificateRecord,
        revocation: Revocation,
    ) -> Result<Option<Ended>, Failure> {
        let domains = self.domains().await?;
        let in_memory = match self.parts.resolver.holds(self.id) {
            true => Serves::Memory,
            false => Serves::No,
        };
        let left = Left {
            serves: Serves::of(domains.iter().map(|domain| domain.state), in_memory),
            not_after: record.facts.not_after,
            key: match record.sealed_key.is_empty() {
                true => Key::Gone,
                false => Key::Kept,
            },
        };
        let now = self.parts.clock.now();
        match next(&revocation, left, now) {
            Step::AwaitReplacement(wait) => {
                let problem = self.ask_for_replacement(&domains).await?;
                return Ok(Some(Ended::Again(wait, problem)));
            }
            Step::Wait(wait) => return Ok(Some(Ended::Again(wait, None))),
            Step::Done => return Ok(Some(Ended::Done)),
            Step::NoteReplaced => {
                let replaced_at = Some(now);
                let noted = Revocation {
                    replaced_at,
                    ..revocation
                };
                self.note(record, noted, None).await?;
            }
            Step::Revoke => {
                let by = self.revoke(record, &revocation).await?;
                tracing::info!(certificate = %self.id, reason = %revocation.reason, "certificate revoked");
                let detail = json!({
                    "certificate": self.id, "ca": record.facts.ca, "serial": record.facts.serial,
                    "reason": revocation.reason, "by": by,
                });
                let revoked_at = Some(now);
                let noted = Revocation {
                    revoked_at,
                    ..revocation
                };
                let event = self.event_of(record, "certificate.revoked", detail);
                self.note(record, noted, Some(event)).await?;
            }
            Step::DestroyKey => {
                let detail = json!({ "certificate": self.id, "why": "revoked" });
                let kind = "certificate.key_destroyed";
                let destroy = Operation::DestroyKey {
                    certificate: self.id,
                };
                let batch = Batch::new()
                    .then(destroy)
                    .audit(self.event_of(record, kind, detail));
                self.commit(batch).await?;
            }
        }
        Ok(None)
    }

    async fn domains(&self) -> Result<Vec<DomainRecord>, StoreError> {
        let by = Deadline::after(PATIENCE);
        let (store, scope) = (&self.parts.store, &self.scope);
        store
            .domains_served_by(by, scope, self.id, MOST_DOMAINS)
            .await
    }

    /// Brings the domains' own jobs forward, within their back-off; gives what is wrong with the first that has a problem.
    async fn ask_for_replacement(
        &self,
        domains: &[DomainRecord],
    ) -> Result<Option<Problem>, Failure> {
        let obtained = || domains.iter().filter(|domain| obtains(domain.state));
        let batch = obtained().fold(Batch::new(), |batch, domain| {
            batch.then(Operation::RequestJob {
                key: JobKey::Certificate(domain.pattern.clone()),
                tenant: domain.tenant.clone(),
                priority: Priority::Expiring,
                delay: Duration::ZERO,
                urgency: Urgency::HeedBackoff,
            })
        });
        self.commit(batch).await?;
        Ok(obtained().find_map(|domain| domain.problem.clone()))
    }

    /// On the list of an authority of our own, or by the account that ordered, where that is ours; by the certificate's own
    /// key otherwise. Tells which.
    async fn revoke(
        &self,
        record: &CertificateRecord,
        revocation: &Revocation,
    ) -> Result<&'static str, Failure> {
        let ca = &record.facts.ca;
        let leaf = RevokedLeaf {
            der: &record.leaf,
            reason: revocation.reason,
        };
        let accounts = &self.parts.accounts;
        let told = match accounts.revoke((self.tenant, ca), leaf).await {
            Ok(by) => Ok(by),
            Err(refused) if is_another_accounts(&refused) => {
                self.revoke_by_key(record, leaf, refused).await
            }
            Err(error) => Err(Failure::Account(error)),
        };
        let outcome = match told {
            Ok(_) => RevocationOutcome::Revoked,
            Err(_) => RevocationOutcome::Failed,
        };
        self.parts.metrics.revocations.count(ca, outcome);
        told
    }

    async fn revoke_by_key(
        &self,
        record: &CertificateRecord,
        leaf: RevokedLeaf<'_>,
        refused: Arc<AccountError>,
    ) -> Result<&'static str, Failure> {
        // A client's key was never here.
        let name = key_sealed_as(&record.facts).filter(|_| !record.sealed_key.is_empty());
        let Some(name) = name else {
            return Err(Failure::Account(refused));
        };
        let owner = KeyOwner::Tenant(record.facts.tenant.clone());
        let vault = &self.parts.vault;
        let key = vault.open(&owner, &name, &record.sealed_key).await;
        let key = key.map_err(Failure::Vault)?;
        let accounts = &self.parts.accounts;
        let told = accounts.revoke_by_key(&record.facts.ca, leaf, &key).await;
        told.map(|()| "key").map_err(Failure::Account)
    }

    async fn note(
        &self,
        record: &CertificateRecord,
        revocation: Revocation,
        event: Option<AuditEvent>,
    ) -> Result<(), Failure> {
        let standing = CertificateStanding {
            revocation: Some(revocation),
            ..record.standing.clone()
        };
        let batch = Batch::new()
            .guard(Guard::StandingIs(
                self.id,
                Box::new(record.standing.clone()),
            ))
            .then(Operation::SetCertificateStanding {
                certificate: self.id,
                standing: Box::new(standing),
            });
        let batch = event.into_iter().fold(batch, Batch::audit);
        self.commit(batch).await
    }

    /// An event about the certificate, where it can be read.
    pub(super) async fn event(&self, kind: &'static str, detail: serde_json::Value) -> AuditEvent {
        let by = Deadline::after(PATIENCE);
        let record = self.parts.store.certificate(by, &self.scope, self.id).await;
        match record.ok().flatten() {
            Some(record) => self.event_of(&record, kind, detail),
            None => self.event_about(self.id.to_string(), kind, detail),
        }
    }

    fn event_of(
        &self,
        record: &CertificateRecord,
        kind: &'static str,
        detail: serde_json::Value,
    ) -> AuditEvent {
        let name = record.facts.names.first();
        let subject = name.map_or_else(|| self.id.to_string(), NamePattern::to_string);
        self.event_about(subject, kind, detail)
    }

    fn event_about(
        &self,
        subject: String,
        kind: &'static str,
        detail: serde_json::Value,
    ) -> AuditEvent {
        AuditEvent {
            owner: KeyOwner::Tenant(self.tenant.clone()),
            actor: AuditActor::System,
            kind,
            subject,
            detail,
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), Failure> {
        let batch = batch.guard(Guard::ClaimHeld(self.job.claim.clone()));
        let by = Deadline::after(PATIENCE);
        let applied = self.parts.store.apply(by, &self.scope, batch).await;
        applied.map(drop).map_err(Failure::from)
    }
}

/// Whether the certificate is to be revoked by its own key: its account is another's, is gone, or cannot be opened, for
/// instance because the authority's account belongs to another installation now.
fn is_another_accounts(error: &AccountError) -> bool {
    let AccountError::Ca(error) = error else {
        return false;
    };
    if let CaError::Refused { document, .. } = error {
        let kind = document.kind.as_str();
        return matches!(kind, "unauthorized" | "malformed" | "accountDoesNotExist");
    }
    matches!(
        error,
        CaError::AccountUnknown { .. }
            | CaError::BindingRefused { .. }
            | CaError::Status {
                status: 401 | 403,
                ..
            }
    )
}

impl Failure {
    /// How long the authority asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.ca_error().and_then(CaError::retry_after)
    }

    fn ca_error(&self) -> Option<&CaError> {
        if let Self::Account(error) = self {
            return error.ca_error();
        }
        None
    }

    fn code(&self) -> ProblemCode {
        match self {
            Self::Store(_) | Self::Refused(_) | Self::Deadline(_) => ProblemCode::CheckFailed,
            Self::Vault(_) => ProblemCode::KeyUnreadable,
            Self::Account(error) => error.code(),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Store(error) => error.to_string(),
            Self::Refused(error) => error.to_string(),
            Self::Vault(error) => error.to_string(),
            Self::Account(error) => error.to_string(),
            Self::Deadline(limit) => {
                format!("the revocation was not done within {} s", limit.as_secs())
            }
        }
    }

    /// What the operator reads.
    pub(super) fn problem(
        &self,
        earlier: Option<&Problem>,
        now: Timestamp,
        retry: Timestamp,
    ) -> Problem {
        let code = self.code();
        let earlier = earlier.filter(|earlier| earlier.code == code);
        Problem {
            code,
            actor: code.actor(),
            detail: self.detail(),
            evidence: self.ca_error().map(CaError::evidence).unwrap_or_default(),
            fix: None,
            first_seen: earlier.map_or(now, |earlier| earlier.first_seen),
            last_seen: now,
            next_retry_at: Some(retry),
        }
    }
}
