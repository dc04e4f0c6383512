//! What a confined issuing CA signs, judged by openssl.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::base::clock::{Clock, Timestamp, monotonic};
use crate::ca::authority::{
    Account, CertificateAuthority, LARGEST_CERTIFICATE, Material, NewList, NewOrder, Sharing,
};
use crate::ca::error::CaError;
use crate::ca::private::{Private, Settings};
use crate::model::certificate::CaId;
use crate::model::problem::ProblemCode;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn pattern(name: &str) -> NamePattern {
    NamePattern::parse(name).unwrap()
}

fn patterns(names: &[&str]) -> Vec<NamePattern> {
    names.iter().map(|name| pattern(name)).collect()
}

fn acme() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn confined(domains: &[&str]) -> Confined {
    Confined::to(&acme(), &patterns(domains))
}

/// What is kept from one opening to the next.
#[derive(Default)]
struct Kept(Vec<Material>);

impl Kept {
    /// Opens the tenant's own authority, with these domains, at this time.
    async fn open(&mut self, domains: &[&str], now: Timestamp) -> Arc<dyn Account> {
        let settings = Settings {
            sharing: Sharing::PerTenant,
            ..Settings::default()
        };
        let shared = Private::new(CaId::new("own"), settings, Clock::manual(now));
        let own = shared.confined_to(&acme(), &patterns(domains)).unwrap();
        let opened = own.open(self.0.clone(), now).await.unwrap();
        for made in opened.made {
            let owner = own.belongs_to(&made.slot).cloned();
            assert_eq!(owner.is_some(), made.slot != "root", "{}", made.slot);
            self.0.retain(|kept| kept.slot != made.slot);
            self.0.push(made);
        }
        opened.account
    }

    fn issuing(&self) -> &Material {
        self.0
            .iter()
            .find(|kept| kept.slot == "issuing:acme")
            .unwrap()
    }
}

/// A certificate for a server, whether the constraints allow it or not.
async fn serve(account: &dyn Account, name: &str) -> Vec<Vec<u8>> {
    let name = [pattern(name)];
    let mut order = account.order(&NewOrder::of(&name)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::new(vec![name[0].to_string()]).unwrap();
    let request = request.serialize_request(&key).unwrap();
    order.finalize(request.der()).await.unwrap();
    order.certificate(monotonic()).await.unwrap()
}

/// What openssl says of a chain at this time, for this purpose, with the list of its key at hand.
fn judged(account: &dyn Account, chain: &[Vec<u8>], purpose: &str, now: Timestamp) -> String {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, der: &[u8]| {
        let file = folder.path().join(name);
        let text = pem::encode(&pem::Pem::new("CERTIFICATE", der));
        crate::base::file::replace(&file, text.as_bytes(), crate::base::file::Access::Owner)
            .unwrap();
        file
    };
    let root = write("root", account.root().unwrap());
    let (leaf, issuing) = (write("leaf", &chain[0]), write("issuing", &chain[1]));
    let list = folder.path().join("list");
    crate::base::file::replace(
        &list,
        &current_list(account, now),
        crate::base::file::Access::Owner,
    )
    .unwrap();
    let path = |file: &Path| file.display().to_string();
    let output = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-crl_check",
            "-attime",
            &now.as_seconds().to_string(),
        ])
        .args([
            "-purpose",
            purpose,
            "-CAfile",
            &path(&root),
            "-untrusted",
            &path(&issuing),
            "-CRLfile",
            &path(&list),
        ])
        .arg(path(&leaf))
        .output()
        .unwrap();
    [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat()
}

/// The lists of all keys, PEM.
fn current_list(account: &dyn Account, now: Timestamp) -> Vec<u8> {
    let lists = account.lists().unwrap();
    let list = NewList {
        number: 1,
        this_update: now,
        next_update: now.plus(DAY),
        revoked: &[],
    };
    let signed = lists.list_keys().into_iter().map(|key| {
        let der = lists.sign_list(&key.key, &list).unwrap();
        pem::encode(&pem::Pem::new("X509 CRL", der))
    });
    signed.collect::<String>().into_bytes()
}

