//! Every label that a metric may carry, as a closed enum: no text from outside becomes a label.

use crate::model::problem::ProblemCode;
use crate::telemetry::family::Labels;

/// Declares an enum that is the label of a name, with a word for each value.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident = $key:literal { $($(#[$inner:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$inner])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it in metrics and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl Labels for $name {
            const COUNT: usize = Self::ALL.len();

            fn index(self) -> usize {
                self as usize
            }

            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn words(self) -> Vec<(&'static str, &'static str)> {
                vec![($key, self.as_str())]
            }
        }
    };
}

label! {
    /// The HTTP version of a visitor's connection.
    Protocol = "protocol" {
        /// HTTP/1.0 and HTTP/1.1.
        Http1 = "http/1",
        /// HTTP/2.
        H2 = "h2",
    }
}

label! {
    /// The first digit of a response's status.
    StatusClass = "status" {
        /// No response was sent: the visitor was gone.
        None = "none",
        /// Informational, which ends a request only as 101.
        Informational = "1xx",
        /// Success.
        Success = "2xx",
        /// Redirection.
        Redirection = "3xx",
        /// The visitor's fault.
        ClientError = "4xx",
        /// The server's fault.
        ServerError = "5xx",
    }
}

impl StatusClass {
    /// The class of a status; [`StatusClass::None`] where it is none.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::None,
        }
    }
}

label! {
    /// Why a request ended.
    End = "end" {
        /// Request and response were carried to their ends.
        Completed = "completed",
        /// A challenge of a CA was answered.
        Challenge = "challenge",
        /// Port 80 sent the visitor to HTTPS.
        Redirected = "redirected",
        /// A tunnel after an upgrade ended.
        Upgraded = "upgraded",
        /// The visitor left before the end.
        ClientClosed = "client_closed",
        /// The visitor was too slow.
        ClientTimeout = "client_timeout",
        /// The request is malformed or ambiguous: 400.
        BadRequest = "bad_request",
        /// A limit on size was passed: 413, 414 or 431.
        TooLarge = "too_large",
        /// A limit on rate or number was passed: 429 or 503.
        Limited = "limited",
        /// The authority does not belong to this connection: 421.
        Misdirected = "misdirected",
        /// Nobody registered the host: 404 on port 80.
        UnknownHost = "unknown_host",
        /// No route leads from there: 404.
        NoRoute = "no_route",
        /// The upstream's name has no address yet.
        UpstreamUnresolved = "upstream_unresolved",
        /// The upstream refuses connections or cannot be reached.
        UpstreamUnreachable = "upstream_unreachable",
        /// The connection to the upstream was not made in time.
        UpstreamConnectTimeout = "upstream_connect_timeout",
        /// The upstream's TLS failed.
        UpstreamTls = "upstream_tls",
        /// The upstream closed before its answer was whole.
        UpstreamClosed = "upstream_closed",
        /// The upstream's answer did not come in time.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream's answer is malformed.
        UpstreamMalformed = "upstream_malformed",
        /// The process is shutting down.
        Draining = "draining",
        /// A bug of ours.
        Internal = "internal",
    }
}

impl End {
    /// Whether it counts among the tenant's errors: what an operator or the tenant's upstream must look at.
    #[must_use]
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::NoRoute
                | Self::UpstreamUnresolved
                | Self::UpstreamUnreachable
                | Self::UpstreamConnectTimeout
                | Self::UpstreamTls
                | Self::UpstreamClosed
                | Self::UpstreamTimeout
                | Self::UpstreamMalformed
                | Self::Internal
        )
    }
}

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
    /// How an attempt to get a connection to an upstream ended.
    UpstreamConnection = "outcome" {
        /// A connection from the pool was used.
        Reused = "reused",
        /// A new one was made.
        Connected = "connected",
        /// Its address has not been resolved.
        Unresolved = "unresolved",
        /// It was refused, or there is no way there.
        Unreachable = "unreachable",
        /// It did not come in time.
        Timeout = "timeout",
        /// Its TLS failed.
        Tls = "tls",
    }
}

