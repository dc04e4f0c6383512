//! One run of one job: what is due, whether it is allowed, the order, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use rcgen::PublicKeyData as _;
use tokio_util::sync::CancellationToken;

use super::failure::{Cause, Failure};
use super::lease::{Gone, Lease};
use super::order::{Obtained, Wanted};
use super::{PATIENCE, Parts};
use crate::base::clock::{Instant, Timestamp, monotonic};
use crate::base::secret::Secret;
use crate::certs::Settings;
use crate::certs::chain;
use crate::certs::credential::{Credential, sealed_as};
use crate::certs::lifecycle::{self, Due};
use crate::certs::permission::ask::Standing;
use crate::certs::policy::{self, Denial};
use crate::certs::request::{IssuanceRequest, Reason};
use crate::certs::resolver::Ticket;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::Source;
use crate::model::standing::CertificateStanding;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{Batch, Guard};
use crate::store::error::Retry;
use crate::store::job::{ClaimedJob, JobKey};
use crate::store::record::{CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Deadline, StoreError};

/// Tries of one change of the store.
const MOST_TRIES: u32 = 6;
/// The wait before a change is tried again; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// A run in progress.
pub(super) struct Attempt<'a> {
    pub parts: &'a Parts,
    pub job: &'a ClaimedJob,
    pub pattern: &'a NamePattern,
    pub tenant: &'a TenantId,
    pub scope: TenantScope,
    pub settings: Settings,
    /// When the run began.
    pub began: Instant,
    /// When it must have ended.
    pub by: Instant,
}

/// What a run knows of its domain from the store.
pub(super) struct Known {
    pub domain: Option<DomainRecord>,
    pub certificate: Option<CertificateRecord>,
    /// From before the reading.
    pub ticket: Ticket,
}

/// How a run ended well.
pub(super) enum Success {
    /// With a certificate, which is stored and serves.
    Issued(Arc<Credential>),
    /// The certificate there is need not be replaced yet.
    StillGood(Box<CertificateRecord>, Timestamp),
}

impl<'a> Attempt<'a> {
    /// Works on `job` until it is done, fails, is lost, or the group is cancelled; writes how it ended.
    pub(super) async fn run(
        parts: &'a Parts,
        job: ClaimedJob,
        lease: Lease,
        cancelled: CancellationToken,
    ) {
        let JobKey::Certificate(pattern) = &job.claim.key else {
            return;
        };
        let Some(tenant) = &job.tenant else {
            tracing::error!(job = %job.claim.key, "a certificate job without a tenant");
            return;
        };
        let settings = *parts.settings.get();
        let began = monotonic();
        let attempt = Attempt {
            parts,
            job: &job,
            pattern,
            tenant,
            scope: TenantScope::certificate_work(tenant.clone()),
            settings,
            began,
            by: began + settings.job_deadline,
        };
        let known = attempt.known().await;
        let work = async {
            let known = known
                .as_ref()
                .map_err(|error| Cause::Store(error.clone()))?;
            match tokio::time::timeout_at(attempt.by, attempt.work(known)).await {
                Ok(result) => result,
                Err(_elapsed) => Err(Cause::Deadline(settings.job_deadline).into()),
            }
        };
        tokio::select! {
            biased;
            result = work => attempt.end(known.as_ref().ok(), result).await,
            gone = lease.keep(&*parts.store, &job.claim) => {
                attempt.end(known.as_ref().ok(), Err(Cause::Gone(gone).into())).await;
            }
            () = cancelled.cancelled() => attempt.put_back().await,
        }
    }

    pub(super) fn owner(&self) -> KeyOwner {
        KeyOwner::Tenant(self.tenant.clone())
    }

    async fn known(&self) -> Result<Known, StoreError> {
        let ticket = self.parts.resolver.ticket();
        let by = Deadline::after(PATIENCE);
        let store = &self.parts.store;
        let domain = store.domain(by, &self.scope, self.pattern).await?;
        let certificate = match domain.as_ref().and_then(|domain| domain.certificate) {
            Some(id) => store.certificate(by, &self.scope, id).await?,
            None => None,
        };
        Ok(Known {
            domain,
            certificate,
            ticket,
        })
    }

