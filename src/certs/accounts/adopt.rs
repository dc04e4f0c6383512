//! An account of another program taken over, where the authority has none here yet.

use super::{AccountError, Accounts, MOST_RACES, PATIENCE};
use crate::base::secret::Secret;
use crate::ca::ForeignAccount;
use crate::model::certificate::CaId;
use crate::store::{ApplyError, Deadline};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It is the authority's account here from now on.
    Now(CaId),
    /// It was already.
    Before(CaId),
    /// The authority has another one here, which stays.
    Another(CaId),
    /// The authority's adapter cannot use such a key.
    Unusable(CaId),
    /// No configured authority has this directory.
    Nowhere,
}

impl Accounts {
    /// The configured authority whose directory this is.
    #[must_use]
    pub fn authority_at(&self, directory: &str) -> Option<CaId> {
        let found = self.0.authorities.at(directory);
        found.map(|ca| ca.id().clone())
    }

    /// Makes the account at `url` with this key, PKCS #8, the one that orders from the authority at `directory`; unless
    /// that has an account here already.
    ///
    /// # Errors
    /// [`AccountError`] where the store failed or the key could not be sealed.
    pub async fn adopt(
        &self,
        directory: &str,
        url: &str,
        key: Secret,
    ) -> Result<Adopted, AccountError> {
        let Some(ca) = self.authority_at(directory) else {
            return Ok(Adopted::Nowhere);
        };
        let authority = self.0.authority(&ca)?;
        let Some(material) = authority.adopt(ForeignAccount { url, key: &key }) else {
            return Ok(Adopted::Unusable(ca));
        };
        for _ in 0..MOST_RACES {
            let by = Deadline::after(PATIENCE);
            let kept = self.0.store.material(by, &ca, &material.slot).await;
            match kept.map_err(AccountError::Store)? {
                Some(kept) if kept.public == material.public => return Ok(Adopted::Before(ca)),
                Some(_) => return Ok(Adopted::Another(ca)),
                None => match self
                    .0
                    .keep(authority.as_ref(), std::slice::from_ref(&material), &[])
                    .await
                {
                    Ok(()) => return Ok(Adopted::Now(ca)),
                    // The first order made one meanwhile.
                    Err(AccountError::Kept(ApplyError::GuardFailed(_))) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(Adopted::Another(ca))
    }
}
