//! The exchange of the key-encryption key, and what keeps every data key wrapped by the right one.
//!
//! A pass goes over all data keys, page by page. One that is wrapped by another key than the one that wraps now is wrapped
//! anew, if the key that opens it is at hand; one that does not open is left as it is and told of. So a pass is what an exchange
//! consists of, what finishes one that was broken off, and what takes up a restored backup from before an exchange.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde_json::json;

use super::{PATIENCE, Vault};
use crate::keys::ring::{KeyRing, retired_file};
use crate::keys::{KekError, KekId, UnwrapError};
use crate::model::TenantScope;
use crate::store::batch::{ApplyError, AuditEvent, Batch, Guard, Operation};
use crate::store::error::StoreError;
use crate::store::record::{AuditActor, DataKeyRecord, KeyOwner};
use crate::store::{Deadline, Page, PageRequest};

/// Data keys that one transaction wraps anew.
const BATCH: usize = 200;
/// Owners that are named of those whose data keys do not open for one reason.
const MOST_NAMED: usize = 20;

/// What a pass over all data keys found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Data keys in the store.
    pub data_keys: u64,
    /// Those of them that the pass wrapped anew.
    pub rewrapped: u64,
    /// Those that do not open, by reason.
    pub unreadable: Vec<Unreadable>,
}

impl Census {
    /// How many data keys do not open.
    #[must_use]
    pub fn unreadable_keys(&self) -> u64 {
        self.unreadable.iter().map(|group| group.data_keys).sum()
    }

    /// Whether this key-encryption key was looked for and is not at hand.
    fn misses(&self, id: KekId) -> bool {
        let mut groups = self.unreadable.iter();
        groups.any(
            |group| matches!(&group.reason, Reason::Missing { id: missing, .. } if *missing == id),
        )
    }

    fn add_unreadable(&mut self, reason: Reason, owner: &KeyOwner) {
        let known = self
            .unreadable
            .iter()
            .position(|group| group.reason == reason);
        let fresh = || Unreadable {
            reason,
            data_keys: 0,
            owners: Vec::new(),
        };
        let mut group = match known {
            Some(at) => self.unreadable.swap_remove(at),
            None => fresh(),
        };
        group.data_keys += 1;
        if group.owners.len() < MOST_NAMED && !group.owners.contains(owner) {
            group.owners.push(owner.clone());
        }
        self.unreadable.push(group);
    }
}

/// Data keys that do not open for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The reason.
    pub reason: Reason,
    /// How many.
    pub data_keys: u64,
    /// The first owners of them.
    pub owners: Vec<KeyOwner>,
}

/// Why a data key does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The key-encryption key that wrapped it is not at hand.
    Missing {
        /// That key.
        id: KekId,
        /// Where it is looked for.
        file: PathBuf,
    },
    /// It was changed, belongs to another owner, or has an unknown format.
    Damaged,
}

/// What is wrong and what to do, for the operator.
impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&str> = self.owners.iter().map(super::named).collect();
        let more = match self.data_keys > self.owners.len() as u64 {
            true => " and others",
            false => "",
        };
        let whose = format!("{}{more}", named.join(", "));
        match &self.reason {
            Reason::Missing { id, file } => write!(
                f,
                "{} data keys are wrapped by key-encryption key {id}, which is not at hand: put its file back as {} \
                 (mode 0600); until then nothing is served from the store or renewed for {whose}",
                self.data_keys,
                file.display()
            ),
            Reason::Damaged => write!(
                f,
                "{} data keys were changed in the store or belong to another owner, those of {whose}: restore a backup, or \
                 remove the certificates of these tenants and have new ones issued",
                self.data_keys
            ),
        }
    }
}

/// An exchange that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underway {
    /// The key before.
    pub from: KekId,
    /// The new key; it wraps already.
    pub to: KekId,
    /// Data keys that this process has gone over in the present pass.
    pub done: u64,
}

/// An exchange that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// The key before.
    pub from: KekId,
    /// The key now.
    pub to: KekId,
    /// Data keys that were wrapped anew, by this process.
    pub data_keys: u64,
    /// Where the key before lies: what backups made before the exchange are opened with.
    pub retired: PathBuf,
}

/// How the keys stand.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// The exchange that is under way.
    pub exchange: Option<Underway>,
    /// Why the last pass was broken off; another follows by itself.
    pub trouble: Option<String>,
    /// The last exchange that this process finished.
    pub last: Option<Exchanged>,
    /// What the last whole pass found; nothing before the first.
    pub census: Option<Census>,
}

