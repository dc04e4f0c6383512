//! Names whose authorities are all away: which wait in this process, and how they are brought forward once one is back.
//! What is lost with the process, or finds no room, comes back by its own wait, an hour at most.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::Notify;

use super::{Issuer, PATIENCE};
use crate::base::task::Tasks;
use crate::certs::authorities::Outlook;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{Operation, Urgency};
use crate::store::job::{JobKey, Priority};
use crate::store::{ApplyError, Batch, Deadline};

/// Names that are remembered.
const MOST: usize = 100_000;
/// So much time is given to each when many are brought forward, and so much to all at most. Visitors do not wait for it.
const EACH: Duration = Duration::from_millis(50);
const MOST_SPREAD: Duration = Duration::from_secs(600);
/// While names wait they are looked at so often, whether an authority turned or not: a trial may have come to nothing.
const AGAIN: Duration = Duration::from_secs(5);

/// The names that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    names: Mutex<HashMap<NamePattern, Waiter>>,
    noted: Notify,
}

#[derive(Clone, Debug)]
struct Waiter {
    tenant: TenantId,
    priority: Priority,
}

impl Waiting {
    /// The name waits for an authority.
    pub(super) fn note(&self, pattern: &NamePattern, tenant: &TenantId, priority: Priority) {
        let waiter = Waiter {
            tenant: tenant.clone(),
            priority,
        };
        let mut names = self.names();
        if names.len() < MOST || names.contains_key(pattern) {
            names.insert(pattern.clone(), waiter);
        }
        drop(names);
        self.noted.notify_one();
    }

    /// The name's job runs.
    pub(super) fn forget(&self, pattern: &NamePattern) {
        self.names().remove(pattern);
    }

    /// Takes out those whose authority is back, and of those that one might try the most urgent.
    fn take_ready(
        &self,
        outlook: impl Fn(&TenantId, &NamePattern) -> Outlook,
    ) -> Vec<(NamePattern, Waiter)> {
        let mut names = self.names();
        let mut trial: Option<(NamePattern, Priority)> = None;
        let mut ready: Vec<(NamePattern, Waiter)> = Vec::new();
        for (pattern, waiter) in names.iter() {
            match outlook(&waiter.tenant, pattern) {
                Outlook::Clear => ready.push((pattern.clone(), waiter.clone())),
                Outlook::Trial if trial.as_ref().is_none_or(|(_, of)| waiter.priority < *of) => {
                    trial = Some((pattern.clone(), waiter.priority));
                }
                Outlook::Trial | Outlook::Away => {}
            }
        }
        for (pattern, _) in &ready {
            names.remove(pattern);
        }
        ready.extend(trial.and_then(|(pattern, _)| names.remove_entry(&pattern)));
        ready
    }

    fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<NamePattern, Waiter>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Issuer {
    /// Brings forward what waits for an authority once that is back, until the group is cancelled.
    pub(super) fn watch_waiting(&self, tasks: &Tasks) {
        let issuer = self.clone();
        tasks.spawn_until_cancelled("issuance_waiting", async move {
            let authorities = issuer.0.parts.accounts.authorities().clone();
            loop {
                let turned = authorities.turned();
                issuer.bring_forward().await;
                if issuer.0.waiting.is_empty() {
                    issuer.0.waiting.noted.notified().await;
                    continue;
                }
                tokio::select! {
                    () = turned => {}
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
        });
    }

    async fn bring_forward(&self) {
        let authorities = self.0.parts.accounts.authorities();
        let outlook =
            |tenant: &TenantId, pattern: &NamePattern| authorities.outlook(tenant, pattern);
        let ready = self.0.waiting.take_ready(outlook);
        if ready.is_empty() {
            return;
        }
        let spread = EACH.saturating_mul(u32::try_from(ready.len()).unwrap_or(u32::MAX));
        let spread = spread.min(MOST_SPREAD);
        tracing::info!(
            names = ready.len(),
            seconds = spread.as_secs(),
            "names that waited for an authority are brought forward"
        );
        for (pattern, waiter) in ready {
            let delay = match waiter.priority {
                Priority::Handshake | Priority::Expiring => Duration::ZERO,
                Priority::Renewal | Priority::Background => {
                    spread.mul_f64(rand::rng().random::<f64>())
                }
            };
            if let Err(error) = self.wake_waiter(&pattern, waiter, delay).await {
                tracing::warn!(domain = %pattern, %error, "a name that waited could not be brought forward");
            }
        }
        self.nudge();
    }

    async fn wake_waiter(
        &self,
        pattern: &NamePattern,
        waiter: Waiter,
        delay: Duration,
    ) -> Result<(), ApplyError> {
        let scope = TenantScope::certificate_work(waiter.tenant.clone());
        let request = Batch::new().then(Operation::RequestJob {
            key: JobKey::Certificate(pattern.clone()),
            tenant: waiter.tenant,
            priority: waiter.priority,
            delay,
            urgency: Urgency::Now,
        });
        let by = Deadline::after(PATIENCE);
        self.0.parts.store.apply(by, &scope, request).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(name: &str) -> NamePattern {
        NamePattern::parse(name).unwrap()
    }

    #[test]
    fn one_name_tries_an_authority_and_all_others_come_once_it_is_back() {
        let (waiting, tenant) = (Waiting::default(), TenantId::parse("acme").unwrap());
        for (name, priority) in [
            ("a.test", Priority::Renewal),
            ("b.test", Priority::Handshake),
            ("c.test", Priority::Renewal),
            ("gone.test", Priority::Renewal),
        ] {
            waiting.note(&pattern(name), &tenant, priority);
        }
        waiting.forget(&pattern("gone.test"));
        let ready = |outlook: Outlook| {
            let taken = waiting.take_ready(|_, _| outlook);
            let mut names: Vec<String> = taken.iter().map(|(name, _)| name.to_string()).collect();
            names.sort();
            names
        };
        assert!(ready(Outlook::Away).is_empty());
        assert_eq!(ready(Outlook::Trial), ["b.test"]);
        assert_eq!(ready(Outlook::Clear), ["a.test", "c.test"]);
        assert!(waiting.is_empty());
    }
}
