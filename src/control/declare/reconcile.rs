//! Brings the store in line with the files: reads what concerns them, applies the plan tenant by tenant, each change
//! guarded by the version it was planned on.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::base::backoff::{Backoff, jittered};
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::settings::Obtain;
use crate::control::declare::plan::{self, Step};
use crate::control::declare::{Declaration, Warning};
use crate::control::domains::{drop_job, is_race, revive};
use crate::control::publish::Publisher;
use crate::model::domain::{DomainState, Source};
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{JobKey, Priority};
use crate::store::record::{AuditActor, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, PageRequest, Store, StoreError, Unreadable};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(10);
/// Domains of one tenant changed in one batch.
const MOST_STEPS: usize = 100;
/// Tenants declared in one batch.
const MOST_TENANTS: usize = 200;
/// Between attempts while the store fails.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(200),
    factor: 2,
    most: Duration::from_secs(30),
};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Domains written: new ones, adopted ones, moved ones.
    pub written: usize,
    /// Domains retired.
    pub retired: usize,
    /// What was left out.
    pub warnings: Vec<Warning>,
}

/// Why the store is not in line with the files. What was done until then stays, and trying again does the rest.
#[derive(Clone, Debug)]
pub enum ReconcileError {
    /// It could not be read.
    Read(StoreError),
    /// A change was refused.
    Apply(Arc<ApplyError>),
}

impl fmt::Display for ReconcileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read(_) => "the stored domains could not be read",
            Self::Apply(_) => "the declared tenants and domains could not be stored",
        })
    }
}

impl std::error::Error for ReconcileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::Apply(error) => Some(&**error),
        }
    }
}

impl From<StoreError> for ReconcileError {
    fn from(error: StoreError) -> Self {
        Self::Read(error)
    }
}

impl From<ApplyError> for ReconcileError {
    fn from(error: ApplyError) -> Self {
        Self::Apply(Arc::new(error))
    }
}

/// Puts every declaration in force as it is published: its routes at once, its tenants and domains as soon as the
/// store takes them, with retries for as long as it does not. Gives the warnings of the latest one.
#[must_use]
pub fn start(
    store: Arc<dyn Store>,
    publisher: Publisher,
    declarations: &Published<Arc<Declaration>>,
    tasks: &Tasks,
) -> Published<Vec<Warning>> {
    let warnings = Published::new(Vec::new());
    let (published, declarations) = (warnings.clone(), declarations.clone());
    let mut versions = declarations.watch();
    tasks.spawn_until_cancelled("declared", async move {
        loop {
            versions.mark_unchanged();
            let declaration = Arc::clone(&declarations.get());
            if let Err(error) = publisher.declare(Arc::clone(&declaration)).await {
                tracing::error!(%error, "declared routes are not in force");
            }
            tokio::select! {
                done = until_in_line(&*store, &declaration) => published.publish(done.warnings),
                // A newer declaration replaces one that the store would not take.
                Ok(()) = versions.changed() => continue,
            }
            if versions.changed().await.is_err() {
                return;
            }
        }
    });
    warnings
}

async fn until_in_line(store: &dyn Store, declaration: &Declaration) -> Reconciled {
    let mut failures = 0;
    loop {
        match reconcile(store, declaration).await {
            Ok(done) => {
                report(&done);
                return done;
            }
            Err(error) => complain(&error),
        }
        failures += 1;
        tokio::time::sleep(jittered(RETRY.after(failures), 0.2, rand::random())).await;
    }
}

fn complain(error: &ReconcileError) {
    let cause = std::error::Error::source(error);
    tracing::warn!(%error, cause, "declared domains are tried again");
}

fn report(done: &Reconciled) {
    for warning in &done.warnings {
        tracing::warn!(
            subject = warning.subject,
            detail = warning.detail,
            "left out"
        );
    }
    if done.written + done.retired > 0 {
        tracing::info!(
            written = done.written,
            retired = done.retired,
            "domains of the files stored"
        );
    }
}

