//! Tenants' own key-encryption keys over a real store and real files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use super::*;
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::certs::vault::exchange::Census;
use crate::certs::vault::tests::{all_open, at, named, sealed, secret, tenant};
use crate::keys::data_key::wrapped_by;
use crate::keys::ring::retired_file;
use crate::keys::{KekId, KeyEncryptionKey};
use crate::model::TenantScope;
use crate::store::embedded::{Embedded, Settings, backup};
use crate::store::record::AuditActor;
use crate::store::{PageRequest, Store};

/// Tenant 0 has a key of its own in this file; the others are declared too.
fn own_in(file: &Path) -> OwnKeys {
    let id = |number: usize| TenantId::parse(&format!("tenant{number}")).unwrap();
    OwnKeys {
        files: BTreeMap::from([(id(0), file.to_owned())]),
        without: vec![id(1), id(2)],
        ..OwnKeys::default()
    }
}

fn nobody() -> OwnKeys {
    OwnKeys {
        files: BTreeMap::new(),
        without: (0..3)
            .map(|number| TenantId::parse(&format!("tenant{number}")).unwrap())
            .collect(),
        ..OwnKeys::default()
    }
}

async fn wraps(store: &dyn Store, owner: &KeyOwner) -> KekId {
    let by = Deadline::after(PATIENCE);
    let record = store.data_key(by, owner, None).await.unwrap().unwrap();
    wrapped_by(&record.wrapped).unwrap()
}

fn told(census: &Census) -> String {
    let all: Vec<String> = census.unreadable.iter().map(ToString::to_string).collect();
    all.join("; ")
}

#[tokio::test]
async fn a_tenant_gets_its_own_key_and_goes_back_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 3).await;
    let file = folder.path().join("own/tenant0.key");
    let platform = vault.custody().platform().current().id();

    vault.take_own(&own_in(&file)).await.unwrap();
    let own = KeyEncryptionKey::load(&file).unwrap().id();
    all_open(&vault, &blobs).await;
    assert_eq!(vault.settle().await.unwrap().rewrapped, 1);
    assert_eq!(wraps(&*store, &named(0)).await, own);
    assert_eq!(wraps(&*store, &named(1)).await, platform);
    all_open(&vault, &blobs).await;
    // The next start finds it so.
    let later = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    later.take_own(&own_in(&file)).await.unwrap();
    all_open(&later, &blobs).await;

    later.take_own(&nobody()).await.unwrap();
    all_open(&later, &blobs).await;
    assert_eq!(later.custody().owners().count(), 1);
    assert_eq!(later.settle().await.unwrap().rewrapped, 1);
    assert_eq!(later.custody().owners().count(), 0);
    assert_eq!(wraps(&*store, &named(0)).await, platform);
    fs::remove_file(&file).unwrap();
    let later = Vault::unlock(store, &at(folder.path())).await.unwrap();
    all_open(&later, &blobs).await;
}

#[tokio::test]
async fn a_tenant_whose_file_of_the_configuration_is_broken_keeps_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 1).await;
    let file = folder.path().join("tenant0.key");
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    vault.take_own(&OwnKeys::default()).await.unwrap();
    assert_eq!(vault.settle().await.unwrap().rewrapped, 0);
    let own = KeyEncryptionKey::load(&file).unwrap().id();
    assert_eq!(wraps(&*store, &named(0)).await, own);
}

