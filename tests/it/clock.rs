//! A machine whose clock is wrong by weeks, through libfaketime: nothing is renewed for that, nobody is refused, and the
//! operator is told.

use std::path::PathBuf;

use crate::support::edge::{Edge, Setup};
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::wait;
use crate::support::wire::{Mood, Wire};

const OLD: &str = "old.example.com";
const NEW: &str = "new.example.com";

#[test]
fn a_clock_weeks_ahead_or_behind_renews_nothing_refuses_nobody_and_is_told() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Pass);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place).ca_at(&pebble, &wire).upstream(&upstream);
    let one = setup.clone().tenant("acme", &[OLD]);
    let mut edge = one.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);
    assert!(edge.stop().success());

    // A certificate of 90 days is due after 60, give or take six.
    let mut edge = at("+70d", &one).start();
    serves(&edge, OLD);
    told(&edge, "ahead of");
    assert_eq!(wire.placed(), 1);
    assert!(edge.stop().success());

    // What is issued now is valid from a day that this machine has not come to yet.
    let two = setup.tenant("acme", &[OLD, NEW]);
    let edge = at("-40d", &two).start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);
    for name in [OLD, NEW] {
        serves(&edge, name);
    }
    told(&edge, "behind");
    assert_eq!(wire.placed(), 2);
    assert_eq!(edge.metrics().sum("proxy_task_panics_total", &[]), 0.0);
}

fn serves(edge: &Edge, name: &str) {
    let answer = edge.get(&format!("https://{name}/")).answered();
    assert_eq!(answer.status, 200, "{name}");
}

fn told(edge: &Edge, how: &str) {
    wait::until("/readyz tells of the clock", || {
        let page = edge.page("/readyz").body;
        (page.contains("clock is") && page.contains(how)).then_some(())
    });
    assert_eq!(edge.health("/readyz"), Some(200), "it serves all the same");
}

/// The same start on a machine whose clock is off by so much.
fn at(offset: &str, setup: &Setup) -> Setup {
    let library = library();
    setup
        .clone()
        .environment("LD_PRELOAD", library.to_str().unwrap())
        .environment("FAKETIME", offset)
        .environment("DONT_FAKE_MONOTONIC", "1")
}

/// Debian's `faketime` has it in a folder of the machine's architecture.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let mut found = folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .filter(|path| path.exists());
    found
        .next()
        .unwrap_or_else(|| panic!("no libfaketime: scripts/test packages installs it"))
}
