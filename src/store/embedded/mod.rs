//! The store of one machine: SQLite in the data folder, nothing to set up.
//!
//! - One connection writes, driven by one task ([`writer`]): what waits is committed together, each request in a savepoint
//!   of its own, and is answered only when the commit has reached the disk (`synchronous = FULL`).
//! - A few connections read, each from a consistent snapshot, and never wait for the writer (write-ahead log).
//! - Every write transaction begins with the write lock (`BEGIN IMMEDIATE`), so several processes on one data folder are
//!   safe: leases, budgets and the feed are rows, and nothing that matters is kept in memory.
//! - A start reads the schema's version and nothing else: it takes as long with a million domains as with none.
//!
//! Reading order: [`open`] (from a folder to connections), [`folder`] (what a folder must be), [`ballast`], [`schema`], [`writer`],
//! [`transaction`] (what a change works in), [`apply`] (a batch), then a file per kind of row, [`sweep`] (what nobody
//! needs any more), [`backup`], [`wrapped`] (which keys a store needs).

mod open;

mod folder;

mod ballast;

mod schema;

mod writer;

mod transaction;

mod apply;

mod domains;

mod certificates;

mod resealed;
mod secrets;

mod jobs;

mod claims;

mod challenges;

mod budgets;

mod feed;

mod events;

mod rows;

mod retirement;

mod sweep;

mod failure;

pub mod backup;

pub mod wrapped;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqlitePool;
use tokio::sync::watch;
use uuid::Uuid;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::model::certificate::{CaId, CertificateId, SerialNumber};
use crate::model::{DnsName, NamePattern, TenantId, TenantScope};
use crate::store::batch::{Applied, ApplyError, Batch};
use crate::store::budget::{BucketCost, BucketRecord, Taken};
use crate::store::error::StoreError;
use crate::store::feed::{Changes, Cursor};
use crate::store::job::{
    Backlog, Claim, ClaimRequest, Claims, Held, JobKey, JobKind, JobRecord, OrderKey,
};
use crate::store::record::{
    AuditRecord, CertificateRecord, DataKeyRecord, DomainRecord, KeyOwner, MaterialRecord,
    Resolved, TenantRecord,
};
use crate::store::{Deadline, Page, PageRequest, Store};

pub use folder::remote_file_system;
pub use open::OpenError;

use writer::Writer;

/// Where the store lies and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data folder, on a local disk. Made for the owner only where it does not exist.
    pub folder: PathBuf,
    /// Connections that read, 1 at least. Default 4.
    pub readers: u32,
    /// How long the private key of a certificate that serves nothing any more is kept. Default 30 days.
    pub retired_keys: Duration,
}

impl Settings {
    /// The defaults over `folder`.
    #[must_use]
    pub const fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            readers: 4,
            retired_keys: Duration::from_hours(30 * 24),
        }
    }
}

/// The embedded store. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Embedded {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    settings: Settings,
    clock: Clock,
    epoch: Uuid,
    readers: SqlitePool,
    writer: Writer,
    turns: claims::Turns,
}

impl Embedded {
    /// Opens the store in `settings.folder`, makes it where the folder holds none, and brings an older schema up to date.
    /// Leases and budgets run on `clock`.
    ///
    /// The task that writes runs in `tasks`, on the current runtime. Once the group is cancelled it finishes what is
    /// queued and ends; so give it a group that is cancelled after those of everybody who still has something to store.
    ///
    /// # Errors
    /// [`OpenError`] names the folder or file and what repairs it.
    pub async fn open(settings: Settings, clock: Clock, tasks: &Tasks) -> Result<Self, OpenError> {
        let opened = open::open(&settings, clock.now()).await?;
        let writing = (opened.writer, opened.options);
        let writer = Writer::start(writing, settings.retired_keys, clock.clone(), tasks);
        let parts = Arc::new(Parts {
            settings,
            clock,
            epoch: opened.epoch,
            readers: opened.readers,
            writer,
            turns: claims::Turns::default(),
        });
        sweep::start(&parts, tasks);
        Ok(Self { parts })
    }

    /// Finishes what is queued, folds the write-ahead log into the database and closes. Later calls fail with
    /// [`StoreError::Unavailable`]. A store that is not closed loses nothing either.
    ///
    /// # Errors
    /// [`StoreError::Timeout`] where that takes longer than `by`.
    pub async fn close(&self, by: Deadline) -> Result<(), StoreError> {
        within(by, async {
            self.parts.writer.close().await;
            self.parts.readers.close().await;
            ballast::keep(&self.parts.settings.folder);
            Ok(())
        })
        .await
    }

