//! Sealed blobs: what a data key protects.
//!
//! # The form
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 4 | the number of the owner's data key, big-endian |
//! | 12 | nonce |
//! | n | the content, encrypted with AES-256-GCM |
//! | 16 | tag |
//!
//! Associated data, each field as its length (4 bytes, big-endian) and its bytes: `vestibule sealed`; the version (1
//! byte); the owner (the tenant's slug, nothing for the platform); the name of the thing; the number of the data key (4
//! bytes, big-endian).

use std::fmt;

use aws_lc_rs::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use crate::base::secret::Secret;
use crate::keys::context::Context;
use crate::keys::data_key::DataKey;
use crate::keys::{NONCE_BYTES, TAG_BYTES};

const VERSION: u8 = 1;
const NUMBER_BYTES: usize = 4;

/// Why a sealed blob does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It is of a format that this version does not know.
    UnknownFormat,
    /// Another data key sealed it.
    OtherKey {
        /// The number of the one that did.
        sealed_by: u32,
        /// The number of the one at hand.
        held: u32,
    },
    /// It was changed, or belongs to another owner or another name.
    Forged,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFormat => f.write_str("the sealed content has an unknown format"),
            Self::OtherKey { sealed_by, held } => {
                write!(f, "data key {sealed_by} sealed it, but {held} is at hand")
            }
            Self::Forged => {
                f.write_str("the sealed content was changed or belongs to another owner or name")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl DataKey {
    /// Seals `content` for this key's owner under `name`. Nothing only where the content is longer than AES-GCM allows.
    #[must_use]
    pub fn seal(&self, name: &str, content: &Secret) -> Option<Vec<u8>> {
        let mut sealed = Zeroizing::new(Vec::with_capacity(content.expose().len() + TAG_BYTES));
        sealed.extend_from_slice(content.expose());
        let aad = Aad::from(context(self, name));
        let nonce = self
            .cipher
            .seal_in_place_append_tag(aad, &mut *sealed)
            .ok()?;
        let mut blob = Vec::with_capacity(1 + NUMBER_BYTES + NONCE_BYTES + sealed.len());
        blob.push(VERSION);
        blob.extend_from_slice(&self.number().to_be_bytes());
        blob.extend_from_slice(nonce.as_ref());
        blob.extend_from_slice(&sealed);
        Some(blob)
    }

    /// Opens what was sealed for this key's owner under `name`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, name: &str, blob: &[u8]) -> Result<Secret, OpenError> {
        let (number, nonce, sealed) = split(blob).ok_or(OpenError::UnknownFormat)?;
        if number != self.number() {
            return Err(OpenError::OtherKey {
                sealed_by: number,
                held: self.number(),
            });
        }
        let mut content = Zeroizing::new(sealed.to_vec());
        let opened = self
            .cipher
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context(self, name)),
                &mut content,
            )
            .map_err(|_unspecified| OpenError::Forged)?;
        Ok(Secret::new(opened.to_vec()))
    }
}

/// The number of the data key that sealed `blob`; nothing where the format is unknown.
#[must_use]
pub fn sealed_by(blob: &[u8]) -> Option<u32> {
    split(blob).map(|(number, ..)| number)
}

fn split(blob: &[u8]) -> Option<(u32, [u8; NONCE_BYTES], &[u8])> {
    let (version, rest) = blob.split_first()?;
    let (number, rest) = rest.split_first_chunk::<NUMBER_BYTES>()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let known = *version == VERSION && sealed.len() >= TAG_BYTES;
    known.then_some((u32::from_be_bytes(*number), *nonce, sealed))
}

fn context(key: &DataKey, name: &str) -> Vec<u8> {
    Context::of("vestibule sealed")
        .field(&[VERSION])
        .field(key.owner().as_bytes())
        .field(name.as_bytes())
        .field(&key.number().to_be_bytes())
        .as_bytes()
        .to_vec()
}

#[cfg(test)]
pub(in crate::keys) mod tests {
    use super::*;
    use crate::keys::data_key::tests::{GOLDEN_WRAPPED, moved_to};
    use crate::keys::kek;

    /// Sealed by the data key of [`GOLDEN_WRAPPED`] under `certificate`, holding `private`.
    const GOLDEN_SEALED: &str =
        "01000000070c0d0e0f1011121314151617e42dfc03e9a3809dc5c5b963cfa0d0ccbd709d773616d2";

    pub(in crate::keys) fn unhex(text: &str) -> Vec<u8> {
        let digit = |b: &u8| u8::try_from(char::from(*b).to_digit(16).unwrap()).unwrap();
        let pairs = text.as_bytes().chunks_exact(2);
        pairs.map(|p| digit(&p[0]) << 4 | digit(&p[1])).collect()
    }

    fn key(owner: &str) -> DataKey {
        DataKey::create(&kek::tests::golden(), owner, 1).unwrap().0
    }

    fn secret() -> Secret {
        Secret::from("private".to_owned())
    }

    #[test]
    fn the_sealed_form_is_final() {
        let wrapped = unhex(GOLDEN_WRAPPED);
        let key = DataKey::unwrap_with(&kek::tests::golden(), "acme", 7, &wrapped).unwrap();
        let opened = key.open("certificate", &unhex(GOLDEN_SEALED)).unwrap();
        assert_eq!(opened.expose(), b"private");
    }

    #[test]
    fn what_was_sealed_opens_and_no_two_blobs_are_alike() {
        let key = key("acme");
        let (a, b) = (
            key.seal("a", &secret()).unwrap(),
            key.seal("a", &secret()).unwrap(),
        );
        assert_ne!(a, b);
        assert_eq!(key.open("a", &a).unwrap().expose(), b"private");
        assert_eq!(sealed_by(&a), Some(1));
        let empty = key.seal("a", &Secret::new(Vec::new())).unwrap();
        assert_eq!(key.open("a", &empty).unwrap().expose(), b"");
    }

    #[test]
    fn a_blob_moved_to_another_name_or_owner_does_not_open() {
        let acme = key("acme");
        let blob = acme.seal("a", &secret()).unwrap();
        assert_eq!(acme.open("b", &blob).err(), Some(OpenError::Forged));
        // The same key bytes under another owner: what a careless copy of a row would give.
        let kek = kek::tests::golden();
        let (first, wrapped) = DataKey::create(&kek, "acme", 1).unwrap();
        let again = DataKey::unwrap_with(&kek, "acme", 1, &wrapped).unwrap();
        let blob = first.seal("a", &secret()).unwrap();
        assert!(again.open("a", &blob).is_ok());
        let moved = moved_to(again, "globex");
        assert_eq!(moved.open("a", &blob).err(), Some(OpenError::Forged));
    }

    #[test]
    fn a_blob_of_another_key_is_told_from_a_forged_one() {
        let kek = kek::tests::golden();
        let second = DataKey::create(&kek, "acme", 2).unwrap().0;
        let blob = key("acme").seal("a", &secret()).unwrap();
        let expected = OpenError::OtherKey {
            sealed_by: 1,
            held: 2,
        };
        assert_eq!(second.open("a", &blob).err(), Some(expected));
    }

    #[test]
    fn every_changed_bit_is_found() {
        let key = key("acme");
        let blob = key.seal("a", &secret()).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut changed = blob.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open("a", &changed).is_err());
        }
        for length in 0..blob.len() {
            assert!(key.open("a", &blob[..length]).is_err());
        }
    }
}
