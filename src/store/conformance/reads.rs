//! Look-ups by name, challenges, lists.

use std::time::Duration;

use super::support::{
    Factory, Fresh, certificate, name, pattern, put_domain, registration, request, soon, tenant,
};
use crate::model::TenantScope;
use crate::model::domain::DomainState;
use crate::store::batch::{Batch, Operation};
use crate::store::job::JobRecord;
use crate::store::record::{DataKeyRecord, DomainRecord, KeyOwner};
use crate::store::{Page, PageRequest};

pub(crate) async fn a_name_resolves_exactly_and_then_by_its_wildcard(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let wide = certificate("wide", &["*.example.com", "example.com"]);
    let key = |id, byte| DataKeyRecord {
        owner: KeyOwner::Tenant(tenant("wide")),
        id,
        wrapped: vec![byte],
    };
    let batch = registration("wide", "*.example.com")
        .then(Operation::PutDataKey(key(1, 1)))
        .then(Operation::PutDataKey(key(2, 2)))
        .then(Operation::PutCertificate(Box::new(wide.clone())))
        .then(Operation::PointDomain {
            pattern: pattern("*.example.com"),
            certificate: wide.facts.id,
        });
    fresh.apply(batch).await;
    fresh.register("own", "a.example.com").await;
    let resolve = async |host| fresh.store.resolve(soon(), &name(host)).await.unwrap();
    let found = resolve("b.example.com").await.unwrap();
    assert_eq!(found.certificate.as_ref(), Some(&wide));
    assert_eq!(
        found.data_key,
        Some(key(1, 1)),
        "the one that sealed it, not the newest"
    );
    let own = resolve("a.example.com").await.unwrap();
    assert_eq!(own.domain.tenant, tenant("own"));
    assert_eq!(
        own.certificate, None,
        "another tenant's wildcard never serves a name of its own"
    );
    for none in ["example.com", "x.b.example.com", "com"] {
        assert_eq!(resolve(none).await, None, "{none}");
    }
    let suspend = Operation::SetDomainState {
        pattern: pattern("a.example.com"),
        state: DomainState::Suspended,
        problem: None,
    };
    fresh.apply(Batch::new().then(suspend)).await;
    let own = resolve("a.example.com").await.unwrap();
    assert_eq!(
        (own.domain.state, own.domain.version),
        (DomainState::Suspended, 2)
    );
}

pub(crate) async fn a_challenge_is_seen_by_another_opening_as_soon_as_it_is_committed(
    factory: &Factory,
) {
    let fresh = Fresh::of(factory).await;
    let other = factory(fresh.folder.path(), fresh.clock.clone()).await;
    fresh.register("acme", "a.test").await;
    let host = name("a.test");
    for n in 0..50 {
        let token = format!("token-{n}");
        let put = Operation::PutChallenge {
            host: host.clone(),
            token: token.clone(),
            key_authorization: format!("{token}.print"),
            lifetime: Duration::from_secs(60),
        };
        fresh.apply(Batch::new().then(put)).await;
        let seen = other.challenge(soon(), &host, &token).await.unwrap();
        assert_eq!(seen, Some(format!("{token}.print")));
    }
    for (asked, token) in [
        ("a.test", "token-50"),
        ("b.test", "token-1"),
        ("a.test", ""),
    ] {
        let seen = other.challenge(soon(), &name(asked), token).await.unwrap();
        assert_eq!(seen, None, "{asked} {token}");
    }
    fresh.clock.advance(Duration::from_secs(60));
    assert_eq!(
        other.challenge(soon(), &host, "token-1").await.unwrap(),
        None
    );
    fresh
        .apply(Batch::new().then(Operation::DropChallenges { host }))
        .await;
}

async fn all_domains(fresh: &Fresh, most: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut page = PageRequest { after: None, most };
    loop {
        let everyone = TenantScope::operator();
        let read: Page<DomainRecord> = fresh
            .store
            .domains(soon(), &everyone, None, &page)
            .await
            .unwrap();
        assert!(read.items.len() <= most);
        names.extend(read.items.iter().map(|domain| domain.pattern.to_string()));
        // Written while we read: behind us it is not seen, before us it is.
        let n = names.len();
        fresh.register("acme", &format!("a-behind-{n}.test")).await;
        let gone = Operation::DeleteDomain {
            pattern: pattern(names.last().unwrap()),
        };
        fresh.apply(Batch::new().then(gone)).await;
        match read.next {
            Some(next) => page.after = Some(next),
            None => return names,
        }
    }
}

pub(crate) async fn pages_are_whole_and_stable_while_others_write(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let mut batch = registration("acme", "n000.test");
    for n in 1..50 {
        batch = batch.then(put_domain("acme", &format!("n{n:03}.test")));
    }
    fresh.apply(batch).await;
    let names = all_domains(&fresh, 7).await;
    let expected: Vec<_> = (0..50).map(|n| format!("n{n:03}.test")).collect();
    assert_eq!(
        names, expected,
        "each once, in order, the removed last item of a page no obstacle"
    );
}

pub(crate) async fn every_list_pages_in_the_order_of_its_key(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let everyone = TenantScope::operator();
    let mut ids = Vec::new();
    for n in 0..5 {
        let (slug, host) = (format!("t{n}"), format!("n{n}.test"));
        let certificate = certificate(&slug, &[&host]);
        ids.push(certificate.facts.id);
        let batch = registration(&slug, &host)
            .then(request(&slug, &host))
            .then(Operation::PutCertificate(Box::new(certificate)));
        fresh.apply(batch).await;
    }
    let first = PageRequest {
        after: None,
        most: 3,
    };
    let second = |next: Option<String>| PageRequest {
        after: Some(next.unwrap()),
        most: 3,
    };
    let store = &fresh.store;

    let page = store.tenants(soon(), &everyone, &first).await.unwrap();
    let rest = store
        .tenants(soon(), &everyone, &second(page.next))
        .await
        .unwrap();
    let slugs: Vec<_> = page
        .items
        .iter()
        .chain(&rest.items)
        .map(|t| t.id.to_string())
        .collect();
    assert_eq!(
        (slugs, rest.next),
        ((0..5).map(|n| format!("t{n}")).collect(), None)
    );

    let page = store
        .certificates(soon(), &everyone, None, &first)
        .await
        .unwrap();
    let rest = store
        .certificates(soon(), &everyone, None, &second(page.next))
        .await
        .unwrap();
    let listed: Vec<_> = page
        .items
        .iter()
        .chain(&rest.items)
        .map(|c| c.facts.id)
        .collect();
    assert_eq!((listed, rest.next), (ids, None));

    let page = store.jobs(soon(), &everyone, None, &first).await.unwrap();
    let rest = store
        .jobs(soon(), &everyone, None, &second(page.next))
        .await
        .unwrap();
    let keys: Vec<&JobRecord> = page.items.iter().chain(&rest.items).collect();
    assert!(keys.is_sorted_by_key(|job| &job.key) && keys.len() == 5);

    let of = tenant("t3");
    let page = store
        .domains(soon(), &everyone, Some(&of), &first)
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);
    let nonsense = PageRequest {
        after: Some("no such page".to_owned()),
        most: 3,
    };
    assert!(
        store
            .certificates(soon(), &everyone, None, &nonsense)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let owner = KeyOwner::Platform;
    assert!(
        store
            .events(soon(), &everyone, &owner, &nonsense)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}
