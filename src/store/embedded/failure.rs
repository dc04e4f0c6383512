//! What SQLite says went wrong, as what the port says.

use std::sync::Arc;

use crate::store::batch::ApplyError;
use crate::store::error::StoreError;

/// Result codes of SQLite (its `rescode` page); the low byte is the primary code.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const IO: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CONSTRAINT: i32 = 19;
const NOT_A_DATABASE: i32 = 26;
const IO_WRITE: i32 = IO | (3 << 8);
const IO_SHM_SIZE: i32 = IO | (19 << 8);
const CONSTRAINT_FOREIGN_KEY: i32 = CONSTRAINT | (3 << 8);

/// The result code of a failure that SQLite itself told of.
pub(super) fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Whether another process holds the lock.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error).map(|code| code & 0xff), Some(BUSY | LOCKED))
}

/// Whether the file is damaged or no database.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    matches!(
        code(error).map(|code| code & 0xff),
        Some(CORRUPT | NOT_A_DATABASE)
    )
}

/// Whether there is no room left. A quota or a limit on file size gives `IO_WRITE`, a full disk under the shared memory
/// `IO_SHM_SIZE`.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code, IO_WRITE | IO_SHM_SIZE) || code & 0xff == FULL)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match code(&error) {
            Some(_) if is_full(&error) => Self::Full(Arc::new(error)),
            Some(code) if matches!(code & 0xff, CORRUPT | NOT_A_DATABASE | CONSTRAINT) => {
                Self::Corrupt(error.to_string())
            }
            Some(_) => Self::Unavailable(Arc::new(error)),
            None if is_undecodable(&error) => Self::Corrupt(error.to_string()),
            None => Self::Unavailable(Arc::new(error)),
        }
    }
}

fn is_undecodable(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::RowNotFound
    )
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        match code(&error) {
            Some(CONSTRAINT_FOREIGN_KEY) => Self::Missing("what the change refers to".to_owned()),
            _ => Self::Store(error.into()),
        }
    }
}

/// What a failed commit means: only where SQLite surely wrote no commit mark has nothing happened.
pub(super) fn after_commit(error: sqlx::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Unavailable(source) => StoreError::Unknown(source),
        other @ (StoreError::Timeout
        | StoreError::Unknown(_)
        | StoreError::Full(_)
        | StoreError::Corrupt(_)) => other,
    }
}
