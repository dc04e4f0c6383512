//! A new account (RFC 8555 §7.3), with a key that is kept before the authority learns of it: instant-acme makes the key in
//! the same call and tells it only afterwards, so that a kill between would lose the account, and with it an external
//! account binding that is good for one.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::LOCATION;
use serde_json::{Value, json};

use super::directory::Directory;
use super::jws::{self, Signer};
use super::settings::{Binding, Settings};
use super::transport::Line;
use crate::ca::error::{CaError, Step};

/// RFC 8555 §7.3.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct NewAccount<'a> {
    terms_of_service_agreed: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    contact: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    external_account_binding: Option<Value>,
}

/// Opens an account for the key, or finds the one that it has already, for the authority opens no second; gives its URL.
pub(super) async fn register(
    line: &Line,
    settings: &Settings,
    signer: &Signer,
) -> Result<String, CaError> {
    let garbled = |why: &str| CaError::Garbled {
        ca: line.id().clone(),
        step: Step::Account,
        why: why.to_owned(),
    };
    let directory = Directory::read(line, &settings.directory).await?;
    let binding = settings.binding.as_ref();
    if directory.wants_binding() && binding.is_none() {
        return Err(CaError::BindingRequired {
            ca: line.id().clone(),
        });
    }
    let url = directory.new_account.as_deref();
    let url = url.ok_or_else(|| garbled("the directory has no newAccount"))?;
    let wanted = NewAccount {
        terms_of_service_agreed: true,
        contact: &settings.contact,
        external_account_binding: binding.map(|binding| bound(binding, &signer.jwk(), url)),
    };
    let payload = serde_json::to_value(&wanted).map_err(|error| garbled(&error.to_string()))?;
    let sign = |nonce: &str| {
        let (algorithm, key) = (signer.algorithm(), signer.jwk());
        let protected = json!({ "alg": algorithm, "jwk": key, "nonce": nonce, "url": url });
        signer.sign(&protected, &payload)
    };
    let answer = jws::post(line, Step::Account, (&directory, url), sign).await?;
    let location = answer.headers.get(LOCATION).map(|value| value.to_str());
    match location {
        Some(Ok(account)) => Ok(account.to_owned()),
        Some(Err(_)) | None => Err(garbled("an account without a URL")),
    }
}

/// The account's public key, signed with the key that the authority gave its customer (RFC 8555 §7.3.4).
fn bound(binding: &Binding, jwk: &Value, url: &str) -> Value {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let protected = encode(&json!({ "alg": "HS256", "kid": binding.key_id, "url": url }));
    let payload = encode(jwk);
    let key = hmac::Key::new(hmac::HMAC_SHA256, binding.hmac_key.expose());
    let tag = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(tag);
    json!({ "protected": protected, "payload": payload, "signature": signature })
}
