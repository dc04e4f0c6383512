//! Seals, exchanges and destructions over a real store and real files.

use super::*;
use std::path::{Path, PathBuf};

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::model::TenantId;
use crate::model::domain::DomainState;
use crate::store::conformance::support::{certificate, pattern, registration};
use crate::store::embedded::{Embedded, Settings};
use crate::store::job::JobKey;
use crate::store::record::AuditActor;

pub(super) async fn store(folder: &Path) -> Arc<dyn Store> {
    let settings = Settings::in_folder(folder.join("data"));
    let opened = Embedded::open(settings, Clock::system(), &Tasks::new()).await;
    Arc::new(opened.unwrap())
}

pub(super) fn at(folder: &Path) -> keys::Settings {
    keys::Settings {
        key_file: folder.join("kek"),
    }
}

pub(super) fn tenant(slug: &str) -> KeyOwner {
    KeyOwner::Tenant(TenantId::parse(slug).unwrap())
}

pub(super) fn secret() -> Secret {
    Secret::from("private".to_owned())
}

#[tokio::test]
async fn a_new_store_gets_its_keys_and_a_later_start_opens_what_was_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let vault = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    let blob = vault.seal(&tenant("acme"), "n", &secret()).await.unwrap();
    let later = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    let opened = later.open(&tenant("acme"), "n", &blob).await.unwrap();
    assert_eq!(opened.expose(), b"private");
    let record = store
        .data_key(Deadline::after(PATIENCE), &tenant("acme"), None)
        .await
        .unwrap()
        .unwrap();
    let opened = later.open_with(&record, "n", &blob).unwrap();
    assert_eq!(opened.expose(), b"private");
}

#[tokio::test]
async fn a_missing_key_over_an_existing_store_is_never_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    let file = at(folder.path()).key_file;
    std::fs::remove_file(&file).unwrap();
    let error = Vault::unlock(store, &at(folder.path())).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("missing") && text.contains(file.to_str().unwrap()),
        "{text}"
    );
    assert!(!file.exists());
}

#[tokio::test]
async fn a_wrong_key_stops_the_start_and_both_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let file = at(folder.path()).key_file;
    Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    let right = KeyEncryptionKey::load(&file).unwrap().id().to_string();
    std::fs::remove_file(&file).unwrap();
    let wrong = KeyEncryptionKey::create(&file).unwrap().id().to_string();
    let error = Vault::unlock(store, &at(folder.path())).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains(&right) && source.contains(&wrong),
        "{source}"
    );
    assert!(
        error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
}

#[tokio::test]
async fn what_belongs_to_another_tenant_or_name_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::unlock(store(folder.path()).await, &at(folder.path()))
        .await
        .unwrap();
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let ours = vault.seal(&acme, "n", &secret()).await.unwrap();
    vault.seal(&globex, "n", &secret()).await.unwrap();
    for (owner, name) in [(&globex, "n"), (&acme, "m")] {
        let refused = vault.open(owner, name, &ours).await;
        assert!(matches!(refused, Err(VaultError::Open { .. })));
    }
}

#[tokio::test]
async fn many_first_uses_at_once_make_one_data_key() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::unlock(store(folder.path()).await, &at(folder.path()))
        .await
        .unwrap();
    let owner = tenant("acme");
    let secret = secret();
    let seals = (0..20).map(|_| vault.seal(&owner, "n", &secret));
    let blobs = futures_util::future::try_join_all(seals).await.unwrap();
    for blob in blobs {
        assert!(vault.open(&owner, "n", &blob).await.is_ok());
    }
}

#[tokio::test]
async fn nothing_is_sealed_with_a_destroyed_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path()).await;
    let vault = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    let owner = tenant("acme");
    let old = vault.seal(&owner, "n", &secret()).await.unwrap();
    let batch = Batch::new().then(Operation::DestroyDataKeys {
        tenant: TenantId::parse("acme").unwrap(),
        through: 1,
    });
    let by = Deadline::after(PATIENCE);
    store
        .apply(by, &TenantScope::operator(), batch)
        .await
        .unwrap();
    // This vault was not told to forget.
    let new = vault.seal(&owner, "n", &secret()).await.unwrap();
    let other = Vault::unlock(store, &at(folder.path())).await.unwrap();
    assert!(other.open(&owner, "n", &new).await.is_ok());
    assert!(vault.open(&owner, "n", &new).await.is_ok());
    vault.forget(&owner);
    assert!(vault.open(&owner, "n", &old).await.is_err());
}

pub(super) fn named(number: usize) -> KeyOwner {
    tenant(&format!("tenant{number}"))
}