#[tokio::test]
async fn an_own_key_that_cannot_be_used_concerns_its_tenant_alone_and_is_never_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 3).await;
    let file = folder.path().join("tenant0.key");
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    let aside = folder.path().join("aside");

    type Harm = fn(&Path, &Path);
    let missing: Harm = |file, aside| fs::rename(file, aside).unwrap();
    let exposed: Harm = |file, aside| {
        fs::copy(file, aside).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let damaged: Harm = |file, aside| {
        fs::rename(file, aside).unwrap();
        crate::base::file::replace(file, b"damaged", crate::base::file::Access::Owner).unwrap();
    };
    let another: Harm = |file, aside| {
        fs::rename(file, aside).unwrap();
        KeyEncryptionKey::create(file).unwrap();
    };
    let cases = [
        (missing, "does not exist"),
        (exposed, "chmod 600"),
        (damaged, "restore the file"),
        (another, "is not at hand"),
    ];
    for (harm, says) in cases {
        harm(&file, &aside);
        let later = Vault::unlock(Arc::clone(&store), &at(folder.path()))
            .await
            .unwrap();
        later.take_own(&own_in(&file)).await.unwrap();
        let census = later.settle().await.unwrap();
        let text = told(&census);
        assert_eq!(census.unreadable_keys(), 1, "{text}");
        for part in [says, "tenant0", file.to_str().unwrap()] {
            assert!(text.contains(part), "{text}");
        }
        assert!(later.open(&named(0), "n", &blobs[0]).await.is_err());
        assert!(later.seal(&named(0), "n", &secret()).await.is_err());
        assert!(later.open(&named(1), "n", &blobs[1]).await.is_ok());
        assert!(later.seal(&named(2), "n", &secret()).await.is_ok());
        // Put right, it opens at once, and the next pass has nothing to tell.
        fs::rename(&aside, &file).unwrap();
        assert!(later.open(&named(0), "n", &blobs[0]).await.is_ok());
        assert_eq!(told(&later.settle().await.unwrap()), "");
    }
}

#[tokio::test]
async fn a_refusal_names_the_tenants_own_key_and_file_and_not_the_platforms() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 2).await;
    let file = folder.path().join("tenant0.key");
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    let own = wraps(&*store, &named(0)).await.to_string();
    let platform = wraps(&*store, &named(1)).await.to_string();
    let refusal = async |harm: &dyn Fn()| {
        harm();
        let later = Vault::unlock(Arc::clone(&store), &at(folder.path())).await;
        let later = later.unwrap();
        later.take_own(&own_in(&file)).await.unwrap();
        whole(&later.open(&named(0), "n", &blobs[0]).await.err().unwrap())
    };
    let aside = folder.path().join("aside");
    let missing = refusal(&|| fs::rename(&file, &aside).unwrap()).await;
    let another = refusal(&|| drop(KeyEncryptionKey::create(&file).unwrap())).await;
    for text in [&missing, &another] {
        assert!(text.contains(&own) && !text.contains(&platform), "{text}");
        assert!(text.contains(file.to_str().unwrap()), "{text}");
    }
    // A key that lies there is not to be overwritten.
    let beside = retired_file(&file, wraps(&*store, &named(0)).await);
    assert!(another.contains(beside.to_str().unwrap()), "{another}");
}

#[tokio::test]
async fn a_key_file_named_elsewhere_and_not_copied_there_opens_on_and_the_old_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 2).await;
    let (file, next) = (folder.path().join("own"), folder.path().join("next"));
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();

    vault.take_own(&own_in(&next)).await.unwrap();
    let text = told(&vault.settle().await.unwrap());
    for part in [&file, &next] {
        assert!(text.contains(part.to_str().unwrap()), "{text}");
    }
    assert!(!next.exists());
    // Nothing of it is lost to what is not in memory yet.
    vault.forget(&named(0));
    all_open(&vault, &blobs).await;

    // A start knows the file from the configuration before.
    let later = Vault::unlock(Arc::clone(&store), &at(folder.path())).await;
    let later = later.unwrap();
    let moved = OwnKeys {
        before: own_in(&file).files,
        ..own_in(&next)
    };
    later.take_own(&moved).await.unwrap();
    for _ in 0..2 {
        let text = told(&later.settle().await.unwrap());
        assert!(text.contains(file.to_str().unwrap()), "{text}");
    }

    fs::copy(&file, &next).unwrap();
    for vault in [&vault, &later] {
        assert_eq!(told(&vault.settle().await.unwrap()), "");
        all_open(vault, &blobs).await;
    }
}

#[tokio::test]
async fn a_reload_without_the_file_tells_of_it_and_leaves_the_key_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, blobs) = sealed(folder.path(), 1).await;
    let file = folder.path().join("own");
    assert_eq!(vault.take_own(&own_in(&file)).await.unwrap(), [""; 0]);
    vault.settle().await.unwrap();
    fs::remove_file(&file).unwrap();
    let told = vault.take_own(&own_in(&file)).await.unwrap();
    assert!(told[0].contains(file.to_str().unwrap()), "{told:?}");
    vault.forget(&named(0));
    all_open(&vault, &blobs).await;
    assert!(vault.seal(&named(0), "n", &secret()).await.is_ok());
}

