//! What a caller may set in motion. Each action leaves an audit event.

pub mod certificates;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::base::clock::Clock;
use crate::certs::accounts::Accounts;
use crate::control::caller::Grant;
use crate::control::drill::{Drilled, Drills};
use crate::control::imports::Imports;
use crate::control::keys::Keys;
use crate::model::standing::{CertificateStanding, Replace};
use crate::model::{NamePattern, TenantId};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{JobKey, Priority};
use crate::store::record::{CertificateRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, Store, StoreError};

pub use crate::store::job::JobStanding;

/// For one call of the store.
const CALL: Duration = Duration::from_secs(10);

/// Reads the configuration again and swaps it in. Given by the composition root.
pub type Reload =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Reloaded, ReloadRefused>> + Send + Sync>;

/// Wakes those who work on jobs. Given by the composition root.
pub type Nudge = Arc<dyn Fn() + Send + Sync>;

/// A reload that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What was left out, each in a sentence: an included file with mistakes, a row that cannot be used.
    pub warnings: Vec<String>,
    /// Keys whose change needs a restart, and so is not in force.
    pub needs_restart: Vec<String>,
}

/// A reload that was refused: the old configuration stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadRefused {
    /// Every mistake, with its place.
    pub mistakes: Vec<String>,
}

/// Acts for callers: nothing is done without a grant. Cheap to clone.
#[derive(Clone)]
pub struct Actions {
    store: Arc<dyn Store>,
    clock: Clock,
    reload: Reload,
    nudge: Nudge,
    imports: Option<Imports>,
    accounts: Option<Accounts>,
    keys: Option<Keys>,
    drills: Option<Drills>,
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions").finish_non_exhaustive()
    }
}

/// Why an action was not done.
#[derive(Clone, Debug)]
pub enum ActionError {
    /// No such thing, or none within the caller's reach.
    NotFound(String),
    /// What it acts on is being changed by somebody else: try again.
    Conflict(String),
    /// The domain is in a state in which nothing is obtained for it.
    NotServed(String),
    /// What is there does not allow it; the text says what is in the way.
    NotPossible(String),
    /// The configuration has mistakes.
    Refused(ReloadRefused),
    /// A certification authority did not do what was asked, and says why.
    Authority(String),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) => write!(f, "there is no {what}"),
            Self::Conflict(what) => write!(f, "{what} was changed meanwhile: try again"),
            Self::NotServed(why) | Self::NotPossible(why) | Self::Authority(why) => {
                f.write_str(why)
            }
            Self::Refused(refused) => write!(
                f,
                "the configuration has {} mistakes; the old one stays in force",
                refused.mistakes.len()
            ),
            Self::Store(_) => f.write_str("the store failed"),
        }
    }
}

impl std::error::Error for ActionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::NotFound(_)
            | Self::Conflict(_)
            | Self::NotServed(_)
            | Self::Authority(_)
            | Self::NotPossible(_)
            | Self::Refused(_) => None,
        }
    }
}

