//! From a due job to a certificate that serves.
//!
//! A job is claimed with a lease and a fence; whatever it writes is guarded by the claim, so that a holder that comes
//! too late changes nothing. The steps, each of which a successor can take up:
//!
//! 1. a fresh key, sealed, and an order; both are saved in the job's row before anything else;
//! 2. the answer to the challenge is committed and published before the CA is told;
//! 3. the request is handed in; what comes back is checked ([`chain`](crate::certs::chain));
//! 4. certificate, pointer, the job's next run and the audit event are one batch; then the resolver has it, and who
//!    waits is told.
//!
//! A failure keeps whatever serves, sets the domain's problem, and backs off.
//!
//! Reading order: this file (the loop), [`share`] (who works with which authority at once), [`attempt`] (a run as a list of
//! steps), its steps [`life`], [`returning`], [`inquiry`], [`allowed`], [`preflight`], [`of_any`], [`order`], [`new_order`],
//! [`budget`], [`proof`], [`accept`], then [`ending`], [`waiting`], [`failure`], [`again`], [`commit`], [`lease`].

mod share;

mod attempt;

mod life;

mod returning;

mod inquiry;

mod allowed;

mod preflight;

mod of_any;

mod order;

mod new_order;

mod budget;

mod proof;

mod accept;

mod ending;

mod waiting;

mod failure;

mod again;

mod commit;

mod lease;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::base::clock::{Clock, monotonic};
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::Settings;
use crate::certs::accounts::Accounts;
use crate::certs::budget::Keeper;
use crate::certs::challenge::Challenges;
use crate::certs::outcome::Outcomes;
use crate::certs::permission::Permission;
use crate::certs::preflight::Preflight;
use crate::certs::resolver::Resolver;
use crate::certs::vault::Vault;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{Operation, Urgency};
use crate::store::job::{
    ClaimRequest, Claims, JobKey, JobKind, JobStanding, Pace, Paces, Priority,
};
use crate::store::{ApplyError, Batch, Deadline, Store, StoreError};
use crate::telemetry::labels::JobState;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

use attempt::Attempt;
use share::Shares;
use waiting::Waiting;

/// How long one call of the store may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait after a failed claim, and the shortest between two looks for due jobs.
const PAUSE: Duration = Duration::from_millis(20);

/// What issuance works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Jobs, domains, certificates.
    pub store: Arc<dyn Store>,
    /// Seals private keys.
    pub vault: Vault,
    /// The authorities.
    pub accounts: Accounts,
    /// What the authorities bear.
    pub budget: Keeper,
    /// The permission hook, asked again before a name that it allowed is renewed.
    pub permission: Option<Permission>,
    /// Answers to challenges.
    pub challenges: Challenges,
    /// Looks at names before they are ordered and after they were refused; nothing where no authority proves names.
    pub preflight: Option<Preflight>,
    /// What handshakes are served from.
    pub resolver: Resolver,
    /// Who waits in a handshake.
    pub outcomes: Outcomes,
    /// What is counted.
    pub metrics: Metrics,
    /// Where trouble with an authority shows.
    pub readiness: Readiness,
    /// The time.
    pub clock: Clock,
    /// Read anew for every job, but for [`Settings::parallel`], which is read at the start.
    pub settings: Published<Settings>,
}

/// Works on certificate jobs. Clones are the same.
#[derive(Clone)]
pub struct Issuer(Arc<Shared>);

struct Shared {
    parts: Parts,
    nudge: Notify,
    places: Arc<Semaphore>,
    /// Fewer of them for each authority.
    shares: Shares,
    /// Fewer than places, so that an authority that answers no question about renewals holds up no visitor.
    inquiries: Semaphore,
    waiting: Waiting,
    parallel: usize,
    holder: Uuid,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("holder", &self.0.holder)
            .field("free", &self.0.places.available_permits())
            .finish_non_exhaustive()
    }
}

impl Issuer {
    /// Works on nothing before [`Issuer::run`]. Claims name `holder`: this process, and no other that lives.
    #[must_use]
    pub fn new(parts: Parts, holder: Uuid) -> Self {
        let parallel = parts
            .settings
            .load()
            .parallel
            .clamp(1, Semaphore::MAX_PERMITS);
        let authorities = parts.accounts.authorities().clone();
        let shares = Shares::new(parallel, Box::new(move || authorities.names()));
        Self(Arc::new(Shared {
            parts,
            nudge: Notify::new(),
            places: Arc::new(Semaphore::new(parallel)),
            shares,
            inquiries: Semaphore::new((parallel / 4).max(1)),
            waiting: Waiting::default(),
            parallel,
            holder,
        }))
    }

    /// Looks for due jobs at once: a visitor waits.
    pub fn nudge(&self) {
        self.0.nudge.notify_one();
    }

