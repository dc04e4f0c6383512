//! Why an authority does not suit a name, for the tenant and the operator: each reason with its problem code and, where
//! there is one, its remedy. Pure.

use std::fmt;
use std::sync::Arc;

use crate::dns::caa::Verdict;
use crate::model::problem::ProblemCode;

/// Why an authority is not asked for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// It certifies no such name: HTTP-01 proves no wildcard.
    NotCertified,
    /// A content delivery network is in front of the name, and no kind of challenge that is allowed passes through it.
    Fronted,
    /// It is not there at present, or being tried by one order.
    Away {
        /// How it failed last, and what was seen; empty where it is only being tried.
        trouble: Vec<String>,
    },
    /// The domain's CAA records stand against it.
    Caa {
        /// In which way.
        verdict: Verdict,
        /// The record to add.
        remedy: Option<String>,
        /// The records there are.
        records: Vec<String>,
    },
    /// The domain's CAA records cannot be read, by anybody: no authority issues then (RFC 8659 §5.1).
    CaaUnreadable {
        /// `dns_servfail` or `dnssec_bogus`.
        code: ProblemCode,
        /// What was seen.
        why: String,
    },
    /// It does not offer the profile that is configured.
    Profile {
        /// Which.
        wanted: Arc<str>,
        /// What it offers.
        offered: Vec<String>,
    },
}

impl Unsuitable {
    /// The problem that it is where no other authority suits.
    #[must_use]
    pub const fn code(&self) -> ProblemCode {
        match self {
            Self::NotCertified | Self::Profile { .. } => ProblemCode::PolicyDenied,
            Self::Fronted => ProblemCode::CdnInFront,
            Self::Away { .. } => ProblemCode::CaOutage,
            Self::Caa { verdict, .. } => match verdict {
                Verdict::ForbidsAccount => ProblemCode::CaaForbidsAccount,
                Verdict::ForbidsMethod => ProblemCode::CaaForbidsMethod,
                Verdict::Allowed | Verdict::ForbidsCa | Verdict::UnknownCritical(_) => {
                    ProblemCode::CaaForbidsCa
                }
            },
            Self::CaaUnreadable { code, .. } => *code,
        }
    }

    /// What repairs it.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Caa {
                verdict: Verdict::UnknownCritical(tag),
                ..
            } => Some(format!(
                "remove the critical CAA record with the tag {tag:?}"
            )),
            Self::Caa { remedy, .. } => remedy
                .as_ref()
                .map(|record| format!("add this record: {record}")),
            Self::Profile { offered, .. } => Some(format!(
                "set profile in [[ca]] or [[tenant]] to one of: {}; or remove it",
                offered.join(", ")
            )),
            Self::Fronted => Some(
                "allow \"http-01\" in [certificates] challenges, or have the name lead here without the network"
                    .to_owned(),
            ),
            Self::NotCertified => Some(
                "register the names below the wildcard one by one, or add a [[ca]] of kind \"private\", whose root visitors \
                 must trust"
                    .to_owned(),
            ),
            Self::Away { .. } | Self::CaaUnreadable { .. } => None,
        }
    }

    /// What was seen.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        match self {
            Self::Caa { records, .. } => records.clone(),
            Self::CaaUnreadable { why, .. } => vec![why.clone()],
            Self::Away { trouble } => trouble.iter().skip(1).cloned().collect(),
            Self::NotCertified | Self::Fronted | Self::Profile { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCertified => {
                f.write_str("certifies no wildcard, for HTTP-01 proves none; one of kind \"private\" does")
            }
            Self::Fronted => f.write_str(
                "could be shown the name on port 443 only, where a content delivery network answers for it",
            ),
            Self::Away { trouble } => match trouble.first() {
                Some(trouble) => write!(f, "is not asked at present: {trouble}"),
                None => f.write_str("is being tried by another order"),
            },
            Self::Caa { verdict, .. } => f.write_str(match verdict {
                Verdict::ForbidsAccount => "is allowed by the domain's CAA records, but not our account",
                Verdict::ForbidsMethod => {
                    "is allowed by the domain's CAA records, but not our ways to prove the name"
                }
                Verdict::UnknownCritical(_) => {
                    "must not issue, for a critical CAA record of the domain has a tag that no authority knows"
                }
                Verdict::Allowed | Verdict::ForbidsCa => "is forbidden by the domain's CAA records",
            }),
            Self::CaaUnreadable { .. } => f.write_str("must not issue while the domain's CAA records cannot be read"),
            Self::Profile { wanted, offered } => write!(
                f,
                "does not offer the profile {wanted:?}; it offers: {}",
                offered.join(", ")
            ),
        }
    }
}
