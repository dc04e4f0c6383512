//! Which domains are looked at again and again, and how often: those that wait for their DNS to be put right, and those
//! that have moved. Bounded: what finds no place is found again by the next round of upkeep.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::backoff::jittered;
use crate::base::clock::Timestamp;
use crate::certs::preflight::judge::Reach;
use crate::dns::examine::Records;
use crate::model::problem::ProblemCode;
use crate::model::{NamePattern, TenantId};

/// Domains that are watched at once.
const MOST: usize = 10_000;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Between two orders for a domain whose DNS keeps changing: five an hour is what authorities bear.
const BETWEEN: Duration = Duration::from_secs(720);

/// The domains that are watched.
#[derive(Debug, Default)]
pub(super) struct Watched(HashMap<NamePattern, Entry>);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) tenant: TenantId,
    /// Since when.
    pub(super) since: Timestamp,
    next: Timestamp,
    /// What its last look found.
    pub(super) seen: Option<Seen>,
    /// When its certificate was last asked for because of what was seen.
    woken: Option<Timestamp>,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) records: Records,
    pub(super) reach: Reach,
    /// When it was last asked who answers.
    pub(super) asked: Timestamp,
}

impl Watched {
    /// Watches a domain from now on; one that is watched already starts with frequent looks again.
    pub(super) fn add(&mut self, pattern: &NamePattern, tenant: &TenantId, now: Timestamp) {
        if let Some(entry) = self.0.get_mut(pattern) {
            entry.since = now;
            return;
        }
        if self.0.len() >= MOST {
            return;
        }
        let entry = Entry {
            tenant: tenant.clone(),
            since: now,
            next: now,
            seen: None,
            woken: None,
        };
        self.0.insert(pattern.clone(), entry);
    }

    /// Like [`Watched::add`], but one that is watched already goes on as it was.
    pub(super) fn keep(&mut self, pattern: &NamePattern, tenant: &TenantId, now: Timestamp) {
        if !self.0.contains_key(pattern) {
            self.add(pattern, tenant, now);
        }
    }

    pub(super) fn remove(&mut self, pattern: &NamePattern) {
        self.0.remove(pattern);
    }

    /// At most `most` of those that are due, the most overdue first: where more are due than a round looks at, each has
    /// its turn.
    pub(super) fn due(&self, now: Timestamp, most: usize) -> Vec<(NamePattern, Entry)> {
        let due = self.0.iter().filter(|(_, entry)| entry.next <= now);
        let mut due: Vec<_> = due.collect();
        due.sort_unstable_by_key(|(_, entry)| entry.next);
        due.into_iter()
            .take(most)
            .map(|(pattern, entry)| (pattern.clone(), entry.clone()))
            .collect()
    }

    /// Notes a look. `random` in 0..1.
    pub(super) fn looked(
        &mut self,
        pattern: &NamePattern,
        seen: Option<Seen>,
        (recheck, random): (Duration, f64),
        now: Timestamp,
    ) {
        if let Some(entry) = self.0.get_mut(pattern) {
            entry.next = now.plus(pace(now.since(entry.since), recheck, random));
            entry.seen = seen.or_else(|| entry.seen.take());
        }
    }

    /// Whether the domain's certificate may be asked for now; notes that it is.
    pub(super) fn wake(&mut self, pattern: &NamePattern, now: Timestamp) -> bool {
        let Some(entry) = self.0.get_mut(pattern) else {
            return false;
        };
        if entry.woken.is_some_and(|woken| now.since(woken) < BETWEEN) {
            return false;
        }
        entry.woken = Some(now);
        true
    }
}

/// How long until the next look at a domain that has been watched for so long: often for an hour, a tenth as often for a
/// day, then every hour at the default; spread by a fifth.
fn pace(age: Duration, recheck: Duration, random: f64) -> Duration {
    let wait = if age < HOUR {
        recheck
    } else if age < DAY {
        recheck.saturating_mul(10)
    } else {
        recheck.saturating_mul(60)
    };
    jittered(wait.min(DAY), 0.2, random)
}

/// Whether a problem goes away when DNS, or who answers for the name, is put right.
pub(super) const fn is_of_dns(code: ProblemCode) -> bool {
    matches!(
        code,
        ProblemCode::DnsNxdomain
            | ProblemCode::DnsServfail
            | ProblemCode::DnssecBogus
            | ProblemCode::WrongA
            | ProblemCode::WrongAaaa
            | ProblemCode::CnameMissing
            | ProblemCode::CnameWrongTarget
            | ProblemCode::CdnInFront
            | ProblemCode::HttpUnreachable
            | ProblemCode::HttpWrongBody
            | ProblemCode::RedirectLoop
            | ProblemCode::TlsAlpnIntercepted
            | ProblemCode::GeoBlocked
            | ProblemCode::MpicDisagree
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn looks_are_frequent_for_an_hour_and_rarer_then() {
        let check = |age: Duration, expected: Duration| {
            assert_eq!(pace(age, MINUTE, 0.5), expected, "{age:?}");
        };
        check(Duration::ZERO, MINUTE);
        check(HOUR, MINUTE * 10);
        check(DAY, HOUR);
        check(DAY * 400, HOUR);
        assert!(pace(DAY, DAY, 1.0) <= DAY * 6 / 5);
    }

    #[test]
    fn dns_that_keeps_changing_wakes_at_most_five_times_an_hour() {
        let (mut watched, now) = (Watched::default(), Timestamp::from_seconds(1_800_000_000));
        let shop = NamePattern::parse("shop.acme.com").unwrap();
        assert!(!watched.wake(&shop, now));
        watched.add(&shop, &TenantId::parse("acme").unwrap(), now);
        let woken = (0..60).filter(|minute| {
            let at = now.plus(MINUTE * *minute);
            // Each failure watches it anew.
            watched.add(&shop, &TenantId::parse("acme").unwrap(), at);
            watched.wake(&shop, at)
        });
        assert_eq!(woken.count(), 5);
    }

    #[test]
    fn however_many_are_due_each_has_its_turn() {
        let (mut watched, mut now) = (Watched::default(), Timestamp::EPOCH);
        let tenant = TenantId::parse("acme").unwrap();
        for number in 0..50 {
            let name = NamePattern::parse(&format!("n{number}.acme.com")).unwrap();
            watched.add(&name, &tenant, now);
        }
        let mut looked_at = std::collections::HashSet::new();
        for _ in 0..5 {
            for (pattern, _) in watched.due(now, 10) {
                watched.looked(&pattern, None, (MINUTE, 0.5), now);
                looked_at.insert(pattern);
            }
            // By the next round those that were looked at are due again.
            now = now.plus(MINUTE * 2);
        }
        assert_eq!(looked_at.len(), 50);
    }

    #[test]
    fn what_finds_no_place_is_left_to_the_next_round() {
        let (mut watched, now) = (Watched::default(), Timestamp::EPOCH);
        let tenant = TenantId::parse("acme").unwrap();
        for number in 0..=MOST {
            let name = NamePattern::parse(&format!("n{number}.acme.com")).unwrap();
            watched.add(&name, &tenant, now);
        }
        assert_eq!(watched.due(now, usize::MAX).len(), MOST);
    }
}
