//! The command line against a running edge, as an operator and the support team use it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::edge::Setup;
use crate::support::pebble::Pebble;
use crate::support::place::{Place, port};
use crate::support::upstream::Upstream;
use crate::support::wait;
use crate::support::wire::{Mood, Wire};

const NAME: &str = "shop.example.com";
const FILE: [&str; 2] = ["--config", "proxy.toml"];

fn words<'a>(command: &[&'a str]) -> Vec<&'a str> {
    command.iter().copied().chain(FILE).collect()
}

#[test]
fn a_failing_domain_says_why_and_a_retry_repairs_it() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let wire = Wire::start(&place, &pebble, Mood::Failing);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca_at(&pebble, &wire)
        .upstream(&upstream)
        .tenant("acme", &[NAME]);
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"failed\""], 1.0);

    let shown = setup.succeed(&words(&["domain", "show", NAME]));
    assert!(shown.contains("ca_outage"), "{shown}");
    assert!(shown.contains("acme"), "{shown}");
    let unknown = setup.command(&words(&["domain", "show", "nobody.example.com"]));
    assert_eq!(unknown.status.code(), Some(1));

    wire.become_(Mood::Pass);
    setup.succeed(&words(&["domain", "retry", NAME]));
    let answer = wait::until("the retry issues", || {
        edge.get(&format!("https://{NAME}/")).send().ok()
    });
    assert_eq!(answer.status, 200);
    let shown = setup.succeed(&words(&["domain", "show", NAME]));
    assert!(shown.contains("active"), "{shown}");
    let listed = setup.succeed(&words(&["domain", "list", "--json"]));
    let domain: serde_json::Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!(domain["name"], NAME);
    let certificates = setup.succeed(&words(&["certificate", "list"]));
    assert!(certificates.contains(NAME), "{certificates}");
    let events = setup.succeed(&words(&["event", "list", "--tenant", "acme"]));
    assert!(events.contains("domain.retry_requested"), "{events}");
}

#[test]
fn a_reload_by_command_tells_what_became_of_it() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place).ca(&pebble).upstream(&upstream);
    let edge = setup.start();

    setup.clone().tenant("acme", &[NAME]).write();
    setup.succeed(&words(&["reload"]));
    let answer = wait::until("the new name is served", || {
        edge.get(&format!("https://{NAME}/")).send().ok()
    });
    assert_eq!(answer.status, 200);

    setup.clone().section("[[tenant]]\nnam = \"acme\"").write();
    let broken = setup.command(&words(&["reload"]));
    assert!(!broken.status.success());
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(said.contains("nam"), "{said}");
    let answer = edge.get(&format!("https://{NAME}/")).answered();
    assert_eq!(answer.status, 200, "the old one stays");
}

#[test]
fn only_the_owner_reaches_the_control_socket_and_health_is_told_by_exit_code() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .private_ca(std::time::Duration::from_secs(86_400))
        .upstream(&upstream);
    let mut edge = setup.start();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(setup.data().join("admin.sock")) & 0o077, 0);
    assert_eq!(mode(setup.data()) & 0o077, 0);
    assert_eq!(mode(place.folder().join("keys/edge.key")) & 0o077, 0);

    let url = format!("http://{}/healthz", place.at(port::TELEMETRY));
    setup.succeed(&["health", "--url", &url]);
    setup.succeed(&words(&["status"]));
    assert!(edge.stop().success());
    let down = setup.command(&["health", "--url", &url]);
    assert_eq!(down.status.code(), Some(1));
    let nobody = setup.command(&words(&["status"]));
    assert_eq!(nobody.status.code(), Some(1), "and says what to do");

    // A mistake of the command line is told as one, whether anybody runs or not.
    for (mistyped, expected) in [
        (
            ["status", "--config", "other.toml"],
            "there is no configuration",
        ),
        (["status", "--config", "."], "cannot read"),
        (["domain", "show", "a..b"], "invalid value 'a..b'"),
        (["drill", "--rate", "0"], "a whole number from 1"),
    ] {
        let refused = setup.command(&mistyped);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
