//! The end of what a tenant has to itself with an authority of our own: its issuing key goes with its data keys.
//!
//! Nobody signs a list of revoked certificates for such a key any more. So before it goes a last list is signed that is good until
//! everything that the key signed has ended.

use std::sync::PoisonError;

use super::{AccountError, Accounts, PATIENCE, Shared};
use crate::ca::Sharing;
use crate::certs::vault::VaultError;
use crate::keys::sealed::sealed_by;
use crate::model::TenantId;
use crate::model::certificate::CaId;
use crate::store::Deadline;
use crate::store::record::KeyOwner;

impl Accounts {
    /// Signs the last lists of the issuing keys that a tenant has to itself. To be called before its keys are destroyed; called in
    /// vain, the next list is one like any other.
    ///
    /// # Errors
    /// [`AccountError`]; [`AccountError::Vault`] where a key does not open, whose list stays as it is.
    pub async fn end_lists(&self, tenant: &TenantId) -> Result<(), AccountError> {
        let shared = &self.0;
        let own = self.authorities().own_all().into_iter();
        for authority in own.filter(|own| own.sharing() == Sharing::PerTenant) {
            let ca = authority.id();
            if shared.issuing_key(ca, tenant).await? != IssuingKey::There {
                continue;
            }
            let account = match shared.usable_by(tenant, ca) {
                Some(account) => account,
                None => Box::pin(shared.open_for(tenant, ca)).await?,
            };
            shared.write_last_lists(ca, tenant, &account).await?;
        }
        Ok(())
    }

    /// Forgets the issuing keys that a tenant has to itself: to be called once its keys are destroyed.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        let open = self.0.confined.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, of), _| of != tenant);
    }
}

/// What became of the issuing key that a tenant has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IssuingKey {
    /// None was made.
    None,
    /// It is there.
    There,
    /// It was destroyed with the tenant's data key.
    Destroyed,
}

impl Shared {
    pub(super) async fn issuing_key(
        &self,
        ca: &CaId,
        tenant: &TenantId,
    ) -> Result<IssuingKey, AccountError> {
        let Some(own) = self.authority(ca)?.confined_to(tenant, &[]) else {
            return Ok(IssuingKey::None);
        };
        let slots = own.slots();
        let Some(slot) = slots.iter().find(|slot| own.belongs_to(slot).is_some()) else {
            return Ok(IssuingKey::None);
        };
        let by = Deadline::after(PATIENCE);
        let kept = self.store.material(by, ca, slot).await;
        let Some(kept) = kept.map_err(AccountError::Store)? else {
            return Ok(IssuingKey::None);
        };
        let owner = KeyOwner::Tenant(tenant.clone());
        match self.vault.check(&owner, sealed_by(&kept.sealed)).await {
            Err(VaultError::KeyGone { .. }) => Ok(IssuingKey::Destroyed),
            Err(VaultError::Store(error)) => Err(AccountError::Store(error)),
            // One that does not open for want of a file is there.
            Ok(()) | Err(_) => Ok(IssuingKey::There),
        }
    }
}
