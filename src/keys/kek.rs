//! The key-encryption key and its file.
//!
//! # The file
//!
//! One line of ASCII, ended by a line feed, mode 0600:
//!
//! ```text
//! vestibule-key-encryption-key-1:<key>:<id>
//! ```
//!
//! - `<key>`: the 32 random bytes of the key, base64url without padding (RFC 4648 §5), 43 characters.
//! - `<id>`: the key's identity, 16 lower-case hexadecimal digits: the first 8 bytes of HMAC-SHA-256 under the key over
//!   the text `vestibule key-encryption key id 1`. It tells nothing about the key, is named in every data key that
//!   the key wraps, and finds a file that was damaged or edited.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use uuid::fmt::Hyphenated;
use zeroize::{Zeroize as _, Zeroizing};

use crate::base::file::read_capped;
use crate::base::secret::Secret;
use crate::keys::KEY_BYTES;

/// Begins the file's only line.
const FORMAT: &str = "vestibule-key-encryption-key-1";
/// What the identity is derived over.
const ID_LABEL: &[u8] = b"vestibule key-encryption key id 1";
/// More than any key file has.
const MOST_BYTES: u64 = 4096;

/// The identity of a key-encryption key: public, and in every data key that it wraps.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KekId(pub(super) [u8; 8]);

impl KekId {
    fn of(key: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), ID_LABEL);
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Self(id)
    }
}

/// 16 lower-case hexadecimal digits.
impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why there is no key-encryption key.
#[derive(Debug)]
pub enum KekError {
    /// There is no such file.
    Missing(PathBuf),
    /// There is no such file, and the key was in another before.
    Moved {
        /// The file that is named now.
        path: PathBuf,
        /// The one that was in use before.
        before: PathBuf,
    },
    /// Others than its owner may read or change the file.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key, or a damaged one.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A new key was wanted, and there is a file already: it may be the only copy of a key that is in use.
    Exists(PathBuf),
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The file cannot be made.
    Create {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A tenant's own key would be somebody else's too.
    Shared {
        /// The file.
        path: PathBuf,
        /// Whose it is already: a tenant's slug, nothing for the platform.
        with: String,
    },
    /// The machine gives no random bytes.
    NoRandomness,
}

impl fmt::Display for KekError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(
                f,
                "the key-encryption key {} does not exist; put the file that belongs to this data there",
                path.display()
            ),
            Self::Moved { path, before } => write!(
                f,
                "the key-encryption key {0} does not exist; copy the one that was in use before there: cp -p {1} {0}, or name \
                 {1} again",
                path.display(),
                before.display()
            ),
            Self::Exposed { path, mode } => write!(
                f,
                "others may read the key-encryption key {path} (mode {mode:03o}); run: chmod 600 {path}",
                path = path.display()
            ),
            Self::Malformed { path, what } => write!(
                f,
                "{} holds no usable key-encryption key: {what}; restore the file from your copy",
                path.display()
            ),
            Self::Exists(path) => write!(
                f,
                "{} exists, and a key-encryption key is never overwritten; move it away first",
                path.display()
            ),
            Self::Read { path, .. } => write!(
                f,
                "cannot read the key-encryption key {}; it must belong to the user that Vestibule runs as",
                path.display()
            ),
            Self::Create { path, .. } => {
                write!(f, "cannot make the key-encryption key {}", path.display())
            }
            Self::Shared { path, with } => {
                let whose = match with.as_str() {
                    "" => "of [keys] file".to_owned(),
                    tenant => format!("of tenant {tenant}"),
                };
                write!(
                    f,
                    "{} is the key-encryption key {whose} already; name a file for this tenant alone",
                    path.display()
                )
            }
            Self::NoRandomness => f.write_str("the machine gives no random bytes"),
        }
    }
}

impl std::error::Error for KekError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } | Self::Create { source, .. } => Some(source),
            Self::Missing(_)
            | Self::Moved { .. }
            | Self::Exposed { .. }
            | Self::Malformed { .. }
            | Self::Exists(_)
            | Self::Shared { .. }
            | Self::NoRandomness => None,
        }
    }
}

/// The key that wraps data keys. Never printed; it leaves this type only into its own file.
pub struct KeyEncryptionKey {
    id: KekId,
    file: PathBuf,
    pub(super) cipher: RandomizedNonceKey,
}

