//! What becomes of a certificate after it was stored, and what is learnt about a domain on the way.
//!
//! Both are kept as JSON objects beside their rows: a field may be added without a change of the schema, and what an older
//! version wrote reads as the default.

use crate::base::clock::Timestamp;
use crate::model::certificate::CertificateId;
use crate::model::challenge::ChallengeMemory;
use crate::model::reach::ReachMemory;

/// What has become of a certificate since it was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct CertificateStanding {
    /// How it came here.
    pub origin: Origin,
    /// What it is for.
    pub purpose: Purpose,
    /// Whom it names, where it is a client's.
    pub client: Option<String>,
    /// The URL of the account that ordered it: an authority refuses `replaces` to any other (RFC 9773 §5).
    pub account: Option<String>,
    /// The profile that it was ordered with, where the authority has any.
    pub profile: Option<String>,
    /// The certificate that took its place.
    pub superseded_by: Option<CertificateId>,
    /// When another took its place.
    pub superseded_at: Option<Timestamp>,
    /// When its private key is to be destroyed; nothing while it may serve.
    pub retire_at: Option<Timestamp>,
    /// The certificate that it followed in time; nothing where it is the first, was brought along, or replaced one
    /// before its time.
    pub renewed_from: Option<CertificateId>,
    /// Why it is to be replaced before its time.
    pub replace: Option<Replace>,
    /// What the authority tells of its renewal.
    pub renewal_info: Option<RenewalWindow>,
    /// When the authority is to be asked about its renewal; nothing before it was asked for the first time.
    pub ask_at: Option<Timestamp>,
}

/// Why a certificate is replaced before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replace {
    /// The operator asked for it.
    Asked,
    /// Its authority wants it replaced early.
    Told,
    /// Its private key is not private any more.
    KeyCompromised,
    /// It is revoked.
    Revoked,
}

impl Replace {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Told => "told",
            Self::KeyCompromised => "key_compromised",
            Self::Revoked => "revoked",
        }
    }
}

/// When an authority wants a certificate renewed (RFC 9773 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RenewalWindow {
    /// Not before.
    pub start: Timestamp,
    /// Not after.
    pub end: Timestamp,
    /// The point that was chosen for it.
    pub renew_at: Timestamp,
    /// A page of the authority's that says why.
    #[serde(default)]
    pub explanation: Option<String>,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It serves the domains that it holds.
    #[default]
    Server,
    /// A client of the tenant's shows it. Its key is not here.
    Client,
}

impl Purpose {
    /// The word for it in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// How a certificate came here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Issued to us, on a key that we made.
    #[default]
    Issued,
    /// Brought along with its key.
    Imported,
}

impl Origin {
    /// The word for it in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Imported => "imported",
        }
    }
}

/// What was learnt about a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct DomainMemory {
    /// How its challenges ended.
    pub challenges: ChallengeMemory,
    /// Whether its DNS leads here.
    pub reach: ReachMemory,
}
