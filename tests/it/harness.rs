//! The harness alone, so that a story that fails is about the program.

use crate::support::curl;
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::visitor;
use crate::support::wire::{Mood, Wire};

#[test]
fn places_differ() {
    let places: Vec<Place> = (0..20).map(|_| Place::claim()).collect();
    let mut addresses: Vec<_> = places.iter().map(Place::address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), places.len());
}

#[test]
fn the_ca_answers_directly_and_through_the_wire() {
    let place = Place::claim();
    let mut pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Pass);
    let directory = |url: &str, root| curl::get(url).trusting(root).answered();

    let direct = directory(pebble.directory(), pebble.server_root());
    assert!(direct.body.contains("order-plz"), "{}", direct.body);
    let through = directory(wire.directory(), wire.root());
    let own = wire.directory().trim_end_matches("dir");
    assert!(
        through.body.contains(&format!("{own}order-plz")),
        "the CA's URLs lead through the wire: {}",
        through.body
    );
    assert_eq!(wire.seen(), ["/dir"]);
    assert_eq!((pebble.orders(), pebble.issued()), (0, 0));

    wire.become_(Mood::Failing);
    let failing = directory(wire.directory(), wire.root());
    assert_eq!(failing.status, 500);

    pebble.stop();
    let gone = curl::get(pebble.directory())
        .trusting(pebble.server_root())
        .send();
    assert_eq!(gone.unwrap_err().exit, 7, "connection refused");
}

#[test]
fn the_upstream_echoes_asks_and_breaks() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let url = |path: &str| format!("http://{}{path}", upstream.address());

    let echo = curl::get(&url("/a?b=c"))
        .with(["-H", "X-Team: blue"])
        .answered();
    assert_eq!(echo.status, 200);
    let seen: serde_json::Value = serde_json::from_str(&echo.body).unwrap();
    assert_eq!(seen["target"], "/a?b=c");
    assert!(echo.body.contains(r#"["x-team","blue"]"#), "{}", echo.body);

    upstream.allow("shop.example");
    let allowed = |name: &str| {
        curl::get(&url("/allow"))
            .with(["-G", "-d", &format!("domain={name}")])
            .answered()
            .status
    };
    assert_eq!(
        (allowed("shop.example"), allowed("other.example")),
        (200, 403)
    );
    assert_eq!(upstream.asked(), ["shop.example", "other.example"]);
    assert_eq!(upstream.requests(), 1);

    let broken = curl::get(&url("/broken")).send();
    assert_eq!(broken.unwrap_err().exit, 52, "empty reply");
}

#[test]
fn openssl_says_what_the_handshake_was() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let address = place.at(crate::support::place::port::ACME);
    let said = visitor::openssl(address, None, pebble.server_root());
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}
