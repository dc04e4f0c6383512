//! Data keys renewed over a real store.

use std::sync::Arc;

use super::*;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::certs::vault::tests::{at, named, sealed, secret, tenant};
use crate::keys::{DataKey, KeyEncryptionKey};
use crate::model::certificate::CaId;
use crate::store::Store;
use crate::store::batch::JobOutcome;
use crate::store::conformance::support::{certificate, registration, request};
use crate::store::job::{ClaimRequest, JobKind, Paces, SavedOrder};
use crate::store::record::{CertificateRecord, DataKeyRecord, MaterialRecord};

fn by() -> Deadline {
    Deadline::after(PATIENCE)
}

async fn apply(store: &dyn Store, batch: Batch) {
    store
        .apply(by(), &TenantScope::operator(), batch)
        .await
        .unwrap();
}

/// A certificate of `tenant0` whose key is really sealed.
async fn certified(store: &dyn Store, vault: &Vault, name: &str) -> CertificateRecord {
    apply(
        store,
        registration("tenant0", name).then(request("tenant0", name)),
    )
    .await;
    let mut record = certificate("tenant0", &[name]);
    let sealed_as = credential::key_sealed_as(&record.facts).unwrap();
    record.sealed_key = vault.seal(&named(0), &sealed_as, &secret()).await.unwrap();
    let put = Operation::PutCertificate(Box::new(record.clone()));
    apply(store, Batch::new().then(put)).await;
    record
}

async fn material(store: &dyn Store, vault: &Vault, owner: &KeyOwner, slot: &str) {
    let ca = CaId::new("ca");
    let name = accounts::sealed_as(&ca, slot);
    let put = Operation::PutMaterial(MaterialRecord {
        sealed: vault.seal(owner, &name, &secret()).await.unwrap(),
        ca,
        slot: slot.to_owned(),
        public: Vec::new(),
        created_at: Timestamp::from_seconds(1),
    });
    apply(store, Batch::new().then(put)).await;
}

async fn material_number(store: &dyn Store, slot: &str) -> Option<u32> {
    let found = store.material(by(), &CaId::new("ca"), slot).await.unwrap();
    sealed_by(&found.unwrap().sealed)
}

async fn key_of(store: &dyn Store, record: &CertificateRecord) -> Vec<u8> {
    let scope = TenantScope::operator();
    let found = store.certificate(by(), &scope, record.facts.id).await;
    found.unwrap().unwrap().sealed_key
}

#[tokio::test]
async fn what_an_older_data_key_sealed_is_sealed_anew_and_the_older_is_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 2).await;
    let mut records = Vec::new();
    for number in 0..250 {
        records.push(certified(&*store, &vault, &format!("n{number}.test")).await);
    }
    material(&*store, &vault, &named(0), "issuing:tenant0").await;
    material(&*store, &vault, &named(1), "issuing:tenant1").await;
    material(&*store, &vault, &KeyOwner::Platform, "account").await;

    let owner = named(0);
    let made = vault.renew_data_key(&owner, AuditActor::Operator).await;
    assert_eq!(made.unwrap(), Some(2));
    // Asked again before it is done, it is the same.
    let again = vault.renew_data_key(&owner, AuditActor::Operator).await;
    assert_eq!(again.unwrap(), Some(2));
    let census = vault.settle().await.unwrap();
    assert_eq!(census.several, std::slice::from_ref(&owner));

    let first = vault.reseal(&owner, Duration::ZERO).await.unwrap();
    let (resealed, stuck) = (251, 0);
    assert_eq!(first, (Resealing { resealed, stuck }, Older::Left));
    assert_eq!(material_number(&*store, "issuing:tenant0").await, Some(2));
    assert_eq!(material_number(&*store, "issuing:tenant1").await, Some(1));
    assert_eq!(material_number(&*store, "account").await, Some(1));
    // Not before a while has gone by without anything to do.
    let early = vault.reseal(&owner, GRACE).await.unwrap();
    assert_eq!(early, (Resealing::default(), Older::Left));
    let late = vault.reseal(&owner, Duration::ZERO).await.unwrap();
    assert_eq!(late, (Resealing::default(), Older::None));
    let gone = store.data_key(by(), &owner, Some(1)).await.unwrap();
    assert_eq!(gone, None);

    let later = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    for record in &records {
        let name = credential::key_sealed_as(&record.facts).unwrap();
        let now = key_of(&*store, record).await;
        let opened = later.open(&owner, &name, &now).await.unwrap();
        assert_eq!(opened.expose(), b"private");
        // What was there before opens nowhere again.
        assert!(vault.open(&owner, &name, &record.sealed_key).await.is_err());
    }
    assert_eq!(later.settle().await.unwrap().several, []);
    // The look-up of a handshake finds the new data key with the certificate.
    let host = crate::model::DnsName::parse("n7.test").unwrap();
    apply(
        &*store,
        Batch::new().then(Operation::PointDomain {
            pattern: records[7].facts.names[0].clone(),
            certificate: records[7].facts.id,
        }),
    )
    .await;
    let resolved = store.resolve(by(), &host).await.unwrap().unwrap();
    assert_eq!(resolved.data_key.unwrap().id, 2);
}

