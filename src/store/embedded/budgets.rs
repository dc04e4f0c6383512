//! Budgets: the generic cell rate algorithm over one row a bucket.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{SqliteConnection, query, query_as};

use crate::base::clock::Timestamp;
use crate::store::batch::ApplyError;
use crate::store::budget::{BucketCost, Taken};
use crate::store::embedded::transaction::Transaction;
use crate::store::embedded::writer::Change;
use crate::store::error::StoreError;

/// A bucket's row: its theoretical arrival time, and until when it gives nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    tat: Timestamp,
    frozen_until: Timestamp,
}

impl Bucket {
    /// The bucket after `cost` was taken from it at `now`, or after how long it could be. Parts of a millisecond
    /// count as a whole one. What never fits is refused with the time that it would take.
    fn take(self, cost: &BucketCost, now: Timestamp) -> Result<Self, Duration> {
        if self.frozen_until > now {
            return Err(self.frozen_until.since(now));
        }
        let refill = whole_millis(cost.refill);
        let tat = self.tat.max(now).plus(refill.saturating_mul(cost.units));
        let allowed = now.plus(refill.saturating_mul(cost.capacity));
        match tat <= allowed && cost.units <= cost.capacity {
            true => Ok(Self { tat, ..self }),
            false => Err(tat.since(allowed)),
        }
    }
}

fn whole_millis(duration: Duration) -> Duration {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// See [`crate::store::Store::take`].
pub(super) struct TakeCosts(pub(super) Vec<BucketCost>);

impl Change for TakeCosts {
    type Output = Taken;
    type Error = StoreError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<Taken, StoreError> {
        let mut taken: HashMap<&str, Bucket> = HashMap::new();
        for cost in &self.0 {
            let bucket = match taken.get(cost.bucket.as_str()) {
                Some(bucket) => *bucket,
                None => read(transaction.connection, &cost.bucket).await?,
            };
            match bucket.take(cost, transaction.now) {
                Ok(after) => taken.insert(&cost.bucket, after),
                // Nothing has been written yet.
                Err(retry_after) => {
                    return Ok(Taken::Denied {
                        bucket: cost.bucket.clone(),
                        retry_after,
                    });
                }
            };
        }
        for (name, bucket) in taken {
            write(transaction.connection, name, bucket).await?;
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
    let until = transaction.now.plus(duration).max(bucket.frozen_until);
    let frozen = Bucket {
        frozen_until: until,
        ..bucket
    };
    Ok(write(transaction.connection, name, frozen).await?)
}

async fn read(connection: &mut SqliteConnection, name: &str) -> Result<Bucket, StoreError> {
    let found: Option<(i64, i64)> =
        query_as("SELECT tat, frozen_until FROM budget WHERE bucket = ?")
            .bind(name.to_owned())
            .fetch_optional(connection)
            .await?;
    let (tat, frozen_until) = found.unwrap_or_default();
    Ok(Bucket {
        tat: Timestamp::from_millis(tat),
        frozen_until: Timestamp::from_millis(frozen_until),
    })
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
    .bind(bucket.tat.as_millis())
    .bind(bucket.frozen_until.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(units: u32) -> BucketCost {
        BucketCost {
            bucket: "b".to_owned(),
            units,
            refill: Duration::from_secs(36),
            capacity: 3,
        }
    }

    #[test]
    fn a_full_bucket_gives_its_capacity_and_then_one_unit_each_refill() {
        let start = Timestamp::from_seconds(1_000_000);
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            bucket = bucket.take(&cost(1), start).unwrap();
        }
        assert_eq!(bucket.take(&cost(1), start), Err(Duration::from_secs(36)));
        let later = start.plus(Duration::from_secs(35));
        assert_eq!(bucket.take(&cost(1), later), Err(Duration::from_secs(1)));
        let refilled = start.plus(Duration::from_secs(36));
        let bucket = bucket.take(&cost(1), refilled).unwrap();
        assert!(bucket.take(&cost(1), refilled).is_err());
    }

    #[test]
    fn a_frozen_bucket_gives_nothing_until_it_thaws() {
        let now = Timestamp::from_seconds(1_000_000);
        let frozen = Bucket {
            frozen_until: now.plus(Duration::from_secs(60)),
            ..Bucket::default()
        };
        assert_eq!(frozen.take(&cost(1), now), Err(Duration::from_secs(60)));
        assert!(frozen.take(&cost(1), frozen.frozen_until).is_ok());
    }

    #[test]
    fn more_than_the_capacity_is_never_given_and_nothing_overflows() {
        let now = Timestamp::from_seconds(1_000_000);
        assert!(Bucket::default().take(&cost(4), now).is_err());
        let endless = BucketCost {
            refill: Duration::MAX,
            units: u32::MAX,
            ..cost(0)
        };
        assert!(Bucket::default().take(&endless, Timestamp::MAX).is_err());
        assert!(Bucket::default().take(&cost(0), now).is_ok());
    }
}
