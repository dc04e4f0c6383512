//! A CA that is away, slow, broken or not who it says: known names go on, new ones fail by name and recover.

use std::time::Duration;

use crate::support::edge::Setup;
use crate::support::pebble::{Pebble, Terms};
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::wait;
use crate::support::wire::{Mood, Wire};

#[test]
fn whatever_the_ca_answers_known_names_go_on_and_new_ones_are_refused() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Pass);
    let upstream = Upstream::start(&place);
    let edge = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .upstream(&upstream)
        .asking(&upstream)
        .tenant("acme", &["known.example.com"])
        .replace("[on_demand]", "[on_demand]\ndeadline = \"2s\"")
        .start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);

    for (mood, name) in [
        (Mood::Garbage, "garbage.example.com"),
        (Mood::Failing, "failing.example.com"),
        (Mood::Silent, "silent.example.com"),
    ] {
        wire.become_(mood);
        upstream.allow(name);
        let refused = edge.get(&format!("https://{name}/")).send().unwrap_err();
        assert_eq!(refused.exit, 35, "{mood:?}: {}", refused.words);
        let known = edge.get("https://known.example.com/").answered();
        assert_eq!(known.status, 200, "{mood:?}");
        assert_eq!(edge.health("/readyz"), Some(200), "{mood:?}");
    }
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn a_ca_that_hangs_holds_up_no_name_of_another() {
    /// More names than issuances run at once.
    const HUNG: usize = 40;
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Silent);
    let upstream = Upstream::start(&place);
    let names: Vec<String> = (0..HUNG).map(|n| format!("n{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hung = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .tenant("acme", &names);
    let edge = hung.start();
    // All but a quarter of the places.
    edge.wait_for_metric("proxy_jobs", &["state=\"running\""], 12.0);
    let quick = "[[tenant]]\nname = \"own\"\ndomains = [\"quick.example.com\"]\nca = [\"own\"]";
    edge.reload(&hung.section(quick));
    let answer = wait::until("the other CA's name is served", || {
        edge.get("https://quick.example.com/").send().ok()
    });
    assert_eq!(answer.status, 200);
    let issued = ["ca=\"own\"", "outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &issued, 1.0);
    let ready = edge.metrics().sum("proxy_ca_ready", &["ca=\"test\""]);
    assert_eq!(ready, 1.0, "nobody has given the other one up yet");
    assert_eq!(pebble.requests(), 0);
}

#[test]
fn a_ca_slower_than_the_handshake_is_waited_for_by_the_issuance() {
    let place = Place::claim();
    let terms = Terms {
        validation_delay: Duration::from_secs(4),
        ..Terms::default()
    };
    let pebble = Pebble::start_with(&place, terms);
    let upstream = Upstream::start(&place);
    upstream.allow("slow.example.com");
    let edge = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .asking(&upstream)
        .replace("[on_demand]", "[on_demand]\ndeadline = \"1s\"")
        .start();

    let refused = edge.get("https://slow.example.com/").send().unwrap_err();
    assert_eq!(refused.exit, 35, "{}", refused.words);
    let refusals = ["reason=\"issuance_deadline\""];
    edge.wait_for_metric("proxy_handshakes_total", &refusals, 1.0);
    let answer = wait::until("the issuance ends after the handshake", || {
        edge.get("https://slow.example.com/").send().ok()
    });
    assert_eq!(answer.status, 200);
    assert_eq!(pebble.orders(), 1, "the one that the first visitor began");
}

#[test]
fn an_edge_starts_and_serves_what_it_has_while_its_ca_cannot_be_reached() {
    let place = Place::claim();
    let mut pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place).ca(&pebble).upstream(&upstream);
    let known = setup.clone().tenant("acme", &["old.example.com"]);
    let mut edge = known.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);
    assert!(edge.stop().success());
    pebble.stop();

    let edge = setup
        .tenant("acme", &["old.example.com", "new.example.com"])
        .start();
    let old = edge.get("https://old.example.com/").answered();
    assert_eq!(old.status, 200);
    let new = edge.get("https://new.example.com/").send().unwrap_err();
    assert_eq!(new.exit, 35, "{}", new.words);
    let outage = ["code=\"ca_outage\""];
    edge.wait_for_metric("proxy_issuance_problems_total", &outage, 1.0);
}

#[test]
fn a_ca_under_an_unknown_root_is_told_nothing() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    // The root of the certificates that it issues is not the root of its own server.
    let edge = Setup::new(&place)
        .acme(pebble.directory(), pebble.issuing_root())
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com"])
        .start();
    let outage = ["code=\"ca_outage\""];
    edge.wait_for_metric("proxy_issuance_problems_total", &outage, 1.0);
    assert_eq!(pebble.requests(), 0, "no request without a trusted server");
}

#[test]
fn a_reload_brings_another_ca_while_the_only_one_is_away_and_takes_it_out_again() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let nobody = format!("https://{}:9/dir", place.address());
    let base = Setup::new(&place).upstream(&upstream);
    let with = |setup: &Setup| setup.clone().tenant("acme", &["shop.example.com"]);
    let away = |setup: &Setup| {
        let first = setup.clone().acme(&nobody, pebble.server_root());
        first.replace("name = \"test\"", "name = \"away\"")
    };
    let names = |setup: &Setup| -> Vec<String> {
        let said = setup.succeed(&["ca", "list", "--json"]);
        let named = said.lines().map(|line| {
            let ca: serde_json::Value = serde_json::from_str(line).unwrap();
            ca["name"].as_str().unwrap().to_owned()
        });
        named.collect()
    };
    let alone = with(&away(&base));
    let edge = alone.start();
    let outage = ["code=\"ca_outage\""];
    edge.wait_for_metric("proxy_issuance_problems_total", &outage, 1.0);
    assert_eq!(names(&alone), ["away"]);

    let both = with(&away(&base).ca(&pebble));
    both.write();
    both.succeed(&["reload"]);
    assert_eq!(names(&both), ["away", "test"]);
    both.succeed(&["domain", "retry", "shop.example.com"]);
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);
    let visit = edge.get("https://shop.example.com/");
    let answer = visit.trusting(pebble.issuing_root()).answered();
    assert_eq!(answer.status, 200);

    let last = with(&base.ca(&pebble));
    last.write();
    last.succeed(&["reload"]);
    assert_eq!(names(&last), ["test"]);
    let page = edge.page("/metrics").body;
    assert!(page.contains("proxy_ca_ready{ca=\"test\"} 1"), "{page}");
    assert!(!page.contains("ca=\"away\"} 0"), "{page}");
    assert_eq!(edge.health("/readyz"), Some(200));
}
