//! A domain that waits and that nobody works on, seen when somebody looks: pure.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::certs::problem::fix;
use crate::certs::settings::Obtain;
use crate::model::domain::DomainState;
use crate::model::edge::Edge;
use crate::model::problem::{Problem, ProblemCode};
use crate::store::job::JobRecord;
use crate::store::record::DomainRecord;

/// How long it may wait before it is called stuck.
const LONG: Duration = Duration::from_secs(300);

/// The problem of a domain without a certificate and without another problem, whose job's time is long over, or that
/// should have a job and has none. Nothing is stuck while an attempt runs, or while only a first visit is waited for.
#[must_use]
pub fn stuck(
    domain: &DomainRecord,
    job: Option<&JobRecord>,
    (obtain, edge): (Obtain, &Edge),
    now: Timestamp,
) -> Option<Problem> {
    let moved = domain.state == DomainState::Moved;
    if domain.certificate.is_some() || !domain.state.is_served() || moved {
        return None;
    }
    let (since, what) = match job {
        Some(job) if job.leased_until.is_some_and(|until| now < until) => return None,
        Some(job) => (job.run_at, "its attempt was due"),
        None if obtain == Obtain::AtOnce => (domain.created_at, "it was registered"),
        None => return None,
    };
    if now.since(since) < LONG {
        return None;
    }
    let code = ProblemCode::StuckPending;
    let minutes = now.since(since).as_secs() / 60;
    Some(Problem {
        code,
        actor: code.actor(),
        detail: format!(
            "no attempt is made for {}, though {what} {minutes} minutes ago",
            domain.pattern
        ),
        evidence: job
            .map(|job| format!("job {} was due at {}", job.key, job.run_at))
            .into_iter()
            .collect(),
        fix: Some(fix(code, &domain.pattern, edge)),
        first_seen: since.plus(LONG),
        last_seen: now,
        next_retry_at: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::domain::Source;
    use crate::model::standing::DomainMemory;
    use crate::model::{NamePattern, TenantId};
    use crate::store::job::Priority;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn minutes_ago(minutes: u64) -> Timestamp {
        NOW.minus(Duration::from_secs(minutes * 60))
    }

    fn domain(state: DomainState) -> DomainRecord {
        DomainRecord {
            pattern: NamePattern::parse("shop.acme.com").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::File,
            state,
            upstream: None,
            certificate: None,
            problem: None,
            memory: DomainMemory::default(),
            version: 1,
            created_at: minutes_ago(6),
        }
    }

    fn job(due: u64, leased_until: Option<Timestamp>) -> JobRecord {
        JobRecord {
            key: "certificate:shop.acme.com".to_owned(),
            tenant: None,
            priority: Priority::Handshake,
            run_at: minutes_ago(due),
            leased_until,
            failures: 0,
            problem: None,
            order_url: None,
        }
    }

    #[test]
    fn a_domain_is_stuck_when_its_time_is_over_and_nobody_works_on_it() {
        let pending = domain(DomainState::PendingDns);
        let find = |job: Option<&JobRecord>, obtain| {
            let found = stuck(&pending, job, (obtain, &Edge::default()), NOW);
            found.map(|problem| problem.first_seen)
        };
        // A visitor came, or it was to be obtained at once.
        assert_eq!(
            find(Some(&job(6, None)), Obtain::AtFirstVisit),
            Some(minutes_ago(1))
        );
        assert_eq!(
            find(Some(&job(6, Some(minutes_ago(2)))), Obtain::AtOnce),
            Some(minutes_ago(1))
        );
        assert_eq!(find(None, Obtain::AtOnce), Some(minutes_ago(1)));
        // It waits for its first visitor, is worked on, or is not late yet.
        assert_eq!(find(None, Obtain::AtFirstVisit), None);
        assert_eq!(
            find(Some(&job(6, Some(NOW.plus(LONG)))), Obtain::AtOnce),
            None
        );
        assert_eq!(find(Some(&job(4, None)), Obtain::AtOnce), None);
        let suspended = domain(DomainState::Suspended);
        let late = job(60, None);
        let found = stuck(
            &suspended,
            Some(&late),
            (Obtain::AtOnce, &Edge::default()),
            NOW,
        );
        assert_eq!(found, None);
    }
}
