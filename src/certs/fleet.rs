//! A fleet of names through the pure cores, over simulated years: how evenly it renews, what it costs, and what an outage
//! does to it.
//!
//! The cores are those of the running server, not models of them: each name is a [`State`] that [`step`] moves, at times
//! that [`renewal`](super::renewal) and [`setback`](super::setback) choose; which job runs next is told by
//! [`upkeep::need`] and [`Scarcity`]; each order has a [`Class`] and is taken from a [`Ledger`] by the authority's
//! [`Book`]. What is made up here is the world: time, the authority, and names whose DNS is broken.
//!
//! The authority charges renewals as it does new orders, the harder case, and counts its own orders independently. While
//! it is away it costs no orders, for the circuit breaker sees to that; that names which wait for it are brought forward
//! once it is back is not simulated, so that here they come later. An order takes no time: how fast a server works is
//! not simulated either.

mod report;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::base::clock::Timestamp;
use crate::certs::budget::book::comes_back_after;
use crate::certs::budget::scarcity::Scarcity;
use crate::certs::budget::{Book, Class, History, Ledger, Limit, Limits, Order, Renewals, Shares};
use crate::certs::lifecycle::{Effect, Event, State, Why, step};
use crate::certs::renewal::{Life, Margin, Settings, due_at, point_in};
use crate::certs::setback::{Lane, Setback};
use crate::certs::upkeep;
use crate::model::certificate::CaId;
use crate::model::{DnsName, NamePattern, TenantId};
use crate::store::budget::{Bucket, BucketCost};
use crate::store::job::{Pace, Priority};
use crate::telemetry::labels::BudgetFamily;

pub use report::Report;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// When the simulation begins: any time will do.
const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
/// The names belong to so many tenants.
const TENANTS: u32 = 100;
/// Between two sweeps of buckets that are full again.
const SWEEP: Duration = DAY;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many names.
    pub names: u32,
    /// For how long.
    pub over: Duration,
    /// How long each certificate is valid.
    pub lifetime: Duration,
    /// How old the first certificates are.
    pub begin: Begin,
    /// The part of the names, 0 to 1, whose DNS breaks some day and stays so.
    pub broken: f64,
    /// What the authority bears.
    pub limits: Limits,
    /// When the authority goes away, from the start on, and for how long.
    pub outage: Option<(Duration, Duration)>,
    /// Another one, another fleet.
    pub seed: u64,
}

/// How old the first certificates of a fleet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Of every age up to their renewal, as in a fleet that has been running for long.
    AllAges,
    /// All of one day: an import, a mass replacement.
    AllAtOnce,
}

impl Plan {
    /// A fleet for 400 days, one in a hundred names broken. Its authority has the limits that Let's Encrypt publishes, but
    /// for that it charges renewals; its orders grow with the fleet from 300 in 3 hours for 10,000 names of 90 days on, as
    /// a larger fleet or a shorter lifetime needs an override.
    #[must_use]
    pub fn new(names: u32, lifetime: Duration) -> Self {
        let usual = f64::from(10_000) / (DAY * 90).as_secs_f64();
        let needed = f64::from(names) / lifetime.as_secs_f64();
        let tenths_of_percent = (needed / usual * 1000.0).clamp(1000.0, 1e6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to what a u32 holds"
        )]
        let tenths_of_percent = tenths_of_percent as u32;
        let orders = Limit::new(3 * tenths_of_percent / 10, HOUR * 3);
        Self {
            names,
            over: DAY * 400,
            lifetime,
            begin: Begin::AllAges,
            broken: 0.01,
            limits: Limits {
                orders: Some(orders),
                renewals: Renewals::Charged,
                ..Limits::lets_encrypt()
            },
            outage: None,
            seed: 1,
        }
    }

    fn is_out(&self, now: Timestamp) -> bool {
        let since = now.since(START);
        self.outage
            .is_some_and(|(from, long)| since >= from && since < from + long)
    }
}

/// Lives through `plan`.
#[must_use]
pub fn simulate(plan: &Plan) -> Report {
    let mut fleet = Fleet::new(plan);
    fleet.live();
    fleet.report
}

