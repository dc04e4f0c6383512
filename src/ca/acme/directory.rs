//! The directory (RFC 8555 §7.1.1) with its metadata, which instant-acme does not show.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;

use super::transport::{Line, bounded};
use crate::ca::error::{CaError, Step};
use crate::ca::meta::{Meta, Profile};

/// Names of an authority in CAA that are read.
const MOST_IDENTITIES: usize = 32;
/// Profiles that are read.
const MOST_PROFILES: usize = 64;

/// What of a directory is needed here.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    /// Every ACME directory has it; a web page that happens to be JSON has not.
    #[serde(rename = "newOrder")]
    _new_order: String,
    /// Where accounts are opened (RFC 8555 §7.3).
    pub new_account: Option<String>,
    /// Where nonces are fetched.
    pub new_nonce: String,
    /// Where the account's key is changed (RFC 8555 §7.3.5).
    pub key_change: Option<String>,
    /// Where certificates are revoked (RFC 8555 §7.6).
    pub revoke_cert: Option<String>,
    #[serde(default)]
    meta: RawMeta,
}

/// RFC 8555 §9.7.6, and `profiles` of draft-ietf-acme-profiles.
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawMeta {
    terms_of_service: Option<String>,
    website: Option<String>,
    caa_identities: Vec<String>,
    external_account_required: bool,
    profiles: BTreeMap<String, String>,
}

impl Directory {
    /// Reads the directory at `url`.
    pub(super) async fn read(line: &Line, url: &str) -> Result<Self, CaError> {
        let garbled = |why: String| CaError::Garbled {
            ca: line.id().clone(),
            step: Step::Directory,
            why,
        };
        let request = Request::get(url)
            .body(Bytes::new())
            .map_err(|error| garbled(error.to_string()))?;
        let answer = line.send(Step::Directory, request).await?;
        serde_json::from_slice::<Self>(&answer.body).map_err(|error| {
            let begin = bounded(&String::from_utf8_lossy(
                answer.body.get(..80).unwrap_or(&answer.body),
            ));
            garbled(format!(
                "{url} is no ACME directory ({error}); it begins with {begin:?}"
            ))
        })
    }

    /// Whether accounts are opened only for customers of the authority (RFC 8555 §7.3.4).
    pub(super) const fn wants_binding(&self) -> bool {
        self.meta.external_account_required
    }

    /// What the authority says about itself, bounded.
    pub(super) fn meta(self) -> Meta {
        let meta = self.meta;
        let profile = |(name, description): (String, String)| Profile {
            name: bounded(&name),
            description: bounded(&description),
        };
        let identities = meta.caa_identities.into_iter().take(MOST_IDENTITIES);
        Meta {
            terms_of_service: meta.terms_of_service.map(|url| bounded(&url)),
            website: meta.website.map(|url| bounded(&url)),
            caa_identities: identities
                .map(|name| bounded(&name).to_ascii_lowercase())
                .collect(),
            external_account_required: meta.external_account_required,
            profiles: meta
                .profiles
                .into_iter()
                .take(MOST_PROFILES)
                .map(profile)
                .collect(),
        }
    }
}
