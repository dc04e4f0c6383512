//! A store whose calls are timed and counted, and whose trouble shows in `/readyz`.
//!
//! Around any adapter, so that none forgets a call and all count alike.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::base::clock::monotonic;
use crate::model::certificate::{CaId, CertificateId, SerialNumber};
use crate::model::{DnsName, NamePattern, TenantId, TenantScope};
use crate::store::budget::{BucketCost, BucketRecord, Taken};
use crate::store::feed::{Changes, Cursor};
use crate::store::job::{
    Backlog, Claim, ClaimRequest, Claims, Held, JobKey, JobKind, JobRecord, OrderKey,
};
use crate::store::record::{
    AuditRecord, CertificateRecord, DataKeyRecord, DomainRecord, KeyOwner, MaterialRecord,
    Resolved, TenantRecord,
};
use crate::store::{Applied, ApplyError, Batch, Deadline, Page, PageRequest, Store, StoreError};
use crate::telemetry::labels::{StoreCall, StoreFailure};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Condition, Health, Readiness};

/// Times and counts the calls of the store within.
#[derive(Debug)]
pub struct Measured<S> {
    within: S,
    metrics: Metrics,
    readiness: Readiness,
    standing: Mutex<Standing>,
}

/// Whether the last call of each kind failed: reads may go on while writes fail, as on a full disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Nothing is known before the first call.
    known: bool,
    failing: [bool; 2],
}

/// The kinds of call; the index of [`Standing::failing`].
#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Write,
}

impl Kind {
    const fn of(call: StoreCall) -> Self {
        match call {
            StoreCall::Apply | StoreCall::Claim | StoreCall::Take => Self::Write,
            StoreCall::Resolve
            | StoreCall::Challenge
            | StoreCall::Changes
            | StoreCall::Read
            | StoreCall::List => Self::Read,
        }
    }
}

impl<S> Measured<S> {
    /// Around `within`; tells `readiness` when calls begin to fail and when they succeed again.
    #[must_use]
    pub fn around(within: S, metrics: Metrics, readiness: Readiness) -> Self {
        Self {
            within,
            metrics,
            readiness,
            standing: Mutex::default(),
        }
    }

    async fn timed<T, E: Failure>(
        &self,
        call: StoreCall,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let begun = monotonic();
        let result = work.await;
        self.metrics.store_duration.observe(call, begun.elapsed());
        let error = result.as_ref().err().and_then(E::of_store);
        if let Some(error) = error {
            self.metrics.store_failures.count((call, label(error)));
        }
        self.note(Kind::of(call), error);
        result
    }

    fn note(&self, kind: Kind, error: Option<&StoreError>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *standing;
        standing.known = true;
        if let Some(failing) = standing.failing.get_mut(kind as usize) {
            *failing = error.is_some();
        }
        if *standing == before {
            return;
        }
        match error {
            Some(error) => {
                let why = Health::Degraded(error.to_string().into());
                self.readiness.set(Condition::Store, why);
            }
            None if standing.failing == [false; 2] => {
                self.readiness.set(Condition::Store, Health::Well);
            }
            None => {}
        }
    }
}

const fn label(error: &StoreError) -> StoreFailure {
    match error {
        StoreError::Unavailable(_) => StoreFailure::Unavailable,
        StoreError::Timeout => StoreFailure::Timeout,
        StoreError::Unknown(_) => StoreFailure::Unknown,
        StoreError::Full(_) => StoreFailure::Full,
        StoreError::Corrupt(_) => StoreFailure::Corrupt,
    }
}

/// Whether an error is the store's, or an answer.
trait Failure: fmt::Debug {
    fn of_store(&self) -> Option<&StoreError>;
}

impl Failure for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl Failure for ApplyError {
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::GuardFailed(_)
            | Self::OwnedByOther { .. }
            | Self::OutOfScope(_)
            | Self::NotUsable(_)
            | Self::Missing(_) => None,
        }
    }
}

#[async_trait]
impl<S: Store> Store for Measured<S> {
    async fn resolve(&self, by: Deadline, name: &DnsName) -> Result<Option<Resolved>, StoreError> {
        let call = self.within.resolve(by, name);
        self.timed(StoreCall::Resolve, call).await
    }

    async fn challenge(
        &self,
        by: Deadline,
        host: &DnsName,
        token: &str,
    ) -> Result<Option<String>, StoreError> {
        let call = self.within.challenge(by, host, token);
        self.timed(StoreCall::Challenge, call).await
    }

