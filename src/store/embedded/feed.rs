//! The feed: shards, each a counter row that is written in the transaction of its entries.

use sqlx::{Connection as _, Row as _, SqliteConnection, query};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::store::batch::ApplyError;
use crate::store::embedded::rows::{column, signed};
use crate::store::embedded::transaction::Transaction;
use crate::store::error::StoreError;
use crate::store::feed::{Change, ChangeKind, Changes, Cursor, FeedStatus};

/// The shards of a store. Part of the format: a key's entries are in order because they are in one shard.
pub(super) const SHARDS: usize = 16;

/// The number of the newest entry of each shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heads {
    positions: [u64; SHARDS],
    moved: [bool; SHARDS],
}

impl Heads {
    /// As committed, or as changed by this connection's transaction.
    pub(super) async fn read(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        let mut heads = Self {
            positions: [0; SHARDS],
            moved: [false; SHARDS],
        };
        let rows = query("SELECT shard, seq FROM feed_head")
            .fetch_all(connection)
            .await?;
        for row in rows {
            let (shard, seq): (i64, i64) = (column(&row, 0)?, column(&row, 1)?);
            let slot = usize::try_from(shard)
                .ok()
                .and_then(|shard| heads.positions.get_mut(shard));
            match (slot, u64::try_from(seq)) {
                (Some(slot), Ok(seq)) => *slot = seq,
                (_, _) => return Err(StoreError::Corrupt(format!("feed shard {shard}"))),
            }
        }
        Ok(heads)
    }

    /// Writes those that moved; tells whether any did.
    pub(super) async fn write(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<bool, StoreError> {
        let heads = self.positions.iter().zip(self.moved).enumerate();
        for (shard, (position, _)) in heads.filter(|(_, (_, moved))| *moved) {
            query("UPDATE feed_head SET seq = ? WHERE shard = ?")
                .bind(signed(*position))
                .bind(signed(shard as u64))
                .execute(&mut *connection)
                .await?;
        }
        Ok(self.moved.contains(&true))
    }

    /// As a reader's cursor.
    pub(super) fn cursor(&self, epoch: Uuid) -> Cursor {
        Cursor {
            epoch: Some(epoch),
            positions: self.positions.to_vec(),
        }
    }
}

/// The value of a kind in rows.
const fn kind_value(kind: ChangeKind) -> i64 {
    match kind {
        ChangeKind::Unknown => 0,
        ChangeKind::Domain => 1,
        ChangeKind::Tenant => 2,
        ChangeKind::Material => 3,
    }
}

const fn kind_from(value: i64) -> ChangeKind {
    match value {
        1 => ChangeKind::Domain,
        2 => ChangeKind::Tenant,
        3 => ChangeKind::Material,
        _ => ChangeKind::Unknown,
    }
}

/// FNV-1a: the same on every machine and in every version.
fn shard_of(key: &str) -> usize {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash % SHARDS as u64).unwrap_or_default()
}

/// Appends an entry.
pub(super) async fn record(
    transaction: &mut Transaction<'_>,
    kind: ChangeKind,
    key: &str,
) -> Result<(), ApplyError> {
    let shard = shard_of(key);
    let heads = &mut transaction.heads;
    let (Some(position), Some(moved)) =
        (heads.positions.get_mut(shard), heads.moved.get_mut(shard))
    else {
        return Ok(());
    };
    *position = position.saturating_add(1);
    *moved = true;
    query("INSERT INTO feed (shard, seq, at, kind, key) VALUES (?, ?, ?, ?, ?)")
        .bind(signed(shard as u64))
        .bind(signed(*position))
        .bind(transaction.now.as_millis())
        .bind(kind_value(kind))
        .bind(key.to_owned())
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// What changed since `from`, from one snapshot.
pub(super) async fn changes(
    connection: &mut SqliteConnection,
    epoch: Uuid,
    from: &Cursor,
    most: usize,
) -> Result<Changes, StoreError> {
    let mut snapshot = connection.begin().await?;
    let heads = Heads::read(&mut snapshot).await?;
    let read = read_since(&mut snapshot, &heads, epoch, from, most).await?;
    snapshot.rollback().await?;
    Ok(read)
}

async fn read_since(
    connection: &mut SqliteConnection,
    heads: &Heads,
    epoch: Uuid,
    from: &Cursor,
    most: usize,
) -> Result<Changes, StoreError> {
    let restart = || Changes {
        entries: Vec::new(),
        cursor: heads.cursor(epoch),
        status: FeedStatus::Restart,
    };
    if from.epoch != Some(epoch) {
        return Ok(restart());
    }
    let mut positions = from.positions.clone();
    positions.resize(SHARDS, 0);
    let mut entries = Vec::new();
    for (shard, (position, head)) in positions.iter_mut().zip(heads.positions).enumerate() {
        if *position > head {
            return Ok(restart());
        }
        let room = most.max(1).saturating_sub(entries.len());
        if *position == head || room == 0 {
            continue;
        }
        let rows = query(
            "SELECT seq, kind, key FROM feed WHERE shard = ? AND seq > ? ORDER BY seq LIMIT ?",
        )
        .bind(signed(shard as u64))
        .bind(signed(*position))
        .bind(signed(room as u64))
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            // Everything behind the reader's place has been trimmed.
            return Ok(restart());
        }
        for row in rows {
            let seq = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default();
            if position.checked_add(1) != Some(seq) {
                // The entries in between have been trimmed.
                return Ok(restart());
            }
            *position = seq;
            entries.push(Change {
                kind: kind_from(column(&row, 1)?),
                key: column(&row, 2)?,
            });
        }
    }
    let complete = positions == heads.positions;
    Ok(Changes {
        entries,
        cursor: Cursor {
            epoch: Some(epoch),
            positions,
        },
        status: match complete {
            true => FeedStatus::Complete,
            false => FeedStatus::More,
        },
    })
}

/// Removes entries from before `before`, at most `most` in each shard; tells how many.
pub(super) async fn trim(
    transaction: &mut Transaction<'_>,
    before: Timestamp,
    most: i64,
) -> Result<u64, StoreError> {
    let mut removed = 0;
    for shard in 0..SHARDS {
        // The entries of a shard are in the order of their times, but for a clock that was set back.
        let done = query(
            "DELETE FROM feed WHERE shard = ?1 AND seq <= (SELECT MAX(seq) FROM \
             (SELECT seq, at FROM feed WHERE shard = ?1 ORDER BY seq LIMIT ?2) WHERE at < ?3)",
        )
        .bind(signed(shard as u64))
        .bind(most)
        .bind(before.as_millis())
        .execute(&mut *transaction.connection)
        .await?;
        removed += done.rows_affected();
    }
    Ok(removed)
}
