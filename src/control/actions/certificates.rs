//! What a caller may do about a certificate that is there: revoke it, replace it, serve an earlier one again.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ActionError, Actions, CALL, action_error};
use crate::base::clock::Timestamp;
use crate::certs::accounts::Accounts;
use crate::certs::chain;
use crate::certs::import::placement::holds;
use crate::certs::revocation::obtains;
use crate::control::caller::Grant;
use crate::model::NamePattern;
use crate::model::certificate::CertificateId;
use crate::model::standing::{CertificateStanding, Replace};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{JobKey, Priority};
use crate::store::record::{CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline};

pub use crate::model::revocation::{Revocation, RevocationOrder, RevocationReason};

/// Certificates of one name that a rollback looks through.
const MOST_EARLIER: usize = 100;
/// Domains of one certificate that are replaced at once.
const MOST_DOMAINS: usize = 1000;
/// Tries of a change while somebody else writes what is known of the certificate.
const MOST_TRIES: u32 = 3;

/// A revocation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationAsked {
    /// How far it is.
    pub revocation: Revocation,
    /// The certificate's serial number.
    pub serial: String,
    /// The name of the certificate's issuer, where the authority that it is noted under is none of the configured: it may
    /// be that nobody here can revoke it.
    pub elsewhere: Option<String>,
}

/// A rollback that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The certificate that serves now.
    pub certificate: CertificateId,
    /// The one that served before.
    pub instead_of: CertificateId,
    /// When the one that serves now is renewed, as if it had never been replaced.
    pub renew_at: Timestamp,
}

