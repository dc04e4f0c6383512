//! Which domains are looked at again and again, and how often: those that wait for their DNS to be put right, and those
//! that have moved. Bounded: what finds no place is found again by the next round of upkeep.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::base::backoff::{Backoff, jittered};
use crate::base::clock::Timestamp;
use crate::dns::examine::Records;
use crate::model::problem::ProblemCode;
use crate::model::{NamePattern, TenantId};

/// Domains that are watched at once.
const MOST: usize = 10_000;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Between two orders for a domain whose DNS came right: five an hour is what authorities bear. Each that does not end its
/// trouble doubles the wait, so that DNS which keeps changing never makes more of them than the back-off would.
const BETWEEN: Backoff = Backoff {
    first: Duration::from_secs(720),
    factor: 2,
    most: DAY,
};

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
    /// How often it was.
    wakes: u32,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) addresses: Addresses,
    /// When it was last asked who answers.
    pub(super) asked: Timestamp,
}

/// The addresses of a name, of each family as they were last found out; of one without any, none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    ipv4: Option<Vec<Ipv4Addr>>,
    ipv6: Option<Vec<Ipv6Addr>>,
}

impl Addresses {
    pub(super) fn of(records: &Records) -> Self {
        Self {
            ipv4: records.ipv4.told().map(<[_]>::to_vec),
            ipv6: records.ipv6.told().map(<[_]>::to_vec),
        }
    }

    /// Whether they are others than `before`: what was not found out, then or now, is no change.
    pub(super) fn differ_from(&self, before: &Self) -> bool {
        fn differ<T: PartialEq>(now: Option<&T>, before: Option<&T>) -> bool {
            now.is_some() && before.is_some() && now != before
        }
        differ(self.ipv4.as_ref(), before.ipv4.as_ref())
            || differ(self.ipv6.as_ref(), before.ipv6.as_ref())
    }

    /// Whether they say anything that `before` did not.
    pub(super) fn tell_more_than(&self, before: &Self) -> bool {
        self.clone().or(before) != *before
    }

    /// What was not found out as it was before.
    pub(super) fn or(self, before: &Self) -> Self {
        Self {
            ipv4: self.ipv4.or_else(|| before.ipv4.clone()),
            ipv6: self.ipv6.or_else(|| before.ipv6.clone()),
        }
    }
}

impl Watched {
    /// Watches a domain whose trouble began at `since`, from now on; one that is watched already goes on as it was.
    pub(super) fn add(
        &mut self,
        pattern: &NamePattern,
        tenant: &TenantId,
        since: Timestamp,
        now: Timestamp,
    ) {
        if self.0.contains_key(pattern) || self.0.len() >= MOST {
            return;
        }
        let entry = Entry {
            tenant: tenant.clone(),
            since,
            next: now,
            seen: None,
            woken: None,
            wakes: 0,
        };
        self.0.insert(pattern.clone(), entry);
    }

    /// Looks at a domain that is watched as often again as at the beginning.
    pub(super) fn begin_anew(&mut self, pattern: &NamePattern, now: Timestamp) {
        if let Some(entry) = self.0.get_mut(pattern) {
            entry.since = now;
            entry.next = now;
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
        let wait = BETWEEN.after(entry.wakes);
        if entry.woken.is_some_and(|woken| now.since(woken) < wait) {
            return false;
        }
        entry.woken = Some(now);
        entry.wakes = entry.wakes.saturating_add(1);
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
    fn dns_that_keeps_changing_wakes_ever_more_rarely() {
        let (mut watched, now) = (Watched::default(), Timestamp::from_seconds(1_800_000_000));
        let (shop, acme) = (
            NamePattern::parse("shop.acme.com").unwrap(),
            TenantId::parse("acme").unwrap(),
        );
        assert!(!watched.wake(&shop, now));
        watched.add(&shop, &acme, now, now);
        let woken: Vec<u32> = (0..6 * 24 * 60)
            .filter(|minute| {
                let at = now.plus(MINUTE * *minute);
                // Each failure watches it anew.
                watched.add(&shop, &acme, at, at);
                watched.wake(&shop, at)
            })
            .collect();
        assert_eq!(
            woken,
            [0, 12, 36, 84, 180, 372, 756, 1524, 2964, 4404, 5844, 7284]
        );
    }

    #[test]
    fn only_what_was_found_out_then_and_now_is_a_change() {
        let known = |ipv4: Option<&[u8]>, ipv6: Option<&[u16]>| Addresses {
            ipv4: ipv4.map(|last| last.iter().map(|n| Ipv4Addr::new(192, 0, 2, *n)).collect()),
            ipv6: ipv6.map(|last| {
                let address = |n: &u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, *n);
                last.iter().map(address).collect()
            }),
        };
        let check = |before: &Addresses, now: &Addresses, (differ, more): (bool, bool)| {
            assert_eq!(now.differ_from(before), differ, "{before:?}, {now:?}");
            assert_eq!(now.tell_more_than(before), more, "{before:?}, {now:?}");
        };
        let both = known(Some(&[1]), Some(&[1]));
        check(&both, &both, (false, false));
        check(&both, &known(Some(&[2]), Some(&[1])), (true, true));
        // The AAAA record is removed.
        check(&both, &known(Some(&[1]), Some(&[])), (true, true));
        check(&both, &known(Some(&[1]), None), (false, false));
        check(&both, &known(None, None), (false, false));
        check(&known(None, None), &both, (false, true));
        assert_eq!(known(None, None).or(&both), both);
    }

    #[test]
    fn however_many_are_due_each_has_its_turn() {
        let (mut watched, mut now) = (Watched::default(), Timestamp::EPOCH);
        let tenant = TenantId::parse("acme").unwrap();
        for number in 0..50 {
            let name = NamePattern::parse(&format!("n{number}.acme.com")).unwrap();
            watched.add(&name, &tenant, now, now);
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
            watched.add(&name, &tenant, now, now);
        }
        assert_eq!(watched.due(now, usize::MAX).len(), MOST);
    }
}
