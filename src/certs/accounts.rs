//! The authorities' accounts: made once, kept sealed in the store, opened once per process.
//!
//! Two processes that open an authority for the first time at once both make material; the store takes one's, and the
//! other uses that. Material is kept before the account is used, and an account's key before the authority learns of it,
//! so that no account is made and no order placed that nobody will find again.

mod adopt;

mod confined;

mod ended;

mod lists;

mod revocation;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::{Clock, Instant, monotonic};
use crate::base::single_flight::{Refused, SingleFlight};
use crate::base::task::Tasks;
use crate::ca::{Account, CaError, CertificateAuthority, Material, Sharing};
use crate::certs::authorities::{self, Authorities};
use crate::certs::vault::{Vault, VaultError};
use crate::model::certificate::CaId;
use crate::model::problem::ProblemCode;
use crate::model::{TenantId, TenantScope};
use crate::store::batch::{AuditEvent, Guard, Operation};
use crate::store::record::{AuditActor, KeyOwner, MaterialRecord};
use crate::store::{ApplyError, Batch, Deadline, Store, StoreError};

pub use adopt::Adopted;

/// How long one call of the store may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody else's material is taken after losing a race; once is what a race costs.
const MOST_RACES: u32 = 3;
/// The longest that a refusal stands for what the authority would say now.
const LONGEST_REFUSAL: Duration = Duration::from_secs(3600);
/// Accounts that are opened at once.
const MOST_OPENED: usize = 64;
/// An account is opened once for all jobs that wait for it.
const MOST_WAITERS: usize = 10_000;

/// The accounts. Clones are the same.
#[derive(Clone)]
pub struct Accounts(Arc<Shared>);

struct Shared {
    authorities: Authorities,
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Clock,
    tasks: Tasks,
    open: Mutex<HashMap<CaId, Arc<dyn Account>>>,
    /// Refusals that ask for a wait, and its end; one for each authority.
    refused: Mutex<HashMap<CaId, (Arc<AccountError>, Instant)>>,
    /// Those that a tenant has to itself.
    confined: Mutex<HashMap<(CaId, TenantId), Arc<dyn Account>>>,
    lists: lists::Known,
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

impl AccountError {
    /// The problem code that a tenant and the operator read.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::Ca(error) => error.code(),
            Self::NotConfigured(_) => ProblemCode::PolicyDenied,
            Self::Vault(_) => ProblemCode::KeyUnreadable,
            Self::Store(_) | Self::Kept(_) | Self::Busy(_) => ProblemCode::CheckFailed,
        }
    }

    /// The authority's failure, where it is one.
    #[must_use]
    pub const fn ca_error(&self) -> Option<&CaError> {
        match self {
            Self::Ca(error) => Some(error),
            Self::NotConfigured(_)
            | Self::Vault(_)
            | Self::Store(_)
            | Self::Kept(_)
            | Self::Busy(_) => None,
        }
    }
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
    /// Nothing is opened yet. The authorities are watched by nobody but issuance itself; see [`Accounts::watched`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self::watched(parts, authorities::Parts::default())
    }

    /// Nothing is opened yet; the authorities, which are those of `parts`, are watched as `watch` says.
    #[must_use]
    pub fn watched(parts: Parts, watch: authorities::Parts) -> Self {
        let watch = authorities::Parts {
            authorities: parts.authorities,
            ..watch
        };
        Self(Arc::new(Shared {
            authorities: Authorities::new(watch, &parts.tasks),
            store: parts.store,
            vault: parts.vault,
            clock: parts.clock,
            tasks: parts.tasks,
            open: Mutex::default(),
            refused: Mutex::default(),
            confined: Mutex::default(),
            lists: lists::Known::default(),
            opening: SingleFlight::new(MOST_OPENED, MOST_WAITERS),
        }))
    }

    /// These are the authorities from now on. Accounts with those that are the same adapters as before stay open; what is
    /// open with any other is forgotten, and opened anew from what is kept.
    pub fn replace_authorities(&self, authorities: Vec<Arc<dyn CertificateAuthority>>) {
        let went = self.0.authorities.replace(authorities);
        for ca in &went {
            self.0.forget_all(ca);
        }
        self.0.lists.replaced(&went);
    }

    /// The authorities as they are right now.
    #[must_use]
    pub fn authorities(&self) -> &Authorities {
        &self.0.authorities
    }

    /// The account with `ca`, opened or made if need be.
    ///
    /// # Errors
    /// [`AccountError`], shared by all who waited.
    pub async fn account(&self, ca: &CaId) -> Result<Arc<dyn Account>, Arc<AccountError>> {
        if let Some(account) = self.0.usable(ca) {
            return Ok(account);
        }
        if let Some(refusal) = self.0.refusal(ca) {
            return Err(refusal);
        }
        let shared = Arc::clone(&self.0);
        let id = ca.clone();
        let opened = self
            .0
            .opening
            .run(&self.0.tasks, ca.clone(), || async move {
                Box::pin(shared.open(&id)).await.map_err(Arc::new)
            })
            .await
            .map_err(|refused| Arc::new(AccountError::Busy(refused)))?;
        if let Err(error) = &opened {
            self.0.note_refusal(ca, error);
        }
        opened
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
        let url = gone.url().unwrap_or_default().to_owned();
        self.0
            .opening
            .run(&self.0.tasks, ca.clone(), || async move {
                Box::pin(shared.reopen(&id, &url)).await.map_err(Arc::new)
            })
            .await
            .map_err(|refused| Arc::new(AccountError::Busy(refused)))?
    }
}