/// The longest outage, to the hour, in which no certificate of a fleet like `plan` expires; up to its lifetime.
#[must_use]
pub fn longest_outage(plan: &Plan) -> Duration {
    let survives = |hours: u32| {
        let outage = Some((plan.lifetime, HOUR * hours));
        let over = plan.lifetime * 3 + HOUR * hours;
        let plan = Plan {
            outage,
            over,
            ..plan.clone()
        };
        simulate(&plan).expired == 0
    };
    let hours = u32::try_from(plan.lifetime.as_secs() / 3600).unwrap_or(u32::MAX);
    let (mut good, mut bad) = (0, hours);
    while bad.saturating_sub(good) > 1 {
        let middle = good + (bad - good) / 2;
        match survives(middle) {
            true => good = middle,
            false => bad = middle,
        }
    }
    HOUR * good
}

struct Name {
    state: State,
    /// When what serves, or served last, ends.
    ends: Timestamp,
    /// From when on its DNS is broken.
    broken_from: Timestamp,
    /// Whether the outage has put it off.
    held_up: bool,
}

struct Fleet<'a> {
    plan: &'a Plan,
    settings: Settings,
    book: Book,
    ledger: Ledger,
    /// The account's orders as the authority itself counts them.
    authority: Bucket,
    scarcity: Scarcity,
    names: Vec<Name>,
    /// Jobs that are not due yet.
    later: BinaryHeap<Reverse<(Timestamp, u32)>>,
    /// Jobs that are, the most urgent first.
    due: BTreeSet<(Priority, Timestamp, u32)>,
    random: StdRng,
    tenants: Vec<TenantId>,
    swept: Timestamp,
    report: Report,
}

impl<'a> Fleet<'a> {
    fn new(plan: &'a Plan) -> Self {
        let tenants = (0..TENANTS).filter_map(|n| TenantId::parse(&format!("t{n}")).ok());
        let mut fleet = Self {
            plan,
            settings: Settings::default(),
            book: Book {
                ca: CaId::new("ca"),
                limits: plan.limits.clone(),
                shares: Shares::default(),
            },
            ledger: Ledger::new(),
            authority: Bucket::default(),
            scarcity: Scarcity::default(),
            names: Vec::new(),
            later: BinaryHeap::new(),
            due: BTreeSet::new(),
            random: StdRng::seed_from_u64(plan.seed),
            tenants: tenants.collect(),
            swept: START,
            report: Report::over(plan.over),
        };
        for number in 0..plan.names {
            let name = fleet.first(number);
            fleet.names.push(name);
            fleet.later.push(Reverse((START, number)));
        }
        fleet
    }

    /// A name with the certificate that it has when the simulation begins.
    fn first(&mut self, number: u32) -> Name {
        let mut life = self.life(START, Some(START));
        if self.plan.begin == Begin::AllAges {
            // It followed another in its time.
            life.began = None;
            if let Event::Told(told, ask_at) = self.told(number, &life, START) {
                (life.told, life.ask_at) = (told, ask_at);
            }
            let age = due_at(&life, &self.settings).since(START);
            let age = age.mul_f64(self.random.random());
            life.not_before = START.minus(age);
            life.not_after = life.not_after.minus(age);
            life.ask_at = life.not_after;
            life.told = life.told.map(|told| told.minus(age));
        }
        let broken = self.random.random::<f64>() < self.plan.broken;
        Name {
            state: State::Active { serving: life },
            ends: life.not_after,
            broken_from: match broken {
                true => START.plus(self.plan.over.mul_f64(self.random.random())),
                false => Timestamp::MAX,
            },
            held_up: false,
        }
    }

    /// That of a certificate of `now`, of which nothing was asked yet.
    fn life(&mut self, now: Timestamp, began: Option<Timestamp>) -> Life {
        Life {
            not_before: now,
            not_after: now.plus(self.plan.lifetime),
            chance: self.random.random(),
            began,
            told: None,
            chosen: None,
            ask_at: now,
            replace: None,
        }
    }

    /// What the authority answers when it is asked about the renewal of a certificate: to every second name a window of a
    /// fiftieth of the lifetime about the usual time, to the others that it does not know.
    fn told(&self, number: u32, life: &Life, now: Timestamp) -> Event {
        if self.plan.is_out(now) {
            return Event::Told(life.told, now.plus(HOUR * 6));
        }
        let middle = life.last_point(&self.settings);
        let half = self.plan.lifetime / 100;
        let window = (middle.minus(half), middle.plus(half));
        let point =
            point_in(window, life, &self.settings, now).filter(|_| number.is_multiple_of(2));
        Event::Told(point, life.not_after)
    }

    fn live(&mut self) {
        let end = START.plus(self.plan.over);
        let mut now = START;
        while now < end {
            self.wake(now);
            self.claim(now);
            let Some(next) = self.next(now) else {
                break;
            };
            now = next;
        }
        let left = self.names.iter();
        let expired = left.filter(|name| name.ends <= end && name.broken_from > name.ends);
        self.report.expired += u64::try_from(expired.count()).unwrap_or(u64::MAX);
    }

