//! The authorities' accounts: made once, kept sealed in the store, opened once per process.
//!
//! Two processes that open an authority for the first time at once both make material; the store takes one's, and the
//! other uses that. Material is kept before the account is used, so that no order is placed with an account that
//! nobody will find again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::single_flight::{Refused, SingleFlight};
use crate::base::task::Tasks;
use crate::ca::{Account, CaError, CertificateAuthority, Material, Opened};
use crate::certs::policy::{Offer, Suitable};
use crate::certs::vault::{Vault, VaultError};
use crate::model::certificate::CaId;
use crate::model::{NamePattern, TenantScope};
use crate::store::batch::{AuditEvent, Guard, Operation};
use crate::store::record::{AuditActor, KeyOwner, MaterialRecord};
use crate::store::{ApplyError, Batch, Deadline, Store, StoreError};

/// How long one call of the store may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody else's material is taken after losing a race; once is what a race costs.
const MOST_RACES: u32 = 3;
/// An account is opened once for all jobs that wait for it.
const MOST_WAITERS: usize = 10_000;

/// The accounts. Clones are the same.
#[derive(Clone)]
pub struct Accounts(Arc<Shared>);

struct Shared {
    authorities: Vec<Arc<dyn CertificateAuthority>>,
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Clock,
    tasks: Tasks,
    open: Mutex<HashMap<CaId, Arc<dyn Account>>>,
    opening: SingleFlight<CaId, Result<Arc<dyn Account>, Arc<AccountError>>>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("authorities", &self.0.authorities)
            .finish_non_exhaustive()
    }
}

/// Why an account cannot be used.
#[derive(Debug)]
pub enum AccountError {
    /// No authority of this name is configured.
    NotConfigured(CaId),
    /// The authority failed.
    Ca(CaError),
    /// What is kept for it could not be sealed or opened.
    Vault(VaultError),
    /// The store failed.
    Store(StoreError),
    /// The store does not keep the material.
    Kept(ApplyError),
    /// Too many wait for it, or opening it was abandoned at shutdown.
    Busy(Refused),
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfigured(ca) => write!(f, "no [[ca]] named {ca} is configured"),
            Self::Ca(error) => error.fmt(f),
            Self::Vault(_) => f.write_str("what is kept for the authority cannot be opened"),
            Self::Store(_) => f.write_str("the store failed while the account was opened"),
            Self::Kept(_) => f.write_str("the store does not keep the account"),
            Self::Busy(_) => f.write_str("the account is not open yet"),
        }
    }
}

impl std::error::Error for AccountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotConfigured(_) => None,
            Self::Ca(error) => error.source(),
            Self::Vault(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Kept(error) => Some(error),
            Self::Busy(error) => Some(error),
        }
    }
}

/// What the accounts work with.
#[derive(Debug)]
pub struct Parts {
    /// The authorities, in order of preference.
    pub authorities: Vec<Arc<dyn CertificateAuthority>>,
    /// Keeps the material.
    pub store: Arc<dyn Store>,
    /// Seals it.
    pub vault: Vault,
    /// The time.
    pub clock: Clock,
    /// Where an account is opened, whoever waits for it.
    pub tasks: Tasks,
}

impl Accounts {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let most = parts.authorities.len().max(1);
        Self(Arc::new(Shared {
            authorities: parts.authorities,
            store: parts.store,
            vault: parts.vault,
            clock: parts.clock,
            tasks: parts.tasks,
            open: Mutex::default(),
            opening: SingleFlight::new(most, MOST_WAITERS),
        }))
    }

    /// The configured authorities in order of preference, and whether each certifies `pattern`.
    #[must_use]
    pub fn offers(&self, pattern: &NamePattern) -> Vec<Offer> {
        let offer = |ca: &Arc<dyn CertificateAuthority>| Offer {
            ca: ca.id().clone(),
            suitable: match ca.certifies(pattern) {
                true => Suitable::Yes,
                false => Suitable::No,
            },
            profile: None,
        };
        self.0.authorities.iter().map(offer).collect()
    }

    /// The account with `ca`, opened or made if need be.
    ///
    /// # Errors
    /// [`AccountError`], shared by all who waited.
    pub async fn account(&self, ca: &CaId) -> Result<Arc<dyn Account>, Arc<AccountError>> {
        if let Some(account) = self.0.usable(ca) {
            return Ok(account);
        }
        let shared = Arc::clone(&self.0);
        let id = ca.clone();
        self.0
            .opening
            .run(&self.0.tasks, ca.clone(), || async move {
                Box::pin(shared.open(&id)).await.map_err(Arc::new)
            })
            .await
            .map_err(|refused| Arc::new(AccountError::Busy(refused)))?
    }

    /// The root certificate, DER, of a private CA of ours: what clients must trust. Nothing for other authorities.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn root(&self, ca: &CaId) -> Result<Option<Vec<u8>>, Arc<AccountError>> {
        let account = self.account(ca).await?;
        Ok(account.root().map(<[u8]>::to_vec))
    }

    /// Makes a new account where the authority says that it does not know ours: `gone` is the one it was asked with.
    /// Somebody else may have done so already.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn replace(
        &self,
        ca: &CaId,
        gone: &Arc<dyn Account>,
    ) -> Result<Arc<dyn Account>, Arc<AccountError>> {
        if let Some(account) = self.0.usable(ca).filter(|open| !Arc::ptr_eq(open, gone)) {
            return Ok(account);
        }
        tracing::warn!(%ca, "the authority does not know our account any more; a new one is made");
        let shared = Arc::clone(&self.0);
        let id = ca.clone();
        self.0
            .opening
            .run(&self.0.tasks, ca.clone(), || async move {
                Box::pin(shared.reopen(&id)).await.map_err(Arc::new)
            })
            .await
            .map_err(|refused| Arc::new(AccountError::Busy(refused)))?
    }
}

