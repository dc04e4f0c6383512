//! A CA, or a gateway before it, that goes wrong at one request of an issuance, whichever it is: the next attempt comes
//! when it may, takes the order up, and ends in a certificate; meanwhile nothing tampered with is served.

use std::time::Duration;

use crate::support::edge::{AT_ONCE, Edge, Setup};
use crate::support::fault::{ASKED_TO_WAIT, Fault};
use crate::support::pebble::{Pebble, Terms};
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait;
use crate::support::wire::{Mood, Step, Wire};

const RENEWED: &[&str] = &["kind=\"renewal\"", "outcome=\"issued\""];

/// What a tenant is told, and how many orders it may cost.
struct Expected {
    code: &'static str,
    /// Where the CA has taken the order and its answer is lost, a second one cannot be helped.
    second_order: &'static [Step],
    /// Whether the CA says when to come back.
    waits: bool,
    /// How long an attempt may take.
    deadline: &'static str,
    /// What the log says was seen.
    evidence: &'static str,
}

const OUTAGE: Expected = Expected {
    code: "ca_outage",
    second_order: &[],
    waits: false,
    deadline: "5s",
    evidence: "",
};

#[test]
fn a_rate_limit_at_any_step_is_waited_out() {
    let expected = Expected {
        code: "rate_limited_account",
        waits: true,
        ..OUTAGE
    };
    at_every_step(Fault::RateLimited, &expected);
}

#[test]
fn a_busy_ca_at_any_step_is_waited_for() {
    let expected = Expected {
        waits: true,
        ..OUTAGE
    };
    at_every_step(Fault::Busy, &expected);
}

#[test]
fn a_gateways_page_at_any_step_is_an_outage() {
    at_every_step(Fault::Gateway, &OUTAGE);
}

#[test]
fn half_an_answer_at_any_step_is_an_outage() {
    let expected = Expected {
        second_order: &[Step::Order],
        ..OUTAGE
    };
    at_every_step(Fault::Truncated, &expected);
}

#[test]
fn silence_at_any_step_is_an_outage() {
    in_turn(&Step::ALL[2..], Fault::Hung, &OUTAGE);
}

/// Opening an account is one call for all who wait for it, whatever becomes of them, and ends by its own deadline.
#[test]
fn silence_about_the_account_holds_nobody_for_longer_than_a_call_may_take() {
    let expected = Expected {
        deadline: "50s",
        ..OUTAGE
    };
    in_turn(&[Step::Account], Fault::Hung, &expected);
}

#[test]
fn a_certificate_that_was_tampered_with_never_serves() {
    const UNSIGNED: &str = "certificate 0 is not signed by the next one";
    const NOT_NOW: &str = "certificate 0 is valid from";
    for (fault, evidence) in [
        (
            Fault::OtherKey,
            "the certificate holds another key than ours",
        ),
        (Fault::OtherSignature, UNSIGNED),
        (Fault::OtherChain, UNSIGNED),
        (Fault::Expired, NOT_NOW),
        (Fault::NotYet, NOT_NOW),
    ] {
        let expected = Expected {
            code: "ca_rejected",
            second_order: &[Step::Certificate],
            evidence,
            ..OUTAGE
        };
        in_turn(&[Step::Certificate], fault, &expected);
    }
}

fn at_every_step(fault: Fault, expected: &Expected) {
    let (directory, others) = Step::ALL.split_first().unwrap();
    in_turn(&[*directory], fault, expected);
    in_turn(others, fault, expected);
}

