//! What would happen if: everything had to be replaced, an authority were away. Pure, over what is known of the
//! certificates that serve, and touches nobody.
//!
//! Certificates are told apart by who would renew them, the first authority that may be asked for the name, whoever
//! issued them. Orders go out at a given speed and as the budget of their authority lets them; no order fails.
//!
//! Reading order: [`Serving`] (what is told of a certificate), [`Means`] (what an authority bears), [`Rehearsal`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::certs::budget::forecast::{Import, estimate};
use crate::certs::budget::{Book, Class, Renewals};
use crate::certs::renewal::{Life, Settings, due_at};
use crate::model::certificate::CaId;
use crate::model::{DnsName, NamePattern};
use crate::telemetry::labels::BudgetFamily as Family;

const HOUR: Duration = Duration::from_secs(3600);
/// The outages that are rehearsed.
pub const OUTAGES: [Duration; 3] = [
    HOUR.saturating_mul(24),
    HOUR.saturating_mul(72),
    HOUR.saturating_mul(24 * 7),
];
/// Names that are told one by one, of each authority.
const MOST_TOLD: usize = 20;

/// A certificate that serves.
#[derive(Clone, Copy, Debug)]
pub struct Serving<'a> {
    /// The name.
    pub pattern: &'a NamePattern,
    /// Its life.
    pub life: &'a Life,
    /// Who issued it.
    pub issued_by: &'a CaId,
    /// Who may be asked for another, the preferred first; empty where nobody can.
    pub asked: &'a [CaId],
}

/// What an authority bears now.
#[derive(Clone, Debug)]
pub struct Means {
    /// Orders a second, as far as we are concerned.
    pub speed: f64,
    /// Its limits and how they are shared; nothing where it has none.
    pub book: Option<Book>,
    /// What is left of the account's orders for each class; what the book says where nothing is here.
    pub left: Vec<(Class, u32)>,
    /// It wants to be left alone for so long.
    pub stopped_for: Duration,
}

/// Orders that are to be placed with one authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// How many.
    pub all: u64,
    /// So many of them are charged to its limits.
    pub charged: u64,
    /// The most under one registered domain.
    pub per_domain: u64,
}

/// How long orders take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takes {
    /// From now to the last.
    pub long: Duration,
    /// What it takes that long for.
    pub bound_by: Bound,
}

/// What decides how long orders take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// How fast we order.
    Speed,
    /// A limit of the authority.
    Limit(Family),
}

impl Bound {
    /// The word for it: `speed`, or the limit's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Limit(family) => family.as_str(),
        }
    }
}

impl Means {
    /// How long `orders` of `class` take.
    #[must_use]
    pub fn takes(&self, orders: &Orders, class: Class) -> Takes {
        let speed = Takes {
            long: seconds(orders.all, self.speed),
            bound_by: Bound::Speed,
        };
        let limits = self
            .book
            .as_ref()
            .filter(|_| orders.charged > 0)
            .map(|book| {
                let import = Import {
                    names: orders.charged,
                    per_domain: orders.per_domain,
                };
                estimate(import, |family| {
                    Some((book.limit(family)?, self.at_once(family, class)?))
                })
            });
        let limit = limits.and_then(|limits| {
            let bound_by = Bound::Limit(limits.bound_by?);
            Some(Takes {
                long: limits.takes,
                bound_by,
            })
        });
        let longest = limit
            .filter(|limit| limit.long > speed.long)
            .unwrap_or(speed);
        match self.stopped_for.is_zero() {
            true => longest,
            false => Takes {
                long: longest.long.saturating_add(self.stopped_for),
                bound_by: match longest.long > self.stopped_for {
                    true => longest.bound_by,
                    false => Bound::Limit(Family::Calls),
                },
            },
        }
    }