/// Why an exchange did not begin or a pass did not come to its end. What was begun is still under way then.
#[derive(Debug)]
pub enum ExchangeError {
    /// There is no usable key.
    Kek(KekError),
    /// The store did not take a change.
    Apply(ApplyError),
    /// The store failed.
    Store(StoreError),
    /// The files cannot be moved or written.
    Files(io::Error),
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kek(_) => "there is no usable key-encryption key to change from or to",
            Self::Apply(_) => "the store did not take a change of the data keys",
            Self::Store(_) => "the store did not give the data keys",
            Self::Files(_) => {
                "the files beside the key-encryption key cannot be changed; its folder must be writable by this user"
            }
        })
    }
}

impl std::error::Error for ExchangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match self {
            Self::Kek(source) => source,
            Self::Apply(source) => source,
            Self::Store(source) => source,
            Self::Files(source) => source,
        })
    }
}

impl Vault {
    /// Whether an exchange of the key-encryption key is under way.
    #[must_use]
    pub fn is_exchanging(&self) -> bool {
        self.parts.ring.load().is_exchanging()
    }

    /// The key-encryption key that wraps now, and the file it is configured to lie in.
    #[must_use]
    pub fn wraps_with(&self) -> (KekId, PathBuf) {
        let ring = self.parts.ring.load();
        (ring.current().id(), ring.file().to_owned())
    }

