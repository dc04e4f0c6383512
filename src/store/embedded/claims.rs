//! Claims on jobs: a counter that grows, a nonce, and a lease on the store's clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query, query_as, query_scalar};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::store::embedded::jobs::{self, JobRow, kind_value, priority_value};
use crate::store::embedded::rows::{column, signed};
use crate::store::embedded::transaction::Transaction;
use crate::store::embedded::writer::Change;
use crate::store::error::StoreError;
use crate::store::job::{
    Backlog, Claim, ClaimRequest, ClaimedJob, Claims, Held, JobKind, Pace, Priority, Waiting,
};

/// Jobs that one call claims at most.
const MOST: usize = 1000;
/// Tenants that one call looks at for each priority, whether they have due jobs or not.
const MOST_TURNS: usize = 64;
/// For how long a due job is put off that cannot be read.
const UNREADABLE: Duration = Duration::from_hours(24);
/// Behind every tenant's slug.
const LAST: &str = "\u{7f}";

/// See [`crate::store::Store::claim`].
pub(super) struct ClaimJobs {
    pub(super) request: ClaimRequest,
    pub(super) turns: Turns,
}

impl Change for ClaimJobs {
    type Output = Claims;
    type Error = StoreError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<Claims, StoreError> {
        let request = &self.request;
        let mut claims = Claims::default();
        for priority in Priority::ALL {
            let room = request.most.min(MOST).saturating_sub(claims.jobs.len());
            let room = match request.paces.of(priority) {
                Pace::Free => room,
                Pace::One => room.min(1),
                Pace::None => 0,
            };
            if room == 0 {
                continue;
            }
            let due = Due {
                kind: request.kind,
                priority,
            };
            for job in due.in_turn(transaction, &self.turns, room).await? {
                claims.jobs.push(claim(transaction, request, job).await?);
            }
        }
        let next = next_due(transaction.connection, request).await?;
        claims.next_due = next.map(|at| at.since(transaction.now));
        Ok(claims)
    }
}

/// The due jobs of one priority. A claimed job is due when its lease ends, for that is its `run_at`.
struct Due {
    kind: JobKind,
    priority: Priority,
}

impl Due {
    /// At most `most` of them. Where more are due, tenants take turns, each with its oldest job, from the tenant on
    /// whose turn would be next: one with a million waiting jobs delays nobody.
    async fn in_turn(
        &self,
        transaction: &mut Transaction<'_>,
        turns: &Turns,
        most: usize,
    ) -> Result<Vec<JobRow>, StoreError> {
        let mut oldest = self.oldest(transaction, most.saturating_add(1)).await?;
        if oldest.len() <= most {
            return Ok(oldest);
        }
        let mut chosen: Vec<JobRow> = Vec::with_capacity(most);
        let start = turns.last(self);
        let mut last = start.clone();
        let mut until = LAST.to_owned();
        for _ in 0..MOST_TURNS {
            if chosen.len() >= most {
                break;
            }
            let next = self.next_tenant(transaction, &last, &until).await?;
            match next {
                Some(tenant) => {
                    chosen.extend(self.oldest_of(transaction, &tenant).await?);
                    last = tenant;
                }
                // Once round, back to where the turns began.
                None if until == LAST => (last, until) = (String::new(), start.clone()),
                None => break,
            }
        }
        turns.note(self, last);
        // Few tenants: the rest goes by age.
        oldest.retain(|job| chosen.iter().all(|other| other.key != job.key));
        oldest.truncate(most.saturating_sub(chosen.len()));
        chosen.extend(oldest);
        Ok(chosen)
    }