    async fn apply(
        &self,
        by: Deadline,
        scope: &TenantScope,
        batch: Batch,
    ) -> Result<Applied, ApplyError> {
        let call = self.within.apply(by, scope, batch);
        self.timed(StoreCall::Apply, call).await
    }

    async fn claim(&self, by: Deadline, request: &ClaimRequest) -> Result<Claims, StoreError> {
        let call = self.within.claim(by, request);
        self.timed(StoreCall::Claim, call).await
    }

    async fn extend(
        &self,
        by: Deadline,
        claim: &Claim,
        lease: Duration,
    ) -> Result<Held, StoreError> {
        let call = self.within.extend(by, claim, lease);
        self.timed(StoreCall::Claim, call).await
    }

    async fn release(&self, by: Deadline, holder: Uuid) -> Result<u64, StoreError> {
        let call = self.within.release(by, holder);
        self.timed(StoreCall::Claim, call).await
    }

    async fn backlog(&self, by: Deadline, kind: JobKind) -> Result<Backlog, StoreError> {
        let call = self.within.backlog(by, kind);
        self.timed(StoreCall::List, call).await
    }

    async fn take(&self, by: Deadline, costs: &[BucketCost]) -> Result<Taken, StoreError> {
        let call = self.within.take(by, costs);
        self.timed(StoreCall::Take, call).await
    }

    async fn buckets(
        &self,
        by: Deadline,
        prefix: &str,
        page: &PageRequest,
    ) -> Result<Page<BucketRecord>, StoreError> {
        let call = self.within.buckets(by, prefix, page);
        self.timed(StoreCall::List, call).await
    }

    async fn changes(
        &self,
        by: Deadline,
        from: &Cursor,
        most: usize,
    ) -> Result<Changes, StoreError> {
        let call = self.within.changes(by, from, most);
        self.timed(StoreCall::Changes, call).await
    }

    fn wake(&self) -> tokio::sync::watch::Receiver<u64> {
        self.within.wake()
    }

    async fn domain(
        &self,
        by: Deadline,
        scope: &TenantScope,
        pattern: &NamePattern,
    ) -> Result<Option<DomainRecord>, StoreError> {
        let call = self.within.domain(by, scope, pattern);
        self.timed(StoreCall::Read, call).await
    }

    async fn domains_served_by(
        &self,
        by: Deadline,
        scope: &TenantScope,
        certificate: CertificateId,
        most: usize,
    ) -> Result<Vec<DomainRecord>, StoreError> {
        let call = self.within.domains_served_by(by, scope, certificate, most);
        self.timed(StoreCall::List, call).await
    }

    async fn certificate(
        &self,
        by: Deadline,
        scope: &TenantScope,
        id: CertificateId,
    ) -> Result<Option<CertificateRecord>, StoreError> {
        let call = self.within.certificate(by, scope, id);
        self.timed(StoreCall::Read, call).await
    }

    async fn job(
        &self,
        by: Deadline,
        scope: &TenantScope,
        key: &JobKey,
    ) -> Result<Option<JobRecord>, StoreError> {
        let call = self.within.job(by, scope, key);
        self.timed(StoreCall::Read, call).await
    }

    async fn material(
        &self,
        by: Deadline,
        ca: &CaId,
        slot: &str,
    ) -> Result<Option<MaterialRecord>, StoreError> {
        let call = self.within.material(by, ca, slot);
        self.timed(StoreCall::Read, call).await
    }

