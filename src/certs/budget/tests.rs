//! The core against an authority that counts by itself, over hundreds of thousands of random orders.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::base::clock::Timestamp;
use crate::model::certificate::CaId;
use crate::model::{DnsName, NamePattern, TenantId};
use crate::store::budget::BucketCost;
use crate::telemetry::labels::BudgetFamily as Family;

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn book(limits: Limits, shares: Shares) -> Book {
    Book {
        ca: CaId::new("le"),
        limits,
        shares,
    }
}

fn pattern(text: &str) -> NamePattern {
    NamePattern::parse(text).unwrap()
}

fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

fn order<'a>(names: &'a [NamePattern], tenant: &'a TenantId, class: Class) -> Order<'a> {
    Order {
        names,
        tenant,
        class,
        history: History::New,
    }
}

/// Buckets as an authority keeps them, written down in another way than ours: credit in nanoseconds that grows with
/// time up to the limit's period, and a price for each unit.
#[derive(Default)]
struct Authority {
    credit: HashMap<(Family, String), (u128, Timestamp)>,
    certified: HashMap<String, Timestamp>,
}

impl Authority {
    fn credit(&mut self, key: (Family, &str), limit: Limit, now: Timestamp) -> &mut u128 {
        let period = limit.period().as_nanos();
        let key = (key.0, key.1.to_owned());
        let (credit, at) = self.credit.entry(key).or_insert((period, now));
        *credit = (*credit + now.since(*at).as_nanos()).min(period);
        *at = now;
        credit
    }

    fn has(&mut self, key: (Family, &str), limit: Limit, now: Timestamp) -> bool {
        let price = limit.period().as_nanos() / u128::from(limit.amount());
        *self.credit(key, limit, now) >= price
    }

    fn spend(&mut self, key: (Family, &str), limit: Limit, now: Timestamp) {
        let price = limit.period().as_nanos() / u128::from(limit.amount());
        let credit = self.credit(key, limit, now);
        assert!(*credit >= price, "{key:?} is overspent");
        *credit -= price;
    }

    fn history(&self, name: &str, now: Timestamp) -> History {
        match self.certified.get(name) {
            Some(at) if now.since(*at) < DAY * 119 => History::Certified,
            _ => History::New,
        }
    }

    /// Boulder's new-order: checks all limits, spends the account's.
    fn order(&mut self, name: &str, history: History, limits: &Limits, now: Timestamp) {
        if history == History::Replaces {
            return;
        }
        let domain = registered(name);
        for (family, subject, limit) in [
            (Family::ExactSet, name, limits.exact_set),
            (Family::Failures, name, limits.failures),
            (Family::ConsecutiveFailures, name, limits.consecutive),
        ] {
            let key = (family, subject);
            assert!(self.has(key, limit.unwrap(), now), "refused by {key:?}");
        }
        if history == History::New {
            let of_domain = (Family::Domain, domain.as_str());
            assert!(self.has(of_domain, limits.domain.unwrap(), now), "{domain}");
            self.spend((Family::Orders, ""), limits.orders.unwrap(), now);
        }
    }

    /// Boulder's end of an order: spends what is counted by certificates, or by failures.
    fn end(&mut self, ended: &Pending, limits: &Limits, now: Timestamp) {
        let name = ended.name.as_str();
        if ended.fails {
            self.spend((Family::Failures, name), limits.failures.unwrap(), now);
            let consecutive = (Family::ConsecutiveFailures, name);
            self.spend(consecutive, limits.consecutive.unwrap(), now);
            return;
        }
        self.credit
            .remove(&(Family::ConsecutiveFailures, name.to_owned()));
        if ended.history == History::New {
            let domain = registered(name);
            self.spend((Family::Domain, &domain), limits.domain.unwrap(), now);
        }
        if ended.history != History::Replaces {
            self.spend((Family::ExactSet, name), limits.exact_set.unwrap(), now);
        }
        self.certified.insert(name.to_owned(), now);
    }
}

