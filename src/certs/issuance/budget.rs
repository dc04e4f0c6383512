//! What a run takes from the authority's budget, and what it tells the budget about how it ended.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;

use super::PATIENCE;
use super::attempt::{Attempt, Known};
use super::failure::{Cause, Failure, Fate};
use super::order::Wanted;
use crate::base::clock::Timestamp;
use crate::ca::CaError;
use crate::ca::error::Step;
use crate::certs::budget::book::comes_back_after;
use crate::certs::budget::{Book, Charge, Class, History, Order, Renewals, TakeError};
use crate::certs::outcome::Outcome;
use crate::certs::renewal::{Life, Margin};
use crate::certs::request::Reason;
use crate::certs::setback::Lane;
use crate::model::certificate::CaId;
use crate::model::problem::{Actor, ProblemCode};
use crate::store::Deadline;
use crate::store::batch::{Batch, JobOutcome, Operation};

/// Certificates of a name that are looked at for whether the authority has certified it before.
const MOST_EARLIER: usize = 8;
/// For how long an authority that limits us without saying for how long is asked for nothing of the kind.
const UNSAID: Duration = Duration::from_secs(60);
/// No job comes back sooner.
const SHORTEST: Duration = Duration::from_secs(1);

/// What the run has taken.
#[derive(Debug, Default)]
pub(super) struct Spent {
    charge: Charge,
    /// What it was charged as; nothing where it was charged to nobody.
    history: Option<History>,
    /// Whether there is an order for it.
    placed: bool,
}

/// Whether an order says what it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacing {
    Said,
    Unsaid,
}

impl Wanted<'_> {
    /// Whether the authority wants what serves replaced just now.
    fn is_in_window(&self, now: Timestamp) -> bool {
        let certificate = self.known.certificate.as_ref();
        let window = certificate.and_then(|record| record.standing.renewal_info.as_ref());
        window.is_some_and(|window| window.start <= now && now < window.end)
    }
}

impl From<TakeError> for Cause {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Denied(denied) => Self::Budget(denied),
            TakeError::Store(error) => Self::Store(error),
        }
    }
}

