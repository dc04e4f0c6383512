//! Certificates brought along with their keys: judged, sealed, stored, pointed to and served before the caller goes on.
//!
//! An imported certificate serves like an issued one, and its domain's job runs before it ends: then one is ordered, and
//! takes its place, unless another was imported before that. What is refused has changed nothing; what is there already
//! is left as it is.

pub mod bring;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::base::clock::Clock;
use crate::base::published::Published;
use crate::base::secret::Secret;
use crate::certs;
use crate::certs::accounts::{AccountError, Accounts};
use crate::certs::chain;
use crate::certs::credential::{Credential, CredentialError, key_sealed_as};
use crate::certs::import::check::{CheckError, Checked, check};
use crate::certs::import::material::{self, MaterialError};
use crate::certs::import::placement::{self, Named, PlacementError, Wish, holds};
use crate::certs::renewal;
use crate::certs::vault::{Vault, VaultError};
use crate::control::caller::Grant;
use crate::control::imports::bring::Unregistered;
use crate::control::publish::Publisher;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::{DomainState, Source};
use crate::model::revocation::RevocationReason;
use crate::model::standing::{CertificateStanding, Origin};
use crate::model::{NamePattern, TenantId};
use crate::store::batch::{AuditEvent, Guard, Operation, Urgency};
use crate::store::job::{JobKey, Priority};
use crate::store::record::{CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, PageRequest, Store, StoreError};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(10);
/// What stands in the place of the authority, where none of the configured ones issued the certificate.
const ELSEWHERE: &str = "imported";
/// Certificates of one name among which one that was revoked is looked for.
const MOST_KNOWN: usize = 100;

/// Imports certificates. Clones are the same.
#[derive(Clone, Debug)]
pub struct Imports(Arc<Parts>);

/// What importing works with.
#[derive(Debug)]
pub struct Parts {
    /// Domains and certificates.
    pub store: Arc<dyn Store>,
    /// Seals the keys.
    pub vault: Vault,
    /// Puts what was stored in force.
    pub publisher: Publisher,
    /// The time.
    pub clock: Clock,
    /// When renewals are due.
    pub certificates: Published<certs::Settings>,
    /// The authorities, for what one of them issued elsewhere.
    pub accounts: Accounts,
    /// What becomes of names of another server that nobody has registered.
    pub unregistered: Unregistered,
}

/// A certificate as it is brought.
#[derive(Clone)]
pub struct Import {
    /// The chain, PEM, leaf first.
    pub chain: Vec<u8>,
    /// Its private key, PEM.
    pub key: Secret,
    /// The tenant it is for; by default the one that owns its names.
    pub tenant: Option<TenantId>,
    /// The domains that it is to serve; by default all registered ones that it covers.
    pub domains: Vec<NamePattern>,
}

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What is known of the certificate.
    pub facts: CertificateFacts,
    /// The domains that it serves.
    pub domains: Vec<NamePattern>,
    /// Whether anything is different now.
    pub change: Change,
}

/// Whether an import has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The certificate was stored, or serves domains that it did not serve before.
    Imported,
    /// It serves all of them already.
    Unchanged,
}

