//! Why an attempt gave no certificate, as a problem that a tenant and an operator can read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::lease::Gone;
use crate::base::clock::Timestamp;
use crate::ca::CaError;
use crate::certs::accounts::AccountError;
use crate::certs::budget::Denied;
use crate::certs::chain::ChainError;
use crate::certs::credential::CredentialError;
use crate::certs::policy::Denial;
use crate::certs::preflight::judge::Verdict;
use crate::certs::setback::Lane;
use crate::certs::vault::VaultError;
use crate::certs::vault::own::whole;
use crate::model::certificate::CaId;
use crate::model::problem::{Problem, ProblemCode};
use crate::store::{ApplyError, StoreError};

/// Why an attempt ended without a certificate.
#[derive(Debug)]
pub(super) struct Failure {
    /// What failed.
    pub cause: Cause,
    /// Whether the order is of use to the next attempt.
    pub order: Fate,
}

/// What becomes of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is taken up again.
    Kept,
    /// It is forgotten, and the next attempt places another.
    Dead,
}

/// What failed.
#[derive(Debug)]
pub(super) enum Cause {
    /// Policy does not allow the certificate.
    Denied(Denial),
    /// Every authority would refuse the name for what was seen of it; none was asked.
    Preflight(Box<Verdict>),
    /// The budget does not give an order for now.
    Budget(Box<Denied>),
    /// Every place with the authority is taken, and none comes free.
    Crowded(CaId),
    /// The authority's account cannot be used.
    Account(Arc<AccountError>),
    /// The authority failed or refused.
    Ca(CaError),
    /// What the authority sent is not what was ordered.
    Chain(CaId, ChainError),
    /// A key could not be sealed or opened.
    Vault(VaultError),
    /// A key could not be made or used.
    Key(rcgen::Error),
    /// The checked certificate cannot be loaded.
    Credential(CredentialError),
    /// The whole attempt took too long.
    Deadline(Duration),
    /// The store failed: nothing is said about the domain.
    Store(StoreError),
    /// The store refused a change that should be possible; the world changed meanwhile.
    Refused(ApplyError),
    /// The job is not ours any more.
    Gone(Gone),
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            order: Fate::Kept,
        }
    }
}

/// In a line, for the log: what failed, and what was seen.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail())?;
        let mut evidence = self.evidence().into_iter();
        evidence.try_for_each(|seen| write!(f, ": {seen}"))
    }
}

impl Cause {
    /// As a failure after which the order is forgotten.
    pub(super) const fn with_dead_order(self) -> Failure {
        Failure {
            cause: self,
            order: Fate::Dead,
        }
    }

    /// The problem code.
    pub(super) fn code(&self) -> ProblemCode {
        match self {
            Self::Denied(denial) => denial.code(),
            Self::Preflight(verdict) => verdict.code,
            Self::Budget(denied) => denied.code(),
            Self::Account(error) => error.code(),
            Self::Ca(error) => error.code(),
            Self::Chain(..) => ProblemCode::CaRejected,
            Self::Vault(_) | Self::Key(_) | Self::Credential(_) => ProblemCode::KeyUnreadable,
            Self::Deadline(_) | Self::Crowded(_) => ProblemCode::CaOutage,
            Self::Store(_) | Self::Refused(_) | Self::Gone(_) => ProblemCode::CheckFailed,
        }
    }

    /// How long the authority asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self.ca_error() {
            Some(error) => error.retry_after(),
            None => None,
        }
    }

    /// The authority's failure, where it is one.
    pub(super) fn ca_error(&self) -> Option<&CaError> {
        if let Self::Ca(error) = self {
            return Some(error);
        }
        if let Self::Account(error) = self {
            return error.ca_error();
        }
        None
    }

    /// The authority that it is about, where it is about one that was asked or is to be asked.
    pub(super) fn ca(&self) -> Option<&CaId> {
        if let Self::Crowded(ca) = self {
            return Some(ca);
        }
        self.ca_error().map(CaError::ca)
    }

    /// Whether it says something about the domain or its authority, and counts as a failure: everything but trouble
    /// of our own, after which the job is put back.
    pub(super) fn counts(&self) -> bool {
        !matches!(
            self,
            Self::Budget(_) | Self::Crowded(_) | Self::Store(_) | Self::Refused(_) | Self::Gone(_)
        ) && !matches!(self, Self::Account(error) if matches!(
            **error,
            AccountError::Store(_) | AccountError::Busy(_) | AccountError::Kept(_)
        ))
    }

    /// Whether the authority has issued a certificate all the same, of which we make no use.
    pub(super) const fn is_of_a_certificate(&self) -> bool {
        matches!(self, Self::Chain(..) | Self::Credential(_))
    }

    fn detail(&self) -> String {
        match self {
            Self::Denied(denial) => denial.to_string(),
            Self::Preflight(verdict) => verdict.detail.clone(),
            Self::Budget(denied) => denied.to_string(),
            Self::Crowded(ca) => format!("{ca} is busy with other certificates"),
            Self::Account(error) => error.to_string(),
            Self::Ca(error) => error.to_string(),
            Self::Chain(ca, _) => format!("{ca} sent a certificate that is not what was ordered"),
            Self::Vault(_) => "a private key could not be sealed or opened".to_owned(),
            Self::Key(_) => "a private key could not be made or used".to_owned(),
            Self::Credential(error) => error.to_string(),
            Self::Deadline(deadline) => format!(
                "no certificate within {} s; the order is kept and taken up again",
                deadline.as_secs()
            ),
            Self::Store(_) | Self::Refused(_) => {
                "the store failed while a certificate was obtained".to_owned()
            }
            Self::Gone(gone) => gone.to_string(),
        }
    }

    fn evidence(&self) -> Vec<String> {
        if let Some(error) = self.ca_error() {
            return error.evidence();
        }
        match self {
            Self::Preflight(verdict) => verdict.evidence.clone(),
            Self::Budget(denied) => denied.evidence(),
            Self::Chain(_, error) => vec![error.to_string()],
            Self::Vault(error) => vec![whole(error)],
            Self::Key(error) => vec![error.to_string()],
            Self::Store(error) => vec![error.to_string()],
            Self::Refused(error) => vec![error.to_string()],
            Self::Denied(denial) => denial.evidence(),
            Self::Account(_)
            | Self::Crowded(_)
            | Self::Ca(_)
            | Self::Credential(_)
            | Self::Deadline(_)
            | Self::Gone(_) => Vec::new(),
        }
    }

    /// What repairs it, where that follows from more than its code.
    fn fix(&self) -> Option<String> {
        if let Self::Preflight(verdict) = self {
            return Some(verdict.fix.clone());
        }
        if let Self::Denied(denial) = self {
            return denial.fix();
        }
        None
    }

    /// The problem, first seen when `earlier` was where that is the same one; without a remedy where that only follows
    /// from its code.
    pub(super) fn problem(
        &self,
        earlier: Option<&Problem>,
        next_retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Problem {
        let code = self.code();
        // An authority's trouble is one, in whatever way it shows.
        let troubled = |code| !Lane::of(code).counts();
        let same =
            |earlier: &&Problem| earlier.code == code || (troubled(earlier.code) && troubled(code));
        let first_seen = earlier
            .filter(same)
            .map_or(now, |earlier| earlier.first_seen);
        Problem {
            code,
            actor: code.actor(),
            detail: self.detail(),
            evidence: self.evidence(),
            fix: self.fix(),
            first_seen,
            last_seen: now,
            next_retry_at,
        }
    }
}
