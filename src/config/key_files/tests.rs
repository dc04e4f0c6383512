//! Key files over real ones.

use std::fs;

use super::*;
use crate::keys::KeyEncryptionKey;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, name: &str) -> KekId {
        KeyEncryptionKey::create(&self.at(name)).unwrap().id()
    }

    /// `acme` has a key of its own in `acme.key`.
    fn files(&self) -> KeyFiles {
        KeyFiles {
            platform: self.at("kek"),
            own: BTreeMap::from([(TenantId::parse("acme").unwrap(), self.at("acme.key"))]),
            destroyed: Destroyed::load(&self.at("kek")).unwrap(),
        }
    }
}

fn data_key(owner: &str, by: KekId) -> Wrapped {
    let owner = match owner {
        "" => KeyOwner::Platform,
        slug => KeyOwner::Tenant(TenantId::parse(slug).unwrap()),
    };
    let number = 1;
    Wrapped { owner, number, by }
}

fn told(files: &[KeyFile]) -> Vec<(&Path, &str)> {
    let files = files.iter();
    files.map(|file| (&*file.file, &*file.what)).collect()
}

#[test]
fn each_key_is_told_with_its_own_file_and_whose_it_is() {
    let folder = Folder::new();
    let (kek, own) = (folder.make("kek"), folder.make("acme.key"));
    let wrapped = [("", kek), ("acme", own), ("globex", kek)];
    let wrapped = wrapped.map(|(owner, by)| data_key(owner, by));
    let files = folder.files();
    let expected = [
        (
            folder.at("acme.key"),
            format!("key-encryption key {own}, of tenant acme"),
        ),
        (
            folder.at("kek"),
            format!("key-encryption key {kek}, of the platform, tenant globex"),
        ),
    ];
    let expected: Vec<(&Path, &str)> = expected
        .iter()
        .map(|(file, what)| (&**file, &**what))
        .collect();
    assert_eq!(told(&files.needed(&wrapped)), expected);
    assert_eq!(told(&files.missing(&wrapped)), []);
    // The same files where both are gone.
    for name in ["kek", "acme.key"] {
        fs::remove_file(folder.at(name)).unwrap();
    }
    assert_eq!(told(&files.missing(&wrapped)), expected);
    assert_eq!(told(&files.needed(&wrapped)), []);
}

#[test]
fn a_key_whose_place_is_taken_by_another_goes_beside_it() {
    let folder = Folder::new();
    let (kek, own) = (folder.make("kek"), folder.make("acme.key"));
    for name in ["kek", "acme.key"] {
        fs::remove_file(folder.at(name)).unwrap();
        folder.make(name);
    }
    let wrapped = [data_key("", kek), data_key("acme", own)];
    let files = folder.files();
    let missing = files.missing(&wrapped);
    let places: Vec<&Path> = missing.iter().map(|file| &*file.file).collect();
    let [at_acme, at_kek] =
        [("acme.key", own), ("kek", kek)].map(|(name, id)| retired_file(&folder.at(name), id));
    assert_eq!(places, [at_acme, at_kek]);
}

#[test]
fn the_key_of_a_tenant_that_names_no_file_is_looked_for_beside_the_platforms() {
    let folder = Folder::new();
    let (kek, gone) = (folder.make("kek"), folder.make("gone"));
    let wrapped = [data_key("", kek), data_key("initech", gone)];
    let missing = folder.files().missing(&wrapped);
    assert_eq!(missing[0].file, retired_file(&folder.at("kek"), gone));
    // Another tenant's file with the very key helps nobody.
    fs::rename(folder.at("gone"), folder.at("acme.key")).unwrap();
    assert_eq!(folder.files().missing(&wrapped), missing);
}

#[test]
fn what_was_destroyed_needs_no_key() {
    let folder = Folder::new();
    let kek = folder.make("kek");
    let own = folder.make("acme.key");
    fs::remove_file(folder.at("acme.key")).unwrap();
    let mut list = Destroyed::default();
    list.add(&folder.at("kek"), "acme", 1).unwrap();
    let wrapped = [data_key("", kek), data_key("acme", own)];
    let files = folder.files();
    assert_eq!(files.missing(&wrapped), []);
    assert_eq!(files.needed(&wrapped).len(), 1);
    assert!(files.destroyed().ends_with("kek.destroyed"));
}
