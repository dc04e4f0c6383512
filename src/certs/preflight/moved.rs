//! What is remembered of a domain after a look, and whether it has moved: pure. It has where looks from outside, spread in time, surely found somebody else, and no
//! visitor came for long; addresses are never compared.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::certs::preflight::facts::Facts;
use crate::certs::preflight::judge::{Judgement, Reach};
use crate::model::reach::ReachMemory;

/// Looks that are nearer to each other count as one.
const SPREAD: Duration = Duration::from_secs(3600);

/// What is remembered after a look that was judged so.
#[must_use]
pub fn noted(memory: &ReachMemory, judgement: &Judgement, now: Timestamp) -> ReachMemory {
    let unreached_since = match (judgement.reach, judgement.definite()) {
        (Reach::Here, _) => None,
        (Reach::Elsewhere | Reach::Untold, Some(_)) => memory.unreached_since.or(Some(now)),
        // What could not be found out says nothing.
        (Reach::Elsewhere | Reach::Untold, None) => memory.unreached_since,
    };
    let (elsewhere_since, elsewhere_at) = match judgement.reach {
        Reach::Here => (None, None),
        Reach::Elsewhere => (memory.elsewhere_since.or(Some(now)), Some(now)),
        Reach::Untold => (memory.elsewhere_since, memory.elsewhere_at),
    };
    ReachMemory {
        unreached_since,
        elsewhere_since,
        elsewhere_at,
        ..memory.clone()
    }
}

/// Since when a content delivery network stands in front of the name, as far as is known after a look.
#[must_use]
pub fn fronted_since(memory: &ReachMemory, facts: &Facts, now: Timestamp) -> Option<Timestamp> {
    match facts.fronted_by() {
        Some(_) => memory.fronted_since.or(Some(now)),
        None if facts.is_answered() => None,
        None => memory.fronted_since,
    }
}

/// Whether the domain has moved at `now`, where nobody visiting it for `after` is long, and the last visit known here was
/// at `visited`.
#[must_use]
pub fn has_moved(
    memory: &ReachMemory,
    visited: Option<Timestamp>,
    after: Duration,
    now: Timestamp,
) -> bool {
    let (Some(since), Some(at)) = (memory.elsewhere_since, memory.elsewhere_at) else {
        return false;
    };
    // Who has never been seen may have come before visits were noted.
    let last = visited.max(memory.visited).unwrap_or(since);
    at.since(since) >= SPREAD.min(after) && now.since(last) >= after
}

