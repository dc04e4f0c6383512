//! Seals and opens what must not lie in the store in the clear, with the owners' data keys.
//!
//! The vault makes an owner's data key on first use and keeps opened ones in memory, bounded. It never makes a new
//! key-encryption key over a store that has data keys: such a store with a missing or wrong key does not start, for a
//! start with "no certificate" would order them all again.

pub mod exchange;

pub mod keeping;

pub mod destroy;

pub mod own;

pub mod renewed;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Serial, Notify, RwLock};

use crate::base::clock::Instant;
use crate::base::published::Published;
use crate::base::secret::Secret;
use crate::keys::custody::Custody;
use crate::keys::destroyed::Destroyed;
use crate::keys::ring::KeyRing;
use crate::keys::sealed::sealed_by;
use crate::keys::{self, DataKey, KekError, KekId, KeyEncryptionKey, OpenError, UnwrapError};
use crate::model::TenantScope;
use crate::store::batch::{ApplyError, AuditEvent, Batch, Guard, Operation};
use crate::store::error::StoreError;
use crate::store::record::{DataKeyRecord, KeyOwner};
use crate::store::{Deadline, Store};

/// Opened data keys that are kept; each takes about a kilobyte.
const MOST_KEYS: usize = 4096;
/// How long the store may take for a data key.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of an owner's first data key.
const FIRST: u32 = 1;

/// Why something was not sealed or opened.
#[derive(Debug)]
pub enum VaultError {
    /// There is no usable key-encryption key.
    Kek(KekError),
    /// The owner is to have a key-encryption key of its own, which cannot be used. The platform's does not take its place.
    OwnKek {
        /// Whose.
        owner: KeyOwner,
        /// The key that is wanted; nothing where none is wanted yet.
        wrapped_by: Option<KekId>,
        /// Why it cannot be used.
        source: Arc<KekError>,
    },
    /// The store's data keys were wrapped by another key-encryption key, or were changed.
    Unwrap {
        /// Whose data key it is.
        owner: KeyOwner,
        /// Where the key-encryption key that opens it is looked for.
        key_file: std::path::PathBuf,
        /// Why it does not open.
        source: UnwrapError,
    },
    /// The data key that sealed it is gone.
    KeyGone {
        /// Whose it was.
        owner: KeyOwner,
        /// Its number.
        number: u32,
    },
    /// The sealed content does not open.
    Open {
        /// Its name.
        name: String,
        /// Why.
        source: OpenError,
    },
    /// It is not known which keys were destroyed for good.
    Destroyed(std::io::Error),
    /// The machine gives no random bytes.
    NoRandomness,
    /// The store did not take a new data key.
    Apply(ApplyError),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kek(KekError::Missing(path)) => write!(
                f,
                "the store holds keys, but the key-encryption key that opens them is missing: put the file back at \
                 {}, or set [keys] to where it is; nothing is served or ordered without it",
                path.display()
            ),
            Self::Kek(_) => f.write_str("there is no usable key-encryption key"),
            Self::OwnKek {
                owner,
                wrapped_by: Some(id),
                ..
            } => write!(
                f,
                "the data key of tenant {} is wrapped by key-encryption key {id}, and the tenant's own cannot be used",
                named(owner)
            ),
            Self::OwnKek { owner, .. } => write!(
                f,
                "tenant {} is to have a key-encryption key of its own, which cannot be used",
                named(owner)
            ),
            Self::Unwrap {
                owner: owner @ KeyOwner::Platform,
                key_file,
                ..
            } => write!(
                f,
                "{} does not open the data key of {}; put the key-encryption key that belongs to this store there",
                key_file.display(),
                named(owner)
            ),
            Self::Unwrap {
                owner,
                key_file,
                source: UnwrapError::OtherKek { wrapped_by, .. },
            } => write!(
                f,
                "no key at hand opens the data key of tenant {}: put the file of key-encryption key {wrapped_by} at {}",
                named(owner),
                key_file.display()
            ),
            Self::Unwrap { owner, .. } => write!(
                f,
                "the data key of tenant {} in the store cannot be used: restore it from a backup",
                named(owner)
            ),
            Self::KeyGone { owner, number } => {
                write!(
                    f,
                    "data key {number} of {} has been destroyed",
                    named(owner)
                )
            }
            Self::Open { name, .. } => write!(f, "the sealed content of {name} does not open"),
            Self::Destroyed(_) => f.write_str(
                "the list of destroyed keys beside the key-encryption key cannot be read; nothing is opened without it",
            ),
            Self::NoRandomness => f.write_str("the machine gives no random bytes"),
            Self::Apply(_) => f.write_str("the store did not take a new data key"),
            Self::Store(_) => f.write_str("the store did not give a data key"),
        }
    }
}