    async fn work(&self, known: &Known) -> Result<Success, Failure> {
        let facts = known.certificate.as_ref().map(|record| &record.facts);
        let now = self.parts.clock.now();
        let reason = match lifecycle::due(facts, &self.settings.renewal, now) {
            Due::Now(reason) => reason,
            Due::NotBefore(at) => match &known.certificate {
                Some(record) => return Ok(Success::StillGood(Box::new(record.clone()), at)),
                None => Reason::First,
            },
        };
        let request = IssuanceRequest {
            pattern: self.pattern.clone(),
            tenant: self.tenant.clone(),
            reason,
        };
        let offers = self.parts.accounts.offers(self.pattern);
        let domain = known
            .domain
            .as_ref()
            .ok_or(Cause::Denied(Denial::NotRegistered))?;
        self.ask_again(domain, &request.reason).await?;
        let permit = policy::decide(request, Some(domain), &offers).map_err(Cause::Denied)?;
        let (request, ca) = permit.consume();
        let wanted = Wanted {
            request: &request,
            domain,
        };
        let obtained = self.obtain(wanted, &ca).await?;
        let (record, credential) = self.accept(&ca, obtained).map_err(Cause::with_dead_order)?;
        // Should the domain be removed from now on, its credential does not come back.
        let ticket = self.parts.resolver.ticket();
        self.activate(&request, record).await?;
        self.parts
            .resolver
            .put_loaded(self.pattern, &credential, ticket);
        Ok(Success::Issued(credential))
    }

    /// Whether a name that the permission hook allowed once still is: only a denial stops its renewal.
    async fn ask_again(&self, domain: &DomainRecord, reason: &Reason) -> Result<(), Cause> {
        let renews = !matches!(reason, Reason::First);
        let (Some(hook), NamePattern::Exact(name)) = (&self.parts.permission, self.pattern) else {
            return Ok(());
        };
        if !renews || domain.source != Source::Hook {
            return Ok(());
        }
        match hook.renewal(name).await {
            Standing::Allowed => Ok(()),
            Standing::Denied(_) => Err(Cause::Denied(Denial::HookDenies)),
            Standing::Unknown(error) => {
                tracing::warn!(domain = %name, %error, "the permission hook cannot be asked: renewing all the same");
                Ok(())
            }
        }
    }

    /// Checks what the authority sent; only what was ordered becomes a certificate of ours.
    fn accept(
        &self,
        ca: &CaId,
        obtained: Obtained,
    ) -> Result<(CertificateRecord, Arc<Credential>), Cause> {
        let names = std::slice::from_ref(self.pattern);
        let public_key = obtained.key.subject_public_key_info();
        let ordered = chain::Ordered {
            names,
            public_key: &public_key,
        };
        let now = self.parts.clock.now();
        let leaf = chain::check(&obtained.chain, ordered, now)
            .map_err(|error| Cause::Chain(ca.clone(), error))?;
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: self.tenant.clone(),
            names: names.to_vec(),
            ca: ca.clone(),
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        };
        let mut chain = obtained.chain.into_iter();
        let record = CertificateRecord {
            facts: facts.clone(),
            leaf: chain.next().unwrap_or_default(),
            chain: chain.collect(),
            sealed_key: obtained.sealed_key,
            standing: CertificateStanding::default(),
            created_at: now,
        };
        let key = Secret::new(obtained.key.serialize_der());
        let credential =
            Credential::from_der(facts, record.leaf.clone(), record.chain.clone(), &key)
                .map_err(Cause::Credential)?;
        Ok((record, Arc::new(credential)))
    }

    /// The stored certificate as a credential, for those who wait for one.
    pub(super) async fn load(&self, record: CertificateRecord) -> Result<Arc<Credential>, Cause> {
        let key = self
            .parts
            .vault
            .open(&self.owner(), &sealed_as(self.pattern), &record.sealed_key)
            .await
            .map_err(Cause::Vault)?;
        Credential::from_der(record.facts, record.leaf, record.chain, &key)
            .map(Arc::new)
            .map_err(Cause::Credential)
    }

    /// Makes a change while the job is ours; tries again where the store fails in passing. Every change that comes
    /// here may be made twice.
    pub(super) async fn commit(&self, batch: &Batch) -> Result<(), Failure> {
        let batch = Batch {
            guards: std::iter::once(Guard::ClaimHeld(self.job.claim.clone()))
                .chain(batch.guards.iter().cloned())
                .collect(),
            ..batch.clone()
        };
        let mut pause = PAUSE;
        for _ in 1..MOST_TRIES {
            match self.apply(batch.clone()).await {
                Err(ApplyError::Store(error)) if may_pass(&error) => {
                    tracing::warn!(domain = %self.pattern, %error, "a change is tried again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result.map_err(refused),
            }
        }
        self.apply(batch).await.map_err(refused)
    }

    async fn apply(&self, batch: Batch) -> Result<(), ApplyError> {
        let by = Deadline::after(PATIENCE);
        let applied = self.parts.store.apply(by, &self.scope, batch).await;
        applied.map(|_applied| ())
    }
}

/// Whether a change may succeed if tried again.
fn may_pass(error: &StoreError) -> bool {
    error.retry() != Retry::Never
}

fn refused(error: ApplyError) -> Failure {
    if let ApplyError::GuardFailed(Guard::ClaimHeld(_)) = error {
        return Cause::Gone(Gone::Taken).into();
    }
    if let ApplyError::Store(error) = error {
        return Cause::Store(error).into();
    }
    Cause::Refused(error).into()
}