    async fn oldest(
        &self,
        transaction: &mut Transaction<'_>,
        most: usize,
    ) -> Result<Vec<JobRow>, StoreError> {
        let rows = query(
            "SELECT * FROM job WHERE kind = ? AND priority = ? AND run_at <= ? ORDER BY run_at LIMIT ?",
        )
        .bind(kind_value(self.kind))
        .bind(priority_value(self.priority))
        .bind(transaction.now.as_millis())
        .bind(signed(most as u64))
        .fetch_all(&mut *transaction.connection)
        .await?;
        let mut readable = Vec::with_capacity(rows.len());
        for row in &rows {
            readable.extend(readable_or_put_off(transaction, row).await?);
        }
        Ok(readable)
    }

    /// The first tenant after one and up to another that has jobs of the priority, due or not.
    async fn next_tenant(
        &self,
        transaction: &mut Transaction<'_>,
        after: &str,
        until: &str,
    ) -> Result<Option<String>, StoreError> {
        let next = query_scalar(
            "SELECT tenant_id FROM job WHERE kind = ? AND priority = ? AND tenant_id > ? \
             AND tenant_id <= ? ORDER BY tenant_id LIMIT 1",
        )
        .bind(kind_value(self.kind))
        .bind(priority_value(self.priority))
        .bind(after.to_owned())
        .bind(until.to_owned())
        .fetch_optional(&mut *transaction.connection)
        .await?;
        Ok(next)
    }

    async fn oldest_of(
        &self,
        transaction: &mut Transaction<'_>,
        tenant: &str,
    ) -> Result<Option<JobRow>, StoreError> {
        let row = query(
            "SELECT * FROM job WHERE kind = ? AND priority = ? AND tenant_id = ? AND run_at <= ? \
             ORDER BY run_at LIMIT 1",
        )
        .bind(kind_value(self.kind))
        .bind(priority_value(self.priority))
        .bind(tenant.to_owned())
        .bind(transaction.now.as_millis())
        .fetch_optional(&mut *transaction.connection)
        .await?;
        match row {
            Some(row) => readable_or_put_off(transaction, &row).await,
            None => Ok(None),
        }
    }
}

/// A due job. One that cannot be read is put off, for it would be the oldest for ever and no job behind it be claimed.
async fn readable_or_put_off(
    transaction: &mut Transaction<'_>,
    row: &SqliteRow,
) -> Result<Option<JobRow>, StoreError> {
    let why = match JobRow::read(row) {
        Ok(job) => return Ok(Some(job)),
        Err(StoreError::Corrupt(why)) => why,
        Err(error) => return Err(error),
    };
    let key: String = column(row, "job_key")?;
    tracing::error!(
        job = key,
        error = why,
        "a stored job cannot be read: it is left out and looked at again in a day"
    );
    query("UPDATE job SET run_at = ? WHERE job_key = ?")
        .bind(transaction.now.plus(UNREADABLE).as_millis())
        .bind(key)
        .execute(&mut *transaction.connection)
        .await?;
    Ok(None)
}

/// Whose turn was last, of each kind and priority: a courtesy of this process, which needs not survive it.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<(JobKind, Priority), String>>>);

impl Turns {
    fn last(&self, due: &Due) -> String {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = turns.get(&(due.kind, due.priority));
        last.cloned().unwrap_or_default()
    }

    fn note(&self, due: &Due, tenant: String) {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.insert((due.kind, due.priority), tenant);
    }
}

async fn claim(
    transaction: &mut Transaction<'_>,
    request: &ClaimRequest,
    job: JobRow,
) -> Result<ClaimedJob, StoreError> {
    let claim = Claim {
        key: jobs::key(&job.key)?,
        counter: job.fence.saturating_add(1),
        nonce: Uuid::new_v4(),
    };
    query(
        "UPDATE job SET holder = ?, nonce = ?, fence = ?, lease_until = ?5, run_at = ?5 WHERE job_key = ?4",
    )
    .bind(request.holder.as_bytes().to_vec())
    .bind(claim.nonce.as_bytes().to_vec())
    .bind(signed(claim.counter))
    .bind(job.key)
    .bind(transaction.now.plus(request.lease).as_millis())
    .execute(&mut *transaction.connection)
    .await?;
    Ok(ClaimedJob {
        claim,
        tenant: job.tenant,
        priority: job.priority,
        failures: job.failures,
        order: job.order,
        problem: job.problem,
    })
}

