//! An account's credentials as they are kept: its URL and its key, in the form that instant-acme reads and writes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{AccountCredentials, Key};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use crate::base::secret::Secret;
use crate::ca::authority::Material;

/// The slot of the account with the directory at `url`: another directory is another account, kept beside the first.
pub(super) fn slot(url: &str) -> String {
    format!("account:{url}")
}

/// The slot of the key that the account is about to change to.
pub(super) fn next_slot(url: &str) -> String {
    format!("account-next:{url}")
}

/// An account that was made elsewhere, as material for the authority whose directory this is: its key in PKCS#8, ECDSA
/// P-256, and its URL. Without the URL the authority is asked for it when the account is opened.
#[must_use]
pub fn account_material(directory: &str, account: Option<&str>, key_pkcs8: &[u8]) -> Material {
    material(
        &slot(directory),
        directory,
        (account.unwrap_or_default(), key_pkcs8),
    )
}

/// Credentials for a slot.
pub(super) fn material(slot: &str, directory: &str, (account, key): (&str, &[u8])) -> Material {
    let credentials = json!({
        "id": account,
        "key_pkcs8": URL_SAFE_NO_PAD.encode(key),
        "directory": directory,
    });
    Material {
        slot: slot.to_owned(),
        public: account.as_bytes().to_vec(),
        secret: Secret::new(credentials.to_string().into_bytes()),
    }
}

/// The credentials of a material.
pub(super) fn read(material: &Material) -> Result<AccountCredentials, serde_json::Error> {
    serde_json::from_slice(material.secret.expose())
}

/// The account's URL; empty where it is not known.
pub(super) fn account(material: &Material) -> &str {
    std::str::from_utf8(&material.public).unwrap_or_default()
}

/// A key as instant-acme takes it.
pub(super) fn key(pkcs8: &[u8]) -> Result<(Key, PrivateKeyDer<'static>), instant_acme::Error> {
    let der = PrivatePkcs8KeyDer::from(pkcs8.to_vec());
    let key = Key::from_pkcs8_der(der.clone_key())?;
    Ok((key, PrivateKeyDer::Pkcs8(der)))
}
