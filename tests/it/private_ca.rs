//! A private CA that each tenant has to itself, and clients of a tenant.

use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::openssl::openssl;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::wait;

/// What the issuing certificate says that signed the one for `name`.
fn issuing(edge: &Edge, place: &Place, name: &str) -> String {
    let at = edge.https().to_string();
    let shown = [
        "s_client",
        "-connect",
        &at,
        "-servername",
        name,
        "-showcerts",
    ];
    let shown = openssl(&shown);
    let second = shown
        .match_indices("-----BEGIN CERTIFICATE-----")
        .nth(1)
        .unwrap()
        .0;
    let file = place.write("issuing.pem", shown.get(second..).unwrap());
    openssl(&["x509", "-noout", "-text", "-in", file.to_str().unwrap()])
}

#[test]
fn each_tenant_has_an_issuing_ca_that_is_confined_to_its_names() {
    const ACME: &str = "shop.acme.com";
    const GLOBEX: &str = "shop.globex.com";
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .private_ca(Duration::from_secs(86_400))
        .replace(
            "kind = \"private\"",
            "kind = \"private\"\nper_tenant = true",
        )
        .upstream(&upstream);
    let of_acme = |domains: &[&str]| {
        setup
            .clone()
            .tenant("globex", &[GLOBEX])
            .tenant("acme", domains)
    };
    let edge = of_acme(&[ACME]).start();
    let issued = ["outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &issued, 2.0);
    for (name, other) in [(ACME, GLOBEX), (GLOBEX, ACME)] {
        // curl heeds the constraints too.
        assert_eq!(edge.get(&format!("https://{name}/")).answered().status, 200);
        let said = issuing(&edge, &place, name);
        assert!(said.contains("Name Constraints: critical"), "{said}");
        assert!(said.contains(&format!("DNS:{name}")), "{said}");
        assert!(!said.contains(&format!("DNS:{other}")), "{said}");
    }

    // Another domain of the tenant: its issuing CA is certified anew, and what it signed before stays good.
    edge.reload(&of_acme(&[ACME, "acme.net"]));
    let answer = wait::until("the new name is served", || {
        edge.get("https://acme.net/").send().ok()
    });
    assert_eq!(answer.status, 200);
    assert!(issuing(&edge, &place, "acme.net").contains("DNS:acme.net"));
    assert_eq!(edge.get(&format!("https://{ACME}/")).answered().status, 200);

    let file = place.folder().join("robot.pem");
    let file = file.to_str().unwrap();
    let issue = [
        "certificate",
        "issue-client",
        "--tenant",
        "acme",
        "--name",
        "alice.smith",
        "--out",
        file,
    ];
    let said = setup.succeed(&issue);
    assert!(said.contains("written to"), "{said}");
    // The root lasts for ten years, and doctor and metrics tell when it ends.
    let metrics = edge.metrics();
    let ends = metrics.sum("proxy_ca_root_expiry_timestamp_seconds", &[]);
    let now = time::OffsetDateTime::now_utc().unix_timestamp() as f64;
    assert!(
        (9.9..10.1).contains(&((ends - now) / 86_400.0 / 365.25)),
        "{ends}"
    );
    let doctor = setup.command(&["doctor"]).stdout;
    let doctor = String::from_utf8_lossy(&doctor).into_owned();
    assert!(
        doctor.contains("is our own, and its root ends at 20"),
        "{doctor}"
    );
    let root = edge.trusted().to_str().unwrap();
    let verify = |purpose| {
        openssl(&[
            "verify",
            "-purpose",
            purpose,
            "-CAfile",
            root,
            "-untrusted",
            file,
            file,
        ])
    };
    assert!(
        verify("sslclient").contains("OK"),
        "{}",
        verify("sslclient")
    );
    assert!(verify("sslserver").contains("unsuitable certificate purpose"));
    assert!(openssl(&["pkey", "-in", file, "-noout", "-check"]).contains("Key is valid"));
    let listed = setup.succeed(&["certificate", "list", "--tenant", "acme", "--json"]);
    assert!(listed.contains("\"client\":\"alice.smith\""), "{listed}");
    // Never written over.
    assert!(!setup.command(&issue).status.success());
    // Where the key cannot be put, none is issued.
    let issued = || setup.succeed(&["event", "list", "--tenant", "acme"]);
    let before = issued();
    let nowhere = place.folder().join("none/robot.pem");
    let mut issue = issue;
    issue[7] = nowhere.to_str().unwrap();
    let refused = setup.command(&issue);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("cannot write") && said.contains("none/robot.pem"),
        "{said}"
    );
    assert_eq!(issued(), before);
}
