//! Looks again and again at domains that wait for their DNS, so that what is put right is noticed at once, and tells which
//! have moved and which are back.
//!
//! A look is two questions to the resolver. Only where the addresses have changed, or an hour has passed, is it also asked
//! who answers. DNS has come right where we are reached and were not before, which is remembered over restarts, or are
//! reached by other addresses than before: that brings the domain's job forward. What could not be found out is no change,
//! and a domain that fails although we are reached is left to its back-off. Nothing here asks an authority for anything.
//! Visits are noted by the resolver of handshakes in memory and carried to the store here, once a day for each domain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::base::clock::{Clock, Timestamp};
use crate::base::task::Tasks;
use crate::certs::lifecycle::MOVED_LOOK;
use crate::certs::preflight::judge::Reach;
use crate::certs::preflight::watched::{Addresses, Entry, Seen, is_of_dns};
use crate::certs::preflight::{Preflight, Report, moved};
use crate::certs::resolver::Resolver;
use crate::model::domain::DomainState;
use crate::model::reach::ReachMemory;
use crate::model::standing::Learnt;
use crate::model::{DnsName, NamePattern, TenantScope};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{JobKey, Priority};
use crate::store::record::{AuditActor, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, Store};

/// How long one call of the store may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Domains looked at in one round, and at once.
const MOST_LOOKS: usize = 200;
const AT_ONCE: usize = 8;
/// How often it is asked who answers while the records stay as they are.
const ASK: Duration = Duration::from_secs(3600);
/// Visits carried to the store in one round.
const MOST_VISITS: usize = 200;
/// The shortest and the longest pause between two rounds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// What the looks need.
#[derive(Clone)]
pub struct Watch {
    /// Domains and their jobs.
    pub store: Arc<dyn Store>,
    /// Looks at names, and knows which are watched.
    pub preflight: Preflight,
    /// Knows who was visited.
    pub resolver: Resolver,
    /// Wakes those who work on jobs.
    pub nudge: Arc<dyn Fn() + Send + Sync>,
    /// The time.
    pub clock: Clock,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Goes round until the group is cancelled.
    pub async fn run(self, tasks: Tasks) {
        let cancelled = tasks.token();
        let rounds = async {
            loop {
                let (shortest, longest) = PAUSES;
                let pause = self.preflight.settings().recheck / 4;
                tokio::time::sleep(pause.clamp(shortest, longest)).await;
                self.round().await;
            }
        };
        cancelled.run_until_cancelled(rounds).await;
    }

