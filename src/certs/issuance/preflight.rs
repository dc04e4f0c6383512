//! Before an order: whether it must fail for what is wrong with the name. After a failure: the cause behind the
//! authority's words.

use std::time::Duration;

use super::attempt::{Attempt, Known};
use super::failure::Cause;
use crate::certs::preflight::judge::{is_refined, refine};
use crate::certs::preflight::{Mode, Preflight, Report};
use crate::certs::problem::{fix, unpause};
use crate::certs::renewal::{Life, Margin};
use crate::model::problem::{Problem, ProblemCode};
use crate::model::standing::Learnt;
use crate::model::{DnsName, NamePattern};
use crate::store::batch::{Batch, Guard, Operation};
use crate::store::job::Priority;
use crate::store::{ApplyError, Deadline};

/// For how long what was found of a name keeps a visitor's order back: DNS may have been put right since.
const FRESH: Duration = Duration::from_secs(60);

impl Attempt<'_> {
    /// Looks at the name first, unless a visitor waits for its first order: then only what is remembered counts. After a
    /// failure it is looked at whoever waits. An order that is there already is seen through, for it costs nothing more;
    /// and where what serves is nearly over, only the authority's word counts.
    pub(super) async fn check_first(&self, known: &Known) -> Result<(), Cause> {
        let Some((preflight, name)) = self.preflight() else {
            return Ok(());
        };
        if self.job.order.is_some() {
            return Ok(());
        }
        let report = match self.job.priority {
            Priority::Handshake if self.job.failures == 0 => preflight.remembered_for(name, FRESH),
            Priority::Handshake | Priority::Expiring | Priority::Renewal | Priority::Background => {
                let report = preflight.check_briefly(name).await;
                self.note_look(&report).await;
                Some(report)
            }
        };
        let block = report.as_ref().and_then(|report| report.judgement.block());
        let Some(verdict) = block else {
            return Ok(());
        };
        if self.is_nearly_over(known) {
            tracing::info!(
                tenant = %self.tenant, domain = %self.pattern, problem = %verdict.code, detail = verdict.detail,
                "what was found would keep a renewal back; so near the end it is ordered all the same"
            );
            return Ok(());
        }
        Err(Cause::Preflight(Box::new(verdict.clone())))
    }

    /// Whether a certificate serves that does not for much longer: our view of the world may be wrong, and an order that
    /// fails costs less than a name that is down.
    fn is_nearly_over(&self, known: &Known) -> bool {
        let now = self.parts.clock.now();
        let serving = known.certificate.as_ref().map(Life::of);
        serving.is_some_and(|life| !life.is_over(now) && life.margin(now) == Margin::Short)
    }

    /// Has the name looked at again and again, where it failed for what may be put right in DNS.
    pub(super) fn watch(&self, told: &Problem) {
        if let Some((preflight, _)) = self.preflight()
            && Preflight::is_noticed(told.code)
        {
            match self.job.priority {
                // Somebody asked for it, and may be at work on its DNS; or little time is left.
                Priority::Expiring => preflight.watch_closely(self.pattern, self.tenant),
                Priority::Handshake | Priority::Renewal | Priority::Background => {
                    preflight.watch(self.pattern, self.tenant);
                }
            }
        }
    }

    /// Looks at the name after the authority refused it, and says what was found where that explains it. Whoever waits
    /// has been answered by then.
    pub(super) async fn diagnose(&self, known: Option<&Known>, told: &Problem) {
        let Some((preflight, name)) = self.preflight() else {
            return;
        };
        if !is_refined(told.code) {
            return;
        }
        let report = preflight.check(name).await;
        self.note_look(&report).await;
        let earlier = known.and_then(|known| known.domain.as_ref()?.problem.as_ref());
        let refined = refine(told.clone(), earlier, &report.judgement);
        if refined == *told {
            return;
        }
        tracing::info!(
            tenant = %self.tenant, domain = %self.pattern, problem = %refined.code, detail = refined.detail,
            evidence = refined.evidence.join("; "), "issuance failed for this cause"
        );
        if let Err(error) = self.replace_problem(told, refined).await {
            tracing::warn!(domain = %self.pattern, %error, "the cause of a failure could not be stored");
        }
    }

    /// Remembers with the domain what a look found, where that is news. The certificate does not depend on it: what cannot
    /// be stored is told and forgotten.
    async fn note_look(&self, report: &Report) {
        let by = Deadline::after(super::PATIENCE);
        let store = &self.parts.store;
        let noted = async {
            let Some(domain) = store.domain(by, &self.scope, self.pattern).await? else {
                return Ok(());
            };
            let known = &domain.memory.reach;
            let noted = report.noted(known, self.parts.clock.now());
            if noted == *known {
                return Ok(());
            }
            let batch = Batch::new().then(Operation::Remember {
                pattern: self.pattern.clone(),
                learnt: Box::new(Learnt::Reach(noted)),
            });
            store.apply(by, &self.scope, batch).await.map(|_applied| ())
        };
        if let Err(error) = noted.await {
            let error: ApplyError = error;
            tracing::warn!(domain = %self.pattern, %error, "what a look at a name found is not remembered");
        }
    }

    /// Writes `refined` in the place of `told`, unless something else has happened meanwhile.
    async fn replace_problem(&self, told: &Problem, refined: Problem) -> Result<(), ApplyError> {
        let by = Deadline::after(super::PATIENCE);
        let store = &self.parts.store;
        let domain = store.domain(by, &self.scope, self.pattern).await?;
        let Some(domain) = domain.filter(|domain| domain.problem.as_ref() == Some(told)) else {
            return Ok(());
        };
        let batch = Batch::new()
            .guard(Guard::DomainVersion(self.pattern.clone(), domain.version))
            .then(Operation::SetDomainState {
                pattern: self.pattern.clone(),
                state: domain.state,
                problem: Some(refined),
            });
        match store.apply(by, &self.scope, batch).await {
            Ok(_) | Err(ApplyError::GuardFailed(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// With the exact record or command that repairs it.
    pub(super) fn with_fix(&self, problem: Problem) -> Problem {
        let is_paused = problem.code == ProblemCode::Paused;
        let link = is_paused.then(|| unpause(&problem.evidence)).flatten();
        let edge = self.parts.preflight.as_ref().map(Preflight::edge);
        let edge = edge.unwrap_or_default();
        let general = || fix(problem.code, self.pattern, &edge);
        let fix = problem.fix.clone().or(link).unwrap_or_else(general);
        Problem {
            fix: Some(fix),
            ..problem
        }
    }

    /// What checks the name, where it can be checked at all.
    pub(super) fn preflight(&self) -> Option<(&Preflight, &DnsName)> {
        let preflight = self.parts.preflight.as_ref()?;
        if !self.parts.accounts.authorities().prove_names() {
            return None;
        }
        match self.pattern {
            NamePattern::Exact(name) if preflight.settings().mode == Mode::On => {
                Some((preflight, name))
            }
            NamePattern::Exact(_) | NamePattern::Wildcard(_) => None,
        }
    }
}
