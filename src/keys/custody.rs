//! Every key-encryption key at hand: the platform's, and those of tenants that have one of their own.
//!
//! A tenant's data keys are wrapped by its own key where it has one, else by the platform's. What the other of the two wrapped
//! opens too, so that a tenant moves from one to the other by having its data keys wrapped anew. Another tenant's own key is
//! never tried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::file::place;
use crate::keys::data_key::{DataKey, UnwrapError, wrapped_by};
use crate::keys::kek::{KekError, KekId, KeyEncryptionKey};
use crate::keys::ring::{KeyRing, retired_file};

/// The keys at hand, by owner.
#[derive(Clone, Debug)]
pub struct Custody {
    platform: Arc<KeyRing>,
    own: BTreeMap<String, Own>,
}

/// A tenant's own key, or why there is none.
#[derive(Clone, Debug)]
pub struct Own {
    /// The file that was configured.
    pub file: PathBuf,
    /// What it holds.
    pub ring: Result<Arc<KeyRing>, Arc<KekError>>,
    /// What another file held that was in use before: it opens until nothing needs it any more.
    pub before: Option<Arc<KeyRing>>,
    /// What it is for.
    pub role: Role,
}

/// What a tenant's own key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It wraps the tenant's data keys.
    Wraps,
    /// It only opens what it wrapped: the tenant goes back to the platform's.
    Opens,
}

impl Own {
    /// Reads the key in `file`, and the new one beside it where an exchange is under way.
    #[must_use]
    pub fn load(file: &Path) -> Self {
        Self::from(file, KeyRing::load(file))
    }

    /// Like [`Own::load`]; makes the key where there is no file. Only for a tenant of which nothing is wrapped by a key that is
    /// not at hand.
    #[must_use]
    pub fn load_or_create(file: &Path) -> Self {
        Self::from(file, KeyRing::load_or_create(file))
    }

    fn from(file: &Path, ring: Result<KeyRing, KekError>) -> Self {
        Self {
            file: file.to_owned(),
            ring: ring.map(Arc::new).map_err(Arc::new),
            before: None,
            role: Role::Wraps,
        }
    }

    /// The same key after `earlier`. Where that one is of another file, it opens on, and of a missing file it is said which there
    /// was.
    #[must_use]
    pub fn after(self, earlier: &Self) -> Self {
        let is_elsewhere = |ring: &&Arc<KeyRing>| place(ring.file()) != place(&self.file);
        let mut rings = earlier
            .ring
            .as_ref()
            .ok()
            .into_iter()
            .chain(&earlier.before);
        let before = rings.find(is_elsewhere).cloned();
        let file = match (&before, earlier.ring.as_ref().map_err(|why| &**why)) {
            (Some(ring), _) => Some(ring.file().to_owned()),
            (None, Err(KekError::Moved { before, .. })) => Some(before.clone()),
            (None, _) => None,
        };
        let is_here = |ring: &KeyRing| {
            self.ring
                .as_ref()
                .is_ok_and(|own| own.find(ring.current().id()).is_some())
        };
        Self {
            before: before.filter(|ring| !is_here(ring)),
            ..match file {
                Some(file) => self.moved_from(&file),
                None => self,
            }
        }
    }