impl Attempt<'_> {
    /// Whether the authority may be called: not while it has asked to be left alone.
    pub(super) async fn may_call(&self, ca: &CaId) -> Result<(), Cause> {
        match self.parts.budget.book(ca) {
            Some(book) => Ok(self.parts.budget.calls(&book).await?),
            None => Ok(()),
        }
    }

    /// Takes what the order costs, before it is placed.
    pub(super) async fn spend(
        &self,
        wanted: &Wanted<'_>,
        replacing: Replacing,
    ) -> Result<(), Cause> {
        let Some(book) = self.parts.budget.book(wanted.permit.ca()) else {
            return Ok(());
        };
        let names = std::slice::from_ref(self.pattern);
        let history = self.history(&book, wanted, replacing).await?;
        let order = Order {
            names,
            tenant: self.tenant,
            class: self.class(&wanted.permit.request().reason),
            history,
        };
        let charge = self.parts.budget.take(&book, &order).await?;
        let taken = Spent {
            charge,
            history: Some(history),
            placed: false,
        };
        let before = std::mem::replace(&mut *self.spent(), taken);
        self.give_back(before).await;
        Ok(())
    }

    /// What the authority will charge the order as.
    async fn history(
        &self,
        book: &Book,
        wanted: &Wanted<'_>,
        replacing: Replacing,
    ) -> Result<History, Cause> {
        let now = self.parts.clock.now();
        let exempt = replacing == Replacing::Said && book.limits.renewals == Renewals::Exempt;
        if exempt && wanted.is_in_window(now) {
            return Ok(History::Replaces);
        }
        let by = Deadline::after(PATIENCE);
        let store = &self.parts.store;
        let had = store.certificates_of(by, &self.scope, self.pattern, MOST_EARLIER);
        let had = had.await.map_err(Cause::Store)?;
        let facts = had.iter().map(|record| &record.facts);
        let names = std::slice::from_ref(self.pattern);
        Ok(self.parts.budget.history(book, names, facts, now))
    }

    /// Gives back what was taken for an order that was not placed: another is, or the same of another authority.
    async fn give_back(&self, before: Spent) {
        if before.placed || before.charge.if_issued.is_empty() {
            return;
        }
        let costs = before.charge.if_issued.into_iter();
        let batch = costs.fold(Batch::new(), |batch, cost| {
            batch.then(Operation::GiveBack(cost))
        });
        let by = Deadline::after(PATIENCE);
        let stored = self.parts.store.apply(by, &self.scope, batch).await;
        if let Err(error) = stored {
            tracing::warn!(domain = %self.pattern, %error, "what an order did not cost could not be given back");
        }
    }

    /// Takes what the order costs after all, now that it does not say what it replaces.
    pub(super) async fn spend_unsaid(&self, wanted: &Wanted<'_>) -> Result<(), Cause> {
        let history = self.spent().history;
        match history {
            Some(History::Replaces) => self.spend(wanted, Replacing::Unsaid).await,
            Some(History::New | History::Certified) | None => Ok(()),
        }
    }

    /// The authority has taken the order.
    pub(super) fn placed(&self) {
        self.spent().placed = true;
    }

    /// How urgent an order is, as far as budgets go.
    pub(super) fn class(&self, reason: &Reason) -> Class {
        let now = self.parts.clock.now();
        let margin = match reason.certificate() {
            Some(facts) => Life::new(facts, now).margin(now),
            None => Margin::Short,
        };
        Class::of(reason.why(), margin, self.job.priority, self.job.failures)
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a success tells the budget: failures in a row are forgotten.
    pub(super) fn succeeded(&self, mut batch: Batch, ca: &CaId) -> Batch {
        let book = self.parts.budget.book(ca);
        let full = book.map(|book| book.succeeded(self.pattern.base()));
        for bucket in full.into_iter().flatten() {
            batch = batch.then(Operation::FillBucket { bucket });
        }
        batch
    }

    /// What a failure tells the budget: what no certificate came of is given back, and a failed validation is charged.
    /// To be done with the end of the job, once.
    pub(super) fn settled(&self, mut batch: Batch, failure: &Failure) -> Batch {
        let spent = std::mem::take(&mut *self.spent());
        let is_issued = failure.cause.is_of_a_certificate();
        if !spent.placed || (failure.order == Fate::Dead && !is_issued) {
            for cost in spent.charge.if_issued {
                batch = batch.then(Operation::GiveBack(cost));
            }
        }
        let error = failure.cause.ca_error();
        let book = error.and_then(|error| self.parts.budget.book(error.ca()));
        let (Some(error), Some(book)) = (error, book) else {
            return batch;
        };
        if failed_validation(error) {
            for cost in book.failed(self.pattern.base()) {
                batch = batch.then(Operation::ChargeBucket(cost));
            }
        }
        batch
    }

    /// What an authority has stopped is stopped here, at once and over restarts, whether another one is asked then or
    /// not.
    pub(super) async fn note_stops(&self, error: Option<&CaError>) {
        let stopped = error.and_then(|error| {
            let book = self.parts.budget.book(error.ca())?;
            let (code, said) = (error.code(), error.retry_after());
            let limited = Lane::of(code) == Lane::Limited;
            // Whoever limits questions about renewals means calls, and nothing that is ordered.
            let code = match limited && error.step() == Some(Step::RenewalInfo) {
                true => ProblemCode::CaOutage,
                false => code,
            };
            let unsaid = limited.then_some(UNSAID);
            Some((book, code, said.or(unsaid)?))
        });
        let Some((book, code, duration)) = stopped else {
            return;
        };
        let mut batch = Batch::new();
        for bucket in book.meant_by(code, std::slice::from_ref(self.pattern)) {
            tracing::warn!(ca = %book.ca, %bucket, seconds = duration.as_secs(), "the authority stops a bucket");
            if let Some(all) = book.all_of(&bucket) {
                batch = batch.then(Operation::ChargeBucket(all));
            }
            let bucket = bucket.to_string();
            batch = batch.then(Operation::FreezeBucket { bucket, duration });
        }
        let by = Deadline::after(PATIENCE);
        let stored = self.parts.store.apply(by, &self.scope, batch).await;
        if let Err(error) = stored {
            tracing::warn!(domain = %self.pattern, %error, "what the authority stopped could not be stored");
        }
    }

    /// How long the job must wait where the budget, ours or the authority's count of it, is what stops it: no failure
    /// of the domain. One who does not say for how long is given ten times the first wait.
    pub(super) fn held_for(&self, cause: &Cause) -> Option<Duration> {
        if let Cause::Budget(denied) = cause {
            return Some(denied.retry_after.max(SHORTEST));
        }
        let error = cause.ca_error()?;
        let limited = [
            ProblemCode::RateLimitedAccount,
            ProblemCode::RateLimitedDomain,
            ProblemCode::RateLimitedExactSet,
            ProblemCode::RateLimitedFailures,
        ];
        let first = self.settings.renewal.first_retry;
        let unsaid = (Lane::of(error.code()) == Lane::Limited).then(|| first.saturating_mul(10));
        let wait = error.retry_after().or(unsaid)?;
        limited.contains(&error.code()).then(|| wait.max(first))
    }

    /// After how long an authority would give again, where the budget says so, or it does.
    pub(super) fn comes_back(&self, cause: &Cause) -> Option<Duration> {
        self.held_for(cause).or_else(|| {
            let error = cause.ca_error()?;
            let is_busy = error.code() == ProblemCode::CaOutage;
            error.retry_after().filter(|_| is_busy)
        })
    }

    /// Puts the job back until the budget can give: nothing is counted, the domain says what it waits for, and whoever
    /// waits is told at once.
    pub(super) async fn hold(
        &self,
        failure: &Failure,
        known: Option<&Known>,
        (now, wait): (Timestamp, Duration),
    ) {
        let random = rand::rng().random::<f64>();
        let wait = comes_back_after(wait, random);
        let problem = self.problem(&failure.cause, Some(now.plus(wait)));
        tracing::info!(
            tenant = %self.tenant, domain = %self.pattern, problem = %problem.code, detail = problem.detail,
            evidence = problem.evidence.join("; "), retry_in_seconds = wait.as_secs(), "issuance waits for the budget"
        );
        self.parts.metrics.issuance_problems.count(problem.code);
        let mut batch = self.settled(self.without_challenges(Batch::new()), failure);
        if failure.order == Fate::Dead {
            batch = batch.then(Operation::SaveOrder {
                key: self.job.claim.key.clone(),
                order: None,
            });
        }
        let batch = batch.then(self.finished(JobOutcome::Held(problem.clone()), wait));
        let (state, _) = self.set_back(known, &failure.cause, now);
        self.finish_with_state(batch, state.name(), &problem).await;
        self.tell(Outcome::Failed(Arc::new(problem)));
    }
}

/// Whether the authority has counted a failed validation: it says so of a name's proof, and it is the name's fault.
fn failed_validation(error: &CaError) -> bool {
    let CaError::Refused { step, .. } = error else {
        return false;
    };
    *step == Step::Authorization && error.class() == Actor::Customer
}
