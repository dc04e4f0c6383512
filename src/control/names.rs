//! Whether the data plane knows the names: every registered one, which `/readyz` tells, and those that the files
//! declare, without which nobody is ready.

use std::time::Duration;

use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::control::declare::Declaration;
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

/// Waits until every name that `declaration` holds is known, for at most `patience`: visitors who are sent to an edge
/// that says it is ready must not be refused names that its own file declares. A store that takes nothing now does not
/// keep what it gave before from being served, so nothing fails when the time is over.
pub async fn declared(
    declaration: &Declaration,
    snapshot: &Published<Snapshot>,
    patience: Duration,
) {
    let mut changes = snapshot.watch();
    let mut missing: Vec<_> = declaration
        .tenants
        .iter()
        .flat_map(|tenant| &tenant.domains)
        .collect();
    let all_known = async {
        loop {
            {
                let known = snapshot.load();
                missing.retain(|pattern| known.exact(pattern).is_none());
            }
            if missing.is_empty() || changes.changed().await.is_err() {
                return;
            }
        }
    };
    // Late ones follow while others are served.
    let late = tokio::time::timeout(patience, all_known).await.is_err();
    if late {
        tracing::warn!("not every declared name could be stored yet; the others are served");
    }
}

const READING: &str =
    "registered names are still being read; until then a name costs one read of the store";

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::control::declare::DeclaredTenant;
    use crate::model::snapshot::KnownDomain;
    use crate::model::{NamePattern, TenantId};

    fn declaration(domains: &[&str]) -> Declaration {
        let tenant = DeclaredTenant {
            id: TenantId::parse("acme").unwrap(),
            domains: domains.iter().map(|name| pattern(name)).collect(),
            file: "proxy.toml".into(),
        };
        Declaration {
            tenants: vec![tenant],
            ..Declaration::default()
        }
    }

    fn pattern(name: &str) -> NamePattern {
        NamePattern::parse(name).unwrap()
    }

    fn knowing(names: &[&str]) -> Snapshot {
        let known = KnownDomain {
            tenant: TenantId::parse("acme").unwrap(),
            upstream: None,
            served: true,
        };
        let mut snapshot = Snapshot::empty();
        snapshot.put(names.iter().map(|name| (pattern(name), known.clone())));
        snapshot
    }

    #[tokio::test]
    async fn declared_names_are_waited_for_until_all_are_known() {
        const LONG: Duration = Duration::from_secs(60);
        let wanted = declaration(&["a.example.com", "*.b.example.com"]);
        let snapshot = Published::new(knowing(&["a.example.com"]));
        let mut waiting = Box::pin(declared(&wanted, &snapshot, LONG));
        assert!(waiting.as_mut().now_or_never().is_none());
        snapshot.publish(knowing(&["a.example.com", "*.b.example.com"]));
        waiting.await;
    }

    #[tokio::test]
    async fn declared_names_that_never_come_are_not_waited_for_longer_than_said() {
        let wanted = declaration(&["a.example.com"]);
        let snapshot = Published::new(Snapshot::empty());
        declared(&wanted, &snapshot, Duration::from_millis(20)).await;
    }

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
