//! The resolver against tables, a plain map and several threads at once.

use std::sync::OnceLock;
use std::time::Duration;

use proptest::prelude::{Strategy as _, any, prop, prop_oneof, proptest};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;

use super::*;
use crate::model::TenantId;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// One key for all: what is looked up here is never used to sign.
fn certified() -> Arc<CertifiedKey> {
    static KEY: OnceLock<Arc<CertifiedKey>> = OnceLock::new();
    Arc::clone(KEY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Arc::new(CertifiedKey::new(
            vec![made.cert.der().clone()],
            any_supported_type(&key.into()).unwrap(),
        ))
    }))
}

fn credential(names: &[&str], not_before: Timestamp) -> Arc<Credential> {
    owned("acme", names, not_before)
}

fn owned(tenant: &str, names: &[&str], not_before: Timestamp) -> Arc<Credential> {
    let pattern = |name: &&str| NamePattern::parse(name).unwrap();
    Arc::new(Credential {
        facts: CertificateFacts {
            id: CertificateId::new(),
            tenant: TenantId::parse(tenant).unwrap(),
            names: names.iter().map(pattern).collect(),
            ca: CaId::new("test"),
            serial: "01".to_owned(),
            not_before,
            not_after: not_before.plus(DAY * 90),
        },
        certified: certified(),
    })
}

fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

fn pattern(text: &str) -> NamePattern {
    NamePattern::parse(text).unwrap()
}

fn roomy() -> Resolver {
    Resolver::new(usize::MAX)
}

/// Room for `entries` credentials of one short name.
fn room_for(entries: usize) -> Resolver {
    let one = credential(&["n0000.test"], NOW).weight() + "n0000.test".len() + ENTRY_BYTES;
    Resolver::new(one * entries)
}

#[test]
fn visits_are_noted_to_the_minute_and_told_once_a_day() {
    let resolver = roomy();
    resolver.put(&credential(&["a.test", "*.b.test"], NOW));
    assert_eq!(resolver.visited(&pattern("a.test")), None);
    assert_eq!(resolver.fresh_visits(9), []);
    let minute = NOW.plus(Duration::from_secs(59));
    assert!(resolver.get(&name("a.test"), minute).is_some());
    let noted = resolver.visited(&pattern("a.test")).unwrap();
    assert!(minute.since(noted) < Duration::from_secs(60));
    assert_eq!(resolver.fresh_visits(9), [(pattern("a.test"), noted)]);
    assert_eq!(resolver.fresh_visits(9), []);
    // Another day, and one whose certificate has expired.
    let later = NOW.plus(DAY * 100);
    assert!(resolver.get(&name("a.test"), later).is_none());
    assert!(resolver.get(&name("x.b.test"), later).is_none());
    assert_eq!(resolver.fresh_visits(1).len(), 1);
    assert_eq!(resolver.fresh_visits(9).len(), 1);
}

#[test]
fn the_exact_name_wins_then_exactly_one_wildcard_parent() {
    let resolver = roomy();
    let (wide, own) = (
        credential(&["*.example.test"], NOW),
        credential(&["a.example.test"], NOW),
    );
    resolver.put(&wide);
    resolver.put(&own);
    for (server_name, expected) in [
        ("a.example.test", Some(&own)),
        ("b.example.test", Some(&wide)),
        ("example.test", None),
        ("x.b.example.test", None),
        ("localhost", None),
    ] {
        let found = resolver.get(&name(server_name), NOW);
        assert_eq!(
            found.as_ref().map(|c| c.facts.id),
            expected.map(|c| c.facts.id),
            "{server_name}"
        );
    }
}

#[test]
fn serves_nothing_that_has_expired_and_falls_back_to_a_valid_wildcard() {
    let resolver = roomy();
    resolver.put(&credential(&["a.example.test"], NOW));
    let last = NOW.plus(DAY * 90);
    let serves = |at| resolver.get(&name("a.example.test"), at).is_some();
    assert!(serves(NOW) && serves(last.minus(Duration::from_millis(1))));
    assert!(!serves(last) && !serves(last.plus(DAY)));
    // A clock that is behind does not make a good certificate bad.
    assert!(serves(NOW.minus(DAY)));
    let wide = credential(&["*.example.test"], NOW.plus(DAY));
    resolver.put(&wide);
    let found = resolver.get(&name("a.example.test"), last).unwrap();
    assert_eq!(found.facts.id, wide.facts.id);
}

#[test]
fn a_newer_certificate_replaces_an_older_one_and_never_the_reverse() {
    let resolver = roomy();
    let (older, newer) = (
        credential(&["a.test"], NOW),
        credential(&["a.test", "b.test"], NOW.plus(DAY)),
    );
    let serial = || {
        let found = resolver.get(&name("a.test"), NOW.plus(DAY));
        found.map(|credential| credential.facts.id)
    };
    resolver.put(&older);
    resolver.put(&newer);
    assert_eq!(serial(), Some(newer.facts.id));
    resolver.put(&older);
    assert_eq!(serial(), Some(newer.facts.id));
    assert_eq!(resolver.entries(), 2);
}

