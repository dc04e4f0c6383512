//! What must not be lost, behind a port of intent.
//!
//! [`Store`] is not a key-value map: it offers the few operations that the protocols need, each atomic, so
//! that no adapter can fake half of one. There is no `lock`, no `exists`, no scan. Two rules bind every adapter
//! (the conformance suite holds them to it):
//!
//! - A [`Batch`] is all or nothing: guards first, then operations, audit events and feed entries in the same
//!   transaction.
//! - Every row that a call touches lies within its [`TenantScope`]. What belongs to no tenant (a CA's material, the
//!   platform's data keys and chain, upkeep) takes a scope that reaches all; buckets are open to every scope.
//! - Leases and budgets run on the store's clock. Callers pass durations, never "now".
//!
//! A store error is neither "unknown" nor "allowed": callers must not turn one into either.
//!
//! Reading order: this file, [`record`] (the rows), [`batch`] (changes), [`job`] (work and its fences),
//! [`feed`] (what changed), [`budget`] (rates), [`audit`] (the chains), [`error`]; then the adapter, [`embedded`], and
//! [`measured`], which counts the calls of any adapter.

pub mod record;

pub mod batch;

pub mod job;

pub mod feed;

pub mod budget;

pub mod audit;

pub mod error;

pub mod measured;

pub mod embedded;

#[cfg(test)]
pub(crate) mod conformance;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::base::clock::{Instant, monotonic};
use crate::model::certificate::{CaId, CertificateId, SerialNumber};
use crate::model::{DnsName, NamePattern, TenantId, TenantScope};

pub use batch::{Applied, ApplyError, Batch};
pub use error::StoreError;

use budget::{BucketCost, BucketRecord, Taken};
use feed::{Changes, Cursor};
use job::{Backlog, Claim, ClaimRequest, Claims, Held, JobKey, JobKind, JobRecord, OrderKey};
use record::{
    AuditRecord, CertificateRecord, DataKeyRecord, DomainRecord, KeyOwner, MaterialRecord,
    Resolved, TenantRecord,
};

/// The instant by which a call must have answered; it fails with [`StoreError::Timeout`] otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// `duration` from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(monotonic() + duration)
    }

    /// The instant itself.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }
}

