//! Data keys that were destroyed for good: a list beside the key-encryption key, so that no restored backup brings them
//! back.
//!
//! # The file, `FILE.destroyed`
//!
//! ASCII, mode 0600, a line for each owner whose keys were destroyed: `<owner>:<number>`, which is every data key of that
//! owner up to that number. A later key of the same owner has a higher one. A file that cannot be read stops whoever asks:
//! nothing is opened that may have been destroyed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::file::{Access, read_capped, replace};

/// The largest list, in bytes: about a million owners.
const MOST_BYTES: u64 = 64 << 20;

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destroyed(BTreeMap<String, u32>);

impl Destroyed {
    /// Reads the list beside the key in `key_file`; an empty one where there is none.
    ///
    /// # Errors
    /// Where the file cannot be read, or is no such list.
    pub fn load(key_file: &Path) -> io::Result<Self> {
        let bytes = match read_capped(&place(key_file), MOST_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let text = std::str::from_utf8(&bytes).unwrap_or("not text");
        let line = |line: &str| {
            let (owner, number) = line.rsplit_once(':')?;
            Some((owner.to_owned(), number.parse().ok()?))
        };
        text.lines()
            .map(line)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| {
                let what = format!(
                    "{} is no list of destroyed keys; restore it from your copy",
                    place(key_file).display()
                );
                io::Error::new(io::ErrorKind::InvalidData, what)
            })
    }

    /// Whether the owner's data key of this number was destroyed.
    #[must_use]
    pub fn holds(&self, owner: &str, number: u32) -> bool {
        self.through(owner) >= number
    }

    /// The highest number of the owner's that was destroyed; 0 where none was.
    #[must_use]
    pub fn through(&self, owner: &str) -> u32 {
        self.0.get(owner).copied().unwrap_or_default()
    }

    /// Adds the owner's keys up to `number`; on the disk when this returns.
    ///
    /// # Errors
    /// Where the file cannot be written; then it is as it was.
    pub fn add(&mut self, key_file: &Path, owner: &str, number: u32) -> io::Result<()> {
        let mut next = self.clone();
        let through = next.0.entry(owner.to_owned()).or_default();
        *through = number.max(*through);
        let lines = next.0.iter();
        let text: String = lines
            .map(|(owner, number)| format!("{owner}:{number}\n"))
            .collect();
        replace(&place(key_file), text.as_bytes(), Access::Owner)?;
        *self = next;
        Ok(())
    }
}

/// Where the list lies of the keys that the one in `key_file` wrapped.
#[must_use]
pub fn place(key_file: &Path) -> PathBuf {
    let mut name = key_file.file_name().unwrap_or_default().to_owned();
    name.push(".destroyed");
    key_file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_destroyed_is_remembered_and_later_keys_are_not_meant() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("kek");
        let mut destroyed = Destroyed::load(&key_file).unwrap();
        assert!(!destroyed.holds("acme", 1));
        destroyed.add(&key_file, "acme", 2).unwrap();
        destroyed.add(&key_file, "acme", 1).unwrap();
        destroyed.add(&key_file, "globex", 1).unwrap();
        let read = Destroyed::load(&key_file).unwrap();
        assert_eq!(read, destroyed);
        assert!(read.holds("acme", 1) && read.holds("acme", 2) && !read.holds("acme", 3));
        assert_eq!((read.through("globex"), read.through("initech")), (1, 0));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_no_empty_list() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("kek");
        for text in ["acme", "acme:x\n", "\u{fffd}\n"] {
            replace(&place(&key_file), text.as_bytes(), Access::Owner).unwrap();
            let error = Destroyed::load(&key_file).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