    /// How the keys stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::clone(&self.parts.standing.load())
    }

    /// Begins an exchange of the key-encryption key, where none is under way: from now on a new key beside the old wraps, and
    /// both open. [`Vault::settle`] does the rest.
    ///
    /// # Errors
    /// [`ExchangeError`]; nothing has begun then.
    pub async fn begin_exchange(&self, actor: AuditActor) -> Result<Underway, ExchangeError> {
        // Nobody makes a data key meanwhile: what is wrapped by the old key is in the store before the passes begin.
        let _alone = self.parts.wrapping.write().await;
        let begins = !self.is_exchanging();
        let file = self.parts.ring.load().file().to_owned();
        let ring = KeyRing::exchange(&file).map_err(ExchangeError::Kek)?;
        let under_way = under_way(&ring, 0);
        self.parts.ring.publish(ring);
        self.change(|standing| standing.exchange = Some(under_way));
        if begins {
            tracing::info!(from = %under_way.from, to = %under_way.to, "exchanging the key-encryption key");
            self.tell(actor, "keys.exchange_began", under_way).await?;
        }
        self.parts.nudge.notify_one();
        Ok(under_way)
    }

    /// Wraps every data key that is not wrapped by the right key-encryption key anew, and ends the exchange that is under
    /// way, if any. Idempotent; whatever is broken off goes on with the next call.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn settle(&self) -> Result<Census, ExchangeError> {
        let _alone = self.parts.settling.lock().await;
        let mut rewrapped = 0;
        // Until a whole pass finds nothing more to do.
        let census = loop {
            let census = self.pass().await?;
            rewrapped += census.rewrapped;
            if census.rewrapped == 0 {
                break census;
            }
        };
        let done = match self.is_exchanging() {
            true => Some(self.end_exchange(rewrapped).await?),
            false => None,
        };
        self.change(|standing| {
            standing.exchange = None;
            standing.trouble = None;
            standing.last = done.clone().or_else(|| standing.last.clone());
            standing.census = Some(census.clone());
        });
        Ok(Census {
            rewrapped,
            ..census
        })
    }

    async fn end_exchange(&self, data_keys: u64) -> Result<Exchanged, ExchangeError> {
        let ring = self.parts.ring.get();
        let ids = under_way(&ring, data_keys);
        let retired = ring.finish().map_err(ExchangeError::Files)?;
        let renewed = KeyRing::load(ring.file()).map_err(ExchangeError::Kek)?;
        self.parts.ring.publish(renewed);
        self.tell(AuditActor::System, "keys.exchanged", ids).await?;
        let (from, to) = (ids.from, ids.to);
        tracing::info!(
            %from, %to, data_keys, retired = %retired.display(),
            "key-encryption key exchanged: copy the new one apart from the backups"
        );
        Ok(Exchanged {
            from,
            to,
            data_keys,
            retired,
        })
    }

    async fn tell(
        &self,
        actor: AuditActor,
        kind: &'static str,
        ids: Underway,
    ) -> Result<(), ExchangeError> {
        let event = AuditEvent {
            owner: KeyOwner::Platform,
            actor,
            kind,
            subject: "key-encryption key".to_owned(),
            detail: json!({ "from": ids.from.to_string(), "to": ids.to.to_string() }),
        };
        self.apply(Batch::new().audit(event)).await
    }

    pub(super) async fn apply(&self, batch: Batch) -> Result<(), ExchangeError> {
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::upkeep();
        let applied = self.parts.store.apply(by, &scope, batch).await;
        applied.map(drop).map_err(ExchangeError::Apply)
    }

    /// One pass over all data keys.
    async fn pass(&self) -> Result<Census, ExchangeError> {
        let mut census = Census::default();
        let mut request = PageRequest {
            after: None,
            most: BATCH,
        };
        loop {
            let page = self.data_keys(&request).await?;
            let (seen, batch) = self.judge(&page.items, census.clone());
            match self.write(batch).await {
                Ok(()) => census = seen,
                // One was destroyed or wrapped by another meanwhile: this page again.
                Err(ExchangeError::Apply(ApplyError::GuardFailed(_))) => continue,
                Err(error) => return Err(error),
            }
            self.change(|standing| {
                if let Some(under_way) = &mut standing.exchange {
                    under_way.done = census.data_keys;
                }
            });
            match page.next {
                Some(next) => request.after = Some(next),
                None => return Ok(census),
            }
        }
    }

    async fn data_keys(&self, request: &PageRequest) -> Result<Page<DataKeyRecord>, ExchangeError> {
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::upkeep();
        let page = self.parts.store.data_keys(by, &scope, request).await;
        page.map_err(ExchangeError::Store)
    }

    async fn write(&self, batch: Batch) -> Result<(), ExchangeError> {
        match batch.operations.is_empty() {
            true => Ok(()),
            false => self.apply(batch).await,
        }
    }

    /// What is to be written for these data keys, and the census with them.
    fn judge(&self, records: &[DataKeyRecord], mut census: Census) -> (Census, Batch) {
        let mut batch = Batch::new();
        for record in records {
            census.data_keys += 1;
            // What was destroyed for good is not carried over to a new key.
            if self.is_destroyed(&record.owner, record.id) {
                continue;
            }
            match self.rewrap(record, &census) {
                Ok(None) => {}
                Ok(Some(wrapped)) => {
                    census.rewrapped += 1;
                    batch = batch
                        .guard(Guard::DataKeyIs(Box::new(record.clone())))
                        .then(Operation::PutDataKey(DataKeyRecord {
                            wrapped,
                            ..record.clone()
                        }));
                }
                Err(error) => census.add_unreadable(self.reason(&error), &record.owner),
            }
        }
        (census, batch)
    }

    fn rewrap(
        &self,
        record: &DataKeyRecord,
        census: &Census,
    ) -> Result<Option<Vec<u8>>, UnwrapError> {
        let rewrap = || {
            let ring = self.parts.ring.load();
            ring.rewrap(record.owner.as_str(), record.id, &record.wrapped)
        };
        match rewrap() {
            // Looked for once in a pass, not for each data key.
            Err(UnwrapError::OtherKek { wrapped_by, held }) if !census.misses(wrapped_by) => {
                match self.look_again(&UnwrapError::OtherKek { wrapped_by, held }) {
                    true => rewrap(),
                    false => Err(UnwrapError::OtherKek { wrapped_by, held }),
                }
            }
            result => result,
        }
    }

    fn reason(&self, error: &UnwrapError) -> Reason {
        match error {
            UnwrapError::OtherKek { wrapped_by, .. } => Reason::Missing {
                id: *wrapped_by,
                file: retired_file(self.parts.ring.load().file(), *wrapped_by),
            },
            UnwrapError::UnknownFormat | UnwrapError::Forged => Reason::Damaged,
        }
    }

    pub(super) fn change(&self, how: impl Fn(&mut Standing)) {
        self.parts.standing.update(|standing| {
            let mut next = standing.clone();
            how(&mut next);
            next
        });
    }
}

fn under_way(ring: &KeyRing, done: u64) -> Underway {
    let to = ring.current().id();
    Underway {
        from: ring.before().unwrap_or(to),
        to,
        done,
    }
}
