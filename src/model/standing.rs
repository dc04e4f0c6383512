//! What becomes of a certificate after it was stored, and what is learnt about a domain on the way.
//!
//! Both are kept as JSON objects beside their rows: a field may be added without a change of the schema, and what an older
//! version wrote reads as the default.

use crate::base::clock::Timestamp;
use crate::model::certificate::CertificateId;
use crate::model::challenge::ChallengeMemory;
use crate::model::reach::ReachMemory;
use crate::model::revocation::Revocation;

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
    /// The certificate that took its place. This and the next three are the store's own: it writes them where it changes
    /// what a domain points to, or destroys a key ([`crate::store::batch::Operation::PointDomain`]).
    pub superseded_by: Option<CertificateId>,
    /// When another took its place.
    pub superseded_at: Option<Timestamp>,
    /// When its private key is to be destroyed; nothing while it serves a domain.
    pub retire_at: Option<Timestamp>,
    /// When its private key was destroyed: it never serves again.
    pub key_destroyed_at: Option<Timestamp>,
    /// Its revocation, asked for or done; taken back only before anybody was told of it.
    pub revocation: Option<Revocation>,
    /// The certificate that it followed in time; nothing where it is the first, was brought along, or replaced one
    /// before its time.
    pub renewed_from: Option<CertificateId>,
    /// Why it is to be replaced before its time.
    pub replace: Option<Replace>,
    /// When it is renewed, whatever else says that it is due sooner: somebody chose it in place of a newer one, and the
    /// next look at it does not undo that.
    pub renew_at: Option<Timestamp>,
    /// What the authority tells of its renewal.
    pub renewal_info: Option<RenewalWindow>,
    /// When the authority is to be asked about its renewal; nothing before it was asked for the first time.
    pub ask_at: Option<Timestamp>,
}

impl CertificateStanding {
    /// Whether a domain may be pointed to it: neither is its revocation asked for nor its key destroyed.
    #[must_use]
    pub const fn may_serve(&self) -> bool {
        self.revocation.is_none() && self.key_destroyed_at.is_none()
    }

    /// What is known after `newer` was written over it: what the store itself keeps stays, and so does a revocation.
    #[must_use]
    pub fn amended_by(&self, newer: Self) -> Self {
        Self {
            superseded_by: self.superseded_by,
            superseded_at: self.superseded_at,
            retire_at: self.retire_at,
            key_destroyed_at: self.key_destroyed_at,
            revocation: newer.revocation.or_else(|| self.revocation.clone()),
            ..newer
        }
    }
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

/// One thing that was learnt about a domain, by whoever looks after it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// See [`DomainMemory::challenges`].
    Challenges(ChallengeMemory),
    /// See [`DomainMemory::reach`].
    Reach(ReachMemory),
}

impl DomainMemory {
    /// With this in the place of what was known of it.
    #[must_use]
    pub fn with(self, learnt: Learnt) -> Self {
        match learnt {
            Learnt::Challenges(challenges) => Self { challenges, ..self },
            Learnt::Reach(reach) => Self { reach, ..self },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::revocation::{RevocationOrder, RevocationReason};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    #[test]
    fn what_the_store_keeps_and_a_revocation_survive_whoever_writes_the_rest() {
        let revocation = Revocation::asked(
            RevocationReason::KeyCompromise,
            RevocationOrder::ReplacedFirst,
            NOW,
        );
        let kept = CertificateStanding {
            superseded_by: Some(CertificateId::new()),
            superseded_at: Some(NOW),
            retire_at: Some(NOW),
            key_destroyed_at: Some(NOW),
            revocation: Some(revocation.clone()),
            replace: Some(Replace::KeyCompromised),
            ..CertificateStanding::default()
        };
        let written = CertificateStanding {
            account: Some("https://ca.test/account/1".to_owned()),
            ..CertificateStanding::default()
        };
        let amended = kept.amended_by(written.clone());
        let expected = CertificateStanding {
            account: written.account.clone(),
            replace: None,
            ..kept.clone()
        };
        assert_eq!(amended, expected);
        assert!(!amended.may_serve());
        let done = Revocation {
            revoked_at: Some(NOW),
            ..revocation
        };
        let further = CertificateStanding {
            revocation: Some(done.clone()),
            ..written
        };
        assert_eq!(amended.amended_by(further).revocation, Some(done));
    }
}
