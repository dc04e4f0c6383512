//! Certificates revoked, replaced and served again, by command, against a real CA.

use std::path::Path;

use serde_json::Value;

use crate::support::curl;
use crate::support::edge::{Edge, Setup};
use crate::support::fault::Fault;
use crate::support::pebble::Pebble;
use crate::support::place::{Place, port};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait;
use crate::support::wire::{Mood, Side, Step, Wire};

const NAME: &str = "shop.example.com";
const FILE: [&str; 2] = ["--config", "proxy.toml"];
/// What tells of a compromised key, in this order.
const FOUR: [&str; 4] = [
    "certificate.revocation_asked",
    "certificate.issued",
    "certificate.revoked",
    "certificate.key_destroyed",
];

struct Story {
    place: Place,
    pebble: Pebble,
    wire: Wire,
    _upstream: Upstream,
    setup: Setup,
}

impl Story {
    fn begin() -> Self {
        let place = Place::claim();
        let pebble = Pebble::start(&place);
        let wire = Wire::start(&place, &pebble, Mood::Pass);
        let upstream = Upstream::start(&place);
        let setup = Setup::new(&place)
            .ca_at(&pebble, &wire)
            .upstream(&upstream)
            .tenant("acme", &[NAME])
            .replace("[certificates]", "[certificates]\nfirst_retry = \"1s\"");
        Self {
            place,
            pebble,
            wire,
            _upstream: upstream,
            setup,
        }
    }

    fn start(&self) -> Edge {
        self.setup.start()
    }

    /// What a command answers, an object a line.
    fn ask(&self, words: &[&str]) -> Vec<Value> {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .chain(["--json"])
            .chain(FILE)
            .collect();
        let text = self.setup.succeed(&words);
        let whole = serde_json::from_str(&text).map(|one| vec![one]);
        whole.unwrap_or_else(|_| {
            let lines = text.lines();
            lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        })
    }

    /// The certificate that serves, once there is one other than `not`.
    fn serving(&self, not: Option<&str>) -> String {
        wait::until("a certificate serves", || {
            let domain = self.ask(&["domain", "show", NAME]).remove(0);
            let id = domain["certificate"]["id"].as_str()?.to_owned();
            (Some(id.as_str()) != not).then_some(id)
        })
    }

    fn certificate(&self, id: &str) -> Value {
        self.ask(&["certificate", "show", id]).remove(0)
    }

    /// A certificate, once its key is destroyed.
    fn destroyed(&self, id: &str) -> Value {
        wait::until("the key is destroyed", || {
            let shown = self.certificate(id);
            shown["key_destroyed_at"].is_string().then_some(shown)
        })
    }

    /// A certificate, once its revocation shows a problem.
    fn troubled(&self, id: &str) -> Value {
        wait::until("a problem is shown", || {
            let shown = self.certificate(id);
            shown["revocation"]["problem"].is_object().then_some(shown)
        })
    }

    /// The kinds of events about certificates since the one before `first`.
    fn events(&self, first: &str) -> Vec<String> {
        let events = self.ask(&["event", "list", "--tenant", "acme"]);
        let kinds = events.iter().map(|event| event["kind"].as_str().unwrap());
        kinds
            .skip_while(|kind| *kind != first)
            .filter(|kind| FOUR.contains(kind))
            .map(str::to_owned)
            .collect()
    }

    /// What the CA says of a certificate: `Valid` or `Revoked`, and why.
    fn status(&self, certificate: &Value) -> (String, Option<u64>) {
        let management = self.place.at(port::ACME_MANAGEMENT);
        let serial = certificate["serial"].as_str().unwrap();
        let url = format!("https://{management}/cert-status-by-serial/{serial}");
        let answer = curl::get(&url)
            .trusting(self.pebble.server_root())
            .answered();
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        let status = answer["Status"].as_str().unwrap().to_owned();
        (status, answer["Reason"].as_u64())
    }
}

fn leaf(edge: &Edge, root: &Path) -> Vec<u8> {
    Visitor::connect(edge.https(), NAME, root)
        .unwrap()
        .certificate()
}

#[test]
fn a_certificate_revoked_while_its_domain_was_away_does_not_come_back_with_it() {
    let story = Story::begin();
    let edge = story.start();
    let old = story.serving(None);
    let before = leaf(&edge, edge.trusted());
    edge.reload(&story.setup.clone().replace(&format!("{NAME:?}"), ""));
    wait::until("the name is gone", || {
        let domain = story.ask(&["domain", "show", NAME]).remove(0);
        (domain["state"] == "tombstoned").then_some(())
    });
    story.ask(&["certificate", "revoke", &old, "--compromised"]);
    wait::until("it is revoked", || {
        (story.certificate(&old)["status"] == "revoked").then_some(())
    });
    edge.reload(&story.setup);
    // The first that any visitor sees after the return.
    let after = wait::until("the name is served again", || {
        let visitor = Visitor::connect(edge.https(), NAME, edge.trusted());
        visitor.ok().map(|visitor| visitor.certificate())
    });
    assert_ne!(after, before, "a revoked certificate serves");
    assert_ne!(story.serving(None), old);
}

