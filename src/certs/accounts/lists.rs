//! The lists of revoked certificates of authorities of our own: made when their issuing CA is opened for the first time,
//! signed anew in time, whatever was restarted in between, and at once when a certificate is revoked.
//!
//! When a list is due is kept with it; whoever writes one does so over exactly what he read, so that of two processes one
//! goes on from what the other did, and numbers only grow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::{AccountError, Accounts, MOST_RACES, PATIENCE, Shared};
use crate::base::clock::Timestamp;
use crate::base::task::Tasks;
use crate::ca::{Account, CaError, ListAuthority, Sharing};
use crate::certs::chain;
use crate::certs::lists::{Entry, Kept, Lists, Revoked, Wanted};
use crate::model::certificate::CaId;
use crate::model::issuer_key::IssuerKey;
use crate::model::revocation::RevocationReason;
use crate::model::{TenantId, TenantScope};
use crate::store::batch::{Guard, Operation};
use crate::store::record::MaterialRecord;
use crate::store::{ApplyError, Batch, Deadline, PageRequest};

/// The slot of an authority's lists; of a tenant's part of it with the tenant.
const SLOT: &str = "lists";
/// How often all are read again, for what other processes wrote.
const SCAN: Duration = Duration::from_secs(600);
/// The wait after a list could not be signed.
const RETRY: Duration = Duration::from_secs(60);
/// Between two looks at what is due.
const BREATH: Duration = Duration::from_secs(1);

/// Whose lists: an authority's, or a tenant's part of it.
type Place = (CaId, Option<TenantId>);

/// What this process knows of them.
#[derive(Default)]
pub(super) struct Known {
    published: Lists,
    due: Mutex<HashMap<Place, Timestamp>>,
    changed: Notify,
    replaced: Notify,
}

impl Known {
    fn due(&self) -> MutexGuard<'_, HashMap<Place, Timestamp>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// They are looked at again at `due`.
    fn publish(&self, place: &Place, (before, kept): (&Kept, &Kept), due: Option<Timestamp>) {
        self.published.publish_kept(kept, before);
        match due {
            Some(due) => self.due().insert(place.clone(), due),
            None => self.due().remove(place),
        };
        self.changed.notify_one();
    }

    /// These authorities went or became others: their lists stay published as they are, and are signed anew only if they
    /// are found with an authority that is there.
    pub(super) fn replaced(&self, went: &[CaId]) {
        self.due().retain(|(ca, _), _| !went.contains(ca));
        self.replaced.notify_one();
    }
}

impl Accounts {
    /// The lists as port 80 gives them.
    #[must_use]
    pub fn lists(&self) -> Lists {
        self.0.lists.published.clone()
    }

    /// Puts a certificate of a tenant, DER, on the list of the authority of our own that issued it, and publishes that. One that is on it
    /// already stays as it is. Gives whether the authority has lists at all.
    ///
    /// # Errors
    /// [`AccountError`]; nothing was revoked then.
    pub async fn put_on_list(
        &self,
        (tenant, ca): (&TenantId, &CaId),
        leaf: &[u8],
        reason: RevocationReason,
    ) -> Result<bool, Arc<AccountError>> {
        let shared = &self.0;
        shared.check_issuing(ca, tenant).await?;
        let account = self.account_for(tenant, &[], ca).await?;
        let Some(authority) = account.lists() else {
            return Ok(false);
        };
        let now = shared.clock.corrected().now();
        let revoked = revoked(ca, leaf, reason, now).map_err(AccountError::Ca)?;
        let place = shared.place(ca, tenant)?;
        let written = shared
            .write_lists(&place, authority, Wanted::With(&revoked))
            .await;
        written.map(|()| true).map_err(Arc::new)
    }

    /// Publishes the lists that the store keeps and signs them anew in time, until the group is cancelled.
    pub async fn keep_lists(self, tasks: Tasks) {
        let cancelled = tasks.token();
        let rounds = async {
            loop {
                self.read_lists().await;
                let scan_at = tokio::time::sleep(SCAN);
                tokio::pin!(scan_at);
                loop {
                    let wait = self.renew_due().await;
                    tokio::select! {
                        () = &mut scan_at => break,
                        () = self.0.lists.replaced.notified() => break,
                        () = tokio::time::sleep(wait) => {}
                        () = self.0.lists.changed.notified() => {}
                    }
                }
            }
        };
        cancelled.run_until_cancelled(rounds).await;
    }

    /// Publishes every list that the store keeps. What it does not tell is read the next time.
    async fn read_lists(&self) {
        for authority in self.authorities().own_all() {
            let ca = authority.id();
            let read = match authority.sharing() {
                Sharing::Everyone => self.0.read_list((ca.clone(), None)).await,
                Sharing::PerTenant => self.0.read_lists_of_tenants(ca).await,
            };
            if let Err(error) = read {
                tracing::warn!(%ca, %error, "the lists of revoked certificates could not be read");
            }
        }
    }