#[test]
fn a_name_stands_for_all_below_it_and_many_for_their_registered_domains() {
    let names = |confined: Confined| -> Vec<String> {
        confined.names.iter().map(ToString::to_string).collect()
    };
    let few = confined(&["a.acme.com", "*.acme.com", "x.a.acme.com", "shop.acme.net"]);
    assert_eq!(names(few), ["acme.com", "shop.acme.net"]);
    let many: Vec<String> = (0..=MOST_NAMES)
        .map(|n| format!("n{n}.acme.co.uk"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(names(confined(&many)), ["acme.co.uk"]);
}

#[test]
fn only_names_within_are_permitted() {
    let confined = confined(&["acme.com"]);
    for (name, expected) in [
        ("acme.com", true),
        ("a.b.acme.com", true),
        ("*.acme.com", true),
        ("notacme.com", false),
        ("com", false),
    ] {
        assert_eq!(confined.permits(&pattern(name)), expected, "{name}");
    }
}

#[tokio::test]
async fn clients_take_nothing_from_it_but_the_tenants_names() {
    let mut kept = Kept::default();
    let account = kept.open(&["acme.com", "*.acme.net"], NOW).await;
    assert!(account.may_certify(&patterns(&["shop.acme.net"])));
    assert!(!account.may_certify(&patterns(&["globex.com"])));
    for (name, expected) in [
        ("acme.com", "leaf: OK"),
        ("shop.acme.net", "leaf: OK"),
        ("globex.com", "permitted subtree violation"),
    ] {
        let chain = serve(&*account, name).await;
        let said = judged(&*account, &chain, "sslserver", NOW);
        assert!(said.contains(expected), "{name}: {said}");
    }
    // A tenant without domains may certify no name at all, but its clients.
    let account = Kept::default().open(&[], NOW).await;
    let said = judged(
        &*account,
        &serve(&*account, "acme.com").await,
        "sslserver",
        NOW,
    );
    assert!(said.contains("excluded subtree violation"), "{said}");
}

#[tokio::test]
async fn other_domains_make_a_new_certificate_on_the_same_key() {
    let mut kept = Kept::default();
    let account = kept.open(&["acme.com"], NOW).await;
    let chain = serve(&*account, "acme.com").await;
    let before = kept.issuing().clone();
    kept.open(&["acme.com"], NOW.plus(DAY)).await;
    assert_eq!(kept.issuing().public, before.public, "nothing has changed");
    let account = kept.open(&["acme.com", "acme.net"], NOW.plus(DAY)).await;
    assert_ne!(kept.issuing().public, before.public);
    assert!(kept.issuing().secret.matches(before.secret.expose()));
    assert!(account.may_certify(&patterns(&["acme.net"])));
    // What was signed before verifies with either.
    let again = [chain[0].clone(), kept.issuing().public.clone()];
    for chain in [&chain[..], &again[..]] {
        let said = judged(&*account, chain, "sslserver", NOW.plus(DAY));
        assert!(said.contains("leaf: OK"), "{said}");
    }
}

#[tokio::test]
async fn the_issuing_ca_is_replaced_before_its_end_and_old_leaves_stay_valid() {
    let mut kept = Kept::default();
    kept.open(&["acme.com"], NOW).await;
    let first = kept.issuing().clone();
    let soon = NOW.plus(DAY * 669);
    kept.open(&["acme.com"], soon).await;
    assert_eq!(kept.issuing().public, first.public);
    let old = kept.open(&["acme.com"], soon).await;
    let leaf = serve(&*old, "acme.com").await;
    assert!(soon < old.usable_until() && old.usable_until() <= soon.plus(LOOKED_AT));

    let late = NOW.plus(DAY * 671);
    let new = kept.open(&["acme.com"], late).await;
    assert_ne!(kept.issuing().public, first.public);
    assert!(!kept.issuing().secret.matches(first.secret.expose()));
    for chain in [leaf, serve(&*new, "acme.com").await] {
        let said = judged(&*new, &chain, "sslserver", late);
        assert!(said.contains("leaf: OK"), "{said}");
    }
}

fn client(account: &dyn Account, name: &str) -> Result<Vec<Vec<u8>>, CaError> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::new(Vec::new()).unwrap();
    let request = request.serialize_request(&key).unwrap();
    let clients = account.clients().unwrap();
    clients.certify(&acme(), name, request.der())
}

#[tokio::test]
async fn openssl_takes_clients_of_any_name_and_finds_it_in_the_user_id() {
    for domains in [&["acme.com"][..], &[]] {
        let account = Kept::default().open(domains, NOW).await;
        for name in [
            "robot",
            "robot 7",
            "alice.smith",
            "alice.smith@acme.com",
            "billing.internal",
            "shop.globex.com",
            "10.0.0.5",
            "a:b/c.d",
            "Jürgen.Groß",
        ] {
            let chain = client(&*account, name).unwrap();
            let said = judged(&*account, &chain, "sslclient", NOW);
            assert!(said.contains("leaf: OK"), "{name}: {said}");
            let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
            let uid = x509_parser::der_parser::oid!(0.9.2342.19200300.100.1.1);
            let mut named = leaf.subject().iter_by_oid(&uid);
            assert_eq!(named.next().unwrap().as_str().unwrap(), name);
        }
    }
}

#[tokio::test]
async fn a_tenant_with_more_domains_than_an_issuing_certificate_holds_is_told_so() {
    let domains: Vec<String> = (0..900).map(|n| format!("customer-{n}.com")).collect();
    let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
    let mut kept = Kept::default();
    for (count, expected) in [(500, true), (900, false)] {
        let account = kept.open(&domains[..count], NOW).await;
        let bytes = kept.issuing().public.len();
        assert_eq!(bytes <= LARGEST_CERTIFICATE, expected, "{count}: {bytes}");
        match client(&*account, "robot") {
            Ok(chain) => {
                assert!(expected);
                assert!(judged(&*account, &chain, "sslclient", NOW).contains("leaf: OK"));
            }
            Err(error) => {
                assert!(!expected);
                assert_eq!(error.code(), ProblemCode::PolicyDenied);
                assert!(
                    error.to_string().contains("900 registered domains"),
                    "{error}"
                );
            }
        }
        // What it certified before can be revoked all the same.
        assert!(account.lists().is_some());
    }
}

#[tokio::test]
async fn a_clients_certificate_is_for_clients_alone() {
    let mut kept = Kept::default();
    let account = kept.open(&["acme.com"], NOW).await;
    let chain = client(&*account, "robot 7").unwrap();
    let said = judged(&*account, &chain, "sslclient", NOW);
    assert!(said.contains("leaf: OK"), "{said}");
    let said = judged(&*account, &chain, "sslserver", NOW);
    assert!(said.contains("unsuitable certificate purpose"), "{said}");
}
