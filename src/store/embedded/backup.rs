//! Backup and restore: one file, consistent, without the key-encryption key.
//!
//! A backup is a database of its own: the store as it was at one moment, with every key in it wrapped or sealed. Without
//! the key-encryption key it serves nothing, so keep that key's file elsewhere, and keep it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, query, query_as, query_scalar};

use crate::store::embedded::folder::DATABASE;
use crate::store::embedded::open::{OpenError, reading, writing};
use crate::store::embedded::schema;
use crate::store::embedded::wrapped::{self, Wrapped};

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of its file.
    pub bytes: u64,
    /// Tenants in it.
    pub tenants: u64,
    /// Domains in it.
    pub domains: u64,
    /// Certificates in it.
    pub certificates: u64,
    /// Its data keys, and what wraps each: the key-encryption keys without which it is of no use.
    pub wrapped: Vec<Wrapped>,
}

/// Why a backup was not made or not restored. What was there before is untouched.
#[derive(Debug)]
pub enum BackupError {
    /// There is no store in the folder.
    NoStore(PathBuf),
    /// The folder holds a store already.
    FolderInUse(PathBuf),
    /// There is no folder to write the file in.
    NoFolder(PathBuf),
    /// The file exists already.
    FileExists(PathBuf),
    /// The file is no backup, is damaged, or was made by a newer version.
    Unusable(OpenError),
    /// A check of the copy found damage: what SQLite says about it.
    Damaged(String),
    /// The database failed.
    Database(sqlx::Error),
    /// A file or folder failed.
    File {
        /// Which.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore(folder) => write!(f, "there is no store in {}", folder.display()),
            Self::FolderInUse(folder) => write!(
                f,
                "{} holds a store already; restore into an empty folder, or move that one away",
                folder.display()
            ),
            Self::NoFolder(folder) => write!(
                f,
                "there is no folder {0}; make it first (mkdir -p {0}), or write the file elsewhere",
                folder.display()
            ),
            Self::FileExists(file) => write!(
                f,
                "{} exists already; choose another name, or remove it first",
                file.display()
            ),
            Self::Unusable(_) => f.write_str("the backup cannot be used"),
            Self::Damaged(what) => write!(f, "the copy is damaged: {what}"),
            Self::Database(_) => f.write_str("the database failed"),
            Self::File { path, .. } => write!(f, "{} failed", path.display()),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unusable(source) => Some(source),
            Self::Database(source) => Some(source),
            Self::File { source, .. } => Some(source),
            Self::NoStore(_)
            | Self::FolderInUse(_)
            | Self::NoFolder(_)
            | Self::FileExists(_)
            | Self::Damaged(_) => None,
        }
    }
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// Writes a consistent copy of the store in `folder` to `file`, which must not exist; mode 0600. The store may be in
/// use, by this process or another. The copy is checked before it gets its name.
///
/// # Errors
/// [`BackupError`].
pub async fn backup(folder: &Path, file: &Path) -> Result<Summary, BackupError> {
    let database = folder.join(DATABASE);
    if !database.is_file() {
        return Err(BackupError::NoStore(folder.to_owned()));
    }
    if file.exists() {
        return Err(BackupError::FileExists(file.to_owned()));
    }
    let aside = Aside::beside(file)?;
    let mut source = reading(&database).connect().await?;
    copy_into(&mut source, aside.path()).await?;
    source.close().await?;
    let summary = inspect(aside.path()).await?;
    aside.keep_as(file)?;
    Ok(summary)
}

/// Puts the store that `file` holds into `folder`, which must hold none. Its feed begins a new epoch, so that nobody who
/// read on from before goes on as if nothing had been lost.
///
/// # Errors
/// [`BackupError`].
pub async fn restore(file: &Path, folder: &Path) -> Result<Summary, BackupError> {
    let summary = inspect(file).await?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::File { path, source }
    };
    if !folder.exists() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(failed(folder))?;
    }
    let database = folder.join(DATABASE);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        if folder.join(format!("{DATABASE}{suffix}")).exists() {
            return Err(BackupError::FolderInUse(folder.to_owned()));
        }
    }
    let aside = Aside::beside(&database)?;
    let mut source = reading(file).connect().await?;
    copy_into(&mut source, aside.path()).await?;
    source.close().await?;
    let mut restored = writing(aside.path())
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Delete)
        .connect()
        .await?;
    schema::renew_epoch(&mut restored).await?;
    restored.close().await?;
    aside.keep_as(&database)?;
    Ok(summary)
}

