//! Revoking: on the list of an authority of our own, by the account that ordered, or by the certificate's own key where
//! that account is not ours.

use std::sync::Arc;

use super::{AccountError, Accounts};
use crate::base::secret::Secret;
use crate::ca::{Acceptance, RevokedLeaf};
use crate::model::TenantId;
use crate::model::certificate::CaId;

impl Accounts {
    /// Revokes a certificate of a tenant: puts it on the list of an authority of our own, tells any other by our account.
    /// Gives the word for how it was done, and how it was taken. Our own list takes a graver reason at any time.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn revoke(
        &self,
        (tenant, ca): (&TenantId, &CaId),
        leaf: RevokedLeaf<'_>,
    ) -> Result<(&'static str, Acceptance), Arc<AccountError>> {
        if self
            .put_on_list((tenant, ca), leaf.der, leaf.reason)
            .await?
        {
            return Ok(("list", Acceptance::Now));
        }
        let account = self.account(ca).await?;
        let revoked = account.revoke(leaf).await;
        revoked
            .map(|taken| ("account", taken))
            .map_err(|error| Arc::new(AccountError::Ca(error)))
    }

    /// Revokes by the certificate's private key, PKCS #8, whoever ordered it; needs no account.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn revoke_by_key(
        &self,
        ca: &CaId,
        leaf: RevokedLeaf<'_>,
        key: &Secret,
    ) -> Result<Acceptance, Arc<AccountError>> {
        let authority = self.0.authority(ca).map_err(Arc::new)?;
        let revoked = authority.revoke_by_key(leaf, key).await;
        revoked.map_err(|error| Arc::new(AccountError::Ca(error)))
    }
}
