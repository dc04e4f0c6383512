//! How an ACME authority is configured.

use std::fmt;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::net;

/// One ACME authority.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The URL of its directory (RFC 8555 §7.1.1); always `https`.
    pub directory: String,
    /// Whom the authority may write to: `mailto:` URLs. Default: nobody.
    pub contact: Vec<String>,
    /// Whether the operator has agreed to the authority's terms of service: nothing is ordered otherwise. Default: no.
    pub terms_agreed: bool,
    /// The roots that the authority's own server must chain to. Default: the public ones.
    pub roots: net::Roots,
    /// Binds the account to a customer of the authority (RFC 8555 §7.3.4). Default: nothing.
    pub binding: Option<Binding>,
    /// The key of an account made elsewhere, PKCS#8 DER, ECDSA P-256: used instead of opening a new account, whose URL
    /// the authority tells. Default: a new account is opened.
    pub account_key: Option<Secret>,
    /// The profile to order where a tenant chooses none. Default: the authority's own choice.
    pub profile: Option<String>,
    /// The common name of the issuer of the topmost certificate of the chain to serve, where the authority offers several.
    /// Default: the authority's own choice.
    pub preferred_chain: Option<String>,
    /// The names by which CAA records mean the authority. Default: what its directory says.
    pub caa_identities: Vec<String>,
    /// How long one call may take. Default 30 s.
    pub call_deadline: Duration,
}

/// Names the authority, never a secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("directory", &self.directory)
            .field("binding", &self.binding)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// The defaults for the authority at `directory`.
    #[must_use]
    pub fn new(directory: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            contact: Vec::new(),
            terms_agreed: false,
            roots: net::Roots::Public,
            binding: None,
            account_key: None,
            profile: None,
            preferred_chain: None,
            caa_identities: Vec::new(),
            call_deadline: Duration::from_secs(30),
        }
    }

    pub(super) fn client(&self) -> net::Settings {
        net::Settings {
            roots: self.roots.clone(),
            deadline: self.call_deadline,
            ..net::Settings::default()
        }
    }
}

/// The directory of an authority known by a short name: `letsencrypt`, `letsencrypt-staging`, `zerossl`, `google`,
/// `google-staging`.
#[must_use]
pub fn well_known_directory(name: &str) -> Option<&'static str> {
    match name {
        "letsencrypt" => Some("https://acme-v02.api.letsencrypt.org/directory"),
        "letsencrypt-staging" => Some("https://acme-staging-v02.api.letsencrypt.org/directory"),
        "zerossl" => Some("https://acme.zerossl.com/v2/DV90"),
        "google" => Some("https://dv.acme-v02.api.pki.goog/directory"),
        "google-staging" => Some("https://dv.acme-v02.test-api.pki.goog/directory"),
        _ => None,
    }
}

/// An external account binding (RFC 8555 §7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// The key's identifier, as the authority's website shows it.
    pub key_id: String,
    /// The HMAC key, decoded from the base64url that the website shows.
    pub hmac_key: Secret,
}

/// Names the key, never shows it.
impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}
