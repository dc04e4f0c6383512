//! Names examined with a scripted name server.

use super::*;
use crate::base::task::Tasks;
use crate::dns::fixture::{NameServer, Script};

async fn examined(script: Script) -> Records {
    examined_of("shop.acme.com", script).await
}

async fn examined_of(name: &str, script: Script) -> Records {
    let tasks = Tasks::new();
    let server = NameServer::start(&tasks).await;
    server.says(name, script);
    let name = if name == "*" { "shop.acme.com" } else { name };
    let examiner = Examiner::new(&server.settings).unwrap();
    let records = examiner.examine(&DnsName::parse(name).unwrap()).await;
    tasks.cancel();
    records
}

#[tokio::test]
async fn tells_every_address_and_the_aliases_on_the_way() {
    let addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| text.parse().unwrap());
    let script = Script::Leads(
        vec!["a.example.net", "Edge.Example.net"],
        addresses.to_vec(),
    );
    let records = examined(script).await;
    assert_eq!(records.aliases, ["a.example.net", "edge.example.net"]);
    assert_eq!(records.addresses().collect::<Vec<_>>(), addresses);
    // What passes no signatures on is not taken for forged.
    assert_eq!(records.signatures, Signatures::Untold);
    assert_eq!(
        records.lines(),
        [
            "CNAME a.example.net",
            "CNAME edge.example.net",
            "A 192.0.2.1",
            "A 192.0.2.2",
            "AAAA 2001:db8::1"
        ]
    );
}

#[tokio::test]
async fn addresses_are_told_alike_however_they_are_rotated() {
    let addresses: Vec<IpAddr> = (1..=12).map(|n| [192, 0, 2, n].into()).collect();
    for turn in [0, 5, 11] {
        let mut rotated = addresses.clone();
        rotated.rotate_left(turn);
        rotated.push(addresses[0]);
        let records = examined(Script::Leads(Vec::new(), rotated)).await;
        let found: Vec<IpAddr> = records.addresses().collect();
        assert_eq!(found, addresses[..MOST_ADDRESSES]);
    }
}

#[tokio::test]
async fn a_family_without_addresses_is_empty() {
    let script = Script::Leads(Vec::new(), vec!["192.0.2.1".parse().unwrap()]);
    let records = examined(script).await;
    assert_eq!(records.ipv6, Answer::Empty);
    assert!(records.aliases.is_empty() && !records.is_surely_nowhere());
}

#[tokio::test]
async fn a_denial_is_sure_only_below_a_public_suffix() {
    let records = examined(Script::Nxdomain).await;
    assert_eq!(records.ipv4, Answer::Nxdomain(Certainty::Sure));
    assert!(records.is_surely_nowhere());
    let records = examined_of("shop.acme.test", Script::Nxdomain).await;
    assert_eq!(records.ipv4, Answer::Nxdomain(Certainty::Unsure));
    assert!(!records.is_surely_nowhere());
}

#[tokio::test]
async fn an_alias_that_leads_nowhere_is_told() {
    let records = examined(Script::Leads(vec!["gone.example.net"], Vec::new())).await;
    assert_eq!(records.aliases, ["gone.example.net"]);
    assert_eq!((records.ipv4, records.ipv6), (Answer::Empty, Answer::Empty));
}

#[tokio::test]
async fn aliases_in_a_circle_are_followed_where_the_resolver_fails_for_them() {
    let tasks = Tasks::new();
    let server = NameServer::start(&tasks).await;
    for (name, alias) in [
        ("shop.acme.com", "b.example.net"),
        ("b.example.net", "c.example.net"),
        ("c.example.net", "b.example.net"),
        ("own.acme.com", "own.acme.com"),
    ] {
        server.says(name, Script::Circle(alias));
    }
    let examiner = Examiner::new(&server.settings).unwrap();
    for (name, expected) in [
        (
            "shop.acme.com",
            &["b.example.net", "c.example.net", "b.example.net"][..],
        ),
        ("own.acme.com", &["own.acme.com"]),
    ] {
        let name = DnsName::parse(name).unwrap();
        let records = examiner.examine(&name).await;
        assert_eq!(records.aliases, expected);
        assert!(records.is_circle(&name), "{records:?}");
    }
    tasks.cancel();
}

#[tokio::test]
async fn a_servfail_is_the_names_own_where_the_resolver_answers_for_others() {
    let records = examined(Script::Servfail).await;
    assert_eq!(
        (records.ipv4, records.ipv6),
        (Answer::Servfail, Answer::Servfail)
    );
    assert_eq!(records.signatures, Signatures::Untold);
    let records = examined_of("*", Script::Servfail).await;
    assert!(matches!(records.ipv4, Answer::Untold(_)), "{records:?}");
}

#[tokio::test]
async fn a_name_that_is_refused_only_while_signatures_are_checked_is_bogus() {
    let records = examined(Script::Bogus).await;
    assert_eq!(records.signatures, Signatures::Bogus(Witness::Resolver));
    assert_eq!(records.ipv4, Answer::Servfail);
}

#[tokio::test]
async fn silence_is_no_answer_about_the_name() {
    let records = examined(Script::Silence).await;
    assert!(matches!(records.ipv4, Answer::Untold(_)), "{records:?}");
    assert_eq!(records.signatures, Signatures::Untold);
}
