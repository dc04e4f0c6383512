//! The key-encryption keys at hand, and their exchange for a new one while everything serves.
//!
//! # The files of an exchange
//!
//! | file | what |
//! |---|---|
//! | `FILE` | the key in use; during an exchange, the one before |
//! | `FILE.next` | the new key, from the beginning of an exchange to its end: it wraps from then on, both open |
//! | `FILE.<id>.retired` | the key before, from the end on: what was wrapped before, in a backup, is opened by it |
//!
//! Each is made whole or not at all, so an exchange that is broken off anywhere goes on with the next start: where there is
//! a `FILE.next`, an exchange is under way. It ends by a second name for the old key and then one rename; until every data
//! key is wrapped anew neither happens.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::keys::kek::{self, KekError, KekId, KeyEncryptionKey};

/// The keys at hand.
#[derive(Debug)]
pub struct KeyRing {
    file: PathBuf,
    /// Wraps.
    current: KeyEncryptionKey,
    /// The one before, during an exchange, and retired ones that were asked for.
    others: Vec<KeyEncryptionKey>,
}

impl KeyRing {
    /// The key alone.
    #[must_use]
    pub fn of(key: KeyEncryptionKey) -> Self {
        Self {
            file: key.file().to_owned(),
            current: key,
            others: Vec::new(),
        }
    }

    /// Reads the key from `file`, and the new one beside it where an exchange is under way.
    ///
    /// # Errors
    /// [`KekError`].
    pub fn load(file: &Path) -> Result<Self, KekError> {
        let key = KeyEncryptionKey::load(file)?;
        match KeyEncryptionKey::load(&next_file(file)) {
            Ok(next) => Ok(Self {
                file: file.to_owned(),
                current: next,
                others: vec![key],
            }),
            Err(KekError::Missing(_)) => Ok(Self::of(key)),
            Err(error) => Err(error),
        }
    }

    /// Like [`KeyRing::load`]; makes the key where there is no file. Only for a store that is new.
    ///
    /// # Errors
    /// [`KekError`].
    pub fn load_or_create(file: &Path) -> Result<Self, KekError> {
        match Self::load(file) {
            Err(KekError::Missing(_)) => KeyEncryptionKey::load_or_create(file).map(Self::of),
            loaded => loaded,
        }
    }

    /// Begins an exchange for the key in `file`, or takes up the one that is under way.
    ///
    /// # Errors
    /// [`KekError`].
    pub fn exchange(file: &Path) -> Result<Self, KekError> {
        let key = KeyEncryptionKey::load(file)?;
        let next = KeyEncryptionKey::load_or_create(&next_file(file))?;
        Ok(Self {
            file: file.to_owned(),
            current: next,
            others: vec![key],
        })
    }