impl Shared {
    fn usable(&self, ca: &CaId) -> Option<Arc<dyn Account>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let account = open.get(ca).map(Arc::clone)?;
        drop(open);
        (self.clock.now() < account.usable_until()).then_some(account)
    }

    fn remember(&self, ca: &CaId, account: &Arc<dyn Account>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(ca.clone(), Arc::clone(account));
    }

    fn authority(&self, ca: &CaId) -> Result<&Arc<dyn CertificateAuthority>, AccountError> {
        self.authorities
            .iter()
            .find(|authority| authority.id() == ca)
            .ok_or_else(|| AccountError::NotConfigured(ca.clone()))
    }

    async fn open(&self, ca: &CaId) -> Result<Arc<dyn Account>, AccountError> {
        let authority = self.authority(ca)?;
        let mut races = 0;
        loop {
            let kept = self.load(authority.as_ref()).await?;
            let held: Vec<String> = kept.iter().map(|kept| kept.slot.clone()).collect();
            let opened = authority
                .open(kept, self.clock.now())
                .await
                .map_err(AccountError::Ca)?;
            match self.keep(ca, &opened, &held).await {
                Ok(()) => {
                    self.remember(ca, &opened.account);
                    return Ok(opened.account);
                }
                Err(AccountError::Kept(ApplyError::GuardFailed(_))) if races < MOST_RACES => {
                    races += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn reopen(&self, ca: &CaId) -> Result<Arc<dyn Account>, AccountError> {
        let authority = self.authority(ca)?;
        let opened = authority
            .open(Vec::new(), self.clock.now())
            .await
            .map_err(AccountError::Ca)?;
        self.keep(ca, &opened, &authority.slots()).await?;
        self.remember(ca, &opened.account);
        Ok(opened.account)
    }

    async fn load(
        &self,
        authority: &dyn CertificateAuthority,
    ) -> Result<Vec<Material>, AccountError> {
        let mut kept = Vec::new();
        for slot in authority.slots() {
            let record = self
                .store
                .material(Deadline::after(PATIENCE), authority.id(), &slot)
                .await
                .map_err(AccountError::Store)?;
            if let Some(record) = record {
                let name = sealed_as(authority.id(), &slot);
                let secret = self
                    .vault
                    .open(&KeyOwner::Platform, &name, &record.sealed)
                    .await
                    .map_err(AccountError::Vault)?;
                kept.push(Material {
                    slot,
                    public: record.public,
                    secret,
                });
            }
        }
        Ok(kept)
    }

    /// Keeps what was made: where `held` names the slot, replacing what it holds, else only if nobody was first.
    async fn keep(&self, ca: &CaId, opened: &Opened, held: &[String]) -> Result<(), AccountError> {
        if opened.made.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for made in &opened.made {
            let name = sealed_as(ca, &made.slot);
            let sealed = self
                .vault
                .seal(&KeyOwner::Platform, &name, &made.secret)
                .await
                .map_err(AccountError::Vault)?;
            if !held.contains(&made.slot) {
                batch = batch.guard(Guard::MaterialAbsent(ca.clone(), made.slot.clone()));
            }
            batch = batch
                .then(Operation::PutMaterial(MaterialRecord {
                    ca: ca.clone(),
                    slot: made.slot.clone(),
                    public: made.public.clone(),
                    sealed,
                    created_at: self.clock.now(),
                }))
                .audit(AuditEvent {
                    owner: KeyOwner::Platform,
                    actor: AuditActor::System,
                    kind: "ca.material_made",
                    subject: ca.to_string(),
                    detail: serde_json::json!({ "slot": made.slot }),
                });
        }
        self.store
            .apply(Deadline::after(PATIENCE), &TenantScope::upkeep(), batch)
            .await
            .map(|_applied| ())
            .map_err(AccountError::Kept)
    }
}

/// The name under which material is sealed: another for every slot, so that a blob moved to another does not open.
fn sealed_as(ca: &CaId, slot: &str) -> String {
    format!("ca:{ca}:{slot}")
}
