//! The wish for a certificate: the same whether a visitor, the configuration, the API or a clock has it.

use crate::base::clock::Timestamp;
use crate::model::certificate::CertificateFacts;
use crate::model::{NamePattern, TenantId};
use crate::telemetry::labels::IssuanceKind;

/// A certificate is wanted for a domain of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuanceRequest {
    /// The domain. Its pattern is the certificate's one name, so that no certificate ever spans tenants.
    pub pattern: NamePattern,
    /// The tenant it is wanted for.
    pub tenant: TenantId,
    /// Why.
    pub reason: Reason,
}

/// Why a certificate is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    First,
    /// The one there is nears its end.
    Renewal(Box<CertificateFacts>),
    /// The one there was has ended; nothing serves.
    Expired(Box<CertificateFacts>),
}

impl Reason {
    /// Why one is wanted for a domain whose certificate, if it has one, is `certificate`.
    #[must_use]
    pub fn of(certificate: Option<&CertificateFacts>, now: Timestamp) -> Self {
        match certificate {
            None => Self::First,
            Some(facts) if facts.not_after <= now => Self::Expired(Box::new(facts.clone())),
            Some(facts) => Self::Renewal(Box::new(facts.clone())),
        }
    }

    /// The certificate in whose place another is wanted.
    #[must_use]
    pub const fn certificate(&self) -> Option<&CertificateFacts> {
        match self {
            Self::First => None,
            Self::Renewal(facts) | Self::Expired(facts) => Some(facts),
        }
    }

    /// The label for it in metrics.
    #[must_use]
    pub const fn kind(&self) -> IssuanceKind {
        match self {
            Self::First => IssuanceKind::First,
            Self::Renewal(_) | Self::Expired(_) => IssuanceKind::Renewal,
        }
    }
}
