//! Accounts that a tenant has to itself: an issuing CA of its own, confined to its domains as they are registered now.

use std::sync::{Arc, PoisonError};

use super::{AccountError, Accounts, PATIENCE, Shared};
use crate::ca::{Account, Sharing};
use crate::model::certificate::CaId;
use crate::model::domain::DomainState;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::{Deadline, PageRequest};

/// Opened accounts that are kept; opening one again costs a few reads.
const MOST_OPEN: usize = 4096;

impl Accounts {
    /// The account with `ca` that orders these names for a tenant, opened or made if need be: the tenant's own where
    /// the authority is not shared.
    ///
    /// # Errors
    /// [`AccountError`], shared by all who waited.
    pub async fn account_for(
        &self,
        tenant: &TenantId,
        names: &[NamePattern],
        ca: &CaId,
    ) -> Result<Arc<dyn Account>, Arc<AccountError>> {
        let sharing = self.0.authority(ca).map_err(Arc::new)?.sharing();
        if sharing == Sharing::Everyone {
            return self.account(ca).await;
        }
        if let Some(account) = self
            .0
            .usable_by(tenant, ca)
            .filter(|it| it.may_certify(names))
        {
            return Ok(account);
        }
        Box::pin(self.0.open_for(tenant, ca))
            .await
            .map_err(Arc::new)
    }
}

impl Shared {
    pub(super) fn usable_by(&self, tenant: &TenantId, ca: &CaId) -> Option<Arc<dyn Account>> {
        let open = self.confined.lock().unwrap_or_else(PoisonError::into_inner);
        let account = open.get(&(ca.clone(), tenant.clone())).map(Arc::clone)?;
        drop(open);
        (self.clock.now() < account.usable_until()).then_some(account)
    }

    /// Two that open it at once may both certify the issuing CA anew: either certificate is good.
    pub(super) async fn open_for(
        &self,
        tenant: &TenantId,
        ca: &CaId,
    ) -> Result<Arc<dyn Account>, AccountError> {
        let domains = self.domains_of(tenant).await?;
        let authority = self.authority(ca)?;
        let own = authority.confined_to(tenant, &domains);
        let own = own.ok_or_else(|| AccountError::NotConfigured(ca.clone()))?;
        let account = self.open_as(&own).await?;
        self.begin_lists((ca, Some(tenant)), &account).await;
        let mut open = self.confined.lock().unwrap_or_else(PoisonError::into_inner);
        // Unless a reload has put another authority in its place.
        if !self.authorities.has(&authority) {
            return Ok(account);
        }
        if open.len() >= MOST_OPEN
            && let Some(any) = open.keys().next().cloned()
        {
            open.remove(&any);
        }
        open.insert((ca.clone(), tenant.clone()), Arc::clone(&account));
        Ok(account)
    }

    async fn domains_of(&self, tenant: &TenantId) -> Result<Vec<NamePattern>, AccountError> {
        let scope = TenantScope::certificate_work(tenant.clone());
        let mut domains = Vec::new();
        let mut page = PageRequest::first();
        loop {
            let by = Deadline::after(PATIENCE);
            let read = self.store.domains(by, &scope, Some(tenant), &page).await;
            let read = read.map_err(AccountError::Store)?;
            let there = read.items.into_iter().filter(|domain| {
                !matches!(
                    domain.state,
                    DomainState::Deleting | DomainState::Tombstoned
                )
            });
            domains.extend(there.map(|domain| domain.pattern));
            match read.next {
                Some(next) => page = PageRequest::following(next),
                None => return Ok(domains),
            }
        }
    }
}
