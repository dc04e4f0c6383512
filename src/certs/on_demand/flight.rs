//! One name from unknown to served, or to a refusal that says why.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::base::clock::{Instant, monotonic};
use crate::certs::credential::Credential;
use crate::certs::on_demand::answer::Parts;
use crate::certs::on_demand::{Known, Origin, Refusal, Served, known};
use crate::certs::outcome::Outcome;
use crate::certs::permission::RegisterError;
use crate::certs::permission::ask::NotAllowed;
use crate::certs::resolver::Ticket;
use crate::model::domain::DomainState;
use crate::model::{DnsName, NamePattern, TenantScope};
use crate::store::batch::{Operation, Urgency};
use crate::store::job::{JobKey, JobStanding, Priority};
use crate::store::record::{DomainRecord, Resolved};
use crate::store::{Batch, Deadline};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(5);
/// How often the store is asked whether another process has obtained what is waited for.
const POLL: Duration = Duration::from_secs(1);

/// The work for one name.
pub(super) struct Flight {
    pub(super) parts: Arc<Parts>,
    pub(super) lookups: Arc<Semaphore>,
    pub(super) name: DnsName,
    /// The visitor who came first, for the permission hook.
    pub(super) client: IpAddr,
    pub(super) deadline: Instant,
}

impl Flight {
    pub(super) async fn run(&self) -> Result<Served, Refusal> {
        // Issuance is not part of this future: it goes on after the deadline.
        match tokio::time::timeout_at(self.deadline, Box::pin(self.obtain())).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Refusal::Deadline),
        }
    }

    async fn obtain(&self) -> Result<Served, Refusal> {
        let known = known(&self.parts.snapshot.load(), &self.name);
        let may_ask = match known {
            Known::Suspended => return Err(Refusal::Suspended),
            Known::Absent => {
                self.ask().await?;
                false
            }
            Known::Served | Known::Unsure => true,
        };
        let (ticket, found) = self.resolve().await?;
        let (ticket, found) = match found {
            None if may_ask => {
                self.ask().await?;
                self.resolve().await?
            }
            found => (ticket, found),
        };
        match found {
            None => Err(Refusal::UnknownName),
            Some(resolved) if !resolved.domain.state.is_served() => Err(Refusal::Suspended),
            Some(resolved) => {
                self.publish(&resolved.domain.pattern).await;
                self.serve(resolved, ticket).await
            }
        }
    }

    /// Makes sure that the visitor's requests find the name whose certificate he is about to get: not all names have been
    /// read yet, and this one may be the last.
    async fn publish(&self, pattern: &NamePattern) {
        let known = known(&self.parts.snapshot.load(), &self.name);
        match known {
            Known::Unsure => (self.parts.publish)(pattern.clone()).await,
            Known::Served | Known::Suspended | Known::Absent => {}
        }
    }

    /// Asks the permission hook, where there is one; allowed, the name is registered.
    async fn ask(&self) -> Result<(), Refusal> {
        let Some(permission) = &self.parts.permission else {
            return Err(Refusal::UnknownName);
        };
        match permission.handshake(&self.name, self.client).await {
            Ok(_tenant) => Ok(()),
            Err(NotAllowed::Denied(_)) => Err(Refusal::UnknownName),
            Err(NotAllowed::Unavailable(_)) => Err(Refusal::PermissionUnavailable),
            Err(NotAllowed::Unregistered(error)) => Err(match error {
                RegisterError::OwnedByOther { .. } => Refusal::UnknownName,
                RegisterError::Suspended(_) => Refusal::Suspended,
                RegisterError::Store(_) => {
                    tracing::warn!(domain = %self.name, %error, cause = error.source(), "handshake refused");
                    Refusal::StoreFailed
                }
            }),
        }
    }

    /// The domain that the name belongs to, with its certificate: one bounded read. A domain that is gone for good
    /// is none.
    async fn resolve(&self) -> Result<(Ticket, Option<Resolved>), Refusal> {
        let Ok(_place) = self.lookups.acquire().await else {
            return Err(Refusal::StoreFailed);
        };
        let ticket = self.parts.resolver.ticket();
        match self.parts.store.resolve(self.by(), &self.name).await {
            Ok(found) => {
                let found = found.filter(|found| !is_gone(found.domain.state));
                Ok((ticket, found))
            }
            Err(error) => {
                tracing::warn!(domain = %self.name, %error, cause = error.source(), "handshake refused");
                Err(Refusal::StoreFailed)
            }
        }
    }

    async fn serve(&self, resolved: Resolved, ticket: Ticket) -> Result<Served, Refusal> {
        match self.stored(&resolved, ticket).await? {
            Some(credential) => Ok(Served {
                credential,
                origin: Origin::Store,
            }),
            None => self.issue(&resolved.domain).await,
        }
    }

    /// The stored certificate, if there is one that has not expired. One that cannot be loaded is a failure of the
    /// store, not an absence: nothing is ordered for it.
    async fn stored(
        &self,
        resolved: &Resolved,
        ticket: Ticket,
    ) -> Result<Option<Arc<Credential>>, Refusal> {
        let now = self.parts.clock.now();
        let Some(certificate) = &resolved.certificate else {
            return Ok(None);
        };
        if certificate.facts.not_after <= now {
            return Ok(None);
        }
        let (domain, data_key) = (&resolved.domain, resolved.data_key.as_ref());
        let loaded = self
            .parts
            .loader
            .load(domain, certificate.clone(), data_key)
            .await;
        match loaded {
            Ok(credential) => {
                self.parts
                    .resolver
                    .put_loaded(&domain.pattern, &credential, ticket);
                Ok(Some(credential))
            }
            Err(error) => {
                tracing::error!(
                    domain = %domain.pattern, tenant = %domain.tenant, certificate = %certificate.facts.id,
                    %error, cause = error.source(), "a stored certificate cannot be loaded"
                );
                Err(Refusal::StoreFailed)
            }
        }
    }

    /// Requests the job and waits for its outcome.
    async fn issue(&self, domain: &DomainRecord) -> Result<Served, Refusal> {
        // Before the request, so that no outcome is missed.
        let mut outcomes = self.parts.outcomes.subscribe(&domain.pattern);
        self.request(domain).await?;
        (self.parts.nudge)();
        loop {
            let told = tokio::time::timeout(POLL, outcomes.next()).await;
            let issued = match told {
                Ok(Outcome::Issued(credential)) => Some(credential),
                Ok(Outcome::Failed(_)) => return Err(Refusal::IssuanceFailed),
                // Another process may have claimed the job; its outcome is told by the store alone.
                Err(_elapsed) => match self.resolve().await? {
                    (ticket, Some(resolved)) => self.stored(&resolved, ticket).await?,
                    (_, None) => return Err(Refusal::UnknownName),
                },
            };
            if let Some(credential) = issued
                && credential.covers(&self.name)
            {
                return Ok(Served {
                    credential,
                    origin: Origin::Issued,
                });
            }
        }
    }

    async fn request(&self, domain: &DomainRecord) -> Result<(), Refusal> {
        let batch = Batch::new().then(Operation::RequestJob {
            key: JobKey::Certificate(domain.pattern.clone()),
            tenant: domain.tenant.clone(),
            priority: Priority::Handshake,
            delay: Duration::ZERO,
            urgency: Urgency::HeedBackoff,
        });
        let scope = TenantScope::certificate_work(domain.tenant.clone());
        match self.parts.store.apply(self.by(), &scope, batch).await {
            Ok(applied) => match applied.jobs.first() {
                Some(JobStanding::BackingOff(..)) => Err(Refusal::BackingOff),
                Some(JobStanding::Queued(_) | JobStanding::Running) | None => Ok(()),
            },
            Err(error) => {
                tracing::warn!(
                    domain = %domain.pattern, tenant = %domain.tenant, %error, cause = error.source(),
                    "no certificate can be requested"
                );
                Err(Refusal::StoreFailed)
            }
        }
    }

    fn by(&self) -> Deadline {
        Deadline::after(CALL.min(self.deadline.saturating_duration_since(monotonic())))
    }
}

const fn is_gone(state: DomainState) -> bool {
    matches!(state, DomainState::Deleting | DomainState::Tombstoned)
}