#[tokio::test]
async fn the_platforms_accounts_are_sealed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 1).await;
    material(&*store, &vault, &KeyOwner::Platform, "account").await;
    let owner = KeyOwner::Platform;
    vault
        .renew_data_key(&owner, AuditActor::Operator)
        .await
        .unwrap();
    vault.reseal(&owner, Duration::ZERO).await.unwrap();
    assert_eq!(material_number(&*store, "account").await, Some(2));
    let (_, older) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
    assert_eq!(older, Older::None);
    let name = accounts::sealed_as(&CaId::new("ca"), "account");
    let found = store.material(by(), &CaId::new("ca"), "account").await;
    let sealed = found.unwrap().unwrap().sealed;
    let later = Vault::unlock(store, &at(folder.path())).await.unwrap();
    assert!(later.open(&owner, &name, &sealed).await.is_ok());
}

#[tokio::test]
async fn a_running_job_keeps_the_older_data_key_and_its_order_is_sealed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 1).await;
    apply(
        &*store,
        registration("tenant0", "a.test").then(request("tenant0", "a.test")),
    )
    .await;
    let claims = ClaimRequest {
        kind: JobKind::Certificate,
        holder: uuid::Uuid::new_v4(),
        most: 1,
        lease: Duration::from_secs(60),
        paces: Paces::default(),
    };
    let held = store.claim(by(), &claims).await.unwrap();
    let claim = held.jobs.into_iter().next().unwrap().claim;
    let pattern: crate::model::NamePattern = "a.test".parse().unwrap();
    let name = credential::sealed_as(&pattern);
    let sealed_key = vault.seal(&named(0), &name, &secret()).await.unwrap();
    let saved = Operation::SaveOrder {
        key: claim.key.clone(),
        order: Some(SavedOrder {
            ca: CaId::new("ca"),
            url: "https://ca.test/order/1".to_owned(),
            sealed_key: sealed_key.clone(),
        }),
    };
    apply(
        &*store,
        Batch::new()
            .guard(Guard::ClaimHeld(claim.clone()))
            .then(saved),
    )
    .await;

    let owner = named(0);
    vault
        .renew_data_key(&owner, AuditActor::Operator)
        .await
        .unwrap();
    let (done, older) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
    assert_eq!((done.resealed, older), (1, Older::Left));
    for _ in 0..2 {
        let (_, older) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
        assert_eq!(
            older,
            Older::Left,
            "its holder may still have the older blob"
        );
    }
    assert!(vault.open(&owner, &name, &sealed_key).await.is_ok());
    let id = TenantId::parse("tenant0").unwrap();
    let saved = store
        .order_keys(by(), &TenantScope::operator(), &id, &first_page())
        .await
        .unwrap();
    assert_eq!(sealed_by(&saved.items[0].sealed_key), Some(2));
    let finish = Operation::FinishJob {
        key: claim.key.clone(),
        outcome: JobOutcome::Done,
        next: Duration::from_secs(60),
    };
    apply(
        &*store,
        Batch::new().guard(Guard::ClaimHeld(claim)).then(finish),
    )
    .await;
    let (_, older) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
    assert_eq!(older, Older::None);
}

#[tokio::test]
async fn a_blob_that_does_not_open_keeps_its_data_key() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 1).await;
    apply(&*store, registration("tenant0", "a.test")).await;
    let mut record = certificate("tenant0", &["a.test"]);
    // Sealed under another name.
    record.sealed_key = vault
        .seal(&named(0), "key:b.test", &secret())
        .await
        .unwrap();
    apply(
        &*store,
        Batch::new().then(Operation::PutCertificate(Box::new(record))),
    )
    .await;
    let owner = named(0);
    vault
        .renew_data_key(&owner, AuditActor::Operator)
        .await
        .unwrap();
    for _ in 0..3 {
        let (done, older) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
        assert_eq!((done.resealed, done.stuck, older), (0, 1, Older::Left));
    }
}

#[tokio::test]
async fn material_whose_data_key_does_not_open_keeps_that_data_key() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 2).await;
    material(&*store, &vault, &named(0), "issuing:tenant0").await;
    material(&*store, &vault, &named(1), "issuing:tenant1").await;
    let owner = named(0);
    let right = store.data_key(by(), &owner, Some(1)).await.unwrap();
    let right = right.unwrap();
    vault
        .renew_data_key(&owner, AuditActor::Operator)
        .await
        .unwrap();
    // Wrapped by a key that is not at hand at present.
    let away = KeyEncryptionKey::create(&folder.path().join("away")).unwrap();
    let (_, wrapped) = DataKey::create(&away, owner.as_str(), 1).unwrap();
    let closed = DataKeyRecord {
        wrapped,
        ..right.clone()
    };
    apply(&*store, Batch::new().then(Operation::PutDataKey(closed))).await;
    vault.forget(&owner);
    for _ in 0..3 {
        let (done, older) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
        assert_eq!((done.resealed, done.stuck, older), (0, 1, Older::Left));
    }
    // Once the key is back, it goes on.
    apply(&*store, Batch::new().then(Operation::PutDataKey(right))).await;
    let (done, _) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
    assert_eq!((done.resealed, done.stuck), (1, 0));
    assert_eq!(material_number(&*store, "issuing:tenant0").await, Some(2));
    let (_, older) = vault.reseal(&owner, Duration::ZERO).await.unwrap();
    assert_eq!(older, Older::None);
}

#[tokio::test]
async fn an_owner_without_a_data_key_gets_none() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, _) = sealed(folder.path(), 1).await;
    let made = vault
        .renew_data_key(&tenant("nobody"), AuditActor::Operator)
        .await;
    assert_eq!(made.unwrap(), None);
    let plain: Secret = secret();
    assert!(vault.seal(&tenant("nobody"), "n", &plain).await.is_ok());
}
