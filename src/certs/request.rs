//! The wish for a certificate: the same whether a visitor, the configuration, the API or a clock has it.

use crate::certs::lifecycle::Why;
use crate::model::certificate::CertificateFacts;
use crate::model::standing::Replace;
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
    /// The one there is must be replaced before its time.
    Replacement(Box<CertificateFacts>, Replace),
}

impl Reason {
    /// Why one is wanted for a domain whose certificate, if it has one, is `certificate`.
    #[must_use]
    pub fn of(why: Why, certificate: Option<&CertificateFacts>) -> Self {
        let Some(facts) = certificate else {
            return Self::First;
        };
        let facts = Box::new(facts.clone());
        match why {
            Why::First => Self::First,
            Why::Renewal => Self::Renewal(facts),
            Why::Expired => Self::Expired(facts),
            Why::Replacement(replace) => Self::Replacement(facts, replace),
        }
    }

    /// The same, without the certificate.
    #[must_use]
    pub const fn why(&self) -> Why {
        match self {
            Self::First => Why::First,
            Self::Renewal(_) => Why::Renewal,
            Self::Expired(_) => Why::Expired,
            Self::Replacement(_, replace) => Why::Replacement(*replace),
        }
    }

    /// The certificate in whose place another is wanted.
    #[must_use]
    pub const fn certificate(&self) -> Option<&CertificateFacts> {
        match self {
            Self::First => None,
            Self::Renewal(facts) | Self::Expired(facts) | Self::Replacement(facts, _) => {
                Some(facts)
            }
        }
    }

    /// The label for it in metrics.
    #[must_use]
    pub const fn kind(&self) -> IssuanceKind {
        match self {
            Self::First => IssuanceKind::First,
            Self::Renewal(_) | Self::Expired(_) | Self::Replacement(..) => IssuanceKind::Renewal,
        }
    }
}
