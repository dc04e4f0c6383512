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

/// A revocation that somebody asked for. It is taken back only before anybody was told of it.
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
    /// Since when an authority may know of it: noted before it is told.
    #[serde(default)]
    pub told_at: Option<Timestamp>,
    /// When the authority took it.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
    /// The reason that the authority took last. Nothing before that, and in what older versions wrote: there it is the
    /// only one that was ever asked for.
    #[serde(default)]
    pub taken_for: Option<RevocationReason>,
    /// The reason that the authority stays with, for it called the certificate revoked already when it was told a graver
    /// one.
    #[serde(default)]
    pub kept: Option<RevocationReason>,
    /// Whose it is to revoke, where nobody here can.
    #[serde(default)]
    pub left_to: Option<LeftTo>,
}

/// The issuer that nobody here can tell of a revocation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftTo {
    /// Its name, as the certificate says it.
    pub issuer: String,
    /// When that was found.
    pub at: Timestamp,
}

impl Revocation {
    /// A new one.
    #[must_use]
    pub const fn asked(reason: RevocationReason, order: RevocationOrder, at: Timestamp) -> Self {
        Self {
            reason,
            order,
            asked_at: at,
            replaced_at: None,
            told_at: None,
            revoked_at: None,
            taken_for: None,
            kept: None,
            left_to: None,
        }
    }

    /// The same after it was asked for again. The reason is only ever raised to a compromised key, as authorities allow
    /// too; the certificate may be revoked before it is replaced while it is not revoked yet.
    #[must_use]
    pub fn asked_again(self, reason: RevocationReason, order: RevocationOrder) -> Self {
        let taken_for = self
            .taken_for
            .or_else(|| self.revoked_at.map(|_| self.reason));
        Self {
            reason: match reason == RevocationReason::KeyCompromise {
                true => reason,
                false => self.reason,
            },
            order: match self.revoked_at {
                None if order == RevocationOrder::RevokedFirst => order,
                None | Some(_) => self.order,
            },
            taken_for,
            ..self
        }
    }

    /// Whether nobody is to be told any more: the authority took it for its reason, or it is left to the issuer.
    #[must_use]
    pub fn is_told(&self) -> bool {
        let for_its_reason = self.taken_for.is_none_or(|taken| taken == self.reason);
        self.left_to.is_some() || (self.revoked_at.is_some() && for_its_reason)
    }

    /// Whether it can be taken back: nobody knows of it.
    #[must_use]
    pub const fn is_untold(&self) -> bool {
        self.told_at.is_none() && self.revoked_at.is_none() && self.left_to.is_none()
    }
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
    #[test]
    fn asked_again_it_is_raised_to_a_compromised_key_and_told_once_more_but_never_lowered() {
        use RevocationOrder::{ReplacedFirst, RevokedFirst};
        use RevocationReason::{KeyCompromise, Superseded};
        let at = Timestamp::EPOCH;
        let asked = Revocation::asked(Superseded, ReplacedFirst, at);
        let raised = asked.clone().asked_again(KeyCompromise, RevokedFirst);
        assert_eq!(raised, Revocation::asked(KeyCompromise, RevokedFirst, at));
        assert_eq!(
            raised.clone().asked_again(Superseded, ReplacedFirst),
            raised
        );
        // Also where an older version wrote what the authority took.
        let done = Revocation {
            told_at: Some(at),
            revoked_at: Some(at),
            ..asked
        };
        assert!(done.is_told() && !done.is_untold());
        let raised = done.clone().asked_again(KeyCompromise, RevokedFirst);
        assert_eq!(
            (raised.reason, raised.order),
            (KeyCompromise, ReplacedFirst)
        );
        assert!(!raised.is_told());
        assert!(done.asked_again(Superseded, ReplacedFirst).is_told());
    }
}