label! {
    /// What a CA was asked for.
    IssuanceKind = "kind" {
        /// The first certificate of a name.
        First = "first",
        /// The successor of one that serves.
        Renewal = "renewal",
    }
}

label! {
    /// How an issuance ended.
    IssuanceOutcome = "outcome" {
        /// With a certificate.
        Issued = "issued",
        /// It failed, and backs off.
        Failed = "failed",
        /// Interrupted through no fault of the domain; nothing is counted against it.
        Deferred = "deferred",
        /// Policy or the permission hook denied it.
        Denied = "denied",
    }
}

label! {
    /// What became of a due job.
    JobState = "state" {
        /// Due, waiting for a place.
        Queued = "queued",
        /// Being worked on here.
        Running = "running",
    }
}

label! {
    /// How long until a certificate expires.
    Expiry = "expires_within" {
        /// It has.
        Expired = "expired",
        /// A day.
        Day = "1d",
        /// Three days.
        ThreeDays = "3d",
        /// A week.
        Week = "7d",
        /// Thirty days.
        Month = "30d",
        /// More than that.
        Later = "later",
    }
}

label! {
    /// What the store was asked for.
    StoreCall = "call" {
        /// Name to certificate.
        Resolve = "resolve",
        /// The answer to a challenge.
        Challenge = "challenge",
        /// A batch of changes.
        Apply = "apply",
        /// Jobs, and leases on them.
        Claim = "claim",
        /// A CA's budget.
        Take = "take",
        /// The feed of changes.
        Changes = "changes",
        /// One record.
        Read = "read",
        /// A page of records.
        List = "list",
    }
}

label! {
    /// How the store failed.
    StoreFailure = "reason" {
        /// It cannot be reached.
        Unavailable = "unavailable",
        /// It did not answer in time.
        Timeout = "timeout",
        /// It broke off while committing.
        Unknown = "unknown",
        /// Its disk is full.
        Full = "full",
        /// It holds what cannot be so.
        Corrupt = "corrupt",
    }
}

label! {
    /// How a question to the permission hook was answered.
    Permission = "outcome" {
        /// The hook allowed it.
        Allowed = "allowed",
        /// The hook denied it.
        Denied = "denied",
        /// An earlier yes was remembered.
        AllowedCached = "allowed_cached",
        /// An earlier no was remembered.
        DeniedCached = "denied_cached",
        /// The rate in all, or of the registered domain, was used up.
        RateLimited = "rate_limited",
        /// The breaker is open: the hook failed too often.
        BreakerOpen = "breaker_open",
        /// It did not answer in time.
        Timeout = "timeout",
        /// It could not be reached.
        Unreachable = "unreachable",
        /// Its answer makes no sense.
        Malformed = "malformed",
    }
}

label! {
    /// How reading the configuration again ended.
    Reload = "outcome" {
        /// It was swapped in.
        Success = "success",
        /// It has mistakes; the old one stays.
        Failure = "failure",
    }
}

label! {
    /// Which configuration is in force.
    ConfigState = "state" {
        /// That of the file as it is.
        Current = "current",
        /// The last good one: the file has mistakes.
        LastGood = "last_good",
    }
}

label! {
    /// What port 80 did with the path of a challenge.
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

label! {
    /// Which way bytes went, seen from here.
    Direction = "direction" {
        /// From visitors.
        In = "in",
        /// To visitors.
        Out = "out",
    }
}

impl Labels for ProblemCode {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn words(self) -> Vec<(&'static str, &'static str)> {
        vec![("code", self.as_str())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_classes_cover_every_number() {
        for (status, class) in [
            (0, StatusClass::None),
            (101, StatusClass::Informational),
            (204, StatusClass::Success),
            (308, StatusClass::Redirection),
            (499, StatusClass::ClientError),
            (502, StatusClass::ServerError),
            (u16::MAX, StatusClass::None),
        ] {
            assert_eq!(StatusClass::of(status), class, "{status}");
        }
    }

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
