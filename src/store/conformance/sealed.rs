//! What is sealed anew, and the data keys that nothing needs any more.

use super::support::{Factory, Fresh, certificate, job_key, soon, tenant};
use crate::model::TenantScope;
use crate::model::certificate::CaId;
use crate::store::PageRequest;
use crate::store::batch::{Batch, Guard, JobOutcome, Operation, Resealed, SealedPlace};
use crate::store::job::SavedOrder;
use crate::store::record::{DataKeyRecord, KeyOwner, MaterialRecord};

fn blob(number: u8) -> Vec<u8> {
    let mut blob = vec![9; 60];
    blob[..5].copy_from_slice(&[1, 0, 0, 0, number]);
    blob
}

fn acme() -> KeyOwner {
    KeyOwner::Tenant(tenant("acme"))
}

fn reseal(place: SealedPlace, from: u8, to: u8) -> Batch {
    Batch::new().then(Operation::Reseal(Box::new(Resealed {
        owner: acme(),
        place,
        from: blob(from),
        to: blob(to),
    })))
}

fn destroy_below_two() -> Batch {
    Batch::new()
        .guard(Guard::NothingSealedBelow(acme(), 2))
        .then(Operation::DestroyDataKeysBelow {
            owner: acme(),
            number: 2,
        })
}

pub(crate) async fn a_blob_sealed_anew_takes_the_place_of_the_one_that_was_read(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    let mut record = certificate("acme", &["a.test"]);
    record.sealed_key = blob(1);
    let ca = CaId::new("ca");
    let material = MaterialRecord {
        ca: ca.clone(),
        slot: "issuing:acme".to_owned(),
        public: vec![],
        sealed: blob(1),
        created_at: fresh.clock.now(),
    };
    let put = Batch::new()
        .then(Operation::PutCertificate(Box::new(record.clone())))
        .then(Operation::PutMaterial(material.clone()));
    fresh.apply(put).await;
    let certificate = SealedPlace::Certificate(record.facts.id);
    let place = SealedPlace::Material(ca.clone(), material.slot.clone());
    let scope = TenantScope::operator();
    // The second is of something that does not lie there any more.
    for (from, to) in [(1, 2), (1, 3)] {
        fresh.apply(reseal(certificate.clone(), from, to)).await;
        fresh.apply(reseal(place.clone(), from, to)).await;
        let found = fresh.store.certificate(soon(), &scope, record.facts.id);
        assert_eq!(found.await.unwrap().unwrap().sealed_key, blob(2));
        let page = PageRequest::first();
        let found = fresh.store.materials(soon(), &page).await.unwrap();
        let expected = MaterialRecord {
            sealed: blob(2),
            ..material.clone()
        };
        assert_eq!(found.items, [expected]);
    }
}

pub(crate) async fn an_older_data_key_stays_while_something_may_need_it(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    fresh.request("acme", "a.test").await;
    let mut record = certificate("acme", &["a.test"]);
    record.sealed_key = blob(1);
    let keys = [1, 2].map(|id| DataKeyRecord {
        owner: acme(),
        id,
        wrapped: vec![7],
    });
    let put = keys.into_iter().fold(Batch::new(), |batch, key| {
        batch.then(Operation::PutDataKey(key))
    });
    fresh.apply(put).await;
    let put = Operation::PutCertificate(Box::new(record.clone()));
    fresh.apply(Batch::new().then(put)).await;
    // A certificate.
    assert!(fresh.try_apply(destroy_below_two()).await.is_err());
    let place = SealedPlace::Certificate(record.facts.id);
    fresh.apply(reseal(place, 1, 2)).await;
    // A job that runs.
    let claim = fresh.claim_one().await.claim;
    assert!(fresh.try_apply(destroy_below_two()).await.is_err());
    let order = SavedOrder {
        ca: CaId::new("ca"),
        url: "https://ca.test/1".to_owned(),
        sealed_key: blob(1),
    };
    let save = Operation::SaveOrder {
        key: claim.key.clone(),
        order: Some(order),
    };
    let interrupted = Operation::FinishJob {
        key: claim.key.clone(),
        outcome: JobOutcome::Deferred,
        next: std::time::Duration::ZERO,
    };
    let batch = Batch::new().guard(Guard::ClaimHeld(claim));
    fresh.apply(batch.then(save).then(interrupted)).await;
    // A saved order.
    assert!(fresh.try_apply(destroy_below_two()).await.is_err());
    let (scope, page, id) = (
        TenantScope::operator(),
        PageRequest::first(),
        tenant("acme"),
    );
    let orders = async || {
        let listed = fresh.store.order_keys(soon(), &scope, &id, &page);
        let listed = listed.await.unwrap().items;
        listed
            .into_iter()
            .map(|order| (order.job, order.sealed_key))
            .collect::<Vec<_>>()
    };
    assert_eq!(orders().await, [(job_key("a.test"), blob(1))]);
    fresh
        .apply(reseal(SealedPlace::Order(job_key("a.test")), 1, 2))
        .await;
    assert_eq!(orders().await, [(job_key("a.test"), blob(2))]);
    fresh.apply(destroy_below_two()).await;
    let key = async |number| {
        fresh
            .store
            .data_key(soon(), &acme(), Some(number))
            .await
            .unwrap()
    };
    assert!(key(1).await.is_none() && key(2).await.is_some());
}
