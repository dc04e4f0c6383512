//! Which key-encryption keys a store's data keys are wrapped by, read from its database by whoever has no store open: what has to
//! be at hand for it to be of use.

use std::path::Path;

use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection, query};

use crate::keys::KekId;
use crate::keys::data_key::wrapped_by;
use crate::model::TenantId;
use crate::store::embedded::folder::DATABASE;
use crate::store::embedded::open::reading;
use crate::store::record::KeyOwner;

/// A data key, and what wraps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// Whose it is.
    pub owner: KeyOwner,
    /// Its number.
    pub number: u32,
    /// The key-encryption key.
    pub by: KekId,
}

/// The data keys of the store in `folder`, by their owners; none where there is no store. It may be in use.
///
/// # Errors
/// Where the database cannot be read.
pub async fn in_folder(folder: &Path) -> Result<Vec<Wrapped>, sqlx::Error> {
    let database = folder.join(DATABASE);
    if !database.is_file() {
        return Ok(Vec::new());
    }
    let mut connection = reading(&database).connect().await?;
    let wrapped = read(&mut connection).await?;
    connection.close().await?;
    Ok(wrapped)
}

/// The data keys of an open database. A row that cannot be read is left out: no key opens it.
pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Vec<Wrapped>, sqlx::Error> {
    let rows = query("SELECT owner, number, wrapped FROM data_key ORDER BY owner, number")
        .fetch_all(connection)
        .await?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let owner = match row.try_get::<&str, _>("owner").ok()? {
            "" => KeyOwner::Platform,
            slug => KeyOwner::Tenant(TenantId::parse(slug).ok()?),
        };
        let number: i64 = row.try_get("number").ok()?;
        Some(Wrapped {
            owner,
            number: u32::try_from(number).ok()?,
            by: wrapped_by(row.try_get("wrapped").ok()?)?,
        })
    };
    Ok(rows.iter().filter_map(read).collect())
}
