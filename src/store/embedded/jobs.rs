//! Jobs: asked for, listed, ended. Claiming them is in [`super::claims`].

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use crate::base::clock::Timestamp;
use crate::model::certificate::CaId;
use crate::model::problem::Problem;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{ApplyError, JobOutcome, Urgency};
use crate::store::embedded::rows::{
    column, fetched, of_row, page, page_of_rows, problem, problem_text, tenant, time, unsigned,
};
use crate::store::embedded::transaction::{Transaction, check_owner, check_scope};
use crate::store::embedded::{certificates, domains};
use crate::store::error::StoreError;
use crate::store::job::{JobKey, JobKind, JobRecord, JobStanding, OrderKey, Priority, SavedOrder};
use crate::store::record::KeyOwner;
use crate::store::{Page, PageRequest};

/// A lease that ends later was taken while the clock was ahead: nobody holds it.
const LONGEST_LEASE: Duration = Duration::from_secs(86_400);
/// A request is held back for no longer: what ends later was written while the clock was ahead.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2 * 86_400);

/// A job's row.
#[derive(Debug)]
pub(super) struct JobRow {
    pub(super) key: String,
    pub(super) tenant: Option<TenantId>,
    pub(super) priority: Priority,
    pub(super) run_at: Timestamp,
    /// Until when requests are held back.
    pub(super) not_before: Timestamp,
    pub(super) fence: u64,
    /// Set while it is claimed, even after its lease has ended.
    pub(super) nonce: Option<Vec<u8>>,
    pub(super) lease_until: Option<Timestamp>,
    pub(super) failures: u32,
    pub(super) problem: Option<Problem>,
    pub(super) order: Option<SavedOrder>,
}

impl JobRow {
    /// Reads a row with all columns.
    pub(super) fn read(row: &SqliteRow) -> Result<Self, StoreError> {
        let text: &str = column(row, "job_key")?;
        key(text)?;
        of_row(format_args!("job {text}"), Self::read_columns(row))
    }

    fn read_columns(row: &SqliteRow) -> Result<Self, StoreError> {
        let tenant = match column::<Option<&str>, _>(row, "tenant_id")? {
            Some(_) => Some(tenant(row, "tenant_id")?),
            None => None,
        };
        let lease: Option<i64> = column(row, "lease_until")?;
        Ok(Self {
            key: column(row, "job_key")?,
            tenant,
            priority: priority(column(row, "priority")?)?,
            run_at: time(row, "run_at")?,
            not_before: time(row, "not_before")?,
            fence: unsigned(row, "fence")?,
            nonce: column(row, "nonce")?,
            lease_until: lease.map(Timestamp::from_millis),
            failures: unsigned(row, "failures")?,
            problem: problem(row, "problem")?,
            order: order(row)?,
        })
    }

    /// Whether a node works on it as far as we know.
    fn is_leased(&self, now: Timestamp) -> bool {
        let most = now.plus(LONGEST_LEASE);
        self.lease_until
            .is_some_and(|until| until > now && until <= most)
    }

    fn owner(&self) -> KeyOwner {
        self.tenant
            .clone()
            .map_or(KeyOwner::Platform, KeyOwner::Tenant)
    }

    fn standing(&self, now: Timestamp) -> JobStanding {
        let wait = self.run_at.since(now);
        if self.is_leased(now) {
            JobStanding::Running
        } else if self.not_before > now {
            JobStanding::BackingOff(wait, self.problem.clone())
        } else {
            JobStanding::Queued(wait)
        }
    }

    fn record(self, now: Timestamp) -> JobRecord {
        JobRecord {
            leased_until: self.lease_until.filter(|until| *until > now),
            key: self.key,
            tenant: self.tenant,
            priority: self.priority,
            run_at: self.run_at,
            failures: self.failures,
            problem: self.problem,
            order_url: self.order.map(|order| order.url),
        }
    }
}

/// The value of a kind in rows.
pub(super) const fn kind_value(kind: JobKind) -> i64 {
    match kind {
        JobKind::Certificate => 0,
        JobKind::Upkeep => 1,
        JobKind::Revocation => 2,
    }
}

/// The value of a priority in rows: its place in [`Priority::ALL`].
pub(super) const fn priority_value(priority: Priority) -> i64 {
    match priority {
        Priority::Handshake => 0,
        Priority::Expiring => 1,
        Priority::Renewal => 2,
        Priority::Background => 3,
    }
}

fn priority(value: i64) -> Result<Priority, StoreError> {
    let found = usize::try_from(value)
        .ok()
        .and_then(|index| Priority::ALL.get(index));
    found
        .copied()
        .ok_or_else(|| StoreError::Corrupt(format!("a job's priority cannot be {value}")))
}

/// The key that a row's text stands for.
pub(super) fn key(text: &str) -> Result<JobKey, StoreError> {
    let read = match text.split_once(':') {
        Some(("certificate", name)) => NamePattern::parse(name).ok().map(JobKey::Certificate),
        Some(("revoke", id)) => id.parse().ok().map(JobKey::Revocation),
        Some(("upkeep", task)) => Some(JobKey::Upkeep(Arc::from(task))),
        _ => None,
    };
    read.ok_or_else(|| StoreError::Corrupt(format!("a job's key cannot be {text:?}")))
}