#[test]
fn a_compromised_key_is_replaced_then_revoked_then_destroyed() {
    let story = Story::begin();
    let edge = story.start();
    let old = story.serving(None);
    let before = leaf(&edge, edge.trusted());
    story.ask(&["certificate", "revoke", &old, "--compromised"]);
    let new = story.serving(Some(&old));
    wait::until("the new key serves", || {
        (leaf(&edge, edge.trusted()) != before).then_some(())
    });
    let shown = story.destroyed(&old);
    assert_eq!(shown["status"], "revoked");
    assert_eq!(shown["revocation"]["reason"], "key_compromise");
    assert!(shown["revocation"]["replaced_at"].is_string());
    assert_eq!(shown["superseded_by"], new.as_str());
    assert_eq!(story.status(&shown), ("Revoked".to_owned(), Some(1)));
    assert_eq!(story.status(&story.certificate(&new)).0, "Valid");
    assert_eq!(story.events(FOUR[0]), FOUR);
    assert_eq!(story.wire.placed(), 2);
    assert_eq!(
        edge.metrics()
            .sum("proxy_revocations_total", &["outcome=\"revoked\""]),
        1.0
    );
    wait::until("the job is done", || {
        let jobs = story.ask(&["job", "list"]);
        let revoking = |job: &Value| job["key"].as_str().unwrap().contains("revoke");
        (!jobs.iter().any(revoking)).then_some(())
    });
    // Asked again, nothing happens anew.
    story.ask(&["certificate", "revoke", &old, "--compromised"]);
    assert_eq!(story.events(FOUR[0]), FOUR);
}

#[test]
fn killed_at_any_step_a_revocation_is_finished_by_the_next_start() {
    let steps = [
        (Step::Order, Side::Before),
        (Step::Finalize, Side::After),
        (Step::Certificate, Side::After),
        (Step::Revocation, Side::Before),
        // The CA has revoked it and nobody here knows: told again, it says so.
        (Step::Revocation, Side::After),
    ];
    for (step, side) in steps {
        let story = Story::begin();
        let mut edge = story.start();
        let old = story.serving(None);
        story.wire.become_(Mood::Hold(step, side));
        story.ask(&["certificate", "revoke", &old, "--compromised"]);
        story.wire.wait_until_holding();
        let shown = story.certificate(&old);
        assert!(shown["key_destroyed_at"].is_null(), "{step:?}: not yet");
        assert!(
            shown["revocation"]["revoked_at"].is_null(),
            "{step:?}: not yet"
        );
        edge.process.kill();
        story.wire.release();
        let edge = story.start();
        let shown = story.destroyed(&old);
        assert_eq!(story.events(FOUR[0]), FOUR, "killed at {step:?}, {side:?}");
        assert_eq!(story.status(&shown), ("Revoked".to_owned(), Some(1)));
        assert_eq!(edge.get(&format!("https://{NAME}/")).answered().status, 200);
        assert!(
            story.wire.placed() <= 3,
            "{step:?}: at most one extra order"
        );
    }
}

#[test]
fn a_ca_that_refuses_a_revocation_is_told_again_and_the_key_stays_until_then() {
    let story = Story::begin();
    let edge = story.start();
    let old = story.serving(None);
    story
        .wire
        .become_(Mood::Fault(Step::Revocation, Fault::Busy));
    story.ask(&["certificate", "revoke", &old, "--compromised"]);
    let shown = story.troubled(&old);
    assert_eq!(shown["status"], "revoking");
    assert_eq!(shown["revocation"]["problem"]["code"], "ca_outage");
    assert_eq!(shown["revocation"]["failures"], 1);
    assert!(shown["revocation"]["replaced_at"].is_string());
    assert!(shown["key_destroyed_at"].is_null());
    let new = story.serving(Some(&old));
    let failed = ["outcome=\"failed\""];
    assert_eq!(edge.metrics().sum("proxy_revocations_total", &failed), 1.0);
    let events = story.ask(&["event", "list", "--tenant", "acme"]);
    let told = |kind| events.iter().any(|event| event["kind"] == kind);
    assert!(told("certificate.revocation_failed") && !told("certificate.revoked"));

    let shown = story.destroyed(&old);
    assert_eq!(story.status(&shown), ("Revoked".to_owned(), Some(1)));
    assert_eq!(story.events(FOUR[0]), FOUR);
    assert_eq!(story.serving(None), new);
}