    /// Whether it is refused because it is somebody else's. No file that is put right changes that: the configuration has to.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(&self.ring, Err(why) if matches!(**why, KekError::Shared { .. }))
    }

    /// What is in memory of the same file, where that cannot be read any more.
    #[must_use]
    pub fn or_in_memory(self, earlier: Option<Self>) -> Self {
        let is_lost = self.ring.is_err() && !self.is_shared();
        let held = earlier
            .filter(|earlier| earlier.ring.is_ok() && place(&earlier.file) == place(&self.file));
        match held.filter(|_| is_lost) {
            Some(held) => held.playing(self.role),
            None => self,
        }
    }

    /// The same key where it only opens what it wrapped, as its tenant goes back to the platform's; nothing where there is none.
    #[must_use]
    pub fn leaving(self) -> Option<Self> {
        let ring = self.ring.ok().or(self.before)?;
        Some(Self {
            file: ring.file().to_owned(),
            ring: Ok(ring),
            before: None,
            role: Role::Opens,
        })
    }

    /// The files with the keys in them: the present one, and one that was in use before.
    pub fn holdings(&self) -> impl Iterator<Item = (&Path, Option<&KeyRing>)> {
        let before = match (&self.before, self.ring.as_ref().map_err(|why| &**why)) {
            (Some(ring), _) => Some((ring.file(), Some(&**ring))),
            (None, Err(KekError::Moved { before, .. })) => Some((before.as_path(), None)),
            (None, _) => None,
        };
        std::iter::once((self.file.as_path(), self.ring.as_deref().ok())).chain(before)
    }

    /// Says of a missing file where the key was before.
    #[must_use]
    pub fn moved_from(self, before: &Path) -> Self {
        let is_missing =
            matches!(self.ring.as_deref(), Err(why) if matches!(**why, KekError::Missing(_)));
        if !is_missing {
            return self;
        }
        let moved = KekError::Moved {
            path: self.file.clone(),
            before: before.to_owned(),
        };
        Self {
            ring: Err(Arc::new(moved)),
            ..self
        }
    }

    /// The keys in `file`, as they were read.
    #[must_use]
    pub fn of(file: &Path, ring: KeyRing) -> Self {
        Self::from(file, Ok(ring))
    }

    /// One that cannot be used, and why.
    #[must_use]
    pub fn unusable(file: &Path, why: KekError) -> Self {
        Self::from(file, Err(why))
    }

    /// The same key in another role.
    #[must_use]
    pub fn playing(self, role: Role) -> Self {
        Self { role, ..self }
    }
}

impl Custody {
    /// The platform's alone.
    #[must_use]
    pub fn of(platform: KeyRing) -> Self {
        Self {
            platform: Arc::new(platform),
            own: BTreeMap::new(),
        }
    }

    /// The platform's keys.
    #[must_use]
    pub fn platform(&self) -> &KeyRing {
        &self.platform
    }

    /// An owner's own key, where it is to have one.
    #[must_use]
    pub fn own(&self, owner: &str) -> Option<&Own> {
        self.own.get(owner)
    }

    /// Every tenant that is to have a key of its own.
    pub fn owners(&self) -> impl Iterator<Item = (&str, &Own)> {
        self.own.iter().map(|(owner, own)| (owner.as_str(), own))
    }

    /// With other keys of the platform.
    #[must_use]
    pub fn with_platform(&self, platform: KeyRing) -> Self {
        Self {
            platform: Arc::new(platform),
            own: self.own.clone(),
        }
    }

    /// With this key for an owner, or without one of its own.
    #[must_use]
    pub fn with_own(&self, owner: &str, own: Option<Own>) -> Self {
        let mut next = self.clone();
        match own {
            Some(own) => next.own.insert(owner.to_owned(), own),
            None => next.own.remove(owner),
        };
        next
    }

    /// With another ring where this owner's lies: its own, or the platform's.
    #[must_use]
    pub fn with_ring(&self, owner: &str, ring: KeyRing) -> Self {
        match self.own(owner) {
            Some(own) if own.role == Role::Wraps => {
                let own = Own {
                    ring: Ok(Arc::new(ring)),
                    ..own.clone()
                };
                self.with_own(owner, Some(own))
            }
            Some(_) | None => self.with_platform(ring),
        }
    }

    /// The ring that is to wrap an owner's data keys.
    ///
    /// # Errors
    /// The own key that cannot be used. The platform's does not take its place: the tenant was promised its own.
    pub fn ring(&self, owner: &str) -> Result<&KeyRing, &Arc<KekError>> {
        match self.own(owner) {
            Some(Own {
                role: Role::Wraps,
                ring,
                ..
            }) => match ring {
                Ok(ring) => Ok(ring),
                Err(error) => Err(error),
            },
            Some(_) | None => Ok(&self.platform),
        }
    }

    /// The owners whose keys are being exchanged, nothing for the platform, and their rings.
    pub fn exchanging(&self) -> impl Iterator<Item = (&str, &KeyRing)> {
        let own = self.owners();
        let own = own.filter_map(|(owner, own)| Some((owner, own.ring.as_deref().ok()?)));
        std::iter::once(("", self.platform()))
            .chain(own)
            .filter(|(_, ring)| ring.is_exchanging())
    }

