//! How many jobs may work with one authority at once: one that hangs takes no more than its share of the places, so that
//! names of the others go on meanwhile, and some places are for visitors alone.
//!
//! [`Rule`] is pure. A job that finds no place with its authority waits for one where it is, as long as places come
//! free there; then it is put aside, so that it keeps no other job from being claimed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::base::clock::{Instant, monotonic};
use crate::certs::authorities::Waits;
use crate::model::certificate::CaId;

/// An authority with which no place has come free for so long is waited for no longer.
const STUCK: Duration = Duration::from_secs(1);
/// The shortest wait for a place: many jobs of a stuck authority do not pass through claims faster than this.
const LEAST: Duration = Duration::from_millis(100);
/// How often it is told, at most, that names of an authority wait.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Who may have a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    /// All there are.
    places: usize,
    /// So many are each authority's own, whatever the others hold; the rest are for whoever comes.
    own: usize,
    /// So many of the rest are for visitors alone.
    visitors: usize,
}

impl Rule {
    /// A quarter of the places is kept for the authorities that are not the busiest, an eighth for visitors; of a few
    /// places, none is.
    fn new(places: usize, authorities: usize) -> Self {
        let own = match authorities {
            0 | 1 => 0,
            _ => (places / 4 / (authorities - 1))
                .max(1)
                .min(places / authorities),
        };
        Self {
            places,
            own,
            visitors: places / 8,
        }
    }

    /// Whether one place more may be taken with an authority that holds `mine`, where `held` is what each of all
    /// authorities holds, this one included.
    fn admits(&self, held: &[usize], mine: usize, waits: Waits) -> bool {
        // What is an authority's own is as good as taken.
        let taken: usize = held.iter().map(|held| (*held).max(self.own)).sum();
        let most = match waits {
            Waits::Visitor => self.places,
            Waits::Nobody => self.places - self.visitors,
        };
        mine < self.own || taken < most
    }
}

/// What each authority holds. Clones are the same.
#[derive(Clone)]
pub(super) struct Shares(Arc<Inner>);

/// The authorities that are configured right now: a reload may change them.
type Configured = Box<dyn Fn() -> Vec<CaId> + Send + Sync>;

struct Inner {
    places: usize,
    configured: Configured,
    held: Mutex<BTreeMap<CaId, Held>>,
    freed: Notify,
}

/// What one authority holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    places: usize,
    /// When a place was last taken or came free.
    moved: Instant,
    /// When it was last told that its names wait.
    told: Option<Instant>,
}

impl Shares {
    /// Nobody holds any.
    pub(super) fn new(places: usize, configured: Configured) -> Self {
        Self(Arc::new(Inner {
            places,
            configured,
            held: Mutex::default(),
            freed: Notify::new(),
        }))
    }

    /// Places that only jobs that visitors wait for may take.
    pub(super) fn visitors(&self) -> usize {
        Rule::new(self.0.places, 1).visitors
    }

    /// A place with an authority, waited for as long as places come free with it; nothing where none does.
    pub(super) async fn take(&self, ca: &CaId, waits: Waits) -> Option<Share> {
        let least = monotonic() + LEAST;
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(share) = self.try_take(ca, waits) {
                return Some(share);
            }
            let moved = self.held().get(ca).map(|held| held.moved);
            let until = moved.map_or(least, |moved| least.max(moved + STUCK));
            if tokio::time::timeout_at(until, freed).await.is_err() {
                self.tell(ca);
                return None;
            }
        }
    }

    /// A place with an authority, where there is one now.
    pub(super) fn try_take(&self, ca: &CaId, waits: Waits) -> Option<Share> {
        let configured = (self.0.configured)();
        let rule = Rule::new(self.0.places, configured.len());
        let mut held = self.held();
        let of = |ca: &CaId| held.get(ca).map_or(0, |held| held.places);
        // One that a reload took out may hold some yet.
        let gone = held.keys().filter(|ca| !configured.contains(ca));
        let all: Vec<usize> = configured.iter().chain(gone).map(of).collect();
        if !rule.admits(&all, of(ca), waits) {
            return None;
        }
        let now = monotonic();
        let mine = held.entry(ca.clone()).or_insert(Held {
            places: 0,
            moved: now,
            told: None,
        });
        mine.places += 1;
        mine.moved = now;
        Some(Share {
            of: self.clone(),
            ca: ca.clone(),
        })
    }

    fn give_back(&self, ca: &CaId) {
        let mut held = self.held();
        if let Some(mine) = held.get_mut(ca) {
            mine.places = mine.places.saturating_sub(1);
            mine.moved = monotonic();
        }
        held.retain(|_, held| held.places > 0);
        drop(held);
        self.0.freed.notify_waiters();
    }

    /// Tells that names of the authority wait for a place, now and then.
    fn tell(&self, ca: &CaId) {
        let (mut held, now) = (self.held(), monotonic());
        let Some(mine) = held.get_mut(ca) else {
            return;
        };
        if mine.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return;
        }
        mine.told = Some(now);
        tracing::warn!(
            %ca, issuances = mine.places,
            "the authority is slow: its names wait, and leave the other places to others"
        );
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<CaId, Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place with an authority; free again when dropped.
pub(super) struct Share {
    of: Shares,
    ca: CaId,
}

