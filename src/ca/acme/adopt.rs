//! An account that another program made, as material for our own slot.

use instant_acme::Key;
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::credentials::account_material;
use crate::ca::authority::{ForeignAccount, Material};

/// The material for the authority at `directory`; nothing where the key is of a kind that instant-acme cannot sign
/// with: it knows ES256 alone.
pub(super) fn material(directory: &str, account: ForeignAccount<'_>) -> Option<Material> {
    let key = account.key.expose();
    Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(key)).ok()?;
    Some(account_material(directory, Some(account.url), key))
}

#[cfg(test)]
mod tests {
    use instant_acme::AccountCredentials;
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};

    use super::*;
    use crate::base::secret::Secret;

    const URL: &str = "https://ca.test/acct/7";

    #[test]
    fn a_foreign_account_becomes_credentials_that_can_be_opened() {
        let material = |key: &KeyPair| {
            let key = Secret::new(key.serialize_der());
            material(
                "https://ca.test/dir",
                ForeignAccount {
                    url: URL,
                    key: &key,
                },
            )
        };
        let key = KeyPair::generate().unwrap();
        let made = material(&key).unwrap();
        assert_eq!(made.slot, "account:https://ca.test/dir");
        assert_eq!(made.public, URL.as_bytes());
        let read: AccountCredentials = serde_json::from_slice(made.secret.expose()).unwrap();
        assert_eq!(read.private_key().secret_pkcs8_der(), key.serialize_der());
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(material(&other).is_none());
    }
}