fn registered(name: &str) -> String {
    let name = pattern(name).base().registered_domain();
    name.to_string()
}

/// An order in progress.
struct Pending {
    name: String,
    history: History,
    charge: Charge,
    fails: bool,
}

/// What random orders of random tenants came to.
#[derive(Default)]
struct Tally {
    granted: u32,
    denied: BTreeMap<&'static str, u32>,
}

fn drive(shares: Shares, seed: u64, operations: u32) -> Tally {
    let mut random = StdRng::seed_from_u64(seed);
    let book = book(Limits::lets_encrypt(), shares);
    let (mut ledger, mut authority) = (Ledger::new(), Authority::default());
    let (mut now, mut tally) = (START, Tally::default());
    let mut pending: VecDeque<Pending> = VecDeque::new();
    for step in 0..operations {
        now = now.plus(Duration::from_millis(random.random_range(0..20_000)));
        if pending.len() > 15 || (!pending.is_empty() && random.random_bool(0.4)) {
            let at = random.random_range(0..pending.len());
            let ended = pending.remove(at).unwrap();
            let name = DnsName::parse(&ended.name).unwrap();
            authority.end(&ended, &book.limits, now);
            match ended.fails {
                true => {
                    ledger.failed(&book, &name, now);
                    ledger.not_issued(&ended.charge);
                }
                false => ledger.succeeded(&book, &name),
            }
            continue;
        }
        // A few names over and over, a few registered domains with many, and many names once.
        let name = match random.random_range(0..10) {
            0 | 1 => format!("often{}.test", random.random_range(0..20)),
            2 => format!("bad{}.test", random.random_range(0..5)),
            3..=5 => format!("a{step}.shared{}.test", random.random_range(0..5)),
            _ => format!("name{step}.test"),
        };
        // One run at a time for each name.
        if pending.iter().any(|pending| pending.name == name) {
            continue;
        }
        let tenant = tenant(["a", "a", "a", "b", "c"][random.random_range(0..5)]);
        let class = Class::ALL[random.random_range(0..4)];
        let mut history = authority.history(&name, now);
        if history == History::Certified && random.random_bool(0.5) {
            history = History::Replaces;
        }
        let names = [pattern(&name)];
        let order = Order {
            history,
            ..order(&names, &tenant, class)
        };
        match ledger.order(&book, &order, now) {
            Ok(charge) => {
                authority.order(&name, history, &book.limits, now);
                tally.granted += 1;
                pending.push_back(Pending {
                    fails: name.starts_with("bad") || random.random_bool(0.1),
                    name,
                    history,
                    charge,
                });
            }
            Err(denied) => {
                assert!(!denied.retry_after.is_zero());
                *tally
                    .denied
                    .entry(denied.bucket.family.as_str())
                    .or_default() += 1;
            }
        }
    }
    tally
}

#[test]
fn an_authority_never_refuses_what_the_budget_gave() {
    for (spend, seed) in [(0.8, 1), (0.8, 2), (0.95, 3)] {
        let shares = Shares {
            spend,
            ..Shares::default()
        };
        let tally = drive(shares, seed, 100_000);
        assert!(tally.granted > 10_000, "{}", tally.granted);
        for family in ["orders", "domain", "exact_set", "failures"] {
            assert!(tally.denied.contains_key(family), "{family} was never met");
        }
    }
}

#[test]
fn a_waiting_tenant_gets_its_share_however_greedy_another_is() {
    let shares = Shares {
        tenant: 0.25,
        ..Shares::default()
    };
    let (book, mut ledger) = (book(Limits::lets_encrypt(), shares), Ledger::new());
    let (greedy, patient) = (tenant("greedy"), tenant("patient"));
    let names = |tenant: &str, n: u32| [pattern(&format!("{tenant}{n}.test"))];
    let (mut taken, mut got, mut next) = (0, 0, START);
    let mut now = START;
    for _ in 0..DAY.as_secs() {
        now = now.plus(SECOND);
        let many = names("greedy", taken);
        while ledger
            .order(&book, &order(&many, &greedy, Class::Bulk), now)
            .is_ok()
        {
            taken += 1;
        }
        if now < next {
            continue;
        }
        let one = names("patient", got);
        match ledger.order(&book, &order(&one, &patient, Class::Bulk), now) {
            Ok(_) => got += 1,
            Err(denied) => next = now.plus(denied.retry_after),
        }
    }
    // 80 % of 2,400 a day, a quarter of them each at least, the rest to whoever asks.
    assert!(got >= 480, "{got}");
    assert!(taken >= 480, "{taken}");
    assert!((1920..=2160).contains(&(taken + got)), "{taken} and {got}");
}

