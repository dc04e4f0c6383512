//! Tenants never touch.

use std::sync::Arc;
use std::time::Duration;

use super::support::{
    Factory, Fresh, certificate, job_key, name, pattern, put_domain, registration, request, soon,
    tenant,
};
use crate::model::TenantScope;
use crate::model::certificate::CaId;
use crate::model::domain::{DomainState, Source};
use crate::model::reach::ReachMemory;
use crate::model::standing::Learnt;
use crate::store::PageRequest;
use crate::store::batch::{ApplyError, Batch, JobOutcome, Operation, Resealed, SealedPlace};
use crate::store::job::SavedOrder;
use crate::store::record::{DataKeyRecord, KeyOwner, MaterialRecord};

/// A store where `globex` has everything that a tenant can have.
async fn of_globex(factory: &Factory) -> (Fresh, crate::store::record::CertificateRecord) {
    let fresh = Fresh::of(factory).await;
    let certificate = certificate("globex", &["globex.test"]);
    let batch = registration("globex", "globex.test")
        .then(Operation::PutTenant {
            id: tenant("acme"),
            source: Source::File,
        })
        .then(request("globex", "globex.test"))
        .then(Operation::PutCertificate(Box::new(certificate.clone())))
        .then(Operation::PointDomain {
            pattern: pattern("globex.test"),
            certificate: certificate.facts.id,
        })
        .audit(super::audit::event("globex", 1));
    fresh.apply(batch).await;
    (fresh, certificate)
}

