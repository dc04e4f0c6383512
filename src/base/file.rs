//! Files that are whole after a crash: written aside, synced, renamed, and the folder synced too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

/// Who may read a file that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Mode 0600: secrets.
    Owner,
    /// Mode 0644.
    Everyone,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everyone => 0o644,
        }
    }
}

/// Replaces `path` by a file that holds `bytes`: after a crash at any instant the old or the new content is
/// there, whole.
///
/// # Errors
/// Names the path and what failed.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let aside = aside(path);
    let written = write_aside(&aside, bytes, access)
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| sync_folder(path));
    if written.is_err() && aside.exists() {
        // The old file stands; what we left aside is of no use. That it cannot be removed changes nothing.
        drop(fs::remove_file(&aside));
    }
    written.map_err(|error| named("cannot write", path, &error))
}

/// A new file for its owner's eyes, made before there is anything to write: what comes once and is not kept must not be
/// asked for where it cannot be put. It goes again unless [`NewFile::fill`] has written it.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: Option<File>,
}

impl NewFile {
    /// Makes the file, mode 0600. One that is there already stays as it is.
    ///
    /// # Errors
    /// Names the path and what is in the way.
    pub fn create(path: &Path) -> io::Result<Self> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(Access::Owner.mode())
            .open(path);
        match made {
            Ok(file) => Ok(Self {
                path: path.to_owned(),
                file: Some(file),
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let text = format!("{} is there already: name another file", path.display());
                Err(io::Error::new(error.kind(), text))
            }
            Err(error) => Err(named("cannot write", path, &error)),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Names the path and what failed; the file is gone then.
    pub fn fill(mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_folder(&self.path))
            .map_err(|error| named("cannot write", &self.path, &error))?;
        self.file = None;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Empty or in part: of no use. That it cannot be removed changes nothing.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn write_aside(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(access.mode())
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(access.mode()))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// Where `path` leads, however it is spelt and over symbolic links; also of a file that is not there yet, nor its folder.
#[must_use]
pub fn place(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = whole
        .ancestors()
        .find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, mut place)) = there else {
        return whole;
    };
    // What is not there has no symbolic links.
    for part in whole
        .strip_prefix(above)
        .into_iter()
        .flat_map(Path::components)
    {
        match part {
            Component::ParentDir => drop(place.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => place.push(part),
        }
    }
    place
}

/// The content of `path`, refused above `most` bytes.
///
/// # Errors
/// Names the path, and the limit where it is too large.
pub fn read_capped(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| named("cannot read", path, &error))?;
    if bytes.len() as u64 > most {
        let text = format!(
            "{} is larger than the limit of {most} bytes",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// The same error with the path in its text.
fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_only_for_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        replace(&path, b"old", Access::Everyone).unwrap();
        replace(&path, b"new", Access::Owner).unwrap();
        assert_eq!(read_capped(&path, 3).unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_is_the_same_however_it_is_spelt_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir(folder.join("d")).unwrap();
        replace(&folder.join("d/key"), b"", Access::Owner).unwrap();
        std::os::unix::fs::symlink(folder.join("d"), folder.join("link")).unwrap();
        for (spelt, expected) in [
            ("d/key", "d/key"),
            ("./d/../d/key", "d/key"),
            ("link/key", "d/key"),
            ("link/none", "d/none"),
            ("none/../d/key", "d/key"),
            ("none/./deep/../key", "none/key"),
            ("link/../none/key", "none/key"),
        ] {
            assert_eq!(place(&folder.join(spelt)), folder.join(expected), "{spelt}");
        }
    }

    #[test]
    fn a_new_file_is_its_owners_alone_is_never_written_over_and_goes_unless_it_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        drop(NewFile::create(&path).unwrap());
        assert!(!path.exists());
        NewFile::create(&path).unwrap().fill(b"secret").unwrap();
        let refused = NewFile::create(&path).unwrap_err().to_string();
        assert!(refused.contains("is there already"), "{refused}");
        assert_eq!(read_capped(&path, 6).unwrap(), b"secret");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let nowhere = folder.path().join("none/key");
        let refused = NewFile::create(&nowhere).unwrap_err().to_string();
        assert!(refused.contains("none/key"), "{refused}");
    }

    #[test]
    fn errors_name_the_path_and_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        replace(&path, b"12345", Access::Everyone).unwrap();
        let text = read_capped(&path, 4).unwrap_err().to_string();
        assert!(text.contains("big") && text.contains("4 bytes"), "{text}");
        let missing = folder.path().join("none/file");
        assert!(
            replace(&missing, b"", Access::Owner)
                .unwrap_err()
                .to_string()
                .contains("none/file")
        );
    }
}
