//! What there is to read: each view puts together the rows that one question needs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::base::clock::{Clock, Timestamp};
use crate::base::published::Published;
use crate::certs::authorities::Authorities;
use crate::certs::budget::Keeper;
use crate::certs::chain;
use crate::certs::preflight::Preflight;
use crate::certs::resolver::Resolver;
use crate::certs::vault::Vault;
use crate::control::caller::Grant;
use crate::control::state::{self, CertificateStatus, CertificateUse, JobStatus, TlsStatus};
use crate::control::stuck;
use crate::control::unreadable;
use crate::control::upstreams;
use crate::control::waiting;
use crate::model::certificate::{CertificateFacts, CertificateId, SerialNumber};
use crate::model::domain::{DomainState, Source};
use crate::model::edge::{DnsRecord, Edge};
use crate::model::problem::Problem;
use crate::model::standing::{CertificateStanding, Purpose};
use crate::model::{NamePattern, Snapshot, TenantId};
use crate::store::job::JobKey;
use crate::store::record::{CertificateRecord, DomainRecord};
use crate::store::{Deadline, Store, StoreError};
use crate::telemetry::readiness::{Readiness, Report};
use crate::telemetry::trouble::UpstreamTroubles;

// What views show as it is stored: those who ask name it from here, and never the store.
pub use crate::store::job::{JobRecord, Priority};
pub use crate::store::record::{AuditRecord, KeyOwner, TenantRecord};
pub use crate::store::{Page, PageRequest};

/// For one read of the store.
pub(in crate::control) const READ: Duration = Duration::from_secs(5);
/// Items of a page of which more is read at the same time.
const AT_ONCE: usize = 8;
/// Domains of a certificate among which one that is served is looked for.
const MOST_POINTING: usize = 100;
/// Certificates of one serial number.
const MOST_OF_A_SERIAL: usize = 100;

/// Where views look.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Where the rows are.
    pub store: Arc<dyn Store>,
    /// What the data plane knows.
    pub snapshot: Published<Snapshot>,
    /// What DNS requirements follow from; replaced at reload.
    pub edge: Published<Edge>,
    /// Looks at names.
    pub preflight: Preflight,
    /// The certification authorities.
    pub authorities: Authorities,
    /// What is left of the authorities' limits.
    pub budget: Keeper,
    /// Tells which keys open; nothing is said of keys without it.
    pub vault: Option<Vault>,
    /// What serves from memory.
    pub resolver: Resolver,
    /// Whose upstreams fail at present.
    pub troubles: UpstreamTroubles,
    /// How the process is.
    pub readiness: Readiness,
    /// Tells what is valid now.
    pub clock: Clock,
    /// When this process started.
    pub started_at: Timestamp,
}

/// Reads for callers: nothing is read without a grant. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Views(Sources);

/// Why there is nothing to see.
#[derive(Clone, Debug)]
pub enum ViewError {
    /// No such thing, or none within the caller's reach: the two look the same.
    NotFound(String),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) => write!(f, "there is no {what}"),
            Self::Store(_) => f.write_str("the store failed"),
        }
    }
}

