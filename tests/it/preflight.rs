//! Names looked at before an authority is asked: what is wrong costs no order, and is noticed when it is put right.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::support::dns::Dns;
use crate::support::edge::{Edge, Setup};
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::signed_zone::SignedZone;
use crate::support::upstream::Upstream;
use crate::support::wait;

/// Another loopback address, where nobody listens on the edge's ports unless the story says so.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 2, 3, 4));

fn asked(setup: &Setup, arguments: &[&str]) -> Value {
    let said = setup.succeed(&[arguments, &["--json"]].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn code(domain: &Value) -> Option<String> {
    Some(domain["problem"]["code"].as_str()?.to_owned())
}

#[track_caller]
fn wait_for_code(setup: &Setup, name: &str, expected: &str) -> Value {
    wait::until(&format!("{name} has {expected}"), || {
        let domain = asked(setup, &["domain", "show", name]);
        (code(&domain).as_deref() == Some(expected)).then_some(domain)
    })
}

fn issued(edge: &Edge, count: f64) {
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], count);
}

#[test]
fn a_name_that_leads_elsewhere_costs_no_order_until_it_leads_here() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let dns = Dns::of(&place);
    // Another edge stands for somebody else's server: it answers, and knows nothing of our challenge.
    let elsewhere = Place::claim();
    let upstream = Upstream::start(&place);
    let other = Setup::new(&elsewhere)
        .private_ca(std::time::Duration::from_secs(86_400))
        .upstream(&upstream)
        .start();
    dns.leads("shop.example.com", &[elsewhere.address().into()]);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .checking(&place)
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com"]);
    let edge = setup.start();
    let domain = wait_for_code(&setup, "shop.example.com", "wrong_a");
    assert_eq!(domain["problem"]["actor"], "customer");
    let evidence = domain["problem"]["evidence"][0].as_str().unwrap();
    let seen = format!(
        "{}: somebody else answered with status 404",
        elsewhere.address()
    );
    assert!(evidence.starts_with(&seen), "{evidence}");
    assert_eq!(pebble.orders(), 0);

    let check = asked(&setup, &["domain", "check", "shop.example.com"]);
    assert_eq!(check["reached"], "elsewhere");
    assert_eq!(check["problems"][0]["blocks"], true);
    // Asked for by hand it is looked at again, and still costs nothing.
    setup.succeed(&["domain", "retry", "shop.example.com"]);
    wait::until("the second failure", || {
        let domain = asked(&setup, &["domain", "show", "shop.example.com"]);
        (domain["failures"] == 2).then_some(())
    });
    assert_eq!(pebble.orders(), 0);

    // Nobody asks again: what is put right is noticed.
    dns.leads("shop.example.com", &[place.address().into()]);
    issued(&edge, 1.0);
    assert_eq!(edge.get("https://shop.example.com/").answered().status, 200);
    assert_eq!(pebble.orders(), 1);
    let check = asked(&setup, &["domain", "check", "shop.example.com"]);
    assert_eq!(
        (&check["reached"], &check["problems"]),
        (&"here".into(), &serde_json::json!([]))
    );
    drop(other);
}