/// The port. Every method is cancellation-safe: a dropped call has either happened or not.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Who owns `name` and what serves it, in one round trip: exact, then by one wildcard parent.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn resolve(&self, by: Deadline, name: &DnsName) -> Result<Option<Resolved>, StoreError>;

    /// The key authorization published for exactly this host and token (RFC 8555 §8.3). A strong read: what has
    /// been committed anywhere is seen.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn challenge(
        &self,
        by: Deadline,
        host: &DnsName,
        token: &str,
    ) -> Result<Option<String>, StoreError>;

    /// Does everything in `batch`, or nothing. Every row it touches must lie within `scope`.
    ///
    /// # Errors
    /// [`ApplyError::GuardFailed`] names the guard; nothing was done then. After [`StoreError::Unknown`] the batch
    /// may or may not have been done: read again.
    async fn apply(
        &self,
        by: Deadline,
        scope: &TenantScope,
        batch: Batch,
    ) -> Result<Applied, ApplyError>;

    /// Takes due jobs, most urgent first, and fences them: no other holder gets them until the lease ends.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn claim(&self, by: Deadline, request: &ClaimRequest) -> Result<Claims, StoreError>;

    /// Lengthens a lease that is still ours to `lease` from now.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn extend(
        &self,
        by: Deadline,
        claim: &Claim,
        lease: Duration,
    ) -> Result<Held, StoreError>;

    /// Puts back every job that `holder` has claimed, due at once, and gives how many those were. Whatever the holder
    /// still writes under those claims is refused. For a holder that is known to be dead: else the end of its leases
    /// does the same.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn release(&self, by: Deadline, holder: Uuid) -> Result<u64, StoreError>;

    /// The jobs of a kind that are due and that nobody works on.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn backlog(&self, by: Deadline, kind: JobKind) -> Result<Backlog, StoreError>;

    /// Takes from all the buckets, or from none (GCRA).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn take(&self, by: Deadline, costs: &[BucketCost]) -> Result<Taken, StoreError>;

    /// Buckets whose keys begin with `prefix`, in the order of their keys: those that are not full or are frozen, for
    /// every other is as if it had never been touched.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn buckets(
        &self,
        by: Deadline,
        prefix: &str,
        page: &PageRequest,
    ) -> Result<Page<BucketRecord>, StoreError>;

    /// What changed since `from`, at most `most` entries, in commit order within each shard, without gaps.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn changes(
        &self,
        by: Deadline,
        from: &Cursor,
        most: usize,
    ) -> Result<Changes, StoreError>;

    /// Tells of commits that changed something, in this process at least: a hint, for it may miss some or tell of
    /// nothing; polling covers the rest.
    fn wake(&self) -> tokio::sync::watch::Receiver<u64>;

    /// The domain registered under exactly this pattern.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn domain(
        &self,
        by: Deadline,
        scope: &TenantScope,
        pattern: &NamePattern,
    ) -> Result<Option<DomainRecord>, StoreError>;

    /// The domains that point to a certificate, in the order of their names; at most `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn domains_served_by(
        &self,
        by: Deadline,
        scope: &TenantScope,
        certificate: CertificateId,
        most: usize,
    ) -> Result<Vec<DomainRecord>, StoreError>;

    /// One certificate with its sealed key.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn certificate(
        &self,
        by: Deadline,
        scope: &TenantScope,
        id: CertificateId,
    ) -> Result<Option<CertificateRecord>, StoreError>;

    /// One job as it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn job(
        &self,
        by: Deadline,
        scope: &TenantScope,
        key: &JobKey,
    ) -> Result<Option<JobRecord>, StoreError>;

    /// Material of a CA: an ACME account, a private root.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn material(
        &self,
        by: Deadline,
        ca: &CaId,
        slot: &str,
    ) -> Result<Option<MaterialRecord>, StoreError>;

    /// An owner's wrapped data key: the newest, or the one numbered `id`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn data_key(
        &self,
        by: Deadline,
        owner: &KeyOwner,
        id: Option<u32>,
    ) -> Result<Option<DataKeyRecord>, StoreError>;

    /// Material of all CAs, in the order of their names and slots.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn materials(
        &self,
        by: Deadline,
        page: &PageRequest,
    ) -> Result<Page<MaterialRecord>, StoreError>;

    /// Wrapped data keys in the order of their owners and numbers, the platform's first; only a tenant's own where `scope`
    /// reaches no further.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn data_keys(
        &self,
        by: Deadline,
        scope: &TenantScope,
        page: &PageRequest,
    ) -> Result<Page<DataKeyRecord>, StoreError>;

    /// Tenants in the order of their slugs.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn tenants(
        &self,
        by: Deadline,
        scope: &TenantScope,
        page: &PageRequest,
    ) -> Result<Page<TenantRecord>, StoreError>;

    /// Domains in the order of their names; of one tenant where `tenant` names one.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn domains(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<DomainRecord>, StoreError>;

    /// Certificates in the order of their identities, which is that of their creation.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn certificates(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<CertificateRecord>, StoreError>;

    /// The certificates under exactly this name, of whatever age and standing, newest first; at most `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn certificates_of(
        &self,
        by: Deadline,
        scope: &TenantScope,
        pattern: &NamePattern,
        most: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError>;

    /// The certificates with this serial number, oldest first; at most `most`. Two authorities may give the same one.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn certificates_by_serial(
        &self,
        by: Deadline,
        scope: &TenantScope,
        serial: &SerialNumber,
        most: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError>;

    /// Jobs in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn jobs(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<JobRecord>, StoreError>;

    /// The sealed keys of the orders that a tenant's jobs have saved, in the order of the jobs' keys.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn order_keys(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<OrderKey>, StoreError>;

    /// Audit events in the order of their chain; of one tenant, or of the platform's own chain. See [`audit`].
    ///
    /// # Errors
    /// [`StoreError`].
    async fn events(
        &self,
        by: Deadline,
        scope: &TenantScope,
        owner: &KeyOwner,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError>;
}

/// Which page of a list: the one after the item that `after` names, at most `most` items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The `next` of the page before; nothing for the first. Behind a text that no page gave comes an empty page.
    pub after: Option<String>,
    /// The most items on the page; adapters cap it at [`PageRequest::MOST`].
    pub most: usize,
}

impl PageRequest {
    /// The largest page.
    pub const MOST: usize = 1000;

    /// The first page, of the largest size.
    #[must_use]
    pub const fn first() -> Self {
        Self {
            after: None,
            most: Self::MOST,
        }
    }

    /// The page after the one that ended with `next`.
    #[must_use]
    pub const fn following(next: String) -> Self {
        Self {
            after: Some(next),
            most: Self::MOST,
        }
    }
}

/// A page of a list, in the order of the key; stable while others write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Names the last item, for the next page; nothing where this is the last page.
    pub next: Option<String>,
    /// Of this page, what is stored but cannot be read: damaged, or written by something else.
    pub unreadable: Vec<Unreadable>,
}

/// A stored row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The row's key: a domain's pattern, a tenant's slug, a job's key.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}
