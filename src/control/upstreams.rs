//! What visitors of a domain meet behind the edge, as a problem like any other: an upstream that is not there or too slow.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::certs::problem::fix;
use crate::model::edge::Edge;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::{NamePattern, TenantId};
use crate::telemetry::labels::End;
use crate::telemetry::trouble::{Trouble, UpstreamTroubles};

/// How long a failure is told after nobody has met it any more: the next visitor tells.
const TOLD: Duration = Duration::from_secs(3600);

/// The problem of a domain whose upstream fails its visitors at present.
pub(super) fn problem(
    troubles: &UpstreamTroubles,
    (tenant, pattern): (&TenantId, &NamePattern),
    edge: &Edge,
    now: Timestamp,
) -> Option<Problem> {
    let since = now.minus(TOLD);
    troubles.forget_before(since);
    let trouble = troubles.of(tenant, pattern, since)?;
    Some(told(&trouble, pattern, edge))
}

fn told(trouble: &Trouble, pattern: &NamePattern, edge: &Edge) -> Problem {
    let upstream = &trouble.upstream;
    let (code, detail) = match trouble.end == End::UpstreamTimeout {
        true => (
            ProblemCode::UpstreamSlow,
            format!("the upstream {upstream} does not answer visitors of {pattern} in time"),
        ),
        false => (
            ProblemCode::UpstreamUnreachable,
            format!("visitors of {pattern} do not reach the upstream {upstream}"),
        ),
    };
    Problem {
        code,
        actor: code.actor(),
        detail,
        evidence: vec![format!(
            "requests since its last answer: {}, the last at {} ended as {}",
            trouble.failures,
            trouble.last,
            trouble.end.as_str()
        )],
        fix: Some(fix(code, pattern, edge)),
        first_seen: trouble.since,
        last_seen: trouble.last,
        next_retry_at: None,
    }
}