    /// Signs what is due, and gives how long until the next is.
    async fn renew_due(&self) -> Duration {
        let now = self.0.clock.corrected().now();
        let is_due = |(place, at): (&Place, &Timestamp)| (*at <= now).then(|| place.clone());
        let due: Vec<Place> = self.0.lists.due().iter().filter_map(is_due).collect();
        for place in due {
            if let Err(error) = Box::pin(self.renew(&place)).await {
                let (ca, tenant) = (&place.0, place.1.as_ref().map(TenantId::as_str));
                tracing::error!(
                    %ca, tenant, %error, cause = ?std::error::Error::source(&*error),
                    "a list of revoked certificates could not be signed anew: clients use the last one until it ends"
                );
                self.0.lists.due().insert(place, now.plus(RETRY));
            }
        }
        let next = self.0.lists.due().values().min().copied();
        next.map_or(SCAN, |at| at.since(now)).clamp(BREATH, SCAN)
    }

    async fn renew(&self, place: &Place) -> Result<(), Arc<AccountError>> {
        let (ca, tenant) = place;
        let account = match tenant {
            // Nothing is made for a tenant whose keys were destroyed.
            Some(tenant) if !self.0.has_issuing(ca, tenant).await? => {
                return self.0.keep_last_lists(place).await.map_err(Arc::new);
            }
            Some(tenant) => self.account_for(tenant, &[], ca).await?,
            None => self.account(ca).await?,
        };
        let written = self.0.write_lists_of(place, &account).await;
        written.map_err(Arc::new)
    }
}

impl Shared {
    /// Whose lists a tenant's certificates are on.
    fn place(&self, ca: &CaId, tenant: &TenantId) -> Result<Place, AccountError> {
        Ok(match self.authority(ca)?.sharing() {
            Sharing::Everyone => (ca.clone(), None),
            Sharing::PerTenant => (ca.clone(), Some(tenant.clone())),
        })
    }

    async fn read_lists_of_tenants(&self, ca: &CaId) -> Result<(), AccountError> {
        let mut page = PageRequest::first();
        loop {
            let by = Deadline::after(PATIENCE);
            let read = self.store.tenants(by, &TenantScope::upkeep(), &page).await;
            let read = read.map_err(AccountError::Store)?;
            for tenant in read.items {
                self.read_list((ca.clone(), Some(tenant.id))).await?;
            }
            match read.next {
                Some(next) => page = PageRequest::following(next),
                None => return Ok(()),
            }
        }
    }

    async fn read_list(&self, place: Place) -> Result<(), AccountError> {
        if let Some(record) = self.kept_lists(&place).await? {
            let kept = parse(&place.0, &record)?;
            let due = kept.due_at(|_key| true);
            self.lists.publish(&place, (&Kept::default(), &kept), due);
        }
        Ok(())
    }

    async fn kept_lists(
        &self,
        (ca, tenant): &Place,
    ) -> Result<Option<MaterialRecord>, AccountError> {
        let by = Deadline::after(PATIENCE);
        let found = self.store.material(by, ca, &slot(tenant.as_ref())).await;
        found.map_err(AccountError::Store)
    }

    /// Makes the lists of an authority that was just opened, where it signs any and has none. Issuing does not depend on
    /// it: what fails is told, and tried again.
    pub(super) async fn begin_lists(
        &self,
        (ca, tenant): (&CaId, Option<&TenantId>),
        account: &Arc<dyn Account>,
    ) {
        let place = (ca.clone(), tenant.cloned());
        if let Err(error) = self.write_lists_of(&place, account).await {
            tracing::warn!(%ca, %error, "the list of revoked certificates could not be made; tried again within a minute");
            let soon = self.clock.corrected().now().plus(RETRY);
            self.lists.due().entry(place).or_insert(soon);
        }
    }

    async fn write_lists_of(
        &self,
        place: &Place,
        account: &Arc<dyn Account>,
    ) -> Result<(), AccountError> {
        match account.lists() {
            Some(authority) => self.write_lists(place, authority, Wanted::Due).await,
            None => Ok(()),
        }
    }

    /// Signs the last lists of a tenant's issuing keys.
    pub(super) async fn write_last_lists(
        &self,
        ca: &CaId,
        tenant: &TenantId,
        account: &Arc<dyn Account>,
    ) -> Result<(), AccountError> {
        let place = (ca.clone(), Some(tenant.clone()));
        match account.lists() {
            Some(authority) => self.write_lists(&place, authority, Wanted::Last).await,
            None => Ok(()),
        }
    }