#[test]
fn a_check_names_the_caa_record_that_decides_and_where_it_stands() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let dns = Dns::of(&place);
    dns.permits("acme.com", "issue", "one.test");
    dns.permits("globex.com", "issue", "three.test");
    dns.fails("broken.globex.com");
    let upstream = Upstream::start(&place);
    let named = |name: &str, identity: &str| {
        let (directory, root) = (pebble.directory(), pebble.server_root());
        format!(
            "[[ca]]\nname = \"{name}\"\nkind = \"acme\"\ndirectory = \"{directory}\"\nterms_agreed = true\n\
             root = {root:?}\ncaa_identities = [\"{identity}\"]\n"
        )
    };
    let setup = Setup::new(&place)
        .section(&named("one", "one.test"))
        .section(&named("two", "two.test"))
        .checking(&place)
        .upstream(&upstream)
        .replace("obtain = \"at-once\"", "obtain = \"at-first-visit\"")
        .tenant("acme", &["shop.acme.com"]);
    let _edge = setup.start();
    let checked = |name: &str| asked(&setup, &["domain", "check", name]);
    let ruling = |check: &Value, ca: usize| {
        let ruling = &check["caa"]["authorities"][ca];
        ["ca", "permitted", "decided_by"].map(|key| ruling[key].as_str().map(str::to_owned))
    };
    let is = |expected: [Option<&str>; 3]| expected.map(|word| word.map(str::to_owned));

    // Two labels up; a second authority is enough.
    let check = checked("shop.acme.com");
    assert_eq!(check["caa"]["at"], "acme.com");
    let record = "acme.com. CAA 0 issue \"one.test\"";
    assert_eq!(check["caa"]["records"], serde_json::json!([record]));
    assert_eq!(
        ruling(&check, 0),
        is([Some("one"), Some("yes"), Some(record)])
    );
    assert_eq!(
        ruling(&check, 1),
        is([Some("two"), Some("no"), Some(record)])
    );
    assert_eq!(check["problems"], serde_json::json!([]));
    let said = setup.succeed(&["domain", "check", "shop.acme.com"]);
    assert!(said.contains(&format!("one may issue: {record}")), "{said}");

    assert_eq!(check["registered"]["tenant"], "acme");

    // A wildcard is for neither, whatever CAA says: the check tells what an order would.
    let check = checked("*.acme.com");
    let problem = &check["problems"][0];
    assert_eq!(problem["problem"]["code"], "policy_denied");
    assert_eq!(problem["blocks"], true);
    let detail = problem["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("two certifies no wildcard"), "{detail}");
    let fix = problem["problem"]["fix"].as_str().unwrap();
    assert!(fix.contains("kind \"private\""), "{fix}");
    assert_eq!(check["registered"], Value::Null);

    // None may: that keeps an order back, and the record to add is told.
    let check = checked("shop.globex.com");
    let record = "globex.com. CAA 0 issue \"three.test\"";
    assert_eq!(
        ruling(&check, 0),
        is([Some("one"), Some("no"), Some(record)])
    );
    let problem = &check["problems"][0];
    assert_eq!(problem["problem"]["code"], "caa_forbids_ca");
    assert_eq!(problem["blocks"], true);
    let fix = "add this record: globex.com. CAA 0 issue \"one.test\"";
    assert_eq!(problem["problem"]["fix"], fix);

    let check = checked("nobody.example.net");
    assert_eq!(check["caa"]["records"], serde_json::json!([]));
    assert_eq!(ruling(&check, 0), is([Some("one"), Some("yes"), None]));
    let check = checked("broken.globex.com");
    let unread = check["caa"]["unread"].as_str().unwrap();
    assert!(unread.contains("SERVFAIL"), "{unread}");
    assert_eq!(ruling(&check, 1), is([Some("two"), Some("no"), None]));
    let codes = check["problems"].as_array().unwrap().iter();
    let codes = codes.filter(|found| found["problem"]["code"] == "dns_servfail");
    assert_eq!(codes.count(), 1, "told once: {check}");
    assert_eq!(pebble.orders(), 0);
}

