//! Many names at once, against a CA that makes it as hard as it can.

use std::time::Duration;

use crate::support::edge::Setup;
use crate::support::pebble::{Pebble, Terms};
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wire::{Mood, Wire};

const NAMES: usize = 200;

#[test]
fn two_hundred_names_cost_one_order_each_where_half_of_all_good_nonces_are_rejected() {
    let place = Place::claim();
    let terms = Terms {
        validation_delay: Duration::from_secs(3),
        environment: &[
            ("PEBBLE_WFE_NONCEREJECT", "50"),
            ("PEBBLE_AUTHZREUSE", "100"),
            ("PEBBLE_ALTERNATE_ROOTS", "2"),
            ("PEBBLE_CHAIN_LENGTH", "3"),
        ],
        ..Terms::default()
    };
    let pebble = Pebble::start_with(&place, terms);
    let wire = Wire::start(&place, &pebble, Mood::Pass);
    let upstream = Upstream::start(&place);
    let names: Vec<String> = (0..NAMES).map(|n| format!("n{n}.example.com")).collect();
    let domains: Vec<&str> = names.iter().map(String::as_str).collect();
    let edge = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .upstream(&upstream)
        .tenant("acme", &domains)
        .start();
    let issued = ["outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &issued, 200.0);
    for name in &domains {
        // It checks name, dates and the chain to the CA's root, through three intermediates.
        let visitor = Visitor::connect(edge.https(), name, edge.trusted());
        visitor.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!((wire.placed(), pebble.issued()), (NAMES, NAMES));
    let failed = ["outcome=\"failed\""];
    assert_eq!(edge.metrics().sum("proxy_issuances_total", &failed), 0.0);
}