impl Actions {
    /// Asks that a certificate be revoked; done by a job that survives restarts, and tried again until the authority
    /// takes it. Where nobody here can revoke it, all else is done: another serves, it never does again, its key is
    /// destroyed. Asked again, an earlier wish stays, is worked on at once, and may be raised
    /// ([`Revocation::asked_again`]).
    ///
    /// # Errors
    /// [`ActionError`]; [`ActionError::NotPossible`] where it has expired.
    pub async fn revoke(
        &self,
        grant: &Grant,
        id: CertificateId,
        (reason, order): (RevocationReason, RevocationOrder),
    ) -> Result<RevocationAsked, ActionError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_to_revoke(grant, id, (reason, order)).await {
                Err(ActionError::Conflict(_)) if tries < MOST_TRIES => {}
                result => return result,
            }
        }
    }

    async fn try_to_revoke(
        &self,
        grant: &Grant,
        id: CertificateId,
        (reason, order): (RevocationReason, RevocationOrder),
    ) -> Result<RevocationAsked, ActionError> {
        let record = self.certificate(grant, id).await?;
        let now = self.clock.now();
        let revocation = match record.standing.revocation.clone() {
            Some(asked) => {
                let again = asked.clone().asked_again(reason, order);
                if again.is_told() && again.reason == asked.reason {
                    return Ok(self.asked(&record, again));
                }
                again
            }
            None if record.facts.not_after <= now => {
                let why = "nobody takes it for valid any more";
                return Err(ActionError::NotPossible(format!(
                    "certificate {id} has expired: {why}"
                )));
            }
            None => Revocation::asked(reason, order, now),
        };
        let domains = self.served(grant, id).await?;
        let standing = CertificateStanding {
            revocation: Some(revocation.clone()),
            replace: Some(match revocation.reason {
                RevocationReason::KeyCompromise => Replace::KeyCompromised,
                RevocationReason::Unspecified
                | RevocationReason::AffiliationChanged
                | RevocationReason::Superseded
                | RevocationReason::CessationOfOperation
                | RevocationReason::PrivilegeWithdrawn => Replace::Revoked,
            }),
            ..record.standing.clone()
        };
        let detail = json!({
            "certificate": id, "reason": revocation.reason, "order": revocation.order,
        });
        let batch = replaced_now(set(&record, standing), &domains)
            .then(Operation::RequestJob {
                key: JobKey::Revocation(id),
                tenant: record.facts.tenant.clone(),
                priority: Priority::Expiring,
                delay: Duration::ZERO,
                urgency: Urgency::Now,
            })
            .audit(event(
                grant,
                &record,
                "certificate.revocation_asked",
                detail,
            ));
        self.act(grant, batch, id).await?;
        let (tenant, reason) = (&record.facts.tenant, revocation.reason);
        tracing::info!(certificate = %id, %tenant, %reason, "revocation asked for");
        Ok(self.asked(&record, revocation))
    }

    fn asked(&self, record: &CertificateRecord, revocation: Revocation) -> RevocationAsked {
        let ca = &record.facts.ca;
        let is_here = |accounts: &Accounts| accounts.authorities().find(ca).is_some();
        let issuer = || chain::issuer(&record.leaf).unwrap_or_else(|| ca.to_string());
        RevocationAsked {
            revocation,
            serial: record.facts.serial.clone(),
            elsewhere: (!self.accounts().is_some_and(is_here)).then(issuer),
        }
    }

    /// Takes a revocation back that nobody was told of yet. Another certificate that was ordered meanwhile stays.
    ///
    /// # Errors
    /// [`ActionError`]; [`ActionError::NotPossible`] where none was asked for, or somebody may know of it.
    pub async fn cancel_revocation(
        &self,
        grant: &Grant,
        id: CertificateId,
    ) -> Result<(), ActionError> {
        let record = self.certificate(grant, id).await?;
        let refused = |why: String| Err(ActionError::NotPossible(why));
        match &record.standing.revocation {
            None => return refused(format!("nobody has asked that certificate {id} be revoked")),
            Some(revocation) if !revocation.is_untold() => {
                return refused(format!(
                    "it is too late: certificate {id} is revoked or its issuer may know of it, and no CA takes that back"
                ));
            }
            Some(_) => {}
        }
        let (read, detail) = (record.standing.clone(), json!({ "certificate": id }));
        let batch = Batch::new()
            .guard(Guard::StandingIs(id, Box::new(read)))
            .then(Operation::CancelRevocation { certificate: id })
            .then(Operation::DeleteJob {
                key: JobKey::Revocation(id),
            })
            .audit(event(
                grant,
                &record,
                "certificate.revocation_cancelled",
                detail,
            ));
        self.act(grant, batch, id).await?;
        tracing::info!(certificate = %id, tenant = %record.facts.tenant, "revocation cancelled");
        Ok(())
    }

    /// Asks that another certificate, with a new key, take the place of one that serves, at once.
    ///
    /// # Errors
    /// [`ActionError`]; [`ActionError::NotPossible`] where it serves no domain for which certificates are obtained.
    pub async fn replace(&self, grant: &Grant, id: CertificateId) -> Result<(), ActionError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_to_replace(grant, id).await {
                Err(ActionError::Conflict(_)) if tries < MOST_TRIES => {}
                result => return result,
            }
        }
    }

    async fn try_to_replace(&self, grant: &Grant, id: CertificateId) -> Result<(), ActionError> {
        let record = self.certificate(grant, id).await?;
        let domains = self.served(grant, id).await?;
        let Some(first) = domains.first() else {
            let why = format!("certificate {id} serves no domain: there is nothing to replace");
            return Err(ActionError::NotPossible(why));
        };
        if !domains.iter().any(|domain| obtains(domain.state)) {
            let why = format!(
                "domain {} is {}: nothing is obtained for it",
                first.pattern, first.state
            );
            return Err(ActionError::NotPossible(why));
        }
        let standing = CertificateStanding {
            replace: Some(record.standing.replace.unwrap_or(Replace::Asked)),
            ..record.standing.clone()
        };
        let detail = json!({ "certificate": id });
        let batch = replaced_now(set(&record, standing), &domains).audit(event(
            grant,
            &record,
            "certificate.replacement_asked",
            detail,
        ));
        self.act(grant, batch, id).await?;
        tracing::info!(certificate = %id, tenant = %record.facts.tenant, "replacement asked for");
        Ok(())
    }

    /// Serves an earlier certificate of a domain again: `to`, or the newest that is older than the one that serves. It
    /// must be valid, not revoked, and have its key. It is renewed when half of what it has left is over.
    ///
    /// # Errors
    /// [`ActionError`]; [`ActionError::NotPossible`] where there is no such certificate,
    /// [`ActionError::Conflict`] while a certificate is being obtained.
    pub async fn roll_back(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
        to: Option<CertificateId>,
    ) -> Result<RolledBack, ActionError> {
        let by = Deadline::after(CALL);
        let domain = self.domain(grant, pattern).await?;
        let key = JobKey::Certificate(pattern.clone());
        let job = self.store.job(by, grant.scope(), &key).await;
        if job
            .map_err(ActionError::Store)?
            .is_some_and(|job| job.leased_until.is_some())
        {
            return Err(ActionError::Conflict(format!("domain {pattern}")));
        }
        let now = self.clock.now();
        let (target, instead_of) = self.earlier(grant, &domain, to, now).await?;
        let left = target.facts.not_after.since(now);
        let renew_at = now.plus(left / 2);
        let standing = CertificateStanding {
            renew_at: Some(renew_at),
            replace: None,
            ..target.standing.clone()
        };
        let id = target.facts.id;
        let detail = json!({ "certificate": id, "instead_of": instead_of, "renew_at": renew_at });
        let batch = set(&target, standing)
            .guard(Guard::DomainVersion(pattern.clone(), domain.version))
            .then(Operation::PointDomain {
                pattern: pattern.clone(),
                certificate: id,
            })
            .then(Operation::RequestJob {
                key,
                tenant: domain.tenant.clone(),
                priority: Priority::Renewal,
                delay: left / 2,
                urgency: Urgency::HeedBackoff,
            })
            .audit(AuditEvent {
                subject: pattern.to_string(),
                ..event(grant, &target, "domain.rolled_back", detail)
            });
        let applied = self.store.apply(by, grant.scope(), batch).await;
        applied.map_err(|error| action_error(error, pattern))?;
        tracing::info!(domain = %pattern, tenant = %domain.tenant, certificate = %id, %instead_of, "rolled back");
        Ok(RolledBack {
            certificate: id,
            instead_of,
            renew_at,
        })
    }

    /// The certificate to serve again, and the one that serves now.
    async fn earlier(
        &self,
        grant: &Grant,
        domain: &DomainRecord,
        to: Option<CertificateId>,
        now: Timestamp,
    ) -> Result<(CertificateRecord, CertificateId), ActionError> {
        let pattern = &domain.pattern;
        let Some(current) = domain.certificate else {
            let why = format!("domain {pattern} has no certificate yet");
            return Err(ActionError::NotPossible(why));
        };
        let can_serve = |record: &CertificateRecord| {
            let facts = &record.facts;
            facts.id != current
                && facts.tenant == domain.tenant
                && facts.names.iter().any(|name| holds(name, pattern))
                && facts.not_before <= now
                && now < facts.not_after
                && record.standing.may_serve()
        };
        if let Some(to) = to {
            let named = self.certificate(grant, to).await?;
            if can_serve(&named) {
                return Ok((named, current));
            }
            return Err(ActionError::NotPossible(format!(
                "certificate {to} cannot serve {pattern}: it serves already, is not valid now, is revoked, has no key \
                 any more, or is not for that name"
            )));
        }
        let wildcard = match pattern {
            NamePattern::Exact(name) => NamePattern::wildcard_over(name),
            NamePattern::Wildcard(_) => None,
        };
        let mut found = Vec::new();
        for of in [Some(pattern), wildcard.as_ref()].into_iter().flatten() {
            let by = Deadline::after(CALL);
            let page = self
                .store
                .certificates_of(by, grant.scope(), of, MOST_EARLIER);
            found.extend(page.await.map_err(ActionError::Store)?);
        }
        let earlier = found
            .into_iter()
            .filter(|record| record.facts.id < current && can_serve(record))
            .max_by_key(|record| record.facts.id);
        earlier.map(|earlier| (earlier, current)).ok_or_else(|| {
            ActionError::NotPossible(format!(
                "{pattern} has no earlier certificate that is still valid, not revoked, and has its key"
            ))
        })
    }

    async fn certificate(
        &self,
        grant: &Grant,
        id: CertificateId,
    ) -> Result<CertificateRecord, ActionError> {
        let by = Deadline::after(CALL);
        let found = self.store.certificate(by, grant.scope(), id).await;
        found
            .map_err(ActionError::Store)?
            .ok_or_else(|| ActionError::NotFound(format!("certificate {id}")))
    }

    async fn domain(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<DomainRecord, ActionError> {
        let by = Deadline::after(CALL);
        let found = self.store.domain(by, grant.scope(), pattern).await;
        found
            .map_err(ActionError::Store)?
            .ok_or_else(|| ActionError::NotFound(format!("domain {pattern}")))
    }

    /// The domains that point to a certificate.
    async fn served(
        &self,
        grant: &Grant,
        id: CertificateId,
    ) -> Result<Vec<DomainRecord>, ActionError> {
        let by = Deadline::after(CALL);
        let found = self
            .store
            .domains_served_by(by, grant.scope(), id, MOST_DOMAINS);
        found.await.map_err(ActionError::Store)
    }

    async fn act(&self, grant: &Grant, batch: Batch, id: CertificateId) -> Result<(), ActionError> {
        let by = Deadline::after(CALL);
        match self.store.apply(by, grant.scope(), batch).await {
            Ok(_) => {
                (self.nudge)();
                Ok(())
            }
            Err(ApplyError::Store(error)) => Err(ActionError::Store(error)),
            Err(_) => Err(ActionError::Conflict(format!("certificate {id}"))),
        }
    }
}

