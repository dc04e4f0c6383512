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

use super::ended::IssuingKey;
use super::{AccountError, Accounts, MOST_RACES, PATIENCE, Shared};
use crate::base::clock::Timestamp;
use crate::base::task::Tasks;
use crate::ca::{Account, CaError, ListAuthority, Sharing};
use crate::certs::chain;
use crate::certs::lists::{Entry, Kept, Lists, Revoked, Wanted};
use crate::certs::vault::VaultError;
use crate::model::certificate::CaId;
use crate::model::issuer_key::IssuerKey;
use crate::model::revocation::RevocationReason;
use crate::model::{TenantId, TenantScope};
use crate::store::batch::{Guard, Operation};
use crate::store::record::MaterialRecord;
use crate::store::{ApplyError, Batch, Deadline, PageRequest, StoreError};

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
    /// already stays as it is but for its reason. Gives whether the authority has lists at all.
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
        let issuing = shared.issuing_key(ca, tenant).await?;
        if issuing != IssuingKey::Destroyed
            && self.account_for(tenant, &[], ca).await?.lists().is_none()
        {
            return Ok(false);
        }
        let now = shared.clock.corrected().now();
        let revoked = revoked(ca, leaf, reason, now).map_err(AccountError::Ca)?;
        let place = shared.place((ca, tenant), &revoked.by).await?;
        if issuing == IssuingKey::Destroyed && place.1.is_some() {
            return Err(Arc::new(destroyed(ca, tenant)));
        }
        let written = self.bring_up_to_date(&place, Wanted::With(&revoked)).await;
        written.map(|()| true)
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

    /// Publishes every list that the store keeps, also of a part that issues no more since tenants began to share an
    /// authority or ceased to. What the store does not tell is read the next time.
    async fn read_lists(&self) {
        let own = self.authorities().own_all();
        let own: Vec<CaId> = own.iter().map(|authority| authority.id().clone()).collect();
        if own.is_empty() {
            return;
        }
        if let Err(error) = self.0.read_lists(&own).await {
            tracing::warn!(%error, "the lists of revoked certificates could not be read");
        }
    }

    /// Signs what is due, and gives how long until the next is.
    async fn renew_due(&self) -> Duration {
        let now = self.0.clock.corrected().now();
        let is_due = |(place, at): (&Place, &Timestamp)| (*at <= now).then(|| place.clone());
        let due: Vec<Place> = self.0.lists.due().iter().filter_map(is_due).collect();
        for place in due {
            if let Err(error) = Box::pin(self.bring_up_to_date(&place, Wanted::Due)).await {
                if is_past(&error) {
                    tracing::debug!(?place, %error, "the last list stands until it ends");
                    self.0.lists.due().remove(&place);
                    continue;
                }
                let (ca, tenant) = (&place.0, place.1.as_ref().map(TenantId::as_str));
                tracing::error!(
                    %ca, tenant, %error, cause = std::error::Error::source(&*error).map(ToString::to_string),
                    "a list of revoked certificates could not be signed anew: clients use the last one until it ends"
                );
                self.0.lists.due().insert(place, now.plus(RETRY));
            }
        }
        let next = self.0.lists.due().values().min().copied();
        next.map_or(SCAN, |at| at.since(now)).clamp(BREATH, SCAN)
    }

    /// Brings the lists of a place up to date, with one more certificate on them or none: by the account that issues there,
    /// or by what is kept of it where none does any more.
    async fn bring_up_to_date(
        &self,
        place: &Place,
        wanted: Wanted<'_>,
    ) -> Result<(), Arc<AccountError>> {
        let (ca, tenant) = place;
        let sharing = self.0.authority(ca).map_err(Arc::new)?.sharing();
        let account = match (sharing, tenant) {
            (_, Some(tenant)) if self.0.issuing_key(ca, tenant).await? != IssuingKey::There => {
                // Nothing is made for a tenant whose keys were destroyed.
                return self.0.keep_last_lists(place).await.map_err(Arc::new);
            }
            (Sharing::Everyone, None) => self.account(ca).await?,
            (Sharing::PerTenant, Some(tenant)) => self.account_for(tenant, &[], ca).await?,
            (Sharing::Everyone, Some(_)) | (Sharing::PerTenant, None) => {
                let written = self.0.write_former_lists(place, wanted).await;
                return written.map_err(Arc::new);
            }
        };
        let written = self.0.write_lists_of(place, &account, wanted).await;
        written.map_err(Arc::new)
    }
}

