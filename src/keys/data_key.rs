//! Data keys, and their wrapped form.
//!
//! # The wrapped form, 69 bytes
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 8 | the identity of the key-encryption key |
//! | 12 | nonce |
//! | 32 | the data key, encrypted with AES-256-GCM |
//! | 16 | tag |
//!
//! Associated data, each field as its length (4 bytes, big-endian) and its bytes: `vestibule data key`; the version
//! (1 byte); the owner (the tenant's slug, nothing for the platform); the number (4 bytes, big-endian).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::keys::context::Context;
use crate::keys::kek::{KekId, KeyEncryptionKey};
use crate::keys::{KEY_BYTES, NONCE_BYTES, TAG_BYTES};

const VERSION: u8 = 1;
const ID_BYTES: usize = 8;
const WRAPPED_BYTES: usize = 1 + ID_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES;

/// Why a wrapped data key does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnwrapError {
    /// Another key-encryption key wrapped it.
    OtherKek {
        /// The one that did.
        wrapped_by: KekId,
        /// The owner's that is at hand; nothing where it is to have one of its own that cannot be used.
        held: Option<KekId>,
    },
    /// It is of a format that this version does not know.
    UnknownFormat,
    /// It was changed, or belongs to another owner or number.
    Forged,
}

impl fmt::Display for UnwrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKek {
                wrapped_by,
                held: Some(held),
            } => write!(
                f,
                "the data key was wrapped by key-encryption key {wrapped_by}, but {held} is configured"
            ),
            Self::OtherKek {
                wrapped_by,
                held: None,
            } => write!(
                f,
                "the data key was wrapped by key-encryption key {wrapped_by}, which is not at hand"
            ),
            Self::UnknownFormat => f.write_str("the data key has an unknown format"),
            Self::Forged => f.write_str("the data key was changed or belongs to another owner"),
        }
    }
}

impl std::error::Error for UnwrapError {}

/// A key that seals what belongs to one owner. Never printed.
pub struct DataKey {
    owner: Box<str>,
    number: u32,
    pub(super) cipher: RandomizedNonceKey,
}

impl DataKey {
    /// Makes a new key and wraps it. Nothing where the machine gives no random bytes.
    #[must_use]
    pub fn create(kek: &KeyEncryptionKey, owner: &str, number: u32) -> Option<(Self, Vec<u8>)> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut *key).ok()?;
        let wrapped = seal(kek, owner, number, &*key)?;
        Some((Self::from_key(&*key, owner, number)?, wrapped))
    }

    /// Opens a wrapped key of `owner` with this `number`.
    ///
    /// # Errors
    /// [`UnwrapError`].
    pub fn unwrap_with(
        kek: &KeyEncryptionKey,
        owner: &str,
        number: u32,
        wrapped: &[u8],
    ) -> Result<Self, UnwrapError> {
        let key = open(kek, owner, number, wrapped)?;
        Self::from_key(&key, owner, number).ok_or(UnwrapError::UnknownFormat)
    }

    /// The same key, wrapped by the second key-encryption key instead of the first.
    ///
    /// # Errors
    /// [`UnwrapError`]; [`UnwrapError::Forged`] where the machine gives no random bytes either.
    pub fn rewrap(
        (old, new): (&KeyEncryptionKey, &KeyEncryptionKey),
        owner: &str,
        number: u32,
        wrapped: &[u8],
    ) -> Result<Vec<u8>, UnwrapError> {
        let key = open(old, owner, number, wrapped)?;
        seal(new, owner, number, &key).ok_or(UnwrapError::Forged)
    }

    /// Whose it is: a tenant's slug, nothing for the platform.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Its number among the owner's.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    fn from_key(key: &[u8], owner: &str, number: u32) -> Option<Self> {
        Some(Self {
            owner: owner.into(),
            number,
            cipher: RandomizedNonceKey::new(&AES_256_GCM, key).ok()?,
        })
    }
}

/// Names owner and number, never the key.
impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey")
            .field("owner", &self.owner)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

fn seal(kek: &KeyEncryptionKey, owner: &str, number: u32, key: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = Zeroizing::new(Vec::with_capacity(KEY_BYTES + TAG_BYTES));
    sealed.extend_from_slice(key);
    let aad = Aad::from(context(owner, number));
    let nonce = kek
        .cipher
        .seal_in_place_append_tag(aad, &mut *sealed)
        .ok()?;
    let mut wrapped = Vec::with_capacity(WRAPPED_BYTES);
    wrapped.push(VERSION);
    wrapped.extend_from_slice(&kek.id().0);
    wrapped.extend_from_slice(nonce.as_ref());
    wrapped.extend_from_slice(&sealed);
    Some(wrapped)
}