#[test]
fn what_another_tenant_left_behind_never_stays() {
    let resolver = roomy();
    resolver.put(&owned("old", &["a.test"], NOW.plus(DAY)));
    resolver.put(&owned("new", &["a.test"], NOW));
    let found = resolver.get(&name("a.test"), NOW).unwrap();
    assert_eq!(found.tenant().as_str(), "new");
}

#[test]
fn what_was_read_before_a_removal_is_not_put_after_it() {
    let resolver = roomy();
    let read = credential(&["a.test", "b.test"], NOW);
    let ticket = resolver.ticket();
    resolver.remove(&pattern("a.test"));
    resolver.put_loaded(&pattern("a.test"), &read, ticket);
    assert!(resolver.get(&name("a.test"), NOW).is_none());
    resolver.put_loaded(&pattern("a.test"), &read, resolver.ticket());
    assert!(resolver.get(&name("a.test"), NOW).is_some());
    // Loaded for one name, it is not put under the others.
    assert!(resolver.get(&name("b.test"), NOW).is_none());
}

#[test]
fn used_entries_outlive_a_flood_of_names_used_once() {
    let resolver = room_for(100);
    let put = |n: usize| resolver.put(&credential(&[&format!("n{n:04}.test")], NOW));
    let has = |n: usize| resolver.get(&name(&format!("n{n:04}.test")), NOW).is_some();
    (0..10).for_each(put);
    for n in 10..1000 {
        put(n);
        assert!((0..10).all(has), "after {n}");
    }
    assert_eq!(resolver.entries(), 100);
    assert_eq!(resolver.evictions(), 900);
}

#[test]
fn one_entry_beyond_the_bound_evicts_the_oldest_unused() {
    let resolver = room_for(3);
    for n in 0..3 {
        resolver.put(&credential(&[&format!("n{n:04}.test")], NOW));
    }
    assert!(resolver.get(&name("n0000.test"), NOW).is_some());
    resolver.put(&credential(&["n0003.test"], NOW));
    let kept = |n: usize| resolver.peek(&pattern(&format!("n{n:04}.test"))).is_some();
    assert_eq!(
        [kept(0), kept(1), kept(2), kept(3)],
        [true, false, true, true]
    );
}

#[test]
fn readers_and_writers_at_once_keep_the_bound_and_the_books() {
    let resolver = room_for(50);
    let credentials: Vec<_> = (0..200)
        .map(|n| credential(&[&format!("n{n:04}.test")], NOW))
        .collect();
    std::thread::scope(|scope| {
        for worker in 0..4_usize {
            let (resolver, credentials) = (&resolver, &credentials);
            scope.spawn(move || {
                for step in 0..5_000_usize {
                    let n = (step * 7 + worker * 13) % 200;
                    let own = &credentials[n];
                    let server_name = own.facts.names[0].base();
                    match step % 3 {
                        0 => resolver.put(own),
                        1 if step % 17 == 0 => resolver.remove(&own.facts.names[0]),
                        _ => {
                            let found = resolver.get(server_name, NOW);
                            assert!(found.is_none_or(|found| found.covers(server_name)));
                        }
                    }
                    assert!(resolver.entries() <= 50);
                }
            });
        }
    });
    let kept = credentials
        .iter()
        .filter(|c| resolver.peek(&c.facts.names[0]).is_some());
    assert_eq!(kept.count(), resolver.entries());
    for own in &credentials {
        resolver.remove(&own.facts.names[0]);
    }
    assert_eq!((resolver.entries(), resolver.bytes()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Get(u8),
    Remove(u8),
}

proptest! {
    /// Against a plain map: what is found is what was put last and newest, never too much is kept, and
    /// without pressure nothing is lost.
    #[test]
    fn behaves_as_a_map_that_may_forget_under_pressure(
        room in 1_usize..20,
        steps in prop::collection::vec(
            prop_oneof![
                (any::<u8>(), any::<u8>()).prop_map(|(n, age)| Step::Put(n % 24, age)),
                any::<u8>().prop_map(|n| Step::Get(n % 24)),
                any::<u8>().prop_map(|n| Step::Remove(n % 24)),
            ],
            0..200,
        ),
    ) {
        let resolver = room_for(room);
        let mut model = std::collections::HashMap::<u8, Arc<Credential>>::new();
        let now = NOW.plus(Duration::from_secs(300));
        for step in steps {
            match step {
                Step::Put(n, age) => {
                    let made = credential(
                        &[&format!("n{n:04}.test")],
                        NOW.plus(Duration::from_secs(u64::from(age))),
                    );
                    resolver.put(&made);
                    let kept = model.entry(n).or_insert_with(|| Arc::clone(&made));
                    if kept.facts.not_before <= made.facts.not_before
                        || resolver.peek(&made.facts.names[0]).is_some_and(|p| p.facts.id == made.facts.id)
                    {
                        *kept = made;
                    }
                }
                Step::Get(n) => {
                    let found = resolver.get(&name(&format!("n{n:04}.test")), now);
                    if let Some(found) = found {
                        assert_eq!(Some(found.facts.id), model.get(&n).map(|c| c.facts.id));
                    } else {
                        assert!(!model.contains_key(&n) || resolver.evictions() > 0);
                    }
                }
                Step::Remove(n) => {
                    resolver.remove(&pattern(&format!("n{n:04}.test")));
                    model.remove(&n);
                }
            }
            assert!(resolver.entries() <= room);
        }
    }
}
