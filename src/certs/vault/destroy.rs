//! The end of a tenant's data keys.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::exchange::ExchangeError;
use super::{Destroyed, PATIENCE, Vault};
use crate::keys::custody::Own;
use crate::keys::data_key::wrapped_by;
use crate::keys::ring;
use crate::model::TenantId;
use crate::store::Deadline;
use crate::store::batch::{AuditEvent, Batch, Operation};
use crate::store::record::{AuditActor, DataKeyRecord, KeyOwner};

/// What was destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestroyedKeys {
    /// The highest number of a data key.
    pub through: u32,
    /// The file of the tenant's own key-encryption key, where it had one that is removed.
    pub own_file: Option<PathBuf>,
}

impl Vault {
    /// Destroys a tenant's data keys for good: what they sealed opens nowhere again, not in a backup that is restored
    /// beside this key file either. First on the list beside the key, then gone from the store, then the file of the tenant's own
    /// key-encryption key: after a kill in between they are refused all the same, and a second call does the rest. Nothing
    /// where the tenant has neither.
    ///
    /// # Errors
    /// [`ExchangeError::Files`] where the list cannot be written; [`ExchangeError::Apply`], [`ExchangeError::Store`].
    pub async fn destroy(
        &self,
        tenant: &TenantId,
        actor: AuditActor,
    ) -> Result<Option<DestroyedKeys>, ExchangeError> {
        let _alone = self.parts.destroying.lock().await;
        let owner = KeyOwner::Tenant(tenant.clone());
        let by = Deadline::after(PATIENCE);
        let newest = self.parts.store.data_key(by, &owner, None).await;
        let newest = newest.map_err(ExchangeError::Store)?;
        let through = match &newest {
            Some(newest) => {
                self.destroy_data_keys(tenant, newest, actor.clone())
                    .await?
            }
            None => self.parts.destroyed.load().through(owner.as_str()),
        };
        let own = self.own_files(&owner).map_err(ExchangeError::Files)?;
        let own_file = own.first().map(|(file, _)| file.clone());
        if newest.is_none()
            && let Some(file) = &own_file
        {
            let detail = json!({ "through": through, "own_file": file.display().to_string() });
            let event = keys_destroyed(tenant, actor, detail);
            self.apply(Batch::new().audit(event)).await?;
        }
        self.destroy_own(&owner, &own)?;
        let nothing = newest.is_none() && own_file.is_none();
        Ok((!nothing).then_some(DestroyedKeys { through, own_file }))
    }

    /// What is to be removed of a tenant's own key, and of one that was in use before: its file's name, and all that holds it. What
    /// is somebody else's too is left.
    fn own_files(&self, owner: &KeyOwner) -> io::Result<Vec<(PathBuf, Vec<PathBuf>)>> {
        let custody = self.parts.custody.get();
        let stays = |file: &Path, ring| {
            let other = custody.also_used_by(owner.as_str(), (file, ring));
            if let Some(other) = &other {
                tracing::warn!(file = %file.display(), other, "the key file is another owner's too, and stays");
            }
            other.is_some()
        };
        let mut own = Vec::new();
        let holdings = custody.own(owner.as_str()).into_iter();
        for (file, ring) in holdings.flat_map(Own::holdings) {
            let mut files = ring::files(file)?;
            files.retain(|part| !stays(part, None));
            if !files.is_empty() && !stays(file, ring) {
                own.push((file.to_owned(), files));
            }
        }
        Ok(own)
    }

    fn destroy_own(
        &self,
        owner: &KeyOwner,
        own: &[(PathBuf, Vec<PathBuf>)],
    ) -> Result<(), ExchangeError> {
        for (file, files) in own {
            ring::destroy(files).map_err(ExchangeError::Files)?;
            tracing::info!(file = %file.display(), "the files of a tenant's own key-encryption key are removed");
        }
        if !own.is_empty() {
            self.set_own(owner.as_str(), None);
        }
        Ok(())
    }

    async fn destroy_data_keys(
        &self,
        tenant: &TenantId,
        newest: &DataKeyRecord,
        actor: AuditActor,
    ) -> Result<u32, ExchangeError> {
        let owner = KeyOwner::Tenant(tenant.clone());
        let file = self.parts.custody.load().platform().file().to_owned();
        let mut destroyed = Destroyed::clone(&self.parts.destroyed.load());
        destroyed
            .add(&file, owner.as_str(), newest.id)
            .map_err(ExchangeError::Files)?;
        self.parts.destroyed.publish(destroyed);
        self.forget(&owner);
        let wrapped_by = wrapped_by(&newest.wrapped).map(|id| id.to_string());
        let detail = json!({ "through": newest.id, "wrapped_by": wrapped_by });
        let batch = Batch::new()
            .then(Operation::DestroyDataKeys {
                tenant: tenant.clone(),
                through: newest.id,
            })
            .audit(keys_destroyed(tenant, actor, detail));
        self.apply(batch).await?;
        tracing::info!(%tenant, through = newest.id, "a tenant's data keys are destroyed");
        Ok(newest.id)
    }
}

impl Vault {
    /// What ends data keys that were destroyed and are in the store again: a backup from before was restored. What they sealed is
    /// marked as it was.
    pub(super) fn end_again(&self, tenant: &TenantId) -> (Operation, AuditEvent) {
        let through = self.parts.destroyed.load().through(tenant.as_str());
        let detail = json!({ "through": through, "why": "restored" });
        let end = Operation::DestroyDataKeys {
            tenant: tenant.clone(),
            through,
        };
        (end, keys_destroyed(tenant, AuditActor::System, detail))
    }
}

fn keys_destroyed(tenant: &TenantId, actor: AuditActor, detail: serde_json::Value) -> AuditEvent {
    AuditEvent {
        owner: KeyOwner::Tenant(tenant.clone()),
        actor,
        kind: "tenant.keys_destroyed",
        subject: tenant.to_string(),
        detail,
    }
}
