//! Budgets: the generic cell rate algorithm over one row a bucket.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{SqliteConnection, query, query_as};

use crate::base::clock::Timestamp;
use crate::store::batch::ApplyError;
use crate::store::budget::{Bucket, BucketCost, BucketRecord, Taken};
use crate::store::embedded::rows::{fetched, page};
use crate::store::embedded::transaction::Transaction;
use crate::store::embedded::writer::Change;
use crate::store::error::StoreError;
use crate::store::{Page, PageRequest};

/// See [`crate::store::Store::take`].
pub(super) struct TakeCosts(pub(super) Vec<BucketCost>);

impl Change for TakeCosts {
    type Output = Taken;
    type Error = StoreError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<Taken, StoreError> {
        let mut before: HashMap<&str, Bucket> = HashMap::new();
        let mut taken: HashMap<&str, Bucket> = HashMap::new();
        for cost in &self.0 {
            let name = cost.bucket.as_str();
            let bucket = match taken.get(name) {
                Some(bucket) => *bucket,
                None => {
                    let known = read(transaction.connection, name).await?;
                    let bucket = known.put_right(cost, transaction.now);
                    // Whether anything is taken or not.
                    if bucket != known {
                        write(transaction.connection, name, bucket).await?;
                    }
                    before.insert(name, bucket);
                    bucket
                }
            };
            match bucket.take(cost, transaction.now) {
                Ok(after) => taken.insert(name, after),
                // Nothing has been taken yet.
                Err(retry_after) => {
                    return Ok(Taken::Denied {
                        bucket: cost.bucket.clone(),
                        retry_after,
                    });
                }
            };
        }
        for (name, bucket) in taken {
            if before.get(name) != Some(&bucket) {
                write(transaction.connection, name, bucket).await?;
            }
        }
        Ok(Taken::Granted)
    }
}

/// Stops a bucket for a time; a longer stop that runs already stays.
pub(super) async fn freeze(
    transaction: &mut Transaction<'_>,
    name: &str,
    duration: Duration,
) -> Result<(), ApplyError> {
    let bucket = read(transaction.connection, name).await?;
    let frozen = bucket.freeze(duration, transaction.now);
    Ok(write(transaction.connection, name, frozen).await?)
}

/// Takes what was spent elsewhere, whatever the bucket holds.
pub(super) async fn charge(
    transaction: &mut Transaction<'_>,
    cost: &BucketCost,
) -> Result<(), ApplyError> {
    let bucket = read(transaction.connection, &cost.bucket).await?;
    let charged = bucket.charge(cost, transaction.now);
    Ok(write(transaction.connection, &cost.bucket, charged).await?)
}

/// Puts the units of a cost back.
pub(super) async fn give_back(
    transaction: &mut Transaction<'_>,
    cost: &BucketCost,
) -> Result<(), ApplyError> {
    let bucket = read(transaction.connection, &cost.bucket).await?;
    let fuller = bucket.give_back(cost);
    Ok(write(transaction.connection, &cost.bucket, fuller).await?)
}

/// Fills a bucket; a stop stays.
pub(super) async fn fill(transaction: &mut Transaction<'_>, name: &str) -> Result<(), ApplyError> {
    query("UPDATE budget SET tat = 0 WHERE bucket = ?")
        .bind(name.to_owned())
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// A page of the buckets whose keys begin with `prefix` and that are not full, or frozen.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    prefix: &str,
    request: &PageRequest,
    now: Timestamp,
) -> Result<Page<BucketRecord>, StoreError> {
    let from = request.after.as_deref().unwrap_or_default();
    let rows: Vec<(String, i64, i64)> = query_as(
        "SELECT bucket, tat, frozen_until FROM budget WHERE bucket > ?1 AND bucket >= ?2 \
         AND bucket < ?2 || char(1114111) \
         AND MAX(tat, frozen_until) > ?3 ORDER BY bucket LIMIT ?4",
    )
    .bind(from.to_owned())
    .bind(prefix.to_owned())
    .bind(now.as_millis())
    .bind(fetched(request))
    .fetch_all(connection)
    .await?;
    let record = |(name, tat, frozen_until): (String, i64, i64)| {
        let bucket = bucket((tat, frozen_until));
        BucketRecord {
            bucket: name,
            full_in: bucket.full_at.since(now),
            frozen_for: bucket.stopped_for(now),
        }
    };
    let records = rows.into_iter().map(record).collect();
    Ok(page(records, request, |record: &BucketRecord| {
        record.bucket.clone()
    }))
}

async fn read(connection: &mut SqliteConnection, name: &str) -> Result<Bucket, StoreError> {
    let found: Option<(i64, i64)> =
        query_as("SELECT tat, frozen_until FROM budget WHERE bucket = ?")
            .bind(name.to_owned())
            .fetch_optional(connection)
            .await?;
    Ok(bucket(found.unwrap_or_default()))
}

/// A row's two times.
const fn bucket((tat, frozen_until): (i64, i64)) -> Bucket {
    Bucket {
        full_at: Timestamp::from_millis(tat),
        frozen_until: Timestamp::from_millis(frozen_until),
    }
}

async fn write(
    connection: &mut SqliteConnection,
    name: &str,
    bucket: Bucket,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO budget (bucket, tat, frozen_until) VALUES (?1, ?2, ?3) \
         ON CONFLICT (bucket) DO UPDATE SET tat = ?2, frozen_until = ?3",
    )
    .bind(name.to_owned())
    .bind(bucket.full_at.as_millis())
    .bind(bucket.frozen_until.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}
