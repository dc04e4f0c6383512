//! The exchange of the key-encryption key, and what keeps every data key wrapped by the right one.
//!
//! A pass goes over all data keys, page by page. One that is wrapped by another key than the one that wraps now is wrapped
//! anew, if the key that opens it is at hand; one that does not open is left as it is and told of. So a pass is what an exchange
//! consists of, what finishes one that was broken off, and what takes up a restored backup from before an exchange.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{PATIENCE, Vault};
use crate::base::clock::{Instant, monotonic};
use crate::keys::custody::Custody;
use crate::keys::ring::KeyRing;
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

/// Owners of several data keys that are looked after at a time.
const MOST_SEVERAL: usize = 1000;

/// What a pass over all data keys found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Data keys in the store.
    pub data_keys: u64,
    /// Those of them that the pass wrapped anew.
    pub rewrapped: u64,
    /// Those that do not open, by reason.
    pub unreadable: Vec<Unreadable>,
    /// Owners with data keys of several numbers: what the older ones sealed is to be sealed anew. Some of them, where there are
    /// very many.
    pub several: Vec<KeyOwner>,
    /// The owner that the last data key belongs to.
    last: Option<KeyOwner>,
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

    /// Counts a data key that was not destroyed; they come in the order of their owners.
    fn add(&mut self, owner: &KeyOwner) {
        if self.last.as_ref() != Some(owner) {
            self.last = Some(owner.clone());
        } else if self.several.last() != Some(owner) && self.several.len() < MOST_SEVERAL {
            self.several.push(owner.clone());
        }
    }

    /// Adds data keys that do not open; none where it is the file alone that is told of.
    pub(super) fn add_unreadable(&mut self, reason: Reason, owner: &KeyOwner, data_keys: u64) {
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
        group.data_keys += data_keys;
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
    /// The tenant's own key-encryption key cannot be used.
    Unusable {
        /// Its file.
        file: PathBuf,
        /// What is wrong with it, and what repairs that.
        why: String,
    },
    /// The file of a key-encryption key that is in use cannot be read any more. Everything opens, until the next start.
    Vanished {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what repairs that.
        why: String,
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
                "{} wrapped by key-encryption key {id}, which is not at hand: put its file back as {} (mode 0600); until \
                 then nothing is served from the store or renewed for {whose}",
                counted(self.data_keys, ["data key is", "data keys are"]),
                file.display()
            ),
            Reason::Unusable { why, .. } => write!(
                f,
                "the own key-encryption key of {whose} cannot be used: {why}; {} for it, and none is made meanwhile",
                counted(self.data_keys, ["data key waits", "data keys wait"])
            ),
            Reason::Vanished { why, .. } => write!(
                f,
                "the key-encryption key of {whose} is in memory only: {why}; everything serves until the next start, which \
                 fails without it",
            ),
            Reason::Damaged => write!(
                f,
                "{} changed in the store or of another owner, of {whose}: restore a backup, or remove the certificates of \
                 these tenants and have new ones issued",
                counted(self.data_keys, ["data key is", "data keys are"])
            ),
        }
    }
}

/// A number with the words for one and for many.
fn counted(count: u64, [one, many]: [&str; 2]) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
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

impl Underway {
    fn of(ring: &KeyRing, done: u64) -> Self {
        let to = ring.current().id();
        Self {
            from: ring.before().unwrap_or(to),
            to,
            done,
        }
    }
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
    /// When that was.
    pub counted: Option<Instant>,
}

/// Why an exchange did not begin or a pass did not come to its end. What was begun is still under way then.
#[derive(Debug)]
pub enum ExchangeError {
    /// There is no usable key.
    Kek(KekError),
    /// The tenant's own key cannot be used.
    Own(Arc<KekError>),
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
            Self::Kek(_) | Self::Own(_) => "there is no usable key-encryption key to change from or to",
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
            Self::Own(source) => &**source,
            Self::Apply(source) => source,
            Self::Store(source) => source,
            Self::Files(source) => source,
        })
    }
}

