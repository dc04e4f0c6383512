//! Registration by the hook and removal, over a real store.

use super::*;
use crate::control::fixture::{
    World, name, pattern, registration as stored, revoked, soon, tenant,
};
use crate::model::route::UpstreamName;

fn registration(host: &str, slug: &str, upstream: Option<&str>) -> Registration {
    Registration {
        name: name(host),
        tenant: tenant(slug),
        upstream: upstream.map(UpstreamName::new),
    }
}

#[tokio::test]
async fn an_allowed_name_is_stored_audited_and_published_before_it_returns() {
    let world = World::new().await;
    let domains = world.domains().await;
    for upstream in [None, Some("core"), Some("core")] {
        let asked = registration("shop.test", "ask:shop.test", upstream);
        domains.register(asked).await.unwrap();
        let snapshot = world.snapshot.load();
        let known = snapshot.domain(&name("shop.test")).unwrap();
        assert_eq!(known.tenant.as_str(), "ask:shop.test");
        assert_eq!(known.upstream, upstream.map(UpstreamName::new));
    }
    let record = world.domain("shop.test").await.unwrap();
    assert_eq!(record.source, Source::Hook);
    // The third call changed nothing, and so left no event.
    let kinds = world.kinds("ask:shop.test").await;
    assert_eq!(kinds, ["domain.registered", "domain.registered"]);
}

#[tokio::test]
async fn a_name_of_another_tenant_stays_there_and_the_claim_is_audited_once() {
    let world = World::new().await;
    let domains = world.domains().await;
    world.register("owner", "shop.test", Source::Api).await;
    for _ in 0..3 {
        let refused = domains
            .register(registration("shop.test", "thief", None))
            .await;
        assert!(matches!(refused, Err(RegisterError::OwnedByOther { .. })));
    }
    let record = world.domain("shop.test").await.unwrap();
    assert_eq!(record.tenant, tenant("owner"));
    let events = world.events(&KeyOwner::Platform).await;
    let refused = events
        .iter()
        .filter(|event| event.kind == "domain.claim_refused");
    assert_eq!(refused.count(), 1);
}

#[tokio::test]
async fn a_suspended_name_stays_suspended_and_a_retired_one_comes_back() {
    let world = World::new().await;
    let domains = world.domains().await;
    for (state, comes_back) in [
        (DomainState::Suspended, false),
        (DomainState::Tombstoned, true),
    ] {
        let batch = stored("acme", "shop.test", Source::Hook).then(Operation::SetDomainState {
            pattern: pattern("shop.test"),
            state,
            problem: None,
        });
        world.apply(batch).await;
        let result = domains
            .register(registration("shop.test", "acme", None))
            .await;
        assert_eq!(result.is_ok(), comes_back, "{state}");
        let record = world.domain("shop.test").await.unwrap();
        assert_eq!(record.state.is_served(), comes_back, "{state}");
    }
}

#[tokio::test]
async fn a_retired_name_comes_back_without_a_revoked_certificate_and_with_its_job() {
    let world = World::new().await;
    let domains = world.domains().await;
    world.register("acme", "shop.test", Source::Hook).await;
    let certificate = world.certify("acme", "shop.test").await.facts.id;
    let retire = Batch::new()
        .then(Operation::SetDomainState {
            pattern: pattern("shop.test"),
            state: DomainState::Tombstoned,
            problem: None,
        })
        .then(revoked(certificate));
    world.apply(retire).await;
    let asked = registration("shop.test", "acme", None);
    domains.register(asked).await.unwrap();
    let record = world.domain("shop.test").await.unwrap();
    assert_eq!(record.state, DomainState::PendingDns);
    assert_eq!(record.certificate, None);
    let (scope, key) = (
        TenantScope::operator(),
        JobKey::Certificate(pattern("shop.test")),
    );
    let job = world.store.job(soon(), &scope, &key).await.unwrap();
    assert_eq!(job.map(|job| job.priority), Some(Priority::Renewal));
}

#[tokio::test]
async fn many_registrations_of_one_name_at_once_agree() {
    let world = World::new().await;
    let domains = world.domains().await;
    let asked = (0..20).map(|_| domains.register(registration("shop.test", "acme", None)));
    let results = futures_util::future::join_all(asked).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(world.kinds("acme").await, ["domain.registered"]);
}

#[tokio::test]
async fn a_removed_name_is_forgotten_at_once_and_a_declared_one_is_not_removed_here() {
    let world = World::new().await;
    let domains = world.domains().await;
    world.register("acme", "a.test", Source::Hook).await;
    world.register("acme", "b.test", Source::File).await;
    world.resolver.put(&world.certify("acme", "a.test").await);
    let remove = |slug: &str, text: &str| {
        let (domains, slug, pattern) = (domains.clone(), tenant(slug), pattern(text));
        async move { domains.remove(AuditActor::Operator, &slug, &pattern).await }
    };
    let foreign = remove("other", "a.test").await;
    assert!(matches!(foreign, Err(RemoveError::NotFound(_))));
    let declared = remove("acme", "b.test").await;
    assert!(matches!(declared, Err(RemoveError::Declared(_))));
    remove("acme", "a.test").await.unwrap();
    assert_eq!(world.domain("a.test").await, None);
    assert_eq!(world.owner("a.test"), None);
    assert!(world.resolver.peek(&pattern("a.test")).is_none());
    assert_eq!(world.kinds("acme").await, ["domain.removed"]);
}