/// When the next job is due that would be taken, the ends of leases included.
async fn next_due(
    connection: &mut SqliteConnection,
    request: &ClaimRequest,
) -> Result<Option<Timestamp>, StoreError> {
    let mut next = None;
    for priority in Priority::ALL {
        if request.paces.of(priority) != Pace::Free {
            continue;
        }
        let first: Option<i64> = query_scalar(
            "SELECT run_at FROM job WHERE kind = ? AND priority = ? ORDER BY run_at LIMIT 1",
        )
        .bind(kind_value(request.kind))
        .bind(priority_value(priority))
        .fetch_optional(&mut *connection)
        .await?;
        let first = first.map(Timestamp::from_millis);
        next = next.into_iter().chain(first).min();
    }
    Ok(next)
}

/// See [`crate::store::Store::extend`].
pub(super) struct ExtendLease {
    pub(super) claim: Claim,
    pub(super) lease: Duration,
}

impl Change for ExtendLease {
    type Output = Held;
    type Error = StoreError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<Held, StoreError> {
        let done = query(
            "UPDATE job SET lease_until = ?1, run_at = ?1 WHERE job_key = ?2 AND fence = ?3 AND nonce = ?4",
        )
        .bind(transaction.now.plus(self.lease).as_millis())
        .bind(self.claim.key.to_string())
        .bind(signed(self.claim.counter))
        .bind(self.claim.nonce.as_bytes().to_vec())
        .execute(&mut *transaction.connection)
        .await?;
        Ok(match done.rows_affected() {
            0 => Held::Lost,
            _ => Held::Ours,
        })
    }
}

/// See [`crate::store::Store::release`].
pub(super) struct ReleaseJobs(pub(super) Uuid);

impl Change for ReleaseJobs {
    type Output = u64;
    type Error = StoreError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        let done = query(
            "UPDATE job SET holder = NULL, nonce = NULL, lease_until = NULL, run_at = MIN(run_at, ?) \
             WHERE holder = ?",
        )
        .bind(transaction.now.as_millis())
        .bind(self.0.as_bytes().to_vec())
        .execute(&mut *transaction.connection)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Due jobs, counted in the index that claims go by.
pub(super) async fn backlog(
    connection: &mut SqliteConnection,
    kind: JobKind,
    now: Timestamp,
) -> Result<Backlog, StoreError> {
    let mut backlog = Backlog::default();
    for priority in Priority::ALL {
        let (due, first): (i64, Option<i64>) = query_as(
            "SELECT COUNT(*), MIN(run_at) FROM (SELECT run_at FROM job \
             WHERE kind = ?1 AND priority = ?2 AND run_at <= ?3 ORDER BY run_at LIMIT ?4)",
        )
        .bind(kind_value(kind))
        .bind(priority_value(priority))
        .bind(now.as_millis())
        .bind(i64::from(Backlog::MOST))
        .fetch_one(&mut *connection)
        .await?;
        let waiting = Waiting {
            due: u64::try_from(due).unwrap_or_default(),
            oldest: first.map_or(Duration::ZERO, |at| now.since(Timestamp::from_millis(at))),
        };
        backlog.set(priority, waiting);
    }
    Ok(backlog)
}

/// Whether a claim is still that of its job. The end of its lease does not matter, only that nobody has claimed since.
pub(super) async fn is_held(
    connection: &mut SqliteConnection,
    claim: &Claim,
) -> Result<bool, StoreError> {
    let job = jobs::find(connection, &claim.key).await?;
    Ok(job.is_some_and(|job| {
        job.fence == claim.counter && job.nonce.as_deref() == Some(claim.nonce.as_bytes())
    }))
}
