//! How a name is proved to a CA: on port 80, on port 443, and by the other where one does not work.

use crate::support::edge::{Edge, Setup};
use crate::support::pebble::Pebble;
use crate::support::place::{Place, port};
use crate::support::upstream::Upstream;

const NAME: &str = "shop.example.com";
const ISSUED: &[&str] = &["outcome=\"issued\""];
const BY_HTTP: &[&str] = &["kind=\"http-01\"", "outcome=\"memory\""];
const BY_TLS: &[&str] = &["kind=\"tls-alpn-01\"", "outcome=\"memory\""];

/// An edge for [`NAME`] that tries the kinds in this order, and again soon.
fn setup(place: &Place, pebble: &Pebble, upstream: &Upstream, kinds: &[&str]) -> Setup {
    let settings = format!("[certificates]\nchallenges = {kinds:?}\nfirst_retry = \"200ms\"");
    Setup::new(place)
        .ca(pebble)
        .upstream(upstream)
        .tenant("acme", &[NAME])
        .replace("[certificates]", &settings)
}

/// Nobody answers where the CA looks for HTTP-01.
fn without_port_80(setup: Setup, place: &Place) -> Setup {
    let usual = format!("http = [\"{}\"]", place.at(port::HTTP));
    let other = format!("http = [\"{}\"]", place.at(port::HTTP + 1));
    setup.replace(&usual, &other)
}

/// Nobody answers where the CA looks for TLS-ALPN-01.
fn without_port_443(setup: Setup, place: &Place) -> Setup {
    let usual = format!("https = [\"{}\"]", place.at(port::HTTPS));
    let other = format!("https = [\"{}\"]", place.at(port::HTTPS + 1));
    setup.replace(&usual, &other)
}

fn asked(edge: &Edge, labels: &[&str]) -> u32 {
    let sum = edge.metrics().sum("proxy_challenges_total", labels);
    (0..).find(|count| f64::from(*count) >= sum).unwrap()
}

#[test]
fn with_port_80_closed_a_name_is_certified_by_tls_alpn_01_alone() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = setup(&place, &pebble, &upstream, &["tls-alpn-01"]);
    let edge = without_port_80(setup, &place).start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    let answer = edge.get(&format!("https://{NAME}/")).answered();
    assert_eq!(answer.status, 200);
    assert_eq!(pebble.orders(), 1);
    assert!(asked(&edge, BY_TLS) >= 1);
    assert_eq!(asked(&edge, &["kind=\"http-01\""]), 0);
}

#[test]
fn where_one_kind_fails_the_next_attempt_proves_the_name_by_the_other() {
    type Closed = fn(Setup, &Place) -> Setup;
    let cases: [(&[&str], Closed, &[&str]); 2] = [
        (&["http-01", "tls-alpn-01"], without_port_80, BY_TLS),
        (&["tls-alpn-01", "http-01"], without_port_443, BY_HTTP),
    ];
    for (kinds, closed, by) in cases {
        let place = Place::claim();
        let pebble = Pebble::start(&place);
        let upstream = Upstream::start(&place);
        let setup = closed(setup(&place, &pebble, &upstream, kinds), &place);
        let edge = setup.start();
        edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
        assert_eq!(pebble.orders(), 2, "one for each kind");
        assert!(asked(&edge, by) >= 1, "{kinds:?}");
    }
}
