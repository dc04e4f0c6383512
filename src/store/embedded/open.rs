//! From a folder to connections.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, SqliteConnection};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::store::embedded::failure::{is_damage, is_full};
use crate::store::embedded::writer::LOCK_WAIT;
use crate::store::embedded::{Settings, ballast, folder, schema};

/// The write-ahead log is cut back to this size once it has been folded.
const LOG_BYTES: &str = "67108864";

/// Why the store does not open. Nothing was changed then.
#[derive(Debug)]
pub enum OpenError {
    /// The folder, or the file in it, belongs to somebody else.
    NotOurs {
        /// Which.
        path: PathBuf,
        /// The user that owns it.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Our user and group.
        us: (u32, u32),
    },
    /// The folder, or the file in it, cannot be used.
    Unusable {
        /// Which.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The folder lies on a file system of other machines.
    NetworkFileSystem {
        /// The folder.
        folder: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// The file is not a database of Vestibule.
    Foreign(PathBuf),
    /// A newer version of Vestibule wrote the store.
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema's version there.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// The file is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: sqlx::Error,
    },
    /// There is no room left on its disk.
    NoRoom {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: sqlx::Error,
    },
    /// The database does not open for another reason.
    Database {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: sqlx::Error,
    },
}

impl OpenError {
    pub(super) fn database(path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        if is_damage(&source) {
            return Self::Damaged { path, source };
        }
        match is_full(&source) {
            true => Self::NoRoom { path, source },
            false => Self::Database { path, source },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs {
                path,
                owner,
                mode,
                us: (user, group),
            } => write!(
                f,
                "{path} belongs to user {owner} (mode {mode:03o}), and user {user} may not write there; \
                 run: chown -R {user}:{group} {path}",
                path = path.display()
            ),
            Self::Unusable { path, .. } => write!(f, "{} cannot be used", path.display()),
            Self::NetworkFileSystem { folder, kind } => write!(
                f,
                "the data folder {} lies on {kind}, a network file system, where the database cannot be kept \
                 safely; choose a folder on a local disk",
                folder.display()
            ),
            Self::Foreign(path) => write!(
                f,
                "{} is not a database of Vestibule; it was left as it is, choose another data folder",
                path.display()
            ),
            Self::Newer { path, found, known } => write!(
                f,
                "{} has schema version {found}, written by a newer Vestibule; this one knows up to {known}: \
                 run the newer one, or restore a backup from before the upgrade",
                path.display()
            ),
            Self::Damaged { path, .. } => write!(
                f,
                "{} is damaged; move it away with its -wal and -shm files and restore a backup",
                path.display()
            ),
            Self::NoRoom { path, .. } => write!(
                f,
                "there is no room left on the disk of {}; free 1 MiB there and start again: what is stored is unharmed",
                path.display()
            ),
            Self::Database { path, .. } => write!(f, "cannot open {}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unusable { source, .. } => Some(source),
            Self::Damaged { source, .. }
            | Self::NoRoom { source, .. }
            | Self::Database { source, .. } => Some(source),
            Self::NotOurs { .. }
            | Self::NetworkFileSystem { .. }
            | Self::Foreign(_)
            | Self::Newer { .. } => None,
        }
    }
}

/// An open store.
pub(super) struct Opened {
    pub(super) writer: SqliteConnection,
    /// Open another writing connection.
    pub(super) options: SqliteConnectOptions,
    pub(super) readers: SqlitePool,
    pub(super) epoch: Uuid,
}

/// Opens the database in the folder, made and brought up to date where needed; where there is no room, in that of the
/// ballast.
pub(super) async fn open(settings: &Settings, now: Timestamp) -> Result<Opened, OpenError> {
    let path = folder::prepare(&settings.folder)?;
    match connect(&path, settings, now).await {
        Err(OpenError::NoRoom { .. }) if ballast::release(&settings.folder) => {
            tracing::error!(
                folder = %settings.folder.display(),
                "the disk is full: the room kept for that is used to start; what is stored is served, \
                 and nothing new can be stored until there is room"
            );
            connect(&path, settings, now).await
        }
        opened => {
            if opened.is_ok() {
                ballast::keep(&settings.folder);
            }
            opened
        }
    }
}

async fn connect(path: &Path, settings: &Settings, now: Timestamp) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::database(path, source);
    let options = writing(path);
    let mut writer = options.connect().await.map_err(failed)?;
    schema::bring_up_to_date(&mut writer, path, now).await?;
    let epoch = schema::epoch(&mut writer).await.map_err(failed)?;
    let readers = SqlitePoolOptions::new()
        .max_connections(settings.readers.max(1))
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(reading(path))
        .await
        .map_err(failed)?;
    Ok(Opened {
        writer,
        options,
        readers,
        epoch,
    })
}

/// How the one writing connection is opened. `FULL`: a commit has reached the disk when it returns; with `NORMAL` the
/// last ones are lost when the power goes. `secure_delete`: what is deleted or overwritten, a destroyed key above all, becomes
/// zeros instead of free space that can still be read.
pub(super) fn writing(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(LOCK_WAIT)
        .pragma("journal_size_limit", LOG_BYTES)
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

/// How a reading connection is opened.
pub(super) fn reading(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(LOCK_WAIT)
        .disable_statement_logging()
}
