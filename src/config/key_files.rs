//! The files that the keys of a configuration lie in, held against what a store needs: which have to be kept, and which are
//! missing and belong where.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::settings::Settings;
use crate::keys::destroyed::Destroyed;
use crate::keys::ring::{KeyRing, next_file, retired_file};
use crate::keys::{KekError, KekId, KeyEncryptionKey};
use crate::model::TenantId;
use crate::store::embedded::wrapped::Wrapped;
use crate::store::record::KeyOwner;

/// Owners that are named one by one.
const MOST_NAMED: usize = 5;

/// Where the keys of a configuration lie.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    platform: PathBuf,
    own: BTreeMap<TenantId, PathBuf>,
    destroyed: Destroyed,
}

/// A file that holds keys, or what belongs to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Where it lies, or is to lie.
    pub file: PathBuf,
    /// What it is.
    pub what: String,
}

impl KeyFiles {
    /// Those of `settings`, with the list of destroyed keys that lies beside them.
    ///
    /// # Errors
    /// Where that list cannot be read.
    pub fn of(settings: &Settings) -> io::Result<Self> {
        Ok(Self {
            platform: settings.key_file.clone(),
            own: settings.declaration.own_keys.files.clone(),
            destroyed: Destroyed::load(&settings.key_file)?,
        })
    }

    /// The list of destroyed keys.
    #[must_use]
    pub fn destroyed(&self) -> PathBuf {
        crate::keys::destroyed::place(&self.platform)
    }

    /// The key files without which what these data keys sealed does not open, by where they lie.
    #[must_use]
    pub fn needed(&self, wrapped: &[Wrapped]) -> Vec<KeyFile> {
        self.told(wrapped, |owner, id| self.find(owner, id))
    }

    /// The key files that are not where they are looked for, by where each belongs.
    #[must_use]
    pub fn missing(&self, wrapped: &[Wrapped]) -> Vec<KeyFile> {
        let keys_of_platform: Vec<KekId> = wrapped
            .iter()
            .filter(|data_key| data_key.owner == KeyOwner::Platform)
            .map(|data_key| data_key.by)
            .collect();
        self.told(wrapped, |owner, id| match self.find(owner, id) {
            Some(_) => None,
            None if keys_of_platform.contains(&id) => Some(free(&self.platform, id)),
            None => Some(self.place(owner, id)),
        })
    }

    /// Data keys by the file that `file` gives for each, and what each file is.
    fn told(
        &self,
        wrapped: &[Wrapped],
        file: impl Fn(&KeyOwner, KekId) -> Option<PathBuf>,
    ) -> Vec<KeyFile> {
        let mut known: BTreeMap<(String, String), Option<PathBuf>> = BTreeMap::new();
        let mut files: BTreeMap<(PathBuf, String), BTreeSet<&str>> = BTreeMap::new();
        let is_there = |data_key: &&Wrapped| {
            let Wrapped { owner, number, .. } = data_key;
            !self.destroyed.holds(owner.as_str(), *number)
        };
        for Wrapped { owner, by, .. } in wrapped.iter().filter(is_there) {
            // Many share one: each file is looked at once.
            let place = (self.looked_at_for(owner), by.to_string());
            let found = known.entry(place).or_insert_with(|| file(owner, *by));
            if let Some(found) = found {
                let of = files.entry((found.clone(), by.to_string())).or_default();
                of.insert(owner.as_str());
            }
        }
        let files = files.into_iter().map(|((file, id), owners)| KeyFile {
            file,
            what: format!("key-encryption key {id}, {}", whose(&owners)),
        });
        files.collect()
    }

    /// The same for all whose keys are looked for in the same files.
    fn looked_at_for(&self, owner: &KeyOwner) -> String {
        match owner {
            KeyOwner::Tenant(tenant) if self.own.contains_key(tenant) => tenant.to_string(),
            KeyOwner::Tenant(_) | KeyOwner::Platform => String::new(),
        }
    }

    /// The file that holds a key of an owner.
    fn find(&self, owner: &KeyOwner, id: KekId) -> Option<PathBuf> {
        let files = self.own_file(owner).into_iter().chain([&*self.platform]);
        files.into_iter().find_map(|file| holding(file, id))
    }

    fn own_file(&self, owner: &KeyOwner) -> Option<&Path> {
        match owner {
            KeyOwner::Platform => None,
            KeyOwner::Tenant(tenant) => self.own.get(tenant).map(PathBuf::as_path),
        }
    }

    /// Where a start looks for a key of an owner that is not the platform's present one.
    fn place(&self, owner: &KeyOwner, id: KekId) -> PathBuf {
        match self.own_file(owner) {
            Some(own) => free(own, id),
            None => retired_file(&self.platform, id),
        }
    }
}

/// The file itself, or the name beside it where another key lies in it.
fn free(file: &Path, id: KekId) -> PathBuf {
    match file.exists() {
        true => retired_file(file, id),
        false => file.to_owned(),
    }
}

/// Which of a key's files holds this identity: the key, the next one during an exchange, a retired one. One that is refused,
/// for others may read it, holds it too: it is there.
fn holding(file: &Path, id: KekId) -> Option<PathBuf> {
    match KeyRing::load_with(file, id) {
        Ok(ring) => ring.find(id).map(|key| key.file().to_owned()),
        Err(KekError::Exposed { .. }) => {
            let files = [file.to_owned(), next_file(file), retired_file(file, id)];
            let mut files = files.into_iter();
            files.find(|file| KeyEncryptionKey::identity_in(file) == Some(id))
        }
        Err(_) => None,
    }
}

/// `of the platform, tenant a, tenant b and 3 more tenants`.
fn whose(owners: &BTreeSet<&str>) -> String {
    let named = owners.iter().take(MOST_NAMED).map(|owner| match *owner {
        "" => "the platform".to_owned(),
        tenant => format!("tenant {tenant}"),
    });
    let named: Vec<String> = named.collect();
    match owners.len().saturating_sub(MOST_NAMED) {
        0 => format!("of {}", named.join(", ")),
        1 => format!("of {} and another tenant", named.join(", ")),
        more => format!("of {} and {more} more tenants", named.join(", ")),
    }
}

#[cfg(test)]
mod tests;
