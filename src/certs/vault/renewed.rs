//! New data keys for owners that have one: what the older ones sealed is sealed anew, then they are destroyed.
//!
//! That an owner has data keys of several numbers is all the state there is: whatever is broken off goes on with the next pass.
//! From the moment that the newest is in the store, everybody seals with it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{PATIENCE, Vault, VaultError, number_of};
use crate::base::clock::monotonic;
use crate::certs::{accounts, credential};
use crate::keys::OpenError;
use crate::keys::sealed::sealed_by;
use crate::model::{TenantId, TenantScope};
use crate::store::batch::{ApplyError, AuditEvent, Batch, Guard, Operation, Resealed, SealedPlace};
use crate::store::job::JobKey;
use crate::store::record::{AuditActor, KeyOwner};
use crate::store::{Deadline, PageRequest};

/// Blobs that one transaction seals anew.
const BATCH: usize = 100;
/// How long the older data keys stay after nothing was found any more that they sealed. Material of a CA is written within
/// seconds of being sealed; what belongs to jobs is guarded by their claims.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// How far the blobs of an owner are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealing {
    /// Sealed anew by this pass.
    pub resealed: u64,
    /// Those that do not open, and keep the older data keys from being destroyed.
    pub stuck: u64,
}

impl Vault {
    /// Makes a new data key for an owner that has one; it seals from now on. [`Vault::reseal`] does the rest. Where older ones are
    /// still there, an earlier call is not done yet, and no further one is made. Gives the newest number; nothing where the
    /// owner has no data key.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn renew_data_key(
        &self,
        owner: &KeyOwner,
        actor: AuditActor,
    ) -> Result<Option<u32>, VaultError> {
        let by = Deadline::after(PATIENCE);
        let store = &self.parts.store;
        let newest = match store.data_key(by, owner, None).await? {
            Some(newest) if !self.is_destroyed(owner, newest.id) => newest.id,
            Some(_) | None => return Ok(None),
        };
        let before = newest.saturating_sub(1);
        if !self.is_destroyed(owner, before)
            && store.data_key(by, owner, Some(before)).await?.is_some()
        {
            self.parts.nudge.notify_one();
            return Ok(Some(newest));
        }
        let next = newest.saturating_add(1);
        let event = AuditEvent {
            owner: owner.clone(),
            actor,
            kind: "keys.data_key_made",
            subject: format!("data key {next}"),
            detail: json!({ "number": next }),
        };
        match self.make(owner, next, Some(event)).await {
            // Another was first.
            Ok(()) | Err(VaultError::Apply(ApplyError::GuardFailed(_))) => {}
            Err(error) => return Err(error),
        }
        self.parts.nudge.notify_one();
        Ok(Some(next))
    }

    /// Seals anew what older data keys of an owner sealed, and destroys them once `grace` has gone by since nothing of the kind was
    /// found any more. Tells whether older ones are left.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn reseal(
        &self,
        owner: &KeyOwner,
        grace: Duration,
    ) -> Result<(Resealing, Older), VaultError> {
        let by = Deadline::after(PATIENCE);
        let Some(newest) = self.parts.store.data_key(by, owner, None).await? else {
            return Ok((Resealing::default(), Older::None));
        };
        let mut done = Resealing::default();
        if let KeyOwner::Tenant(tenant) = owner {
            self.reseal_certificates(tenant, newest.id, &mut done)
                .await?;
            self.reseal_orders(tenant, newest.id, &mut done).await?;
        }
        self.reseal_materials(owner, newest.id, &mut done).await?;
        let older = match done == Resealing::default() && self.is_quiet(owner, grace) {
            true => self.destroy_below(owner, newest.id).await?,
            false => Older::Left,
        };
        if done != Resealing::default() || older == Older::None {
            self.quiet().remove(owner);
        }
        Ok((done, older))
    }

    /// Whether nothing was found for so long.
    fn is_quiet(&self, owner: &KeyOwner, grace: Duration) -> bool {
        let now = monotonic();
        let mut quiet = self.quiet();
        let since = quiet.entry(owner.clone()).or_insert(now);
        now.duration_since(*since) >= grace
    }

    async fn destroy_below(&self, owner: &KeyOwner, number: u32) -> Result<Older, VaultError> {
        let event = AuditEvent {
            owner: owner.clone(),
            actor: AuditActor::System,
            kind: "keys.data_keys_destroyed",
            subject: format!("data keys below {number}"),
            detail: json!({ "below": number }),
        };
        let batch = Batch::new()
            .guard(Guard::NothingSealedBelow(owner.clone(), number))
            .then(Operation::DestroyDataKeysBelow {
                owner: owner.clone(),
                number,
            })
            .audit(event);
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::upkeep();
        match self.parts.store.apply(by, &scope, batch).await {
            Ok(_) => {}
            // A job runs, or an imported certificate came meanwhile: the next pass looks again.
            Err(ApplyError::GuardFailed(_)) => return Ok(Older::Left),
            Err(error) => return Err(VaultError::Apply(error)),
        }
        self.lock()
            .retain(|(of, id), _| of != owner || *id >= number);
        tracing::info!(
            owner = super::named(owner),
            below = number,
            "older data keys are destroyed"
        );
        Ok(Older::None)
    }

    async fn reseal_certificates(
        &self,
        tenant: &TenantId,
        newest: u32,
        done: &mut Resealing,
    ) -> Result<(), VaultError> {
        let mut page = first_page();
        loop {
            let by = Deadline::after(PATIENCE);
            let scope = TenantScope::upkeep();
            let store = &self.parts.store;
            let read = store.certificates(by, &scope, Some(tenant), &page).await?;
            let blobs = read.items.into_iter().filter_map(|record| {
                let name = credential::key_sealed_as(&record.facts)?;
                let place = SealedPlace::Certificate(record.facts.id);
                Some((place, name, record.sealed_key))
            });
            let owner = KeyOwner::Tenant(tenant.clone());
            self.anew(&owner, newest, blobs.collect(), done).await?;
            match read.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn reseal_orders(
        &self,
        tenant: &TenantId,
        newest: u32,
        done: &mut Resealing,
    ) -> Result<(), VaultError> {
        let mut page = first_page();
        loop {
            let by = Deadline::after(PATIENCE);
            let scope = TenantScope::upkeep();
            let store = &self.parts.store;
            let read = store.order_keys(by, &scope, tenant, &page).await?;
            let blobs = read.items.into_iter().filter_map(|order| {
                let JobKey::Certificate(pattern) = &order.job else {
                    return None;
                };
                let name = credential::sealed_as(pattern);
                Some((SealedPlace::Order(order.job), name, order.sealed_key))
            });
            let owner = KeyOwner::Tenant(tenant.clone());
            self.anew(&owner, newest, blobs.collect(), done).await?;
            match read.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// What is kept for the authorities. A row does not tell whose it is; a blob opens for its owner alone. Where an older data key
    /// does not open, any of them may be its owner's: that data key stays.
    async fn reseal_materials(
        &self,
        owner: &KeyOwner,
        newest: u32,
        done: &mut Resealing,
    ) -> Result<(), VaultError> {
        let mut page = first_page();
        let mut closed = BTreeSet::new();
        loop {
            let by = Deadline::after(PATIENCE);
            let read = self.parts.store.materials(by, &page).await?;
            let mut blobs = Vec::new();
            for record in read.items {
                let number = match sealed_by(&record.sealed) {
                    Some(number) if number < newest && !closed.contains(&number) => number,
                    Some(_) | None => continue,
                };
                let name = accounts::sealed_as(&record.ca, &record.slot);
                match self.whose(owner, &name, &record.sealed).await? {
                    Whose::Theirs => {
                        let place = SealedPlace::Material(record.ca, record.slot);
                        blobs.push((place, name, record.sealed));
                    }
                    Whose::Anothers => {}
                    Whose::Unknown(error) => {
                        closed.insert(number);
                        done.stuck += 1;
                        tracing::warn!(owner = super::named(owner), number, %error, "may have sealed what is kept for a CA; the data key stays");
                    }
                }
            }
            self.anew(owner, newest, blobs, done).await?;
            match read.next {
                Some(next) => page.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Whether a blob is an owner's, by opening it.
    async fn whose(
        &self,
        owner: &KeyOwner,
        name: &str,
        sealed: &[u8],
    ) -> Result<Whose, VaultError> {
        match self.open(owner, name, sealed).await {
            Ok(_) => Ok(Whose::Theirs),
            Err(
                VaultError::KeyGone { .. }
                | VaultError::Open {
                    source: OpenError::Forged,
                    ..
                },
            ) => Ok(Whose::Anothers),
            Err(VaultError::Store(error)) => Err(VaultError::Store(error)),
            Err(error) => Ok(Whose::Unknown(error)),
        }
    }

    /// Seals those of the blobs anew that an older data key sealed.
    async fn anew(
        &self,
        owner: &KeyOwner,
        newest: u32,
        blobs: Vec<(SealedPlace, String, Vec<u8>)>,
        done: &mut Resealing,
    ) -> Result<(), VaultError> {
        let mut batch = Batch::new();
        for (place, name, from) in blobs {
            if sealed_by(&from).is_none_or(|number| number >= newest) {
                continue;
            }
            match self.open(owner, &name, &from).await {
                Ok(plain) => {
                    let to = self.seal(owner, &name, &plain).await?;
                    done.resealed += 1;
                    let owner = owner.clone();
                    batch = batch.then(Operation::Reseal(Box::new(Resealed {
                        owner,
                        place,
                        from,
                        to,
                    })));
                }
                Err(VaultError::Store(error)) => return Err(VaultError::Store(error)),
                Err(error) => {
                    done.stuck += 1;
                    let number = number_of(&name, &from)?;
                    tracing::warn!(owner = super::named(owner), name, number, %error, "cannot be sealed anew; its data key stays");
                }
            }
        }
        if batch.operations.is_empty() {
            return Ok(());
        }
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::upkeep();
        let applied = self.parts.store.apply(by, &scope, batch).await;
        applied.map(drop).map_err(VaultError::Apply)
    }
}

/// Whose a blob is.
enum Whose {
    /// The owner's that was asked for.
    Theirs,
    /// Somebody else's: no data key of that owner seals it.
    Anothers,
    /// It cannot be known while the owner's data key does not open.
    Unknown(VaultError),
}

/// Whether older data keys of an owner are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// There are: another pass is needed.
    Left,
    /// There are none.
    None,
}

fn first_page() -> PageRequest {
    PageRequest {
        after: None,
        most: BATCH,
    }
}

#[cfg(test)]
mod tests;
