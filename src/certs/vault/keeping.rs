//! Keeps every data key wrapped by the right key-encryption key, and tells of those that do not open.

use std::time::Duration;

use super::Vault;
use super::exchange::{Census, ExchangeError};
use super::renewed::{GRACE, Older};
use crate::base::task::Tasks;
use crate::telemetry::labels::DataKeyState;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Condition, Health, Readiness};

/// Between two passes where all is well.
const EVERY: Duration = Duration::from_secs(600);
/// Between two passes where something is not: a file that was put back is noticed within this time.
const AGAIN: Duration = Duration::from_secs(30);

/// The passes.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Whose data keys.
    pub vault: Vault,
    /// Where it shows.
    pub metrics: Metrics,
    /// Where it shows too.
    pub readiness: Readiness,
}

impl Keeping {
    /// Makes a pass at once, whenever an exchange begins, and from time to time, until the group is cancelled.
    pub async fn run(self, tasks: Tasks) {
        let cancelled = tasks.token();
        let passes = async {
            let mut told = Vec::new();
            loop {
                let wait = match self.vault.settle().await {
                    Ok(census) => {
                        let rest = self.renew(&census).await;
                        self.show(&census, &mut told).min(rest)
                    }
                    Err(error) => {
                        self.show_trouble(&error);
                        AGAIN
                    }
                };
                // Woken or not: another pass.
                drop(tokio::time::timeout(wait, self.vault.nudged()).await);
            }
        };
        cancelled.run_until_cancelled(passes).await;
    }

    /// Seals anew what older data keys sealed; gives when to look again.
    async fn renew(&self, census: &Census) -> Duration {
        let mut wait = EVERY;
        for owner in &census.several {
            match self.vault.reseal(owner, GRACE).await {
                Ok((done, older)) => {
                    self.metrics.blobs_resealed.add((), done.resealed);
                    if older == Older::Left {
                        wait = AGAIN;
                    }
                }
                Err(error) => {
                    let error = super::own::whole(&error);
                    tracing::error!(
                        owner = owner.as_str(),
                        error,
                        "what older data keys sealed is not sealed anew yet; tried again soon"
                    );
                    wait = AGAIN;
                }
            }
        }
        wait
    }

    /// Tells what a pass found, once for as long as it stays the same; gives when to look again.
    fn show(&self, census: &Census, told: &mut Vec<String>) -> Duration {
        let unreadable = census.unreadable_keys();
        let readable = census.data_keys.saturating_sub(unreadable);
        self.metrics.data_keys.set(DataKeyState::Readable, readable);
        self.metrics
            .data_keys
            .set(DataKeyState::Unreadable, unreadable);
        self.metrics.data_keys_rewrapped.add((), census.rewrapped);
        let found: Vec<String> = census.unreadable.iter().map(ToString::to_string).collect();
        for trouble in found.iter().filter(|trouble| !told.contains(trouble)) {
            tracing::error!("{trouble}");
        }
        *told = found;
        let (health, wait) = match told.as_slice() {
            [] => (Health::Well, EVERY),
            all => (Health::Degraded(all.join("; ").into()), AGAIN),
        };
        self.readiness.set(Condition::Keys, health);
        wait
    }

    fn show_trouble(&self, error: &ExchangeError) {
        let text = super::own::whole(error);
        tracing::error!(
            error = text,
            "the data keys were not gone over; tried again soon"
        );
        self.vault
            .change(|standing| standing.trouble = Some(text.clone()));
    }
}