    async fn order_keys(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<OrderKey>, StoreError> {
        let call = self.within.order_keys(by, scope, tenant, page);
        self.timed(StoreCall::List, call).await
    }

    async fn materials(
        &self,
        by: Deadline,
        page: &PageRequest,
    ) -> Result<Page<MaterialRecord>, StoreError> {
        let call = self.within.materials(by, page);
        self.timed(StoreCall::List, call).await
    }

    async fn data_key(
        &self,
        by: Deadline,
        owner: &KeyOwner,
        id: Option<u32>,
    ) -> Result<Option<DataKeyRecord>, StoreError> {
        let call = self.within.data_key(by, owner, id);
        self.timed(StoreCall::Read, call).await
    }

    async fn data_keys(
        &self,
        by: Deadline,
        scope: &TenantScope,
        page: &PageRequest,
    ) -> Result<Page<DataKeyRecord>, StoreError> {
        let call = self.within.data_keys(by, scope, page);
        self.timed(StoreCall::List, call).await
    }

    async fn tenants(
        &self,
        by: Deadline,
        scope: &TenantScope,
        page: &PageRequest,
    ) -> Result<Page<TenantRecord>, StoreError> {
        let call = self.within.tenants(by, scope, page);
        self.timed(StoreCall::List, call).await
    }

    async fn domains(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<DomainRecord>, StoreError> {
        let call = self.within.domains(by, scope, tenant, page);
        self.timed(StoreCall::List, call).await
    }

    async fn certificates(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<CertificateRecord>, StoreError> {
        let call = self.within.certificates(by, scope, tenant, page);
        self.timed(StoreCall::List, call).await
    }

    async fn certificates_of(
        &self,
        by: Deadline,
        scope: &TenantScope,
        pattern: &NamePattern,
        most: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError> {
        let call = self.within.certificates_of(by, scope, pattern, most);
        self.timed(StoreCall::List, call).await
    }

    async fn certificates_by_serial(
        &self,
        by: Deadline,
        scope: &TenantScope,
        serial: &SerialNumber,
        most: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError> {
        let call = self.within.certificates_by_serial(by, scope, serial, most);
        self.timed(StoreCall::List, call).await
    }

    async fn jobs(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<JobRecord>, StoreError> {
        let call = self.within.jobs(by, scope, tenant, page);
        self.timed(StoreCall::List, call).await
    }

    async fn events(
        &self,
        by: Deadline,
        scope: &TenantScope,
        owner: &KeyOwner,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError> {
        let call = self.within.events(by, scope, owner, page);
        self.timed(StoreCall::List, call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::base::task::Tasks;
    use crate::store::embedded::{Embedded, Settings};

    fn store_health(readiness: &Readiness) -> (&'static str, String) {
        let report = readiness.report();
        let mut conditions = report.conditions.into_iter();
        let store = conditions.find(|one| one.name == "store").unwrap();
        (store.status, store.reason.unwrap_or_default().into_owned())
    }

    #[tokio::test]
    async fn calls_are_counted_and_trouble_shows_until_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let (metrics, readiness, tasks) = (Metrics::default(), Readiness::default(), Tasks::new());
        let settings = Settings::in_folder(folder.path().join("data"));
        let embedded = Embedded::open(settings, Clock::system(), &tasks)
            .await
            .unwrap();
        let store = Measured::around(embedded.clone(), metrics.clone(), readiness.clone());
        let by = || Deadline::after(Duration::from_secs(10));
        let scope = TenantScope::operator();

        assert_eq!(store_health(&readiness).0, "unknown");
        store
            .tenants(by(), &scope, &PageRequest::first())
            .await
            .unwrap();
        assert_eq!(store_health(&readiness).0, "well");

        // An answer that says no is no failure.
        let missing = NamePattern::parse("a.test").unwrap();
        let batch = Batch::new().guard(crate::store::batch::Guard::DomainVersion(missing, 1));
        store.apply(by(), &scope, batch).await.unwrap_err();
        assert_eq!(store_health(&readiness).0, "well");

        embedded.close(by()).await.unwrap();
        store.apply(by(), &scope, Batch::new()).await.unwrap_err();
        store
            .tenants(by(), &scope, &PageRequest::first())
            .await
            .unwrap_err();
        let (status, reason) = store_health(&readiness);
        assert_eq!(
            (status, reason.as_str()),
            ("degraded", "the store is not available")
        );
        let failures = |call| {
            metrics
                .store_failures
                .total((call, StoreFailure::Unavailable))
        };
        assert_eq!(
            (failures(StoreCall::Apply), failures(StoreCall::List)),
            (1, 1)
        );
        assert_eq!(metrics.store_duration.observed(StoreCall::Apply), 2);
        assert_eq!(metrics.store_duration.observed(StoreCall::List), 2);
    }

    #[test]
    fn reads_that_succeed_do_not_hide_writes_that_fail() {
        let readiness = Readiness::default();
        let store = Measured::around((), Metrics::default(), readiness.clone());
        store.note(Kind::Write, Some(&StoreError::Timeout));
        store.note(Kind::Read, None);
        assert_eq!(store_health(&readiness).0, "degraded");
        store.note(Kind::Write, None);
        assert_eq!(store_health(&readiness).0, "well");
    }
}
