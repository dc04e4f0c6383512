//! What nobody tells of and must be looked at: jobs that wait, what has become of the credentials in memory, and whether
//! this machine's clock is right.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::certs::accounts::Accounts;
use crate::certs::resolver::Resolver;
use crate::store::job::{JobKind, Priority};
use crate::store::{Deadline, Store};
use crate::telemetry::labels::{JobPriority, JobState};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Condition, Health, Readiness};

/// Between two looks: shorter than any scraper's interval.
const EVERY: Duration = Duration::from_secs(5);
/// What a CA said of the time is asked for again before it speaks against this machine's clock: a machine that was
/// suspended has missed what its monotonic clock did not count.
pub(super) const FRESH: Duration = Duration::from_secs(60);
/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The looks.
#[derive(Clone, Debug)]
pub struct Gauges {
    /// Holds the jobs.
    pub store: Arc<dyn Store>,
    /// Knows who can be asked the time.
    pub accounts: Accounts,
    /// Holds the credentials.
    pub resolver: Resolver,
    /// The machine's clock.
    pub clock: Clock,
    /// Where it shows.
    pub metrics: Metrics,
    /// Where it shows too.
    pub readiness: Readiness,
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
            metrics.jobs.set(JobState::Queued, backlog.due());
            for priority in Priority::ALL {
                let waited = backlog.of(priority).oldest.as_secs();
                metrics.oldest_job.set(label(priority), waited);
            }
        }
        self.look_at_the_clock().await;
        metrics.credentials.set((), self.resolver.entries());
        metrics.credential_bytes.set((), self.resolver.bytes());
        let evictions = self.resolver.evictions();
        let fresh = evictions.saturating_sub(counted);
        metrics.credential_evictions.add((), fresh);
        evictions
    }

    async fn look_at_the_clock(&self) {
        let Some((_, age)) = self.clock.told() else {
            return;
        };
        if age > FRESH && self.difference().is_some() {
            self.accounts.authorities().ask_the_time().await;
        }
        let ahead = self.clock.ahead().unwrap_or_default();
        self.metrics.clock_ahead.set((), ahead / 1_000);
        let health = match self.difference() {
            None => Health::Well,
            Some(by) => {
                let direction = if ahead > 0 { "ahead of" } else { "behind" };
                let told = format!(
                    "this machine's clock is {} minutes {direction} that of the certification authority; certificates \
                     are judged by the authority's time until it is set right: check time synchronisation",
                    by.as_secs() / 60
                );
                tracing::error!(
                    ahead_seconds = ahead / 1_000,
                    "this machine's clock is wrong, or that of the certification authority"
                );
                Health::Degraded(told.into())
            }
        };
        self.readiness.set(Condition::Clock, health);
    }

    /// How far the clock is from what was told, where that is too far.
    fn difference(&self) -> Option<Duration> {
        let apart = Duration::from_millis(self.clock.ahead()?.unsigned_abs());
        (apart > Clock::TOLERANCE).then_some(apart)
    }
}

const fn label(priority: Priority) -> JobPriority {
    match priority {
        Priority::Handshake => JobPriority::Handshake,
        Priority::Expiring => JobPriority::Expiring,
        Priority::Renewal => JobPriority::Renewal,
        Priority::Background => JobPriority::Background,
    }
}
