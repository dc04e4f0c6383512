//! Certificates that were issued elsewhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use time::OffsetDateTime;

use crate::support::edge::{Edge, Setup};
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::wait;

const NAME: &str = "shop.example.com";

/// Another authority, whose certificates somebody brings.
pub(crate) struct Elsewhere<'a> {
    place: &'a Place,
    issuer: Issuer<'static, KeyPair>,
    root: PathBuf,
    issuing: String,
}

/// The files of one certificate.
pub(crate) struct Files {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl<'a> Elsewhere<'a> {
    pub(crate) fn new(place: &'a Place) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "elsewhere");
        let key = KeyPair::generate().unwrap();
        let issuing = params.self_signed(&key).unwrap().pem();
        Self {
            place,
            issuer: Issuer::new(params, key),
            root: place.write("elsewhere/root.pem", &issuing),
            issuing,
        }
    }

    /// A certificate on a key in openssl's traditional form, which begins and ends so many seconds from now.
    pub(crate) fn issue(&self, name: &str, from: i64, to: i64) -> Files {
        let key = openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"]);
        let pair = KeyPair::from_pem(&key).unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        let at = |seconds| OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        (params.not_before, params.not_after) = (at(from), at(to));
        let leaf = params.signed_by(&pair, &self.issuer).unwrap();
        let chain = format!("{}{}", leaf.pem(), self.issuing);
        let write = |file: String, text: &str| self.place.write(&file, text).display().to_string();
        Files {
            chain: write(format!("elsewhere/{name}{to}.crt"), &chain),
            key: write(format!("elsewhere/{name}{to}.key"), &key),
        }
    }
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a visitor who trusts that root alone is answered.
fn is_trusted(edge: &Edge, root: &Path) -> bool {
    let answer = edge.get(&format!("https://{NAME}/"));
    answer
        .trusting(root)
        .send()
        .is_ok_and(|answer| answer.status == 200)
}

#[test]
fn an_imported_certificate_serves_at_once_and_an_order_takes_over_before_it_ends() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let elsewhere = Elsewhere::new(&place);
    let setup = Setup::new(&place)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .tenant("acme", &[NAME]);
    let edge = setup.start();
    let issued = ["kind=\"first\"", "outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &issued, 1.0);
    assert!(is_trusted(&edge, edge.trusted()));

    // It ends long before the one that serves now, and takes its place all the same.
    let files = elsewhere.issue(NAME, -5, 15);
    let import = [
        "certificate",
        "import",
        "--chain",
        &files.chain,
        "--key",
        &files.key,
    ];
    let said = setup.succeed(&import);
    assert!(said.contains("imported, and serves from now on"), "{said}");
    assert!(said.contains(&format!("domain       {NAME}")), "{said}");
    assert!(is_trusted(&edge, &elsewhere.root) && !is_trusted(&edge, edge.trusted()));
    let listed = setup.succeed(&["certificate", "list"]);
    assert!(
        listed.contains("imported") && listed.contains("issued"),
        "{listed}"
    );
    // Never where a CA asks for its challenge.
    let probe = format!("{}", edge.https());
    let asked = [
        "s_client",
        "-connect",
        &probe,
        "-servername",
        NAME,
        "-alpn",
        "acme-tls/1",
    ];
    assert!(!openssl(&asked).contains("BEGIN CERTIFICATE"));

    let again = setup.succeed(&import);
    assert!(again.contains("nothing to do"), "{again}");

    let renewed = ["kind=\"renewal\"", "outcome=\"issued\""];
    edge.wait_for_metric("proxy_issuances_total", &renewed, 1.0);
    wait::until("the order has taken over", || {
        is_trusted(&edge, edge.trusted()).then_some(())
    });
}

#[test]
fn an_earlier_wildcard_certificate_serves_again() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let elsewhere = Elsewhere::new(&place);
    let setup = Setup::new(&place)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .tenant("acme", &[NAME]);
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);
    let serving = || {
        let shown = setup.succeed(&["domain", "show", NAME, "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown["certificate"]["id"].as_str().unwrap().to_owned()
    };
    let bring = |name: &str| {
        let files = elsewhere.issue(name, -5, 86_400);
        let (chain, key) = (&*files.chain, &*files.key);
        let import = ["certificate", "import", "--chain", chain, "--key", key];
        setup.succeed(&[&import[..], &["--domain", NAME]].concat());
        serving()
    };
    let wildcard = bring("*.example.com");
    assert_ne!(bring(NAME), wildcard);
    setup.succeed(&["certificate", "rollback", NAME]);
    assert_eq!(serving(), wildcard);
}

#[test]
fn a_wrong_name_and_an_expired_certificate_are_refused_and_nothing_changes() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let elsewhere = Elsewhere::new(&place);
    let setup = Setup::new(&place)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .tenant("acme", &[NAME]);
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);
    let before = setup.succeed(&["certificate", "list", "--json"]);
    for (files, expected) in [
        (
            elsewhere.issue("other.example.com", -10, 3600),
            "other.example.com is not a registered",
        ),
        (
            elsewhere.issue(NAME, -20, -10),
            "the certificate expired at",
        ),
    ] {
        let import = [
            "certificate",
            "import",
            "--chain",
            &files.chain,
            "--key",
            &files.key,
        ];
        let refused = setup.command(&import);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.contains("Import refused") && said.contains(expected),
            "{said}"
        );
        assert_eq!(refused.status.code(), Some(1));
    }
    assert_eq!(setup.succeed(&["certificate", "list", "--json"]), before);
    assert!(is_trusted(&edge, edge.trusted()));
}

