//! The schema and its versions.
//!
//! The database's header says whose it is (`application_id`) and which version of the schema it holds
//! (`user_version`). Both are written in the transaction that makes the change, so a start that is killed midway has
//! changed nothing, and of two processes that start together one changes and the other finds it done.

use std::path::Path;

use sqlx::{Executor as _, SqliteConnection, query, query_scalar, raw_sql};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::store::embedded::failure::is_busy;
use crate::store::embedded::feed;
use crate::store::embedded::open::OpenError;

/// What the schema's versions add, from version 1 on. None is ever changed once it was released.
const STEPS: [&str; 5] = [
    include_str!("schema-1.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
];
/// The newest version.
pub(super) const NEWEST: i64 = STEPS.len() as i64;
/// Marks the database as [`NEWEST`].
const MARK_NEWEST: &str = "PRAGMA user_version = 5";
/// `VEST`, in the database's header.
pub(super) const APPLICATION: i64 = 0x5645_5354;
/// How often the lock is asked for, each time waiting [`super::writer::LOCK_WAIT`]: ten seconds.
const LOCK_ATTEMPTS: u32 = 50;

/// Brings the database to the newest schema. Reads the header and nothing else where it has it.
pub(super) async fn bring_up_to_date(
    connection: &mut SqliteConnection,
    path: &Path,
    now: Timestamp,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::database(path, source);
    if check(connection, path).await? == NEWEST {
        return Ok(());
    }
    begin(connection).await.map_err(failed)?;
    let brought = step_up(connection, path, now).await;
    let end = match &brought {
        Ok(()) => "COMMIT",
        Err(_) => "ROLLBACK",
    };
    let ended = query(end).execute(&mut *connection).await;
    brought?;
    ended.map(drop).map_err(failed)
}

/// The version of the schema; 0 for an empty database.
pub(super) async fn check(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<i64, OpenError> {
    let header = "SELECT (SELECT application_id FROM pragma_application_id), \
                  (SELECT user_version FROM pragma_user_version), (SELECT COUNT(*) FROM sqlite_schema)";
    let (application, version, objects): (i64, i64, i64) = sqlx::query_as(header)
        .fetch_one(&mut *connection)
        .await
        .map_err(|source| OpenError::database(path, source))?;
    match (application, version) {
        (0, 0) if objects == 0 => Ok(0),
        (APPLICATION, 1..=NEWEST) => Ok(version),
        (APPLICATION, found) if found > NEWEST => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: NEWEST,
        }),
        _ => Err(OpenError::Foreign(path.to_owned())),
    }
}

async fn begin(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut attempts = LOCK_ATTEMPTS;
    loop {
        match query("BEGIN IMMEDIATE").execute(&mut *connection).await {
            Err(error) if is_busy(&error) && attempts > 0 => attempts -= 1,
            begun => return begun.map(drop),
        }
    }
}

/// Takes the steps that are missing, by what the database says now that we hold its lock.
async fn step_up(
    connection: &mut SqliteConnection,
    path: &Path,
    now: Timestamp,
) -> Result<(), OpenError> {
    let failed = |source| OpenError::database(path, source);
    let version = check(connection, path).await?;
    let done = usize::try_from(version).unwrap_or(STEPS.len());
    for step in STEPS.into_iter().skip(done) {
        raw_sql(step)
            .execute(&mut *connection)
            .await
            .map_err(failed)?;
    }
    if version == 0 {
        fill(connection, now).await.map_err(failed)?;
    }
    // Pragmas take no parameters; both numbers are constants.
    connection
        .execute("PRAGMA application_id = 0x56455354")
        .await
        .map_err(failed)?;
    connection.execute(MARK_NEWEST).await.map_err(failed)?;
    Ok(())
}

/// The rows that a new store begins with.
async fn fill(connection: &mut SqliteConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    query("INSERT INTO store_meta (one, epoch, created_at) VALUES (1, ?, ?)")
        .bind(Uuid::new_v4().as_bytes().to_vec())
        .bind(now.as_millis())
        .execute(&mut *connection)
        .await?;
    for shard in 0..feed::SHARDS {
        query("INSERT INTO feed_head (shard, seq) VALUES (?, 0)")
            .bind(i64::try_from(shard).unwrap_or_default())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The store's incarnation.
pub(super) async fn epoch(connection: &mut SqliteConnection) -> Result<Uuid, sqlx::Error> {
    let bytes: Vec<u8> = query_scalar("SELECT epoch FROM store_meta WHERE one = 1")
        .fetch_one(connection)
        .await?;
    Uuid::from_slice(&bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Gives the store a new incarnation: readers of its feed take fresh copies.
pub(super) async fn renew_epoch(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    query("UPDATE store_meta SET epoch = ? WHERE one = 1")
        .bind(Uuid::new_v4().as_bytes().to_vec())
        .execute(connection)
        .await
        .map(drop)
}
