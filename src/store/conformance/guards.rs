//! Batches: all or nothing, and nothing twice.

use futures_util::future::join_all;

use super::support::{
    Factory, Fresh, certificate, job_key, name, pattern, put_domain, registration, request, soon,
    tenant,
};
use crate::model::TenantScope;
use crate::model::certificate::{CaId, CertificateId};
use crate::model::domain::DomainState;
use crate::model::standing::{CertificateStanding, Replace};
use crate::store::batch::{ApplyError, Batch, Guard, Operation};
use crate::store::record::{DataKeyRecord, KeyOwner, MaterialRecord};
use crate::store::{Deadline, PageRequest};

pub(crate) async fn a_refused_batch_leaves_nothing_behind(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "old.test").await;
    let before = fresh.apply(Batch::new()).await.position;
    let missing = Operation::PointDomain {
        pattern: pattern("old.test"),
        certificate: certificate("acme", &["old.test"]).facts.id,
    };
    let event = super::audit::event("acme", 1);
    let whole = registration("globex", "new.test")
        .then(request("globex", "new.test"))
        .then(missing)
        .audit(event);
    let refused = fresh.try_apply(whole).await.unwrap_err();
    assert!(matches!(refused, ApplyError::Missing(_)), "{refused}");
    let guarded =
        registration("globex", "new.test").guard(Guard::DomainAbsent(pattern("old.test")));
    let refused = fresh.try_apply(guarded).await.unwrap_err();
    assert!(
        matches!(refused, ApplyError::GuardFailed(Guard::DomainAbsent(_))),
        "{refused}"
    );

    let everyone = TenantScope::operator();
    let page = PageRequest::first();
    let tenants = fresh.store.tenants(soon(), &everyone, &page).await.unwrap();
    assert_eq!(tenants.items.len(), 1);
    let domains = fresh
        .store
        .domains(soon(), &everyone, None, &page)
        .await
        .unwrap();
    assert_eq!(domains.items.len(), 1);
    assert!(fresh.claim(10).await.is_empty());
    let owner = KeyOwner::Tenant(tenant("acme"));
    let events = fresh
        .store
        .events(soon(), &everyone, &owner, &page)
        .await
        .unwrap();
    assert!(events.items.is_empty());
    assert_eq!(
        fresh.apply(Batch::new()).await.position,
        before,
        "the feed stands still"
    );
}

pub(crate) async fn batches_committed_together_fail_alone(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "taken.test").await;
    let batch = |n: usize| {
        let batch = registration("acme", &format!("n{n}.test"));
        match n % 3 {
            0 => batch.guard(Guard::DomainAbsent(pattern("taken.test"))),
            1 => batch.then(put_domain("nobody", "x.test")),
            _ => batch,
        }
    };
    let results = join_all((0..90).map(|n| fresh.try_apply(batch(n)))).await;
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result.is_ok(), n % 3 == 2, "{n}: {result:?}");
        let host = name(&format!("n{n}.test"));
        let found = fresh.store.resolve(soon(), &host).await.unwrap();
        assert_eq!(found.is_some(), n % 3 == 2, "{n}");
    }
}

pub(crate) async fn every_guard_tells_true_from_false(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let ca = CaId::new("private");
    let platform_key = DataKeyRecord {
        owner: KeyOwner::Platform,
        id: 1,
        wrapped: vec![1],
    };
    let account = MaterialRecord {
        ca: ca.clone(),
        slot: "account".to_owned(),
        public: vec![1],
        sealed: vec![2],
        created_at: fresh.clock.now(),
    };
    let setup = registration("acme", "a.test")
        .then(request("acme", "a.test"))
        .then(Operation::PutDataKey(platform_key))
        .then(Operation::PutMaterial(account));
    fresh.apply(setup).await;
    let stored = certificate("acme", &["a.test"]);
    let (id, standing) = (stored.facts.id, Box::new(stored.standing.clone()));
    let changed = CertificateStanding {
        replace: Some(Replace::Asked),
        ..stored.standing.clone()
    };
    fresh
        .apply(Batch::new().then(Operation::PutCertificate(Box::new(stored))))
        .await;
    let held = fresh.claim_one().await.claim;
    let stale = crate::store::job::Claim {
        counter: held.counter + 1,
        ..held.clone()
    };
    let forged = crate::store::job::Claim {
        nonce: uuid::Uuid::new_v4(),
        ..held.clone()
    };
    let of_nothing = crate::store::job::Claim {
        key: job_key("b.test"),
        ..held.clone()
    };
    let table = [
        (Guard::StandingIs(id, standing.clone()), true),
        (Guard::StandingIs(id, Box::new(changed)), false),
        (Guard::StandingIs(CertificateId::new(), standing), false),
        (Guard::ClaimHeld(held), true),
        (Guard::ClaimHeld(stale), false),
        (Guard::ClaimHeld(forged), false),
        (Guard::ClaimHeld(of_nothing), false),
        (Guard::DomainVersion(pattern("a.test"), 1), true),
        (Guard::DomainVersion(pattern("a.test"), 2), false),
        (Guard::DomainVersion(pattern("b.test"), 1), false),
        (Guard::DomainAbsent(pattern("*.a.test")), true),
        (Guard::DomainAbsent(pattern("a.test")), false),
        (
            Guard::DomainOwnedBy(pattern("a.test"), tenant("acme")),
            true,
        ),
        (
            Guard::DomainOwnedBy(pattern("a.test"), tenant("globex")),
            false,
        ),
        (
            Guard::DomainOwnedBy(pattern("b.test"), tenant("acme")),
            false,
        ),
        (Guard::MaterialAbsent(ca.clone(), "root".to_owned()), true),
        (
            Guard::MaterialIs(ca.clone(), "account".to_owned(), vec![1]),
            true,
        ),
        (
            Guard::MaterialIs(ca.clone(), "account".to_owned(), vec![2]),
            false,
        ),
        (
            Guard::MaterialIs(ca.clone(), "root".to_owned(), vec![1]),
            false,
        ),
        (Guard::MaterialAbsent(ca, "account".to_owned()), false),
        (Guard::DataKeyAbsent(KeyOwner::Platform, 2), true),
        (Guard::DataKeyAbsent(KeyOwner::Platform, 1), false),
        (
            Guard::DataKeyAbsent(KeyOwner::Tenant(tenant("acme")), 1),
            true,
        ),
    ];
    for (guard, expected) in table {
        let result = fresh.try_apply(Batch::new().guard(guard.clone())).await;
        match result {
            Ok(_) => assert!(expected, "{guard:?}"),
            Err(ApplyError::GuardFailed(failed)) => {
                assert_eq!((failed, false), (guard, expected));
            }
            Err(other) => panic!("{guard:?}: {other}"),
        }
    }
}

