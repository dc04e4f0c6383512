//! Labels of the store and of the configuration.

use crate::telemetry::family::Labels;

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
    /// Whether a data key opens.
    DataKeyState = "state" {
        /// It does, or was destroyed for good.
        Readable = "readable",
        /// Its key-encryption key is not at hand, or it was changed.
        Unreadable = "unreadable",
    }
}