    /// Whether writes are still taken: false after [`Embedded::close`], and where the task that writes has died.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.parts.writer.is_running()
    }

    /// Writes a consistent copy of the store to `file` while it runs, as [`backup::backup`] does.
    ///
    /// # Errors
    /// [`backup::BackupError`].
    pub async fn backup_to(
        &self,
        file: &std::path::Path,
    ) -> Result<backup::Summary, backup::BackupError> {
        backup::backup(&self.parts.settings.folder, file).await
    }
}

/// `work`, or [`StoreError::Timeout`] once `by` has passed.
async fn within<T>(
    by: Deadline,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout_at(by.instant(), work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(StoreError::Timeout),
    }
}

/// Runs a query function on a reading connection within the deadline.
macro_rules! read {
    ($self:ident, $by:expr, $module:ident :: $function:ident ( $($argument:expr),* )) => {
        within($by, async {
            let mut connection = $self.parts.readers.acquire().await?;
            $module::$function(&mut connection, $($argument),*).await
        })
        .await
    };
}

#[async_trait]
impl Store for Embedded {
    async fn resolve(&self, by: Deadline, name: &DnsName) -> Result<Option<Resolved>, StoreError> {
        read!(self, by, domains::resolve(name))
    }

    async fn challenge(
        &self,
        by: Deadline,
        host: &DnsName,
        token: &str,
    ) -> Result<Option<String>, StoreError> {
        let now = self.parts.clock.now();
        read!(self, by, challenges::find(host, token, now))
    }

    async fn apply(
        &self,
        by: Deadline,
        scope: &TenantScope,
        batch: Batch,
    ) -> Result<Applied, ApplyError> {
        let change = apply::ApplyBatch {
            scope: scope.clone(),
            batch,
            epoch: self.parts.epoch,
        };
        self.parts.writer.change(by, change).await
    }

    async fn claim(&self, by: Deadline, request: &ClaimRequest) -> Result<Claims, StoreError> {
        let change = claims::ClaimJobs {
            request: request.clone(),
            turns: self.parts.turns.clone(),
        };
        self.parts.writer.change(by, change).await
    }

    async fn extend(
        &self,
        by: Deadline,
        claim: &Claim,
        lease: Duration,
    ) -> Result<Held, StoreError> {
        let claim = claim.clone();
        let change = claims::ExtendLease { claim, lease };
        self.parts.writer.change(by, change).await
    }

    async fn release(&self, by: Deadline, holder: Uuid) -> Result<u64, StoreError> {
        let change = claims::ReleaseJobs(holder);
        self.parts.writer.change(by, change).await
    }

    async fn backlog(&self, by: Deadline, kind: JobKind) -> Result<Backlog, StoreError> {
        let now = self.parts.clock.now();
        read!(self, by, claims::backlog(kind, now))
    }

    async fn take(&self, by: Deadline, costs: &[BucketCost]) -> Result<Taken, StoreError> {
        let change = budgets::TakeCosts(costs.to_vec());
        self.parts.writer.change(by, change).await
    }

    async fn buckets(
        &self,
        by: Deadline,
        prefix: &str,
        page: &PageRequest,
    ) -> Result<Page<BucketRecord>, StoreError> {
        let now = self.parts.clock.now();
        read!(self, by, budgets::list(prefix, page, now))
    }

    async fn changes(
        &self,
        by: Deadline,
        from: &Cursor,
        most: usize,
    ) -> Result<Changes, StoreError> {
        read!(self, by, feed::changes(self.parts.epoch, from, most))
    }

    fn wake(&self) -> watch::Receiver<u64> {
        self.parts.writer.commits()
    }

    async fn domain(
        &self,
        by: Deadline,
        scope: &TenantScope,
        pattern: &NamePattern,
    ) -> Result<Option<DomainRecord>, StoreError> {
        let found = read!(self, by, domains::find(pattern))?;
        Ok(found.filter(|domain| scope.reaches(&domain.tenant)))
    }

