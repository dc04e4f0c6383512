//! The main job: a name that has no certificate yet gets one while its first visitor waits.

use std::process::Command;

use crate::support::edge::{AT_ONCE, Setup};
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::visitor;

const SERVED: &str = "outcome=\"served\"";

#[test]
fn the_first_handshake_issues_and_the_upstream_answers() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    upstream.allow("shop.example.com");
    let edge = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .asking(&upstream)
        .start();
    assert_eq!(pebble.orders(), 0, "nothing is ordered before a visitor");

    // curl checks the chain up to the CA's root, and the name.
    let first = edge
        .get("https://shop.example.com/basket?item=1")
        .answered();
    assert_eq!(first.status, 200);
    assert!(
        first.body.contains(r#""target":"/basket?item=1""#),
        "{}",
        first.body
    );
    assert_eq!((pebble.orders(), pebble.issued()), (1, 1));

    let second = edge.get("https://shop.example.com/").answered();
    assert_eq!(second.status, 200);
    let said = visitor::openssl(edge.https(), Some("shop.example.com"), edge.trusted());
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(said.contains("TLSv1.3"), "{said}");
    assert_eq!(pebble.orders(), 1, "later visitors are served from memory");
    assert_eq!(upstream.asked(), ["shop.example.com"]);
}

#[test]
fn a_declared_name_waits_for_its_first_visitor() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let edge = Setup::new(&place)
        .replace(AT_ONCE, "obtain = \"at-first-visit\"")
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com", "www.example.com"])
        .start();
    let answer = edge.get("https://shop.example.com/").answered();
    assert_eq!(answer.status, 200);
    assert_eq!(pebble.orders(), 1, "the name that nobody visited has none");
    let issued = ["outcome=\"served\"", "origin=\"issued\""];
    edge.wait_for_metric("proxy_handshakes_total", &issued, 1.0);
}

#[test]
fn a_declared_name_is_certified_before_anyone_visits_where_that_is_wanted() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let edge = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com", "www.example.com"])
        .start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 2.0);
    for name in ["shop.example.com", "www.example.com"] {
        let answer = edge.get(&format!("https://{name}/")).answered();
        assert_eq!(answer.status, 200, "{name}");
    }
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn two_hundred_first_handshakes_of_one_name_make_one_order() {
    const VISITORS: usize = 200;
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    upstream.allow("busy.example.com");
    let edge = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .asking(&upstream)
        .replace("[on_demand]", "[on_demand]\nwaiters = 200")
        .start();

    let address = edge.https();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--http1.1", "--noproxy", "*"])
        .args(["--parallel", "--parallel-immediate"])
        .args(["--parallel-max", &VISITORS.to_string(), "--max-time", "60"])
        .args([
            "--connect-to",
            &format!("::{}:{}", address.ip(), address.port()),
        ])
        .arg("--cacert")
        .arg(edge.trusted())
        .args(["--output", "/dev/null", "--write-out", "%{http_code}\n"])
        .arg(format!("https://busy.example.com/?visitor=[1-{VISITORS}]"))
        .output()
        .unwrap();
    let statuses = String::from_utf8(output.stdout).unwrap();
    let answered = statuses.lines().filter(|status| *status == "200").count();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(answered, VISITORS, "{complaint}");
    assert_eq!((pebble.orders(), pebble.issued()), (1, 1));
    assert_eq!(upstream.requests(), VISITORS);
    assert_eq!(upstream.asked(), ["busy.example.com"], "one question too");
    let connections = edge.metrics().sum("proxy_handshakes_total", &[SERVED]);
    assert!(connections > 100.0, "curl opened {connections} connections");
}

#[test]
fn an_unknown_name_makes_no_order_and_is_refused_by_name() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let edge = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com"])
        .start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);

    for name in [Some("nobody.example.com"), Some("example.com"), None] {
        let said = visitor::openssl(edge.https(), name, edge.trusted());
        // RFC 6066 §3: unrecognized_name is alert 112.
        assert!(
            said.contains("unrecognized name") || said.contains("alert number 112"),
            "{name:?}: {said}"
        );
        assert!(said.contains("no peer certificate available"), "{said}");
    }
    let refused = edge.get("https://nobody.example.com/").send().unwrap_err();
    assert_eq!(refused.exit, 35, "a TLS failure: {}", refused.words);
    assert_eq!(pebble.orders(), 1, "for the known name");
    let unknown = ["reason=\"unknown_name\""];
    edge.wait_for_metric("proxy_handshakes_total", &unknown, 3.0);
    edge.wait_for_metric(
        "proxy_handshakes_total",
        &["reason=\"no_server_name\""],
        1.0,
    );
}

#[test]
fn a_name_that_the_hook_denies_is_refused_and_costs_one_question() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let edge = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .asking(&upstream)
        .start();
    for _ in 0..5 {
        let refused = edge
            .get("https://stranger.example.com/")
            .send()
            .unwrap_err();
        assert_eq!(refused.exit, 35, "a TLS failure: {}", refused.words);
    }
    assert_eq!(upstream.asked(), ["stranger.example.com"]);
    assert_eq!((pebble.orders(), upstream.requests()), (0, 0));
}
