//! Looks again and again at domains that wait for their DNS, so that what is put right is noticed at once, and tells which
//! have moved and which are back.
//!
//! A look is two questions to the resolver. Only where the records have changed, or an hour has passed, is it also asked
//! who answers. What was brought right brings the domain's job forward; nothing here asks an authority for anything.
//! Visits are noted by the resolver of handshakes in memory and carried to the store here, once a day for each domain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::base::clock::{Clock, Timestamp};
use crate::base::task::Tasks;
use crate::certs::preflight::judge::Reach;
use crate::certs::preflight::watched::{Entry, Seen, is_of_dns};
use crate::certs::preflight::{Preflight, moved};
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
            return self.take_back(domain).await;
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
        let seen = self.ask(name).await;
        let reach = seen.reach;
        self.note_look(&domain.pattern, Some(seen));
        match reach {
            Reach::Here => self.take_back(domain).await,
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
        let before = entry.seen.as_ref();
        let changed = before.is_none_or(|seen| seen.records != records);
        let asked_lately = before.is_some_and(|seen| now.since(seen.asked) < ASK);
        if !changed && asked_lately {
            self.note_look(&domain.pattern, None);
            return Ok(());
        }
        let seen = Seen {
            records,
            ..self.ask(name).await
        };
        // At the first look everything is new: it may have been put right since the failure.
        let is_new = before.is_none_or(|before| changed || before.reach != Reach::Here);
        let came_right = seen.reach == Reach::Here && is_new;
        let woken = came_right && self.preflight.watched().wake(&domain.pattern, now);
        let reach = seen.reach;
        // What comes too soon after the last time is seen again as new.
        self.note_look(&domain.pattern, (woken || !came_right).then_some(seen));
        let memory = moved::noted(&domain.memory.reach, reach, now);
        if woken {
            tracing::info!(tenant = %domain.tenant, domain = %domain.pattern, "DNS has come right: the certificate is asked for");
            let wake = self.remembering(&domain, memory).then(job(&domain));
            self.apply(&domain, wake).await?;
            (self.nudge)();
            return Ok(());
        }
        let visited = self.resolver.visited(&domain.pattern);
        let after = self.preflight.settings().moved_after;
        if domain.certificate.is_some() && moved::has_moved(&memory, visited, after, now) {
            return self.leave(domain, memory).await;
        }
        if memory == domain.memory.reach {
            return Ok(());
        }
        let remember = self.remembering(&domain, memory);
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
        let batch = self
            .remembering(&domain, memory)
            .then(Operation::SetDomainState {
                pattern: domain.pattern.clone(),
                state: DomainState::Moved,
                problem: domain.problem.clone(),
            })
            .audit(event(&domain, "domain.moved"));
        self.apply(&domain, batch).await
    }

    /// A moved domain is here again, and its certificate looked after at once.
    async fn take_back(&self, domain: DomainRecord) -> Result<(), ApplyError> {
        tracing::info!(tenant = %domain.tenant, domain = %domain.pattern, "the domain is back");
        let memory = ReachMemory {
            visited: domain.memory.reach.visited,
            ..ReachMemory::default()
        };
        let batch = self
            .remembering(&domain, memory)
            .then(Operation::SetDomainState {
                pattern: domain.pattern.clone(),
                state: DomainState::Active,
                problem: None,
            })
            .then(job(&domain))
            .audit(event(&domain, "domain.returned"));
        self.apply(&domain, batch).await?;
        self.preflight.watched().remove(&domain.pattern);
        (self.nudge)();
        Ok(())
    }

    async fn ask(&self, name: &DnsName) -> Seen {
        let report = self.preflight.check_briefly(name).await;
        let records = match &report.facts {
            Some(facts) => facts.records.clone(),
            None => self.preflight.records(name).await,
        };
        Seen {
            records,
            reach: report.judgement.reach,
            asked: self.clock.now(),
        }
    }

    /// Carries visits from memory to the store, and brings moved domains that were visited to mind.
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
        if domain.state == DomainState::Moved {
            self.preflight.watch(pattern, &domain.tenant);
        }
        let memory = ReachMemory {
            visited: Some(at).max(domain.memory.reach.visited),
            ..domain.memory.reach.clone()
        };
        let remember = self.remembering(&domain, memory);
        self.apply(&domain, remember).await
    }

    fn note_look(&self, pattern: &NamePattern, seen: Option<Seen>) {
        let pace = (self.preflight.settings().recheck, rand::random());
        self.preflight
            .watched()
            .looked(pattern, seen, pace, self.clock.now());
    }

    fn remembering(&self, domain: &DomainRecord, reach: ReachMemory) -> Batch {
        Batch::new()
            .guard(Guard::DomainVersion(domain.pattern.clone(), domain.version))
            .then(Operation::Remember {
                pattern: domain.pattern.clone(),
                learnt: Box::new(Learnt::Reach(reach)),
            })
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

fn job(domain: &DomainRecord) -> Operation {
    Operation::RequestJob {
        key: JobKey::Certificate(domain.pattern.clone()),
        tenant: domain.tenant.clone(),
        priority: Priority::Renewal,
        delay: Duration::ZERO,
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