/// A store with the keys of many tenants, and what was sealed for them.
pub(super) async fn sealed(folder: &Path, tenants: usize) -> (Arc<dyn Store>, Vault, Vec<Vec<u8>>) {
    let store = store(folder).await;
    let vault = Vault::unlock(Arc::clone(&store), &at(folder))
        .await
        .unwrap();
    let mut blobs = Vec::new();
    for number in 0..tenants {
        blobs.push(vault.seal(&named(number), "n", &secret()).await.unwrap());
    }
    (store, vault, blobs)
}

pub(super) async fn all_open(vault: &Vault, blobs: &[Vec<u8>]) {
    for (number, blob) in blobs.iter().enumerate() {
        let opened = vault.open(&named(number), "n", blob).await.unwrap();
        assert_eq!(opened.expose(), b"private");
    }
}

/// The key-encryption keys that wrap anything.
async fn wrapping(store: &dyn Store) -> Vec<KekId> {
    let scope = TenantScope::operator();
    let page = crate::store::PageRequest::first();
    let by = Deadline::after(PATIENCE);
    let read = store.data_keys(by, &scope, &page).await.unwrap().items;
    let ids = read
        .iter()
        .map(|key| keys::data_key::wrapped_by(&key.wrapped).unwrap());
    let mut ids: Vec<_> = ids.collect();
    ids.dedup();
    ids
}

/// Exchanges the key to the end.
pub(super) async fn exchange(vault: &Vault) -> exchange::Exchanged {
    vault
        .begin_exchange(&KeyOwner::Platform, AuditActor::Operator)
        .await
        .unwrap();
    vault.settle().await.unwrap();
    vault.standing().last.unwrap()
}

#[tokio::test]
async fn an_exchange_wraps_every_data_key_anew_while_everything_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 250).await;
    let file = at(folder.path()).key_file;
    let old = KeyEncryptionKey::load(&file).unwrap().id();
    let (done, ()) = tokio::join!(exchange(&vault), async {
        for _ in 0..5 {
            all_open(&vault, &blobs).await;
        }
        let late = vault.seal(&tenant("late"), "n", &secret()).await.unwrap();
        assert!(vault.open(&tenant("late"), "n", &late).await.is_ok());
    });
    assert_eq!(
        (done.from, done.to),
        (old, KeyEncryptionKey::load(&file).unwrap().id())
    );
    assert!(done.data_keys >= 251, "{done:?}");
    assert_eq!(wrapping(&*store).await, [done.to]);
    all_open(&vault, &blobs).await;
    std::fs::remove_file(&done.retired).unwrap();
    let later = Vault::unlock(store, &at(folder.path())).await.unwrap();
    all_open(&later, &blobs).await;
    assert!(!later.is_exchanging());
}

#[tokio::test]
async fn a_process_that_was_not_told_of_an_exchange_opens_and_seals_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 3).await;
    let other = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    exchange(&vault).await;
    all_open(&other, &blobs).await;
    let new = other.seal(&tenant("new"), "n", &secret()).await.unwrap();
    assert!(vault.open(&tenant("new"), "n", &new).await.is_ok());
}

#[tokio::test]
async fn an_exchange_broken_off_anywhere_is_finished_by_the_next_start() {
    let retire = |file: &Path, id| {
        std::fs::hard_link(file, keys::ring::retired_file(file, id)).unwrap();
    };
    for wrapped_before in [0, 1, 4] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _, blobs) = sealed(folder.path(), 3).await;
        let file = at(folder.path()).key_file;
        // What a killed process leaves: a new key beside the old, and some data keys wrapped by it.
        let ring = KeyRing::exchange(&file).unwrap();
        let (new, before) = (ring.current().id(), ring.before().unwrap());
        let custody = Custody::of(ring);
        let page = crate::store::PageRequest::first();
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::operator();
        let records = store.data_keys(by, &scope, &page).await.unwrap().items;
        for record in records.into_iter().take(wrapped_before) {
            let wrapped = custody.rewrap(record.owner.as_str(), record.id, &record.wrapped);
            let wrapped = wrapped.unwrap().unwrap();
            let put = Operation::PutDataKey(DataKeyRecord { wrapped, ..record });
            store
                .apply(by, &scope, Batch::new().then(put))
                .await
                .unwrap();
        }
        if wrapped_before == 4 {
            retire(&file, before);
        }
        let later = Vault::unlock(Arc::clone(&store), &at(folder.path()))
            .await
            .unwrap();
        assert!(later.is_exchanging());
        all_open(&later, &blobs).await;
        later.settle().await.unwrap();
        assert!(!later.is_exchanging());
        assert_eq!(wrapping(&*store).await, [new]);
        all_open(&later, &blobs).await;
    }
}

