//! How a run ends: what is written, counted, logged, and told to those who wait.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::json;

use super::attempt::{Attempt, Known, StillGood, Success};
use super::failure::{Cause, Failure, Fate};
use super::lease::Gone;
use super::life;
use crate::base::backoff::jittered;
use crate::base::clock::{Timestamp, monotonic};
use crate::certs::authorities::{Outlook, Waits};
use crate::certs::credential::Credential;
use crate::certs::lifecycle::{self, Effect, Event, MOVED_LOOK, State};
use crate::certs::outcome::Outcome;
use crate::certs::policy::{Denial, IssuancePermit};
use crate::certs::renewal::{self, Life};
use crate::certs::request::Reason;
use crate::certs::setback::{Lane, Setback};
use crate::model::NamePattern;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::DomainState;
use crate::model::problem::Problem;
use crate::store::batch::{AuditEvent, Batch, Guard, JobOutcome, Operation};
use crate::store::job::Priority;
use crate::store::record::{AuditActor, CertificateRecord};
use crate::store::{ApplyError, Deadline};
use crate::telemetry::labels::{IssuanceKind, IssuanceOutcome};

/// The wait after trouble of our own, at most.
const SOON: Duration = Duration::from_secs(5);
/// How far the wait of jobs that were put aside is spread, for many are.
const SPREAD: f64 = 0.5;
/// How long putting a job back at shutdown may take.
const PUT_BACK: Duration = Duration::from_secs(2);
/// How often a domain's state is written anew because the domain changed meanwhile.
const MOST_CHANGES: u32 = 3;