impl std::error::Error for VaultError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kek(source) => Some(source),
            Self::OwnKek { source, .. } => Some(&**source),
            Self::Unwrap { source, .. } => Some(source),
            Self::Open { source, .. } => Some(source),
            Self::Destroyed(source) => Some(source),
            Self::Apply(source) => Some(source),
            Self::Store(source) => Some(source),
            Self::KeyGone { .. } | Self::NoRandomness => None,
        }
    }
}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn named(owner: &KeyOwner) -> &str {
    match owner {
        KeyOwner::Platform => "the platform",
        KeyOwner::Tenant(tenant) => tenant.as_str(),
    }
}

/// Seals and opens. Clones are the same vault.
#[derive(Clone, Debug)]
pub struct Vault {
    parts: Arc<Parts>,
}

struct Parts {
    store: Arc<dyn Store>,
    custody: Published<Custody>,
    /// Held while the keys at hand are changed.
    changing: Mutex<()>,
    /// What was destroyed for good.
    destroyed: Published<Destroyed>,
    /// Held to make a data key, and alone to change the key that wraps.
    wrapping: RwLock<()>,
    /// One run of passes at a time.
    settling: Serial<()>,
    /// One change of the list at a time.
    destroying: Serial<()>,
    /// How the data keys stand.
    standing: Published<exchange::Standing>,
    /// Since when nothing was found that an older data key of these owners sealed.
    quiet: Mutex<HashMap<KeyOwner, Instant>>,
    /// Wakes who goes over the data keys.
    nudge: Notify,
    opened: Mutex<Opened>,
}