#[tokio::test]
async fn destroyed_keys_open_in_no_backup_and_the_tenant_may_come_back_with_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = Settings::in_folder(data.clone());
    let embedded = Embedded::open(settings, Clock::system(), &Tasks::new())
        .await
        .unwrap();
    let store: Arc<dyn Store> = Arc::new(embedded.clone());
    let vault = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let ours = vault.seal(&acme, "n", &secret()).await.unwrap();
    let theirs = vault.seal(&globex, "n", &secret()).await.unwrap();
    let backup = folder.path().join("backup");
    embedded.backup_to(&backup).await.unwrap();

    let id = TenantId::parse("acme").unwrap();
    let through = vault.destroy(&id, AuditActor::Operator).await.unwrap();
    assert_eq!(through.map(|keys| keys.through), Some(1));
    assert!(vault.open(&acme, "n", &ours).await.is_err());
    let again = vault.seal(&acme, "n", &secret()).await.unwrap();
    assert_eq!(sealed_by(&again), Some(2));
    embedded.close(Deadline::after(PATIENCE)).await.unwrap();

    let restored = folder.path().join("restored");
    crate::store::embedded::backup::restore(&backup, &restored)
        .await
        .unwrap();
    let settings = Settings::in_folder(restored);
    let opened = Embedded::open(settings, Clock::system(), &Tasks::new())
        .await
        .unwrap();
    let store: Arc<dyn Store> = Arc::new(opened);
    let vault = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    let refused = vault.open(&acme, "n", &ours).await;
    assert!(matches!(
        refused,
        Err(VaultError::KeyGone { number: 1, .. })
    ));
    assert!(vault.open(&globex, "n", &theirs).await.is_ok());
    let new = vault.seal(&acme, "n", &secret()).await.unwrap();
    assert_eq!(
        sealed_by(&new),
        Some(2),
        "a number that was never destroyed"
    );

    // A pass ends them once more, and an exchange carries nothing of them over.
    exchange(&vault).await;
    let by = Deadline::after(PATIENCE);
    assert!(store.data_key(by, &acme, Some(1)).await.unwrap().is_none());
    assert!(vault.open(&acme, "n", &new).await.is_ok());
}

#[tokio::test]
async fn blobs_exchanged_in_the_store_do_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 2).await;
    // The wrapped data keys of two tenants change places, as somebody with access to the database could do.
    let by = Deadline::after(PATIENCE);
    let scope = TenantScope::operator();
    let [a, b] = [0, 1].map(named);
    let key = async |owner: &KeyOwner| store.data_key(by, owner, None).await.unwrap().unwrap();
    let (first, second) = (key(&a).await, key(&b).await);
    let swap = |to: &DataKeyRecord, from: &DataKeyRecord| {
        Operation::PutDataKey(DataKeyRecord {
            wrapped: from.wrapped.clone(),
            ..to.clone()
        })
    };
    let batch = Batch::new()
        .then(swap(&first, &second))
        .then(swap(&second, &first));
    store.apply(by, &scope, batch).await.unwrap();
    vault.forget(&a);
    vault.forget(&b);
    for (owner, blob) in [(&a, &blobs[0]), (&b, &blobs[1]), (&a, &blobs[1])] {
        let refused = vault.open(owner, "n", blob).await;
        assert!(matches!(refused, Err(VaultError::Unwrap { .. })));
    }
}

#[tokio::test]
async fn a_missing_key_and_its_owners_are_named_and_the_others_open() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 3).await;
    // One tenant's data key comes from an older backup, wrapped by a key whose file was deleted since.
    let by = Deadline::after(PATIENCE);
    let old = store.data_key(by, &named(1), None).await.unwrap().unwrap();
    let done = exchange(&vault).await;
    let put = Batch::new().then(Operation::PutDataKey(old));
    let scope = TenantScope::operator();
    store.apply(by, &scope, put).await.unwrap();
    let aside = folder.path().join("aside");
    std::fs::rename(&done.retired, &aside).unwrap();

    let later = Vault::unlock(store, &at(folder.path())).await.unwrap();
    let census = later.settle().await.unwrap();
    assert_eq!((census.data_keys, census.unreadable_keys()), (4, 1));
    let text = census.unreadable[0].to_string();
    for part in [
        done.from.to_string().as_str(),
        done.retired.to_str().unwrap(),
        "tenant1",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(later.open(&named(0), "n", &blobs[0]).await.is_ok());
    assert!(later.open(&named(1), "n", &blobs[1]).await.is_err());
    // An exchange leaves it as it is, and does not stop for it.
    exchange(&later).await;
    // Put back, it opens and is wrapped anew.
    std::fs::rename(&aside, &done.retired).unwrap();
    let census = later.settle().await.unwrap();
    assert_eq!((census.rewrapped, census.unreadable_keys()), (1, 0));
    all_open(&later, &blobs).await;
}