    /// Jobs become due.
    fn wake(&mut self, now: Timestamp) {
        while let Some(Reverse((at, number))) = self.later.peek().copied()
            && at <= now
        {
            self.later.pop();
            let serving = self.name(number).and_then(|name| name.state.life());
            let (priority, _) = upkeep::need(serving, &self.settings, now);
            self.due.insert((priority, at, number));
        }
    }

    /// Runs what is due and worth a try.
    fn claim(&mut self, now: Timestamp) {
        for priority in Priority::ALL {
            let pace = self.scarcity.paces(now.since(START)).of(priority);
            let mut room = match pace {
                Pace::Free => usize::MAX,
                Pace::One => 1,
                Pace::None => 0,
            };
            while room > 0
                && let Some(job) = self.first_due(priority)
            {
                self.due.remove(&job);
                self.run(job, now);
                // As soon as the class gets nothing, no more of it are tried.
                room = match self.scarcity.next(priority) {
                    Some(_) => 0,
                    None => room - 1,
                };
            }
        }
    }

    fn first_due(&self, priority: Priority) -> Option<(Priority, Timestamp, u32)> {
        let from = (priority, Timestamp::EPOCH, 0);
        let first = self.due.range(from..).next().copied();
        first.filter(|(of, _, _)| *of == priority)
    }

    /// When something happens next.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let later = self.later.peek().map(|Reverse((at, _))| *at);
        let held = Priority::ALL.into_iter().filter_map(|priority| {
            self.first_due(priority)?;
            let at = self.scarcity.next(priority).unwrap_or_default();
            Some(START.plus(at))
        });
        let next = held.chain(later).min()?;
        Some(next.max(now.plus(Duration::from_millis(1))))
    }

    fn name(&self, number: u32) -> Option<&Name> {
        self.names.get(usize::try_from(number).ok()?)
    }

    fn name_mut(&mut self, number: u32) -> Option<&mut Name> {
        self.names.get_mut(usize::try_from(number).ok()?)
    }

    fn run(&mut self, (priority, _, number): (Priority, Timestamp, u32), now: Timestamp) {
        let Some(before) = self.name(number).map(|name| name.state) else {
            return;
        };
        let (begun, mut effects) = step(before, Event::Due, &self.settings, now);
        let mut state = begun;
        let event = effects.iter().find_map(|effect| match effect {
            Effect::Order(why) => Some(self.attempt((priority, number), begun, *why, now)),
            Effect::Inquire => begun.life().map(|life| self.told(number, &life, now)),
            Effect::RunAt(_)
            | Effect::Serve
            | Effect::Count
            | Effect::Forget
            | Effect::Name(_)
            | Effect::Drop => None,
        });
        if let Some(event) = event {
            (state, effects) = step(begun, event, &self.settings, now);
        }
        if let Some(name) = self.name_mut(number) {
            name.state = state;
        }
        for effect in effects {
            if let Effect::RunAt(at) = effect {
                self.later.push(Reverse((at, number)));
            }
        }
    }

    fn attempt(
        &mut self,
        (priority, number): (Priority, u32),
        begun: State,
        why: Why,
        now: Timestamp,
    ) -> Event {
        if self.plan.is_out(now) {
            self.report.refused += 1;
            if let Some(name) = self.name_mut(number) {
                name.held_up = true;
            }
            return self.failed(Lane::Authority);
        }
        let margin = begun.life().map_or(Margin::Short, |life| life.margin(now));
        let class = Class::of(why, margin, priority, begun.tries().failures);
        if let Err(wait) = self.take(number, class, now) {
            self.report.put_off += 1;
            return Event::Deferred(comes_back_after(wait, self.random.random()));
        }
        let broken_from = self.name(number).map(|name| name.broken_from);
        if broken_from.is_some_and(|from| from <= now) {
            self.report.failed += 1;
            if let Some(name) = dns_name(number) {
                self.ledger.failed(&self.book, &name, now);
            }
            return self.failed(Lane::Domain);
        }
        self.issued(number, why, now)
    }

    fn failed(&mut self, lane: Lane) -> Event {
        Event::Failed(Setback {
            lane,
            retry_after: None,
            random: self.random.random(),
        })
    }

    fn issued(&mut self, number: u32, why: Why, now: Timestamp) -> Event {
        self.report.count(now.since(START));
        let ends = now.plus(self.plan.lifetime);
        if let Some(name) = self.name_mut(number) {
            let expired = name.ends <= now;
            let held_up = std::mem::take(&mut name.held_up);
            name.ends = ends;
            self.report.expired += u64::from(expired);
            if held_up && let Some((from, long)) = self.plan.outage {
                let after = now.since(START.plus(from + long));
                self.report.caught_up_after = self.report.caught_up_after.max(after);
            }
        }
        let began = Some(now).filter(|_| why != Why::Renewal);
        Event::Issued(self.life(now, began))
    }

    /// Takes an order from the budget; the authority counts it too.
    fn take(&mut self, number: u32, class: Class, now: Timestamp) -> Result<(), Duration> {
        let tenant = usize::try_from(number % TENANTS).ok();
        let tenant = tenant.and_then(|index| self.tenants.get(index));
        let (Some(name), Some(tenant)) = (dns_name(number), tenant) else {
            return Ok(());
        };
        let names = [NamePattern::Exact(name)];
        let order = Order {
            names: &names,
            tenant,
            class,
            history: History::Replaces,
        };
        let taken = self.ledger.order(&self.book, &order, now);
        if let Err(denied) = taken {
            if denied.bucket.family == BudgetFamily::Orders {
                let since = now.since(START);
                self.scarcity.note(class, &denied, since);
            }
            return Err(denied.retry_after);
        }
        self.scarcity.plenty(class);
        self.count_as_the_authority(now);
        if now.since(self.swept) > SWEEP {
            self.ledger.sweep(now);
            self.swept = now;
        }
        Ok(())
    }

    fn count_as_the_authority(&mut self, now: Timestamp) {
        let Some(limit) = self.plan.limits.orders else {
            return;
        };
        let cost = BucketCost {
            bucket: String::new(),
            units: 1,
            refill: limit.refill(),
            capacity: limit.amount(),
            whole: limit.amount(),
        };
        match self.authority.take(&cost, now) {
            Ok(after) => self.authority = after,
            Err(_) => self.report.overdrawn += 1,
        }
    }
}

