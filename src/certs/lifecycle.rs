//! What a domain's certificate needs now, and what its state is called meanwhile: one pure table.

use crate::base::clock::Timestamp;
use crate::certs::renewal;
use crate::certs::request::Reason;
use crate::model::certificate::CertificateFacts;
use crate::model::domain::DomainState;

/// What is to be done about a domain's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this time.
    NotBefore(Timestamp),
    /// Obtain one now.
    Now(Reason),
}

/// What a domain needs whose certificate, if it has one, is `certificate`.
#[must_use]
pub fn due(
    certificate: Option<&CertificateFacts>,
    settings: &renewal::Settings,
    now: Timestamp,
) -> Due {
    let reason = Reason::of(certificate, now);
    if let Reason::Renewal(facts) = &reason {
        let at = renewal::due_at(facts, settings);
        if now < at {
            return Due::NotBefore(at);
        }
    }
    Due::Now(reason)
}

/// What happens to a domain's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An attempt begins.
    Began,
    /// An attempt failed.
    Failed,
}

/// The domain's state after `event`, where an attempt has this reason. An active certificate never stops serving for
/// a failure: only its domain is called degraded.
#[must_use]
pub const fn state(reason: &Reason, event: Event) -> DomainState {
    match (reason, event) {
        (Reason::Renewal(_), Event::Began) => DomainState::Renewing,
        (Reason::Renewal(_), Event::Failed) => DomainState::Degraded,
        (Reason::First | Reason::Expired(_), _) => DomainState::Issuing,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::TenantId;
    use crate::model::certificate::{CaId, CertificateId};

    #[test]
    fn a_certificate_is_left_alone_then_renewed_then_replaced() {
        let day = Duration::from_secs(86_400);
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: TenantId::parse("acme").unwrap(),
            names: Vec::new(),
            ca: CaId::new("ca"),
            serial: String::new(),
            not_before: Timestamp::EPOCH,
            not_after: Timestamp::EPOCH.plus(day * 90),
        };
        let settings = renewal::Settings::default();
        let at = renewal::due_at(&facts, &settings);
        let due = |now| due(Some(&facts), &settings, now);
        assert_eq!(due(Timestamp::EPOCH), Due::NotBefore(at));
        assert_eq!(due(at.minus(Duration::from_millis(1))), Due::NotBefore(at));
        let renewal = Reason::Renewal(Box::new(facts.clone()));
        assert_eq!(due(at), Due::Now(renewal.clone()));
        let expired = Reason::Expired(Box::new(facts.clone()));
        assert_eq!(due(facts.not_after), Due::Now(expired.clone()));
        assert_eq!(super::due(None, &settings, at), Due::Now(Reason::First));

        assert_eq!(state(&renewal, Event::Began), DomainState::Renewing);
        assert_eq!(state(&renewal, Event::Failed), DomainState::Degraded);
        for reason in [Reason::First, expired] {
            for event in [Event::Began, Event::Failed] {
                assert_eq!(state(&reason, event), DomainState::Issuing);
            }
        }
    }
}