/// Copies the whole database as of now into an empty file.
async fn copy_into(source: &mut SqliteConnection, target: &Path) -> Result<(), BackupError> {
    let name = target.to_str().ok_or_else(|| BackupError::File {
        path: target.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8"),
    })?;
    query("VACUUM INTO ?")
        .bind(name.to_owned())
        .execute(source)
        .await?;
    Ok(())
}

/// Checks a backup whole, and tells what it holds.
///
/// # Errors
/// [`BackupError::Unusable`] and [`BackupError::Damaged`].
pub async fn inspect(file: &Path) -> Result<Summary, BackupError> {
    let read = File::open(file).and_then(|file| file.metadata());
    let bytes = read
        .map_err(|source| BackupError::File {
            path: file.to_owned(),
            source,
        })?
        .len();
    let mut connection = reading(file)
        .connect()
        .await
        .map_err(|source| BackupError::Unusable(OpenError::database(file, source)))?;
    let version = schema::check(&mut connection, file).await;
    if version.map_err(BackupError::Unusable)? == 0 {
        return Err(BackupError::Unusable(OpenError::Foreign(file.to_owned())));
    }
    let verdict: String = query_scalar("PRAGMA integrity_check(1)")
        .fetch_one(&mut connection)
        .await?;
    if verdict != "ok" {
        return Err(BackupError::Damaged(verdict));
    }
    let counts = "SELECT (SELECT COUNT(*) FROM tenant), (SELECT COUNT(*) FROM domain), \
                  (SELECT COUNT(*) FROM certificate)";
    let (tenants, domains, certificates): (i64, i64, i64) =
        query_as(counts).fetch_one(&mut connection).await?;
    let wrapped = wrapped::read(&mut connection).await?;
    connection.close().await?;
    let count = |rows| u64::try_from(rows).unwrap_or_default();
    Ok(Summary {
        bytes,
        tenants: count(tenants),
        domains: count(domains),
        certificates: count(certificates),
        wrapped,
    })
}

/// The folder that holds, or is to hold, a file.
fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file that is written under a name of its own and gets its real one when it is whole; removed if it never is.
struct Aside(Option<PathBuf>);

impl Aside {
    /// An empty one, for its owner only, in the folder of `target`.
    fn beside(target: &Path) -> Result<Self, BackupError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", uuid::Uuid::new_v4()));
        let path = target.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        match options.open(&path) {
            Ok(_) => Ok(Self(Some(path))),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(BackupError::NoFolder(folder_of(target).to_owned()))
            }
            // Nobody but us knows the name that it would have had meanwhile.
            Err(source) => Err(BackupError::File {
                path: target.to_owned(),
                source,
            }),
        }
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or_else(|| Path::new(""))
    }

    /// Gives it its name, which nobody may have taken in between; on the disk when this returns.
    fn keep_as(mut self, target: &Path) -> Result<(), BackupError> {
        let Some(path) = self.0.take() else {
            return Ok(());
        };
        let kept = File::open(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::hard_link(&path, target))
            .and_then(|()| fs::remove_file(&path))
            .and_then(|()| File::open(folder_of(target))?.sync_all());
        match kept {
            Ok(()) => Ok(()),
            Err(source) => {
                self.0 = Some(path);
                let path = target.to_owned();
                Err(match source.kind() == io::ErrorKind::AlreadyExists {
                    true => BackupError::FileExists(path),
                    false => BackupError::File { path, source },
                })
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may never have been written; what cannot be removed stays beside, under its own name.
            drop(fs::remove_file(path));
        }
    }
}