/// Each name is a registered domain of its own.
fn dns_name(number: u32) -> Option<DnsName> {
    DnsName::parse(&format!("n{number}.example")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(plan: &Plan) -> Report {
        let report = simulate(plan);
        assert_eq!(report.overdrawn, 0, "{report}");
        report
    }

    #[test]
    fn ten_thousand_names_over_400_days_are_renewed_evenly_within_budget() {
        for days in [90, 45] {
            let report = check(&Plan::new(10_000, DAY * days));
            assert_eq!(report.expired, 0, "{report}");
            assert!(report.peak_to_mean() <= 1.5, "{report}");
            // One in a hundred names is broken, and costs few attempts while its old certificate lasts and one a day then.
            assert!(report.failed > 0 && report.failed < 100 * 400, "{report}");
        }
    }

    #[test]
    fn certificates_that_all_began_on_one_day_are_not_renewed_on_one_day() {
        let plan = Plan {
            begin: Begin::AllAtOnce,
            ..Plan::new(10_000, DAY * 90)
        };
        let report = check(&plan);
        assert_eq!(report.expired, 0, "{report}");
        assert!(report.peak_to_mean() <= 1.5, "{report}");
    }

    #[test]
    fn nothing_of_90_or_45_days_expires_in_an_outage_of_72_hours_and_the_rest_is_caught_up_within_budget()
     {
        for days in [90, 45] {
            let plan = Plan {
                outage: Some((DAY * 100, HOUR * 72)),
                over: DAY * 200,
                ..Plan::new(10_000, DAY * days)
            };
            let report = check(&plan);
            assert_eq!(report.expired, 0, "{report}");
            assert!(report.refused > 0 && report.put_off > 0, "{report}");
            assert!(report.caught_up_after <= HOUR * 12, "{report}");
        }
    }

    #[test]
    fn it_is_told_how_many_six_day_certificates_an_outage_costs_and_the_longest_that_costs_none() {
        let short = Plan {
            over: DAY * 40,
            ..Plan::new(500, HOUR * 160)
        };
        let longest = longest_outage(&short);
        assert!(longest >= HOUR * 72 && longest <= HOUR * 80, "{longest:?}");
        let expired = |outage: Duration| {
            let plan = Plan {
                outage: Some((DAY * 20, outage)),
                ..short.clone()
            };
            check(&plan).expired
        };
        assert_eq!(expired(HOUR * 72), 0);
        assert!(expired(HOUR * 96) > 0);
    }
}
