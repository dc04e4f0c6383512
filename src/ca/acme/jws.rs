//! Requests that are signed here, flattened JWS (RFC 7515 §7.2.2; RFC 8555 §6.2): those for which instant-acme gives no
//! choice of the key, or tells of it too late.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use serde_json::{Value, json};

use super::MOST_STALE;
use super::directory::Directory;
use super::transport::Line;
use crate::ca::error::{CaError, Step};
use crate::net::Answer;

/// A private key that signs (RFC 7518 §3.1).
pub(super) enum Signer {
    Ecdsa {
        key: Box<EcdsaKeyPair>,
        algorithm: &'static str,
        curve: &'static str,
    },
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    /// Of a key in PKCS #8; nothing where it is of another kind.
    pub(super) fn of(pkcs8: &[u8]) -> Option<Self> {
        let ecdsa = |signing: &'static EcdsaSigningAlgorithm, algorithm, curve| {
            let key = EcdsaKeyPair::from_pkcs8(signing, pkcs8).ok()?;
            Some(Self::Ecdsa {
                key: Box::new(key),
                algorithm,
                curve,
            })
        };
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256")
            .or_else(|| ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384"))
            .or_else(|| {
                let key = RsaKeyPair::from_pkcs8(pkcs8).ok()?;
                Some(Self::Rsa(Box::new(key)))
            })
    }

    /// The name of its algorithm.
    pub(super) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ecdsa { algorithm, .. } => algorithm,
            Self::Rsa(_) => "RS256",
        }
    }

    /// The public key (RFC 7517; RFC 7518 §6).
    pub(super) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ecdsa { key, curve, .. } => {
                // SEC 1 §2.3.3: 4, then both coordinates.
                let point = key.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Self::Rsa(key) => {
                let public = key.public_key();
                let modulus = public.modulus().big_endian_without_leading_zero();
                let exponent = public.exponent().big_endian_without_leading_zero();
                json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
            }
        }
    }

    /// The whole request; nothing where the key does not sign.
    pub(super) fn sign(&self, protected: &Value, payload: &Value) -> Option<Value> {
        self.sign_text(protected, &payload.to_string())
    }

    /// A request that only reads: POST-as-GET (RFC 8555 §6.3).
    pub(super) fn sign_empty(&self, protected: &Value) -> Option<Value> {
        self.sign_text(protected, "")
    }

    fn sign_text(&self, protected: &Value, payload: &str) -> Option<Value> {
        let protected = URL_SAFE_NO_PAD.encode(protected.to_string());
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let signature = self.signature(format!("{protected}.{payload}").as_bytes())?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Some(json!({ "protected": protected, "payload": payload, "signature": signature }))
    }

    fn signature(&self, content: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa { key, .. } => Some(key.sign(&random, content).ok()?.as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, content, &mut signature)
                    .ok()?;
                Some(signature)
            }
        }
    }
}

/// Posts what `sign` makes of a fresh nonce to `url`, again while only the nonce is refused.
pub(super) async fn post(
    line: &Line,
    step: Step,
    (directory, url): (&Directory, &str),
    sign: impl Fn(&str) -> Option<Value>,
) -> Result<Answer, CaError> {
    let garbled = |why: &str| CaError::Garbled {
        ca: line.id().clone(),
        step,
        why: why.to_owned(),
    };
    let mut stale = 0;
    loop {
        let head = Request::head(&directory.new_nonce).body(Bytes::new());
        let head = head.map_err(|error| garbled(&error.to_string()))?;
        let answer = line.send(step, head).await?;
        let nonce = nonce(&answer.headers).ok_or_else(|| garbled("an answer without a nonce"))?;
        let body = sign(&nonce).ok_or_else(|| garbled("the key does not sign"))?;
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/jose+json")
            .body(Bytes::from(body.to_string()))
            .map_err(|error| garbled(&error.to_string()))?;
        match line.send(step, request).await {
            Err(error) if error.is_bad_nonce() && stale < MOST_STALE => stale += 1,
            result => return result,
        }
    }
}

fn nonce(headers: &HeaderMap) -> Option<String> {
    let nonce = headers.get("replay-nonce")?.to_str().ok()?;
    Some(nonce.to_owned())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
        RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
    };
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};

    use super::*;

    fn decode(text: &Value) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()
    }

    /// A signed request, with the content that its signature is over.
    fn signed(made: &'static rcgen::SignatureAlgorithm, name: &str) -> (Value, Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate_for(made).unwrap();
        let signer = Signer::of(&key.serialize_der()).unwrap();
        assert_eq!(signer.algorithm(), name);
        let protected = json!({ "alg": signer.algorithm(), "jwk": signer.jwk() });
        let body = signer.sign(&protected, &json!({ "a": 1 })).unwrap();
        let part = |name: &str| body[name].as_str().unwrap();
        assert_eq!(decode(&body["payload"]), br#"{"a":1}"#);
        let read: Value = serde_json::from_slice(&decode(&body["protected"])).unwrap();
        assert_eq!(read, protected);
        let content = format!("{}.{}", part("protected"), part("payload"));
        (
            signer.jwk(),
            content.into_bytes(),
            decode(&body["signature"]),
        )
    }

    #[test]
    fn a_request_is_signed_by_the_key_that_it_names() {
        let ecdsa = |made, name, verify: &'static dyn VerificationAlgorithm| {
            let (jwk, content, signature) = signed(made, name);
            let point = [vec![4], decode(&jwk["x"]), decode(&jwk["y"])].concat();
            let key = UnparsedPublicKey::new(verify, point);
            key.verify(&content, &signature).unwrap();
        };
        ecdsa(&PKCS_ECDSA_P256_SHA256, "ES256", &ECDSA_P256_SHA256_FIXED);
        ecdsa(&PKCS_ECDSA_P384_SHA384, "ES384", &ECDSA_P384_SHA384_FIXED);
        let (jwk, content, signature) = signed(&PKCS_RSA_SHA256, "RS256");
        let key = RsaPublicKeyComponents {
            n: decode(&jwk["n"]),
            e: decode(&jwk["e"]),
        };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, &content, &signature)
            .unwrap();
        assert!(Signer::of(b"no key").is_none());
    }
}
