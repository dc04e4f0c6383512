//! Tells `/readyz` whether every registered name has been read.

use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::model::Snapshot;
use crate::telemetry::readiness::{Condition, Health, Readiness};

/// Keeps [`Condition::Names`] true to what the data plane knows, until `tasks` are cancelled.
///
/// # Panics
/// Outside a tokio runtime.
pub fn tell(snapshot: Published<Snapshot>, readiness: Readiness, tasks: &Tasks) {
    tasks.spawn_until_cancelled("names told", async move {
        let mut changes = snapshot.watch();
        loop {
            let health = match snapshot.load().is_complete() {
                true => Health::Well,
                false => Health::Degraded(READING.into()),
            };
            readiness.set(Condition::Names, health);
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}

const READING: &str =
    "registered names are still being read; until then a name costs one read of the store";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_well_once_all_have_been_read() {
        let (snapshot, readiness) = (Published::new(Snapshot::empty()), Readiness::default());
        let tasks = Tasks::new();
        tell(snapshot.clone(), readiness.clone(), &tasks);
        let status = || {
            let conditions = readiness.report().conditions;
            conditions
                .into_iter()
                .find(|one| one.name == "names")
                .unwrap()
                .status
        };
        while status() != "degraded" {
            tokio::task::yield_now().await;
        }
        let mut complete = Snapshot::empty();
        complete.mark_complete();
        snapshot.publish(complete);
        while status() != "well" {
            tokio::task::yield_now().await;
        }
        tasks.cancel();
    }
}
