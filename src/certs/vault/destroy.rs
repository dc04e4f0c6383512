//! The end of a tenant's data keys.

use serde_json::json;

use super::exchange::ExchangeError;
use super::{Destroyed, PATIENCE, Vault};
use crate::keys::data_key::wrapped_by;
use crate::model::TenantId;
use crate::store::Deadline;
use crate::store::batch::{AuditEvent, Batch, Operation};
use crate::store::record::{AuditActor, KeyOwner};

impl Vault {
    /// Destroys a tenant's data keys for good: what they sealed opens nowhere again, not in a backup that is restored
    /// beside this key file either. First on the list beside the key, then gone from the store: after a kill in between they
    /// are refused all the same. Tells up to which number; nothing where the tenant has none.
    ///
    /// # Errors
    /// [`ExchangeError::Files`] where the list cannot be written; [`ExchangeError::Apply`], [`ExchangeError::Store`].
    pub async fn destroy(
        &self,
        tenant: &TenantId,
        actor: AuditActor,
    ) -> Result<Option<u32>, ExchangeError> {
        let _alone = self.parts.destroying.lock().await;
        let owner = KeyOwner::Tenant(tenant.clone());
        let by = Deadline::after(PATIENCE);
        let newest = self.parts.store.data_key(by, &owner, None).await;
        let Some(newest) = newest.map_err(ExchangeError::Store)? else {
            return Ok(None);
        };
        let file = self.parts.ring.load().file().to_owned();
        let mut destroyed = Destroyed::clone(&self.parts.destroyed.load());
        destroyed
            .add(&file, owner.as_str(), newest.id)
            .map_err(ExchangeError::Files)?;
        self.parts.destroyed.publish(destroyed);
        self.forget(&owner);
        let wrapped_by = wrapped_by(&newest.wrapped).map(|id| id.to_string());
        let event = AuditEvent {
            owner,
            actor,
            kind: "tenant.keys_destroyed",
            subject: tenant.to_string(),
            detail: json!({ "through": newest.id, "wrapped_by": wrapped_by }),
        };
        let batch = Batch::new()
            .then(Operation::DestroyDataKeys {
                tenant: tenant.clone(),
            })
            .audit(event);
        self.apply(batch).await?;
        tracing::info!(%tenant, through = newest.id, "a tenant's data keys are destroyed");
        Ok(Some(newest.id))
    }
}