impl KeyEncryptionKey {
    /// Reads the key from `file`.
    ///
    /// # Errors
    /// [`KekError::Missing`], [`KekError::Exposed`], [`KekError::Malformed`], [`KekError::Read`].
    pub fn load(file: &Path) -> Result<Self, KekError> {
        let mode = match fs::metadata(file) {
            Ok(metadata) => metadata.permissions().mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KekError::Missing(file.to_owned()));
            }
            Err(source) => return Err(unreadable(file, source)),
        };
        if mode & 0o077 != 0 {
            let path = file.to_owned();
            return Err(KekError::Exposed { path, mode });
        }
        let read = read_capped(file, MOST_BYTES);
        let bytes = Secret::new(read.map_err(|source| unreadable(file, source))?);
        Self::read(&bytes, file)
    }

    /// Makes a new key and keeps it in `file`, which must not exist; folders above it are made for the owner only.
    ///
    /// # Errors
    /// [`KekError::Exists`] where there is a file, whatever it holds; [`KekError::Create`];
    /// [`KekError::NoRandomness`].
    pub fn create(file: &Path) -> Result<Self, KekError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut *key).map_err(|_unspecified| KekError::NoRandomness)?;
        let text = Zeroizing::new(format!(
            "{FORMAT}:{}:{}\n",
            *Zeroizing::new(URL_SAFE_NO_PAD.encode(*key)),
            KekId::of(&*key)
        ));
        match write_new(file, text.as_bytes()) {
            Ok(()) => {
                let shown = file.display();
                tracing::info!(file = %shown, "made a key-encryption key: keep a copy of it apart from the backups");
                Self::from_key(&*key, file)
            }
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(KekError::Exists(file.to_owned()))
            }
            Err(source) => Err(KekError::Create {
                path: file.to_owned(),
                source,
            }),
        }
    }

    /// Reads the key, or makes it where there is no file. Only for a store that is new: over an existing store a
    /// new key would open nothing.
    ///
    /// # Errors
    /// As [`KeyEncryptionKey::load`] and [`KeyEncryptionKey::create`].
    pub fn load_or_create(file: &Path) -> Result<Self, KekError> {
        match Self::load(file) {
            Err(KekError::Missing(_)) => match Self::create(file) {
                // Another process made it in between.
                Err(KekError::Exists(_)) => Self::load(file),
                created => created,
            },
            loaded => loaded,
        }
    }

    /// The identity of the key that lies in `file`, whoever may read it; nothing where none can be read there. It tells
    /// which key it is, not whether it may be used.
    #[must_use]
    pub fn identity_in(file: &Path) -> Option<KekId> {
        let bytes = Secret::new(read_capped(file, MOST_BYTES).ok()?);
        Self::read(&bytes, file).ok().map(|key| key.id)
    }

    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> KekId {
        self.id
    }

    /// The file it came from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn read(bytes: &Secret, file: &Path) -> Result<Self, KekError> {
        let malformed = |what| KekError::Malformed {
            path: file.to_owned(),
            what,
        };
        let text = bytes.expose_str().map(str::trim_end).unwrap_or_default();
        let mut parts = text.split(':');
        if parts.next() != Some(FORMAT) {
            return Err(malformed(
                "its line does not begin with vestibule-key-encryption-key-1",
            ));
        }
        let (Some(key), Some(id), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("its line has not three parts"));
        };
        let mut decoded = URL_SAFE_NO_PAD.decode(key).unwrap_or_default();
        let right = decoded.len() == KEY_BYTES && KekId::of(&decoded).to_string() == id;
        let read = match right {
            true => Self::from_key(&decoded, file),
            false => Err(malformed("its key and its identity do not fit")),
        };
        decoded.zeroize();
        read
    }

    fn from_key(key: &[u8], file: &Path) -> Result<Self, KekError> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_unspecified| {
            KekError::Malformed {
                path: file.to_owned(),
                what: "its key has not 32 bytes",
            }
        })?;
        Ok(Self {
            id: KekId::of(key),
            file: file.to_owned(),
            cipher,
        })
    }
}

fn unreadable(file: &Path, source: io::Error) -> KekError {
    KekError::Read {
        path: file.to_owned(),
        source,
    }
}

/// Names the key's identity and file, never the key.
impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyEncryptionKey")
            .field("id", &self.id)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Whether this stands between a file's name and `.new` where a key is written aside: after a kill it may still be there.
pub(super) fn is_aside(unique: &str) -> bool {
    unique.len() == Hyphenated::LENGTH && Uuid::try_parse(unique).is_ok()
}

/// Writes aside, syncs, then links: the file is there whole or not at all, and an existing one is never replaced.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.exists() {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700).create(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", Uuid::new_v4().hyphenated()));
    let aside = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::hard_link(&aside, path));
    let removed = fs::remove_file(&aside);
    written?;
    removed?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(in crate::keys) mod tests {
    use super::*;

    /// A key of 32 bytes 0, 1, 2 … 31: the file format and the identity are final.
    pub(in crate::keys) const GOLDEN_FILE: &str = "vestibule-key-encryption-key-1:\
        AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8:929847af0f6897a3\n";

    fn with_text(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        crate::base::file::replace(&path, text.as_bytes(), crate::base::file::Access::Owner)
            .unwrap();
        (folder, path)
    }

    pub(in crate::keys) fn golden() -> KeyEncryptionKey {
        let (_folder, path) = with_text(GOLDEN_FILE);
        KeyEncryptionKey::load(&path).unwrap()
    }

    #[test]
    fn the_file_format_and_the_identity_are_final() {
        assert_eq!(golden().id().to_string(), "929847af0f6897a3");
    }

    #[test]
    fn a_created_key_is_loaded_again_and_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets/kek");
        let created = KeyEncryptionKey::create(&path).unwrap();
        assert_eq!(KeyEncryptionKey::load(&path).unwrap().id(), created.id());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing is left aside");
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let (_folder, path) = with_text("anything");
        let error = KeyEncryptionKey::create(&path).unwrap_err();
        assert!(matches!(error, KekError::Exists(_)), "{error}");
        let error = KeyEncryptionKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, KekError::Malformed { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"anything");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_its_chmod() {
        for mode in [0o640, 0o604, 0o622, 0o666] {
            let (_folder, path) = with_text(GOLDEN_FILE);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let text = KeyEncryptionKey::load(&path).unwrap_err().to_string();
            let command = format!("chmod 600 {}", path.display());
            assert!(text.contains(&command), "{text}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_its_content_not_repeated() {
        let bent = GOLDEN_FILE.replace("AAEC", "AAED");
        let short = GOLDEN_FILE.replace("AAEC", "");
        for text in [
            "",
            "\n",
            "secretsecret",
            "vestibule-key-encryption-key-2:a:b",
            &bent,
            &short,
        ] {
            let (_folder, path) = with_text(text);
            let error = KeyEncryptionKey::load(&path).unwrap_err();
            assert!(matches!(error, KekError::Malformed { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("secretsecret"));
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = KeyEncryptionKey::load(Path::new("/nonexistent/kek")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/kek"), "{error}");
    }
}