#[tokio::test]
async fn a_new_key_in_a_new_file_takes_over_what_the_one_before_wrapped() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 2).await;
    let (file, next) = (folder.path().join("own"), folder.path().join("next"));
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    let new = KeyEncryptionKey::create(&next).unwrap().id();
    vault.take_own(&own_in(&next)).await.unwrap();
    assert_eq!(vault.settle().await.unwrap().rewrapped, 1);
    assert_eq!(wraps(&*store, &named(0)).await, new);
    assert!(vault.custody().own("tenant0").unwrap().before.is_none());
    all_open(&vault, &blobs).await;
}

#[tokio::test]
async fn destroyed_keys_take_the_file_before_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, _) = sealed(folder.path(), 1).await;
    let (file, next) = (folder.path().join("own"), folder.path().join("next"));
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    vault.take_own(&own_in(&next)).await.unwrap();
    let id = TenantId::parse("tenant0").unwrap();
    let done = vault.destroy(&id, AuditActor::Operator).await.unwrap();
    assert_eq!(done.unwrap().own_file, Some(file.clone()));
    assert!(!file.exists());
}

/// The files under a folder that hold a key-encryption key in the clear.
fn key_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| match path.is_dir() {
            true => key_files(&path),
            false => vec![path],
        })
        .filter(|path| {
            let content = fs::read(path).unwrap_or_default();
            content.starts_with(b"vestibule-key-encryption-key")
        })
        .collect()
}

#[tokio::test]
async fn destroyed_keys_leave_nothing_of_the_tenants_own_whatever_its_files_went_through() {
    type Harm = fn(&Path);
    let main_file_gone: Harm = |file| fs::remove_file(file).unwrap();
    let killed_while_made: Harm = |file| {
        let aside = format!("tenant0.key.{}.new", uuid::Uuid::new_v4());
        fs::copy(file, file.with_file_name(aside)).unwrap();
    };
    for harm in [main_file_gone, killed_while_made] {
        let folder = tempfile::tempdir().unwrap();
        let (_, vault, _) = sealed(folder.path(), 1).await;
        // The file is a link, and the retired one too after an exchange.
        let (file, end) = (folder.path().join("tenant0.key"), folder.path().join("end"));
        fs::create_dir(&end).unwrap();
        KeyEncryptionKey::create(&end.join("key")).unwrap();
        std::os::unix::fs::symlink(end.join("key"), &file).unwrap();
        vault.take_own(&own_in(&file)).await.unwrap();
        vault.settle().await.unwrap();
        vault
            .begin_exchange(&named(0), AuditActor::Operator)
            .await
            .unwrap();
        vault.settle().await.unwrap();
        assert_eq!(
            key_files(folder.path()).len(),
            4,
            "two, one of them linked, and the platform's"
        );
        harm(&file);
        let id = TenantId::parse("tenant0").unwrap();
        let done = vault.destroy(&id, AuditActor::Operator).await.unwrap();
        assert_eq!(done.unwrap().own_file, Some(file));
        assert_eq!(key_files(folder.path()), [at(folder.path()).key_file]);
    }
}

#[tokio::test]
async fn a_link_to_a_key_file_is_destroyed_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, _) = sealed(folder.path(), 1).await;
    let (file, end) = (folder.path().join("tenant0.key"), folder.path().join("end"));
    KeyEncryptionKey::create(&end).unwrap();
    std::os::unix::fs::symlink(&end, &file).unwrap();
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    let id = TenantId::parse("tenant0").unwrap();
    vault.destroy(&id, AuditActor::Operator).await.unwrap();
    assert_eq!(key_files(folder.path()), [at(folder.path()).key_file]);
    assert!(file.symlink_metadata().is_err());
}