fn order(row: &SqliteRow) -> Result<Option<SavedOrder>, StoreError> {
    let (ca, url): (Option<&str>, Option<String>) =
        (column(row, "order_ca")?, column(row, "order_url")?);
    let sealed_key: Option<Vec<u8>> = column(row, "order_key")?;
    Ok(match (ca, url, sealed_key) {
        (Some(ca), Some(url), Some(sealed_key)) => Some(SavedOrder {
            ca: CaId::new(ca),
            url,
            sealed_key,
        }),
        (_, _, _) => None,
    })
}

/// A job's row.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    key: &JobKey,
) -> Result<Option<JobRow>, StoreError> {
    let found = query("SELECT * FROM job WHERE job_key = ?")
        .bind(key.to_string())
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(JobRow::read).transpose()
}

/// A job as listed.
pub(super) async fn find_record(
    connection: &mut SqliteConnection,
    key: &JobKey,
    now: Timestamp,
) -> Result<Option<JobRecord>, StoreError> {
    Ok(find(connection, key).await?.map(|row| row.record(now)))
}

/// A page of jobs.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    of: Option<&TenantId>,
    request: &PageRequest,
    now: Timestamp,
) -> Result<Page<JobRecord>, StoreError> {
    let rows = match of {
        Some(tenant) => {
            query("SELECT * FROM job WHERE tenant_id = ? AND job_key > ? ORDER BY job_key LIMIT ?")
                .bind(tenant.as_str().to_owned())
        }
        None => query("SELECT * FROM job WHERE job_key > ? ORDER BY job_key LIMIT ?"),
    }
    .bind(request.after.clone().unwrap_or_default())
    .bind(fetched(request))
    .fetch_all(connection)
    .await?;
    let read = |row: &SqliteRow| JobRow::read(row).map(|row| row.record(now));
    page_of_rows(&rows, request, "job_key", read)
}

/// A page of the sealed keys of a tenant's saved orders.
pub(super) async fn order_keys(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    request: &PageRequest,
) -> Result<Page<OrderKey>, StoreError> {
    let rows = query(
        "SELECT job_key, order_key FROM job WHERE tenant_id = ? AND job_key > ? \
         AND order_key IS NOT NULL ORDER BY job_key LIMIT ?",
    )
    .bind(tenant.as_str().to_owned())
    .bind(request.after.clone().unwrap_or_default())
    .bind(fetched(request))
    .fetch_all(connection)
    .await?;
    let read = |row: &SqliteRow| {
        Ok(OrderKey {
            job: key(column(row, "job_key")?)?,
            sealed_key: column(row, "order_key")?,
        })
    };
    let orders = rows.iter().map(read).collect::<Result<_, StoreError>>()?;
    Ok(page(orders, request, |order: &OrderKey| {
        order.job.to_string()
    }))
}

/// A request for a domain's or a certificate's job.
pub(super) struct Request<'a> {
    pub(super) key: &'a JobKey,
    pub(super) tenant: &'a TenantId,
    pub(super) priority: Priority,
    pub(super) delay: Duration,
    pub(super) urgency: Urgency,
}

/// See [`crate::store::batch::Operation::RequestJob`].
pub(super) async fn request(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    wanted: &Request<'_>,
) -> Result<JobStanding, ApplyError> {
    check_scope(scope, wanted.tenant)?;
    check_subject(transaction, scope, wanted).await?;
    let now = transaction.now;
    let Some(mut job) = find(transaction.connection, wanted.key).await? else {
        let tenant = Some(wanted.tenant);
        let due = (wanted.priority, now.plus(wanted.delay));
        insert(transaction, wanted.key, tenant, due).await?;
        return Ok(JobStanding::Queued(wanted.delay));
    };
    bring_forward(&mut job, wanted, now);
    query("UPDATE job SET priority = ?, run_at = ?, not_before = ? WHERE job_key = ?")
        .bind(priority_value(job.priority))
        .bind(job.run_at.as_millis())
        .bind(job.not_before.as_millis())
        .bind(job.key.clone())
        .execute(&mut *transaction.connection)
        .await?;
    Ok(job.standing(now))
}

/// What the job is about must be there and be the tenant's.
async fn check_subject(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    wanted: &Request<'_>,
) -> Result<(), ApplyError> {
    match wanted.key {
        JobKey::Certificate(pattern) => {
            let domain = domains::require(transaction.connection, scope, pattern).await?;
            if domain.tenant != *wanted.tenant {
                return Err(ApplyError::OwnedByOther {
                    pattern: pattern.clone(),
                    wanted_by: wanted.tenant.clone(),
                });
            }
        }
        JobKey::Revocation(id) => {
            let found = certificates::names(transaction.connection, *id).await?;
            found
                .filter(|(tenant, _)| tenant == wanted.tenant)
                .ok_or_else(|| ApplyError::Missing(format!("certificate {id}")))?;
        }
        JobKey::Upkeep(_) => return Err(ApplyError::OutOfScope(KeyOwner::Platform)),
    }
    Ok(())
}

