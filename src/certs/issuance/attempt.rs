//! One run of one job: what is due, whether it is allowed, the order, and how it ended.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::budget::Spent;
use super::failure::{Cause, Failure};
use super::lease::Lease;
use super::life::{self, Due};
use super::share::{Share, Shares};
use super::waiting::Waiting;
use super::{PATIENCE, Parts, Shared};
use crate::base::clock::{Instant, Timestamp, monotonic};
use crate::certs::Settings;
use crate::certs::authorities::Outlook;
use crate::certs::credential::Credential;
use crate::certs::lifecycle::State;
use crate::certs::policy::Denial;
use crate::certs::request::IssuanceRequest;
use crate::certs::resolver::Ticket;
use crate::model::certificate::CaId;
use crate::model::standing::CertificateStanding;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::job::{ClaimedJob, JobKey};
use crate::store::record::{CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{Deadline, StoreError};

/// A run in progress.
pub(super) struct Attempt<'a> {
    pub parts: &'a Parts,
    /// Places of those who ask an authority about renewals.
    pub inquiries: &'a Semaphore,
    /// Who waits for an authority that is away.
    pub waiting: &'a Waiting,
    /// Places with each authority.
    pub shares: &'a Shares,
    pub job: &'a ClaimedJob,
    pub pattern: &'a NamePattern,
    pub tenant: &'a TenantId,
    pub scope: TenantScope,
    pub settings: Settings,
    /// When the run began.
    pub began: Instant,
    /// When it must have ended.
    pub by: Instant,
    /// What it has taken from the budget.
    pub spent: Mutex<Spent>,
}

/// What a run knows of its domain from the store.
pub(super) struct Known {
    pub domain: Option<DomainRecord>,
    pub certificate: Option<CertificateRecord>,
    /// Where the life stood when the run began.
    pub state: State,
    /// From before the reading.
    pub ticket: Ticket,
}

/// How a run ended well.
pub(super) enum Success {
    /// With a certificate, which is stored and serves.
    Issued(Arc<Credential>),
    /// The certificate there is need not be replaced yet.
    StillGood(StillGood),
    /// With a domain that had moved and is back: the job runs again at once, and whoever waits goes on waiting.
    Returned,
}

/// A certificate that need not be replaced yet.
pub(super) struct StillGood {
    /// As it was read.
    pub record: Box<CertificateRecord>,
    /// What is known of it now, where that has changed.
    pub standing: Option<Box<CertificateStanding>>,
    /// When its job runs next.
    pub run_at: Timestamp,
}

impl<'a> Attempt<'a> {
    /// Works on `job` until it is done, fails, is lost, or the group is cancelled; writes how it ended.
    pub(super) async fn run(
        shared: &'a Shared,
        job: ClaimedJob,
        lease: Lease,
        cancelled: CancellationToken,
    ) {
        let parts = &shared.parts;
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
            inquiries: &shared.inquiries,
            waiting: &shared.waiting,
            shares: &shared.shares,
            job: &job,
            pattern,
            tenant,
            scope: TenantScope::certificate_work(tenant.clone()),
            settings,
            began,
            by: began + settings.job_deadline,
            spent: Mutex::default(),
        };
        attempt.waiting.forget(pattern);
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
            state: life::state(domain.as_ref(), certificate.as_ref(), self.job),
            domain,
            certificate,
            ticket,
        })
    }

    /// The run as a list of steps, each with a file of its own. What stands before the permit asks no authority; what
    /// the authority refuses is dealt with in [`ending`](super::ending).
    async fn work(&self, known: &Known) -> Result<Success, Failure> {
        // Whether a domain that moved is back.
        if let State::Moved { .. } = known.state {
            return self.look_for_return(known).await;
        }
        // What is due, and why.
        let reason = match self.due(known).await? {
            Due::Order(reason) => reason,
            Due::Inquiry => return self.inquire(known).await,
            Due::Nothing(at) => return self.left_alone(known, at),
        };
        let request = IssuanceRequest {
            pattern: self.pattern.clone(),
            tenant: self.tenant.clone(),
            reason,
        };
        let domain = known
            .domain
            .as_ref()
            .ok_or(Cause::Denied(Denial::NotRegistered))?;
        // Whether anybody is there to certify it: else nobody is bothered.
        self.somebody_is_there()?;
        // A place with the authority that will be asked first.
        let share = self.first_share().await?;
        // Whether the name is still allowed.
        self.ask_again(domain, &request.reason).await?;
        // Whether it can be proved at all.
        self.check_first(known).await?;
        // Who could certify it, whether it is ordered, where, and in whose place; then the order, from its placing or
        // taking up to the chain. Where an authority turns out not to be there, the same of the next.
        let obtaining = self.obtain_of_any(request, (known, domain), share);
        let (permit, obtained) = Box::pin(obtaining).await?;
        // What came back is checked, stored, and serves.
        let (record, credential) = self
            .accept(&permit, obtained)
            .map_err(Cause::with_dead_order)?;
        // Should the domain be removed from now on, its credential does not come back.
        let ticket = self.parts.resolver.ticket();
        self.activate(permit, known, record).await?;
        self.parts
            .resolver
            .put_loaded(self.pattern, &credential, ticket);
        Ok(Success::Issued(credential))
    }

    fn somebody_is_there(&self) -> Result<(), Cause> {
        let authorities = self.parts.accounts.authorities();
        match authorities.outlook(self.tenant, self.pattern) {
            Outlook::Clear | Outlook::Trial => Ok(()),
            Outlook::Away => {
                let absent = authorities.absent(self.tenant, self.pattern);
                Err(Cause::Denied(Denial::NoneSuitable(absent)))
            }
        }
    }

    /// A place with the authority that is asked first; nothing where none suits.
    async fn first_share(&self) -> Result<Option<Share>, Cause> {
        let accounts = &self.parts.accounts;
        match accounts.first(self.tenant, self.pattern, self.begun_with(), &[]) {
            Some(ca) => self.share_with(None, &ca).await.map(Some),
            None => Ok(None),
        }
    }

    /// A place with `ca`: the one there is, or another in its stead.
    pub(super) async fn share_with(&self, held: Option<Share>, ca: &CaId) -> Result<Share, Cause> {
        if let Some(share) = held.filter(|share| share.ca() == ca) {
            return Ok(share);
        }
        let share = self.shares.take(ca, self.who_waits()).await;
        share.ok_or_else(|| Cause::Crowded(ca.clone()))
    }

    /// The authority of the order that an earlier run left.
    pub(super) fn begun_with(&self) -> Option<&CaId> {
        self.job.order.as_ref().map(|order| &order.ca)
    }

    fn left_alone(&self, known: &Known, at: Timestamp) -> Result<Success, Failure> {
        let record = known.certificate.clone();
        let record = record.ok_or(Cause::Denied(Denial::NotRegistered))?;
        Ok(Success::StillGood(StillGood {
            standing: None,
            record: Box::new(record),
            run_at: at,
        }))
    }
}
