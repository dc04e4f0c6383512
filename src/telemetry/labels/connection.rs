//! Labels of connections and handshakes.

use crate::telemetry::family::Labels;

label! {
    /// Which listener a connection came by.
    Listener = "listener" {
        /// Plain HTTP: challenges and redirects.
        Http = "http",
        /// HTTPS.
        Https = "https",
    }
}

label! {
    /// Which limit a connection met at its admission.
    AdmissionLimit = "reason" {
        /// Connections in all.
        Total = "total",
        /// Connections of one address.
        Address = "address",
        /// Connections of one tenant.
        Tenant = "tenant",
        /// Handshakes at once.
        Handshakes = "handshakes",
        /// File descriptors.
        Descriptors = "descriptors",
    }
}

label! {
    /// Where the credential of a handshake came from.
    CredentialOrigin = "origin" {
        /// The memory of this process.
        Memory = "memory",
        /// The store.
        Store = "store",
        /// A CA, just now.
        Issued = "issued",
        /// There was none.
        None = "none",
    }
}

label! {
    /// How a handshake ended. `served` and `resumed` are successes; the rest says why there was none.
    HandshakeReason = "reason" {
        /// A full handshake.
        Full = "full",
        /// Resumed by a ticket.
        Resumed = "resumed",
        /// Nobody registered the name, and the hook does not allow it.
        UnknownName = "unknown_name",
        /// The ClientHello has no server name.
        NoServerName = "no_server_name",
        /// The server name is an address or no name at all.
        BadServerName = "bad_server_name",
        /// The domain is suspended.
        Suspended = "suspended",
        /// The permission hook could not be asked.
        PermissionUnavailable = "permission_unavailable",
        /// The name failed before and waits for its next attempt.
        BackingOff = "backing_off",
        /// As many handshakes wait as allowed.
        TooManyWaiters = "too_many_waiters",
        /// Issuance did not end in time.
        IssuanceDeadline = "issuance_deadline",
        /// Issuance failed.
        IssuanceFailed = "issuance_failed",
        /// The store failed.
        StoreFailed = "store_failed",
        /// The visitor speaks no version, cipher or signature scheme of ours.
        NothingInCommon = "nothing_in_common",
        /// What came is not TLS, or breaks its rules.
        Malformed = "malformed",
        /// The PROXY protocol's header is missing or malformed.
        ProxyHeader = "proxy_header",
        /// The visitor refused our certificate or sent another fatal alert.
        ClientAlert = "client_alert",
        /// The visitor left.
        ClientClosed = "client_closed",
        /// The visitor was too slow.
        ClientTimeout = "client_timeout",
        /// A limit on connections of the tenant.
        Limited = "limited",
        /// A bug of ours.
        Internal = "internal",
    }
}

label! {
    /// Who ended a handshake.
    HandshakeOutcome = "outcome" {
        /// It succeeded.
        Served = "served",
        /// We refused it.
        Refused = "refused",
        /// It broke: the visitor, the network, or we.
        Failed = "failed",
    }
}

impl HandshakeReason {
    /// Whether it succeeded, was refused by us, or broke.
    #[must_use]
    pub const fn outcome(self) -> HandshakeOutcome {
        match self {
            Self::Full | Self::Resumed => HandshakeOutcome::Served,
            Self::UnknownName
            | Self::NoServerName
            | Self::BadServerName
            | Self::Suspended
            | Self::PermissionUnavailable
            | Self::BackingOff
            | Self::TooManyWaiters
            | Self::IssuanceDeadline
            | Self::IssuanceFailed
            | Self::StoreFailed
            | Self::Limited => HandshakeOutcome::Refused,
            Self::NothingInCommon
            | Self::Malformed
            | Self::ProxyHeader
            | Self::ClientAlert
            | Self::ClientClosed
            | Self::ClientTimeout
            | Self::Internal => HandshakeOutcome::Failed,
        }
    }
}

/// The end of a handshake: outcome, reason and origin. Only combinations that occur have a place: a success
/// has an origin, anything else has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handshake {
    reason: HandshakeReason,
    origin: CredentialOrigin,
}

impl Handshake {
    /// A full handshake with a credential from `origin`.
    #[must_use]
    pub const fn full(origin: CredentialOrigin) -> Self {
        Self {
            reason: HandshakeReason::Full,
            origin,
        }
    }

    /// A resumed handshake: its credential was in memory.
    #[must_use]
    pub const fn resumed() -> Self {
        Self {
            reason: HandshakeReason::Resumed,
            origin: CredentialOrigin::Memory,
        }
    }

    /// One that did not succeed, for this reason.
    #[must_use]
    pub const fn without(reason: HandshakeReason) -> Self {
        Self {
            reason,
            origin: CredentialOrigin::None,
        }
    }
}

impl Labels for Handshake {
    const COUNT: usize = HandshakeReason::COUNT * CredentialOrigin::COUNT;

    fn index(self) -> usize {
        (self.reason, self.origin).index()
    }

    fn all() -> Vec<Self> {
        let served = [
            Self::full(CredentialOrigin::Memory),
            Self::full(CredentialOrigin::Store),
            Self::full(CredentialOrigin::Issued),
            Self::resumed(),
        ];
        let others = HandshakeReason::ALL.iter().copied();
        let others = others
            .filter(|reason| reason.outcome() != HandshakeOutcome::Served)
            .map(Self::without);
        served.into_iter().chain(others).collect()
    }

    fn words(self) -> Vec<(&'static str, &'static str)> {
        [
            self.reason.outcome().words(),
            self.reason.words(),
            self.origin.words(),
        ]
        .concat()
    }
}

label! {
    /// How a challenge was asked for.
    ChallengeAsked = "kind" {
        /// Its path on port 80.
        Http01 = "http-01",
        /// The protocol `acme-tls/1` on port 443.
        TlsAlpn01 = "tls-alpn-01",
    }
}

label! {
    /// What was answered to a CA that asked for a challenge.
    ChallengeAnswer = "outcome" {
        /// Answered from memory.
        Memory = "memory",
        /// Answered from the store.
        Store = "store",
        /// Nothing was published for the host and token.
        Unknown = "unknown",
        /// The store could not be asked.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_expose_only_combinations_that_occur() {
        let all = Handshake::all();
        assert_eq!(all.len(), HandshakeReason::COUNT + 2);
        let mut places: Vec<usize> = all.iter().map(|one| one.index()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), all.len());
        assert!(places.iter().all(|place| *place < Handshake::COUNT));
    }
}