pub(crate) async fn a_tenants_scope_changes_nothing_of_another(factory: &Factory) {
    let (fresh, theirs) = of_globex(factory).await;
    let before = fresh
        .store
        .resolve(soon(), &name("globex.test"))
        .await
        .unwrap();
    let key = job_key("globex.test");
    let pattern = pattern("globex.test");
    let host = name("globex.test");
    let order = SavedOrder {
        ca: CaId::new("ca"),
        url: "https://ca/1".to_owned(),
        sealed_key: vec![1],
    };
    let wrapped = DataKeyRecord {
        owner: KeyOwner::Tenant(tenant("globex")),
        id: 1,
        wrapped: vec![1],
    };
    let operations = [
        Operation::Remember {
            pattern: pattern.clone(),
            learnt: Box::new(Learnt::Reach(ReachMemory::default())),
        },
        Operation::SetCertificateStanding {
            certificate: theirs.facts.id,
            standing: Box::default(),
        },
        Operation::CancelRevocation {
            certificate: theirs.facts.id,
        },
        Operation::DestroyKey {
            certificate: theirs.facts.id,
        },
        Operation::PutTenant {
            id: tenant("globex"),
            source: Source::Api,
        },
        put_domain("globex", "more.globex.test"),
        Operation::SetDomainState {
            pattern: pattern.clone(),
            state: DomainState::Suspended,
            problem: None,
        },
        Operation::DeleteDomain {
            pattern: pattern.clone(),
        },
        Operation::PutCertificate(Box::new(certificate("globex", &["globex.test"]))),
        Operation::PointDomain {
            pattern: pattern.clone(),
            certificate: theirs.facts.id,
        },
        Operation::PutChallenge {
            host: host.clone(),
            token: "t".to_owned(),
            key_authorization: "t.p".to_owned(),
            lifetime: Duration::from_secs(60),
        },
        Operation::DropChallenges { host },
        request("globex", "globex.test"),
        Operation::SaveOrder {
            key: key.clone(),
            order: Some(order),
        },
        Operation::FinishJob {
            key: key.clone(),
            outcome: JobOutcome::Done,
            next: Duration::ZERO,
        },
        Operation::Reseal(Box::new(Resealed {
            owner: KeyOwner::Tenant(tenant("globex")),
            place: SealedPlace::Order(key.clone()),
            from: vec![1],
            to: vec![2],
        })),
        Operation::DestroyDataKeysBelow {
            owner: KeyOwner::Tenant(tenant("globex")),
            number: 2,
        },
        Operation::DeleteJob { key },
        Operation::PutDataKey(wrapped),
        Operation::DestroyDataKeys {
            tenant: tenant("globex"),
            through: 1,
        },
    ];
    let ours = TenantScope::certificate_work(tenant("acme"));
    let globex = KeyOwner::Tenant(tenant("globex"));
    for operation in operations {
        let text = format!("{operation:?}");
        let refused = fresh
            .store
            .apply(soon(), &ours, Batch::new().then(operation))
            .await;
        match refused {
            Err(ApplyError::OutOfScope(owner)) => assert_eq!(owner, globex, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let event = Batch::new().audit(super::audit::event("globex", 2));
    let refused = fresh.store.apply(soon(), &ours, event).await;
    assert!(matches!(refused, Err(ApplyError::OutOfScope(_))));
    assert_eq!(
        fresh
            .store
            .resolve(soon(), &name("globex.test"))
            .await
            .unwrap(),
        before
    );
    assert_eq!(fresh.claim(10).await.len(), 1);
}

pub(crate) async fn a_tenants_scope_changes_nothing_of_the_platform(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let material = MaterialRecord {
        ca: CaId::new("ca"),
        slot: "account".to_owned(),
        public: vec![],
        sealed: vec![],
        created_at: fresh.clock.now(),
    };
    let wrapped = DataKeyRecord {
        owner: KeyOwner::Platform,
        id: 1,
        wrapped: vec![1],
    };
    let task: Arc<str> = Arc::from("sweep");
    let operations = [
        Operation::Reseal(Box::new(Resealed {
            owner: KeyOwner::Tenant(tenant("acme")),
            place: SealedPlace::Material(material.ca.clone(), material.slot.clone()),
            from: vec![],
            to: vec![1],
        })),
        Operation::DestroyDataKeysBelow {
            owner: KeyOwner::Platform,
            number: 2,
        },
        Operation::PutMaterial(material),
        Operation::PutDataKey(wrapped),
        Operation::RequestUpkeep {
            task,
            delay: Duration::ZERO,
        },
    ];
    let ours = TenantScope::certificate_work(tenant("acme"));
    for operation in operations {
        let batch = Batch::new().then(operation);
        let refused = fresh.store.apply(soon(), &ours, batch.clone()).await;
        assert!(
            matches!(refused, Err(ApplyError::OutOfScope(KeyOwner::Platform))),
            "{refused:?}"
        );
        assert!(fresh.try_apply(batch).await.is_ok());
    }
}

pub(crate) async fn a_tenants_scope_reads_nothing_of_another(factory: &Factory) {
    let (fresh, theirs) = of_globex(factory).await;
    let store = &fresh.store;
    let ours = TenantScope::certificate_work(tenant("acme"));
    let globex = tenant("globex");
    let page = PageRequest::first();
    let domain = store
        .domain(soon(), &ours, &pattern("globex.test"))
        .await
        .unwrap();
    assert_eq!(domain, None);
    let certificate = store
        .certificate(soon(), &ours, theirs.facts.id)
        .await
        .unwrap();
    assert_eq!(certificate, None);
    assert_eq!(
        store
            .job(soon(), &ours, &job_key("globex.test"))
            .await
            .unwrap(),
        None
    );
    for of in [None, Some(&globex)] {
        assert!(
            store
                .domains(soon(), &ours, of, &page)
                .await
                .unwrap()
                .items
                .is_empty()
        );
        assert!(
            store
                .certificates(soon(), &ours, of, &page)
                .await
                .unwrap()
                .items
                .is_empty()
        );
        assert!(
            store
                .jobs(soon(), &ours, of, &page)
                .await
                .unwrap()
                .items
                .is_empty()
        );
    }
    let tenants = store.tenants(soon(), &ours, &page).await.unwrap().items;
    assert_eq!(tenants.len(), 1);
    for owner in [KeyOwner::Platform, KeyOwner::Tenant(globex.clone())] {
        assert!(
            store
                .events(soon(), &ours, &owner, &page)
                .await
                .unwrap()
                .items
                .is_empty()
        );
    }
    // The same questions within reach have answers.
    let theirs_own = TenantScope::certificate_work(globex.clone());
    for scope in [theirs_own, TenantScope::operator()] {
        assert!(
            store
                .domain(soon(), &scope, &pattern("globex.test"))
                .await
                .unwrap()
                .is_some()
        );
        let found = store
            .certificate(soon(), &scope, theirs.facts.id)
            .await
            .unwrap();
        assert_eq!(found.as_ref(), Some(&theirs));
        assert!(
            store
                .job(soon(), &scope, &job_key("globex.test"))
                .await
                .unwrap()
                .is_some()
        );
        for of in [None, Some(&globex)] {
            assert_eq!(
                store
                    .domains(soon(), &scope, of, &page)
                    .await
                    .unwrap()
                    .items
                    .len(),
                1
            );
            assert_eq!(
                store
                    .certificates(soon(), &scope, of, &page)
                    .await
                    .unwrap()
                    .items
                    .len(),
                1
            );
            assert_eq!(
                store
                    .jobs(soon(), &scope, of, &page)
                    .await
                    .unwrap()
                    .items
                    .len(),
                1
            );
        }
        let owner = KeyOwner::Tenant(globex.clone());
        assert_eq!(
            store
                .events(soon(), &scope, &owner, &page)
                .await
                .unwrap()
                .items
                .len(),
            1
        );
    }
}

pub(crate) async fn a_name_changes_owner_only_by_being_given_up(factory: &Factory) {
    let (fresh, theirs) = of_globex(factory).await;
    let ours = TenantScope::certificate_work(tenant("acme"));
    let taking = [
        Batch::new().then(put_domain("acme", "globex.test")),
        Batch::new().then(Operation::PutCertificate(Box::new(certificate(
            "acme",
            &["acme.test", "globex.test"],
        )))),
    ];
    for scope in [ours, TenantScope::operator()] {
        for batch in taking.clone() {
            let refused = fresh.store.apply(soon(), &scope, batch).await;
            match refused {
                Err(ApplyError::OwnedByOther { pattern, wanted_by }) => {
                    assert_eq!(
                        (pattern.to_string().as_str(), wanted_by.as_str()),
                        ("globex.test", "acme")
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // Nor does a certificate serve another tenant's domain, or a name that it does not hold.
    fresh.register("acme", "acme.test").await;
    fresh.register("globex", "second.globex.test").await;
    for domain in ["acme.test", "second.globex.test"] {
        let point = Operation::PointDomain {
            pattern: pattern(domain),
            certificate: theirs.facts.id,
        };
        let refused = fresh.try_apply(Batch::new().then(point)).await;
        assert!(
            matches!(refused, Err(ApplyError::Missing(_))),
            "{refused:?}"
        );
    }
}
