//! The change of an account's key (RFC 8555 §7.3.5), with a new key that is kept before the authority learns of it:
//! instant-acme makes the key in the same call and tells it only afterwards, so that a kill between would lose the
//! account.

use serde_json::json;

use super::credentials;
use super::directory::Directory;
use super::jws::{self, Signer};
use super::transport::Line;
use crate::ca::authority::Material;
use crate::ca::error::{CaError, Step};

/// An account's key, able to sign.
fn signer(material: &Material, line: &Line) -> Result<Signer, CaError> {
    let unusable = |why: String| CaError::Material {
        ca: line.id().clone(),
        slot: material.slot.clone(),
        why,
    };
    let credentials = credentials::read(material).map_err(|error| unusable(error.to_string()))?;
    let der = credentials.private_key().secret_pkcs8_der();
    Signer::of(der).ok_or_else(|| unusable("no key in PKCS#8 that signs".to_owned()))
}

/// Asks the authority to take `new` for the key of the account whose key is `old`.
pub(super) async fn change(
    line: &Line,
    directory: &str,
    (old, new): (&Material, &Material),
) -> Result<(), CaError> {
    let garbled = |why: &str| CaError::Garbled {
        ca: line.id().clone(),
        step: Step::KeyChange,
        why: why.to_owned(),
    };
    let account = credentials::account(old);
    let (old, new) = (signer(old, line)?, signer(new, line)?);
    let directory = Directory::read(line, directory).await?;
    let url = directory
        .key_change
        .as_deref()
        .ok_or_else(|| CaError::NoKeyChange {
            ca: line.id().clone(),
        })?;
    let inner = new
        .sign(
            &json!({ "alg": new.algorithm(), "jwk": new.jwk(), "url": url }),
            &json!({ "account": account, "oldKey": old.jwk() }),
        )
        .ok_or_else(|| garbled("the new key does not sign"))?;
    let sign = |nonce: &str| {
        let algorithm = old.algorithm();
        let protected = json!({ "alg": algorithm, "kid": account, "nonce": nonce, "url": url });
        old.sign(&protected, &inner)
    };
    let posted = jws::post(line, Step::KeyChange, (&directory, url), sign).await;
    posted.map(|_answer| ())
}