fn bring_forward(job: &mut JobRow, wanted: &Request<'_>, now: Timestamp) {
    // What is held back for a bulk request need not be for a visitor.
    let held_for_less = job.failures == 0 && wanted.priority < job.priority;
    let is_leased = job.is_leased(now);
    if !is_leased && (wanted.urgency == Urgency::Now || held_for_less) {
        job.not_before = Timestamp::EPOCH;
    }
    // Who is told to wait does not wait here: the next run is no more urgent for it.
    if is_leased || job.not_before <= now {
        job.priority = job.priority.min(wanted.priority);
    }
    if is_leased {
        return;
    }
    let held_back = job.not_before.min(now.plus(LONGEST_BACK_OFF));
    let earliest = now.plus(wanted.delay).max(held_back);
    job.run_at = job.run_at.min(earliest);
}

/// See [`crate::store::batch::Operation::RequestUpkeep`].
pub(super) async fn request_upkeep(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    task: &Arc<str>,
    delay: Duration,
) -> Result<(), ApplyError> {
    check_owner(scope, &KeyOwner::Platform)?;
    let key = JobKey::Upkeep(Arc::clone(task));
    let due = (Priority::Background, transaction.now.plus(delay));
    insert(transaction, &key, None, due).await
}

async fn insert(
    transaction: &mut Transaction<'_>,
    key: &JobKey,
    tenant: Option<&TenantId>,
    (priority, run_at): (Priority, Timestamp),
) -> Result<(), ApplyError> {
    query(
        "INSERT INTO job (job_key, kind, tenant_id, priority, run_at, not_before, fence, failures) \
         VALUES (?, ?, ?, ?, ?, 0, 0, 0) ON CONFLICT DO NOTHING",
    )
    .bind(key.to_string())
    .bind(kind_value(key.kind()))
    .bind(tenant.map(|tenant| tenant.as_str().to_owned()))
    .bind(priority_value(priority))
    .bind(run_at.as_millis())
    .execute(&mut *transaction.connection)
    .await?;
    Ok(())
}

/// The job, which must exist and lie within `scope`.
async fn require(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    key: &JobKey,
) -> Result<JobRow, ApplyError> {
    let found = find(transaction.connection, key).await?;
    let job = found.ok_or_else(|| ApplyError::Missing(format!("job {key}")))?;
    check_owner(scope, &job.owner())?;
    Ok(job)
}

/// Keeps the order of a job, or forgets it.
pub(super) async fn save_order(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    key: &JobKey,
    order: Option<&SavedOrder>,
) -> Result<(), ApplyError> {
    let job = require(transaction, scope, key).await?;
    query("UPDATE job SET order_ca = ?, order_url = ?, order_key = ? WHERE job_key = ?")
        .bind(order.map(|order| order.ca.as_str().to_owned()))
        .bind(order.map(|order| order.url.clone()))
        .bind(order.map(|order| order.sealed_key.clone()))
        .bind(job.key)
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// Ends a run. The claim ends with it.
pub(super) async fn finish(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    key: &JobKey,
    outcome: &JobOutcome,
    next: Duration,
) -> Result<(), ApplyError> {
    let mut job = require(transaction, scope, key).await?;
    job.run_at = transaction.now.plus(next);
    match outcome {
        JobOutcome::Done => {
            job.failures = 0;
            job.problem = None;
            job.order = None;
            job.not_before = Timestamp::EPOCH;
            job.priority = Priority::Renewal;
        }
        JobOutcome::Failed(problem) => {
            job.failures = job.failures.saturating_add(1);
            job.problem = Some(problem.clone());
            job.not_before = job.run_at;
            job.priority = job.priority.max(Priority::Renewal);
        }
        JobOutcome::Deferred => {}
        JobOutcome::Held(problem) => {
            job.problem = Some(problem.clone());
            job.not_before = job.run_at;
        }
    }
    let statement = match job.order {
        Some(_) => {
            "UPDATE job SET holder = NULL, nonce = NULL, lease_until = NULL, run_at = ?, not_before = ?, \
             priority = ?, failures = ?, problem = ? WHERE job_key = ?"
        }
        None => {
            "UPDATE job SET holder = NULL, nonce = NULL, lease_until = NULL, order_ca = NULL, \
             order_url = NULL, order_key = NULL, run_at = ?, not_before = ?, priority = ?, failures = ?, \
             problem = ? WHERE job_key = ?"
        }
    };
    query(statement)
        .bind(job.run_at.as_millis())
        .bind(job.not_before.as_millis())
        .bind(priority_value(job.priority))
        .bind(i64::from(job.failures))
        .bind(problem_text(job.problem.as_ref()))
        .bind(job.key)
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// Removes a job. Nothing changes where it does not exist.
pub(super) async fn delete(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    key: &JobKey,
) -> Result<(), ApplyError> {
    let Some(job) = find(transaction.connection, key).await? else {
        return Ok(());
    };
    check_owner(scope, &job.owner())?;
    query("DELETE FROM job WHERE job_key = ?")
        .bind(job.key)
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}