    /// Opens a wrapped data key with whichever key of its owner, or of the platform, wrapped it.
    ///
    /// # Errors
    /// [`UnwrapError`]; [`UnwrapError::OtherKek`] where that key is not at hand.
    pub fn unwrap(&self, owner: &str, number: u32, wrapped: &[u8]) -> Result<DataKey, UnwrapError> {
        let by = self.wrapped_by(owner, wrapped)?;
        DataKey::unwrap_with(by, owner, number, wrapped)
    }

    /// The same data key, wrapped by the key that is to wrap it; nothing where that is so already, and it opens. While a
    /// tenant's own key cannot be used, all stays wrapped as it is.
    ///
    /// # Errors
    /// As [`Custody::unwrap`].
    pub fn rewrap(
        &self,
        owner: &str,
        number: u32,
        wrapped: &[u8],
    ) -> Result<Option<Vec<u8>>, UnwrapError> {
        let by = self.wrapped_by(owner, wrapped)?;
        let to = self.ring(owner).map_or(by, KeyRing::current);
        if by.id() == to.id() {
            return DataKey::unwrap_with(by, owner, number, wrapped).map(|_| None);
        }
        DataKey::rewrap((by, to), owner, number, wrapped).map(Some)
    }

    /// The key that wrapped this.
    fn wrapped_by(&self, owner: &str, wrapped: &[u8]) -> Result<&KeyEncryptionKey, UnwrapError> {
        let id = wrapped_by(wrapped).ok_or(UnwrapError::UnknownFormat)?;
        self.find(owner, id).ok_or_else(|| UnwrapError::OtherKek {
            wrapped_by: id,
            held: self.ring(owner).ok().map(|ring| ring.current().id()),
        })
    }

    fn find(&self, owner: &str, id: KekId) -> Option<&KeyEncryptionKey> {
        let own = self.own(owner).into_iter();
        let mut rings = own.flat_map(|own| own.ring.as_ref().ok().into_iter().chain(&own.before));
        rings
            .find_map(|ring| ring.find(id))
            .or_else(|| self.platform.find(id))
    }

    /// Who else uses a file of an owner, or a key in it: a tenant's slug, nothing for the platform.
    #[must_use]
    pub fn also_used_by(
        &self,
        owner: &str,
        (file, ring): (&Path, Option<&KeyRing>),
    ) -> Option<String> {
        let own = self.own(owner)?;
        let configured = own.ring.as_deref().map_err(|why| &**why);
        if let Err(KekError::Shared { path, with }) = configured
            && path == file
        {
            return Some(with.clone());
        }
        let here = place(file);
        let is_theirs = |(file, theirs): (&Path, Option<&KeyRing>)| {
            let mut ids = ring.into_iter().flat_map(KeyRing::ids);
            here == place(file)
                || theirs.is_some_and(|theirs| ids.any(|id| theirs.find(id).is_some()))
        };
        if is_theirs((self.platform.file(), Some(&self.platform))) {
            return Some(String::new());
        }
        let mut others = self.owners().filter(|(slug, _)| *slug != owner);
        let other = others.find(|(_, other)| other.holdings().any(is_theirs));
        other.map(|(slug, _)| slug.to_owned())
    }

    /// Whether this key of an owner is at hand.
    #[must_use]
    pub fn holds(&self, owner: &str, id: KekId) -> bool {
        self.find(owner, id).is_some()
    }

    /// Where a key of an owner that is not at hand is looked for: beside the one that is, or in the file of one that is missing.
    #[must_use]
    pub fn place(&self, owner: &str, id: KekId) -> PathBuf {
        match self.own(owner).filter(|own| own.role == Role::Wraps) {
            Some(own) if own.ring.is_err() => own.file.clone(),
            Some(own) => retired_file(&own.file, id),
            None => retired_file(self.platform.file(), id),
        }
    }