/// Whether no list will ever be signed there again: the tenant's keys were destroyed for good.
fn is_past(error: &AccountError) -> bool {
    matches!(error, AccountError::Vault(VaultError::KeyGone { .. }))
}

impl Shared {
    /// On whose lists a certificate of a tenant is that this key signed: where the key is known, from before its authority was
    /// shared or since; else where it would be if it were issued now.
    async fn place(
        &self,
        (ca, tenant): (&CaId, &TenantId),
        by: &IssuerKey,
    ) -> Result<Place, AccountError> {
        let (all, own) = ((ca.clone(), None), (ca.clone(), Some(tenant.clone())));
        let (present, former) = match self.authority(ca)?.sharing() {
            Sharing::Everyone => (all, own),
            Sharing::PerTenant => (own, all),
        };
        for place in [&present, &former] {
            if let Some(record) = self.kept_lists(place).await?
                && parse(&record)?.holds(by)
            {
                return Ok(place.clone());
            }
        }
        Ok(present)
    }

    /// Publishes the lists of these authorities. One that cannot be read keeps no other back.
    async fn read_lists(&self, of: &[CaId]) -> Result<(), StoreError> {
        let mut page = PageRequest::first();
        loop {
            let by = Deadline::after(PATIENCE);
            let read = self.store.materials(by, &page).await?;
            for record in read.items.iter().filter(|record| of.contains(&record.ca)) {
                self.read_list(record);
            }
            match read.next {
                Some(next) => page = PageRequest::following(next),
                None => return Ok(()),
            }
        }
    }

    /// Publishes what is kept, where it is lists.
    fn read_list(&self, record: &MaterialRecord) {
        let Some(place) = place_of(record) else {
            return;
        };
        match parse(record) {
            Ok(kept) => {
                let due = kept.due_at(|_key| true);
                self.lists.publish(&place, (&Kept::default(), &kept), due);
            }
            Err(error) => tracing::error!(
                ca = %record.ca, slot = record.slot, %error,
                "a list of revoked certificates cannot be read: clients get none from here, and those that ask for one \
                 refuse the certificates on it"
            ),
        }
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
        if let Err(error) = self.write_lists_of(&place, account, Wanted::Due).await {
            tracing::warn!(%ca, %error, "the list of revoked certificates could not be made; tried again within a minute");
            let soon = self.clock.corrected().now().plus(RETRY);
            self.lists.due().entry(place).or_insert(soon);
        }
    }

    async fn write_lists_of(
        &self,
        place: &Place,
        account: &Arc<dyn Account>,
        wanted: Wanted<'_>,
    ) -> Result<(), AccountError> {
        match account.lists() {
            Some(authority) => self.write_lists(place, authority, wanted).await,
            None => Ok(()),
        }
    }

    async fn write_former_lists(
        &self,
        place: &Place,
        wanted: Wanted<'_>,
    ) -> Result<(), AccountError> {
        let (ca, tenant) = place;
        let all = self.authority(ca)?;
        let own = tenant.as_ref().map(|tenant| all.confined_to(tenant, &[]));
        let Some(authority) = own.unwrap_or_else(|| Some(Arc::clone(&all))) else {
            return Ok(());
        };
        let kept = self.load(authority.as_ref()).await?.material;
        let signs = authority.former_lists(&kept, self.clock.corrected().now());
        match signs {
            Some(signs) => self.write_lists(place, &*signs, wanted).await,
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
        let before = record.as_ref().map(parse);
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
            let before = record.as_ref().map(parse).transpose()?;
            let before = before.unwrap_or_default();
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

/// Whose lists a record holds; nothing where it holds something else.
fn place_of(record: &MaterialRecord) -> Option<Place> {
    let ca = record.ca.clone();
    match record.slot.strip_prefix(SLOT)? {
        "" => Some((ca, None)),
        tenant => {
            let tenant = TenantId::parse(tenant.strip_prefix(':')?).ok()?;
            Some((ca, Some(tenant)))
        }
    }
}

fn parse(record: &MaterialRecord) -> Result<Kept, AccountError> {
    serde_json::from_slice(&record.public).map_err(|error| {
        AccountError::Ca(CaError::Material {
            ca: record.ca.clone(),
            slot: record.slot.clone(),
            why: error.to_string(),
        })
    })
}

/// Nothing more is put on the last list of an issuing key that was destroyed with its tenant's keys.
fn destroyed(ca: &CaId, tenant: &TenantId) -> AccountError {
    AccountError::Ca(CaError::Material {
        ca: ca.clone(),
        slot: format!("the issuing key of {tenant}"),
        why: "it was destroyed with the tenant's keys, and its last list stays as it is".to_owned(),
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