/// A batch that writes what is known of a certificate, unless somebody else has since it was read.
fn set(record: &CertificateRecord, standing: CertificateStanding) -> Batch {
    let (id, read) = (record.facts.id, Box::new(record.standing.clone()));
    Batch::new()
        .guard(Guard::StandingIs(id, read))
        .then(Operation::SetCertificateStanding {
            certificate: id,
            standing: Box::new(standing),
        })
}

/// The batch, and now, whatever their back-off, the jobs of those of the domains for which certificates are obtained.
fn replaced_now(batch: Batch, domains: &[DomainRecord]) -> Batch {
    let obtained = domains.iter().filter(|domain| obtains(domain.state));
    obtained.fold(batch, |batch, domain| {
        batch.then(Operation::RequestJob {
            key: JobKey::Certificate(domain.pattern.clone()),
            tenant: domain.tenant.clone(),
            priority: Priority::Expiring,
            delay: Duration::ZERO,
            urgency: Urgency::Now,
        })
    })
}

fn event(
    grant: &Grant,
    record: &CertificateRecord,
    kind: &'static str,
    detail: Value,
) -> AuditEvent {
    let name = record.facts.names.first();
    AuditEvent {
        owner: KeyOwner::Tenant(record.facts.tenant.clone()),
        actor: grant.actor().clone(),
        kind,
        subject: name.map_or_else(|| record.facts.id.to_string(), NamePattern::to_string),
        detail,
    }
}
