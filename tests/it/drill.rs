//! What would happen if: told by the running program, which serves on.

use std::fs;

use serde_json::{Value, json};

use crate::support::edge::Setup;
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::wait::{self, PATIENCE};

const NAMES: [&str; 3] = ["a.example.com", "b.example.net", "c.example.org"];
const ISSUED: &[&str] = &["outcome=\"issued\""];

fn drill(setup: &Setup) -> Value {
    let said = setup.succeed(&["drill", "--json"]);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_drill_tells_what_outages_and_a_lost_key_file_do_while_neither_hurts() {
    let place = Place::claim();
    let mut pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let unnamed = Setup::new(&place)
        .ca(&pebble)
        .replace(
            "terms_agreed = true",
            "terms_agreed = true\nlimits = { orders = \"5/1d\", renewals = \"charged\" }",
        )
        .section("[[ca]]\nname = \"own\"\nkind = \"private\"\nlifetime = \"6d\"")
        .section("[budget]\nspend = 0.8")
        .upstream(&upstream)
        .tenant("acme", &NAMES);
    // Unless the tenant names it, the private one takes over nothing.
    let setup = unnamed.clone().replace(
        "name = \"acme\"",
        "name = \"acme\"\nca = [\"test\", \"own\"]",
    );
    let mut edge = unnamed.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 3.0);
    let next = &drill(&unnamed)["cas"][0]["next"][0];
    assert_eq!(
        (&next["ca"], &next["certificates"]),
        (&Value::Null, &json!(3))
    );
    edge.reload(&setup);
    wait::until("the private one is next", || {
        (drill(&setup)["cas"][0]["next"][0]["ca"] == "own").then_some(())
    });

    // With the CA there and gone: it is not asked.
    let there = drill(&setup);
    pebble.stop();
    let gone = drill(&setup);
    for told in [&there, &gone] {
        assert_eq!(
            (&told["certificates"], &told["complete"]),
            (&json!(3), &json!(true))
        );
        assert_eq!(told["speed"]["from"], "assumed");
        let ca = &told["cas"][0];
        assert_eq!(
            (&ca["ca"], &ca["certificates"]),
            (&json!("test"), &json!(3))
        );
        // Four a day are spent of five, one each six hours, and three of them are gone.
        assert_eq!(ca["replacing"]["bound_by"], "orders");
        let seconds = ca["replacing"]["seconds"].as_u64().unwrap();
        assert_eq!(seconds, 2 * 6 * 3600, "{ca}");
        assert_eq!(ca["outages"][1]["seconds"], 72 * 3600);
        assert_eq!(ca["outages"][1]["expired"], 0);
        let next = &ca["next"][0];
        assert_eq!(
            (&next["ca"], &next["certificates"]),
            (&json!("own"), &json!(3))
        );
        assert_eq!(next["takes"]["bound_by"], "speed");
        let keys = &told["keys"];
        assert_eq!(
            (&keys["opened"], &keys["unreadable"]),
            (&json!(3), &json!(0))
        );
        assert_eq!(keys["restart_fails"], Value::Null);
    }
    assert_eq!(pebble.orders(), 3);
    let for_people = setup.succeed(&["drill", "--rate", "1"]);
    for said in [
        "1.0 a second, as asked",
        "bound by its limit of orders",
        "own takes over 3, all of them in 3s",
        "would open the store with it",
    ] {
        assert!(for_people.contains(said), "no {said:?} in {for_people}");
    }

    // The key file is lost: told, and true. What runs serves on, and obtains: another name, of the other CA.
    let key = place.folder().join("keys/edge.key");
    let kept = key.with_extension("kept");
    fs::rename(&key, &kept).unwrap();
    let lost = drill(&setup);
    let why = lost["keys"]["restart_fails"].as_str().unwrap();
    assert!(why.contains("edge.key"), "{why}");
    assert_eq!(lost["keys"]["opened"], 3);
    let more = setup
        .clone()
        .section("[[tenant]]\nname = \"globex\"\ndomains = [\"d.example.com\"]\nca = [\"own\"]");
    edge.reload(&more);
    edge.wait_for_metric(
        "proxy_issuances_total",
        &["outcome=\"issued\"", "ca=\"own\""],
        1.0,
    );
    assert_eq!(drill(&more)["keys"]["opened"], 4);
    for name in NAMES {
        assert_eq!(edge.get(&format!("https://{name}/")).answered().status, 200);
    }
    assert!(edge.stop().success());
    let mut refused = more.launch();
    assert!(!refused.process.wait_for_exit(PATIENCE).success());
    fs::rename(&kept, &key).unwrap();
    let edge = more.start();
    for name in NAMES {
        assert_eq!(edge.get(&format!("https://{name}/")).answered().status, 200);
    }
}