#[test]
fn a_leaked_certificate_of_another_authority_ends_here_and_its_issuer_is_named() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let elsewhere = Elsewhere::new(&place);
    let setup = Setup::new(&place)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .tenant("acme", &[NAME]);
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 1.0);
    let files = elsewhere.issue(NAME, -60, 3600);
    let (chain, key) = (files.chain.as_str(), files.key.as_str());
    let import = ["certificate", "import", "--chain", chain, "--key", key];
    setup.succeed(&import);
    let shown = |what: &[&str]| -> serde_json::Value {
        let whole = [what, &["--json"]].concat();
        serde_json::from_str(&setup.succeed(&whole)).unwrap()
    };
    let domain = shown(&["domain", "show", NAME]);
    let id = domain["certificate"]["id"].as_str().unwrap();
    // Whoever has the leaked file finds it by its serial number, as openssl prints it.
    let printed = openssl(&["x509", "-in", chain, "-noout", "-serial"]);
    let printed = printed.trim().trim_start_matches("serial=");
    let listed = setup.succeed(&["certificate", "list", "--serial", printed]);
    let [_, found] = &listed.lines().collect::<Vec<_>>()[..] else {
        panic!("one certificate: {listed}");
    };
    for cell in [id, NAME, "imported", "serves", "valid"] {
        assert!(found.contains(cell), "{cell}: {found}");
    }
    let said = setup.succeed(&["certificate", "show", printed]);
    assert!(
        said.contains(id) && said.contains("issuer       CN=elsewhere"),
        "{said}"
    );

    let said = setup.succeed(&["certificate", "revoke", id, "--compromised"]);
    assert!(said.contains("is ended here (key-compromise)"), "{said}");
    assert!(
        said.contains("have it revoked at CN=elsewhere, serial number"),
        "{said}"
    );
    let ended = wait::until("it is ended here", || {
        let ended = shown(&["certificate", "show", id]);
        (ended["status"] == "ended_here").then_some(ended)
    });
    // In this order: another serves, the issuer is named, the key goes.
    assert!(is_trusted(&edge, edge.trusted()) && !is_trusted(&edge, &elsewhere.root));
    let revocation = &ended["revocation"];
    assert!(revocation["replaced_at"].is_string() && revocation["revoked_at"].is_null());
    let events = setup.succeed(&["event", "list", "--tenant", "acme"]);
    let kinds = ["revocation_asked", "revocation_left", "key_destroyed"];
    let places = kinds.map(|kind| events.find(&format!("certificate.{kind}")));
    assert!(places.is_sorted() && places[0].is_some(), "{events}");
    let said = setup.succeed(&["certificate", "show", id]);
    let serial = ended["serial"].as_str().unwrap();
    let left = format!("by no CA here: have it revoked at CN=elsewhere, serial number {serial}");
    assert!(said.contains(&left), "{said}");

    // Neither way leads back to it.
    let refused = |arguments: &[&str]| {
        let output = setup.command(arguments);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["certificate", "rollback", NAME, "--to", id]);
    assert!(said.contains("cannot serve"), "{said}");
    let said = refused(&import);
    assert!(said.contains("is revoked or about to be"), "{said}");
    setup.succeed(&["certificate", "rollback", NAME]);
    assert!(!is_trusted(&edge, &elsewhere.root));
}
