//! Names registered and removed, outside of the configuration file: written to the store with their audit events,
//! and published before the caller goes on.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::json;

use crate::base::clock::{Instant, monotonic};
use crate::certs::permission::{Register, RegisterError, Registration};
use crate::certs::resolver::Resolver;
use crate::control::publish::{PublishError, Publisher};
use crate::model::domain::{DomainState, Source};
use crate::model::{DnsName, NamePattern, TenantId, TenantScope};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{JobKey, Priority};
use crate::store::record::{AuditActor, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, Store, StoreError};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(5);
/// Attempts where others change the same name at the same time.
const ATTEMPTS: usize = 3;
/// How long a refused claim is not told again.
const REFUSAL_TOLD: Duration = Duration::from_secs(3600);
/// Refused claims that are remembered; while there are so many, further ones are not told.
const MOST_REFUSED: usize = 1000;

/// Registers and removes names. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Domains {
    store: Arc<dyn Store>,
    publisher: Publisher,
    resolver: Resolver,
    refused: Arc<Mutex<HashMap<DnsName, Instant>>>,
}

/// Why a domain was not removed.
#[derive(Clone, Debug)]
pub enum RemoveError {
    /// The tenant has no such domain.
    NotFound(NamePattern),
    /// It is declared in the configuration file, and is removed there.
    Declared(NamePattern),
    /// The store failed, or the domain changed meanwhile.
    Store(Arc<ApplyError>),
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(pattern) => write!(f, "the tenant has no domain {pattern}"),
            Self::Declared(pattern) => write!(
                f,
                "{pattern} is declared in the configuration file: remove it there and reload"
            ),
            Self::Store(_) => f.write_str("the domain could not be removed from the store"),
        }
    }
}

impl std::error::Error for RemoveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(&**error),
            Self::NotFound(_) | Self::Declared(_) => None,
        }
    }
}

impl Domains {
    /// Works on `store`, publishes by `publisher`, and forgets removed names' credentials in `resolver`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, publisher: Publisher, resolver: Resolver) -> Self {
        Self {
            store,
            publisher,
            resolver,
            refused: Arc::default(),
        }
    }

    /// [`Domains::register`] as the permission hook's callback.
    #[must_use]
    pub fn registrar(&self) -> Register {
        let domains = self.clone();
        Arc::new(move |registration| {
            let domains = domains.clone();
            async move { domains.register(registration).await }.boxed()
        })
    }

    /// Writes down a name that the hook has allowed, unless it is there already, and publishes it before this
    /// returns. A name never changes its tenant this way, and a suspended one stays suspended.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(&self, registration: Registration) -> Result<(), RegisterError> {
        let pattern = NamePattern::Exact(registration.name.clone());
        let mut last = Err(failed(StoreError::Timeout.into()));
        for _ in 0..ATTEMPTS {
            let found = self.find(&pattern).await.map_err(store_failed)?;
            last = match standing(found.as_ref(), &registration) {
                Standing::OwnedByOther => return self.refuse(registration).await,
                Standing::Suspended => return Err(RegisterError::Suspended(registration.name)),
                Standing::Registered => Ok(()),
                Standing::Wanted => self
                    .write(&pattern, &registration, found.as_ref())
                    .await
                    .map_err(failed),
            };
            match &last {
                Ok(()) => break,
                Err(RegisterError::Store(error)) if is_race(error) => {}
                Err(_) => return last,
            }
        }
        last?;
        match self.publisher.refresh(pattern.clone()).await {
            Ok(()) => Ok(()),
            Err(PublishError::Store(error)) => Err(failed(error.into())),
            // It is written, and the feed brings it into the snapshot within a second.
            Err(PublishError::Busy) => Ok(()),
        }
    }

    /// Removes a name of `tenant` that was not declared in the file: not served any more when this returns, its job
    /// gone; its certificates' records stay until upkeep destroys them.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub async fn remove(
        &self,
        actor: AuditActor,
        tenant: &TenantId,
        pattern: &NamePattern,
    ) -> Result<(), RemoveError> {
        let removal = |error: ApplyError| RemoveError::Store(Arc::new(error));
        let found = self.find(pattern).await.map_err(|e| removal(e.into()))?;
        let record = found
            .filter(|record| record.tenant == *tenant)
            .ok_or_else(|| RemoveError::NotFound(pattern.clone()))?;
        if record.source == Source::File {
            return Err(RemoveError::Declared(pattern.clone()));
        }
        let batch = Batch::new()
            .guard(Guard::DomainVersion(pattern.clone(), record.version))
            .then(Operation::DeleteDomain {
                pattern: pattern.clone(),
            })
            .audit(AuditEvent {
                owner: KeyOwner::Tenant(tenant.clone()),
                actor,
                kind: "domain.removed",
                subject: pattern.to_string(),
                detail: json!({}),
            });
        let scope = TenantScope::certificate_work(tenant.clone());
        self.store
            .apply(Deadline::after(CALL), &scope, batch)
            .await
            .map_err(removal)?;
        self.resolver.remove(pattern);
        // Not published within this call, the feed does it within a second; the name has no credential any more.
        if let Err(error) = self.publisher.refresh(pattern.clone()).await {
            tracing::warn!(domain = %pattern, %error, "a removal is published late");
        }
        Ok(())
    }

    async fn find(&self, pattern: &NamePattern) -> Result<Option<DomainRecord>, StoreError> {
        self.store
            .domain(Deadline::after(CALL), &TenantScope::upkeep(), pattern)
            .await
    }

    async fn write(
        &self,
        pattern: &NamePattern,
        registration: &Registration,
        found: Option<&DomainRecord>,
    ) -> Result<(), ApplyError> {
        let guard = match found {
            None => Guard::DomainAbsent(pattern.clone()),
            Some(record) => Guard::DomainVersion(pattern.clone(), record.version),
        };
        let mut batch = Batch::new()
            .guard(guard)
            .then(Operation::PutTenant {
                id: registration.tenant.clone(),
                source: Source::Hook,
            })
            .then(Operation::PutDomain {
                pattern: pattern.clone(),
                tenant: registration.tenant.clone(),
                source: Source::Hook,
                upstream: registration.upstream.clone(),
            });
        if let Some(record) = found.filter(|record| record.state == DomainState::Tombstoned) {
            batch = revive(batch, record);
        }
        let upstream = registration.upstream.as_ref().map(|name| name.as_str());
        let batch = batch.audit(AuditEvent {
            owner: KeyOwner::Tenant(registration.tenant.clone()),
            actor: AuditActor::Hook,
            kind: "domain.registered",
            subject: pattern.to_string(),
            detail: json!({ "upstream": upstream }),
        });
        let scope = TenantScope::certificate_work(registration.tenant.clone());
        self.store
            .apply(Deadline::after(CALL), &scope, batch)
            .await?;
        tracing::info!(
            domain = %pattern, tenant = %registration.tenant,
            "registered: the permission hook allows it"
        );
        Ok(())
    }

    /// The hook gives a name to one tenant, and another one owns it: logged, audited, refused.
    async fn refuse(&self, registration: Registration) -> Result<(), RegisterError> {
        let Registration { name, tenant, .. } = registration;
        let refused = RegisterError::OwnedByOther {
            name: name.clone(),
            wanted_by: tenant.clone(),
        };
        if !self.is_news(&name) {
            return Err(refused);
        }
        tracing::warn!(
            domain = %name, %tenant,
            "the permission hook allows the name for this tenant, but another one owns it: refused"
        );
        let batch = Batch::new().audit(AuditEvent {
            owner: KeyOwner::Platform,
            actor: AuditActor::Hook,
            kind: "domain.claim_refused",
            subject: name.to_string(),
            detail: json!({ "wanted_by": tenant }),
        });
        let scope = TenantScope::upkeep();
        if let Err(error) = self.store.apply(Deadline::after(CALL), &scope, batch).await {
            tracing::warn!(domain = %name, %error, "a refused claim is not in the audit chain");
        }
        Err(refused)
    }

    /// Whether a refusal of the name was not told lately: visitors repeat it with every handshake.
    fn is_news(&self, name: &DnsName) -> bool {
        let now = monotonic();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, until| now < *until);
        if refused.len() >= MOST_REFUSED || refused.contains_key(name) {
            return false;
        }
        refused.insert(name.clone(), now + REFUSAL_TOLD);
        true
    }
}