    /// Keeps the last lists of keys that are gone until everything that they signed has ended.
    async fn keep_last_lists(&self, place: &Place) -> Result<(), AccountError> {
        let record = self.kept_lists(place).await?;
        let before = record.as_ref().map(|record| parse(&place.0, record));
        let before = before.transpose()?.unwrap_or_default();
        let next = before.without_ended(self.clock.corrected().now());
        if next != before {
            let put = self.put_lists(place, &next, record).await;
            put.map_err(AccountError::Kept)?;
        }
        let due = next.due_at(|_key| false);
        self.lists.publish(place, (&before, &next), due);
        Ok(())
    }

    /// Refuses to revoke what an issuing key signed that was destroyed with its tenant's keys.
    async fn check_issuing(&self, ca: &CaId, tenant: &TenantId) -> Result<(), AccountError> {
        let to_itself = self.authority(ca)?.sharing() == Sharing::PerTenant;
        if to_itself && !self.has_issuing(ca, tenant).await? {
            return Err(AccountError::Ca(CaError::Material {
                ca: ca.clone(),
                slot: format!("the issuing key of {tenant}"),
                why: "it was destroyed with the tenant's keys, and its last list stays as it is"
                    .to_owned(),
            }));
        }
        Ok(())
    }

    /// Brings the lists up to date: kept, then published.
    async fn write_lists(
        &self,
        place: &Place,
        authority: &dyn ListAuthority,
        wanted: Wanted<'_>,
    ) -> Result<(), AccountError> {
        let mut races = 0;
        loop {
            let record = self.kept_lists(place).await?;
            let before = record.as_ref().map(|record| parse(&place.0, record));
            let before = before.transpose()?.unwrap_or_default();
            let now = self.clock.corrected().now();
            let next = before.renewed(authority, wanted, now);
            let next = next.map_err(AccountError::Ca)?;
            let keys = authority.list_keys();
            let due = next.due_at(|key| keys.iter().any(|known| known.key == *key));
            if next == before {
                self.lists.publish(place, (&before, &next), due);
                return Ok(());
            }
            match self.put_lists(place, &next, record).await {
                Ok(()) => {
                    self.lists.publish(place, (&before, &next), due);
                    return Ok(());
                }
                Err(ApplyError::GuardFailed(_)) if races < MOST_RACES => races += 1,
                Err(error) => return Err(AccountError::Kept(error)),
            }
        }
    }

    async fn put_lists(
        &self,
        (ca, tenant): &Place,
        next: &Kept,
        before: Option<MaterialRecord>,
    ) -> Result<(), ApplyError> {
        let (ca, slot) = (ca.clone(), slot(tenant.as_ref()));
        let public = serde_json::to_vec(next);
        let public = public.map_err(|error| ApplyError::Missing(error.to_string()))?;
        let batch = Batch::new()
            .guard(match before {
                Some(before) => Guard::MaterialIs(ca.clone(), slot.clone(), before.public),
                None => Guard::MaterialAbsent(ca.clone(), slot.clone()),
            })
            .then(Operation::PutMaterial(MaterialRecord {
                ca,
                slot,
                public,
                sealed: Vec::new(),
                created_at: self.clock.now(),
            }));
        let by = Deadline::after(PATIENCE);
        let applied = self.store.apply(by, &TenantScope::upkeep(), batch).await;
        applied.map(drop)
    }
}

fn slot(tenant: Option<&TenantId>) -> String {
    tenant.map_or_else(|| SLOT.to_owned(), |tenant| format!("{SLOT}:{tenant}"))
}

fn parse(ca: &CaId, record: &MaterialRecord) -> Result<Kept, AccountError> {
    serde_json::from_slice(&record.public).map_err(|error| {
        AccountError::Ca(CaError::Material {
            ca: ca.clone(),
            slot: record.slot.clone(),
            why: error.to_string(),
        })
    })
}

/// A certificate, DER, as the list of the key that signed it names it.
fn revoked(
    ca: &CaId,
    leaf: &[u8],
    reason: RevocationReason,
    now: Timestamp,
) -> Result<Revoked, CaError> {
    let unusable = |why: &str| CaError::Material {
        ca: ca.clone(),
        slot: "the certificate to revoke".to_owned(),
        why: why.to_owned(),
    };
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|_malformed| unusable("it cannot be read"))?;
    let by =
        signed_by(&certificate).ok_or_else(|| unusable("it does not say which key signed it"))?;
    let facts = chain::facts(&certificate);
    Ok(Revoked {
        by,
        entry: Entry {
            serial: facts.serial,
            at: now,
            reason,
            until: facts.not_after,
        },
    })
}

fn signed_by(certificate: &X509Certificate<'_>) -> Option<IssuerKey> {
    certificate.iter_extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(signer) = extension.parsed_extension() else {
            return None;
        };
        let key = signer.key_identifier.as_ref()?;
        Some(IssuerKey::from_bytes(key.0))
    })
}

#[cfg(test)]
mod tests;