#[tokio::test]
async fn a_call_that_removes_only_files_is_in_the_audit_chain_too() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 1).await;
    let file = folder.path().join("tenant0.key");
    let id = TenantId::parse("tenant0").unwrap();
    for count in 1..=2 {
        vault.take_own(&own_in(&file)).await.unwrap();
        let done = vault.destroy(&id, AuditActor::Operator).await.unwrap();
        assert_eq!(done.unwrap().own_file.as_ref(), Some(&file));
        let (scope, page) = (TenantScope::operator(), PageRequest::first());
        let by = Deadline::after(PATIENCE);
        let events = store.events(by, &scope, &named(0), &page).await.unwrap();
        let told = events.items.iter();
        let told = told.filter(|event| event.kind == "tenant.keys_destroyed");
        assert_eq!(told.count(), count);
    }
}

#[tokio::test]
async fn destroyed_keys_take_a_file_with_them_that_only_the_configuration_before_knows() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, _) = sealed(folder.path(), 1).await;
    let (file, next) = (folder.path().join("own"), folder.path().join("next"));
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    let later = Vault::unlock(store, &at(folder.path())).await.unwrap();
    let moved = OwnKeys {
        before: own_in(&file).files,
        ..own_in(&next)
    };
    later.take_own(&moved).await.unwrap();
    let id = TenantId::parse("tenant0").unwrap();
    later.destroy(&id, AuditActor::Operator).await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn a_file_that_is_another_owners_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, blobs) = sealed(folder.path(), 3).await;
    let mut wanted = own_in(&at(folder.path()).key_file);
    let shared = folder.path().join("shared");
    for slug in ["a", "b"] {
        let id = TenantId::parse(slug).unwrap();
        wanted.files.insert(id, shared.clone());
    }
    vault.take_own(&wanted).await.unwrap();
    let text = told(&vault.settle().await.unwrap());
    assert!(
        text.contains("[keys] file") && text.contains("of tenant a"),
        "{text}"
    );
    assert!(vault.seal(&tenant("a"), "n", &secret()).await.is_ok());
    assert!(vault.seal(&tenant("b"), "n", &secret()).await.is_err());
    // What the platform's key wraps already opens on.
    all_open(&vault, &blobs).await;
}

#[tokio::test]
async fn who_has_a_key_file_keeps_it_when_somebody_earlier_in_the_alphabet_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 3).await;
    let id = |number: usize| TenantId::parse(&format!("tenant{number}")).unwrap();
    let file = folder.path().join("tenant1.key");
    let alone = OwnKeys {
        files: BTreeMap::from([(id(1), file.clone())]),
        ..OwnKeys::default()
    };
    vault.take_own(&alone).await.unwrap();
    vault.settle().await.unwrap();
    let copy = folder.path().join("copy");
    fs::copy(&file, &copy).unwrap();

    let both = |newcomers: &Path| OwnKeys {
        files: BTreeMap::from([(id(0), newcomers.to_owned()), (id(1), file.clone())]),
        ..OwnKeys::default()
    };
    let start = async || {
        let later = Vault::unlock(Arc::clone(&store), &at(folder.path())).await;
        later.unwrap()
    };
    for newcomers in [&file, &copy] {
        // By a reload, by one more, and by a start.
        for vault in [vault.clone(), vault.clone(), start().await] {
            let told = vault.take_own(&both(newcomers)).await.unwrap();
            assert_eq!(told.len(), 1, "{told:?}");
            let says = |text| told[0].contains(text);
            assert!(
                says("tenant tenant0") && says("of tenant tenant1"),
                "{told:?}"
            );
            vault.forget(&named(1));
            all_open(&vault, &blobs).await;
        }
    }
    // Nor is it made anew for the newcomer where it is away.
    fs::remove_file(&file).unwrap();
    let told = start().await.take_own(&both(&file)).await.unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(!file.exists());
}

#[tokio::test]
async fn no_spelling_and_no_copy_makes_another_owners_key_a_tenants_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tenants.d")).unwrap();
    let (_, vault, blobs) = sealed(folder.path(), 3).await;
    let platform = at(folder.path()).key_file;
    let name = platform.file_name().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&platform, &link).unwrap();
    let copy = folder.path().join("copy");
    fs::copy(&platform, &copy).unwrap();
    let around = folder.path().join("tenants.d/..").join(name);
    for file in [around, link, copy] {
        vault.take_own(&own_in(&file)).await.unwrap();
        let text = told(&vault.settle().await.unwrap());
        assert!(
            text.contains("of [keys] file"),
            "{}: {text}",
            file.display()
        );
        // And nothing of it is removed for the tenant.
        let owner = TenantId::parse("tenant0").unwrap();
        vault.destroy(&owner, AuditActor::Operator).await.unwrap();
        assert!(file.exists() && platform.exists(), "{}", file.display());
        assert!(vault.open(&named(1), "n", &blobs[1]).await.is_ok());
    }
}

