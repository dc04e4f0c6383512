//! What visitors of a domain meet behind the edge, as a problem like any other: an upstream that is not there or too slow.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::certs::problem::fix;
use crate::model::edge::Edge;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::snapshot::Routes;
use crate::model::{NamePattern, TenantId};
use crate::store::record::DomainRecord;
use crate::telemetry::labels::End;
use crate::telemetry::trouble::{Trouble, UpstreamTroubles};

/// How long a failure is told after nobody has met it any more: the next visitor tells.
const TOLD: Duration = Duration::from_secs(3600);

/// The problem of a domain whose upstream the permission hook chose, and nobody configured.
pub(super) fn not_configured(
    record: &DomainRecord,
    routes: &Routes,
    edge: &Edge,
    now: Timestamp,
) -> Option<Problem> {
    let upstream = record.upstream.as_ref()?;
    if routes.to_upstream(upstream).is_some() {
        return None;
    }
    let code = ProblemCode::UpstreamNotConfigured;
    Some(Problem {
        code,
        actor: code.actor(),
        detail: format!(
            "the permission hook chose the upstream {upstream} for {}, which is not configured",
            record.pattern
        ),
        evidence: vec!["every request is answered with 502".to_owned()],
        fix: Some(fix(code, &record.pattern, edge)),
        first_seen: now,
        last_seen: now,
        next_retry_at: None,
    })
}

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::declare::Declaration;
    use crate::control::publish::routes;
    use crate::model::domain::{DomainState, Source};
    use crate::model::route::{Upstream, UpstreamName, UpstreamTimeouts, UpstreamTls};
    use crate::model::standing::DomainMemory;

    #[test]
    fn an_upstream_that_nobody_configured_is_told_until_somebody_does() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let record = DomainRecord {
            pattern: NamePattern::parse("a.test").unwrap(),
            tenant: TenantId::parse("acme").unwrap(),
            source: Source::Hook,
            state: DomainState::Active,
            upstream: Some(UpstreamName::new("later")),
            certificate: None,
            problem: None,
            memory: DomainMemory::default(),
            version: 1,
            created_at: now,
        };
        let told = |routes: &Routes| not_configured(&record, routes, &Edge::default(), now);
        let problem = told(&Routes::default()).unwrap();
        assert_eq!(problem.code, ProblemCode::UpstreamNotConfigured);
        assert!(problem.detail.contains("later"), "{}", problem.detail);
        let upstream = Upstream::new(
            UpstreamName::new("later"),
            Vec::new(),
            UpstreamTls::None,
            UpstreamTimeouts::default(),
        );
        let declaration = Declaration {
            upstreams: vec![Arc::new(upstream)],
            ..Declaration::default()
        };
        assert_eq!(told(&routes::build(&declaration, &[]).routes), None);
    }
}
