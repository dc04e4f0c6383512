//! A store that is down: every call fails.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

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

/// A store that is down.
#[derive(Debug)]
pub(super) struct Down;

fn down<T>() -> Result<T, StoreError> {
    Err(StoreError::Timeout)
}

#[async_trait]
impl Store for Down {
    async fn resolve(&self, _: Deadline, _: &DnsName) -> Result<Option<Resolved>, StoreError> {
        down()
    }

    async fn challenge(
        &self,
        _: Deadline,
        _: &DnsName,
        _: &str,
    ) -> Result<Option<String>, StoreError> {
        down()
    }

    async fn apply(&self, _: Deadline, _: &TenantScope, _: Batch) -> Result<Applied, ApplyError> {
        Ok(down()?)
    }

    async fn claim(&self, _: Deadline, _: &ClaimRequest) -> Result<Claims, StoreError> {
        down()
    }

    async fn extend(&self, _: Deadline, _: &Claim, _: Duration) -> Result<Held, StoreError> {
        down()
    }

    async fn release(&self, _: Deadline, _: Uuid) -> Result<u64, StoreError> {
        down()
    }

    async fn backlog(&self, _: Deadline, _: JobKind) -> Result<Backlog, StoreError> {
        down()
    }

    async fn take(&self, _: Deadline, _: &[BucketCost]) -> Result<Taken, StoreError> {
        down()
    }

    async fn buckets(
        &self,
        _: Deadline,
        _: &str,
        _: &PageRequest,
    ) -> Result<Page<BucketRecord>, StoreError> {
        down()
    }

    async fn changes(&self, _: Deadline, _: &Cursor, _: usize) -> Result<Changes, StoreError> {
        down()
    }

    fn wake(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }

    async fn domain(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &NamePattern,
    ) -> Result<Option<DomainRecord>, StoreError> {
        down()
    }

    async fn certificate(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: CertificateId,
    ) -> Result<Option<CertificateRecord>, StoreError> {
        down()
    }

    async fn job(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &JobKey,
    ) -> Result<Option<JobRecord>, StoreError> {
        down()
    }

    async fn material(
        &self,
        _: Deadline,
        _: &CaId,
        _: &str,
    ) -> Result<Option<MaterialRecord>, StoreError> {
        down()
    }

    async fn order_keys(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &TenantId,
        _: &PageRequest,
    ) -> Result<Page<OrderKey>, StoreError> {
        down()
    }

    async fn materials(
        &self,
        _: Deadline,
        _: &PageRequest,
    ) -> Result<Page<MaterialRecord>, StoreError> {
        down()
    }

    async fn data_key(
        &self,
        _: Deadline,
        _: &KeyOwner,
        _: Option<u32>,
    ) -> Result<Option<DataKeyRecord>, StoreError> {
        down()
    }

    async fn data_keys(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &PageRequest,
    ) -> Result<Page<DataKeyRecord>, StoreError> {
        down()
    }

    async fn tenants(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &PageRequest,
    ) -> Result<Page<TenantRecord>, StoreError> {
        down()
    }

    async fn domains(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: Option<&TenantId>,
        _: &PageRequest,
    ) -> Result<Page<DomainRecord>, StoreError> {
        down()
    }

    async fn certificates(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: Option<&TenantId>,
        _: &PageRequest,
    ) -> Result<Page<CertificateRecord>, StoreError> {
        down()
    }

    async fn domains_served_by(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: CertificateId,
        _: usize,
    ) -> Result<Vec<DomainRecord>, StoreError> {
        down()
    }

    async fn certificates_of(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &NamePattern,
        _: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError> {
        down()
    }

    async fn certificates_by_serial(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &SerialNumber,
        _: usize,
    ) -> Result<Vec<CertificateRecord>, StoreError> {
        down()
    }

    async fn jobs(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: Option<&TenantId>,
        _: &PageRequest,
    ) -> Result<Page<JobRecord>, StoreError> {
        down()
    }

    async fn events(
        &self,
        _: Deadline,
        _: &TenantScope,
        _: &KeyOwner,
        _: &PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError> {
        down()
    }
}