#[test]
fn a_tenant_alone_gets_everything_but_the_reserves() {
    let (book, mut ledger) = (
        book(Limits::lets_encrypt(), Shares::default()),
        Ledger::new(),
    );
    let alone = tenant("alone");
    let mut taken = 0;
    for second in 0..DAY.as_secs() {
        let now = START.plus(SECOND * u32::try_from(second).unwrap());
        loop {
            let names = [pattern(&format!("n{taken}.test"))];
            match ledger.order(&book, &order(&names, &alone, Class::Bulk), now) {
                Ok(_) => taken += 1,
                Err(_) => break,
            }
        }
    }
    assert!((1920..=2100).contains(&taken), "{taken}");
}

#[test]
fn bulk_leaves_room_for_visitors_they_for_renewals_and_all_for_emergencies() {
    let mut limits = Limits::lets_encrypt();
    limits.renewals = Renewals::Charged;
    let (book, mut ledger) = (book(limits, Shares::default()), Ledger::new());
    let mut last = 0;
    for (class, expected) in [
        (Class::Bulk, 132),
        (Class::Visitor, 180),
        (Class::Renewal, 228),
        (Class::Emergency, 240),
    ] {
        let mut taken = last;
        // Many tenants, so that none is beyond its share.
        while taken < 1000 {
            let names = [pattern(&format!("n{taken}.test"))];
            let tenant = tenant(&format!("t{taken}"));
            match ledger.order(&book, &order(&names, &tenant, class), START) {
                Ok(_) => taken += 1,
                Err(denied) => {
                    assert_eq!(denied.bucket.family, Family::Orders);
                    break;
                }
            }
        }
        assert_eq!(taken, expected, "{class:?}");
        last = taken;
    }
}

#[test]
fn replacing_orders_of_lets_encrypt_are_charged_to_nothing_and_known_sets_to_themselves() {
    let book = book(Limits::lets_encrypt(), Shares::default());
    let (names, tenant) = ([pattern("shop.example.co.uk")], tenant("acme"));
    let families = |history| {
        let order = Order {
            history,
            ..order(&names, &tenant, Class::Renewal)
        };
        let taken = book.charge(&order).within;
        let taken = taken.iter().filter(|cost| cost.units > 0);
        let key = |cost: &BucketCost| cost.bucket.clone();
        taken.map(key).collect::<Vec<_>>()
    };
    let set = "exact_set:letsencrypt:shop.example.co.uk";
    assert_eq!(
        families(History::New),
        [
            "domain:letsencrypt:example.co.uk",
            set,
            "orders:le:",
            "tenant_share:le:acme"
        ]
    );
    assert_eq!(families(History::Certified), [set]);
    assert_eq!(families(History::Replaces), [""; 0]);
}

#[test]
fn a_replacing_order_waits_too_where_one_failure_more_might_have_the_name_paused() {
    let (book, mut ledger) = (
        book(Limits::lets_encrypt(), Shares::default()),
        Ledger::new(),
    );
    let (names, tenant) = ([pattern("a.test")], tenant("acme"));
    let replacing = Order {
        history: History::Replaces,
        ..order(&names, &tenant, Class::Emergency)
    };
    let name = DnsName::parse("a.test").unwrap();
    for _ in 0..115 {
        assert!(ledger.order(&book, &replacing, START).is_ok());
        ledger.failed(&book, &name, START);
    }
    let denied = ledger.order(&book, &replacing, START).unwrap_err();
    assert_eq!(denied.bucket.family, Family::ConsecutiveFailures);
}

