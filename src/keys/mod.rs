//! Keys at rest: the key-encryption key, data keys, seal and open. Pure cryptography over bytes and one file.
//!
//! Three layers, so that the store never holds a key in the clear, and so that destroying one small row
//! destroys everything that a tenant's key protected:
//!
//! 1. The [`KeyEncryptionKey`] lies in a file of its own, apart from the data ([`mod@kek`]).
//! 2. It wraps [`DataKey`]s, one or more per owner; the wrapped form lies in the store ([`mod@data_key`]).
//! 3. A data key seals the owner's private keys ([`mod@sealed`]).
//!
//! All three use AES-256-GCM with a random 96-bit nonce. What a ciphertext belongs to is associated data
//! ([`mod@context`]), so one that is copied to another owner or another name does not open. The formats carry a
//! version in their first byte, are documented byte by byte beside their code, and never change: a new format gets a
//! new version.

pub mod kek;

pub mod data_key;

pub mod sealed;

mod context;

use std::path::PathBuf;

pub use data_key::{DataKey, UnwrapError};
pub use kek::{KekError, KekId, KeyEncryptionKey};
pub use sealed::OpenError;

/// Where the key-encryption key lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its file; mode 0600. Made at the first start of a new store, never over an existing one.
    pub key_file: PathBuf,
}

/// Bytes of a key: AES-256.
const KEY_BYTES: usize = 32;
/// Bytes of a nonce (NIST SP 800-38D §5.2.1.1).
const NONCE_BYTES: usize = 12;
/// Bytes of an authentication tag.
const TAG_BYTES: usize = 16;