/// Whether a domain that is called moved was visited since.
#[must_use]
pub fn is_back(memory: &ReachMemory, visited: Option<Timestamp>) -> bool {
    let last = visited.max(memory.visited);
    last.is_some_and(|last| memory.moved_at.is_none_or(|moved| last > moved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::preflight::cdn::Cdn;
    use crate::certs::preflight::facts::{Fetch, Found};
    use crate::certs::preflight::judge::{Verdict, Weight};
    use crate::dns::examine::{Answer, Records, Signatures};
    use crate::model::DnsName;
    use crate::model::problem::ProblemCode;

    const HOUR: Duration = Duration::from_secs(3600);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn hours(hours: u32) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000).plus(HOUR * hours)
    }

    /// After looks at these hours.
    fn looked(looks: &[(u32, Reach)]) -> ReachMemory {
        let memory = ReachMemory::default();
        looks.iter().fold(memory, |memory, (at, reach)| {
            let judgement = Judgement {
                verdicts: Vec::new(),
                reach: *reach,
            };
            noted(&memory, &judgement, hours(*at))
        })
    }

    #[test]
    fn who_was_not_reached_is_told_from_what_could_not_be_found_out() {
        use ProblemCode::{CheckFailed, HttpUnreachable, WrongA};
        let judged = |codes: &[ProblemCode], reach| {
            let verdict = |code: &ProblemCode| Verdict {
                code: *code,
                detail: String::new(),
                evidence: Vec::new(),
                fix: String::new(),
                weight: Weight::Tells,
            };
            let verdicts = codes.iter().map(verdict).collect();
            Judgement { verdicts, reach }
        };
        let fresh = ReachMemory::default();
        let untold = noted(&fresh, &judged(&[CheckFailed], Reach::Untold), hours(1));
        assert_eq!(untold, fresh);
        let silent = noted(&fresh, &judged(&[HttpUnreachable], Reach::Untold), hours(1));
        assert_eq!(silent.unreached_since, Some(hours(1)));
        assert_eq!(silent.elsewhere_since, None);
        let still = noted(&silent, &judged(&[WrongA], Reach::Elsewhere), hours(2));
        assert_eq!(still.unreached_since, Some(hours(1)));
        let lost = noted(&still, &judged(&[CheckFailed], Reach::Untold), hours(3));
        assert_eq!(lost, still);
        // One wrong address among right ones: an authority may well meet us.
        let here = noted(&lost, &judged(&[WrongA], Reach::Here), hours(4));
        assert_eq!(here.unreached_since, None);
    }

    #[test]
    fn a_network_in_front_is_remembered_until_somebody_answers_without_one() {
        let seen = |found: Found, cdn: Option<Cdn>| Facts {
            name: DnsName::parse("shop.acme.com").unwrap(),
            records: Records {
                aliases: Vec::new(),
                ipv4: Answer::Empty,
                ipv6: Answer::Empty,
                signatures: Signatures::Good,
            },
            edge_addresses: Vec::new(),
            fetches: vec![Fetch {
                address: "192.0.2.1".parse().unwrap(),
                found,
                cdn,
            }],
            served: None,
        };
        let check = |before: Option<u32>, facts: &Facts, expected: Option<u32>| {
            let memory = ReachMemory {
                fronted_since: before.map(hours),
                ..ReachMemory::default()
            };
            let since = fronted_since(&memory, facts, hours(2));
            assert_eq!(since, expected.map(hours), "{before:?}, {facts:?}");
        };
        let cdn = Some(Cdn::Cloudflare);
        let silent = || Found::Unreachable("port 80: no answer".to_owned());
        check(None, &seen(Found::Ours, cdn), Some(2));
        check(Some(1), &seen(silent(), cdn), Some(1));
        check(Some(1), &seen(silent(), None), Some(1));
        check(Some(1), &seen(Found::Ours, None), None);
        check(None, &seen(silent(), None), None);
    }

    #[test]
    fn a_domain_has_moved_after_two_looks_and_a_week_without_visitors() {
        use Reach::{Elsewhere, Here, Untold};
        let check = |looks: &[(u32, Reach)], visited: Option<u32>, now: u32, expected: bool| {
            let memory = looked(looks);
            let moved = has_moved(&memory, visited.map(hours), WEEK, hours(now));
            assert_eq!(moved, expected, "{looks:?}, visited {visited:?}, at {now}");
        };
        let week = 7 * 24;
        let gone = [(0, Elsewhere), (week, Elsewhere)];
        check(&gone, None, week, true);
        check(&gone, None, week - 1, false);
        check(&gone, Some(1), week + 1, true);
        // A visitor within the week: by an address of ours, whatever DNS says to us.
        check(&gone, Some(week - 1), week + 1, false);
        // One look, however long ago, or two at once.
        check(&[(0, Elsewhere)], None, 10 * week, false);
        check(&[(0, Elsewhere), (0, Elsewhere)], None, 10 * week, false);
        // Reached meanwhile: it begins anew.
        check(
            &[(0, Elsewhere), (9, Here), (week, Elsewhere)],
            None,
            week,
            false,
        );
        // What could not be found out neither counts nor begins anew.
        check(
            &[(0, Elsewhere), (5, Untold), (week, Elsewhere)],
            None,
            week,
            true,
        );
        check(&[(0, Untold), (week, Untold)], None, 2 * week, false);
        check(&[], None, 2 * week, false);
    }

    #[test]
    fn a_visit_after_it_was_called_moved_brings_it_back() {
        let memory = |visited: Option<u32>| ReachMemory {
            visited: visited.map(hours),
            moved_at: Some(hours(10)),
            ..ReachMemory::default()
        };
        assert!(!is_back(&memory(None), None));
        assert!(!is_back(&memory(Some(9)), Some(hours(10))));
        assert!(is_back(&memory(Some(9)), Some(hours(11))));
        assert!(is_back(&memory(Some(11)), None));
    }
}