    /// How many orders of `class` that are charged as new ones it takes within `time`, each for another registered
    /// domain.
    fn takes_within(&self, time: Duration, class: Class) -> u64 {
        let time = time.saturating_sub(self.stopped_for);
        let fast = whole(time.as_secs_f64() * self.speed);
        let orders = self.book.as_ref().and_then(|book| {
            let refill = book.limit(Family::Orders)?.refill().as_millis().max(1);
            let refilled = u64::try_from(time.as_millis() / refill).unwrap_or(u64::MAX);
            let at_once = u64::from(self.at_once(Family::Orders, class)?);
            Some(at_once.saturating_add(refilled))
        });
        orders.map_or(fast, |orders| orders.min(fast))
    }

    fn at_once(&self, family: Family, class: Class) -> Option<u32> {
        let book = self.book.as_ref()?;
        let left = self.left.iter().find(|(of, _)| *of == class);
        match left.filter(|_| family == Family::Orders) {
            Some((_, left)) => Some(*left),
            None => {
                let amount = book.limit(family)?.amount();
                Some(amount.saturating_sub(book.shares.reserved(amount, class)))
            }
        }
    }

    /// Whether it charges the orders of names that it has certified itself.
    fn charges_renewals(&self) -> bool {
        let limits = self.book.as_ref().map(|book| book.limits.renewals);
        limits == Some(Renewals::Charged)
    }
}

/// An outage of one authority that begins now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// Certificates whose renewal falls in it.
    pub held_up: u64,
    /// Certificates that expire in it where nobody takes its place.
    pub expired: u64,
    /// The same where the next authorities in order do, as fast as they may.
    pub expired_in_spite: u64,
}

/// What the certificates of one authority would go through.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// How many serve.
    pub certificates: u64,
    /// How many of them have expired already.
    pub expired: u64,
    /// So many were issued by another: for them it is a new authority.
    pub of_others: u64,
    /// The shortest and the longest lifetime.
    pub lifetimes: Option<(Duration, Duration)>,
    /// The first to expire, soonest first.
    pub first: BTreeSet<(Timestamp, NamePattern)>,
    /// The shortest time between the renewal of a certificate and its end: an outage that begins at any time to come
    /// and is shorter lets none expire, but for what it takes to catch up.
    pub margin: Option<Duration>,
    /// Who is next in order where this one is away, with how many certificates; nothing is nobody.
    pub next: BTreeMap<Option<CaId>, u64>,
    ends: Vec<End>,
    domains: HashMap<DnsName, u64>,
}

/// When a certificate ends, as small as it can be: there is one for each.
#[derive(Clone, Copy, Debug)]
struct End {
    at: Timestamp,
    due: Timestamp,
}

/// Everything that serves, by who renews it; nothing is nobody.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    now: Timestamp,
    settings: Settings,
    /// By authority.
    pub groups: BTreeMap<Option<CaId>, Group>,
    /// The ends of each group that one and the same authority would take over.
    next_ends: HashMap<(Option<CaId>, CaId), Vec<Timestamp>>,
}