    /// One round: visits are noted, and domains that are due are looked at.
    pub async fn round(&self) {
        self.keep_visits().await;
        let due = self.preflight.watched().due(self.clock.now(), MOST_LOOKS);
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, |(pattern, entry)| async move {
                if let Err(error) = Box::pin(self.look(&pattern, &entry)).await {
                    tracing::warn!(domain = %pattern, %error, "a domain could not be looked after");
                    self.note_look(&pattern, None);
                }
            })
            .await;
    }

    async fn look(&self, pattern: &NamePattern, entry: &Entry) -> Result<(), ApplyError> {
        let scope = TenantScope::certificate_work(entry.tenant.clone());
        let by = Deadline::after(PATIENCE);
        let found = self.store.domain(by, &scope, pattern).await?;
        let (Some(domain), NamePattern::Exact(name)) = (found, pattern) else {
            self.preflight.watched().remove(pattern);
            return Ok(());
        };
        let fails = domain
            .problem
            .as_ref()
            .is_some_and(|problem| is_of_dns(problem.code));
        match domain.state {
            DomainState::Moved => self.look_at_moved(domain, name, entry).await,
            DomainState::Suspended | DomainState::Deleting | DomainState::Tombstoned => {
                self.preflight.watched().remove(pattern);
                Ok(())
            }
            DomainState::PendingDns
            | DomainState::Verifying
            | DomainState::Issuing
            | DomainState::Active
            | DomainState::Renewing
            | DomainState::Degraded
                if fails =>
            {
                self.look_at_waiting(domain, name, entry).await
            }
            DomainState::PendingDns
            | DomainState::Verifying
            | DomainState::Issuing
            | DomainState::Active
            | DomainState::Renewing
            | DomainState::Degraded => {
                self.preflight.watched().remove(pattern);
                Ok(())
            }
        }
    }

    async fn look_at_moved(
        &self,
        domain: DomainRecord,
        name: &DnsName,
        entry: &Entry,
    ) -> Result<(), ApplyError> {
        let visited = self.resolver.visited(&domain.pattern);
        if moved::is_back(&domain.memory.reach, visited) {
            return self.take_back(domain, visited).await;
        }
        let now = self.clock.now();
        let day = Duration::from_secs(86_400).min(self.preflight.settings().moved_after);
        if entry
            .seen
            .as_ref()
            .is_some_and(|seen| now.since(seen.asked) < day)
        {
            self.note_look(&domain.pattern, None);
            return Ok(());
        }
        let report = self.preflight.check_briefly(name).await;
        let seen = Seen {
            addresses: Addresses::default(),
            asked: self.clock.now(),
        };
        self.note_look(&domain.pattern, Some(seen));
        match report.judgement.reach {
            Reach::Here => self.take_back(domain, visited).await,
            Reach::Elsewhere | Reach::Untold => Ok(()),
        }
    }

    async fn look_at_waiting(
        &self,
        domain: DomainRecord,
        name: &DnsName,
        entry: &Entry,
    ) -> Result<(), ApplyError> {
        let records = self.preflight.records(name).await;
        let now = self.clock.now();
        let (found, before) = (Addresses::of(&records), entry.seen.as_ref());
        let is_news = before.is_none_or(|seen| found.tell_more_than(&seen.addresses));
        let asked_lately = before.is_some_and(|seen| now.since(seen.asked) < ASK);
        if !is_news && asked_lately {
            self.note_look(&domain.pattern, None);
            return Ok(());
        }
        let report = self.preflight.check_briefly(name).await;
        self.weigh(domain, &report, (found, before)).await
    }

    /// Decides on what a look at a waiting domain found: the addresses now and before, and who answers there.
    async fn weigh(
        &self,
        domain: DomainRecord,
        report: &Report,
        (found, before): (Addresses, Option<&Seen>),
    ) -> Result<(), ApplyError> {
        let (now, judgement) = (self.clock.now(), &report.judgement);
        let changed = before.is_some_and(|seen| found.differ_from(&seen.addresses));
        let known = &domain.memory.reach;
        let came_right =
            judgement.reach == Reach::Here && (changed || known.unreached_since.is_some());
        let woken = came_right && self.preflight.watched().wake(&domain.pattern, now);
        let mut memory = report.noted(known, now);
        if came_right && !woken {
            // Too soon after the last time: it is seen again as new.
            memory.unreached_since = known.unreached_since;
            self.note_look(&domain.pattern, None);
        } else {
            let is_untold = judgement.reach != Reach::Here && judgement.definite().is_none();
            let addresses = match before {
                // Who answers there is asked again.
                Some(seen) if is_untold => seen.addresses.clone(),
                Some(seen) => found.or(&seen.addresses),
                None => found,
            };
            let asked = now;
            self.note_look(&domain.pattern, Some(Seen { addresses, asked }));
        }
        if woken {
            tracing::info!(tenant = %domain.tenant, domain = %domain.pattern, "DNS has come right: the certificate is asked for");
            let wake = remembering(&domain, memory).then(job(&domain, Duration::ZERO));
            self.apply(&domain, wake).await?;
            (self.nudge)();
            return Ok(());
        }
        self.keep_in_mind(domain, memory).await
    }

    /// Stores what is remembered of a domain that did not come right, or calls it moved.
    async fn keep_in_mind(
        &self,
        domain: DomainRecord,
        memory: ReachMemory,
    ) -> Result<(), ApplyError> {
        let now = self.clock.now();
        let visited = self.resolver.visited(&domain.pattern);
        let after = self.preflight.settings().moved_after;
        if domain.certificate.is_some() && moved::has_moved(&memory, visited, after, now) {
            return self.leave(domain, memory).await;
        }
        if memory == domain.memory.reach {
            return Ok(());
        }
        let remember = remembering(&domain, memory);
        self.apply(&domain, remember).await
    }

    /// Calls a domain moved: it is not renewed until it returns.
    async fn leave(&self, domain: DomainRecord, memory: ReachMemory) -> Result<(), ApplyError> {
        tracing::warn!(
            tenant = %domain.tenant, domain = %domain.pattern,
            "the domain has moved: its DNS leads elsewhere and nobody visits it; it is not renewed until it returns"
        );
        let memory = ReachMemory {
            moved_at: Some(self.clock.now()),
            ..memory
        };
        let batch = remembering(&domain, memory)
            .then(Operation::SetDomainState {
                pattern: domain.pattern.clone(),
                state: DomainState::Moved,
                problem: domain.problem.clone(),
            })
            // Its back-off is forgotten, so that the next visitor has it looked at.
            .then(job(&domain, MOVED_LOOK))
            .audit(event(&domain, "domain.moved"));
        self.apply(&domain, batch).await
    }

    /// A moved domain is here again, and its certificate looked after at once.
    async fn take_back(
        &self,
        domain: DomainRecord,
        visited: Option<Timestamp>,
    ) -> Result<(), ApplyError> {
        tracing::info!(tenant = %domain.tenant, domain = %domain.pattern, "the domain is back");
        let batch = taken_back(&domain, visited).then(job(&domain, Duration::ZERO));
        self.apply(&domain, batch).await?;
        self.preflight.watched().remove(&domain.pattern);
        (self.nudge)();
        Ok(())
    }

    /// Carries visits from memory to the store, and takes moved domains that were visited back.
    async fn keep_visits(&self) {
        for (pattern, at) in self.resolver.fresh_visits(MOST_VISITS) {
            let Some(credential) = self.resolver.peek(&pattern) else {
                continue;
            };
            let scope = TenantScope::certificate_work(credential.tenant().clone());
            let kept = self.keep_visit(&scope, &pattern, at).await;
            if let Err(error) = kept {
                tracing::debug!(domain = %pattern, %error, "a visit could not be noted");
            }
        }
    }

    async fn keep_visit(
        &self,
        scope: &TenantScope,
        pattern: &NamePattern,
        at: Timestamp,
    ) -> Result<(), ApplyError> {
        let by = Deadline::after(PATIENCE);
        let Some(domain) = self.store.domain(by, scope, pattern).await? else {
            return Ok(());
        };
        if domain.state == DomainState::Moved && moved::is_back(&domain.memory.reach, Some(at)) {
            return self.take_back(domain, Some(at)).await;
        }
        let memory = ReachMemory {
            visited: Some(at).max(domain.memory.reach.visited),
            ..domain.memory.reach.clone()
        };
        let remember = remembering(&domain, memory);
        self.apply(&domain, remember).await
    }

    fn note_look(&self, pattern: &NamePattern, seen: Option<Seen>) {
        let pace = (self.preflight.settings().recheck, rand::random());
        self.preflight
            .watched()
            .looked(pattern, seen, pace, self.clock.now());
    }

    /// A domain that was changed meanwhile is looked at again later.
    async fn apply(&self, domain: &DomainRecord, batch: Batch) -> Result<(), ApplyError> {
        let scope = TenantScope::certificate_work(domain.tenant.clone());
        let by = Deadline::after(PATIENCE);
        match self.store.apply(by, &scope, batch).await {
            Ok(_) | Err(ApplyError::GuardFailed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn remembering(domain: &DomainRecord, reach: ReachMemory) -> Batch {
    Batch::new()
        .guard(Guard::DomainVersion(domain.pattern.clone(), domain.version))
        .then(Operation::Remember {
            pattern: domain.pattern.clone(),
            learnt: Box::new(Learnt::Reach(reach)),
        })
}

/// What takes a moved domain back, last visited here at `visited` as far as is known: it is served and renewed like any
/// other again.
#[must_use]
pub fn taken_back(domain: &DomainRecord, visited: Option<Timestamp>) -> Batch {
    let known = &domain.memory.reach;
    let memory = ReachMemory {
        visited: visited.max(known.visited),
        fronted_since: known.fronted_since,
        ..ReachMemory::default()
    };
    remembering(domain, memory)
        .then(Operation::SetDomainState {
            pattern: domain.pattern.clone(),
            state: DomainState::Active,
            problem: None,
        })
        .audit(event(domain, "domain.returned"))
}

fn job(domain: &DomainRecord, delay: Duration) -> Operation {
    Operation::RequestJob {
        key: JobKey::Certificate(domain.pattern.clone()),
        tenant: domain.tenant.clone(),
        priority: Priority::Renewal,
        delay,
        urgency: Urgency::Now,
    }
}

fn event(domain: &DomainRecord, kind: &'static str) -> AuditEvent {
    AuditEvent {
        owner: KeyOwner::Tenant(domain.tenant.clone()),
        actor: AuditActor::System,
        kind,
        subject: domain.pattern.to_string(),
        detail: json!({}),
    }
}

#[cfg(test)]
mod tests;
