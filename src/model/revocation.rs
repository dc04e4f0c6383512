//! Why a certificate is revoked, and how far that is.

use std::fmt;

use crate::base::clock::Timestamp;

/// The reasons that a subscriber may give (RFC 5280 §5.3.1; RFC 8555 §7.6 leaves the choice to the authority). Those that
/// only an authority can know are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// None is given.
    Unspecified,
    /// Somebody else has or may have the private key.
    KeyCompromise,
    /// The subject's name or other details have changed.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The names are used no more.
    CessationOfOperation,
    /// The right to the names was withdrawn.
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// Every reason, in the order of their codes.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The word for it in the API and in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key_compromise",
            Self::AffiliationChanged => "affiliation_changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation_of_operation",
            Self::PrivilegeWithdrawn => "privilege_withdrawn",
        }
    }

    /// The reason that a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Its `CRLReason` (RFC 5280 §5.3.1).
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What comes first where a certificate that is to be revoked still serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationOrder {
    /// Another certificate with a new key serves before this one is revoked: no visitor meets a revoked one.
    ReplacedFirst,
    /// It is revoked at once, and replaced after that.
    RevokedFirst,
}

impl RevocationOrder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ReplacedFirst, Self::RevokedFirst];

    /// The word for it in the API and in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplacedFirst => "replaced_first",
            Self::RevokedFirst => "revoked_first",
        }
    }
}

/// A revocation that somebody asked for. It is never taken back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revocation {
    /// Why.
    pub reason: RevocationReason,
    /// What comes first.
    pub order: RevocationOrder,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// When it was first seen that the certificate serves nothing any more.
    #[serde(default)]
    pub replaced_at: Option<Timestamp>,
    /// When the authority took it.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_word_and_its_code() {
        for reason in RevocationReason::ALL {
            assert_eq!(RevocationReason::from_word(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for order in RevocationOrder::ALL {
            assert_eq!(serde_json::to_value(order).unwrap(), order.as_str());
        }
        let codes = RevocationReason::ALL.map(RevocationReason::code);
        assert_eq!(codes, [0, 1, 3, 4, 5, 9]);
    }
}