pub(crate) async fn a_batch_applied_again_changes_nothing_more(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let certificate = certificate("acme", &["a.test"]);
    let batch = registration("acme", "a.test")
        .then(request("acme", "a.test"))
        .then(Operation::PutCertificate(Box::new(certificate.clone())))
        .then(Operation::PointDomain {
            pattern: pattern("a.test"),
            certificate: certificate.facts.id,
        })
        .then(Operation::PutChallenge {
            host: name("a.test"),
            token: "token".to_owned(),
            key_authorization: "token.print".to_owned(),
            lifetime: std::time::Duration::from_secs(60),
        });
    let first = fresh.apply(batch.clone()).await;
    let resolved = fresh.store.resolve(soon(), &name("a.test")).await.unwrap();
    let second = fresh.apply(batch).await;
    assert_eq!(first.jobs, second.jobs);
    assert_eq!(first.position, second.position);
    assert_eq!(
        fresh.store.resolve(soon(), &name("a.test")).await.unwrap(),
        resolved
    );
    assert_eq!(fresh.claim(10).await.len(), 1);
}

pub(crate) async fn a_suspended_domain_stays_so_when_its_renewal_ends(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let certificate = certificate("acme", &["a.test"]);
    let suspend = Operation::SetDomainState {
        pattern: pattern("a.test"),
        state: DomainState::Suspended,
        problem: None,
    };
    let point = Operation::PointDomain {
        pattern: pattern("a.test"),
        certificate: certificate.facts.id,
    };
    let batch = registration("acme", "a.test")
        .then(suspend)
        .then(Operation::PutCertificate(Box::new(certificate)))
        .then(point);
    fresh.apply(batch).await;
    let found = fresh
        .store
        .resolve(soon(), &name("a.test"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.domain.state, DomainState::Suspended);
    assert!(found.certificate.is_some());
}

pub(crate) async fn a_removed_domain_takes_its_job_and_challenges_along(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let challenge = Operation::PutChallenge {
        host: name("a.test"),
        token: "token".to_owned(),
        key_authorization: "token.print".to_owned(),
        lifetime: std::time::Duration::from_secs(60),
    };
    fresh
        .apply(
            registration("acme", "a.test")
                .then(request("acme", "a.test"))
                .then(challenge),
        )
        .await;
    let delete = Operation::DeleteDomain {
        pattern: pattern("a.test"),
    };
    fresh.apply(Batch::new().then(delete.clone())).await;
    assert!(fresh.claim(10).await.is_empty());
    let answer = fresh
        .store
        .challenge(soon(), &name("a.test"), "token")
        .await
        .unwrap();
    assert_eq!(answer, None);
    fresh.apply(Batch::new().then(delete)).await;
    // The name is free for another tenant.
    fresh.register("globex", "a.test").await;
    let orphan = Batch::new().then(request("acme", "a.test"));
    assert!(matches!(
        fresh.try_apply(orphan).await,
        Err(ApplyError::OwnedByOther { .. })
    ));
    let unregistered = Batch::new().then(request("acme", "b.test"));
    assert!(matches!(
        fresh.try_apply(unregistered).await,
        Err(ApplyError::Missing(_))
    ));
}

pub(crate) async fn a_deadline_that_has_passed_is_a_timeout_and_nothing_hangs(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let over = Deadline::after(std::time::Duration::ZERO);
    let everyone = TenantScope::operator();
    let applied = fresh
        .store
        .apply(over, &everyone, registration("acme", "a.test"))
        .await;
    let timeout = ApplyError::Store(crate::store::StoreError::Timeout).to_string();
    assert_eq!(applied.unwrap_err().to_string(), timeout);
    // What was not begun when its time was over never happens: a later write sees that.
    fresh.register("acme", "b.test").await;
    assert_eq!(
        fresh.store.resolve(soon(), &name("a.test")).await.unwrap(),
        None
    );
}
