//! The audit chains' rows.

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use crate::model::TenantScope;
use crate::store::audit::{Link, canonical, hash_of};
use crate::store::batch::{ApplyError, AuditEvent};
use crate::store::embedded::rows::{
    column, fetched, nothing, page, parsed, signed, time, unsigned,
};
use crate::store::embedded::transaction::{Transaction, check_owner};
use crate::store::error::StoreError;
use crate::store::record::{AuditActor, AuditRecord, KeyOwner};
use crate::store::{Page, PageRequest};

/// Appends an event to its owner's chain.
pub(super) async fn append(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    event: &AuditEvent,
) -> Result<(), ApplyError> {
    check_owner(scope, &event.owner)?;
    let before = newest(transaction.connection, &event.owner).await?;
    let detail = canonical(&event.detail);
    let mut record = AuditRecord {
        owner: event.owner.clone(),
        sequence: before.sequence.saturating_add(1),
        at: transaction.now,
        actor: event.actor.clone(),
        kind: event.kind.to_owned(),
        subject: event.subject.clone(),
        // As it will be read back: what is hashed is what a reader sees.
        detail: read_detail(&detail)?,
        hash: [0; 32],
    };
    record.hash = hash_of(&before.hash, &record);
    insert(transaction.connection, &record, detail).await?;
    query(
        "INSERT INTO audit_head (owner, sequence, hash) VALUES (?1, ?2, ?3) \
         ON CONFLICT (owner) DO UPDATE SET sequence = ?2, hash = ?3",
    )
    .bind(record.owner.as_str().to_owned())
    .bind(signed(record.sequence))
    .bind(record.hash.to_vec())
    .execute(&mut *transaction.connection)
    .await?;
    Ok(())
}

async fn newest(connection: &mut SqliteConnection, owner: &KeyOwner) -> Result<Link, StoreError> {
    let found = query("SELECT sequence, hash FROM audit_head WHERE owner = ?")
        .bind(owner.as_str().to_owned())
        .fetch_optional(connection)
        .await?;
    match found {
        Some(row) => Ok(Link {
            sequence: unsigned(&row, "sequence")?,
            hash: hash(&row)?,
        }),
        None => Ok(Link::default()),
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    record: &AuditRecord,
    detail: String,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO audit (owner, sequence, at, actor, kind, subject, detail, hash) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(record.owner.as_str().to_owned())
    .bind(signed(record.sequence))
    .bind(record.at.as_millis())
    .bind(record.actor.as_str())
    .bind(record.kind.clone())
    .bind(record.subject.clone())
    .bind(detail)
    .bind(record.hash.to_vec())
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of an owner's chain.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    owner: &KeyOwner,
    request: &PageRequest,
) -> Result<Page<AuditRecord>, StoreError> {
    let after = match &request.after {
        None => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(after) => after,
            Err(_) => return Ok(nothing()),
        },
    };
    let rows =
        query("SELECT * FROM audit WHERE owner = ? AND sequence > ? ORDER BY sequence LIMIT ?")
            .bind(owner.as_str().to_owned())
            .bind(after)
            .bind(fetched(request))
            .fetch_all(connection)
            .await?;
    let events = rows
        .iter()
        .map(|row| record(row, owner))
        .collect::<Result<_, _>>()?;
    Ok(page(events, request, |event: &AuditRecord| {
        event.sequence.to_string()
    }))
}

fn record(row: &SqliteRow, owner: &KeyOwner) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        owner: owner.clone(),
        sequence: unsigned(row, "sequence")?,
        at: time(row, "at")?,
        actor: parsed(row, "actor", AuditActor::from_word)?,
        kind: column(row, "kind")?,
        subject: column(row, "subject")?,
        detail: read_detail(column(row, "detail")?)?,
        hash: hash(row)?,
    })
}

fn read_detail(text: &str) -> Result<serde_json::Value, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("an event: {error}")))
}

fn hash(row: &SqliteRow) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = column(row, "hash")?;
    <[u8; 32]>::try_from(bytes)
        .map_err(|_length| StoreError::Corrupt("an event's hash has not 32 bytes".to_owned()))
}