    /// Like [`KeyRing::load`], and the retired key `id` with it, where it lies beside them.
    ///
    /// # Errors
    /// [`KekError`].
    pub fn load_with(file: &Path, id: KekId) -> Result<Self, KekError> {
        let mut ring = Self::load(file)?;
        if ring.find(id).is_none() {
            match KeyEncryptionKey::load(&retired_file(file, id)) {
                Ok(retired) => ring.others.push(retired),
                Err(KekError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ring)
    }

    /// Whether an exchange is under way.
    #[must_use]
    pub fn is_exchanging(&self) -> bool {
        self.current.file() != self.file
    }

    /// The key that wraps.
    #[must_use]
    pub const fn current(&self) -> &KeyEncryptionKey {
        &self.current
    }

    /// The key's file; during an exchange, that of the one before.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The key before, during an exchange.
    #[must_use]
    pub fn before(&self) -> Option<KekId> {
        let before = self.others.iter().find(|key| key.file() == self.file);
        before.map(KeyEncryptionKey::id)
    }

    /// The key of this identity, where it is at hand.
    #[must_use]
    pub fn find(&self, id: KekId) -> Option<&KeyEncryptionKey> {
        std::iter::once(&self.current)
            .chain(&self.others)
            .find(|key| key.id() == id)
    }

    /// Which keys are at hand.
    pub fn ids(&self) -> impl Iterator<Item = KekId> {
        let keys = std::iter::once(&self.current).chain(&self.others);
        keys.map(KeyEncryptionKey::id)
    }

    /// Ends an exchange: the old key gets its retired name, the new one takes its place. Nothing is wrapped by the old
    /// one any more; the caller has seen to that. Gives the retired file.
    ///
    /// # Errors
    /// Where the files cannot be moved, or the retired name is taken by another file; the exchange is still under way then.
    pub fn finish(&self) -> io::Result<PathBuf> {
        let before = self.before().unwrap_or_else(|| self.current.id());
        let retired = retired_file(&self.file, before);
        match fs::hard_link(&self.file, &retired) {
            Ok(()) => {}
            // An earlier try came as far as this. The rename below removes the other name of the old key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let kept = KeyEncryptionKey::load(&retired).map(|key| key.id());
                if !matches!(kept, Ok(id) if id == before) {
                    let what = format!(
                        "{} is not the key that was to be kept there; move it away",
                        retired.display()
                    );
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
                }
            }
            Err(error) => return Err(error),
        }
        let folder = folder_of(&self.file);
        File::open(folder)?.sync_all()?;
        fs::rename(next_file(&self.file), &self.file)?;
        File::open(folder)?.sync_all()?;
        Ok(retired)
    }
}

/// The files that hold a key: the new one of an exchange that is under way, the retired ones, what a kill left aside while one was
/// made, and last its own. Before one that is a symbolic link comes the file that it leads to. None where all are gone.
///
/// # Errors
/// Where it cannot be seen what there is.
pub fn files(file: &Path) -> io::Result<Vec<PathBuf>> {
    let mut begin = file.file_name().unwrap_or_default().to_owned();
    begin.push(".");
    let mut files = Vec::new();
    let entries = there(fs::read_dir(folder_of(file)))?;
    for entry in entries.into_iter().flatten() {
        let name = entry?.file_name();
        let ending = name.as_encoded_bytes();
        let ending = ending.strip_prefix(begin.as_encoded_bytes());
        if ending.is_some_and(is_of_a_key) {
            add(file.with_file_name(name), &mut files)?;
        }
    }
    add(file.to_owned(), &mut files)?;
    Ok(files)
}

/// Adds a file, and the one that it leads to, where they are there.
fn add(path: PathBuf, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let Some(found) = there(path.symlink_metadata())? else {
        return Ok(());
    };
    if found.is_symlink() {
        // Other links on the way hold nothing.
        let end = there(path.canonicalize())?;
        files.extend(end.filter(|end| end.is_file()));
    }
    if found.is_symlink() || found.is_file() {
        files.push(path);
    }
    Ok(())
}

fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Whether what follows the name of a key's file and a dot makes it another file of the same key. Nothing more is: in the same
/// folder may lie a neighbour's whose name begins alike.
fn is_of_a_key(ending: &[u8]) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let ending = std::str::from_utf8(ending).unwrap_or_default();
    match ending.rsplit_once('.') {
        None => ending == "next",
        Some((id, "retired")) => id.len() == 16 && id.bytes().all(is_digit),
        Some((name, "new")) => kek::is_aside(name.strip_prefix("next.").unwrap_or(name)),
        Some(_) => false,
    }
}

/// Removes files for good. What a disk keeps of a removed file is not overwritten.
///
/// # Errors
/// Names the one that cannot be removed; those before it are gone.
pub fn destroy(files: &[PathBuf]) -> io::Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("{} cannot be removed: {error}", file.display());
                return Err(io::Error::new(error.kind(), what));
            }
            Ok(()) | Err(_) => File::open(folder_of(file))?.sync_all()?,
        }
    }
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = file.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    file.with_file_name(name)
}

/// Where the new key lies during an exchange.
#[must_use]
pub fn next_file(file: &Path) -> PathBuf {
    beside(file, ".next")
}

