//! What an operator may do about the keys at rest: look at them, exchange the key-encryption key, destroy a tenant's.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp, monotonic};
use crate::certs::accounts::{AccountError, Accounts};
use crate::certs::vault::own::whole;
use crate::certs::vault::{Vault, VaultError};
use crate::control::caller::Grant;
use crate::keys::KekId;
use crate::model::TenantId;
use crate::model::domain::DomainState;
use crate::store::record::{DomainRecord, KeyOwner};
use crate::store::{Deadline, PageRequest, Store, StoreError};

pub use crate::certs::vault::destroy::DestroyedKeys;
pub use crate::certs::vault::exchange::{
    Census, ExchangeError, Exchanged, Reason, Standing, Underway, Unreadable,
};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(10);
/// For counting data keys while somebody waits.
const COUNTING: Duration = Duration::from_secs(2);

/// How the keys stand.
#[derive(Clone, Debug)]
pub struct KeysView {
    /// The key-encryption key that wraps now.
    pub id: KekId,
    /// The file that it is configured to lie in.
    pub file: PathBuf,
    /// The tenants that have a key of their own, or are to have one.
    pub own: Vec<OwnView>,
    /// The rest.
    pub standing: Standing,
    /// When the data keys were counted: as it was asked, but for an exchange under way and for very many of them.
    pub counted_at: Option<Timestamp>,
}

/// A tenant's own key-encryption key.
#[derive(Clone, Debug)]
pub struct OwnView {
    /// Whose.
    pub tenant: String,
    /// Its file.
    pub file: PathBuf,
    /// The key in it, or what is wrong with it.
    pub id: Result<KekId, String>,
}

/// Acts on keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    store: Arc<dyn Store>,
    vault: Vault,
    accounts: Accounts,
    clock: Clock,
}

/// Why something was not done.
#[derive(Debug)]
pub enum KeysError {
    /// The keys' own reasons.
    Exchange(ExchangeError),
    /// The tenant has domains, whose keys would be lost with it.
    HasDomains(TenantId),
    /// The tenant, or the platform, has no keys.
    NoKeys(Option<TenantId>),
    /// No new data key was made.
    Vault(VaultError),
    /// The last list of revoked certificates of the tenant's own issuing key could not be kept; nothing is destroyed.
    Lists(AccountError),
    /// The tenant has no key-encryption key of its own.
    NoOwnKey(TenantId),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => error.fmt(f),
            Self::HasDomains(tenant) => write!(
                f,
                "tenant {tenant} has domains, which could not be served any more: remove them first"
            ),
            Self::NoOwnKey(tenant) => write!(
                f,
                "tenant {tenant} has no key-encryption key of its own: name one as key_file in its [[tenant]], or exchange the \
                 platform's, which wraps its data keys"
            ),
            Self::NoKeys(Some(tenant)) => write!(f, "tenant {tenant} has no keys"),
            Self::NoKeys(None) => f.write_str("the platform has no keys"),
            Self::Vault(error) => error.fmt(f),
            Self::Lists(_) => f.write_str(
                "nothing is destroyed: the last list of revoked certificates of the tenant's own issuing key could not be kept; \
                 try again",
            ),
            Self::Store(_) => f.write_str("the store failed"),
        }
    }
}

impl std::error::Error for KeysError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Exchange(error) => error.source(),
            Self::Vault(error) => error.source(),
            Self::Lists(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::HasDomains(_) | Self::NoKeys(_) | Self::NoOwnKey(_) => None,
        }
    }
}

