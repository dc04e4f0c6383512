//! Removes what nobody needs any more, a little at a time: old feed entries, expired challenges, full budgets,
//! certificates that are long past their end and serve nothing, and private keys that are retired.

use std::sync::Arc;
use std::time::Duration;

use sqlx::query;

use crate::base::task::Tasks;
use crate::store::Deadline;
use crate::store::budget;
use crate::store::embedded::transaction::Transaction;
use crate::store::embedded::writer::Change;
use crate::store::embedded::{Parts, ballast, feed, retirement};
use crate::store::error::StoreError;

/// How long a reader of the feed may stay away without having to take a fresh copy.
const FEED_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long a certificate stays after its end: some edge may still have it in memory.
const CERTIFICATES_KEPT: Duration = Duration::from_hours(30 * 24);
/// Rows of each kind that one transaction removes at most.
const PAGE: i64 = 500;
/// How often we look.
const EVERY: Duration = Duration::from_hours(1);
/// How long one transaction may take to be done.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts the task that sweeps. It ends with the store, or with its group.
pub(super) fn start(parts: &Arc<Parts>, tasks: &Tasks) {
    let parts = Arc::downgrade(parts);
    tasks.spawn_until_cancelled("store sweep", async move {
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(parts) = parts.upgrade() else { return };
            if !parts.writer.is_running() {
                return;
            }
            ballast::keep(&parts.settings.folder);
            if let Err(error) = sweep(&parts).await {
                tracing::warn!(%error, "could not remove what is out of date; trying again later");
            }
        }
    });
}

/// Removes everything that is out of date; tells how many rows.
pub(super) async fn sweep(parts: &Parts) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let by = Deadline::after(PATIENCE);
        match parts.writer.change(by, SweepPage).await? {
            0 => return Ok(removed),
            rows => removed += rows,
        }
    }
}

struct SweepPage;

impl Change for SweepPage {
    type Output = u64;
    type Error = StoreError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        let now = transaction.now;
        let statements = [
            (
                "DELETE FROM challenge WHERE (host, token) IN \
                 (SELECT host, token FROM challenge WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
                now,
            ),
            (
                "DELETE FROM budget WHERE bucket IN (SELECT bucket FROM budget \
                 WHERE MAX(tat, frozen_until) < ? LIMIT ?)",
                now.minus(budget::KEPT),
            ),
            (
                "DELETE FROM certificate WHERE certificate_id IN (SELECT c.certificate_id FROM certificate c \
                 WHERE c.not_after < ? AND NOT EXISTS \
                 (SELECT 1 FROM domain d WHERE d.certificate_id = c.certificate_id) \
                 ORDER BY c.not_after LIMIT ?)",
                now.minus(CERTIFICATES_KEPT),
            ),
        ];
        let mut removed = feed::trim(transaction, now.minus(FEED_KEPT), PAGE).await?;
        for (statement, before) in statements {
            let done = query(statement)
                .bind(before.as_millis())
                .bind(PAGE)
                .execute(&mut *transaction.connection)
                .await?;
            removed += done.rows_affected();
        }
        Ok(removed + retirement::sweep(transaction).await?)
    }
}
