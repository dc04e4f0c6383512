//! What survives: an edge that was stopped, killed or copied serves what it served, without its CA.

use std::fs;

use crate::support;
use crate::support::edge::{AT_ONCE, Edge, Setup};
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait;
use crate::support::wire::{Mood, Side, Step, Wire};

const NAMES: [&str; 3] = ["a.example.com", "b.example.com", "c.example.com"];

#[test]
fn a_restart_serves_from_the_store_with_the_ca_stopped() {
    let place = Place::claim();
    let mut pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &NAMES);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 3.0);
    let before = certificates(&setup, &edge);
    assert!(edge.stop().success());
    pebble.stop();

    let edge = setup.start();
    assert_eq!(certificates(&setup, &edge), before, "the very certificates");
    for name in NAMES {
        assert_eq!(edge.get(&format!("https://{name}/")).answered().status, 200);
    }
    assert_eq!(pebble.orders(), 3);
}

/// Eighteen places in one issuance: before the CA sees each request, and after it has acted but before the edge knows.
#[test]
fn a_kill_at_any_step_of_an_issuance_costs_at_most_one_more_order() {
    let places = Step::ALL
        .into_iter()
        .flat_map(|step| [(step, Side::Before), (step, Side::After)]);
    for (step, side) in places.cycle().take(support::rounds(20)) {
        killed_at(step, side);
    }
}

fn killed_at(step: Step, side: Side) {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Hold(step, side));
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com"]);
    let mut edge = setup.start();
    wire.wait_until_holding();
    edge.process.kill();
    wire.release();

    let edge = setup.start();
    let answer = wait::until("the successor serves the name", || {
        edge.get("https://shop.example.com/").send().ok()
    });
    assert_eq!(answer.status, 200, "{step:?} {side:?}");
    assert_eq!(pebble.accounts(), 1, "{step:?} {side:?}");
    let orders = wire.placed();
    assert!(orders <= 2, "{step:?} {side:?}: {orders} orders");
    let list = ["certificate", "list", "--json", "--config", "proxy.toml"];
    let published = setup.succeed(&list).lines().count();
    assert_eq!(published, 1, "{step:?} {side:?}");
    let exposed = edge.metrics();
    assert_eq!(exposed.sum("proxy_domains", &[]), 1.0, "{step:?} {side:?}");
}

fn certificates(setup: &Setup, edge: &Edge) -> Vec<Vec<u8>> {
    NAMES
        .iter()
        .map(|name| {
            Visitor::connect(edge.https(), name, setup.trusted())
                .unwrap()
                .certificate()
        })
        .collect()
}

/// Kills at moments that no one chose, on one data directory: what was served once is served after every restart, by
/// the same certificate.
#[test]
fn kills_at_any_moment_lose_nothing_that_was_served() {
    const PARALLEL: usize = 2;
    let kills = support::rounds(20);
    // About as many as it takes for the last kill to interrupt something.
    let count = kills;
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Pass);
    let upstream = Upstream::start(&place);
    let names: Vec<String> = (0..count).map(|n| format!("n{n}.example.com")).collect();
    let domains: Vec<&str> = names.iter().map(String::as_str).collect();
    let setup = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .upstream(&upstream)
        .tenant("acme", &domains)
        .replace(AT_ONCE, &format!("{AT_ONCE}\nparallel = {PARALLEL}"));

    let mut served: Vec<(usize, Vec<u8>)> = Vec::new();
    for kill in 0..kills {
        let heard = wire.seen().len();
        let mut edge = setup.start();
        for (name, certificate) in &served {
            let visitor = Visitor::connect(edge.https(), domains[*name], setup.trusted());
            let now = visitor.unwrap().certificate();
            assert!(now == *certificate, "kill {kill}: {}", domains[*name]);
        }
        // A different moment each time; none is left once every name has its certificate.
        let requests = 1 + kill * 7 % 13;
        wait::until("the issuances go on", || {
            (pebble.issued() >= count || wire.seen().len() >= heard + requests).then_some(())
        });
        served = (0..count)
            .filter_map(|name| {
                let visitor = Visitor::connect(edge.https(), domains[name], setup.trusted());
                Some((name, visitor.ok()?.certificate()))
            })
            .take(1 + kill % 3)
            .collect();
        edge.process.kill();
    }

    let edge = setup.start();
    for name in &domains {
        let answer = wait::until("every name is served in the end", || {
            edge.get(&format!("https://{name}/")).send().ok()
        });
        assert_eq!(answer.status, 200, "{name}");
    }
    let orders = pebble.orders();
    assert!(
        orders <= count + kills * PARALLEL,
        "{orders} orders for {count} names and {kills} kills"
    );
}

#[test]
fn a_backup_restored_on_an_empty_machine_serves_every_name_without_the_ca() {
    let place = Place::claim();
    let mut pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &NAMES);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 3.0);
    let before = certificates(&setup, &edge);
    let archive = place.folder().join("backup.tar");
    let archive = archive.to_str().unwrap();
    setup.succeed(&["backup", archive, "--config", "proxy.toml"]);
    let key = fs::read(place.folder().join("keys/edge.key")).unwrap();
    let bytes = fs::read(archive).unwrap();
    for secret in [&key[..], b"BEGIN PRIVATE KEY", b"BEGIN EC PRIVATE"] {
        let found = bytes.windows(secret.len()).any(|window| window == secret);
        assert!(!found, "the backup holds a key in the clear");
    }
    edge.process.kill();
    pebble.stop();

    // The new machine has the configuration, the key from its own safe, and the backup.
    fs::remove_dir_all(setup.data()).unwrap();
    setup.succeed(&["restore", archive, "--config", "proxy.toml"]);
    let edge = setup.start();
    assert_eq!(certificates(&setup, &edge), before);
    for name in NAMES {
        assert_eq!(edge.get(&format!("https://{name}/")).answered().status, 200);
    }

    // A directory that holds something is not written over.
    let again = setup.command(&["restore", archive, "--config", "proxy.toml"]);
    assert!(!again.status.success());
    assert_eq!(certificates(&setup, &edge), before);
}