#[tokio::test]
async fn an_exchange_that_cannot_begin_changes_nothing_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, blobs) = sealed(folder.path(), 1).await;
    let next = keys::ring::next_file(&at(folder.path()).key_file);
    std::fs::create_dir(&next).unwrap();
    let error = vault
        .begin_exchange(&KeyOwner::Platform, AuditActor::Operator)
        .await;
    let source = error.unwrap_err();
    let source = std::error::Error::source(&source).unwrap().to_string();
    assert!(source.contains(next.to_str().unwrap()), "{source}");
    assert!(!vault.is_exchanging());
    all_open(&vault, &blobs).await;
}

#[tokio::test]
async fn what_a_restored_backup_brings_back_of_destroyed_keys_ends_again() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a.test";
    let open = async |data: PathBuf| {
        let opened =
            Embedded::open(Settings::in_folder(data), Clock::system(), &Tasks::new()).await;
        opened.unwrap()
    };
    let embedded = open(folder.path().join("data")).await;
    let store: Arc<dyn Store> = Arc::new(embedded.clone());
    let vault = Vault::unlock(Arc::clone(&store), &at(folder.path())).await;
    let vault = vault.unwrap();
    let (by, scope) = (Deadline::after(PATIENCE), TenantScope::operator());
    let mut record = certificate("tenant0", &[name]);
    record.sealed_key = vault.seal(&named(0), "n", &secret()).await.unwrap();
    let id = record.facts.id;
    let serving = registration("tenant0", name)
        .then(Operation::PutCertificate(Box::new(record)))
        .then(Operation::PointDomain {
            pattern: pattern(name),
            certificate: id,
        });
    store.apply(by, &scope, serving).await.unwrap();
    let backup = folder.path().join("backup");
    embedded.backup_to(&backup).await.unwrap();
    let slug = TenantId::parse("tenant0").unwrap();
    vault.destroy(&slug, AuditActor::Operator).await.unwrap();

    let restored = folder.path().join("restored");
    crate::store::embedded::backup::restore(&backup, &restored)
        .await
        .unwrap();
    let store: Arc<dyn Store> = Arc::new(open(restored).await);
    let vault = Vault::unlock(Arc::clone(&store), &at(folder.path())).await;
    let census = vault.unwrap().settle().await.unwrap();
    assert_eq!((census.data_keys, census.unreadable_keys()), (1, 0));
    let read = store.certificate(by, &scope, id).await.unwrap().unwrap();
    assert!(read.sealed_key.is_empty() && read.standing.key_destroyed_at.is_some());
    assert!(store.data_key(by, &named(0), None).await.unwrap().is_none());
    // The domain, which is served again, asks for another certificate.
    let domain = store.domain(by, &scope, &pattern(name)).await.unwrap();
    let domain = domain.unwrap();
    assert_eq!(
        (domain.certificate, domain.state),
        (None, DomainState::PendingDns)
    );
    let key = JobKey::Certificate(pattern(name));
    assert!(store.job(by, &scope, &key).await.unwrap().is_some());
    let page = crate::store::PageRequest::first();
    let events = store.events(by, &scope, &named(0), &page).await.unwrap();
    let ended = |kind: &str| kind == "tenant.keys_destroyed";
    assert_eq!(
        events
            .items
            .iter()
            .filter(|event| ended(&event.kind))
            .count(),
        1
    );
}

#[tokio::test]
async fn data_keys_are_counted_when_somebody_asks() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, _) = sealed(folder.path(), 1).await;
    vault.settle().await.unwrap();
    vault.seal(&tenant("late"), "n", &secret()).await.unwrap();
    let counted = vault.look(Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!(counted.data_keys, 3);
    assert_eq!(vault.standing().census.unwrap().data_keys, 2);
    for _ in 0..250 {
        let owner = tenant(&format!("t{}", uuid::Uuid::new_v4().simple()));
        vault.seal(&owner, "n", &secret()).await.unwrap();
    }
    assert_eq!(vault.look(Duration::ZERO).await.unwrap(), None);
}