#[tokio::test]
async fn an_own_key_is_exchanged_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 3).await;
    let file = folder.path().join("tenant0.key");
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    let (before, platform) = (
        wraps(&*store, &named(0)).await,
        wraps(&*store, &named(1)).await,
    );
    vault
        .begin_exchange(&named(0), AuditActor::Operator)
        .await
        .unwrap();
    // Broken off here, the next start goes on.
    let later = Vault::unlock(Arc::clone(&store), &at(folder.path()))
        .await
        .unwrap();
    later.take_own(&own_in(&file)).await.unwrap();
    assert!(later.is_exchanging());
    all_open(&later, &blobs).await;
    later.settle().await.unwrap();
    let done = later.standing().last.unwrap();
    assert_eq!(
        (done.from, done.retired),
        (before, retired_file(&file, before))
    );
    assert_eq!(wraps(&*store, &named(0)).await, done.to);
    assert_eq!(wraps(&*store, &named(1)).await, platform);
    all_open(&later, &blobs).await;
}

#[tokio::test]
async fn a_destroyed_own_key_leaves_an_older_backup_closed_even_to_who_has_the_platforms_key() {
    let folder = tempfile::tempdir().unwrap();
    let (store, vault, blobs) = sealed(folder.path(), 2).await;
    let file = folder.path().join("tenant0.key");
    vault.take_own(&own_in(&file)).await.unwrap();
    vault.settle().await.unwrap();
    let copy = folder.path().join("copy");
    backup::backup(&folder.path().join("data"), &copy)
        .await
        .unwrap();

    let id = TenantId::parse("tenant0").unwrap();
    let done = vault.destroy(&id, AuditActor::Operator).await.unwrap();
    assert_eq!(done.unwrap().own_file, Some(file.clone()));
    assert!(!file.exists());
    assert!(
        vault
            .destroy(&id, AuditActor::Operator)
            .await
            .unwrap()
            .is_none()
    );
    drop((store, vault));

    // Somebody has the backup and the platform's key, and not the list of what was destroyed.
    let elsewhere = folder.path().join("elsewhere");
    backup::restore(&copy, &elsewhere.join("data"))
        .await
        .unwrap();
    fs::copy(at(folder.path()).key_file, elsewhere.join("kek")).unwrap();
    let settings = Settings::in_folder(elsewhere.join("data"));
    let opened = Embedded::open(settings, Clock::system(), &Tasks::new()).await;
    let store: Arc<dyn Store> = Arc::new(opened.unwrap());
    let vault = Vault::unlock(store, &at(&elsewhere)).await.unwrap();
    assert!(vault.open(&named(1), "n", &blobs[1]).await.is_ok());
    let refused = vault.open(&named(0), "n", &blobs[0]).await;
    assert!(matches!(refused, Err(VaultError::Unwrap { .. })));
}

#[tokio::test]
async fn a_key_file_that_vanishes_is_told_of_while_memory_still_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (_, vault, blobs) = sealed(folder.path(), 2).await;
    let file = at(folder.path()).key_file;
    let aside = folder.path().join("aside");
    fs::rename(&file, &aside).unwrap();
    vault.forget(&named(0));
    let text = told(&vault.settle().await.unwrap());
    assert!(
        text.contains("in memory only") && text.contains(file.to_str().unwrap()),
        "{text}"
    );
    all_open(&vault, &blobs).await;
    assert!(vault.seal(&tenant("new"), "n", &secret()).await.is_ok());
    let refused = vault
        .begin_exchange(&KeyOwner::Platform, AuditActor::Operator)
        .await;
    assert!(refused.is_err());
    // Another key in its place is not taken either.
    KeyEncryptionKey::create(&file).unwrap();
    let text = told(&vault.settle().await.unwrap());
    assert!(text.contains("another key"), "{text}");
    all_open(&vault, &blobs).await;
    fs::rename(&aside, &file).unwrap();
    assert_eq!(told(&vault.settle().await.unwrap()), "");
}
