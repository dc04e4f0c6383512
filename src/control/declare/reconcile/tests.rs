//! Declarations brought into a real store.

use super::*;
use crate::control::declare::Completeness::{Partial, Whole};
use crate::control::fixture::{World, declared, name, pattern, revoked, soon, tenant, within};

async fn job(world: &World, text: &str) -> Option<Priority> {
    let (scope, key) = (TenantScope::operator(), JobKey::Certificate(pattern(text)));
    let job = world.store.job(soon(), &scope, &key).await.unwrap();
    job.map(|job| job.priority)
}

#[tokio::test]
async fn declared_names_are_registered_and_a_second_run_does_nothing() {
    let world = World::new().await;
    let declaration = declared(&[("acme", &["a.test", "*.a.test"]), ("none", &[])], Whole);
    let done = reconcile(&*world.store, &declaration).await.unwrap();
    assert_eq!((done.written, done.retired), (2, 0));
    assert_eq!(job(&world, "a.test").await, None);
    let kinds = world.kinds("acme").await;
    assert_eq!(
        kinds,
        ["tenant.declared", "domain.registered", "domain.registered"]
    );
    let again = reconcile(&*world.store, &declaration).await.unwrap();
    assert_eq!(again, Reconciled::default());
    assert_eq!(world.kinds("acme").await.len(), 3);
    assert_eq!(world.kinds("none").await, ["tenant.declared"]);
}

#[tokio::test]
async fn new_names_get_a_background_job_where_certificates_are_wanted_at_once() {
    let world = World::new().await;
    let declaration = Declaration {
        choices: crate::certs::authorities::Choices::default(),
        obtain: Obtain::AtOnce,
        ..declared(&[("acme", &["a.test"])], Whole)
    };
    reconcile(&*world.store, &declaration).await.unwrap();
    assert_eq!(job(&world, "a.test").await, Some(Priority::Background));
}

#[tokio::test]
async fn a_vanished_name_is_retired_with_its_certificate_and_comes_back_with_it() {
    let world = World::new().await;
    let with = declared(&[("acme", &["a.test"])], Whole);
    let without = declared(&[("acme", &[])], Whole);
    reconcile(&*world.store, &with).await.unwrap();
    let certificate = world.certify("acme", "a.test").await;
    let hidden = declared(&[("acme", &[])], Partial);
    assert_eq!(
        reconcile(&*world.store, &hidden).await.unwrap(),
        Reconciled::default()
    );
    let done = reconcile(&*world.store, &without).await.unwrap();
    assert_eq!((done.written, done.retired), (0, 1));
    let record = world.domain("a.test").await.unwrap();
    assert_eq!(record.state, DomainState::Tombstoned);
    assert_eq!(record.certificate, Some(certificate.facts.id));
    assert_eq!(job(&world, "a.test").await, None);
    let done = reconcile(&*world.store, &with).await.unwrap();
    assert_eq!(done.written, 1);
    let record = world.domain("a.test").await.unwrap();
    assert_eq!(record.state, DomainState::Active);
    assert_eq!(record.certificate, Some(certificate.facts.id));
    // Nobody looked after it meanwhile: its renewal may be overdue.
    assert_eq!(job(&world, "a.test").await, Some(Priority::Renewal));
}

#[tokio::test]
async fn a_name_comes_back_without_a_certificate_that_was_revoked_or_whose_keys_were_destroyed() {
    let with = declared(&[("acme", &["a.test"])], Whole);
    let without = declared(&[("acme", &[])], Whole);
    for destroy_keys in [false, true] {
        let world = World::new().await;
        reconcile(&*world.store, &with).await.unwrap();
        let certificate = world.certify("acme", "a.test").await.facts.id;
        reconcile(&*world.store, &without).await.unwrap();
        let meanwhile = match destroy_keys {
            true => Operation::DestroyDataKeys {
                tenant: tenant("acme"),
                through: 1,
            },
            false => revoked(certificate),
        };
        world.apply(Batch::new().then(meanwhile)).await;
        let done = reconcile(&*world.store, &with).await.unwrap();
        assert_eq!(done.written, 1);
        let record = world.domain("a.test").await.unwrap();
        assert_eq!(record.state, DomainState::PendingDns, "{destroy_keys}");
        assert_eq!(record.certificate, None, "{destroy_keys}");
        assert_eq!(job(&world, "a.test").await, Some(Priority::Renewal));
    }
}

#[tokio::test]
async fn a_name_moved_in_the_files_starts_anew() {
    let world = World::new().await;
    let before = declared(&[("acme", &["a.test"])], Whole);
    reconcile(&*world.store, &before).await.unwrap();
    world.certify("acme", "a.test").await;
    let after = declared(&[("acme", &[]), ("globex", &["a.test"])], Whole);
    let done = reconcile(&*world.store, &after).await.unwrap();
    assert_eq!(done.written, 1);
    let record = world.domain("a.test").await.unwrap();
    assert_eq!(record.tenant, tenant("globex"));
    assert_eq!(record.certificate, None);
    assert_eq!(job(&world, "a.test").await, None);
}

#[tokio::test]
async fn one_bad_tenant_of_a_hundred_leaves_ninety_nine() {
    let world = World::new().await;
    world.register("owner", "taken.test", Source::Hook).await;
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.test")).collect();
    let slugs: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    let mut declaration = declared(&[], Whole);
    for (slug, own) in slugs.iter().zip(&names) {
        let own = if slug == "t42" { "taken.test" } else { own };
        declaration
            .tenants
            .extend(declared(&[(slug, &[own])], Whole).tenants);
    }
    let done = reconcile(&*world.store, &declaration).await.unwrap();
    assert_eq!(done.written, 99);
    assert_eq!(done.warnings.len(), 1);
    let detail = &done.warnings[0].detail;
    assert!(
        detail.contains("tenant t42") && detail.contains("tenant owner"),
        "{detail}"
    );
    let record = world.domain("taken.test").await.unwrap();
    assert_eq!(record.tenant, tenant("owner"));
}

#[tokio::test]
async fn declarations_come_into_force_as_they_are_published() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let first = declared(&[("acme", &["a.test"])], Whole);
    let declarations = Published::new(Arc::new(first));
    let warnings = start(
        Arc::clone(&world.store),
        publisher,
        &declarations,
        &world.tasks,
    );
    world.becomes(|s| s.domain(&name("a.test")).is_some()).await;
    let clash = declared(&[("acme", &["b.test"]), ("globex", &["b.test"])], Whole);
    let mut versions = warnings.watch();
    declarations.publish(Arc::new(clash));
    world
        .becomes(|s| s.domain(&name("b.test")).is_some() && s.domain(&name("a.test")).is_none())
        .await;
    within(async {
        while warnings.load().is_empty() {
            versions.changed().await.unwrap();
        }
    })
    .await;
    assert_eq!(warnings.get()[0].subject, "b.test");
    assert_eq!(world.owner("b.test").as_deref(), Some("acme"));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_left_alone_and_the_other_names_go_on() {
    let world = World::new().await;
    world.register("acme", "a.test", Source::File).await;
    let spoilt = "UPDATE domain SET memory = 'oops' WHERE pattern = 'a.test'";
    world.embedded.spoil(spoilt).await;
    let declaration = declared(&[("acme", &["a.test", "b.test"])], Whole);
    let done = reconcile(&*world.store, &declaration).await.unwrap();
    assert_eq!((done.written, done.warnings.len()), (1, 1));
    assert_eq!(done.warnings[0].subject, "a.test");
}
