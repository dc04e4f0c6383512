//! The jobs of revocations: claimed, run, ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::steps::{Ended, Failure, Run};
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::certs::accounts::Accounts;
use crate::certs::resolver::Resolver;
use crate::certs::vault::Vault;
use crate::model::TenantScope;
use crate::store::batch::{Guard, JobOutcome, Operation};
use crate::store::job::{ClaimRequest, ClaimedJob, JobKey, JobKind, Paces};
use crate::store::{Batch, Deadline, Store};
use crate::telemetry::metrics::Metrics;

/// How long one call of the store may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a job is ours: longer than one run of it.
const LEASE: Duration = Duration::from_secs(90);
/// How long one run may take.
const RUN: Duration = Duration::from_secs(60);
/// Jobs at once.
const PARALLEL: usize = 4;
/// How often due jobs are looked for where nothing announces them.
const POLL: Duration = Duration::from_secs(5);
/// Between two looks for due jobs, at least.
const PAUSE: Duration = Duration::from_millis(250);
/// After failures: a compromised key must be known as such within a day (baseline requirements §4.9.1.1).
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(5),
    factor: 4,
    most: Duration::from_secs(10 * 60),
};
/// The longest wait that an authority may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// What revocations work with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Jobs, certificates, domains.
    pub store: Arc<dyn Store>,
    /// Opens the key of a certificate that is revoked by it.
    pub vault: Vault,
    /// The authorities.
    pub accounts: Accounts,
    /// What handshakes of this process are served from.
    pub resolver: Resolver,
    /// What is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

/// Works on revocations. Clones are the same.
#[derive(Clone)]
pub struct Revoker {
    parts: Arc<Parts>,
    holder: Uuid,
    nudge: Arc<Notify>,
}

impl fmt::Debug for Revoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoker")
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

impl Revoker {
    /// Works on nothing before [`Revoker::run`]. Claims name `holder`: this process, and no other that lives.
    #[must_use]
    pub fn new(parts: Parts, holder: Uuid) -> Self {
        Self {
            parts: Arc::new(parts),
            holder,
            nudge: Arc::default(),
        }
    }

    /// Looks for due jobs at once.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Claims due jobs and works on them until the group is cancelled. A job that is broken off is due again when its
    /// lease ends, or when this process is known to be dead.
    pub async fn run(self, tasks: Tasks) {
        let cancelled = tasks.token();
        let work = async {
            loop {
                let wait = self.round().await;
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.nudge.notified() => {}
                }
            }
        };
        cancelled.run_until_cancelled(work).await;
    }

    /// Works on what is due; tells when to look again.
    async fn round(&self) -> Duration {
        let request = ClaimRequest {
            kind: JobKind::Revocation,
            holder: self.holder,
            most: PARALLEL,
            lease: LEASE,
            paces: Paces::default(),
        };
        let by = Deadline::after(PATIENCE);
        let claims = match self.parts.store.claim(by, &request).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(%error, "no revocations: their jobs cannot be claimed");
                return POLL;
            }
        };
        let jobs = claims.jobs.into_iter().map(|job| self.work(job));
        let found = futures_util::future::join_all(jobs).await.len();
        match found {
            // Some of them may be due again before the others are.
            1.. => PAUSE,
            0 => claims.next_due.unwrap_or(POLL).clamp(PAUSE, POLL),
        }
    }

    async fn work(&self, job: ClaimedJob) {
        let (JobKey::Revocation(id), Some(tenant)) = (&job.claim.key, &job.tenant) else {
            return;
        };
        let run = Run {
            parts: &self.parts,
            job: &job,
            id: *id,
            tenant,
            scope: TenantScope::certificate_work(tenant.clone()),
        };
        match tokio::time::timeout(RUN, run.steps()).await {
            Ok(Ok(Ended::Done)) => {
                let key = job.claim.key.clone();
                let done = Batch::new().then(Operation::DeleteJob { key });
                self.end(&run, done).await;
            }
            Ok(Ok(Ended::Again(wait, None))) => {
                self.finish(&run, JobOutcome::Deferred, wait).await;
            }
            Ok(Ok(Ended::Again(wait, Some(problem)))) => {
                self.finish(&run, JobOutcome::Held(problem), wait).await;
            }
            Ok(Err(failure)) => self.failed(&run, &failure).await,
            Err(_elapsed) => self.failed(&run, &Failure::Deadline(RUN)).await,
        }
    }

    async fn failed(&self, run: &Run<'_>, failure: &Failure) {
        let failures = run.job.failures.saturating_add(1);
        let asked = failure.retry_after().unwrap_or_default().min(LONGEST_WAIT);
        let wait = RETRY.after(failures).max(asked);
        let now = self.parts.clock.now();
        let problem = failure.problem(run.job.problem.as_ref(), now, now.plus(wait));
        tracing::error!(
            certificate = %run.id, problem = %problem.code, detail = problem.detail,
            evidence = problem.evidence.join("; "), failures, retry_in_seconds = wait.as_secs(),
            "a certificate could not be revoked"
        );
        let detail = json!({
            "certificate": run.id, "problem": problem.code, "failures": failures,
        });
        let event = run.event("certificate.revocation_failed", detail).await;
        let batch = Batch::new()
            .then(finished(run, JobOutcome::Failed(problem), wait))
            .audit(event);
        self.end(run, batch).await;
    }

    async fn finish(&self, run: &Run<'_>, outcome: JobOutcome, next: Duration) {
        let batch = Batch::new().then(finished(run, outcome, next));
        self.end(run, batch).await;
    }

    async fn end(&self, run: &Run<'_>, batch: Batch) {
        let batch = batch.guard(Guard::ClaimHeld(run.job.claim.clone()));
        let by = Deadline::after(PATIENCE);
        if let Err(error) = self.parts.store.apply(by, &run.scope, batch).await {
            tracing::warn!(certificate = %run.id, %error, "the end of a run could not be stored; its lease will end");
        }
    }
}

fn finished(run: &Run<'_>, outcome: JobOutcome, next: Duration) -> Operation {
    Operation::FinishJob {
        key: run.job.claim.key.clone(),
        outcome,
        next,
    }
}