/// How a record stands to a registration.
enum Standing {
    OwnedByOther,
    Suspended,
    Registered,
    Wanted,
}

fn standing(found: Option<&DomainRecord>, registration: &Registration) -> Standing {
    match found {
        None => Standing::Wanted,
        Some(record) if record.tenant != registration.tenant => Standing::OwnedByOther,
        Some(record) if record.state == DomainState::Tombstoned => Standing::Wanted,
        Some(record) if !record.state.is_served() => Standing::Suspended,
        // What the file or the API registered is theirs to change.
        Some(record)
            if record.source != Source::Hook || record.upstream == registration.upstream =>
        {
            Standing::Registered
        }
        Some(_) => Standing::Wanted,
    }
}

/// Takes a retired domain back into service, with the certificate that it still has. Where it has one it gets its job at
/// once, in the same batch: the store takes away a certificate that may not serve any more, and one that was good when the
/// domain went may be due by now.
pub(super) fn revive(batch: Batch, record: &DomainRecord) -> Batch {
    let (state, job) = match record.certificate {
        Some(_) => (DomainState::Active, Some(returned_job(record))),
        None => (DomainState::PendingDns, None),
    };
    let batch = batch.then(Operation::SetDomainState {
        pattern: record.pattern.clone(),
        state,
        problem: None,
    });
    match job {
        Some(job) => batch.then(job),
        None => batch,
    }
}

/// The job that looks at a returned domain's certificate: renews it, obtains another, or waits until it is due.
fn returned_job(record: &DomainRecord) -> Operation {
    Operation::RequestJob {
        key: JobKey::Certificate(record.pattern.clone()),
        tenant: record.tenant.clone(),
        priority: Priority::Renewal,
        delay: Duration::ZERO,
        urgency: Urgency::HeedBackoff,
    }
}

/// The operation that ends a domain's issuance and renewal.
pub(super) const fn drop_job(pattern: NamePattern) -> Operation {
    Operation::DeleteJob {
        key: JobKey::Certificate(pattern),
    }
}

/// Whether somebody else changed the name between our look and our batch.
pub(super) const fn is_race(error: &ApplyError) -> bool {
    matches!(
        error,
        ApplyError::GuardFailed(_) | ApplyError::OwnedByOther { .. }
    )
}

fn failed(error: ApplyError) -> RegisterError {
    RegisterError::Store(Arc::new(error))
}

fn store_failed(error: StoreError) -> RegisterError {
    failed(error.into())
}

#[cfg(test)]
mod tests;