/// First visits, each of a name of its own, with one fault each.
fn in_turn(steps: &[Step], fault: Fault, expected: &Expected) {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Pass);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .upstream(&upstream)
        .asking(&upstream)
        .replace(
            AT_ONCE,
            &format!(
                "first_retry = \"500ms\"\nattempt_deadline = {:?}",
                expected.deadline
            ),
        );
    let edge = setup.start();
    if !steps.contains(&Step::Directory) && !steps.contains(&Step::Account) {
        upstream.allow("first.example.com");
        edge.get("https://first.example.com/").answered();
    }
    for (number, step) in steps.iter().enumerate() {
        let name = format!("n{number}.example.com");
        let what = format!("{fault:?} at {step:?}");
        upstream.allow(&name);
        let placed = wire.placed();
        wire.become_(Mood::Fault(*step, fault));
        let url = format!("https://{name}/");
        if let Err(refused) = edge.get(&url).send() {
            assert_eq!(refused.exit, 35, "{what}: {}", refused.words);
            told(&setup, &name, &what, expected);
        }
        wait::until(&format!("{what}: the name is served"), || {
            edge.get(&url).send().ok()
        });
        assert!(wire.has_faulted(), "{what}: nothing went wrong");
        let seen = edge.process.count(expected.evidence);
        assert!(seen > 0, "{what}: not seen as that");
        let orders = wire.placed() - placed;
        let most = 1 + usize::from(expected.second_order.contains(step));
        assert!(orders <= most, "{what}: {orders} orders");
        // Not at all, where another request of the same kind was on its way.
        if let Some(again) = wire.asked_again_after(*step).filter(|_| expected.waits) {
            let asked = Duration::from_secs(ASKED_TO_WAIT);
            assert!(again >= asked, "{what}: asked again after {again:?}");
        }
    }
    let told = edge.metrics().sum("proxy_task_panics_total", &[]);
    assert_eq!(told, 0.0);
}

/// The problem, where the next attempt has not cured it already.
fn told(setup: &Setup, name: &str, what: &str, expected: &Expected) {
    let shown = setup.succeed(&["domain", "show", name, "--json", "--config", "proxy.toml"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let problem = &shown["problem"];
    if problem.is_null() {
        return;
    }
    assert_eq!(problem["code"], expected.code, "{what}: {shown}");
    assert!(problem["next_retry_at"].is_string(), "{what}: {shown}");
}

#[test]
fn the_old_certificate_serves_while_its_renewals_go_wrong() {
    let place = Place::claim();
    let terms = Terms {
        lifetime: Duration::from_secs(20),
        ..Terms::default()
    };
    let pebble = Pebble::start_with(&place, terms);
    let wire = Wire::start(&place, &pebble, Mood::Pass);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com"])
        // Every certificate is due for renewal two seconds after it came.
        .replace(
            AT_ONCE,
            &format!(
                "{AT_ONCE}\nrenew_short_after = 0.1\nfirst_retry = \"200ms\"\nattempt_deadline = \"5s\""
            ),
        );
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", RENEWED, 1.0);
    for step in [Step::Nonce, Step::Order, Step::Finalize, Step::Certificate] {
        for fault in [Fault::Gateway, Fault::Truncated] {
            renews_in_spite_of(&edge, &wire, step, fault);
        }
    }
    for fault in [Fault::OtherKey, Fault::OtherSignature] {
        renews_in_spite_of(&edge, &wire, Step::Certificate, fault);
    }
    assert!(
        edge.metrics().sum(
            "proxy_issuances_total",
            &["kind=\"renewal\"", "outcome=\"failed\""]
        ) > 0.0
    );
}

fn renews_in_spite_of(edge: &Edge, wire: &Wire, step: Step, fault: Fault) {
    wire.become_(Mood::Fault(step, fault));
    // Whoever comes at any time meets a certificate of the CA.
    let visit = || {
        let visitor = Visitor::connect(edge.https(), "shop.example.com", edge.trusted());
        let mut visitor = visitor.unwrap_or_else(|error| panic!("{fault:?} at {step:?}: {error}"));
        assert_eq!(visitor.get("/").unwrap().0.status, 200);
    };
    wait::until(&format!("{fault:?} at {step:?} happens"), || {
        visit();
        wire.has_faulted().then_some(())
    });
    let renewals = edge.metrics().sum("proxy_issuances_total", RENEWED);
    wait::until(&format!("a renewal after {fault:?} at {step:?}"), || {
        visit();
        (edge.metrics().sum("proxy_issuances_total", RENEWED) > renewals).then_some(())
    });
}