impl Attempt<'_> {
    /// Stores the certificate, points the domain to it and ends the job, all or nothing.
    pub(super) async fn activate(
        &self,
        permit: IssuancePermit,
        known: &Known,
        record: CertificateRecord,
    ) -> Result<(), Failure> {
        let request = permit.consume();
        let now = self.parts.clock.now();
        let settings = &self.settings.renewal;
        let event = Event::Issued(Life::of(&record));
        let (_, effects) = lifecycle::step(known.begun(self, now), event, settings, now);
        let facts = record.facts.clone();
        let next = renewal::wait_until(life::run_at(&effects, now), now);
        let batch = Batch::new()
            .guard(Guard::DomainOwnedBy(
                self.pattern.clone(),
                self.tenant.clone(),
            ))
            .then(Operation::PutCertificate(Box::new(record)))
            .then(Operation::PointDomain {
                pattern: self.pattern.clone(),
                certificate: facts.id,
            });
        let batch = self.succeeded(self.without_challenges(batch), &facts.ca);
        let batch = batch
            .then(self.finished(JobOutcome::Done, next))
            .audit(self.event("certificate.issued", issued(&facts, &request.reason)));
        match self.commit(&batch).await {
            // An earlier try of ours may have been done without our knowing, and ended the claim.
            Err(Failure {
                cause: Cause::Gone(Gone::Taken),
                ..
            }) if self.points_to(facts.id).await => Ok(()),
            result => result,
        }
    }

    async fn points_to(&self, certificate: CertificateId) -> bool {
        let by = Deadline::after(super::PATIENCE);
        let domain = self.parts.store.domain(by, &self.scope, self.pattern).await;
        matches!(domain, Ok(Some(domain)) if domain.certificate == Some(certificate))
    }

    /// Ends the run.
    pub(super) async fn end(&self, known: Option<&Known>, result: Result<Success, Failure>) {
        match result {
            Ok(Success::Issued(credential)) => self.issued(known, credential),
            Ok(Success::StillGood(good)) => self.still_good(known, good).await,
            Ok(Success::Returned) => {
                tracing::info!(tenant = %self.tenant, domain = %self.pattern, "the domain is back");
            }
            Err(failure) => self.failed(known, failure).await,
        }
    }

    /// Puts the job back as it was, for another process or the next start.
    pub(super) async fn put_back(&self) {
        let batch = Batch::new()
            .guard(Guard::ClaimHeld(self.job.claim.clone()))
            .then(self.finished(JobOutcome::Deferred, Duration::ZERO));
        let by = Deadline::after(PUT_BACK);
        let applied = self.parts.store.apply(by, &self.scope, batch).await;
        if let Err(error) = applied {
            tracing::warn!(domain = %self.pattern, %error, "a job could not be put back; its lease will end");
        }
        tracing::info!(tenant = %self.tenant, domain = %self.pattern, "issuance put back");
    }

    fn issued(&self, known: Option<&Known>, credential: Arc<Credential>) {
        let facts = &credential.facts;
        let kind = kind(known);
        let duration = monotonic().saturating_duration_since(self.began);
        let metrics = &self.parts.metrics;
        metrics
            .issuances
            .count(&facts.ca, (kind, IssuanceOutcome::Issued));
        metrics.issuance_duration.observe(kind, duration);
        tracing::info!(
            tenant = %self.tenant, domain = %self.pattern, certificate = %facts.id, ca = %facts.ca,
            kind = kind.as_str(), duration_ms = duration.as_millis(), expires = %facts.not_after,
            "certificate issued"
        );
        self.tell(Outcome::Issued(credential));
    }

    async fn still_good(&self, known: Option<&Known>, good: StillGood) {
        let record = *good.record;
        let now = self.parts.clock.now();
        let id = record.facts.id;
        let mut batch =
            Batch::new().guard(Guard::StandingIs(id, Box::new(record.standing.clone())));
        if let Some(standing) = good.standing {
            batch = batch.then(Operation::SetCertificateStanding {
                certificate: id,
                standing,
            });
        }
        let next = renewal::wait_until(good.run_at, now);
        let done = batch.then(self.finished(JobOutcome::Done, next));
        match self.commit(&done).await {
            Ok(()) => {}
            // Somebody asked for another meanwhile: the next run, at once, sees it.
            Err(Failure {
                cause: Cause::Refused(ApplyError::GuardFailed(_)),
                ..
            }) => {
                let again = self.finished(JobOutcome::Deferred, Duration::ZERO);
                self.finish(Batch::new().then(again)).await;
            }
            Err(failure) => {
                tracing::warn!(domain = %self.pattern, cause = %failure.cause, "a job could not be ended");
            }
        }
        // Who waits asked before it knew that the certificate was there.
        if self.job.priority == Priority::Handshake {
            match self.load(record).await {
                Ok(credential) => {
                    if let Some(known) = known {
                        let resolver = &self.parts.resolver;
                        resolver.put_loaded(self.pattern, &credential, known.ticket);
                    }
                    self.tell(Outcome::Issued(credential));
                }
                Err(cause) => self.tell(Outcome::Failed(Arc::new(self.problem(&cause, None)))),
            }
        }
    }

    async fn failed(&self, known: Option<&Known>, failure: Failure) {
        let now = self.parts.clock.now();
        let outcome = if let Cause::Gone(gone) = &failure.cause {
            tracing::warn!(tenant = %self.tenant, domain = %self.pattern, why = %gone, "issuance given up");
            IssuanceOutcome::Deferred
        } else if let Cause::Denied(denial) = &failure.cause
            && denial.is_passing()
        {
            self.await_authority(&failure, known, now).await;
            IssuanceOutcome::Deferred
        } else if let Cause::Crowded(_) = &failure.cause {
            self.put_aside().await;
            IssuanceOutcome::Deferred
        } else if let Cause::Denied(denial) = &failure.cause {
            self.denied(denial, &failure, known, now).await;
            IssuanceOutcome::Denied
        } else if let Some(wait) = self.held_for(&failure.cause) {
            self.hold(&failure, known, (now, wait)).await;
            IssuanceOutcome::Deferred
        } else if failure.cause.counts() {
            self.back_off(&failure, known, now).await;
            IssuanceOutcome::Failed(failure.cause.code().actor())
        } else {
            let cause = &failure.cause;
            tracing::warn!(tenant = %self.tenant, domain = %self.pattern, %cause, "issuance deferred");
            self.defer(self.settings.renewal.first_retry.min(SOON), cause)
                .await;
            IssuanceOutcome::Deferred
        };
        let asked = failure.cause.ca().cloned();
        let preferred = || self.parts.accounts.preferred(self.tenant, self.pattern);
        let ca = asked
            .or_else(preferred)
            .unwrap_or_else(|| CaId::new("none"));
        self.parts
            .metrics
            .issuances
            .count(&ca, (kind(known), outcome));
    }

    async fn denied(
        &self,
        denial: &Denial,
        failure: &Failure,
        known: Option<&Known>,
        now: Timestamp,
    ) {
        if matches!(denial, Denial::NotServed(DomainState::Moved)) {
            // Told once, when it was called moved; every visitor of an expired certificate comes by here.
            tracing::debug!(tenant = %self.tenant, domain = %self.pattern, "the domain is still elsewhere");
        } else {
            tracing::warn!(tenant = %self.tenant, domain = %self.pattern, why = %denial, "issuance denied");
        }
        match denial {
            Denial::NotRegistered | Denial::OtherTenant => {
                let key = self.job.claim.key.clone();
                self.finish(Batch::new().then(Operation::DeleteJob { key }))
                    .await;
                let problem = self.problem(&failure.cause, None);
                self.tell(Outcome::Failed(Arc::new(problem)));
            }
            Denial::NotServed(_) => self.defer(MOVED_LOOK, &failure.cause).await,
            Denial::HookDenies | Denial::NoAuthority | Denial::NoneSuitable(_) => {
                self.back_off(failure, known, now).await;
            }
        }
    }

    /// Puts the job back until an authority that is away may be there again: nobody was asked, and it is no failure of
    /// the domain's. It waits as after an outage, longer the longer that lasts, and is brought forward once an authority
    /// is back.
    async fn await_authority(&self, failure: &Failure, known: Option<&Known>, now: Timestamp) {
        let (state, effects) = self.set_back(known, &failure.cause, now);
        let wait = renewal::wait_until(life::run_at(&effects, now), now);
        let problem = self.problem(&failure.cause, Some(now.plus(wait)));
        tracing::info!(
            tenant = %self.tenant, domain = %self.pattern, detail = problem.detail, evidence = problem.evidence.join("; "),
            retry_in_seconds = wait.as_secs(), "issuance waits for an authority"
        );
        self.parts.metrics.issuance_problems.count(problem.code);
        let batch = self.settled(self.without_challenges(Batch::new()), failure);
        let batch = batch.then(self.finished(JobOutcome::Held(problem.clone()), wait));
        self.finish_with_state(batch, state.name(), &problem).await;
        self.wait_for_authority();
        self.tell(Outcome::Failed(Arc::new(problem)));
    }

    fn wait_for_authority(&self) {
        let (pattern, tenant) = (self.pattern, self.tenant);
        self.waiting.note(pattern, tenant, self.job.priority);
    }

    /// Puts the job back until its authority may have a place for it: nobody was asked, and who waits goes on waiting.
    async fn put_aside(&self) {
        let wait = match self.who_waits() {
            Waits::Visitor => SOON / 5,
            Waits::Nobody => SOON,
        };
        let wait = jittered(wait, SPREAD, rand::random());
        let aside = self.finished(JobOutcome::Deferred, wait);
        self.finish(Batch::new().then(aside)).await;
    }

    /// Puts the job back without counting a failure.
    async fn defer(&self, wait: Duration, cause: &Cause) {
        let deferred = self.finished(JobOutcome::Deferred, wait);
        self.finish(Batch::new().then(deferred)).await;
        self.tell(Outcome::Failed(Arc::new(self.problem(cause, None))));
    }

    /// What the table makes of a failure.
    pub(super) fn set_back(
        &self,
        known: Option<&Known>,
        cause: &Cause,
        now: Timestamp,
    ) -> (State, Vec<Effect>) {
        let begun = known.map_or(State::Requested, |known| known.begun(self, now));
        let event = Event::Failed(Setback {
            lane: Lane::of(cause.code()),
            retry_after: cause.retry_after(),
            random: rand::rng().random::<f64>(),
        });
        lifecycle::step(begun, event, &self.settings.renewal, now)
    }

    /// Keeps what serves, sets the domain's problem, and schedules the next attempt.
    async fn back_off(&self, failure: &Failure, known: Option<&Known>, now: Timestamp) {
        let (state, effects) = self.set_back(known, &failure.cause, now);
        let wait = renewal::wait_until(life::run_at(&effects, now), now);
        let counted = effects.contains(&Effect::Count);
        let failures = self.job.failures.saturating_add(u32::from(counted));
        let problem = self.problem(&failure.cause, Some(now.plus(wait)));
        tracing::warn!(
            tenant = %self.tenant, domain = %self.pattern, problem = %problem.code, detail = problem.detail,
            evidence = problem.evidence.join("; "), failures, retry_in_seconds = wait.as_secs(),
            "issuance failed"
        );
        self.parts.metrics.issuance_problems.count(problem.code);
        let mut batch = self.without_challenges(Batch::new());
        if failure.order == Fate::Dead {
            batch = batch.then(Operation::SaveOrder {
                key: self.job.claim.key.clone(),
                order: None,
            });
        }
        let batch = self
            .settled(batch, failure)
            .then(self.finished(
                match counted {
                    true => JobOutcome::Failed(problem.clone()),
                    false => JobOutcome::Held(problem.clone()),
                },
                wait,
            ))
            .audit(self.event(
                "certificate.failed",
                json!({ "problem": problem.code, "failures": failures }),
            ));
        self.finish_with_state(batch, state.name(), &problem).await;
        let authorities = self.parts.accounts.authorities();
        let is_away = authorities.outlook(self.tenant, self.pattern) == Outlook::Away;
        if is_away && Lane::of(problem.code) == Lane::Authority {
            self.wait_for_authority();
        }
        self.tell(Outcome::Failed(Arc::new(problem.clone())));
        self.watch(&problem);
        if !matches!(failure.cause, Cause::Preflight(_)) {
            self.diagnose(known, &problem).await;
        }
    }

    /// Ends the job and writes the domain's state, unless the domain is no longer served by then.
    pub(super) async fn finish_with_state(
        &self,
        batch: Batch,
        state: DomainState,
        problem: &Problem,
    ) {
        for _ in 0..MOST_CHANGES {
            let by = Deadline::after(super::PATIENCE);
            let domain = self.parts.store.domain(by, &self.scope, self.pattern).await;
            let served = match domain {
                Ok(Some(domain)) if domain.state.is_served() => domain,
                Ok(_) | Err(_) => break,
            };
            let mut batch = batch
                .clone()
                .guard(Guard::DomainVersion(self.pattern.clone(), served.version));
            // Before the job ends, for the claim ends with it.
            batch.operations.insert(
                0,
                Operation::SetDomainState {
                    pattern: self.pattern.clone(),
                    state,
                    problem: Some(problem.clone()),
                },
            );
            match self.commit(&batch).await {
                Err(Failure {
                    cause: Cause::Refused(ApplyError::GuardFailed(_)),
                    ..
                }) => {}
                Ok(()) => return,
                Err(failure) => return self.not_finished(&failure),
            }
        }
        self.finish(batch).await;
    }

    async fn finish(&self, batch: Batch) {
        if let Err(failure) = self.commit(&batch).await {
            self.not_finished(&failure);
        }
    }

    fn not_finished(&self, failure: &Failure) {
        tracing::error!(
            tenant = %self.tenant, domain = %self.pattern, cause = %failure.cause,
            "the end of an issuance could not be stored; the job runs again when its lease ends"
        );
    }

    pub(super) fn without_challenges(&self, batch: Batch) -> Batch {
        match self.pattern {
            NamePattern::Exact(host) => {
                batch.then(Operation::DropChallenges { host: host.clone() })
            }
            NamePattern::Wildcard(_) => batch,
        }
    }

    pub(super) fn finished(&self, outcome: JobOutcome, next: Duration) -> Operation {
        Operation::FinishJob {
            key: self.job.claim.key.clone(),
            outcome,
            next,
        }
    }

    fn event(&self, kind: &'static str, detail: serde_json::Value) -> AuditEvent {
        AuditEvent {
            owner: self.owner(),
            actor: AuditActor::System,
            kind,
            subject: self.pattern.to_string(),
            detail,
        }
    }

    pub(super) fn problem(&self, cause: &Cause, next_retry_at: Option<Timestamp>) -> Problem {
        let earlier = self.job.problem.as_ref();
        let now = self.parts.clock.now();
        self.with_fix(cause.problem(earlier, next_retry_at, now))
    }

    pub(super) fn tell(&self, outcome: Outcome) {
        self.parts.outcomes.tell(self.pattern, outcome);
    }
}

fn kind(known: Option<&Known>) -> IssuanceKind {
    match known.is_some_and(|known| known.certificate.is_some()) {
        true => IssuanceKind::Renewal,
        false => IssuanceKind::First,
    }
}

fn issued(facts: &CertificateFacts, reason: &Reason) -> serde_json::Value {
    json!({
        "certificate": facts.id,
        "ca": facts.ca,
        "serial": facts.serial,
        "kind": reason.kind().as_str(),
        "not_before": facts.not_before,
        "not_after": facts.not_after,
    })
}
