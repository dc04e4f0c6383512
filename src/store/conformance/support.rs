//! Fresh stores, and short ways to say what the tests say often.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp};
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::Source;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::standing::CertificateStanding;
use crate::model::{DnsName, NamePattern, TenantId, TenantScope};
use crate::store::batch::{Applied, ApplyError, Batch, Operation, Urgency};
use crate::store::job::{ClaimRequest, ClaimedJob, JobKey, JobKind, JobStanding, Paces, Priority};
use crate::store::record::CertificateRecord;
use crate::store::{Deadline, Store};

/// Opens the store that lies in a folder, made where there is none, on this clock. Two calls for one folder give two
/// openings of one store.
pub(crate) type Factory = dyn Fn(&Path, Clock) -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync;

/// A fresh store on a clock that a test moves.
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) folder: tempfile::TempDir,
}

impl Fresh {
    pub(crate) async fn of(factory: &Factory) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
        let store = factory(folder.path(), clock.clone()).await;
        Self {
            store,
            clock,
            folder,
        }
    }

    pub(crate) async fn try_apply(&self, batch: Batch) -> Result<Applied, ApplyError> {
        self.store
            .apply(soon(), &TenantScope::operator(), batch)
            .await
    }

    pub(crate) async fn apply(&self, batch: Batch) -> Applied {
        self.try_apply(batch).await.unwrap()
    }

    /// Registers `name` for `tenant`.
    pub(crate) async fn register(&self, slug: &str, name: &str) {
        self.apply(registration(slug, name)).await;
    }

    /// Asks for the job of a registered name.
    pub(crate) async fn request(&self, slug: &str, name: &str) -> JobStanding {
        let batch = Batch::new().then(request(slug, name));
        self.apply(batch).await.jobs.remove(0)
    }

    pub(crate) async fn claim(&self, most: usize) -> Vec<ClaimedJob> {
        claim(&*self.store, most).await
    }

    pub(crate) async fn claim_one(&self) -> ClaimedJob {
        let mut jobs = self.claim(1).await;
        jobs.pop().expect("a job is due")
    }
}

/// How long every lease of the tests is.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

pub(crate) async fn claim(store: &dyn Store, most: usize) -> Vec<ClaimedJob> {
    let request = ClaimRequest {
        kind: JobKind::Certificate,
        holder: Uuid::new_v4(),
        most,
        lease: LEASE,
        paces: Paces::default(),
    };
    store.claim(soon(), &request).await.unwrap().jobs
}

pub(crate) fn tenant(slug: &str) -> TenantId {
    TenantId::parse(slug).unwrap()
}

pub(crate) fn pattern(text: &str) -> NamePattern {
    NamePattern::parse(text).unwrap()
}

pub(crate) fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

pub(crate) fn job_key(text: &str) -> JobKey {
    JobKey::Certificate(pattern(text))
}

pub(crate) fn put_domain(slug: &str, name: &str) -> Operation {
    Operation::PutDomain {
        pattern: pattern(name),
        tenant: tenant(slug),
        source: Source::File,
        upstream: None,
    }
}

pub(crate) fn registration(slug: &str, name: &str) -> Batch {
    let put_tenant = Operation::PutTenant {
        id: tenant(slug),
        source: Source::File,
    };
    Batch::new().then(put_tenant).then(put_domain(slug, name))
}

pub(crate) fn request(slug: &str, name: &str) -> Operation {
    Operation::RequestJob {
        key: job_key(name),
        tenant: tenant(slug),
        priority: Priority::Handshake,
        delay: Duration::ZERO,
        urgency: Urgency::HeedBackoff,
    }
}

pub(crate) fn problem(code: ProblemCode) -> Problem {
    Problem {
        code,
        actor: code.actor(),
        detail: "it does not work".to_owned(),
        evidence: vec!["503".to_owned()],
        fix: None,
        first_seen: Timestamp::from_seconds(1),
        last_seen: Timestamp::from_millis(2_001),
        next_retry_at: Some(Timestamp::from_seconds(3)),
    }
}

/// A certificate whose key is sealed with the data key numbered `1`, as far as its form tells.
pub(crate) fn certificate(slug: &str, names: &[&str]) -> CertificateRecord {
    let mut sealed_key = vec![0; 60];
    sealed_key[0] = 1;
    sealed_key[4] = 1;
    CertificateRecord {
        facts: CertificateFacts {
            id: CertificateId::new(),
            tenant: tenant(slug),
            names: names.iter().map(|name| pattern(name)).collect(),
            ca: CaId::new("letsencrypt"),
            serial: "0a0b".to_owned(),
            not_before: Timestamp::from_seconds(1_799_000_000),
            not_after: Timestamp::from_seconds(1_807_000_000),
        },
        leaf: vec![0x30, 1, 2],
        chain: vec![vec![0x30, 3], vec![0x30, 4, 5]],
        sealed_key,
        standing: CertificateStanding::default(),
        created_at: Timestamp::from_seconds(1_800_000_000),
    }
}
