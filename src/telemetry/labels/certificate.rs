//! Labels of certificates and of the work to get them.

use crate::model::problem::{Actor, ProblemCode};
use crate::telemetry::family::Labels;

label! {
    /// What a CA was asked for.
    IssuanceKind = "kind" {
        /// The first certificate of a name.
        First = "first",
        /// The successor of one that serves.
        Renewal = "renewal",
    }
}

/// How an issuance ended: the labels `outcome` and `actor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IssuanceOutcome {
    /// With a certificate.
    Issued,
    /// It failed, and backs off until this one acts.
    Failed(Actor),
    /// Interrupted through no fault of the domain; nothing is counted against it.
    Deferred,
    /// Policy or the permission hook denied it.
    Denied,
}

impl IssuanceOutcome {
    /// Every value.
    pub const ALL: &[Self] = &[
        Self::Issued,
        Self::Failed(Actor::Customer),
        Self::Failed(Actor::Operator),
        Self::Failed(Actor::Ca),
        Self::Failed(Actor::Platform),
        Self::Deferred,
        Self::Denied,
    ];
}

impl Labels for IssuanceOutcome {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        match self {
            Self::Issued => 0,
            Self::Failed(Actor::Customer) => 1,
            Self::Failed(Actor::Operator) => 2,
            Self::Failed(Actor::Ca) => 3,
            Self::Failed(Actor::Platform) => 4,
            Self::Deferred => 5,
            Self::Denied => 6,
        }
    }

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn words(self) -> Vec<(&'static str, &'static str)> {
        let (outcome, actor) = match self {
            Self::Issued => ("issued", "none"),
            Self::Failed(Actor::Customer) => ("failed", "customer"),
            Self::Failed(Actor::Operator) => ("failed", "operator"),
            Self::Failed(Actor::Ca) => ("failed", "ca"),
            Self::Failed(Actor::Platform) => ("failed", "platform"),
            Self::Deferred => ("deferred", "none"),
            Self::Denied => ("denied", "none"),
        };
        vec![("outcome", outcome), ("actor", actor)]
    }
}

label! {
    /// What a CA did when it was told that a certificate is revoked.
    RevocationOutcome = "outcome" {
        /// It took it, or knew already.
        Revoked = "revoked",
        /// It refused, or was not there; it is told again.
        Failed = "failed",
    }
}

label! {
    /// What a bucket of a CA's budget limits.
    BudgetFamily = "bucket" {
        /// Calls of any kind: stopped while the CA asks to be left alone.
        Calls = "calls",
        /// New orders of the account.
        Orders = "orders",
        /// Certificates of a registered domain, whoever orders them.
        Domain = "domain",
        /// Certificates of exactly the same names, whoever orders them.
        ExactSet = "exact_set",
        /// Failed validations of a name.
        Failures = "failures",
        /// Failed validations of a name in a row.
        ConsecutiveFailures = "consecutive_failures",
        /// A tenant's share of the orders.
        TenantShare = "tenant_share",
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
    /// How urgent a job is.
    JobPriority = "priority" {
        /// A visitor waits in a handshake.
        Handshake = "handshake",
        /// A certificate has expired or is about to.
        Expiring = "expiring",
        /// A renewal in good time.
        Renewal = "renewal",
        /// A new name without a visitor.
        Background = "background",
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
    /// How much of its lifetime a certificate has left: what tells 6-day and 90-day certificates in trouble alike.
    LifetimeLeft = "left" {
        /// None: it has expired.
        None = "none",
        /// At most a quarter: its renewal is late.
        Quarter = "quarter",
        /// At most a half.
        Half = "half",
        /// More.
        More = "more",
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