/// Opened keys by owner and number, each with the wrapped form that it came from.
type Opened = HashMap<(KeyOwner, u32), (Vec<u8>, Arc<DataKey>)>;

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("custody", &self.custody.load())
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Reads the key-encryption key, or makes it where the store is new, and starts the vault with it: what a start of
    /// the program calls.
    ///
    /// # Errors
    /// [`VaultError::Kek`] where the key is missing and the store is not new, or is not usable; and as
    /// [`Vault::start`].
    pub async fn unlock(
        store: Arc<dyn Store>,
        settings: &keys::Settings,
    ) -> Result<Self, VaultError> {
        let known = store
            .data_key(Deadline::after(PATIENCE), &KeyOwner::Platform, None)
            .await?;
        let ring = match known {
            Some(_) => KeyRing::load(&settings.key_file),
            None => KeyRing::load_or_create(&settings.key_file),
        };
        Self::over(store, ring.map_err(VaultError::Kek)?).await
    }

    /// Starts the vault, and makes the platform's data key in a store that has none.
    ///
    /// # Errors
    /// [`VaultError::Unwrap`] where `kek` is not the key that belongs to the store.
    pub async fn start(store: Arc<dyn Store>, kek: KeyEncryptionKey) -> Result<Self, VaultError> {
        Self::over(store, KeyRing::of(kek)).await
    }

    async fn over(store: Arc<dyn Store>, ring: KeyRing) -> Result<Self, VaultError> {
        let destroyed = Destroyed::load(ring.file()).map_err(VaultError::Destroyed)?;
        let vault = Self {
            parts: Arc::new(Parts {
                store,
                custody: Published::new(Custody::of(ring)),
                changing: Mutex::default(),
                destroyed: Published::new(destroyed),
                wrapping: RwLock::default(),
                settling: Serial::default(),
                destroying: Serial::default(),
                standing: Published::new(exchange::Standing::default()),
                quiet: Mutex::default(),
                nudge: Notify::new(),
                opened: Mutex::default(),
            }),
        };
        vault.current(&KeyOwner::Platform).await?;
        Ok(vault)
    }

    /// Seals `plain` for `owner` under `name`, with a data key that is made on first use.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn seal(
        &self,
        owner: &KeyOwner,
        name: &str,
        plain: &Secret,
    ) -> Result<Vec<u8>, VaultError> {
        let key = self.current(owner).await?;
        key.seal(name, plain).ok_or(VaultError::NoRandomness)
    }

    /// Opens what was sealed for `owner` under `name`; asks the store for a data key that is not in memory.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn open(
        &self,
        owner: &KeyOwner,
        name: &str,
        sealed: &[u8],
    ) -> Result<Secret, VaultError> {
        let number = number_of(name, sealed)?;
        if let Some(key) = self.remembered(owner, number)
            && let Ok(plain) = key.open(name, sealed)
        {
            return Ok(plain);
        }
        // Not in memory, or destroyed and made anew by another process since.
        let found = self
            .parts
            .store
            .data_key(Deadline::after(PATIENCE), owner, Some(number))
            .await?;
        let record = found.ok_or_else(|| VaultError::KeyGone {
            owner: owner.clone(),
            number,
        })?;
        self.open_with(&record, name, sealed)
    }

    /// Opens what was sealed for `record`'s owner under `name` with the data key in `record`, without asking the store.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn open_with(
        &self,
        record: &DataKeyRecord,
        name: &str,
        sealed: &[u8],
    ) -> Result<Secret, VaultError> {
        let key = self.opened(record)?;
        key.open(name, sealed).map_err(|source| VaultError::Open {
            name: name.to_owned(),
            source,
        })
    }

    /// Whether what an owner's data key of this number sealed can be opened, or, without a number, whether its newest data key is
    /// there to seal or could be made. Makes nothing.
    ///
    /// # Errors
    /// [`VaultError`] says why not.
    pub async fn check(&self, owner: &KeyOwner, number: Option<u32>) -> Result<(), VaultError> {
        if number.is_some_and(|number| self.remembered(owner, number).is_some()) {
            return Ok(());
        }
        let by = Deadline::after(PATIENCE);
        let found = self.parts.store.data_key(by, owner, number).await?;
        match (found, number) {
            (Some(record), None) if self.is_destroyed(owner, record.id) => self.can_wrap(owner),
            (Some(record), _) => self.opened(&record).map(drop),
            (None, Some(number)) => Err(VaultError::KeyGone {
                owner: owner.clone(),
                number,
            }),
            (None, None) => self.can_wrap(owner),
        }
    }

    fn can_wrap(&self, owner: &KeyOwner) -> Result<(), VaultError> {
        let custody = self.parts.custody.load();
        custody
            .ring(owner.as_str())
            .map(drop)
            .map_err(|source| VaultError::OwnKek {
                owner: owner.clone(),
                wrapped_by: None,
                source: Arc::clone(source),
            })
    }

    /// Forgets the opened data keys of an owner: after its keys were destroyed in the store.
    pub fn forget(&self, owner: &KeyOwner) {
        self.lock().retain(|(of, _), _| of != owner);
    }

    /// The owner's newest data key; made where there is none. Asks the store each time: another process may have
    /// destroyed it, and what is sealed with a destroyed key is lost.
    async fn current(&self, owner: &KeyOwner) -> Result<Arc<DataKey>, VaultError> {
        let newest = || {
            let by = Deadline::after(PATIENCE);
            self.parts.store.data_key(by, owner, None)
        };
        if let Some(record) = newest().await?
            && !self.is_destroyed(owner, record.id)
        {
            return self.opened(&record);
        }
        let made = self.make(owner, self.first_number(owner), None).await;
        match (made, newest().await?) {
            (Ok(()), Some(record)) => self.opened(&record),
            // Another made it at the same time.
            (Err(VaultError::Apply(ApplyError::GuardFailed(_))), Some(record)) => {
                self.opened(&record)
            }
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(VaultError::KeyGone {
                owner: owner.clone(),
                number: self.first_number(owner),
            }),
        }
    }

    /// Ends when somebody wants the data keys gone over.
    async fn nudged(&self) {
        self.parts.nudge.notified().await;
    }

    async fn make(
        &self,
        owner: &KeyOwner,
        number: u32,
        event: Option<AuditEvent>,
    ) -> Result<(), VaultError> {
        let _wrapping = self.parts.wrapping.read().await;
        let wrapped = self.wrap_new(owner, number)?;
        let record = DataKeyRecord {
            owner: owner.clone(),
            id: number,
            wrapped,
        };
        let mut batch = Batch::new()
            .guard(Guard::DataKeyAbsent(owner.clone(), number))
            .then(Operation::PutDataKey(record));
        batch.audit.extend(event);
        let scope = match owner {
            KeyOwner::Platform => TenantScope::upkeep(),
            KeyOwner::Tenant(tenant) => TenantScope::certificate_work(tenant.clone()),
        };
        let by = Deadline::after(PATIENCE);
        let applied = self.parts.store.apply(by, &scope, batch).await;
        applied.map(drop).map_err(VaultError::Apply)
    }

    fn wrap_new(&self, owner: &KeyOwner, number: u32) -> Result<Vec<u8>, VaultError> {
        let custody = self.parts.custody.load();
        let ring = custody.ring(owner.as_str()).map_err(|source| {
            let owner = owner.clone();
            let source = Arc::clone(source);
            VaultError::OwnKek {
                owner,
                wrapped_by: None,
                source,
            }
        })?;
        let created = DataKey::create(ring.current(), owner.as_str(), number);
        let (_, wrapped) = created.ok_or(VaultError::NoRandomness)?;
        Ok(wrapped)
    }

    /// The key in a record, from memory where the same wrapped form was opened before.
    fn opened(&self, record: &DataKeyRecord) -> Result<Arc<DataKey>, VaultError> {
        let place = (record.owner.clone(), record.id);
        if let Some((wrapped, key)) = self.lock().get(&place)
            && *wrapped == record.wrapped
        {
            return Ok(Arc::clone(key));
        }
        if self.is_destroyed(&record.owner, record.id) {
            return Err(VaultError::KeyGone {
                owner: record.owner.clone(),
                number: record.id,
            });
        }
        let unwrap = || {
            let custody = self.parts.custody.load();
            custody.unwrap(record.owner.as_str(), record.id, &record.wrapped)
        };
        let key = match unwrap() {
            Err(error) if self.look_again(&record.owner, &error) => unwrap(),
            result => result,
        };
        let key = Arc::new(key.map_err(|source| self.refused(record, source))?);
        let mut opened = self.lock();
        if opened.len() >= MOST_KEYS
            && let Some(any) = opened.keys().next().cloned()
        {
            // Opening it again costs microseconds: which one goes does not matter.
            opened.remove(&any);
        }
        opened.insert(place, (record.wrapped.clone(), Arc::clone(&key)));
        Ok(key)
    }

    fn refused(&self, record: &DataKeyRecord, source: UnwrapError) -> VaultError {
        let custody = self.parts.custody.load();
        let owner = record.owner.clone();
        let key_file = match (&owner, &source) {
            (KeyOwner::Tenant(tenant), UnwrapError::OtherKek { wrapped_by, .. }) => {
                if let Err(why) = custody.ring(tenant.as_str()) {
                    return VaultError::OwnKek {
                        owner,
                        wrapped_by: Some(*wrapped_by),
                        source: Arc::clone(why),
                    };
                }
                custody.place(tenant.as_str(), *wrapped_by)
            }
            (
                _,
                UnwrapError::OtherKek { .. } | UnwrapError::UnknownFormat | UnwrapError::Forged,
            ) => custody.platform().file().to_owned(),
        };
        VaultError::Unwrap {
            owner,
            key_file,
            source,
        }
    }

    /// The number of the first data key that may be made for an owner: behind those that were destroyed.
    fn first_number(&self, owner: &KeyOwner) -> u32 {
        let through = self.parts.destroyed.load().through(owner.as_str());
        through.saturating_add(FIRST)
    }

    fn is_destroyed(&self, owner: &KeyOwner, number: u32) -> bool {
        self.parts.destroyed.load().holds(owner.as_str(), number)
    }

    /// Where a key is not at hand, another process may have exchanged it meanwhile, or a backup from before an exchange is
    /// in use: what lies on the disk is read again. Tells whether the key is there now.
    fn look_again(&self, owner: &KeyOwner, error: &UnwrapError) -> bool {
        let UnwrapError::OtherKek { wrapped_by, .. } = error else {
            return false;
        };
        let read = self.change_custody(|custody| {
            let read = custody.read_again(owner.as_str(), *wrapped_by)?;
            let found = read.is_some();
            Ok::<_, KekError>((read.unwrap_or_else(|| custody.clone()), found))
        });
        read.unwrap_or_else(|error| {
            tracing::warn!(%error, "the key-encryption key cannot be read again");
            false
        })
    }

    fn remembered(&self, owner: &KeyOwner, number: u32) -> Option<Arc<DataKey>> {
        let opened = self.lock();
        let (_, key) = opened.get(&(owner.clone(), number))?;
        Some(Arc::clone(key))
    }

    fn quiet(&self) -> std::sync::MutexGuard<'_, HashMap<KeyOwner, Instant>> {
        let quiet = self.parts.quiet.lock();
        quiet.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Opened> {
        // Every change of the map is one call: it is whole even where its holder panicked.
        self.parts
            .opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn number_of(name: &str, sealed: &[u8]) -> Result<u32, VaultError> {
    sealed_by(sealed).ok_or_else(|| VaultError::Open {
        name: name.to_owned(),
        source: OpenError::UnknownFormat,
    })
}

#[cfg(test)]
mod tests;
