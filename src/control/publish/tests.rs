//! The publisher over a real store that changes, fails and comes back.

use std::time::Duration;

use super::*;
use crate::base::clock::Clock;
use crate::control::fixture::{World, name, pattern, soon, tenant};
use crate::model::domain::{DomainState, Source};
use crate::model::route::UpstreamName;
use crate::store::Batch;
use crate::store::batch::Operation;

#[tokio::test]
async fn every_stored_name_is_published_and_only_then_the_snapshot_is_complete() {
    let world = World::new().await;
    let mut batch = Batch::new().then(Operation::PutTenant {
        id: tenant("acme"),
        source: Source::Api,
    });
    for n in 0..2_500 {
        batch = batch.then(Operation::PutDomain {
            pattern: pattern(&format!("n{n}.test")),
            tenant: tenant("acme"),
            source: Source::Api,
            upstream: None,
        });
    }
    world.apply(batch).await;
    assert!(!world.snapshot.load().is_complete());
    let _publisher = world.publisher().await;
    let snapshot = world.snapshot.get();
    assert!(snapshot.is_complete());
    assert_eq!(snapshot.len(), 2_500);
    // 2,000 names are published on the way.
    assert_eq!(world.snapshot.version(), 2);
}

#[tokio::test]
async fn changes_are_followed_and_what_is_not_served_leaves_the_memory() {
    let world = World::new().await;
    world.register("acme", "a.test", Source::Api).await;
    let _publisher = world.publisher().await;
    assert_eq!(world.owner("a.test").as_deref(), Some("acme"));
    world.register("acme", "b.test", Source::Api).await;
    world.becomes(|s| s.domain(&name("b.test")).is_some()).await;
    let serve = |state| {
        Batch::new().then(Operation::SetDomainState {
            pattern: pattern("a.test"),
            state,
            problem: None,
        })
    };
    world.resolver.put(&world.certify("acme", "a.test").await);
    world.apply(serve(DomainState::Suspended)).await;
    world
        .becomes(|s| s.domain(&name("a.test")).is_some_and(|d| !d.served))
        .await;
    assert!(world.resolver.peek(&pattern("a.test")).is_none());
    world.apply(serve(DomainState::Tombstoned)).await;
    world.becomes(|s| s.domain(&name("a.test")).is_none()).await;
    let delete = Operation::DeleteDomain {
        pattern: pattern("b.test"),
    };
    world.apply(Batch::new().then(delete)).await;
    world.becomes(Snapshot::is_empty).await;
}

#[tokio::test]
async fn a_certificate_replaced_by_another_process_replaces_the_one_in_memory() {
    let world = World::new().await;
    world.register("acme", "a.test", Source::Api).await;
    let publisher = world.publisher().await;
    let old = world.certify("acme", "a.test").await;
    world.resolver.put(&old);
    let new = world.certify("acme", "a.test").await;
    publisher.refresh(pattern("a.test")).await.unwrap();
    let kept = world
        .resolver
        .get(&name("a.test"), Clock::system().now())
        .unwrap();
    assert_eq!(kept.facts.id, new.facts.id);
    assert_ne!(kept.facts.id, old.facts.id);
}

#[tokio::test]
async fn what_another_tenant_owns_now_leaves_the_memory() {
    let world = World::new().await;
    world.register("acme", "a.test", Source::Api).await;
    world.resolver.put(&world.certify("acme", "a.test").await);
    let publisher = world.publisher().await;
    assert!(world.resolver.peek(&pattern("a.test")).is_some());
    let moved = Batch::new()
        .then(Operation::DeleteDomain {
            pattern: pattern("a.test"),
        })
        .then(Operation::PutTenant {
            id: tenant("globex"),
            source: Source::Api,
        })
        .then(Operation::PutDomain {
            pattern: pattern("a.test"),
            tenant: tenant("globex"),
            source: Source::Api,
            upstream: None,
        });
    world.apply(moved).await;
    publisher.refresh(pattern("a.test")).await.unwrap();
    assert_eq!(world.owner("a.test").as_deref(), Some("globex"));
    assert!(world.resolver.peek(&pattern("a.test")).is_none());
}

#[tokio::test]
async fn while_the_store_fails_the_last_snapshot_serves_on() {
    let world = World::new().await;
    world.register("acme", "a.test", Source::Api).await;
    let publisher = world.publisher().await;
    world.embedded.close(soon()).await.unwrap();
    let refreshed = publisher.refresh(pattern("a.test")).await;
    assert!(matches!(refreshed, Err(PublishError::Store(_))));
    assert_eq!(world.owner("a.test").as_deref(), Some("acme"));
    assert!(world.snapshot.load().is_complete());
    // Routes need no store.
    let declared = publisher.declare(Arc::default()).await;
    assert!(declared.is_ok());
}

#[tokio::test]
async fn an_upstream_that_is_not_configured_is_a_warning_until_it_is() {
    let world = World::new().await;
    let asked = Operation::PutDomain {
        pattern: pattern("a.test"),
        tenant: tenant("acme"),
        source: Source::Hook,
        upstream: Some(UpstreamName::new("later")),
    };
    let acme = Operation::PutTenant {
        id: tenant("acme"),
        source: Source::Hook,
    };
    world.apply(Batch::new().then(acme).then(asked)).await;
    let publisher = world.publisher().await;
    let warnings = publisher.warnings().get();
    assert_eq!(warnings[0].subject, "a.test");
    assert!(warnings[0].detail.contains("\"later\""));
    // Other routes change nothing of it.
    publisher.declare(Arc::default()).await.unwrap();
    assert_eq!(publisher.warnings().get().len(), 1);
    assert_eq!(world.owner("a.test").as_deref(), Some("acme"));
    let upstream = Upstream::new(
        UpstreamName::new("later"),
        Vec::new(),
        crate::model::route::UpstreamTls::None,
        crate::model::route::UpstreamTimeouts::default(),
    );
    let declaration = Declaration {
        upstreams: vec![Arc::new(upstream)],
        ..Declaration::default()
    };
    publisher.declare(Arc::new(declaration)).await.unwrap();
    assert!(publisher.warnings().get().is_empty());
    assert_eq!(publisher.upstreams().get().len(), 1);
}

#[tokio::test]
async fn a_start_with_a_failing_store_puts_routes_in_force_and_claims_no_completeness() {
    let world = World::new().await;
    world.register("acme", "a.test", Source::Api).await;
    world.embedded.close(soon()).await.unwrap();
    let parts = Parts {
        store: Arc::clone(&world.store),
        snapshot: world.snapshot.clone(),
        resolver: world.resolver.clone(),
        loader: Loader::new(world.vault.clone()),
        metrics: Metrics::new(0),
    };
    let publisher = Publisher::start(parts, &world.tasks);
    // It answers in between its attempts, and says nothing that it does not know.
    let declared = tokio::time::timeout(Duration::from_secs(30), publisher.declare(Arc::default()));
    assert!(declared.await.unwrap().is_ok());
    assert!(!world.snapshot.load().is_complete());
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_no_other_name_from_being_published() {
    let world = World::new().await;
    for name in ["a.test", "b.test", "c.test"] {
        world.register("acme", name, Source::Api).await;
    }
    let spoilt = "UPDATE domain SET memory = 'oops' WHERE pattern = 'b.test'";
    world.embedded.spoil(spoilt).await;
    let publisher = world.publisher().await;
    assert!(world.snapshot.get().is_complete());
    assert_eq!(world.owner("c.test").as_deref(), Some("acme"));
    let warnings = publisher.warnings();
    let warnings = warnings.get();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].subject, "b.test");
}
