//! What another server kept, taken over: its certificates, many in a row, and its account with the authority.
//!
//! A name that is registered stays with its tenant. Others get one here: the one that the caller names, or, where the
//! permission hook speaks Caddy's protocol, a tenant of their own each, as if the hook had allowed them at their first
//! visit; it is asked again before they are renewed. Each certificate has a result of its own, and one that is left out
//! stops no other. Doing it again changes nothing.

use serde_json::json;

use crate::base::secret::Secret;
use crate::certs::accounts::Adopted;
use crate::certs::import::check::{Checked, check};
use crate::certs::import::material;
use crate::control::caller::Grant;
use crate::control::imports::{Change, ELSEWHERE, ImportError, Imports, Target, is_gone};
use crate::model::certificate::CaId;
use crate::model::domain::Source;
use crate::model::standing::{CertificateStanding, Origin};
use crate::model::{NamePattern, TenantId};
use crate::store::batch::AuditEvent;
use crate::store::record::{DomainRecord, KeyOwner};
use crate::store::{Batch, Deadline};

/// Tries of a certificate whose names change while it is taken over.
const MOST_TRIES: usize = 3;

/// What becomes of names that nobody has registered, where the caller names no tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregistered {
    /// Each becomes a tenant of its own, as the hook's plain yes would make it.
    PerName,
    /// They are left out: the hook tells the tenants of its names.
    NamedByHook,
    /// They are left out: there is no hook.
    Refused,
}

/// A certificate of another server.
#[derive(Clone)]
pub struct Brought {
    /// The chain, PEM, leaf first.
    pub chain: Secret,
    /// Its private key, PEM.
    pub key: Secret,
    /// The directory of the authority that issued it, where that is known.
    pub directory: Option<String>,
    /// The URL of the account that ordered it, where that is known.
    pub account: Option<String>,
}

/// What came of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its names, as far as they could be read.
    pub names: Vec<NamePattern>,
    /// Whose it is now.
    pub tenant: Option<TenantId>,
    /// What came of it.
    pub fate: Fate,
}

/// What came of what was brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is here now.
    Imported,
    /// It was here already.
    Unchanged,
    /// It was left out, for this reason.
    Skipped(String),
}

/// An ACME account of another server.
#[derive(Clone)]
pub struct BroughtAccount {
    /// The authority's directory.
    pub directory: String,
    /// The account's URL.
    pub url: String,
    /// Its private key, PEM.
    pub key: Secret,
}

/// Where a certificate goes, or why it is left out.
enum Place {
    Here(Target),
    Nowhere(String),
}