impl Actions {
    /// Over the store, with ways to read the configuration again and to wake those who work on jobs.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, reload: Reload, nudge: Nudge) -> Self {
        Self {
            store,
            clock,
            reload,
            nudge,
            imports: None,
            accounts: None,
            keys: None,
            drills: None,
        }
    }

    /// Changes the keys of accounts with authorities too.
    #[must_use]
    pub fn with_accounts(mut self, accounts: Accounts) -> Self {
        self.accounts = Some(accounts);
        self
    }

    /// The accounts with authorities, where this process has them.
    pub(in crate::control) const fn accounts(&self) -> Option<&Accounts> {
        self.accounts.as_ref()
    }

    pub(in crate::control) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Holds drills too.
    #[must_use]
    pub fn with_drills(mut self, drills: Drills) -> Self {
        self.drills = Some(drills);
        self
    }

    /// Holds a drill; see [`Drills::hold`].
    ///
    /// # Errors
    /// [`ActionError`].
    pub async fn drill(&self, grant: &Grant, rate: Option<f64>) -> Result<Drilled, ActionError> {
        let missing = || ActionError::NotFound("drill in this process".to_owned());
        self.drills
            .as_ref()
            .ok_or_else(missing)?
            .hold(grant, rate)
            .await
    }

    /// Takes imports too.
    #[must_use]
    pub fn with_imports(mut self, imports: Imports) -> Self {
        self.imports = Some(imports);
        self
    }

    /// Exchanges and destroys keys too.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// What exchanges and destroys keys, where this process does.
    #[must_use]
    pub const fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// What takes imports, where this process does.
    #[must_use]
    pub const fn imports(&self) -> Option<&Imports> {
        self.imports.as_ref()
    }

    /// Asks for a domain's certificate now: a back-off is forgotten, the count of failures is not, and a certificate
    /// that is good yet is renewed early. Does not wait for the outcome.
    ///
    /// # Errors
    /// [`ActionError`].
    pub async fn retry(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<JobStanding, ActionError> {
        let by = Deadline::after(CALL);
        let found = self.store.domain(by, grant.scope(), pattern).await;
        let domain = found
            .map_err(ActionError::Store)?
            .ok_or_else(|| ActionError::NotFound(format!("domain {pattern}")))?;
        if !domain.state.is_served() {
            let why = format!(
                "domain {pattern} is {}: nothing is obtained for it",
                domain.state
            );
            return Err(ActionError::NotServed(why));
        }
        let certificate = match domain.certificate {
            Some(id) => self.store.certificate(by, grant.scope(), id).await,
            None => Ok(None),
        };
        let certificate = certificate.map_err(ActionError::Store)?;
        let batch = replace_early(certificate, retry_batch(grant, pattern, &domain.tenant));
        let applied = self.store.apply(by, grant.scope(), batch).await;
        let mut standings = applied.map_err(|error| action_error(error, pattern))?.jobs;
        (self.nudge)();
        tracing::info!(domain = %pattern, tenant = %domain.tenant, "retry requested");
        Ok(standings
            .pop()
            .unwrap_or(JobStanding::Queued(Duration::ZERO)))
    }

    /// Reads the configuration again. One that has mistakes changes nothing.
    ///
    /// # Errors
    /// [`ActionError::Refused`] holds every mistake.
    pub async fn reload(&self, grant: &Grant) -> Result<Reloaded, ActionError> {
        let event = AuditEvent {
            owner: KeyOwner::Platform,
            actor: grant.actor().clone(),
            kind: "configuration.reload_requested",
            subject: "configuration".to_owned(),
            detail: serde_json::json!({}),
        };
        let by = Deadline::after(CALL);
        match self
            .store
            .apply(by, grant.scope(), Batch::new().audit(event))
            .await
        {
            Ok(_) => {}
            // A store in trouble may be what the new configuration repairs.
            Err(error) => tracing::warn!(%error, "reload is not in the audit chain"),
        }
        (self.reload)().await.map_err(ActionError::Refused)
    }
}

/// Notes with a certificate that it is to be replaced though it is good, unless that is so already.
fn replace_early(certificate: Option<CertificateRecord>, batch: Batch) -> Batch {
    let Some(record) = certificate.filter(|record| record.standing.replace.is_none()) else {
        return batch;
    };
    let standing = CertificateStanding {
        replace: Some(Replace::Asked),
        ..record.standing.clone()
    };
    batch
        .guard(Guard::StandingIs(
            record.facts.id,
            Box::new(record.standing),
        ))
        .then(Operation::SetCertificateStanding {
            certificate: record.facts.id,
            standing: Box::new(standing),
        })
}

fn retry_batch(grant: &Grant, pattern: &NamePattern, tenant: &TenantId) -> Batch {
    Batch::new()
        .guard(Guard::DomainOwnedBy(pattern.clone(), tenant.clone()))
        .then(Operation::RequestJob {
            key: JobKey::Certificate(pattern.clone()),
            tenant: tenant.clone(),
            priority: Priority::Expiring,
            delay: Duration::ZERO,
            urgency: Urgency::Now,
        })
        .audit(AuditEvent {
            owner: KeyOwner::Tenant(tenant.clone()),
            actor: grant.actor().clone(),
            kind: "domain.retry_requested",
            subject: pattern.to_string(),
            detail: serde_json::json!({}),
        })
}

fn action_error(error: ApplyError, pattern: &NamePattern) -> ActionError {
    match error {
        ApplyError::Store(error) => ActionError::Store(error),
        ApplyError::GuardFailed(_) | ApplyError::OwnedByOther { .. } => {
            ActionError::Conflict(format!("domain {pattern}"))
        }
        ApplyError::NotUsable(id) => ActionError::NotPossible(format!(
            "certificate {id} cannot serve any more: it is revoked or about to be, or its key is destroyed"
        )),
        ApplyError::Missing(what) => ActionError::NotFound(what),
        ApplyError::OutOfScope(_) => ActionError::NotFound(format!("domain {pattern}")),
    }
}