#[test]
fn a_frozen_account_stops_new_orders_and_no_replacing_one_but_an_outage_stops_all() {
    let (book, mut ledger) = (
        book(Limits::lets_encrypt(), Shares::default()),
        Ledger::new(),
    );
    let (names, tenant) = ([pattern("a.test")], tenant("acme"));
    let replacing = Order {
        history: History::Replaces,
        ..order(&names, &tenant, Class::Renewal)
    };
    let new = order(&names, &tenant, Class::Emergency);
    let freeze = |ledger: &mut Ledger, code| {
        for bucket in book.meant_by(code, &names) {
            ledger.freeze(&book, &bucket, START, SECOND * 3600);
        }
    };
    freeze(
        &mut ledger,
        crate::model::problem::ProblemCode::RateLimitedAccount,
    );
    let denied = ledger.order(&book, &new, START).unwrap_err();
    assert_eq!(denied.retry_after, SECOND * 3600);
    assert!(ledger.order(&book, &replacing, START).is_ok());
    // The bucket is empty as well: after the freeze it gives one unit at a time.
    let later = START.plus(SECOND * 45);
    let mut thawed = ledger.clone();
    thawed.sweep(later);
    let later = START.plus(SECOND * 3600);
    let given = (0..240)
        .filter(|_| ledger.order(&book, &new, later).is_ok())
        .count();
    assert_eq!(given, 4, "by then the exact set is used up");

    freeze(&mut ledger, crate::model::problem::ProblemCode::CaOutage);
    let denied = ledger.order(&book, &replacing, START).unwrap_err();
    assert_eq!(denied.bucket.family, Family::Calls);
}

#[test]
fn registered_domains_follow_the_whole_public_suffix_list() {
    let book = book(Limits::lets_encrypt(), Shares::default());
    let tenant = tenant("acme");
    let check = |name: &str, expected: &str| {
        let names = [pattern(name)];
        let charge = book.charge(&order(&names, &tenant, Class::Bulk));
        let buckets: Vec<&str> = charge
            .if_issued
            .iter()
            .map(|cost| cost.bucket.as_str())
            .filter(|bucket| bucket.starts_with("domain:"))
            .collect();
        assert_eq!(
            buckets,
            [format!("domain:letsencrypt:{expected}")],
            "{name}"
        );
    };
    check("a.b.example.co.uk", "example.co.uk");
    check("*.shop.example.com", "example.com");
    // The private section counts, as it does for Let's Encrypt.
    check("a.b.github.io", "b.github.io");
    check("github.io", "github.io");
    check("*.github.io", "github.io");
    // Exceptions and wildcards of the list.
    check("a.www.ck", "www.ck");
    check("a.b.c.ck", "b.c.ck");
    // A-labels, in suffixes too.
    check("shop.bücher.example", "xn--bcher-kva.example");
    check("a.b.公司.cn", "b.xn--55qx5d.cn");
    check("a.b.рф", "b.xn--p1ai");
    check("localhost", "localhost");
}

#[test]
fn a_set_of_names_is_the_same_in_any_order_and_each_registered_domain_counts_once() {
    let book = book(Limits::lets_encrypt(), Shares::default());
    let tenant = tenant("acme");
    let charge = |names: &[&str]| {
        let names: Vec<NamePattern> = names.iter().map(|name| pattern(name)).collect();
        book.charge(&order(&names, &tenant, Class::Bulk)).if_issued
    };
    let one = charge(&["a.test", "b.a.test", "x.test"]);
    assert_eq!(one, charge(&["x.test", "a.test", "b.a.test"]));
    assert_eq!(one.len(), 3, "a.test, x.test and the set");
    assert_ne!(charge(&["a.test", "x.test"]).last(), one.last());
}

