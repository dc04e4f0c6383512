//! What nobody tells of and must be looked at: jobs that wait, and what has become of the credentials in memory.

use std::sync::Arc;
use std::time::Duration;

use crate::base::task::Tasks;
use crate::certs::resolver::Resolver;
use crate::store::job::JobKind;
use crate::store::{Deadline, Store};
use crate::telemetry::labels::JobState;
use crate::telemetry::metrics::Metrics;

/// Between two looks: shorter than any scraper's interval.
const EVERY: Duration = Duration::from_secs(5);
/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The looks.
#[derive(Clone, Debug)]
pub struct Gauges {
    /// Holds the jobs.
    pub store: Arc<dyn Store>,
    /// Holds the credentials.
    pub resolver: Resolver,
    /// Where it shows.
    pub metrics: Metrics,
}

impl Gauges {
    /// Looks at once and every few seconds, until the group is cancelled. Where the store fails, its last answer stands.
    pub async fn run(self, tasks: Tasks) {
        let cancelled = tasks.token();
        let mut evictions = 0;
        let looks = async {
            loop {
                evictions = self.look(evictions).await;
                tokio::time::sleep(EVERY).await;
            }
        };
        cancelled.run_until_cancelled(looks).await;
    }

    /// One look; `counted` evictions have been counted so far. Gives how many have been now.
    async fn look(&self, counted: u64) -> u64 {
        let metrics = &self.metrics;
        let by = Deadline::after(PATIENCE);
        // A failing store shows by itself, and the waiting jobs are not gone.
        if let Ok(backlog) = self.store.backlog(by, JobKind::Certificate).await {
            metrics.jobs.set(JobState::Queued, backlog.due);
            metrics.oldest_job.set((), backlog.oldest.as_secs());
        }
        metrics.credentials.set((), self.resolver.entries());
        metrics.credential_bytes.set((), self.resolver.bytes());
        let evictions = self.resolver.evictions();
        let fresh = evictions.saturating_sub(counted);
        metrics.credential_evictions.add((), fresh);
        evictions
    }
}