impl std::error::Error for ViewError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotFound(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for ViewError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A domain as people ask for it.
#[derive(Clone, Debug)]
pub struct DomainView {
    /// Its name.
    pub pattern: NamePattern,
    /// Its owner.
    pub tenant: TenantId,
    /// Where it was declared.
    pub source: Source,
    /// Its one state now.
    pub state: DomainState,
    /// Whether visitors get HTTPS, coarsely.
    pub tls_status: TlsStatus,
    /// The upstream that the permission hook chose.
    pub upstream: Option<String>,
    /// What is wrong, and what repairs it.
    pub problem: Option<Problem>,
    /// The certificate that it points to, and where that stands.
    pub certificate: Option<(CertificateFacts, CertificateStatus)>,
    /// When the program next works on it by itself, to obtain or to renew.
    pub next_attempt_at: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// Ways to lead the name here, the best first.
    pub dns_requirements: Vec<Vec<DnsRecord>>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// The work on a revocation.
#[derive(Clone, Debug)]
pub struct RevokingView {
    /// When the next step is taken.
    pub next_attempt_at: Timestamp,
    /// Refusals of the authority, or failures to reach it, in a row.
    pub failures: u32,
    /// What is in the way.
    pub problem: Option<Problem>,
}

/// A certificate as people ask for it.
#[derive(Clone, Debug)]
pub struct CertificateView {
    /// What is known of it.
    pub facts: CertificateFacts,
    /// Where it stands in its life.
    pub status: CertificateStatus,
    /// What it is used for.
    pub used: CertificateUse,
    /// What has become of it.
    pub standing: CertificateStanding,
    /// The work on its revocation, while that is not done.
    pub revoking: Option<RevokingView>,
    /// The name of its issuer, as it says it.
    pub issuer: Option<String>,
    /// The chain, DER, the end-entity certificate first. Never a key.
    pub chain: Vec<Vec<u8>>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// A job as people ask for it.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Its row.
    pub record: JobRecord,
    /// What it does now.
    pub status: JobStatus,
}

/// How the process is.
#[derive(Clone, Debug)]
pub struct StatusView {
    /// The running version.
    pub version: &'static str,
    /// When it started.
    pub started_at: Timestamp,
    /// Phase and conditions.
    pub report: Report,
    /// Names that the data plane knows.
    pub domains_known: usize,
    /// Whether those are all there are.
    pub domains_complete: bool,
}

impl Views {
    /// Over these sources.
    #[must_use]
    pub const fn over(sources: Sources) -> Self {
        Self(sources)
    }

    pub(in crate::control) const fn sources(&self) -> &Sources {
        &self.0
    }

    /// How the process is.
    #[must_use]
    pub fn status(&self, _grant: &Grant) -> StatusView {
        let snapshot = self.0.snapshot.load();
        StatusView {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.0.started_at,
            report: self.0.readiness.report(),
            domains_known: snapshot.len(),
            domains_complete: snapshot.is_complete(),
        }
    }

    /// Tenants in the order of their slugs.
    ///
    /// # Errors
    /// [`ViewError::Store`].
    pub async fn tenants(
        &self,
        grant: &Grant,
        page: &PageRequest,
    ) -> Result<Page<TenantRecord>, ViewError> {
        Ok(self.0.store.tenants(by(), grant.scope(), page).await?)
    }

    /// Domains in the order of their names, of one tenant or of all.
    ///
    /// # Errors
    /// [`ViewError`]: a tenant that is not there is told.
    pub async fn domains(
        &self,
        grant: &Grant,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<DomainView>, ViewError> {
        let found = self
            .0
            .store
            .domains(by(), grant.scope(), tenant, page)
            .await?;
        let found = self.of_known_tenant(grant, tenant, page, found).await?;
        let items = stream::iter(found.items)
            .map(|record| self.with_certificate_and_job(grant, record))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(Page {
            items,
            next: found.next,
            unreadable: found.unreadable,
        })
    }

    /// One domain by its registered name.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn domain(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<DomainView, ViewError> {
        let found = self.0.store.domain(by(), grant.scope(), pattern).await?;
        match found {
            Some(record) => self.with_certificate_and_job(grant, record).await,
            None => Err(self.no_domain(grant, pattern).await?),
        }
    }

    /// That there is no such domain, with the wildcard that serves the name where there is one.
    async fn no_domain(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<ViewError, ViewError> {
        let over = match pattern {
            NamePattern::Exact(name) => NamePattern::wildcard_over(name),
            NamePattern::Wildcard(_) => None,
        };
        let mut told = format!("domain {pattern}");
        if let Some(over) = over {
            let found = self.0.store.domain(by(), grant.scope(), &over).await?;
            if found.is_some_and(|record| record.state.is_served()) {
                told = format!("{told}; it is served by {over}: `vestibule domain show '{over}'`");
            }
        }
        Ok(ViewError::NotFound(told))
    }

    /// Certificates in the order of their creation, of one tenant or of all.
    ///
    /// # Errors
    /// [`ViewError`]: a tenant that is not there is told.
    pub async fn certificates(
        &self,
        grant: &Grant,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<CertificateView>, ViewError> {
        let found = self.0.store.certificates(by(), grant.scope(), tenant, page);
        let found = found.await?;
        let found = self.of_known_tenant(grant, tenant, page, found).await?;
        Ok(Page {
            items: self.seen(grant, found.items).await?,
            next: found.next,
            unreadable: found.unreadable,
        })
    }

    /// The certificates with a serial number, oldest first, of one tenant or of all.
    ///
    /// # Errors
    /// [`ViewError::Store`].
    pub async fn certificates_by_serial(
        &self,
        grant: &Grant,
        tenant: Option<&TenantId>,
        serial: &SerialNumber,
    ) -> Result<Page<CertificateView>, ViewError> {
        let store = &self.0.store;
        let found = store.certificates_by_serial(by(), grant.scope(), serial, MOST_OF_A_SERIAL);
        let mut found = found.await?;
        found.retain(|record| tenant.is_none_or(|tenant| *tenant == record.facts.tenant));
        Ok(Page {
            items: self.seen(grant, found).await?,
            next: None,
            unreadable: Vec::new(),
        })
    }

    async fn seen(
        &self,
        grant: &Grant,
        records: Vec<CertificateRecord>,
    ) -> Result<Vec<CertificateView>, ViewError> {
        let seen = stream::iter(records).map(|record| self.with_use(grant, record));
        seen.buffered(AT_ONCE).try_collect().await
    }

    /// A certificate without the work on its revocation.
    async fn with_use(
        &self,
        grant: &Grant,
        record: CertificateRecord,
    ) -> Result<CertificateView, ViewError> {
        let (id, standing) = (record.facts.id, &record.standing);
        // What is to be destroyed, or is, has no domain that points to it; nor has a client's.
        let may_serve = standing.purpose == Purpose::Server
            && standing.retire_at.is_none()
            && standing.key_destroyed_at.is_none();
        let domains = match may_serve {
            true => {
                let store = &self.0.store;
                let found = store.domains_served_by(by(), grant.scope(), id, MOST_POINTING);
                found.await?
            }
            false => Vec::new(),
        };
        Ok(CertificateView {
            status: CertificateStatus::of(&record.facts, standing, self.0.clock.now()),
            used: CertificateUse::of(standing, &domains),
            facts: record.facts,
            revoking: None,
            issuer: chain::issuer(&record.leaf),
            standing: record.standing,
            chain: [vec![record.leaf], record.chain].concat(),
            created_at: record.created_at,
        })
    }

    /// One certificate.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn certificate(
        &self,
        grant: &Grant,
        id: CertificateId,
    ) -> Result<CertificateView, ViewError> {
        let found = self.0.store.certificate(by(), grant.scope(), id).await?;
        let record = found.ok_or_else(|| ViewError::NotFound(format!("certificate {id}")))?;
        let revoking = self.revoking(grant, &record).await?;
        Ok(CertificateView {
            revoking,
            ..self.with_use(grant, record).await?
        })
    }

    async fn revoking(
        &self,
        grant: &Grant,
        record: &CertificateRecord,
    ) -> Result<Option<RevokingView>, ViewError> {
        if record.standing.revocation.is_none() {
            return Ok(None);
        }
        let key = JobKey::Revocation(record.facts.id);
        let job = self.0.store.job(by(), grant.scope(), &key).await?;
        Ok(job.map(|job| RevokingView {
            next_attempt_at: job.run_at,
            failures: job.failures,
            problem: job.problem,
        }))
    }

    /// Where a certificate stands in its life now.
    #[must_use]
    pub fn certificate_status(&self, facts: &CertificateFacts) -> CertificateStatus {
        CertificateStatus::at(facts, self.0.clock.now())
    }

    /// Jobs in the order of their keys, of one tenant or of all.
    ///
    /// # Errors
    /// [`ViewError`]: a tenant that is not there is told.
    pub async fn jobs(
        &self,
        grant: &Grant,
        tenant: Option<&TenantId>,
        page: &PageRequest,
    ) -> Result<Page<JobView>, ViewError> {
        let found = self.0.store.jobs(by(), grant.scope(), tenant, page).await?;
        let found = self.of_known_tenant(grant, tenant, page, found).await?;
        let now = self.0.clock.now();
        let items = found.items.into_iter().map(|record| JobView {
            status: JobStatus::of(&record, now),
            record,
        });
        Ok(Page {
            items: items.collect(),
            next: found.next,
            unreadable: found.unreadable,
        })
    }

    /// Audit events in the order of their chain: of a tenant, or the platform's own.
    ///
    /// # Errors
    /// [`ViewError`]: a tenant that is not there is told.
    pub async fn events(
        &self,
        grant: &Grant,
        owner: &KeyOwner,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, ViewError> {
        let found = self
            .0
            .store
            .events(by(), grant.scope(), owner, page)
            .await?;
        let tenant = match owner {
            KeyOwner::Platform => None,
            KeyOwner::Tenant(tenant) => Some(tenant),
        };
        self.of_known_tenant(grant, tenant, page, found).await
    }

    async fn with_certificate_and_job(
        &self,
        grant: &Grant,
        record: DomainRecord,
    ) -> Result<DomainView, ViewError> {
        let scope = grant.scope();
        let key = JobKey::Certificate(record.pattern.clone());
        let job = self.0.store.job(by(), scope, &key);
        let certificate = async {
            match record.certificate {
                Some(id) => self.0.store.certificate(by(), scope, id).await,
                None => Ok(None),
            }
        };
        let (job, certificate) = futures_util::try_join!(job, certificate)?;
        let keys = self.keys(&record, certificate.as_ref()).await?;
        let (certificate, standing) = certificate
            .map(|certificate| (certificate.facts, certificate.standing))
            .unzip();
        let standing = standing.unwrap_or_default();
        let now = self.0.clock.now();
        let job = job.map(|job| self.told_what_it_waits_for(&record, job, now));
        let derived = state::derive(&record, certificate.as_ref(), job.as_ref(), now);
        let (state, tls_status) = match &keys {
            Some(_) => unreadable::standing(&record, derived, &self.0.resolver),
            None => derived,
        };
        let dns_requirements = self.0.edge.load().requirements(&record.pattern);
        let of_job = job.as_ref().and_then(|job| job.problem.clone());
        let obtain = self.0.preflight.obtain();
        let stuck = stuck::stuck(&record, job.as_ref(), (obtain, &self.0.edge.load()), now);
        let owned = (&record.tenant, &record.pattern);
        let (edge, snapshot) = (self.0.edge.load(), self.0.snapshot.load());
        let upstream = upstreams::not_configured(&record, snapshot.routes(), &edge, now)
            .or_else(|| upstreams::problem(&self.0.troubles, owned, &edge, now));
        Ok(DomainView {
            pattern: record.pattern,
            tenant: record.tenant,
            source: record.source,
            state,
            tls_status,
            upstream: record.upstream.map(|name| name.to_string()),
            problem: keys.or(record.problem).or(of_job).or(stuck).or(upstream),
            certificate: certificate.map(|facts| {
                let status = CertificateStatus::of(&facts, &standing, now);
                (facts, status)
            }),
            next_attempt_at: job.as_ref().map(next_attempt),
            failures: job.map_or(0, |job| job.failures),
            dns_requirements,
            created_at: record.created_at,
        })
    }
}

impl Views {
    /// The problem of a domain whose keys do not open.
    async fn keys(
        &self,
        domain: &DomainRecord,
        certificate: Option<&CertificateRecord>,
    ) -> Result<Option<Problem>, StoreError> {
        let Some(vault) = &self.0.vault else {
            return Ok(None);
        };
        let edge = self.0.edge.get();
        let now = self.0.clock.now();
        unreadable::problem(vault, (domain, certificate), &edge, now).await
    }

    /// The job with the problem that it waits for its authority's budget, where that is so.
    fn told_what_it_waits_for(
        &self,
        domain: &DomainRecord,
        job: JobRecord,
        now: Timestamp,
    ) -> JobRecord {
        let denied = self.0.budget.held(job.priority).filter(|denied| {
            let asked = self.0.authorities.in_order(&domain.tenant, &domain.pattern);
            asked.first() == Some(&denied.ca)
        });
        let problem = denied.and_then(|denied| {
            let edge = self.0.edge.load();
            waiting::waiting(&domain.pattern, &job, (&denied, &edge), now)
        });
        JobRecord {
            problem: job.problem.or(problem),
            ..job
        }
    }
}

/// When a job runs next: one that waits for a budget has been due before.
fn next_attempt(job: &JobRecord) -> Timestamp {
    let told = job
        .problem
        .as_ref()
        .and_then(|problem| problem.next_retry_at);
    told.map_or(job.run_at, |told| told.max(job.run_at))
}

fn by() -> Deadline {
    Deadline::after(READ)
}