#[test]
fn a_name_that_always_fails_by_the_back_off_never_comes_near_a_pause() {
    let (book, mut ledger) = (
        book(Limits::lets_encrypt(), Shares::default()),
        Ledger::new(),
    );
    let (names, tenant) = ([pattern("a.test")], tenant("acme"));
    let name = DnsName::parse("a.test").unwrap();
    let mut now = START;
    let minute = SECOND * 60;
    for wait in [minute, minute * 10, minute * 100]
        .into_iter()
        .chain([DAY; 400])
    {
        let order = order(&names, &tenant, Class::Bulk);
        let charge = ledger.order(&book, &order, now);
        let charge = charge.unwrap_or_else(|denied| panic!("{denied} at {now}"));
        ledger.failed(&book, &name, now);
        ledger.not_issued(&charge);
        now = now.plus(wait);
    }
    // Even somebody who asks again and again, as fast as the hourly limit lets, is stopped long before a pause.
    let mut failures = 0;
    for _ in 0..365 * 24 {
        now = now.plus(SECOND * 3600);
        let order = order(&names, &tenant, Class::Bulk);
        if let Ok(charge) = ledger.order(&book, &order, now) {
            ledger.failed(&book, &name, now);
            ledger.not_issued(&charge);
            failures += 1;
        }
    }
    assert!((365..=480).contains(&failures), "{failures}");
    ledger.succeeded(&book, &name);
    assert!(
        ledger
            .order(&book, &order(&names, &tenant, Class::Bulk), now)
            .is_ok()
    );
}

#[test]
fn ten_thousand_names_over_400_days_cost_seconds_at_most() {
    let (book, mut ledger) = (
        book(Limits::lets_encrypt(), Shares::default()),
        Ledger::new(),
    );
    let tenant = tenant("acme");
    let names: Vec<[NamePattern; 1]> = (0..10_000)
        .map(|n| [pattern(&format!("n{n}.test"))])
        .collect();
    let mut granted = 0;
    // Ten renewals of each.
    for round in 0..10 {
        for (n, name) in names.iter().enumerate() {
            let now = START
                .plus(DAY * 40 * round)
                .plus(Duration::from_secs(345 * n as u64));
            let order = Order {
                history: match round {
                    0 => History::New,
                    _ => History::Certified,
                },
                ..order(name, &tenant, Class::Renewal)
            };
            granted += u32::from(ledger.order(&book, &order, now).is_ok());
        }
        ledger.sweep(START.plus(DAY * 40 * (round + 1)));
    }
    assert_eq!(granted, 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the limits and shares, nobody is shut out for ever, and nobody gets more than the limit.
    #[test]
    fn a_denial_tells_when_it_ends(
        (amount, seconds) in (1_u32..500, 1_u64..1_000_000),
        parts in prop::array::uniform5(0.0_f64..=1.0),
        class in 0_usize..4,
    ) {
        let [spend, emergencies, renewals, visitors, share] = parts;
        let shares = Shares { spend, emergencies, renewals, visitors, tenant: share };
        let limit = Limit::new(amount, Duration::from_secs(seconds));
        let limits = Limits { orders: Some(limit), ..Limits::none("x") };
        let (book, mut ledger) = (book(limits, shares), Ledger::new());
        let (names, tenant) = ([pattern("a.test")], tenant("acme"));
        let order = order(&names, &tenant, Class::ALL[class]);
        let (mut granted, mut now) = (0, START);
        for _ in 0..50 {
            match ledger.order(&book, &order, now) {
                Ok(_) => granted += 1,
                Err(_) => {
                    // The common bucket may have to wait, then the tenant's, then the common one for more.
                    let mut denials = 0;
                    while let Err(denied) = ledger.order(&book, &order, now) {
                        prop_assert!(denied.retry_after > Duration::ZERO && denials < 3);
                        now = now.plus(denied.retry_after);
                        denials += 1;
                    }
                    granted += 1;
                }
            }
        }
        // Never more than the limit itself allows.
        let most = u128::from(amount) + now.since(START).as_nanos() * u128::from(amount) / limit.period().as_nanos() + 1;
        prop_assert!(granted <= most, "{granted} of {most}");
    }
}