/// Where a key lies after its exchange.
#[must_use]
pub fn retired_file(file: &Path, id: KekId) -> PathBuf {
    beside(file, &format!(".{id}.retired"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::custody::Custody;
    use crate::keys::data_key::{DataKey, UnwrapError, wrapped_by};

    #[test]
    fn an_exchange_goes_on_from_wherever_it_was_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kek");
        let first = KeyRing::load_or_create(&file).unwrap();
        let old = first.current().id();
        let (_, wrapped) = DataKey::create(first.current(), "acme", 1).unwrap();
        assert!(!first.is_exchanging());

        let ring = KeyRing::exchange(&file).unwrap();
        let new = ring.current().id();
        assert!(ring.is_exchanging() && ring.before() == Some(old) && new != old);
        // Broken off: the next start finds both, and the same.
        let ring = KeyRing::load(&file).unwrap();
        assert_eq!((ring.current().id(), ring.before()), (new, Some(old)));
        assert_eq!(KeyRing::exchange(&file).unwrap().current().id(), new);
        let ring = Custody::of(ring);
        assert!(ring.unwrap("acme", 1, &wrapped).is_ok());
        let moved = ring.rewrap("acme", 1, &wrapped).unwrap().unwrap();
        assert_eq!(wrapped_by(&moved), Some(new));
        assert_eq!(ring.rewrap("acme", 1, &moved).unwrap(), None);
        assert_eq!(
            ring.rewrap("globex", 1, &wrapped).err(),
            Some(UnwrapError::Forged)
        );

        // Broken off between the two names.
        fs::hard_link(&file, retired_file(&file, old)).unwrap();
        let retired = ring.platform().finish().unwrap();
        let ring = KeyRing::load(&file).unwrap();
        assert_eq!((ring.current().id(), ring.is_exchanging()), (new, false));
        let ring = Custody::of(ring);
        assert!(ring.unwrap("acme", 1, &moved).is_ok());
        let refused = ring.unwrap("acme", 1, &wrapped).err();
        assert!(
            matches!(refused, Some(UnwrapError::OtherKek { .. })),
            "{refused:?}"
        );
        // What a backup holds is opened by the retired key, while that is kept.
        let again = ring.read_again("acme", old).unwrap().unwrap();
        assert!(again.unwrap("acme", 1, &wrapped).is_ok());
        fs::remove_file(retired).unwrap();
        assert!(ring.read_again("acme", old).unwrap().is_none());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn no_file_of_an_exchange_is_readable_by_others() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kek");
        KeyRing::load_or_create(&file).unwrap();
        let ring = KeyRing::exchange(&file).unwrap();
        let modes = || {
            let files = fs::read_dir(folder.path()).unwrap();
            files.map(|file| file.unwrap().metadata().unwrap().permissions().mode() & 0o777)
        };
        assert!(modes().all(|mode| mode == 0o600));
        ring.finish().unwrap();
        assert_eq!(modes().filter(|mode| *mode == 0o600).count(), 2);
    }

    #[test]
    fn a_destroyed_key_leaves_no_file_and_its_neighbours_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("acme");
        let retired = KeyRing::load_or_create(&file).unwrap().current().id();
        KeyRing::exchange(&file).unwrap().finish().unwrap();
        KeyRing::exchange(&file).unwrap();
        assert!(retired_file(&file, retired).exists() && next_file(&file).exists());
        // Their names begin like its own.
        let mut stay = Vec::new();
        for name in ["acme2", "acme.com", "acme.next.key"] {
            let neighbour = folder.path().join(name);
            let retired = KeyRing::load_or_create(&neighbour).unwrap().current().id();
            KeyRing::exchange(&neighbour).unwrap().finish().unwrap();
            KeyRing::exchange(&neighbour).unwrap();
            stay.extend([
                next_file(&neighbour),
                retired_file(&neighbour, retired),
                neighbour,
            ]);
        }
        let left_aside = format!("acme.next.{}.new", uuid::Uuid::new_v4());
        fs::copy(&file, folder.path().join(left_aside)).unwrap();
        for count in [4, 0] {
            let files = files(&file).unwrap();
            assert_eq!(files.len(), count);
            destroy(&files).unwrap();
        }
        let left = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        left.sort();
        stay.sort();
        assert_eq!(left, stay);
    }
}
