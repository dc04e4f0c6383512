//! The change of an account's key (RFC 8555 §7.3.5), with a new key that is kept before the authority learns of it:
//! instant-acme makes the key in the same call and tells it only afterwards, so that a kill between would lose the
//! account. Only the signatures of this one request are made here (RFC 7515, flattened; ES256 by aws-lc-rs).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use serde_json::{Value, json};

use super::directory::Directory;
use super::transport::Line;
use super::{MOST_STALE, credentials};
use crate::ca::authority::Material;
use crate::ca::error::{CaError, Step};

/// An account's key, able to sign.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn of(material: &Material, line: &Line) -> Result<Self, CaError> {
        let unusable = |why: String| CaError::Material {
            ca: line.id().clone(),
            slot: material.slot.clone(),
            why,
        };
        let credentials =
            credentials::read(material).map_err(|error| unusable(error.to_string()))?;
        let der = credentials.private_key().secret_pkcs8_der();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map(Self)
            .map_err(|error| unusable(format!("no ECDSA P-256 key in PKCS#8: {error}")))
    }

    /// RFC 7518 §6.2.1: the point without its leading 4.
    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
    }

    /// RFC 7515 §7.2.2.
    fn sign(&self, protected: &Value, payload: &Value) -> Option<Value> {
        let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
        let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
        let input = format!("{protected}.{payload}");
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).ok()?;
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Some(json!({ "protected": protected, "payload": payload, "signature": signature }))
    }
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
    let (old, new) = (Signer::of(old, line)?, Signer::of(new, line)?);
    let directory = Directory::read(line, directory).await?;
    let url = directory
        .key_change
        .as_deref()
        .ok_or_else(|| CaError::NoKeyChange {
            ca: line.id().clone(),
        })?;
    let inner = new
        .sign(
            &json!({ "alg": "ES256", "jwk": new.jwk(), "url": url }),
            &json!({ "account": account, "oldKey": old.jwk() }),
        )
        .ok_or_else(|| garbled("the new key does not sign"))?;
    let mut attempts = 0;
    loop {
        let head = Request::head(&directory.new_nonce).body(Bytes::new());
        let head = head.map_err(|error| garbled(&error.to_string()))?;
        let answer = line.send(Step::KeyChange, head).await?;
        let nonce = nonce(&answer.headers).ok_or_else(|| garbled("no nonce"))?;
        let protected = json!({ "alg": "ES256", "kid": account, "nonce": nonce, "url": url });
        let body = old
            .sign(&protected, &inner)
            .ok_or_else(|| garbled("the key does not sign"))?;
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/jose+json")
            .body(Bytes::from(body.to_string()))
            .map_err(|error| garbled(&error.to_string()))?;
        match line.send(Step::KeyChange, request).await {
            Err(error) if error.is_bad_nonce() && attempts < MOST_STALE => attempts += 1,
            result => return result.map(|_answer| ()),
        }
    }
}

fn nonce(headers: &HeaderMap) -> Option<String> {
    let nonce = headers.get("replay-nonce")?.to_str().ok()?;
    Some(nonce.to_owned())
}
