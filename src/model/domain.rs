//! A registered domain: its one readable state, and where its registration came from.

use std::fmt;

/// The one state of a domain that a tenant reads.
///
/// `pending_dns → verifying → issuing → active ⇄ renewing`, and the exceptions below. "Could not check" is
/// never "failed".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomainState {
    /// Registered; no visitor and no issuance yet.
    PendingDns,
    /// Its DNS or ownership is being checked.
    Verifying,
    /// A certificate is being obtained, or the next attempt is scheduled.
    Issuing,
    /// Served with a valid certificate.
    Active,
    /// Served, while its certificate is being replaced.
    Renewing,
    /// Served, but the last renewal failed.
    Degraded,
    /// Its DNS points elsewhere; not renewed until it returns.
    Moved,
    /// Stopped by the operator or a policy.
    Suspended,
    /// Being taken down.
    Deleting,
    /// Gone; kept for a time so that nobody else takes the name over unnoticed.
    Tombstoned,
}

impl DomainState {
    /// Every state, in the order of a domain's life.
    pub const ALL: [Self; 10] = [
        Self::PendingDns,
        Self::Verifying,
        Self::Issuing,
        Self::Active,
        Self::Renewing,
        Self::Degraded,
        Self::Moved,
        Self::Suspended,
        Self::Deleting,
        Self::Tombstoned,
    ];

    /// The word for it in the API, in rows and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PendingDns => "pending_dns",
            Self::Verifying => "verifying",
            Self::Issuing => "issuing",
            Self::Active => "active",
            Self::Renewing => "renewing",
            Self::Degraded => "degraded",
            Self::Moved => "moved",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
            Self::Tombstoned => "tombstoned",
        }
    }

    /// The state that a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether handshakes for the domain are answered at all.
    #[must_use]
    pub const fn is_served(self) -> bool {
        !matches!(self, Self::Suspended | Self::Deleting | Self::Tombstoned)
    }
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for DomainState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Where a tenant or a domain was declared: what may change or remove it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The configuration file or a file it includes; gone from there, it is retired.
    File,
    /// The permission hook allowed it.
    Hook,
    /// The control API.
    Api,
}

impl Source {
    /// The word for it in the API and in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Hook => "hook",
            Self::Api => "api",
        }
    }

    /// The source that a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::File, Self::Hook, Self::Api]
            .into_iter()
            .find(|source| source.as_str() == word)
    }
}

impl serde::Serialize for Source {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_own_word() {
        for state in DomainState::ALL {
            assert_eq!(DomainState::from_word(state.as_str()), Some(state));
        }
        assert_eq!(DomainState::from_word("unknown"), None);
    }
}