impl Rehearsal {
    /// Of no certificate yet.
    #[must_use]
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            now,
            settings,
            groups: BTreeMap::new(),
            next_ends: HashMap::new(),
        }
    }

    /// Adds a certificate.
    pub fn add(&mut self, serving: &Serving<'_>) {
        let by = serving.asked.first();
        let next = serving.asked.get(1);
        let end = serving.life.not_after;
        if let (Some(next), false) = (next, serving.life.is_over(self.now)) {
            let key = (by.cloned(), next.clone());
            self.next_ends.entry(key).or_default().push(end);
        }
        let group = self.groups.entry(by.cloned()).or_default();
        group.certificates += 1;
        group.of_others += u64::from(by.is_some_and(|by| by != serving.issued_by));
        *group.next.entry(next.cloned()).or_default() += 1;
        let domain = serving.pattern.base().registered_domain();
        *group.domains.entry(domain).or_default() += 1;
        let lifetime = end.since(serving.life.not_before);
        group.lifetimes = Some(match group.lifetimes {
            Some((least, most)) => (least.min(lifetime), most.max(lifetime)),
            None => (lifetime, lifetime),
        });
        if serving.life.is_over(self.now) {
            group.expired += 1;
            return;
        }
        let due = due_at(serving.life, &self.settings).max(self.now);
        let margin = end.since(due);
        group.margin = Some(group.margin.map_or(margin, |least| least.min(margin)));
        group.ends.push(End { at: end, due });
        group.first.insert((end, serving.pattern.clone()));
        if group.first.len() > MOST_TOLD {
            group.first.pop_last();
        }
    }

    /// How many serve.
    #[must_use]
    pub fn certificates(&self) -> u64 {
        self.groups.values().map(|group| group.certificates).sum()
    }

    /// How long it takes to replace all of a group's certificates by its own authority, as after a mass revocation.
    #[must_use]
    pub fn replacing(&self, by: &CaId, means: &Means) -> Takes {
        let group = self.groups.get(&Some(by.clone()));
        let orders = group
            .map(|group| group.renewed_by(means))
            .unwrap_or_default();
        means.takes(&orders, Class::Emergency)
    }

    /// What outages of an authority do, in the order of [`OUTAGES`], where each of `next` would take its place.
    #[must_use]
    pub fn outages(&self, of: &CaId, next: impl Fn(&CaId) -> Means) -> [Outage; OUTAGES.len()] {
        let group = self.groups.get(&Some(of.clone()));
        OUTAGES.map(|long| {
            let Some(group) = group else {
                return Outage::default();
            };
            let end = self.now.plus(long);
            let expired = count(group.ends.iter().filter(|one| one.at <= end));
            Outage {
                held_up: count(group.ends.iter().filter(|one| one.due < end)),
                expired,
                expired_in_spite: expired.saturating_sub(self.saved(of, group, long, &next)),
            }
        })
    }

    /// How many of those that would expire the next authorities certify in time.
    fn saved(
        &self,
        of: &CaId,
        group: &Group,
        long: Duration,
        means: impl Fn(&CaId) -> Means,
    ) -> u64 {
        let end = self.now.plus(long);
        let saved = group.next.keys().flatten().map(|next| {
            let ends = self.next_ends.get(&(Some(of.clone()), next.clone()));
            let ends = ends.into_iter().flatten().filter(|at| **at <= end);
            count(ends).min(means(next).takes_within(long, Class::Renewal))
        });
        saved.sum()
    }

    /// The longest outage of an authority from now on in which none expires, before its end or while the renewals are
    /// caught up, the first to end first; nothing where it renews none.
    #[must_use]
    pub fn survives(&self, by: &CaId, means: &Means) -> Option<Duration> {
        let group = self.groups.get(&Some(by.clone()))?;
        let mut ends: Vec<Timestamp> = group.ends.iter().map(|end| end.at).collect();
        ends.sort_unstable();
        let all = group.renewed_by(means);
        let latest = ends.into_iter().zip(1..).map(|(end, nth)| {
            let orders = Orders {
                all: nth,
                charged: nth.min(all.charged),
                per_domain: nth.min(all.per_domain),
            };
            let takes = means.takes(&orders, Class::Renewal).long;
            end.since(self.now).saturating_sub(takes)
        });
        latest.min()
    }

    /// How long the next authority in order takes to certify all that it would take over from another.
    #[must_use]
    pub fn taking_over(&self, from: &CaId, next: &CaId, means: &Means) -> Takes {
        let group = self.groups.get(&Some(from.clone()));
        let all = group.and_then(|group| group.next.get(&Some(next.clone())).copied());
        let all = all.unwrap_or_default();
        let orders = Orders {
            all,
            charged: all,
            per_domain: group.map_or(0, Group::most_per_domain).min(all),
        };
        means.takes(&orders, Class::Renewal)
    }
}

impl Group {
    /// The orders that renew all of it with its own authority.
    fn renewed_by(&self, means: &Means) -> Orders {
        let charged = match means.charges_renewals() {
            true => self.certificates,
            false => self.of_others,
        };
        Orders {
            all: self.certificates,
            charged,
            per_domain: self.most_per_domain().min(charged),
        }
    }