/// Brings the store's tenants and domains of source `file` in line with `declaration`.
///
/// # Errors
/// [`ReconcileError`]; what was done until then stays.
pub async fn reconcile(
    store: &dyn Store,
    declaration: &Declaration,
) -> Result<Reconciled, ReconcileError> {
    declare_tenants(store, declaration).await?;
    let (stored, unreadable) = concerned(store, declaration).await?;
    let mut plan = plan::plan(declaration, &stored);
    plan.leave_out(&unreadable);
    let mut done = Reconciled {
        warnings: plan.warnings,
        ..Reconciled::default()
    };
    let obtain = declaration.obtain;
    for steps in chunks(&plan.steps) {
        match apply(store, steps, obtain).await {
            Ok(()) => done.count(steps),
            Err(error) if is_race(&error) => one_by_one(store, steps, obtain, &mut done).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

impl Reconciled {
    fn count(&mut self, steps: &[Step]) {
        let retired = steps.iter().filter(|step| matches!(step, Step::Retire(_)));
        let retired = retired.count();
        self.retired += retired;
        self.written += steps.len() - retired;
    }
}

/// Somebody else changed one of the names: the others go on, that one is a warning.
async fn one_by_one(
    store: &dyn Store,
    steps: &[Step],
    obtain: Obtain,
    done: &mut Reconciled,
) -> Result<(), ReconcileError> {
    for step in steps {
        let one = std::slice::from_ref(step);
        match apply(store, one, obtain).await {
            Ok(()) => done.count(one),
            Err(error) if is_race(&error) => done.warnings.push(Warning {
                subject: step.pattern().to_string(),
                detail: format!(
                    "changed by somebody else at the same time ({error}): reload to try again"
                ),
            }),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Steps of one tenant together, not too many at once.
fn chunks(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    steps
        .chunk_by(|a, b| a.tenant() == b.tenant())
        .flat_map(|of_tenant| of_tenant.chunks(MOST_STEPS))
}

async fn declare_tenants(
    store: &dyn Store,
    declaration: &Declaration,
) -> Result<(), ReconcileError> {
    let scope = TenantScope::configuration();
    let mut new: HashSet<&TenantId> = declaration.tenants.iter().map(|t| &t.id).collect();
    let mut page = PageRequest::first();
    while !new.is_empty() {
        let read = store.tenants(Deadline::after(CALL), &scope, &page).await?;
        for tenant in &read.items {
            new.remove(&tenant.id);
        }
        match read.next {
            Some(next) => page = PageRequest::following(next),
            None => break,
        }
    }
    let mut new: Vec<&TenantId> = new.into_iter().collect();
    new.sort_unstable();
    for some in new.chunks(MOST_TENANTS) {
        let mut batch = Batch::new();
        for id in some {
            batch = batch
                .then(Operation::PutTenant {
                    id: (*id).clone(),
                    source: Source::File,
                })
                .audit(event(id, "tenant.declared", id.as_str()));
        }
        store.apply(Deadline::after(CALL), &scope, batch).await?;
    }
    Ok(())
}

/// The stored domains that the files declare or have declared, and those that cannot be read.
async fn concerned(
    store: &dyn Store,
    declaration: &Declaration,
) -> Result<(HashMap<NamePattern, DomainRecord>, Vec<Unreadable>), StoreError> {
    let declared: HashMap<NamePattern, ()> = declaration
        .tenants
        .iter()
        .flat_map(|tenant| tenant.domains.iter().cloned())
        .map(|pattern| (pattern, ()))
        .collect();
    let scope = TenantScope::configuration();
    let (mut found, mut unreadable) = (HashMap::new(), Vec::new());
    let mut page = PageRequest::first();
    loop {
        let read = store
            .domains(Deadline::after(CALL), &scope, None, &page)
            .await?;
        for record in read.items {
            if plan::concerns(&declared, &record) {
                found.insert(record.pattern.clone(), record);
            }
        }
        unreadable.extend(read.unreadable);
        match read.next {
            Some(next) => page = PageRequest::following(next),
            None => return Ok((found, unreadable)),
        }
    }
}

async fn apply(store: &dyn Store, steps: &[Step], obtain: Obtain) -> Result<(), ApplyError> {
    let batch = steps
        .iter()
        .fold(Batch::new(), |batch, step| extend(batch, step, obtain));
    let scope = TenantScope::configuration();
    store.apply(Deadline::after(CALL), &scope, batch).await?;
    Ok(())
}

fn extend(batch: Batch, step: &Step, obtain: Obtain) -> Batch {
    let name = step.pattern().to_string();
    match step {
        Step::Register { pattern, tenant } => {
            let batch = batch
                .guard(Guard::DomainAbsent(pattern.clone()))
                .then(put(pattern, tenant))
                .audit(event(tenant, "domain.registered", &name));
            with_first_job(batch, pattern, tenant, obtain)
        }
        Step::Adopt(record) => {
            let mut batch = batch
                .guard(unchanged(record))
                .then(put(&record.pattern, &record.tenant))
                .audit(event(&record.tenant, "domain.registered", &name));
            if record.state == DomainState::Tombstoned {
                batch = revive(batch, record);
            }
            // Where there is a certificate, its job is there already, or came with the revival.
            match record.certificate {
                Some(_) => batch,
                None => with_first_job(batch, &record.pattern, &record.tenant, obtain),
            }
        }
        Step::Move { from, tenant } => {
            let batch = batch
                .guard(unchanged(from))
                .then(Operation::DeleteDomain {
                    pattern: from.pattern.clone(),
                })
                .then(put(&from.pattern, tenant))
                .audit(event(&from.tenant, "domain.removed", &name))
                .audit(event(tenant, "domain.registered", &name));
            with_first_job(batch, &from.pattern, tenant, obtain)
        }
        Step::Retire(record) => batch
            .guard(unchanged(record))
            .then(Operation::SetDomainState {
                pattern: record.pattern.clone(),
                state: DomainState::Tombstoned,
                problem: None,
            })
            .then(drop_job(record.pattern.clone()))
            .audit(event(&record.tenant, "domain.retired", &name)),
    }
}

fn unchanged(record: &DomainRecord) -> Guard {
    Guard::DomainVersion(record.pattern.clone(), record.version)
}

fn put(pattern: &NamePattern, tenant: &TenantId) -> Operation {
    Operation::PutDomain {
        pattern: pattern.clone(),
        tenant: tenant.clone(),
        source: Source::File,
        upstream: None,
    }
}

/// With the job that obtains a name's first certificate, unless its first visitor is waited for.
fn with_first_job(batch: Batch, pattern: &NamePattern, tenant: &TenantId, obtain: Obtain) -> Batch {
    match obtain {
        Obtain::AtFirstVisit => batch,
        Obtain::AtOnce => batch.then(Operation::RequestJob {
            key: JobKey::Certificate(pattern.clone()),
            tenant: tenant.clone(),
            priority: Priority::Background,
            delay: Duration::ZERO,
            urgency: Urgency::HeedBackoff,
        }),
    }
}

fn event(tenant: &TenantId, kind: &'static str, subject: &str) -> AuditEvent {
    AuditEvent {
        owner: KeyOwner::Tenant(tenant.clone()),
        actor: AuditActor::Configuration,
        kind,
        subject: subject.to_owned(),
        detail: json!({}),
    }
}

#[cfg(test)]
mod tests;