#[test]
fn while_no_ca_is_there_a_compromised_certificate_goes_on_serving_with_its_key() {
    let story = Story::begin();
    let edge = story.start();
    let old = story.serving(None);
    let before = leaf(&edge, edge.trusted());
    story.wire.become_(Mood::Failing);
    story.ask(&["certificate", "revoke", &old, "--compromised"]);
    let shown = story.troubled(&old);
    assert_eq!(shown["revocation"]["problem"]["code"], "ca_outage");
    assert!(shown["revocation"]["replaced_at"].is_null());
    assert!(shown["key_destroyed_at"].is_null());
    assert_eq!(leaf(&edge, edge.trusted()), before);
    assert_eq!(story.status(&shown).0, "Valid");

    story.wire.become_(Mood::Pass);
    story.destroyed(&old);
    assert_eq!(story.events(FOUR[0]), FOUR);
    assert!(leaf(&edge, edge.trusted()) != before);
}

#[test]
fn a_wish_that_waits_is_raised_or_taken_back_and_one_that_was_told_is_not() {
    let story = Story::begin();
    let edge = story.start();
    let old = story.serving(None);
    let before = leaf(&edge, edge.trusted());
    story.wire.become_(Mood::Failing);
    story.ask(&["certificate", "revoke", &old, "--reason", "superseded"]);
    story.troubled(&old);
    let raised = story.ask(&["certificate", "revoke", &old, "--compromised"]);
    assert_eq!(raised[0]["reason"], "key_compromise");
    story.ask(&["certificate", "revoke", &old, "--cancel"]);
    let shown = story.certificate(&old);
    assert!(
        shown["revocation"].is_null() && shown["status"] == "valid",
        "{shown}"
    );
    let jobs = story.ask(&["job", "list"]);
    let revoking = |job: &Value| job["key"].as_str().unwrap().contains("revoke");
    assert!(!jobs.iter().any(revoking), "{jobs:?}");
    let cancel = ["certificate", "revoke", &old, "--cancel", FILE[0], FILE[1]];
    let refused = || {
        let refused = story.setup.command(&cancel);
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    assert!(refused().contains("nobody has asked"), "{}", refused());
    assert_eq!(leaf(&edge, edge.trusted()), before);

    story.wire.become_(Mood::Pass);
    story.ask(&["certificate", "revoke", &old, "--compromised"]);
    let shown = story.destroyed(&old);
    assert_eq!(story.status(&shown), ("Revoked".to_owned(), Some(1)));
    assert!(refused().contains("it is too late"), "{}", refused());
}

#[test]
fn what_a_ca_issued_under_another_name_in_the_configuration_is_revoked_there_by_its_key() {
    let story = Story::begin();
    let edge = story.start();
    let old = story.serving(None);
    drop(edge);
    let renamed = story.setup.clone();
    let renamed = renamed.replace("name = \"test\"", "name = \"renamed\"");
    let edge = renamed.start();
    let said = renamed.succeed(&["certificate", "revoke", &old, "--compromised"]);
    assert!(said.contains("no [[ca]] here ordered it"), "{said}");
    let shown = story.destroyed(&old);
    assert_eq!(shown["status"], "revoked");
    assert_eq!(story.status(&shown), ("Revoked".to_owned(), Some(1)));
    assert_eq!(story.events(FOUR[0]), FOUR);
    let events = story.ask(&["event", "list", "--tenant", "acme"]);
    let told = events
        .iter()
        .find(|event| event["kind"] == "certificate.revoked")
        .unwrap();
    assert_eq!(
        (&told["detail"]["ca"], &told["detail"]["by"]),
        (&Value::from("renamed"), &Value::from("key"))
    );
    assert_eq!(edge.get(&format!("https://{NAME}/")).answered().status, 200);
}

#[test]
fn an_earlier_certificate_serves_again_and_a_later_one_when_it_is_named() {
    let story = Story::begin();
    let edge = story.start();
    let first = story.serving(None);
    let first_leaf = leaf(&edge, edge.trusted());
    story.ask(&["certificate", "replace", &first]);
    let second = story.serving(Some(&first));
    wait::until("the second serves", || {
        (leaf(&edge, edge.trusted()) != first_leaf).then_some(())
    });

    let done = story.ask(&["certificate", "rollback", NAME]).remove(0);
    assert_eq!(
        (&done["certificate"], &done["instead_of"]),
        (&Value::from(first.as_str()), &Value::from(second.as_str()))
    );
    wait::until("the first serves again", || {
        (leaf(&edge, edge.trusted()) == first_leaf).then_some(())
    });
    assert_eq!(story.serving(None), first);
    assert_eq!(story.wire.placed(), 2);
    let refused = story
        .setup
        .command(&["certificate", "rollback", NAME, FILE[0], FILE[1]]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no earlier certificate"), "{said}");

    // Forward again by name, and on by a new one.
    story.ask(&["certificate", "rollback", NAME, "--to", &second]);
    assert_eq!(story.serving(None), second);
    story.ask(&["certificate", "replace", &second]);
    let third = story.serving(Some(&second));
    assert_ne!(third, first);
    let events = story.ask(&["event", "list", "--tenant", "acme"]);
    let rollbacks = events
        .iter()
        .filter(|event| event["kind"] == "domain.rolled_back");
    assert_eq!(rollbacks.count(), 2);
}

#[test]
fn a_revoked_certificate_is_never_served_again_and_one_may_be_revoked_at_once() {
    let story = Story::begin();
    let edge = story.start();
    let first = story.serving(None);
    story.ask(&[
        "certificate",
        "revoke",
        &first,
        "--at-once",
        "--reason",
        "superseded",
    ]);
    let second = story.serving(Some(&first));
    let shown = story.destroyed(&first);
    assert_eq!(story.status(&shown), ("Revoked".to_owned(), Some(4)));
    assert!(shown["revocation"]["replaced_at"].is_string(), "{shown}");
    let kinds = story.events(FOUR[0]);
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    assert_eq!((kinds[0].as_str(), kinds[3].as_str()), (FOUR[0], FOUR[3]));
    let to = [
        "certificate",
        "rollback",
        NAME,
        "--to",
        &first,
        FILE[0],
        FILE[1],
    ];
    assert!(!story.setup.command(&to).status.success());
    assert_eq!(story.serving(None), second);

    // The key proves to have leaked. This CA changes no reason, and that is told.
    let said = story
        .setup
        .succeed(&["certificate", "revoke", &first, "--compromised"]);
    assert!(said.contains("its CA is told key-compromise now"), "{said}");
    wait::until("the CA has answered", || {
        let shown = story.certificate(&first);
        (shown["revocation"]["kept"] == "superseded").then_some(())
    });
    let said = story.setup.succeed(&["certificate", "show", &first]);
    assert!(said.contains("kept as    superseded"), "{said}");
    assert_eq!(edge.get(&format!("https://{NAME}/")).answered().status, 200);
}

#[test]
fn a_private_ca_revokes_too_and_what_cannot_be_is_told() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .private_ca(std::time::Duration::from_secs(3600))
        .upstream(&upstream)
        .tenant("acme", &[NAME]);
    let _edge = setup.start();
    let ask = |arguments: &[&str]| -> Value {
        let whole: Vec<&str> = [arguments, &["--json"], &FILE].concat();
        serde_json::from_str(&setup.succeed(&whole)).unwrap()
    };
    let id = wait::until("a certificate serves", || {
        let domain = ask(&["domain", "show", NAME]);
        domain["certificate"]["id"].as_str().map(str::to_owned)
    });
    let refused = |arguments: &[&str]| {
        let whole: Vec<&str> = [arguments, &FILE].concat();
        let output = setup.command(&whole);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let nobody = "00000000-0000-7000-8000-000000000000";
    let said = refused(&["certificate", "revoke", nobody]);
    assert!(said.contains("there is no certificate"), "{said}");
    let said = refused(&["certificate", "revoke", &id, "--reason", "boredom"]);
    assert!(
        said.contains("one of unspecified, key-compromise"),
        "{said}"
    );
    let said = refused(&["certificate", "rollback", NAME]);
    assert!(said.contains("no earlier certificate"), "{said}");

    ask(&["certificate", "revoke", &id, "--compromised"]);
    wait::until("the key is destroyed", || {
        let shown = ask(&["certificate", "show", &id]);
        shown["key_destroyed_at"].is_string().then_some(())
    });
    let events = setup.succeed(&[
        "event", "list", "--tenant", "acme", "--json", FILE[0], FILE[1],
    ]);
    assert!(events.contains("\"by\":\"list\""), "{events}");
    let said = refused(&["certificate", "replace", &id]);
    assert!(said.contains("serves no domain"), "{said}");
    let said = refused(&["certificate", "rollback", NAME]);
    assert!(said.contains("no earlier certificate"), "{said}");
}