impl Share {
    /// With whom.
    pub(super) const fn ca(&self) -> &CaId {
        &self.ca
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.give_back(&self.ca);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many places one authority can come to hold while each of the others holds so many.
    fn most(rule: Rule, others: &[usize], waits: Waits) -> usize {
        let mut held = [&[0], others].concat();
        while rule.admits(&held, held[0], waits) {
            held[0] += 1;
        }
        held[0]
    }

    #[test]
    fn one_authority_holds_all_places_but_a_quarter_and_a_lone_one_all() {
        use Waits::{Nobody, Visitor};

        let check = |places, others: &[usize], waits, expected| {
            let rule = Rule::new(places, others.len() + 1);
            assert_eq!(most(rule, others, waits), expected, "{places} {others:?}");
        };
        check(16, &[], Visitor, 16);
        check(16, &[], Nobody, 14);
        check(16, &[0], Visitor, 12);
        check(16, &[0], Nobody, 10);
        check(16, &[12], Nobody, 4);
        check(16, &[12, 0], Visitor, 2);
        check(16, &[12, 2], Nobody, 2);
        check(4, &[0], Nobody, 3);
        check(2, &[1], Visitor, 1);
        check(1, &[0], Nobody, 1);
    }

    proptest! {
        #[test]
        fn no_authority_is_kept_from_its_own_places_and_no_place_is_given_twice(
            places in 1_usize..64,
            authorities in 1_usize..8,
            moves in proptest::collection::vec((0_usize..8, any::<bool>(), any::<bool>()), 0..300),
        ) {
            let rule = Rule::new(places, authorities);
            let mut held = vec![0_usize; authorities];
            for (at, takes, visitor) in moves {
                let at = at % authorities;
                let waits = if visitor { Waits::Visitor } else { Waits::Nobody };
                if !takes {
                    held[at] = held[at].saturating_sub(1);
                } else if rule.admits(&held, held[at], waits) {
                    held[at] += 1;
                } else {
                    prop_assert!(held[at] >= rule.own);
                }
                prop_assert!(held.iter().sum::<usize>() <= places);
                // Whatever is held, every other authority still comes to its own.
                let owed: usize = held.iter().map(|held| rule.own.saturating_sub(*held)).sum();
                prop_assert!(held.iter().sum::<usize>() + owed <= places);
            }
        }

        #[test]
        fn renewals_alone_never_take_a_visitors_place(
            places in 1_usize..64,
            authorities in 1_usize..8,
            takers in proptest::collection::vec(0_usize..8, 0..200),
        ) {
            let rule = Rule::new(places, authorities);
            let mut held = vec![0_usize; authorities];
            for at in takers {
                let at = at % authorities;
                if rule.admits(&held, held[at], Waits::Nobody) {
                    held[at] += 1;
                }
            }
            let free = places - held.iter().sum::<usize>();
            let unowned = rule.visitors.min(places - rule.own * authorities);
            prop_assert!(free >= unowned);
            prop_assert!(unowned == 0 || rule.admits(&held, held[0], Waits::Visitor));
        }
    }

    #[tokio::test]
    async fn a_place_is_waited_for_while_places_come_free_and_not_for_ever() {
        let (slow, other) = (CaId::new("slow"), CaId::new("other"));
        let both = vec![slow.clone(), other.clone()];
        let shares = Shares::new(4, Box::new(move || both.clone()));
        let take = || shares.take(&slow, Waits::Visitor);
        let (one, two, three) = (take().await, take().await, take().await);
        let comes_free = async { drop(one) };
        let (fourth, ()) = tokio::join!(take(), comes_free);
        assert!(fourth.is_some());
        assert!(take().await.is_none());
        assert!(shares.take(&other, Waits::Nobody).await.is_some());
        drop((two, three));
        assert!(take().await.is_some());
    }
}
