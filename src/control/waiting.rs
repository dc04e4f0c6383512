//! A domain whose job is due and not claimed, for the budget of its authority gives nothing to such jobs now, seen when
//! somebody looks: pure. Were each tried, each would say so itself; a thousand that wait are not tried by the second.

use crate::base::clock::Timestamp;
use crate::certs::budget::Denied;
use crate::certs::problem::fix;
use crate::model::NamePattern;
use crate::model::edge::Edge;
use crate::model::problem::Problem;
use crate::store::job::JobRecord;

/// The problem of a domain whose job waits for `denied`, unless it has another, runs, or is not due.
#[must_use]
pub fn waiting(
    pattern: &NamePattern,
    job: &JobRecord,
    (denied, edge): (&Denied, &Edge),
    now: Timestamp,
) -> Option<Problem> {
    let runs = job.leased_until.is_some_and(|until| now < until);
    if runs || job.problem.is_some() || now < job.run_at {
        return None;
    }
    let code = denied.code();
    Some(Problem {
        code,
        actor: code.actor(),
        detail: denied.to_string(),
        evidence: denied.evidence(),
        fix: Some(fix(code, pattern, edge)),
        first_seen: job.run_at,
        last_seen: now,
        next_retry_at: Some(now.plus(denied.retry_after)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::certs::budget::BucketName;
    use crate::model::certificate::CaId;
    use crate::model::problem::ProblemCode;
    use crate::store::job::Priority;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_due_job_that_nobody_claims_says_what_it_waits_for_and_until_when() {
        let pattern = NamePattern::parse("shop.acme.com").unwrap();
        let denied = Denied {
            ca: CaId::new("le"),
            bucket: BucketName::parse("orders:le:").unwrap(),
            limit: None,
            ours: 132,
            retry_after: MINUTE,
        };
        let due = JobRecord {
            key: "certificate:shop.acme.com".to_owned(),
            tenant: None,
            priority: Priority::Background,
            run_at: NOW.minus(MINUTE * 10),
            leased_until: None,
            failures: 0,
            problem: None,
            order_url: None,
        };
        let find = |job: &JobRecord| waiting(&pattern, job, (&denied, &Edge::default()), NOW);
        let problem = find(&due).unwrap();
        assert_eq!(problem.code, ProblemCode::RateLimitedAccount);
        assert!(problem.detail.contains("le"), "{problem:?}");
        assert_eq!(problem.first_seen, due.run_at);
        assert_eq!(problem.next_retry_at, Some(NOW.plus(MINUTE)));
        let has_one = JobRecord {
            problem: Some(problem),
            ..due.clone()
        };
        let runs = JobRecord {
            leased_until: Some(NOW.plus(MINUTE)),
            ..due.clone()
        };
        let later = JobRecord {
            run_at: NOW.plus(MINUTE),
            ..due
        };
        for other in [has_one, runs, later] {
            assert_eq!(find(&other), None, "{other:?}");
        }
    }
}