impl Imports {
    /// Takes over a certificate of another server, with names that nobody has registered yet. `tenant` gets those; by
    /// default it is as [`Unregistered`] says.
    ///
    /// # Errors
    /// [`ImportError`] where the store failed or the key could not be sealed; what is wrong with the certificate is its
    /// [`Fate`].
    pub async fn bring(
        &self,
        grant: &Grant,
        brought: &Brought,
        tenant: Option<&TenantId>,
    ) -> Result<Taken, ImportError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_to_bring(grant, brought, tenant).await {
                Err(ImportError::Conflict(_)) if tries < MOST_TRIES => {}
                result => return result,
            }
        }
    }

    async fn try_to_bring(
        &self,
        grant: &Grant,
        brought: &Brought,
        tenant: Option<&TenantId>,
    ) -> Result<Taken, ImportError> {
        let skipped = |names: Vec<NamePattern>, why: String| Taken {
            names,
            tenant: None,
            fate: Fate::Skipped(why),
        };
        let checked = match self.judged(brought) {
            Ok(checked) => checked,
            Err(error) => return Ok(skipped(Vec::new(), error.to_string())),
        };
        let names = checked.names.clone();
        let target = match self.place(grant, &checked, tenant).await? {
            Place::Here(target) => target,
            Place::Nowhere(why) => return Ok(skipped(names, why)),
        };
        let tenant = target.tenant.clone();
        let ca = brought.directory.as_deref();
        let ca = ca.and_then(|directory| self.0.accounts.authority_at(directory));
        let standing = CertificateStanding {
            origin: Origin::Imported,
            account: brought.account.clone(),
            ..CertificateStanding::default()
        };
        let ca = ca.unwrap_or_else(|| CaId::new(ELSEWHERE));
        let imported = match self.take(grant, checked, target, (ca, standing)).await {
            Err(error @ (ImportError::Revoked(_) | ImportError::Compromised(_))) => {
                return Ok(skipped(names, error.to_string()));
            }
            taken => taken?,
        };
        Ok(Taken {
            names,
            tenant: Some(tenant),
            fate: match imported.change {
                Change::Imported => Fate::Imported,
                Change::Unchanged => Fate::Unchanged,
            },
        })
    }

    fn judged(&self, brought: &Brought) -> Result<Checked, ImportError> {
        let chain = material::chain(brought.chain.expose()).map_err(ImportError::Material)?;
        let key = material::key(&brought.key).map_err(ImportError::Material)?;
        check(&chain, key, self.0.clock.now()).map_err(ImportError::Check)
    }

    /// The domains of a certificate's names: those that are there, and those to be registered.
    async fn place(
        &self,
        grant: &Grant,
        checked: &Checked,
        wanted: Option<&TenantId>,
    ) -> Result<Place, ImportError> {
        let nowhere = |why: String| Ok(Place::Nowhere(why));
        let (mut domains, mut newcomers) = (Vec::new(), Vec::new());
        for name in &checked.names {
            let by = Deadline::after(super::CALL);
            match self.0.store.domain(by, grant.scope(), name).await? {
                Some(record) if is_gone(record.state) => {
                    return nowhere(format!(
                        "{name} was taken down here: declare it again first"
                    ));
                }
                Some(record) => domains.push(record),
                None => match self.holder(grant, name).await? {
                    Some(wildcard) => {
                        return nowhere(format!(
                            "{name} is served as part of {}, which belongs to tenant {}",
                            wildcard.pattern, wildcard.tenant
                        ));
                    }
                    None => newcomers.push(name.clone()),
                },
            }
        }
        let tenant = match (domains.first(), newcomers.first()) {
            (Some(first), _) => first.tenant.clone(),
            (None, Some(newcomer)) => match (wanted, self.tenant_of(newcomer)) {
                (Some(tenant), _) => tenant.clone(),
                (None, Ok(tenant)) => tenant,
                (None, Err(why)) => return nowhere(why),
            },
            (None, None) => return nowhere("it has no names".to_owned()),
        };
        if let Some(other) = domains.iter().find(|domain| domain.tenant != tenant) {
            return nowhere(format!(
                "its names belong to several tenants: {tenant}, {}",
                other.tenant
            ));
        }
        if let Some(why) = self.has_newer(grant, checked, &domains).await? {
            return nowhere(why);
        }
        Ok(Place::Here(Target {
            tenant,
            domains,
            newcomers,
            source: self.source(wanted),
        }))
    }

    fn source(&self, wanted: Option<&TenantId>) -> Source {
        match wanted {
            Some(_) => Source::Api,
            None => Source::Hook,
        }
    }

    /// The tenant of a name that nobody has registered.
    fn tenant_of(&self, name: &NamePattern) -> Result<TenantId, String> {
        match (self.0.unregistered, name) {
            (Unregistered::PerName, NamePattern::Exact(name)) => Ok(TenantId::asked(name)),
            (Unregistered::PerName, NamePattern::Wildcard(_)) => Err(format!(
                "{name} is not registered, and the permission hook allows no wildcards: declare it in a [[tenant]], or \
                 give it to a tenant with --tenant"
            )),
            (Unregistered::NamedByHook, _) => Err(format!(
                "{name} is not registered, and the permission hook names its tenant: give it to one with --tenant, or \
                 let its first visitor register it"
            )),
            (Unregistered::Refused, _) => Err(format!(
                "{name} is not registered: declare it in a [[tenant]], or give it to a tenant with --tenant"
            )),
        }
    }

    /// Whether a domain is served with a certificate that begins later: one that was renewed here, mostly.
    async fn has_newer(
        &self,
        grant: &Grant,
        checked: &Checked,
        domains: &[DomainRecord],
    ) -> Result<Option<String>, ImportError> {
        let now = self.0.clock.now();
        for domain in domains {
            let Some(id) = domain.certificate else {
                continue;
            };
            let by = Deadline::after(super::CALL);
            let found = self.0.store.certificate(by, grant.scope(), id).await?;
            let Some(record) = found else { continue };
            let other = record.leaf != checked.certificate;
            let newer = record.facts.not_before >= checked.leaf.not_before;
            if other && newer && now < record.facts.not_after {
                return Ok(Some(format!(
                    "{} is served with a newer certificate",
                    domain.pattern
                )));
            }
        }
        Ok(None)
    }

    /// Takes over an account, so that renewals are placed by the account that ordered the certificates: their orders
    /// say what they replace, and an authority takes that from no other (RFC 9773 §5).
    ///
    /// An account that the authority of this directory has here already stays: two would halve what each may do.
    ///
    /// # Errors
    /// [`ImportError::Account`] where the store failed or the key could not be sealed.
    pub async fn account(
        &self,
        grant: &Grant,
        brought: &BroughtAccount,
    ) -> Result<Fate, ImportError> {
        let Ok(key) = material::key(&brought.key) else {
            return Ok(Fate::Skipped("its key cannot be read".to_owned()));
        };
        let (directory, url) = (&brought.directory, &brought.url);
        let adopted = self.0.accounts.adopt(directory, url, key).await;
        match adopted.map_err(ImportError::Account)? {
            Adopted::Now(ca) => {
                tracing::info!(%ca, account = brought.url, "account taken over");
                self.note(grant, &ca, &brought.url).await;
                Ok(Fate::Imported)
            }
            Adopted::Before(_) => Ok(Fate::Unchanged),
            Adopted::Another(ca) => Ok(Fate::Skipped(format!(
                "[[ca]] {ca} has an account already, which stays: it renews what this one ordered, without saying what \
                 that replaces"
            ))),
            Adopted::Unusable(ca) => Ok(Fate::Skipped(format!(
                "[[ca]] {ca} can use keys on P-256 only: it makes an account of its own"
            ))),
            Adopted::Nowhere => Ok(Fate::Skipped(format!(
                "no [[ca]] has the directory {}: add one, and import again",
                brought.directory
            ))),
        }
    }

    async fn note(&self, grant: &Grant, ca: &CaId, url: &str) {
        let event = AuditEvent {
            owner: KeyOwner::Platform,
            actor: grant.actor().clone(),
            kind: "ca.account_imported",
            subject: ca.to_string(),
            detail: json!({ "account": url }),
        };
        let by = Deadline::after(super::CALL);
        let batch = Batch::new().audit(event);
        if let Err(error) = self.0.store.apply(by, grant.scope(), batch).await {
            tracing::warn!(%ca, %error, "an imported account is not in the audit chain");
        }
    }
}