impl Change {
    /// The word for it in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Why nothing was imported.
#[derive(Debug)]
pub enum ImportError {
    /// A file cannot be used.
    Material(MaterialError),
    /// The certificate is not worth serving.
    Check(CheckError),
    /// It serves nobody here.
    Placement(PlacementError),
    /// The key and the certificate are not taken by the TLS library.
    Credential(CredentialError),
    /// It is here as this certificate, whose revocation was asked for.
    Revoked(CertificateId),
    /// Its key is that of this certificate, which is revoked or about to be because others have the key.
    Compromised(CertificateId),
    /// A name was registered, removed or changed meanwhile.
    Conflict(ApplyError),
    /// The key could not be sealed.
    Vault(VaultError),
    /// The account could not be kept.
    Account(AccountError),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Material(error) => error.fmt(f),
            Self::Check(error) => error.fmt(f),
            Self::Placement(error) => error.fmt(f),
            Self::Credential(error) => error.fmt(f),
            Self::Revoked(id) => write!(
                f,
                "it is here as {id}, and is revoked or about to be: bring another, on another key"
            ),
            Self::Compromised(id) => write!(
                f,
                "its key is that of {id}, which is revoked or about to be because others have that key: bring a \
                 certificate on another key"
            ),
            Self::Conflict(_) => f.write_str("its domains were changed meanwhile: try again"),
            Self::Vault(_) => f.write_str("its private key could not be sealed"),
            Self::Account(_) => f.write_str("the account could not be kept"),
            Self::Store(_) => f.write_str("the store failed"),
        }
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Material(_)
            | Self::Check(_)
            | Self::Placement(_)
            | Self::Revoked(_)
            | Self::Compromised(_) => None,
            Self::Credential(error) => error.source(),
            Self::Conflict(error) => Some(error),
            Self::Vault(error) => Some(error),
            Self::Account(error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Where a checked certificate goes.
struct Target {
    tenant: TenantId,
    /// Those that are registered.
    domains: Vec<DomainRecord>,
    /// Names that are registered along with it.
    newcomers: Vec<NamePattern>,
    /// As declared by whom.
    source: Source,
}

impl Imports {
    /// Imports with these.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    /// Imports a certificate for domains that are registered. It serves them when this returns.
    ///
    /// # Errors
    /// [`ImportError`]; nothing has changed then.
    pub async fn certificate(
        &self,
        grant: &Grant,
        import: Import,
    ) -> Result<Imported, ImportError> {
        let chain = material::chain(&import.chain).map_err(ImportError::Material)?;
        let key = material::key(&import.key).map_err(ImportError::Material)?;
        let checked = check(&chain, key, self.0.clock.now()).map_err(ImportError::Check)?;
        let target = self.target(grant, &checked, &import).await?;
        let standing = CertificateStanding {
            origin: Origin::Imported,
            ..CertificateStanding::default()
        };
        self.take(grant, checked, target, (CaId::new(ELSEWHERE), standing))
            .await
    }

    /// Whose the certificate is, and the domains that it is to serve.
    async fn target(
        &self,
        grant: &Grant,
        checked: &Checked,
        import: &Import,
    ) -> Result<Target, ImportError> {
        let mut names = Vec::with_capacity(checked.names.len());
        for name in &checked.names {
            let held_by = self.holder(grant, name).await?;
            names.push(Named {
                name: name.clone(),
                held_by: held_by.map(|record| (record.pattern, record.tenant)),
            });
        }
        let mut wished = Vec::with_capacity(import.domains.len());
        for domain in &import.domains {
            let owner = self.domain(grant, domain).await?;
            wished.push((domain.clone(), owner.map(|record| record.tenant)));
        }
        let wish = Wish {
            tenant: import.tenant.as_ref(),
            domains: &wished,
        };
        let tenant = placement::tenant(&names, wish).map_err(ImportError::Placement)?;
        let below = self.below(grant, &checked.names, &tenant).await?;
        let domains = placement::domains(&names, &below, wish).map_err(ImportError::Placement)?;
        let mut records = Vec::with_capacity(domains.len());
        for domain in &domains {
            records.extend(self.domain(grant, domain).await?);
        }
        Ok(Target {
            tenant,
            domains: records,
            newcomers: Vec::new(),
            source: Source::Api,
        })
    }

    /// The domain under exactly this pattern, unless it is being taken down.
    async fn domain(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<Option<DomainRecord>, StoreError> {
        let by = Deadline::after(CALL);
        let found = self.0.store.domain(by, grant.scope(), pattern).await?;
        Ok(found.filter(|record| !is_gone(record.state)))
    }

    /// The domain that a name of a certificate belongs to.
    async fn holder(
        &self,
        grant: &Grant,
        name: &NamePattern,
    ) -> Result<Option<DomainRecord>, StoreError> {
        let found = self.domain(grant, name).await?;
        let NamePattern::Exact(exact) = name else {
            return Ok(found);
        };
        match (found, NamePattern::wildcard_over(exact)) {
            (None, Some(wildcard)) => self.domain(grant, &wildcard).await,
            (found, _) => Ok(found),
        }
    }

    /// The tenant's registered names below the certificate's wildcards.
    async fn below(
        &self,
        grant: &Grant,
        names: &[NamePattern],
        tenant: &TenantId,
    ) -> Result<Vec<NamePattern>, StoreError> {
        let wildcards: Vec<&NamePattern> = names.iter().filter(|name| name.is_wildcard()).collect();
        let mut below = Vec::new();
        if wildcards.is_empty() {
            return Ok(below);
        }
        let mut page = PageRequest::first();
        loop {
            let by = Deadline::after(CALL);
            let store = &self.0.store;
            let read = store
                .domains(by, grant.scope(), Some(tenant), &page)
                .await?;
            let found = read.items.into_iter().filter(|record| {
                let held = |name: &&NamePattern| holds(name, &record.pattern);
                !is_gone(record.state) && wildcards.iter().any(held)
            });
            below.extend(found.map(|record| record.pattern));
            match read.next {
                // One more than is allowed is enough to be refused.
                Some(next) if below.len() <= placement::MOST_DOMAINS => {
                    page = PageRequest::following(next);
                }
                _ => return Ok(below),
            }
        }
    }

    /// Stores what was checked, and puts it in force for its domains.
    async fn take(
        &self,
        grant: &Grant,
        checked: Checked,
        target: Target,
        (ca, standing): (CaId, CertificateStanding),
    ) -> Result<Imported, ImportError> {
        let Target {
            tenant,
            domains,
            newcomers,
            ..
        } = &target;
        let registered = domains.iter().map(|domain| &domain.pattern);
        let patterns: Vec<NamePattern> = registered.chain(newcomers).cloned().collect();
        let known = self.known(grant, &checked, domains).await?;
        let unserved = |known: &CertificateFacts| {
            let other = |domain: &DomainRecord| domain.certificate != Some(known.id);
            !newcomers.is_empty() || domains.iter().any(other)
        };
        if let Some(known) = known.as_ref().filter(|known| !unserved(known)) {
            return Ok(Imported {
                facts: known.clone(),
                domains: patterns,
                change: Change::Unchanged,
            });
        }
        self.not_revoked(grant, &checked).await?;
        let (facts, batch) = match known {
            Some(known) => (known, registered_in(Batch::new(), &target)),
            None => {
                let record = self.sealed(checked, tenant, (ca, standing)).await?;
                let facts = record.facts.clone();
                let put = Operation::PutCertificate(Box::new(record));
                (facts, registered_in(Batch::new(), &target).then(put))
            }
        };
        let batch = self.pointed(batch, &facts, &patterns);
        let batch = batch.audit(AuditEvent {
            owner: KeyOwner::Tenant(tenant.clone()),
            actor: grant.actor().clone(),
            kind: "certificate.imported",
            subject: patterns
                .first()
                .map(ToString::to_string)
                .unwrap_or_default(),
            detail: json!({
                "certificate": facts.id, "serial": facts.serial, "domains": patterns.len(),
                "not_before": facts.not_before, "not_after": facts.not_after,
            }),
        });
        let by = Deadline::after(CALL);
        let applied = self.0.store.apply(by, grant.scope(), batch).await;
        applied.map_err(refused)?;
        tracing::info!(%tenant, certificate = %facts.id, domains = patterns.len(), "certificate imported");
        self.serve(&patterns).await;
        Ok(Imported {
            facts,
            domains: patterns,
            change: Change::Imported,
        })
    }

    /// The same certificate, where one of the domains points to it already.
    async fn known(
        &self,
        grant: &Grant,
        checked: &Checked,
        domains: &[DomainRecord],
    ) -> Result<Option<CertificateFacts>, StoreError> {
        let mut ids: Vec<CertificateId> = domains.iter().filter_map(|d| d.certificate).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let by = Deadline::after(CALL);
            let found = self.0.store.certificate(by, grant.scope(), id).await?;
            if let Some(record) = found.filter(|record| record.leaf == checked.certificate) {
                return Ok(Some(record.facts));
            }
        }
        Ok(None)
    }

    /// A certificate that was revoked here does not come back as if it were another, nor a key that others have with
    /// another certificate.
    async fn not_revoked(&self, grant: &Grant, checked: &Checked) -> Result<(), ImportError> {
        let key = chain::public_key(&checked.certificate);
        for name in &checked.names {
            let by = Deadline::after(CALL);
            let (store, scope) = (&self.0.store, grant.scope());
            let found = store.certificates_of(by, scope, name, MOST_KNOWN).await?;
            for record in found {
                let id = record.facts.id;
                let reason = record
                    .standing
                    .revocation
                    .map(|revocation| revocation.reason);
                if reason.is_some() && record.leaf == checked.certificate {
                    return Err(ImportError::Revoked(id));
                }
                if reason == Some(RevocationReason::KeyCompromise)
                    && key.is_some()
                    && chain::public_key(&record.leaf) == key
                {
                    return Err(ImportError::Compromised(id));
                }
            }
        }
        Ok(())
    }

    /// The record, its key sealed with the tenant's data key.
    async fn sealed(
        &self,
        checked: Checked,
        tenant: &TenantId,
        (ca, standing): (CaId, CertificateStanding),
    ) -> Result<CertificateRecord, ImportError> {
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: tenant.clone(),
            names: checked.names,
            ca,
            serial: checked.leaf.serial,
            not_before: checked.leaf.not_before,
            not_after: checked.leaf.not_after,
        };
        let (leaf, chain) = (checked.certificate, checked.chain);
        // What does not load now would not load for a visitor either.
        Credential::from_der(facts.clone(), leaf.clone(), chain.clone(), &checked.key)
            .map_err(ImportError::Credential)?;
        let owner = KeyOwner::Tenant(tenant.clone());
        let name = key_sealed_as(&facts).unwrap_or_default();
        let sealed = self.0.vault.seal(&owner, &name, &checked.key).await;
        Ok(CertificateRecord {
            facts,
            leaf,
            chain,
            sealed_key: sealed.map_err(ImportError::Vault)?,
            standing,
            created_at: self.0.clock.now(),
        })
    }

    /// Points the domains to the certificate, and has each looked at when a renewal is due.
    fn pointed(&self, batch: Batch, facts: &CertificateFacts, domains: &[NamePattern]) -> Batch {
        let now = self.0.clock.now();
        let life = renewal::Life::new(facts, now);
        let due = renewal::due_at(&life, &self.0.certificates.load().renewal);
        let delay = renewal::wait_until(due, now);
        domains.iter().fold(batch, |batch, pattern| {
            batch
                .then(Operation::PointDomain {
                    pattern: pattern.clone(),
                    certificate: facts.id,
                })
                .then(Operation::RequestJob {
                    key: JobKey::Certificate(pattern.clone()),
                    tenant: facts.tenant.clone(),
                    priority: Priority::Renewal,
                    delay,
                    urgency: Urgency::HeedBackoff,
                })
        })
    }

    async fn serve(&self, domains: &[NamePattern]) {
        for pattern in domains {
            // Not published within this call, the feed does it within a second.
            if let Err(error) = self.0.publisher.refresh(pattern.clone()).await {
                tracing::warn!(domain = %pattern, %error, "an import is published late");
            }
        }
    }
}

/// Registers a target's newcomers, and holds the others to their tenant.
fn registered_in(batch: Batch, target: &Target) -> Batch {
    let tenant = &target.tenant;
    let batch = target.domains.iter().fold(batch, |batch, domain| {
        let owned = Guard::DomainOwnedBy(domain.pattern.clone(), tenant.clone());
        batch.guard(owned)
    });
    if target.newcomers.is_empty() {
        return batch;
    }
    let batch = batch.then(Operation::PutTenant {
        id: tenant.clone(),
        source: target.source,
    });
    target.newcomers.iter().fold(batch, |batch, pattern| {
        batch
            .guard(Guard::DomainAbsent(pattern.clone()))
            .then(Operation::PutDomain {
                pattern: pattern.clone(),
                tenant: tenant.clone(),
                source: target.source,
                upstream: None,
            })
    })
}

fn refused(error: ApplyError) -> ImportError {
    if let ApplyError::Store(error) = error {
        return ImportError::Store(error);
    }
    ImportError::Conflict(error)
}

const fn is_gone(state: DomainState) -> bool {
    matches!(state, DomainState::Deleting | DomainState::Tombstoned)
}

#[cfg(test)]
mod tests;