    async fn domains_served_by(
        &self,
        by: Deadline,
        scope: &TenantScope,
        certificate: CertificateId,
        most: usize,
    ) -> Result<Vec<DomainRecord>, StoreError> {
        let found = read!(self, by, domains::served_by(certificate, most))?;
        let ours = |domain: &DomainRecord| scope.reaches(&domain.tenant);
        Ok(found.into_iter().filter(ours).collect())
    }

    async fn certificate(
        &self,
        by: Deadline,
        scope: &TenantScope,
        id: CertificateId,
    ) -> Result<Option<CertificateRecord>, StoreError> {
        let found = read!(self, by, certificates::find(id))?;
        Ok(found.filter(|certificate| scope.reaches(&certificate.facts.tenant)))
    }

    async fn job(
        &self,
        by: Deadline,
        scope: &TenantScope,
        key: &JobKey,
    ) -> Result<Option<JobRecord>, StoreError> {
        let now = self.parts.clock.now();
        let found = read!(self, by, jobs::find_record(key, now))?;
        Ok(found.filter(|job| match &job.tenant {
            Some(tenant) => scope.reaches(tenant),
            None => scope.only().is_none(),
        }))
    }

    async fn material(
        &self,
        by: Deadline,
        ca: &CaId,
        slot: &str,
    ) -> Result<Option<MaterialRecord>, StoreError> {
        read!(self, by, secrets::material(ca, slot))
    }

    async fn order_keys(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<OrderKey>, StoreError> {
        if !scope.reaches(tenant) {
            return Ok(rows::nothing());
        }
        read!(self, by, jobs::order_keys(tenant, page))
    }

    async fn materials(
        &self,
        by: Deadline,
        page: &PageRequest,
    ) -> Result<Page<MaterialRecord>, StoreError> {
        read!(self, by, secrets::materials(page))
    }

    async fn data_key(
        &self,
        by: Deadline,
        owner: &KeyOwner,
        id: Option<u32>,
    ) -> Result<Option<DataKeyRecord>, StoreError> {
        read!(self, by, secrets::data_key(owner, id))
    }

    async fn data_keys(
        &self,
        by: Deadline,
        scope: &TenantScope,
        page: &PageRequest,
    ) -> Result<Page<DataKeyRecord>, StoreError> {
        read!(self, by, secrets::data_keys(scope.only(), page))
    }

    async fn tenants(
        &self,
        by: Deadline,
        scope: &TenantScope,
        page: &PageRequest,
    ) -> Result<Page<TenantRecord>, StoreError> {
        read!(self, by, domains::tenants(scope.only(), page))
    }

    async fn domains(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<DomainRecord>, StoreError> {
        match rows::narrowed(scope, tenant) {
            Some(tenant) => read!(self, by, domains::list(tenant, page)),
            None => Ok(rows::nothing()),
        }
    }

    async fn certificates(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<CertificateRecord>, StoreError> {
        match rows::narrowed(scope, tenant) {
            Some(tenant) => read!(self, by, certificates::list(tenant, page)),
            None => Ok(rows::nothing()),
        }
    }

    async fn certificates_of(
        &self,
        by: Deadline,
        scope: &TenantScope,
        pattern: &NamePattern,
        most: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError> {
        let found = read!(self, by, certificates::of_name(pattern, most))?;
        let ours = |certificate: &CertificateRecord| scope.reaches(&certificate.facts.tenant);
        Ok(found.into_iter().filter(ours).collect())
    }

    async fn certificates_by_serial(
        &self,
        by: Deadline,
        scope: &TenantScope,
        serial: &SerialNumber,
        most: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError> {
        let found = read!(self, by, certificates::by_serial(serial, most))?;
        let ours = |certificate: &CertificateRecord| scope.reaches(&certificate.facts.tenant);
        Ok(found.into_iter().filter(ours).collect())
    }

    async fn jobs(
        &self,
        by: Deadline,
        scope: &TenantScope,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<JobRecord>, StoreError> {
        let now = self.parts.clock.now();
        match rows::narrowed(scope, tenant) {
            Some(tenant) => read!(self, by, jobs::list(tenant, page, now)),
            None => Ok(rows::nothing()),
        }
    }

    async fn events(
        &self,
        by: Deadline,
        scope: &TenantScope,
        owner: &KeyOwner,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError> {
        match transaction::reaches(scope, owner) {
            true => read!(self, by, events::list(owner, page)),
            false => Ok(rows::nothing()),
        }
    }
}

#[cfg(test)]
mod tests;