    /// Brings the job of a domain forward whose obstacle has gone, its DNS come right, say: its back-off is forgotten,
    /// what went wrong is not. One that is running is left alone.
    ///
    /// # Errors
    /// [`ApplyError`] where the domain is not the tenant's (any more), or the store failed.
    pub async fn wake(
        &self,
        tenant: &TenantId,
        pattern: &NamePattern,
    ) -> Result<JobStanding, ApplyError> {
        let request = Batch::new().then(Operation::RequestJob {
            key: JobKey::Certificate(pattern.clone()),
            tenant: tenant.clone(),
            priority: Priority::Renewal,
            delay: Duration::ZERO,
            urgency: Urgency::Now,
        });
        let scope = TenantScope::certificate_work(tenant.clone());
        let by = Deadline::after(PATIENCE);
        let mut applied = self.0.parts.store.apply(by, &scope, request).await?;
        self.nudge();
        Ok(applied.jobs.pop().unwrap_or(JobStanding::Running))
    }

    /// Claims due jobs and works on them, until the group is cancelled; then jobs in progress are put back and keep
    /// their orders. Wait for them with [`Tasks::finish`].
    pub async fn run(self, tasks: Tasks) {
        self.watch_waiting(&tasks);
        let cancelled = tasks.token();
        while let Some(Ok(place)) = cancelled
            .run_until_cancelled(Arc::clone(&self.0.places).acquire_owned())
            .await
        {
            let wait = self.claim_and_start(place, &tasks).await;
            let rested = async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.0.nudge.notified() => {}
                }
            };
            if cancelled.run_until_cancelled(rested).await.is_none() {
                break;
            }
        }
    }

    /// Starts as many due jobs as there are places, and tells when to look again.
    async fn claim_and_start(&self, first: OwnedSemaphorePermit, tasks: &Tasks) -> Duration {
        let mut places = vec![first];
        while let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() {
            places.push(place);
        }
        let settings = *self.0.parts.settings.get();
        let most = places.len();
        let claimed_at = monotonic();
        let claims = match self.claim_both(most, settings.lease).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(%error, "no certificate jobs: they cannot be claimed");
                return settings.poll.max(PAUSE);
            }
        };
        let found = claims.jobs.len();
        for (job, place) in claims.jobs.into_iter().zip(places) {
            let issuer = self.clone();
            let token = tasks.token();
            let lease = lease::Lease::new(claimed_at, settings.lease);
            tasks.spawn("issuance", async move {
                issuer.note_running();
                Box::pin(Attempt::run(&issuer.0, job, lease, token)).await;
                drop(place);
                issuer.note_running();
                // The place may be wanted already.
                issuer.nudge();
            });
        }
        match found == most {
            true => Duration::ZERO,
            false => claims
                .next_due
                .map_or(settings.poll, |due| due.min(settings.poll))
                .max(PAUSE),
        }
    }

    /// The most urgent jobs; in the places that are kept for visitors only jobs that one waits for.
    async fn claim_both(&self, most: usize, lease: Duration) -> Result<Claims, StoreError> {
        let any = most.saturating_sub(self.0.shares.visitors());
        let paces = self.0.parts.budget.paces();
        let mut claims = match any {
            0 => Claims::default(),
            any => self.claim(any, lease, paces).await?,
        };
        if claims.jobs.len() < any || any == most {
            return Ok(claims);
        }
        match self.claim(most - any, lease, of_visitors(paces)).await {
            Ok(kept) => {
                claims.jobs.extend(kept.jobs);
                claims.next_due = kept.next_due;
                Ok(claims)
            }
            // What is claimed already is worked on.
            Err(_) if !claims.jobs.is_empty() => Ok(claims),
            Err(error) => Err(error),
        }
    }

    async fn claim(
        &self,
        most: usize,
        lease: Duration,
        paces: Paces,
    ) -> Result<Claims, StoreError> {
        let request = ClaimRequest {
            kind: JobKind::Certificate,
            holder: self.0.holder,
            most,
            lease,
            paces,
        };
        self.0
            .parts
            .store
            .claim(Deadline::after(PATIENCE), &request)
            .await
    }

    fn note_running(&self) {
        let running = self
            .0
            .parallel
            .saturating_sub(self.0.places.available_permits());
        self.0.parts.metrics.jobs.set(JobState::Running, running);
    }
}

/// No jobs but those that a visitor waits for.
fn of_visitors(paces: Paces) -> Paces {
    let mut visitors = paces;
    for priority in Priority::ALL {
        if priority != Priority::Handshake {
            visitors.set(priority, Pace::None);
        }
    }
    visitors
}

#[cfg(test)]
mod tests;
