//! Seals and opens what must not lie in the store in the clear, with the owners' data keys.
//!
//! The vault makes an owner's data key on first use and keeps opened ones in memory, bounded. It never makes a new
//! key-encryption key over a store that has data keys: such a store with a missing or wrong key does not start, for a
//! start with "no certificate" would order them all again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::secret::Secret;
use crate::keys::sealed::sealed_by;
use crate::keys::{self, DataKey, KekError, KeyEncryptionKey, OpenError, UnwrapError};
use crate::model::TenantScope;
use crate::store::batch::{ApplyError, Batch, Guard, Operation};
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
    /// The store's data keys were wrapped by another key-encryption key, or were changed.
    Unwrap {
        /// Whose data key it is.
        owner: KeyOwner,
        /// The file of the key-encryption key at hand.
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
            Self::Unwrap {
                owner, key_file, ..
            } => write!(
                f,
                "{} does not open the data key of {}; put the key-encryption key that belongs to this store there",
                key_file.display(),
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
            Self::Unwrap { source, .. } => Some(source),
            Self::Open { source, .. } => Some(source),
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
    kek: KeyEncryptionKey,
    opened: Mutex<Opened>,
}

/// Opened keys by owner and number, each with the wrapped form that it came from.
type Opened = HashMap<(KeyOwner, u32), (Vec<u8>, Arc<DataKey>)>;

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("kek", &self.kek)
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
        let kek = match known {
            Some(_) => KeyEncryptionKey::load(&settings.key_file),
            None => KeyEncryptionKey::load_or_create(&settings.key_file),
        };
        Self::start(store, kek.map_err(VaultError::Kek)?).await
    }

    /// Starts the vault, and makes the platform's data key in a store that has none.
    ///
    /// # Errors
    /// [`VaultError::Unwrap`] where `kek` is not the key that belongs to the store.
    pub async fn start(store: Arc<dyn Store>, kek: KeyEncryptionKey) -> Result<Self, VaultError> {
        let vault = Self {
            parts: Arc::new(Parts {
                store,
                kek,
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
        if let Some(record) = newest().await? {
            return self.opened(&record);
        }
        let made = self.make(owner).await;
        match (made, newest().await?) {
            (Ok(()), Some(record)) => self.opened(&record),
            // Another made it at the same time.
            (Err(ApplyError::GuardFailed(_)), Some(record)) => self.opened(&record),
            (Err(error), _) => Err(VaultError::Apply(error)),
            (Ok(()), None) => Err(VaultError::KeyGone {
                owner: owner.clone(),
                number: FIRST,
            }),
        }
    }

    async fn make(&self, owner: &KeyOwner) -> Result<(), ApplyError> {
        let Some((_, wrapped)) = DataKey::create(&self.parts.kek, owner.as_str(), FIRST) else {
            return Err(ApplyError::Missing("random bytes".to_owned()));
        };
        let record = DataKeyRecord {
            owner: owner.clone(),
            id: FIRST,
            wrapped,
        };
        let batch = Batch::new()
            .guard(Guard::DataKeyAbsent(owner.clone(), FIRST))
            .then(Operation::PutDataKey(record));
        let scope = match owner {
            KeyOwner::Platform => TenantScope::upkeep(),
            KeyOwner::Tenant(tenant) => TenantScope::certificate_work(tenant.clone()),
        };
        let by = Deadline::after(PATIENCE);
        self.parts.store.apply(by, &scope, batch).await.map(drop)
    }

    /// The key in a record, from memory where the same wrapped form was opened before.
    fn opened(&self, record: &DataKeyRecord) -> Result<Arc<DataKey>, VaultError> {
        let place = (record.owner.clone(), record.id);
        if let Some((wrapped, key)) = self.lock().get(&place)
            && *wrapped == record.wrapped
        {
            return Ok(Arc::clone(key));
        }
        let owner = record.owner.as_str();
        let key = DataKey::unwrap_with(&self.parts.kek, owner, record.id, &record.wrapped);
        let key = Arc::new(key.map_err(|source| VaultError::Unwrap {
            owner: record.owner.clone(),
            key_file: self.parts.kek.file().to_owned(),
            source,
        })?);
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

    fn remembered(&self, owner: &KeyOwner, number: u32) -> Option<Arc<DataKey>> {
        let opened = self.lock();
        let (_, key) = opened.get(&(owner.clone(), number))?;
        Some(Arc::clone(key))
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
mod tests {
    use super::*;
    use std::path::Path;

    use crate::base::clock::Clock;
    use crate::base::task::Tasks;
    use crate::model::TenantId;
    use crate::store::embedded::{Embedded, Settings};

    async fn store(folder: &Path) -> Arc<dyn Store> {
        let settings = Settings::in_folder(folder.join("data"));
        let opened = Embedded::open(settings, Clock::system(), &Tasks::new()).await;
        Arc::new(opened.unwrap())
    }

    fn at(folder: &Path) -> keys::Settings {
        keys::Settings {
            key_file: folder.join("kek"),
        }
    }

    fn tenant(slug: &str) -> KeyOwner {
        KeyOwner::Tenant(TenantId::parse(slug).unwrap())
    }

    fn secret() -> Secret {
        Secret::from("private".to_owned())
    }

    #[tokio::test]
    async fn a_new_store_gets_its_keys_and_a_later_start_opens_what_was_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let vault = Vault::unlock(Arc::clone(&store), &at(folder.path()))
            .await
            .unwrap();
        let blob = vault.seal(&tenant("acme"), "n", &secret()).await.unwrap();
        let later = Vault::unlock(Arc::clone(&store), &at(folder.path()))
            .await
            .unwrap();
        let opened = later.open(&tenant("acme"), "n", &blob).await.unwrap();
        assert_eq!(opened.expose(), b"private");
        let record = store
            .data_key(Deadline::after(PATIENCE), &tenant("acme"), None)
            .await
            .unwrap()
            .unwrap();
        let opened = later.open_with(&record, "n", &blob).unwrap();
        assert_eq!(opened.expose(), b"private");
    }

    #[tokio::test]
    async fn a_missing_key_over_an_existing_store_is_never_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        Vault::unlock(Arc::clone(&store), &at(folder.path()))
            .await
            .unwrap();
        let file = at(folder.path()).key_file;
        std::fs::remove_file(&file).unwrap();
        let error = Vault::unlock(store, &at(folder.path())).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("missing") && text.contains(file.to_str().unwrap()),
            "{text}"
        );
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn a_wrong_key_stops_the_start_and_both_keys_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let file = at(folder.path()).key_file;
        Vault::unlock(Arc::clone(&store), &at(folder.path()))
            .await
            .unwrap();
        let right = KeyEncryptionKey::load(&file).unwrap().id().to_string();
        std::fs::remove_file(&file).unwrap();
        let wrong = KeyEncryptionKey::create(&file).unwrap().id().to_string();
        let error = Vault::unlock(store, &at(folder.path())).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.contains(&right) && source.contains(&wrong),
            "{source}"
        );
        assert!(
            error.to_string().contains(file.to_str().unwrap()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_belongs_to_another_tenant_or_name_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::unlock(store(folder.path()).await, &at(folder.path()))
            .await
            .unwrap();
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let ours = vault.seal(&acme, "n", &secret()).await.unwrap();
        vault.seal(&globex, "n", &secret()).await.unwrap();
        for (owner, name) in [(&globex, "n"), (&acme, "m")] {
            let refused = vault.open(owner, name, &ours).await;
            assert!(matches!(refused, Err(VaultError::Open { .. })));
        }
    }

    #[tokio::test]
    async fn many_first_uses_at_once_make_one_data_key() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::unlock(store(folder.path()).await, &at(folder.path()))
            .await
            .unwrap();
        let owner = tenant("acme");
        let secret = secret();
        let seals = (0..20).map(|_| vault.seal(&owner, "n", &secret));
        let blobs = futures_util::future::try_join_all(seals).await.unwrap();
        for blob in blobs {
            assert!(vault.open(&owner, "n", &blob).await.is_ok());
        }
    }

    #[tokio::test]
    async fn nothing_is_sealed_with_a_destroyed_key() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let vault = Vault::unlock(Arc::clone(&store), &at(folder.path()))
            .await
            .unwrap();
        let owner = tenant("acme");
        let old = vault.seal(&owner, "n", &secret()).await.unwrap();
        let batch = Batch::new().then(Operation::DestroyDataKeys {
            tenant: TenantId::parse("acme").unwrap(),
        });
        let by = Deadline::after(PATIENCE);
        store
            .apply(by, &TenantScope::operator(), batch)
            .await
            .unwrap();
        // This vault was not told to forget.
        let new = vault.seal(&owner, "n", &secret()).await.unwrap();
        let other = Vault::unlock(store, &at(folder.path())).await.unwrap();
        assert!(other.open(&owner, "n", &new).await.is_ok());
        assert!(vault.open(&owner, "n", &new).await.is_ok());
        vault.forget(&owner);
        assert!(vault.open(&owner, "n", &old).await.is_err());
    }
}