impl Accounts {
    /// Changes the key of the account with `ca` (RFC 8555 §7.3.5); the account stays, with its URL, orders and limits.
    /// The new key is kept before the authority learns of it and the old one until the authority has taken the new one,
    /// so that a kill at any point leaves an account that can be used; called again it goes on where it was.
    ///
    /// Gives the account's URL. Orders that run meanwhile fail and are taken up again with the new key.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn change_key(&self, ca: &CaId) -> Result<String, Arc<AccountError>> {
        // Opened first: an account that cannot be used is no account whose key to change.
        self.account(ca).await?;
        let shared = Arc::clone(&self.0);
        let id = ca.clone();
        let changed = self
            .0
            .opening
            .run(&self.0.tasks, ca.clone(), || async move {
                Box::pin(shared.change_key(&id)).await.map_err(Arc::new)
            })
            .await
            .map_err(|refused| Arc::new(AccountError::Busy(refused)))??;
        Ok(changed.url().unwrap_or_default().to_owned())
    }

    /// The URL of the account with `ca`, where one is kept; asks no authority.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn url(&self, ca: &CaId) -> Result<Option<String>, AccountError> {
        if let Some(account) = self.0.usable(ca) {
            return Ok(account.url().map(str::to_owned));
        }
        let Some(slot) = self.authorities().account_slot(ca) else {
            return Ok(None);
        };
        let by = Deadline::after(PATIENCE);
        let kept = self
            .0
            .store
            .material(by, ca, &slot)
            .await
            .map_err(AccountError::Store)?;
        let url = kept.map(|kept| String::from_utf8_lossy(&kept.public).into_owned());
        Ok(url.filter(|url| !url.is_empty()))
    }
}

