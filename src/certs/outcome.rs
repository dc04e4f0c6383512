//! How an attempt to obtain a certificate ended, told to those who wait for it in this process.
//!
//! Issuance tells, [`on_demand`](crate::certs::on_demand) waits. Nothing is kept for those who come later: they
//! find the credential in the resolver, or the failure as the job's back-off in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::certs::credential::Credential;
use crate::model::NamePattern;
use crate::model::problem::Problem;

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With a credential, which the resolver holds already.
    Issued(Arc<Credential>),
    /// With a problem; the job backs off.
    Failed(Arc<Problem>),
}

/// Those who wait, by the pattern of the domain. Clones are the same. Holds one small entry for each pattern that
/// somebody waits for, and none else.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    waiting: Arc<Mutex<Waiters>>,
}

type Waiters = HashMap<NamePattern, watch::Sender<Option<Outcome>>>;

impl Outcomes {
    /// Nobody waits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to wait for the next outcome of `pattern`. Subscribe first, then request the job: what is told from now
    /// on is not missed.
    #[must_use]
    pub fn subscribe(&self, pattern: &NamePattern) -> Subscription {
        let mut waiting = self.lock();
        // Each receiver has its own mark of what it has seen: an outcome told before stays hidden from this one.
        let receiver = waiting
            .entry(pattern.clone())
            .or_insert_with(|| watch::channel(None).0)
            .subscribe();
        drop(waiting);
        Subscription {
            outcomes: self.clone(),
            pattern: pattern.clone(),
            receiver,
        }
    }

    /// Tells everybody who waits for `pattern`.
    pub fn tell(&self, pattern: &NamePattern, outcome: Outcome) {
        if let Some(sender) = self.lock().get(pattern) {
            sender.send_replace(Some(outcome));
        }
    }

    /// How many patterns are waited for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait; given up when dropped.
#[derive(Debug)]
pub struct Subscription {
    outcomes: Outcomes,
    pattern: NamePattern,
    receiver: watch::Receiver<Option<Outcome>>,
}

impl Subscription {
    /// The next outcome told after this subscription began, or after the last call. Waits as long as it takes: the
    /// caller has the deadline.
    pub async fn next(&mut self) -> Outcome {
        loop {
            if self.receiver.changed().await.is_err() {
                // Only the last subscription's drop removes the sender, so this one is still waited for.
                std::future::pending::<()>().await;
            }
            let told = self.receiver.borrow_and_update().clone();
            if let Some(outcome) = told {
                return outcome;
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut waiting = self.outcomes.lock();
        // This subscription's own receiver still counts.
        let last = waiting
            .get(&self.pattern)
            .is_some_and(|sender| sender.receiver_count() <= 1);
        if last {
            waiting.remove(&self.pattern);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::model::problem::{Actor, ProblemCode};

    fn failed(detail: &str) -> Outcome {
        Outcome::Failed(Arc::new(Problem {
            code: ProblemCode::CaOutage,
            actor: Actor::Ca,
            detail: detail.to_owned(),
            evidence: Vec::new(),
            fix: None,
            first_seen: Timestamp::EPOCH,
            last_seen: Timestamp::EPOCH,
            next_retry_at: None,
        }))
    }

    fn detail(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Failed(problem) => &problem.detail,
            Outcome::Issued(_) => panic!("nothing was issued"),
        }
    }

    #[tokio::test]
    async fn everybody_who_waits_for_the_name_is_told_and_nobody_else() {
        let outcomes = Outcomes::new();
        let pattern = |text| NamePattern::parse(text).unwrap();
        let mut first = outcomes.subscribe(&pattern("a.test"));
        let mut second = outcomes.subscribe(&pattern("a.test"));
        let mut other = outcomes.subscribe(&pattern("*.a.test"));
        outcomes.tell(&pattern("a.test"), failed("one"));
        assert_eq!(detail(&first.next().await), "one");
        assert_eq!(detail(&second.next().await), "one");
        assert!(other.next().now_or_never().is_none());
        // Who comes later waits for the next one.
        let mut late = outcomes.subscribe(&pattern("a.test"));
        assert!(late.next().now_or_never().is_none());
        outcomes.tell(&pattern("a.test"), failed("two"));
        assert_eq!(detail(&late.next().await), "two");
        assert_eq!(detail(&first.next().await), "two");
    }

    #[tokio::test]
    async fn nothing_stays_when_nobody_waits() {
        let outcomes = Outcomes::new();
        let pattern = NamePattern::parse("a.test").unwrap();
        let first = outcomes.subscribe(&pattern);
        let second = outcomes.subscribe(&pattern);
        drop(first);
        assert_eq!(outcomes.len(), 1);
        drop(second);
        assert!(outcomes.is_empty());
        outcomes.tell(&pattern, failed("to nobody"));
        assert!(outcomes.is_empty());
    }
}