impl Keys {
    /// Over the store, its vault, and the authorities' accounts.
    #[must_use]
    pub const fn new(
        store: Arc<dyn Store>,
        vault: Vault,
        accounts: Accounts,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            vault,
            accounts,
            clock,
        }
    }

    /// How the keys stand now. No key is in it.
    pub async fn view(&self, _grant: &Grant) -> KeysView {
        let (standing, counted_at) = self.standing().await;
        let custody = self.vault.custody();
        let platform = custody.platform();
        let own = custody.owners().map(|(tenant, own)| OwnView {
            tenant: tenant.to_owned(),
            file: own.file.clone(),
            id: match &own.ring {
                Ok(ring) => Ok(ring.current().id()),
                Err(error) => Err(whole(error.as_ref())),
            },
        });
        KeysView {
            id: platform.current().id(),
            file: platform.file().to_owned(),
            own: own.collect(),
            standing,
            counted_at,
        }
    }

    /// How the data keys stand, counted now where that is done soon, else as they were counted last.
    async fn standing(&self) -> (Standing, Option<Timestamp>) {
        let standing = self.vault.standing();
        let now = self.clock.now();
        let census = match standing.exchange {
            Some(_) => None,
            None => self.vault.look(COUNTING).await.ok().flatten(),
        };
        match census {
            Some(census) => {
                let standing = Standing {
                    census: Some(census),
                    ..standing
                };
                (standing, Some(now))
            }
            None => {
                let ago = |at| monotonic().saturating_duration_since(at);
                let counted_at = standing.counted.map(|at| now.minus(ago(at)));
                (standing, counted_at)
            }
        }
    }

    /// Begins an exchange of the key-encryption key, or of this tenant's own, which then goes on by itself; joins the one that is
    /// under way.
    ///
    /// # Errors
    /// [`KeysError::Exchange`], [`KeysError::NoOwnKey`]; nothing has begun then.
    pub async fn exchange(
        &self,
        grant: &Grant,
        tenant: Option<TenantId>,
    ) -> Result<KeysView, KeysError> {
        let owner = match tenant {
            None => KeyOwner::Platform,
            Some(tenant) if self.vault.custody().own(tenant.as_str()).is_none() => {
                return Err(KeysError::NoOwnKey(tenant));
            }
            Some(tenant) => KeyOwner::Tenant(tenant),
        };
        let begun = self
            .vault
            .begin_exchange(&owner, grant.actor().clone())
            .await;
        begun.map_err(KeysError::Exchange)?;
        Ok(self.view(grant).await)
    }

    /// Makes a new data key for a tenant, or for the platform; what older ones sealed is sealed anew by itself, and they are
    /// destroyed then. Gives its number.
    ///
    /// # Errors
    /// [`KeysError::Vault`], [`KeysError::NoKeys`].
    pub async fn renew(&self, grant: &Grant, tenant: Option<TenantId>) -> Result<u32, KeysError> {
        let owner = tenant.clone().map_or(KeyOwner::Platform, KeyOwner::Tenant);
        let made = self.vault.renew_data_key(&owner, grant.actor().clone());
        let made = made.await.map_err(KeysError::Vault)?;
        made.ok_or(KeysError::NoKeys(tenant))
    }

    /// Destroys the data keys of a tenant without domains, for good, and with them what they sealed: the issuing keys that it has to
    /// itself sign a last list first.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn destroy(
        &self,
        grant: &Grant,
        tenant: &TenantId,
    ) -> Result<DestroyedKeys, KeysError> {
        if self.has_domains(grant, tenant).await? {
            return Err(KeysError::HasDomains(tenant.clone()));
        }
        self.end_lists(tenant).await?;
        let destroyed = self.vault.destroy(tenant, grant.actor().clone()).await;
        self.accounts.forget_tenant(tenant);
        destroyed
            .map_err(KeysError::Exchange)?
            .ok_or_else(|| KeysError::NoKeys(Some(tenant.clone())))
    }

    /// An issuing key that does not open signs no list, and keeps nothing from being destroyed.
    async fn end_lists(&self, tenant: &TenantId) -> Result<(), KeysError> {
        match Box::pin(self.accounts.end_lists(tenant)).await {
            Ok(()) => Ok(()),
            Err(
                error @ (AccountError::Vault(_)
                | AccountError::Ca(_)
                | AccountError::NotConfigured(_)),
            ) => {
                let error = whole(&error);
                tracing::warn!(%tenant, error, "the tenant's own issuing key signs no last list of revoked certificates");
                Ok(())
            }
            Err(error) => Err(KeysError::Lists(error)),
        }
    }

    /// Whether a tenant has a domain that is neither removed nor being removed.
    async fn has_domains(&self, grant: &Grant, tenant: &TenantId) -> Result<bool, KeysError> {
        let gone = [DomainState::Deleting, DomainState::Tombstoned];
        let mut page = PageRequest::first();
        loop {
            let by = Deadline::after(CALL);
            let scope = grant.scope();
            let read = self.store.domains(by, scope, Some(tenant), &page).await;
            let read = read.map_err(KeysError::Store)?;
            let is_there = |domain: &DomainRecord| !gone.contains(&domain.state);
            // What cannot be read may be one.
            if read.items.iter().any(is_there) || !read.unreadable.is_empty() {
                return Ok(true);
            }
            match read.next {
                Some(next) => page = PageRequest::following(next),
                None => return Ok(false),
            }
        }
    }
}
