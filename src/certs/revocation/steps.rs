//! One run of one job: step after step of the table, each committed before the next.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::telling::{How, Told};
use super::work::{PATIENCE, Parts};
use super::{Key, Left, Serves, Step, next, obtains};
use crate::base::clock::Timestamp;
use crate::ca::{Acceptance, CaError};
use crate::certs::accounts::AccountError;
use crate::certs::chain;
use crate::certs::vault::VaultError;
use crate::model::certificate::CertificateId;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::revocation::{LeftTo, Revocation};
use crate::model::standing::{CertificateStanding, Purpose};
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{ClaimedJob, JobKey, Priority};
use crate::store::record::{AuditActor, CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, StoreError};

/// Domains of one certificate whose replacement is asked for at once.
const MOST_DOMAINS: usize = 1000;
/// Steps of one run; there are five, and others may write in between.
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
        let otherwise = match record.standing.purpose {
            Purpose::Client => Serves::Never,
            Purpose::Server if self.parts.resolver.holds(self.id) => Serves::Memory,
            Purpose::Server => Serves::No,
        };
        let left = Left {
            serves: Serves::of(domains.iter().map(|domain| domain.state), otherwise),
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
            Step::NoteTelling => {
                let told_at = Some(now);
                let noted = Revocation {
                    told_at,
                    ..revocation
                };
                self.note(record, noted, None).await?;
            }
            Step::Revoke => match self.tell(record, &revocation).await? {
                Told::By(how) => self.note_taken(record, revocation, &how, now).await?,
                Told::Nobody => self.leave(record, revocation, now).await?,
            },
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

    /// Notes that an authority took it, or a graver reason for it.
    async fn note_taken(
        &self,
        record: &CertificateRecord,
        revocation: Revocation,
        how: &How,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let reason = revocation.reason;
        tracing::info!(certificate = %self.id, %reason, "certificate revoked");
        let kept = match how.taken {
            Acceptance::Now => None,
            Acceptance::Before => revocation.taken_for,
        };
        let kind = match revocation.revoked_at {
            None => "certificate.revoked",
            Some(_) => "certificate.revocation_raised",
        };
        let detail = json!({
            "certificate": self.id, "ca": how.ca, "serial": record.facts.serial,
            "reason": reason, "by": how.by, "kept": kept,
        });
        let noted = Revocation {
            revoked_at: revocation.revoked_at.or(Some(now)),
            taken_for: Some(reason),
            kept,
            ..revocation
        };
        let event = self.event_of(record, kind, detail);
        self.note(record, noted, Some(event)).await
    }

    /// Notes that nobody here can tell who issued it.
    async fn leave(
        &self,
        record: &CertificateRecord,
        revocation: Revocation,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let facts = &record.facts;
        let issuer = chain::issuer(&record.leaf).unwrap_or_else(|| facts.ca.to_string());
        tracing::warn!(
            certificate = %self.id, issuer, serial = facts.serial,
            "nobody here can revoke a certificate: have it revoked at its issuer"
        );
        let detail = json!({
            "certificate": self.id, "issuer": issuer, "serial": facts.serial,
            "reason": revocation.reason,
        });
        let noted = Revocation {
            left_to: Some(LeftTo { issuer, at: now }),
            ..revocation
        };
        let event = self.event_of(record, "certificate.revocation_left", detail);
        self.note(record, noted, Some(event)).await
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

impl Failure {
    /// How long the authority asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.ca_error().and_then(CaError::retry_after)
    }

    pub(super) fn ca_error(&self) -> Option<&CaError> {
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

    pub(super) fn detail(&self) -> String {
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