fn open(
    kek: &KeyEncryptionKey,
    owner: &str,
    number: u32,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, UnwrapError> {
    let (id, nonce, sealed) = split(wrapped).ok_or(UnwrapError::UnknownFormat)?;
    if id != kek.id() {
        return Err(UnwrapError::OtherKek {
            wrapped_by: id,
            held: Some(kek.id()),
        });
    }
    let mut key = Zeroizing::new(sealed.to_vec());
    let opened = kek
        .cipher
        .open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context(owner, number)),
            &mut key,
        )
        .map_err(|_unspecified| UnwrapError::Forged)?
        .len();
    key.truncate(opened);
    Ok(key)
}

/// Which key-encryption key wrapped a data key; nothing where the format is unknown.
#[must_use]
pub fn wrapped_by(wrapped: &[u8]) -> Option<KekId> {
    split(wrapped).map(|(id, ..)| id)
}

fn split(wrapped: &[u8]) -> Option<(KekId, [u8; NONCE_BYTES], &[u8])> {
    let (version, rest) = wrapped.split_first()?;
    let (id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let known = *version == VERSION && wrapped.len() == WRAPPED_BYTES;
    known.then_some((KekId(*id), *nonce, sealed))
}

fn context(owner: &str, number: u32) -> Vec<u8> {
    Context::of("vestibule data key")
        .field(&[VERSION])
        .field(owner.as_bytes())
        .field(&number.to_be_bytes())
        .as_bytes()
        .to_vec()
}

#[cfg(test)]
pub(in crate::keys) mod tests {
    use super::*;
    use crate::keys::kek;

    /// Wrapped by the key-encryption key of [`kek::tests::golden`] for tenant `acme`, number 7.
    pub(in crate::keys) const GOLDEN_WRAPPED: &str = "01929847af0f6897a3000102030405060708090a0b2367b07cad8ca870e12cf9e4c1980a1ef7a3f1\
        4388022507441a9bfa9de88231de58f87aef79792234bd2758b158d9bc";

    /// The same key under another owner: what a careless copy of a row would give.
    pub(in crate::keys) fn moved_to(key: DataKey, owner: &str) -> DataKey {
        DataKey {
            owner: owner.into(),
            ..key
        }
    }

    #[test]
    fn the_wrapped_form_is_final() {
        let kek = kek::tests::golden();
        let wrapped = crate::keys::sealed::tests::unhex(GOLDEN_WRAPPED);
        assert!(DataKey::unwrap_with(&kek, "acme", 7, &wrapped).is_ok());
        assert_eq!(wrapped_by(&wrapped), Some(kek.id()));
    }

    #[test]
    fn a_key_opens_for_its_own_owner_and_number_only() {
        let kek = kek::tests::golden();
        let (_, wrapped) = DataKey::create(&kek, "acme", 1).unwrap();
        assert_eq!(wrapped.len(), WRAPPED_BYTES);
        assert!(DataKey::unwrap_with(&kek, "acme", 1, &wrapped).is_ok());
        for (owner, number) in [("globex", 1), ("", 1), ("acme", 2)] {
            let refused = DataKey::unwrap_with(&kek, owner, number, &wrapped).unwrap_err();
            assert_eq!(refused, UnwrapError::Forged);
        }
    }

    #[test]
    fn every_changed_bit_is_found() {
        let kek = kek::tests::golden();
        let (_, wrapped) = DataKey::create(&kek, "acme", 1).unwrap();
        for bit in 0..wrapped.len() * 8 {
            let mut changed = wrapped.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(DataKey::unwrap_with(&kek, "acme", 1, &changed).is_err());
        }
        for length in 0..wrapped.len() {
            let refused = DataKey::unwrap_with(&kek, "acme", 1, &wrapped[..length]).unwrap_err();
            assert_eq!(refused, UnwrapError::UnknownFormat);
        }
    }

    #[test]
    fn another_key_encryption_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let other = KeyEncryptionKey::create(&folder.path().join("kek")).unwrap();
        let kek = kek::tests::golden();
        let (_, wrapped) = DataKey::create(&kek, "acme", 1).unwrap();
        let refused = DataKey::unwrap_with(&other, "acme", 1, &wrapped).unwrap_err();
        let text = refused.to_string();
        let (ours, theirs) = (kek.id().to_string(), other.id().to_string());
        assert!(text.contains(&ours) && text.contains(&theirs), "{text}");
    }
}
