//! Which names' upstreams fail at present, as the proxy meets it: the one way in which requests tell the control API. Nothing
//! of it decides about requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::base::clock::Timestamp;
use crate::model::route::UpstreamName;
use crate::model::{DnsName, NamePattern, TenantId};
use crate::telemetry::labels::End;

/// Names whose trouble is remembered; of further ones nothing is told.
const MOST: usize = 4096;

/// The troubles of this process. Clones are the same. While there are none, a request costs a look at a number.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTroubles(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    names: DashMap<DnsName, Trouble>,
    count: AtomicUsize,
}

/// What is wrong with the upstream of a name: from the first of its failures in a row to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Whose name it is.
    pub tenant: TenantId,
    /// The upstream that failed last.
    pub upstream: UpstreamName,
    /// How it failed last.
    pub end: End,
    /// Failures since it last answered.
    pub failures: u64,
    /// When the first of them ended.
    pub since: Timestamp,
    /// When the last of them ended.
    pub last: Timestamp,
}

/// A request that had an upstream to go to, at its end.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// Whose name it was for.
    pub tenant: &'a TenantId,
    /// The name.
    pub domain: &'a DnsName,
    /// The upstream.
    pub upstream: &'a UpstreamName,
    /// Whether the head of an answer came.
    pub answered: bool,
    /// How it ended.
    pub end: End,
}

/// Whether visitors are kept from the upstream: it is not there, or it is too slow. What it answers is its own affair.
#[must_use]
pub const fn is_trouble(end: End) -> bool {
    matches!(
        end,
        End::UpstreamUnresolved
            | End::UpstreamUnreachable
            | End::UpstreamConnectTimeout
            | End::UpstreamTls
            | End::UpstreamTimeout
    )
}

impl UpstreamTroubles {
    /// Takes note of how a request ended at `now`: one that was answered ends the trouble of its name.
    pub fn note(&self, request: Forwarded<'_>, now: Timestamp) {
        if !is_trouble(request.end) {
            if request.answered
                && self.0.count.load(Ordering::Relaxed) > 0
                && self.0.names.remove(request.domain).is_some()
            {
                self.0.count.fetch_sub(1, Ordering::Relaxed);
            }
            return;
        }
        if let Some(mut known) = self.0.names.get_mut(request.domain) {
            let fresh = known.tenant != *request.tenant;
            known.failures = if fresh {
                1
            } else {
                known.failures.saturating_add(1)
            };
            known.since = if fresh { now } else { known.since };
            known.tenant = request.tenant.clone();
            known.upstream = request.upstream.clone();
            known.end = request.end;
            known.last = now;
            return;
        }
        if self.0.count.load(Ordering::Relaxed) < MOST {
            let trouble = Trouble {
                tenant: request.tenant.clone(),
                upstream: request.upstream.clone(),
                end: request.end,
                failures: 1,
                since: now,
                last: now,
            };
            let before = self.0.names.insert(request.domain.clone(), trouble);
            if before.is_none() {
                self.0.count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The trouble of a tenant's domain, the latest where it covers several names, unless nobody has met it since
    /// `since`: then it may be over.
    #[must_use]
    pub fn of(
        &self,
        tenant: &TenantId,
        pattern: &NamePattern,
        since: Timestamp,
    ) -> Option<Trouble> {
        let known = |trouble: &Trouble| trouble.tenant == *tenant && since <= trouble.last;
        if let NamePattern::Exact(name) = pattern {
            let found = self.0.names.get(name).map(|found| found.clone());
            return found.filter(known);
        }
        let covered = self.0.names.iter();
        let covered = covered.filter(|found| pattern.covers(found.key()));
        let covered = covered.map(|found| found.value().clone()).filter(known);
        covered.max_by_key(|trouble| trouble.last)
    }

    /// Forgets what nobody has met since then, so that there is room for what is met.
    pub fn forget_before(&self, then: Timestamp) {
        self.0.names.retain(|_, trouble| {
            let stays = then <= trouble.last;
            if !stays {
                self.0.count.fetch_sub(1, Ordering::Relaxed);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn note(troubles: &UpstreamTroubles, name: &str, end: End, now: Timestamp) {
        let request = Forwarded {
            tenant: &TenantId::parse("acme").unwrap(),
            domain: &DnsName::parse(name).unwrap(),
            upstream: &UpstreamName::new("core"),
            answered: end == End::Completed,
            end,
        };
        troubles.note(request, now);
    }

    fn of(troubles: &UpstreamTroubles, pattern: &str) -> Option<Trouble> {
        let acme = TenantId::parse("acme").unwrap();
        troubles.of(&acme, &NamePattern::parse(pattern).unwrap(), NOW)
    }

    #[test]
    fn trouble_lasts_from_the_first_failure_until_an_answer() {
        let troubles = UpstreamTroubles::default();
        let later = NOW.plus(Duration::from_secs(5));
        note(&troubles, "a.test", End::Completed, NOW);
        assert_eq!(of(&troubles, "a.test"), None);
        note(&troubles, "a.test", End::UpstreamUnreachable, NOW);
        note(&troubles, "a.test", End::UpstreamTimeout, later);
        // What the visitor or the answer did wrong says nothing.
        note(&troubles, "a.test", End::ClientClosed, later);
        let trouble = of(&troubles, "a.test").unwrap();
        assert_eq!(
            (trouble.failures, trouble.since, trouble.last),
            (2, NOW, later)
        );
        assert_eq!(trouble.end, End::UpstreamTimeout);
        note(&troubles, "a.test", End::Completed, later);
        assert_eq!(of(&troubles, "a.test"), None);
    }

    #[test]
    fn a_wildcard_has_the_latest_trouble_below_it_and_another_tenant_none() {
        let troubles = UpstreamTroubles::default();
        let later = NOW.plus(Duration::from_secs(5));
        note(&troubles, "x.a.test", End::UpstreamTls, later);
        note(&troubles, "y.a.test", End::UpstreamUnresolved, NOW);
        assert_eq!(of(&troubles, "*.a.test").unwrap().end, End::UpstreamTls);
        assert_eq!(of(&troubles, "*.b.test"), None);
        let (globex, name) = (
            TenantId::parse("globex").unwrap(),
            NamePattern::parse("x.a.test").unwrap(),
        );
        assert_eq!(troubles.of(&globex, &name, NOW), None);
        troubles.forget_before(later);
        assert!(of(&troubles, "x.a.test").is_some() && of(&troubles, "y.a.test").is_none());
    }

    #[test]
    fn no_more_names_are_remembered_than_there_is_room_for() {
        let troubles = UpstreamTroubles::default();
        for number in 0..=MOST {
            note(&troubles, &format!("n{number}.test"), End::UpstreamTls, NOW);
        }
        assert_eq!(troubles.0.names.len(), MOST);
    }
}