impl Vault {
    /// Whether an exchange of a key-encryption key is under way.
    #[must_use]
    pub fn is_exchanging(&self) -> bool {
        self.parts.custody.load().exchanging().next().is_some()
    }

    /// The key-encryption keys at hand.
    #[must_use]
    pub fn custody(&self) -> Arc<Custody> {
        self.parts.custody.get()
    }

    /// How the keys stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::clone(&self.parts.standing.load())
    }

    /// Begins an exchange of the key-encryption key that wraps this owner's data keys (a tenant's own, or the platform's),
    /// where none is under way: from now on a new key beside the old wraps, and both open. [`Vault::settle`] does the rest.
    ///
    /// # Errors
    /// [`ExchangeError`]; nothing has begun then.
    pub async fn begin_exchange(
        &self,
        owner: &KeyOwner,
        actor: AuditActor,
    ) -> Result<Underway, ExchangeError> {
        // Nobody makes a data key meanwhile: what is wrapped by the old key is in the store before the passes begin.
        let _alone = self.parts.wrapping.write().await;
        let slug = owner.as_str();
        let (ring, begins) = {
            let custody = self.parts.custody.load();
            let ring = custody
                .ring(slug)
                .map_err(|error| ExchangeError::Own(Arc::clone(error)))?;
            (ring.file().to_owned(), !ring.is_exchanging())
        };
        let under_way = self.change_custody(|custody| {
            let ring = KeyRing::exchange(&ring).map_err(ExchangeError::Kek)?;
            let under_way = Underway::of(&ring, 0);
            Ok((custody.with_ring(slug, ring), under_way))
        })?;
        self.change(|standing| standing.exchange = Some(under_way));
        if begins {
            tracing::info!(from = %under_way.from, to = %under_way.to, "exchanging the key-encryption key");
            let kind = "keys.exchange_began";
            self.tell(owner.clone(), actor, kind, under_way).await?;
        }
        self.parts.nudge.notify_one();
        Ok(under_way)
    }

    /// Wraps every data key that is not wrapped by the right key-encryption key anew, and ends the exchanges that are under
    /// way. Idempotent; whatever is broken off goes on with the next call.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn settle(&self) -> Result<Census, ExchangeError> {
        let _alone = self.parts.settling.lock().await;
        let files = self.read_files();
        let exchanging = self.exchanging();
        let (leaving, moving) = (self.leaving(), self.moving());
        let mut rewrapped = 0;
        // Until a whole pass finds nothing more to do.
        let mut census = loop {
            let census = self.pass().await?;
            rewrapped += census.rewrapped;
            if census.rewrapped == 0 {
                break census;
            }
        };
        let mut done = None;
        // One that began meanwhile has not been gone over: it nudged, and its turn is next.
        for (owner, under_way) in exchanging {
            done = Some(self.end_exchange(owner, under_way, rewrapped).await?);
        }
        for slug in leaving {
            self.set_own(&slug, None);
        }
        self.forget_before(&moving);
        for (reason, owner) in files {
            census.add_unreadable(reason, &owner, 0);
        }
        let next = self.exchanging().pop();
        self.change(|standing| {
            standing.exchange = next.as_ref().map(|(_, under_way)| *under_way);
            standing.trouble = None;
            standing.last = done.clone().or_else(|| standing.last.clone());
            standing.census = Some(census.clone());
            standing.counted = Some(monotonic());
        });
        Ok(Census {
            rewrapped,
            ..census
        })
    }

    /// Whose keys are being exchanged, and by what.
    fn exchanging(&self) -> Vec<(KeyOwner, Underway)> {
        let custody = self.parts.custody.load();
        let under_way = custody.exchanging();
        let under_way = under_way
            .filter_map(|(owner, ring)| Some((super::own::owner(owner)?, Underway::of(ring, 0))));
        under_way.collect()
    }

    async fn end_exchange(
        &self,
        owner: KeyOwner,
        under_way: Underway,
        data_keys: u64,
    ) -> Result<Exchanged, ExchangeError> {
        let slug = owner.as_str();
        let retired = self.change_custody(|custody| {
            let ring = custody
                .ring(slug)
                .map_err(|error| ExchangeError::Own(Arc::clone(error)))?;
            let file = ring.file().to_owned();
            let retired = ring.finish().map_err(ExchangeError::Files)?;
            let renewed = KeyRing::load(&file).map_err(ExchangeError::Kek)?;
            Ok((custody.with_ring(slug, renewed), retired))
        })?;
        let (from, to) = (under_way.from, under_way.to);
        self.tell(owner, AuditActor::System, "keys.exchanged", under_way)
            .await?;
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
        owner: KeyOwner,
        actor: AuditActor,
        kind: &'static str,
        ids: Underway,
    ) -> Result<(), ExchangeError> {
        let event = AuditEvent {
            owner,
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

    /// What a pass would find now, with nothing written; nothing where it takes longer than `within`.
    ///
    /// # Errors
    /// [`ExchangeError::Store`].
    pub async fn look(&self, within: Duration) -> Result<Option<Census>, ExchangeError> {
        let began = monotonic();
        let files = self.read_files();
        let mut census = Census::default();
        let mut request = PageRequest {
            after: None,
            most: BATCH,
        };
        loop {
            let page = self.data_keys(&request).await?;
            census = self.judge(&page.items, census).0;
            match page.next {
                None => break,
                Some(_) if monotonic().saturating_duration_since(began) >= within => {
                    return Ok(None);
                }
                Some(next) => request.after = Some(next),
            }
        }
        for (reason, owner) in files {
            census.add_unreadable(reason, &owner, 0);
        }
        Ok(Some(census))
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
        let mut ended = None;
        for record in records {
            // What was destroyed for good is not carried over to a new key, and goes again where a restored backup brought it back.
            if self.is_destroyed(&record.owner, record.id) {
                if let KeyOwner::Tenant(tenant) = &record.owner
                    && ended.as_ref() != Some(tenant)
                {
                    let (end, event) = self.end_again(tenant);
                    batch = batch.then(end).audit(event);
                    ended = Some(tenant.clone());
                }
                continue;
            }
            census.data_keys += 1;
            census.add(&record.owner);
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
                Err(error) => {
                    let reason = self.reason(&record.owner, &error);
                    census.add_unreadable(reason, &record.owner, 1);
                }
            }
        }
        (census, batch)
    }

    fn rewrap(
        &self,
        record: &DataKeyRecord,
        census: &Census,
    ) -> Result<Option<Vec<u8>>, UnwrapError> {
        let owner = record.owner.as_str();
        let rewrap = || {
            let custody = self.parts.custody.load();
            custody.rewrap(owner, record.id, &record.wrapped)
        };
        let first = rewrap();
        match &first {
            // Looked for once in a pass, not for each data key.
            Err(error @ UnwrapError::OtherKek { wrapped_by, .. })
                if !census.misses(*wrapped_by) && self.look_again(&record.owner, error) =>
            {
                rewrap()
            }
            Ok(_) | Err(_) => first,
        }
    }

    fn reason(&self, owner: &KeyOwner, error: &UnwrapError) -> Reason {
        let UnwrapError::OtherKek { wrapped_by, .. } = error else {
            return Reason::Damaged;
        };
        let custody = self.parts.custody.load();
        match custody.ring(owner.as_str()) {
            Err(why) => Reason::Unusable {
                file: custody.place(owner.as_str(), *wrapped_by),
                why: super::own::whole(why),
            },
            Ok(_) => Reason::Missing {
                id: *wrapped_by,
                file: custody.place(owner.as_str(), *wrapped_by),
            },
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