#[test]
fn a_signature_that_does_not_verify_is_told_apart_from_servers_that_fail() {
    let place = Place::claim();
    let zone = SignedZone::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .section(
            "[[ca]]\nname = \"one\"\nkind = \"acme\"\ndirectory = \"https://127.0.0.1:1/dir\"\n\
             terms_agreed = true\ncaa_identities = [\"one.test\"]",
        )
        .checking(&place)
        .upstream(&upstream)
        .replace("obtain = \"at-once\"", "obtain = \"at-first-visit\"")
        .tenant("acme", &["bogus.example.com", "good.example.com"]);
    let _edge = setup.start();
    let good = asked(&setup, &["domain", "check", "good.example.com"]);
    assert_eq!(
        (&good["reached"], &good["problems"]),
        (&"here".into(), &serde_json::json!([]))
    );
    let bogus = asked(&setup, &["domain", "check", "bogus.example.com"]);
    let problems = bogus["problems"].as_array().unwrap();
    let codes: Vec<&str> = problems
        .iter()
        .map(|found| found["problem"]["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["dnssec_bogus"], "{bogus}");
    let problem = &problems[0]["problem"];
    assert_eq!(
        (&problem["actor"], &problems[0]["blocks"]),
        (&"customer".into(), &true.into())
    );
    let fix = problem["fix"].as_str().unwrap();
    assert!(fix.contains("sign example.com again"), "{fix}");
    assert!(fix.contains("DS record"), "{fix}");
    // Without a resolver nothing is known, and nothing is said against the name.
    drop(zone);
    let gone = asked(&setup, &["domain", "check", "bogus.example.com"]);
    let is_untold = |found: &Value| found["problem"]["code"] == "check_failed";
    let problems = gone["problems"].as_array().unwrap();
    assert!(
        !problems.is_empty() && problems.iter().all(is_untold),
        "{gone}"
    );
}

#[test]
fn what_could_not_be_found_out_keeps_no_order_back() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let dns = Dns::of(&place);
    dns.leads("silent.example.com", &[NOBODY]);
    dns.fails("broken.example.com");
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .checking(&place)
        .upstream(&upstream)
        .tenant(
            "acme",
            &[
                "silent.example.com",
                "broken.example.com",
                "well.example.com",
            ],
        );
    let edge = setup.start();
    issued(&edge, 1.0);
    // The authority's own words, with what was seen right after.
    let silent = wait_for_code(&setup, "silent.example.com", "http_unreachable");
    let evidence = silent["problem"]["evidence"].to_string();
    assert!(evidence.contains("connection"), "{evidence}");
    wait_for_code(&setup, "broken.example.com", "dns_servfail");
    // Nobody issues while CAA cannot be read: the broken name is not ordered.
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn an_authoritys_refusal_is_explained_by_the_record_behind_it() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let dns = Dns::of(&place);
    let elsewhere = Place::claim();
    let upstream = Upstream::start(&place);
    let other = Setup::new(&elsewhere)
        .private_ca(std::time::Duration::from_secs(86_400))
        .upstream(&upstream)
        .start();
    // Two A records, one wrong: the order is placed, and fails or not by which the authority takes.
    dns.leads(
        "twice.example.com",
        &[elsewhere.address().into(), place.address().into()],
    );
    let setup = Setup::new(&place)
        .ca(&pebble)
        .checking(&place)
        .upstream(&upstream)
        .tenant("acme", &["twice.example.com"]);
    let edge = setup.start();
    let check = asked(&setup, &["domain", "check", "twice.example.com"]);
    assert_eq!(check["reached"], "here");
    assert_eq!(check["problems"][0]["problem"]["code"], "wrong_a");
    assert_eq!(check["problems"][0]["blocks"], false);
    wait::until("an order is placed all the same", || {
        (pebble.orders() > 0).then_some(())
    });
    drop((edge, other));
}

#[test]
fn an_alias_that_leads_nowhere_and_a_name_nobody_registered_can_be_checked() {
    let place = Place::claim();
    let _pebble = Pebble::start(&place);
    let dns = Dns::of(&place);
    dns.alias("old.example.com", "gone.example.org");
    dns.leads("gone.example.org", &[NOBODY]);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .private_ca(std::time::Duration::from_secs(86_400))
        .checking(&place)
        .upstream(&upstream)
        .tenant("acme", &["shop.example.com"]);
    let _edge = setup.start();
    let old = asked(&setup, &["domain", "check", "old.example.com"]);
    assert_eq!(old["seen"][0], "CNAME gone.example.org");
    assert_eq!(old["problems"][0]["problem"]["code"], "http_unreachable");
    let said = setup.succeed(&["domain", "check", "nobody.example.com"]);
    assert!(said.contains("reaches us   yes"), "{said}");
    assert!(said.contains("registered   not here: "), "{said}");
    let wild = setup.succeed(&["domain", "check", "*.example.com"]);
    assert!(
        wild.contains("looked at    vestibule-check.example.com"),
        "{wild}"
    );
    assert!(wild.contains("problem      none"), "{wild}");
}