    fn most_per_domain(&self) -> u64 {
        self.domains.values().max().copied().unwrap_or_default()
    }
}

fn count(items: impl Iterator) -> u64 {
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}

/// How long `orders` take at so many a second; for ever where that is none.
fn seconds(orders: u64, a_second: f64) -> Duration {
    let orders = f64::from(u32::try_from(orders).unwrap_or(u32::MAX));
    Duration::try_from_secs_f64(orders / a_second).unwrap_or(Duration::MAX)
}

/// The whole part, saturating.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a saturating cast of a number that is not negative"
)]
const fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::budget::{Limit, Limits, Shares};

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn life(lifetime: Duration, left: Duration) -> Life {
        let not_after = NOW.plus(left);
        Life {
            not_before: not_after.minus(lifetime),
            not_after,
            chance: 0.0,
            began: None,
            told: None,
            chosen: None,
            ask_at: Timestamp::MAX,
            replace: None,
        }
    }

    fn means(limits: Option<Limits>) -> Means {
        Means {
            speed: 10.0,
            book: limits.map(|limits| Book {
                ca: CaId::new("le"),
                limits,
                shares: Shares::default(),
            }),
            left: Vec::new(),
            stopped_for: Duration::ZERO,
        }
    }

    fn charging() -> Limits {
        Limits {
            renewals: Renewals::Charged,
            ..Limits::lets_encrypt()
        }
    }

    /// A fleet of (days left, how many) 90-day certificates of `le`, each under a domain of its own, with `other` next.
    fn rehearsal(fleet: &[(u32, u32)]) -> Rehearsal {
        let mut rehearsal = Rehearsal::new(Settings::default(), NOW);
        let asked = [CaId::new("le"), CaId::new("other")];
        for (left, many) in fleet {
            for n in 0..*many {
                let pattern = NamePattern::parse(&format!("n{n}.left{left}-{n}.test")).unwrap();
                rehearsal.add(&Serving {
                    pattern: &pattern,
                    life: &life(DAY * 90, DAY * *left),
                    issued_by: &asked[0],
                    asked: &asked,
                });
            }
        }
        rehearsal
    }

    #[test]
    fn replacing_all_takes_what_the_speed_or_the_tightest_limit_takes() {
        let rehearsal = rehearsal(&[(60, 1240)]);
        let check = |limits: Option<Limits>, expected: (u64, Bound)| {
            let takes = rehearsal.replacing(&CaId::new("le"), &means(limits));
            assert_eq!((takes.long.as_secs(), takes.bound_by), expected);
        };
        check(None, (124, Bound::Speed));
        // Renewals are exempt there.
        check(Some(Limits::lets_encrypt()), (124, Bound::Speed));
        // 240 at once, then one each 45 s.
        check(Some(charging()), (45_000, Bound::Limit(Family::Orders)));
        let one_domain = Limits {
            orders: None,
            domain: Some(Limit::new(1, DAY)),
            ..charging()
        };
        check(Some(one_domain), (124, Bound::Speed));
    }

    #[test]
    fn what_is_used_up_or_stopped_already_makes_it_longer() {
        let rehearsal = rehearsal(&[(60, 100)]);
        let mut means = means(Some(charging()));
        means.left = vec![(Class::Emergency, 90)];
        let takes = rehearsal.replacing(&CaId::new("le"), &means);
        assert_eq!(takes.long, Duration::from_secs(10 * 45));
        means.stopped_for = HOUR;
        let takes = rehearsal.replacing(&CaId::new("le"), &means);
        assert_eq!(takes.long, HOUR + Duration::from_secs(10 * 45));
        assert_eq!(takes.bound_by, Bound::Limit(Family::Calls));
    }

    #[test]
    fn an_outage_holds_up_what_is_due_in_it_and_ends_what_expires_in_it() {
        // Expired already (0), ends tomorrow, is due in a day, is due in a month.
        let rehearsal = rehearsal(&[(0, 1), (1, 2), (31, 4), (60, 8)]);
        let le = CaId::new("le");
        let group = &rehearsal.groups[&Some(le.clone())];
        assert_eq!((group.certificates, group.expired), (15, 1));
        let seen = rehearsal.outages(&le, |_| means(None));
        let numbers = seen.map(|outage| (outage.held_up, outage.expired));
        assert_eq!(numbers, [(2, 2), (6, 2), (6, 2)]);
        assert_eq!(group.margin, Some(DAY));
        assert_eq!(group.lifetimes, Some((DAY * 90, DAY * 90)));
        let first = group.first.first().unwrap();
        assert_eq!(first.0, NOW.plus(DAY));
    }

    #[test]
    fn the_next_authority_saves_as_many_as_its_budget_lets_it() {
        let rehearsal = rehearsal(&[(1, 5000)]);
        let le = CaId::new("le");
        // Renewals may take 228 of the 240 at once; 80 an hour come back.
        let next = |_: &CaId| means(Some(Limits::lets_encrypt()));
        let seen = rehearsal
            .outages(&le, next)
            .map(|outage| outage.expired_in_spite);
        assert_eq!(seen, [5000 - 228 - 24 * 80, 0, 0]);
        let takes = rehearsal.taking_over(&le, &CaId::new("other"), &means(Some(charging())));
        assert_eq!(takes.long, Duration::from_secs(45) * (5000 - 228));
        assert_eq!(takes.bound_by, Bound::Limit(Family::Orders));
    }

    #[test]
    fn the_longest_outage_leaves_time_to_catch_up() {
        let le = CaId::new("le");
        let check = |fleet: &[(u32, u32)], limits, expected: Option<Duration>| {
            let survives = rehearsal(fleet).survives(&le, &means(limits));
            assert_eq!(survives, expected);
        };
        check(&[], None, None);
        check(&[(3, 1)], None, Some(DAY * 3 - Duration::from_millis(100)));
        // 1000 that end together: at 10 a second, or as the budget lets renewals go.
        check(&[(3, 1000)], None, Some(DAY * 3 - Duration::from_secs(100)));
        let slow = Duration::from_secs(45) * (1000 - 228);
        check(&[(3, 1000)], Some(charging()), Some(DAY * 3 - slow));
    }

    #[test]
    fn names_that_nobody_renews_and_those_of_another_authority_are_told() {
        let mut rehearsal = rehearsal(&[]);
        let (le, imported) = (CaId::new("le"), CaId::new("imported"));
        let life = life(DAY * 90, DAY * 60);
        let pattern = NamePattern::parse("*.a.test").unwrap();
        for asked in [&[][..], std::slice::from_ref(&le)] {
            rehearsal.add(&Serving {
                pattern: &pattern,
                life: &life,
                issued_by: &imported,
                asked,
            });
        }
        assert_eq!(rehearsal.certificates(), 2);
        assert_eq!(rehearsal.groups[&None].of_others, 0);
        let group = &rehearsal.groups[&Some(le.clone())];
        assert_eq!((group.of_others, group.next[&None]), (1, 1));
        // New to it, so charged.
        let mut means = means(Some(Limits::lets_encrypt()));
        means.left = vec![(Class::Emergency, 0)];
        let takes = rehearsal.replacing(&le, &means);
        assert_eq!(takes.bound_by, Bound::Limit(Family::Orders));
        let outages = rehearsal.outages(&le, |_| means.clone());
        assert_eq!(outages[2], Outage::default());
    }

    #[test]
    fn no_speed_takes_for_ever_and_few_names_are_kept() {
        let rehearsal = rehearsal(&[(60, 100)]);
        let slow = Means {
            speed: 0.0,
            ..means(None)
        };
        let le = CaId::new("le");
        assert_eq!(rehearsal.replacing(&le, &slow).long, Duration::MAX);
        assert_eq!(rehearsal.groups[&Some(le)].first.len(), MOST_TOLD);
    }
}
