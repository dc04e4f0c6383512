//! Key-encryption keys of tenants' own, as the configuration names them, and the files of all keys read again.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::exchange::Reason;
use super::{PATIENCE, Vault, VaultError};
use crate::base::file::place;
use crate::keys::custody::{Custody, Own, Role};
use crate::keys::data_key::wrapped_by;
use crate::keys::ring::KeyRing;
use crate::keys::{KekError, KekId};
use crate::model::TenantId;
use crate::store::Deadline;
use crate::store::record::KeyOwner;

/// The tenants that are to have a key-encryption key of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnKeys {
    /// Where each lies.
    pub files: BTreeMap<TenantId, PathBuf>,
    /// Declared tenants that are to have none: one that had goes back to the platform's. A tenant that is in neither (its file
    /// could not be read, or it is gone) keeps what it has.
    pub without: Vec<TenantId>,
    /// Where the keys lay by the configuration that was in force before, at a start.
    pub before: BTreeMap<TenantId, PathBuf>,
}

/// The owner that a slug stands for.
pub(super) fn owner(slug: &str) -> Option<KeyOwner> {
    match slug {
        "" => Some(KeyOwner::Platform),
        slug => TenantId::parse(slug).ok().map(KeyOwner::Tenant),
    }
}

/// An error with its causes.
pub fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

impl Vault {
    /// Takes over which tenants have a key of their own. A missing file is made where nothing of its tenant is wrapped by a key
    /// that is not at hand. A key that cannot be used concerns its tenant alone: each is told of, with what repairs it. The
    /// data keys are then wrapped anew by [`Vault::settle`].
    ///
    /// # Errors
    /// [`VaultError::Store`]; tenants after the one that the store failed for keep what they have.
    pub async fn take_own(&self, wanted: &OwnKeys) -> Result<Vec<String>, VaultError> {
        let mut troubles = Vec::new();
        let files = self.by_claim(wanted).await?;
        // Whose each file and each key is: a slug, nothing for the platform. The first of two has it.
        let (mut places, mut keys) = {
            let custody = self.parts.custody.load();
            let platform = custody.platform();
            let keys: HashMap<KekId, String> =
                platform.ids().map(|id| (id, String::new())).collect();
            (
                BTreeMap::from([(place(platform.file()), String::new())]),
                keys,
            )
        };
        for (tenant, file) in files {
            let place = place(file);
            let mut shared = places.get(&place).cloned();
            let mut own = None;
            if shared.is_none() {
                places.insert(place, tenant.to_string());
                let loaded = self.load_own(tenant, file).await?;
                let loaded = match wanted.before.get(tenant) {
                    Some(before) if self::place(before) != self::place(file) => {
                        loaded.moved_from(before)
                    }
                    Some(_) | None => loaded,
                };
                if let Ok(ring) = &loaded.ring {
                    shared = ring.ids().find_map(|id| keys.get(&id).cloned());
                    if shared.is_none() {
                        keys.extend(ring.ids().map(|id| (id, tenant.to_string())));
                    }
                }
                own = Some(loaded);
            }
            let own = match (shared, own) {
                (None, Some(own)) => own,
                (with, _) => {
                    let path = file.clone();
                    let with = with.unwrap_or_default();
                    Own::unusable(file, KekError::Shared { path, with })
                }
            };
            let earlier = self.parts.custody.load().own(tenant.as_str()).cloned();
            let own = match &earlier {
                Some(earlier) => own.after(earlier),
                None => own,
            };
            if let Err(error) = &own.ring {
                let error = whole(error.as_ref());
                tracing::error!(%tenant, error, "a tenant's own key-encryption key cannot be used");
                troubles.push(format!(
                    "key_file of tenant {tenant} cannot be used: {error}"
                ));
            }
            self.set_own(tenant.as_str(), Some(own.or_in_memory(earlier)));
        }
        for tenant in &wanted.without {
            let own = self.parts.custody.load().own(tenant.as_str()).cloned();
            if let Some(own) = own {
                self.set_own(tenant.as_str(), own.leaving());
            }
        }
        self.parts.nudge.notify_one();
        Ok(troubles)
    }