impl Shared {
    /// How the authority refused last, while it does not want to be asked again.
    fn refusal(&self, ca: &CaId) -> Option<Arc<AccountError>> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (error, until) = refused.get(ca)?;
        (monotonic() < *until).then(|| Arc::clone(error))
    }

    fn note_refusal(&self, ca: &CaId, error: &Arc<AccountError>) {
        let AccountError::Ca(refusal) = &**error else {
            return;
        };
        if let Some(wait) = refusal.retry_after() {
            let until = monotonic() + wait.min(LONGEST_REFUSAL);
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.insert(ca.clone(), (Arc::clone(error), until));
        }
    }

    async fn change_key(&self, ca: &CaId) -> Result<Arc<dyn Account>, AccountError> {
        let authority = self.authority(ca)?;
        let mut kept = self.load(authority.as_ref()).await?.material;
        if let Some(next) = authority.next_key(&kept).map_err(AccountError::Ca)? {
            // Replaces a next key that the account has already.
            let slots = vec![next.slot.clone()];
            self.keep(authority.as_ref(), std::slice::from_ref(&next), &slots)
                .await?;
            kept.retain(|material| material.slot != next.slot);
            kept.push(next);
        }
        // Should it fail, nobody knows which key the authority has: the next who needs the account finds out.
        self.forget(ca);
        let opened = authority.change_key(kept).await.map_err(AccountError::Ca)?;
        self.keep(authority.as_ref(), &opened.made, &authority.slots())
            .await?;
        self.remember(&authority, &opened.account);
        Ok(opened.account)
    }

    fn forget(&self, ca: &CaId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(ca);
    }

    /// Whatever was learnt by an authority that is there no longer.
    fn forget_all(&self, ca: &CaId) {
        self.forget(ca);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.remove(ca);
        drop(refused);
        let mut confined = self.confined.lock().unwrap_or_else(PoisonError::into_inner);
        confined.retain(|(of, _), _| of != ca);
    }

    fn usable(&self, ca: &CaId) -> Option<Arc<dyn Account>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let account = open.get(ca).map(Arc::clone)?;
        drop(open);
        (self.clock.now() < account.usable_until()).then_some(account)
    }

    /// Keeps an account open, unless a reload has put another authority in the place of its own.
    fn remember(&self, authority: &Arc<dyn CertificateAuthority>, account: &Arc<dyn Account>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.authorities.has(authority) {
            open.insert(authority.id().clone(), Arc::clone(account));
        }
    }

    fn authority(&self, ca: &CaId) -> Result<Arc<dyn CertificateAuthority>, AccountError> {
        self.authorities
            .find(ca)
            .ok_or_else(|| AccountError::NotConfigured(ca.clone()))
    }

    async fn open(&self, ca: &CaId) -> Result<Arc<dyn Account>, AccountError> {
        let authority = self.authority(ca)?;
        let account = self.open_as(&authority).await?;
        if authority.sharing() == Sharing::Everyone {
            self.begin_lists((ca, None), &account).await;
        }
        self.remember(&authority, &account);
        Ok(account)
    }

    /// Opens an authority with what is kept for it, and keeps what had to be made.
    async fn open_as(
        &self,
        authority: &Arc<dyn CertificateAuthority>,
    ) -> Result<Arc<dyn Account>, AccountError> {
        let mut races = 0;
        loop {
            let Loaded { material, held } = self.load(authority.as_ref()).await?;
            match self.open_with(authority.as_ref(), material, held).await {
                Err(AccountError::Kept(ApplyError::GuardFailed(_))) if races < MOST_RACES => {
                    races += 1;
                }
                result => return result,
            }
        }
    }

    /// Opens an authority with `kept` and keeps what had to be made, in the place of what the slots `held` hold: the key
    /// of a new account before the authority learns of it.
    async fn open_with(
        &self,
        authority: &dyn CertificateAuthority,
        kept: Vec<Material>,
        mut held: Vec<String>,
    ) -> Result<Arc<dyn Account>, AccountError> {
        let now = self.clock.now();
        let opened = match authority.first_key(&kept).map_err(AccountError::Ca)? {
            Some(key) => {
                self.keep(authority, std::slice::from_ref(&key), &held)
                    .await?;
                held.push(key.slot.clone());
                authority.register(key, now).await
            }
            None => authority.open(kept, now).await,
        };
        let opened = opened.map_err(AccountError::Ca)?;
        self.keep(authority, &opened.made, &held).await?;
        Ok(opened.account)
    }

    async fn reopen(&self, ca: &CaId, gone: &str) -> Result<Arc<dyn Account>, AccountError> {
        let authority = self.authority(ca)?;
        // Another process may have made one already, or be about to.
        let kept = self.load(authority.as_ref()).await?.material;
        let is_other = |material: &Material| material.public != gone.as_bytes();
        if kept.first().is_some_and(is_other) {
            return Box::pin(self.open(ca)).await;
        }
        let slots = authority.slots();
        let account = self
            .open_with(authority.as_ref(), Vec::new(), slots)
            .await?;
        self.remember(&authority, &account);
        Ok(account)
    }

    async fn load(&self, authority: &dyn CertificateAuthority) -> Result<Loaded, AccountError> {
        let mut loaded = Loaded::default();
        for slot in authority.slots() {
            let record = self
                .store
                .material(Deadline::after(PATIENCE), authority.id(), &slot)
                .await
                .map_err(AccountError::Store)?;
            if let Some(record) = record {
                let name = sealed_as(authority.id(), &slot);
                let owner = owner_of(authority, &slot);
                loaded.held.push(slot.clone());
                let secret = match self.vault.open(&owner, &name, &record.sealed).await {
                    Ok(secret) => secret,
                    // Destroyed with its tenant's keys: one that comes back begins anew.
                    Err(VaultError::KeyGone { .. }) if owner != KeyOwner::Platform => continue,
                    Err(error) => return Err(AccountError::Vault(error)),
                };
                loaded.material.push(Material {
                    slot,
                    public: record.public,
                    secret,
                });
            }
        }
        Ok(loaded)
    }

    /// Keeps what was made: where `held` names the slot, replacing what it holds, else only if nobody was first.
    async fn keep(
        &self,
        authority: &dyn CertificateAuthority,
        made: &[Material],
        held: &[String],
    ) -> Result<(), AccountError> {
        let ca = authority.id();
        if made.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for made in made {
            let name = sealed_as(ca, &made.slot);
            let sealed = self
                .vault
                .seal(&owner_of(authority, &made.slot), &name, &made.secret)
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

/// What is kept for an authority.
#[derive(Default)]
struct Loaded {
    /// What opens.
    material: Vec<Material>,
    /// The slots that hold something.
    held: Vec<String>,
}

/// Whose data key seals what a slot holds.
fn owner_of(authority: &dyn CertificateAuthority, slot: &str) -> KeyOwner {
    let tenant = authority.belongs_to(slot).cloned();
    tenant.map_or(KeyOwner::Platform, KeyOwner::Tenant)
}

/// The name under which material is sealed: another for every slot, so that a blob moved to another does not open.
pub(super) fn sealed_as(ca: &CaId, slot: &str) -> String {
    format!("ca:{ca}:{slot}")
}