    /// The keys as they lie on the disk now, where this one is among them: another process may have exchanged keys, and an
    /// older backup needs a retired one.
    ///
    /// # Errors
    /// [`KekError`] where the platform's key cannot be read.
    pub fn read_again(&self, owner: &str, id: KekId) -> Result<Option<Self>, KekError> {
        let mut next = self.clone();
        if let Some(own) = self.own(owner).filter(|own| !own.is_shared()) {
            // What is in memory stays where its file cannot be read.
            if let Ok(ring) = KeyRing::load_with(&own.file, id) {
                let read = Own::of(&own.file, ring).playing(own.role).after(own);
                next = next.with_own(owner, Some(read));
            }
        }
        if !next.holds(owner, id) {
            next = next.with_platform(KeyRing::load_with(self.platform.file(), id)?);
        }
        Ok(next.holds(owner, id).then_some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(ring: &KeyRing, owner: &str) -> Vec<u8> {
        DataKey::create(ring.current(), owner, 1).unwrap().1
    }

    #[test]
    fn a_tenant_moves_to_its_own_key_and_back_by_being_wrapped_anew() {
        let folder = tempfile::tempdir().unwrap();
        let platform = Custody::of(KeyRing::load_or_create(&folder.path().join("kek")).unwrap());
        let before = wrapped(platform.platform(), "acme");
        let own = Own::load_or_create(&folder.path().join("acme"));
        let both = platform.with_own("acme", Some(own));

        assert!(both.unwrap("acme", 1, &before).is_ok());
        let moved = both.rewrap("acme", 1, &before).unwrap().unwrap();
        assert_eq!(both.rewrap("acme", 1, &moved).unwrap(), None);
        let refused = platform.unwrap("acme", 1, &moved).err();
        assert!(
            matches!(refused, Some(UnwrapError::OtherKek { .. })),
            "the platform's key alone opens it: {refused:?}"
        );
        // Back, while its own key is at hand.
        let leaving = both.own("acme").unwrap().clone().playing(Role::Opens);
        let leaving = both.with_own("acme", Some(leaving));
        assert!(leaving.rewrap("acme", 1, &moved).unwrap().is_some());
        // Back after it was forgotten: it lies where a retired one of the platform's would.
        let id = wrapped_by(&moved).unwrap();
        assert!(platform.read_again("acme", id).unwrap().is_none());
        std::fs::copy(folder.path().join("acme"), platform.place("acme", id)).unwrap();
        let again = platform.read_again("acme", id).unwrap().unwrap();
        let back = again.rewrap("acme", 1, &moved).unwrap().unwrap();
        assert!(platform.unwrap("acme", 1, &back).is_ok());
    }

    #[test]
    fn the_own_key_of_one_tenant_opens_nothing_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let own = Own::load_or_create(&folder.path().join("acme"));
        let foreign = wrapped(own.ring.as_ref().unwrap(), "globex");
        let custody = Custody::of(KeyRing::load_or_create(&folder.path().join("kek")).unwrap())
            .with_own("acme", Some(own));
        assert!(matches!(
            custody.unwrap("globex", 1, &foreign).err(),
            Some(UnwrapError::OtherKek { .. })
        ));
    }

    #[test]
    fn an_own_key_that_cannot_be_used_is_not_replaced_by_the_platforms() {
        let folder = tempfile::tempdir().unwrap();
        let custody = Custody::of(KeyRing::load_or_create(&folder.path().join("kek")).unwrap());
        let before = wrapped(custody.platform(), "acme");
        let custody = custody.with_own("acme", Some(Own::load(&folder.path().join("acme"))));
        assert!(matches!(
            custody.ring("acme").map_err(AsRef::as_ref),
            Err(KekError::Missing(_))
        ));
        // What the platform's wrapped stays as it is until the own key is there.
        assert_eq!(custody.rewrap("acme", 1, &before).unwrap(), None);
    }

    #[test]
    fn a_key_that_is_refused_as_somebody_elses_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let custody = Custody::of(KeyRing::load_or_create(&folder.path().join("kek")).unwrap());
        let path = folder.path().join("globex");
        let theirs = Own::load_or_create(&path);
        let ring = theirs.ring.clone().unwrap();
        let refused = KekError::Shared {
            path: path.clone(),
            with: "globex".to_owned(),
        };
        let custody = custody
            .with_own("globex", Some(theirs))
            .with_own("acme", Some(Own::unusable(&path, refused)));
        let id = ring.current().id();
        assert!(custody.read_again("acme", id).unwrap().is_none());
        assert!(custody.read_again("globex", id).unwrap().is_some());
    }
}