    /// The wanted files, first those whose tenants have them already: where two name one, it is the newcomer that is refused.
    async fn by_claim<'a>(
        &self,
        wanted: &'a OwnKeys,
    ) -> Result<Vec<(&'a TenantId, &'a PathBuf)>, VaultError> {
        let (mut files, mut newcomers) = (Vec::new(), Vec::new());
        for (tenant, file) in &wanted.files {
            match self.has(tenant, file).await? {
                true => files.push((tenant, file)),
                false => newcomers.push((tenant, file)),
            }
        }
        files.append(&mut newcomers);
        Ok(files)
    }

    /// Whether a tenant uses the key in this file, or its newest data key is wrapped by it.
    async fn has(&self, tenant: &TenantId, file: &Path) -> Result<bool, VaultError> {
        let custody = self.parts.custody.get();
        let own = custody.own(tenant.as_str());
        if own.is_some_and(|own| !own.is_shared() && place(&own.file) == place(file)) {
            return Ok(true);
        }
        let owner = KeyOwner::Tenant(tenant.clone());
        let by = Deadline::after(PATIENCE);
        let newest = self.parts.store.data_key(by, &owner, None).await?;
        let Some(id) = newest.and_then(|record| wrapped_by(&record.wrapped)) else {
            return Ok(false);
        };
        Ok(match KeyRing::load_with(file, id) {
            Ok(ring) => ring.find(id).is_some(),
            // It cannot be seen which key this was: one of the tenant's own, where that is what wrapped.
            Err(_) => custody.platform().find(id).is_none(),
        })
    }

    /// Reads the tenants' own keys from their files as a start does, and makes none: for a vault that only rehearses one.
    pub fn rehearse_own(&self, wanted: &OwnKeys) {
        for (tenant, file) in &wanted.files {
            self.set_own(tenant.as_str(), Some(Own::load(file)));
        }
    }

    async fn load_own(&self, tenant: &TenantId, file: &Path) -> Result<Own, VaultError> {
        let own = Own::load(file);
        let missing =
            matches!(own.ring.as_deref(), Err(error) if matches!(**error, KekError::Missing(_)));
        if !missing {
            return Ok(own);
        }
        let owner = KeyOwner::Tenant(tenant.clone());
        let by = Deadline::after(PATIENCE);
        let newest = self.parts.store.data_key(by, &owner, None).await?;
        let wrapped = newest.map(|record| wrapped_by(&record.wrapped));
        let custody = self.parts.custody.load();
        let platform = custody.platform();
        let nothing_is_lost = match wrapped {
            None => true,
            Some(Some(id)) => platform.find(id).is_some(),
            Some(None) => false,
        };
        Ok(match nothing_is_lost {
            true => Own::load_or_create(file),
            false => own,
        })
    }

    /// The tenants that go back to the platform's key. Once a pass has found nothing more to wrap anew, their own opens nothing.
    pub(super) fn leaving(&self) -> Vec<String> {
        let custody = self.parts.custody.load();
        let leaving = custody.owners().filter(|(_, own)| own.role == Role::Opens);
        leaving.map(|(slug, _)| slug.to_owned()).collect()
    }

    /// Forgets the keys of files that were in use before, where the present file's has taken over: after a pass that found nothing
    /// more to wrap anew.
    pub(super) fn forget_before(&self, owners: &[String]) {
        self.put_custody(|custody| {
            owners.iter().fold(custody.clone(), |next, slug| {
                let own = next.own(slug).filter(|own| own.ring.is_ok()).cloned();
                match own {
                    Some(own) => next.with_own(
                        slug,
                        Some(Own {
                            before: None,
                            ..own
                        }),
                    ),
                    None => next,
                }
            })
        });
    }

    /// The tenants whose key lay in another file before, and is taken over by the present one.
    pub(super) fn moving(&self) -> Vec<String> {
        let custody = self.parts.custody.load();
        let moving = custody
            .owners()
            .filter(|(_, own)| own.ring.is_ok() && own.before.is_some());
        moving.map(|(slug, _)| slug.to_owned()).collect()
    }

    pub(super) fn set_own(&self, slug: &str, own: Option<Own>) {
        self.put_custody(|custody| custody.with_own(slug, own));
    }

    /// Reads the files of all keys again: one that was put back is used from now on. A key that is in memory stays where its file
    /// cannot be read any more, or holds another key. Gives what is wrong.
    pub(super) fn read_files(&self) -> Vec<(Reason, KeyOwner)> {
        let mut troubles = Vec::new();
        self.put_custody(|custody| {
            let platform = custody.platform();
            let mut next = match read_on(platform) {
                Ok(ring) => custody.with_platform(ring),
                Err(error) => {
                    troubles.push((vanished(platform.file(), &error), KeyOwner::Platform));
                    custody.clone()
                }
            };
            for (slug, own) in custody.owners() {
                let (read, trouble) = read_own(own);
                next = next.with_own(slug, Some(read));
                troubles.extend(trouble.and_then(|trouble| Some((trouble, owner(slug)?))));
            }
            next
        });
        troubles
    }

    fn put_custody(&self, how: impl FnOnce(&Custody) -> Custody) {
        let _alone = self.custody_lock();
        let next = how(&self.parts.custody.load());
        self.parts.custody.publish(next);
    }

    /// Changes the keys at hand, unless that fails. One at a time: a key must not be lost to a change at the same time.
    pub(super) fn change_custody<T, E>(
        &self,
        how: impl FnOnce(&Custody) -> Result<(Custody, T), E>,
    ) -> Result<T, E> {
        let _alone = self.custody_lock();
        let (next, result) = how(&self.parts.custody.load())?;
        self.parts.custody.publish(next);
        Ok(result)
    }

    fn custody_lock(&self) -> std::sync::MutexGuard<'_, ()> {
        // It guards no data of its own.
        let lock = self.parts.changing.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ring as it lies on the disk now, with the key that is in use.
fn read_on(ring: &KeyRing) -> Result<KeyRing, KekError> {
    let id = ring.current().id();
    let read = KeyRing::load_with(ring.file(), id)?;
    match read.find(id) {
        Some(_) => Ok(read),
        None => Err(KekError::Malformed {
            path: ring.file().to_owned(),
            what: "it is another key than the one in use",
        }),
    }
}

fn read_own(own: &Own) -> (Own, Option<Reason>) {
    let file = &own.file;
    match &own.ring {
        Ok(ring) => match read_on(ring) {
            Ok(read) => (Own::of(file, read).playing(own.role).after(own), None),
            Err(error) => (own.clone(), Some(vanished(file, &error))),
        },
        Err(error) if own.is_shared() => (own.clone(), Some(unusable(file, error))),
        Err(_) => {
            let read = Own::load(file).playing(own.role).after(own);
            let trouble = read.ring.as_ref().err().map(|error| unusable(file, error));
            (read, trouble)
        }
    }
}

fn vanished(file: &Path, error: &KekError) -> Reason {
    Reason::Vanished {
        file: file.to_owned(),
        why: whole(error),
    }
}

fn unusable(file: &Path, error: &KekError) -> Reason {
    Reason::Unusable {
        file: file.to_owned(),
        why: whole(error),
    }
}

#[cfg(test)]
mod tests;
