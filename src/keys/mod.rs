//! Keys at rest: the key-encryption key, data keys, seal and open. Pure cryptography over bytes and one file.
//!
//! Three layers, so that the store never holds a key in the clear, and so that destroying one small row
//! destroys everything that a tenant's key protected:
//!
//! 1. The [`KeyEncryptionKey`] lies in a file of its own, apart from the data ([`mod@kek`]); it can be exchanged for a new
//!    one while everything serves ([`mod@ring`]). A tenant may have one of its own ([`mod@custody`]).
//! 2. It wraps [`DataKey`]s, one or more per owner; the wrapped form lies in the store ([`mod@data_key`]).
//! 3. A data key seals the owner's private keys ([`mod@sealed`]).
//!
//! # What destroying a tenant's keys promises
//!
//! Its data keys are put on a list beside the key-encryption key ([`mod@destroyed`]), then deleted from the store. From
//! then on no Vestibule that has this list opens what they sealed, whatever backup is restored. The list binds the program,
//! not somebody who holds an older backup, the key-encryption key and tools of his own: against him the key-encryption key
//! is exchanged after the tenant's end (the destroyed keys are not wrapped anew) and the retired key's file is deleted,
//! with its copies, once no other use of older backups is wanted. What they sealed is then out of everybody's reach.
//!
//! All three use AES-256-GCM with a random 96-bit nonce. What a ciphertext belongs to is associated data
//! ([`mod@context`]), so one that is copied to another owner or another name does not open. The formats carry a
//! version in their first byte, are documented byte by byte beside their code, and never change: a new format gets a
//! new version.

pub mod kek;

pub mod ring;

pub mod custody;

pub mod destroyed;

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
