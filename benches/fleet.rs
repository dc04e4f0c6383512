//! A fleet through the pure cores, larger than the tests': how evenly it renews, and what an outage does to it.
//!
//! `cargo bench --bench fleet -- --names 1000000`; 10,000 names unless said. A line for each scenario; ends with a failure
//! where a promise is broken: more than 1.5 between the peak and the mean of renewals a minute (over the window that
//! `Report::window` explains), an order beyond the budget, a 90- or 45-day certificate that expires, with an outage of
//! 72 hours or without. What an outage does to six-day certificates is told, not judged.

#![expect(clippy::print_stdout, reason = "a benchmark reports to people")]

use std::time::Duration;

use vestibule::base::clock::monotonic;
use vestibule::certs::fleet::{Begin, Plan, Report, longest_outage, simulate};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// Of what Let's Encrypt calls short-lived.
const SIX_DAYS: Duration = Duration::from_secs(160 * 3600);
const OUTAGE: Duration = Duration::from_secs(72 * 3600);
/// The fleet of the tests; the longest outage is looked for among so many names at most.
const USUAL: u32 = 10_000;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let after = words.iter().skip_while(|word| *word != "--names").nth(1);
    let names = after.and_then(|word| word.parse().ok()).unwrap_or(USUAL);
    evenly(names);
    outages(names);
    six_days(names);
}

fn evenly(names: u32) {
    for (days, begin) in [
        (90, Begin::AllAges),
        (90, Begin::AllAtOnce),
        (45, Begin::AllAges),
    ] {
        let plan = Plan {
            begin,
            ..Plan::new(names, DAY * days)
        };
        let what = match begin {
            Begin::AllAges => "of all ages",
            Begin::AllAtOnce => "all begun at once",
        };
        let report = tell(&format!("{days} days, {what}"), &plan);
        let even = report.peak_to_mean() <= 1.5;
        assert!(even && report.expired == 0, "a promise is broken: {report}");
    }
}

fn outages(names: u32) {
    for days in [90, 45] {
        let plan = Plan {
            outage: Some((DAY * 100, OUTAGE)),
            over: DAY * 200,
            ..Plan::new(names, DAY * days)
        };
        let report = tell(&format!("{days} days, CA away for 72 h"), &plan);
        assert!(report.expired == 0, "a promise is broken: {report}");
    }
}

fn six_days(names: u32) {
    let plan = Plan {
        over: DAY * 40,
        ..Plan::new(names, SIX_DAYS)
    };
    for hours in [72, 96] {
        let plan = Plan {
            outage: Some((DAY * 20, HOUR * hours)),
            ..plan.clone()
        };
        tell(&format!("160 hours, CA away for {hours} h"), &plan);
    }
    let fewer = Plan {
        over: DAY * 40,
        ..Plan::new(names.min(USUAL), SIX_DAYS)
    };
    let longest = longest_outage(&fewer).as_secs() / 3600;
    let names = fewer.names;
    println!("{names} names, 160 hours: none expires while the CA is away for {longest} h or less");
}

fn tell(what: &str, plan: &Plan) -> Report {
    let began = monotonic();
    let report = simulate(plan);
    let took = began.elapsed().as_secs_f64();
    let (names, days) = (plan.names, plan.over.as_secs() / 86_400);
    println!("{names} names, {what}, {days} days ({took:.1} s): {report}");
    assert!(report.overdrawn == 0, "a promise is broken: {report}");
    report
}
