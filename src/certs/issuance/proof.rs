//! How a name is proved: which kinds of challenge are tried, and what is remembered of how they end.

use super::attempt::Attempt;
use super::failure::Cause;
use crate::ca::{CaError, Challenge};
use crate::model::NamePattern;
use crate::model::challenge::{ChallengeKind, ChallengeOrder};
use crate::model::standing::{DomainMemory, Learnt};
use crate::store::Deadline;
use crate::store::batch::{Batch, Operation};

/// How a challenge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The authority took it.
    Passed,
    /// It did not.
    Failed,
}

/// Whether something in front of us ends TLS for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fronted {
    /// It does: the authority would meet its certificate, never ours.
    Yes,
    /// Not as far as we know.
    Unknown,
}

/// The kinds to try for a domain, the one to try first first: the policy's, in the order that experience gives, without
/// what cannot pass.
fn kinds(order: &ChallengeOrder, memory: &DomainMemory, fronted: Fronted) -> Vec<ChallengeKind> {
    let mut kinds = memory.challenges.prefer(order);
    kinds.retain(|kind| fronted == Fronted::Unknown || *kind != ChallengeKind::TlsAlpn01);
    kinds
}

/// Whether a failure says something about the kind of challenge, so that another may succeed: what an authority says
/// about the name's DNS, its CAA records or its own limits holds for every kind.
pub(super) fn concerns_kind(cause: &Cause) -> bool {
    let Cause::Ca(CaError::Refused { document, .. }) = cause else {
        return false;
    };
    let kind = match document.kind.as_str() {
        "compound" | "" => document.parts.first().map_or("", |part| &part.kind),
        kind => kind,
    };
    matches!(
        kind,
        "connection" | "unauthorized" | "incorrectResponse" | "tls" | "malformed" | ""
    )
}

impl Attempt<'_> {
    /// The kinds to try for this domain. Never TLS-ALPN-01 where a content delivery network is known to be in front.
    pub(super) fn kinds(&self, memory: &DomainMemory) -> Vec<ChallengeKind> {
        let fronted = match (&self.parts.preflight, self.pattern) {
            (Some(preflight), NamePattern::Exact(name))
                if preflight.is_fronted(name, &memory.reach) =>
            {
                Fronted::Yes
            }
            _ => Fronted::Unknown,
        };
        kinds(&self.settings.challenges, memory, fronted)
    }

    /// Remembers with the domain how its challenges ended, where that is news. The certificate does not depend on it: what
    /// cannot be stored is told and forgotten.
    pub(super) async fn remember(&self, challenges: &[ChallengeKind], proof: Proof) {
        if challenges.is_empty() {
            return;
        }
        let by = Deadline::after(super::PATIENCE);
        let domain = self.parts.store.domain(by, &self.scope, self.pattern).await;
        let mut known = match domain {
            Ok(Some(domain)) => domain.memory.challenges,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(domain = %self.pattern, %error, "how a challenge ended is not remembered");
                return;
            }
        };
        let before = known.clone();
        for kind in challenges {
            match proof {
                Proof::Passed => known.note_passed(*kind),
                Proof::Failed => known.note_failed(*kind),
            }
        }
        if known == before {
            return;
        }
        let batch = Batch::new().then(Operation::Remember {
            pattern: self.pattern.clone(),
            learnt: Box::new(Learnt::Challenges(known)),
        });
        if let Err(failure) = self.commit(&batch).await {
            let cause = failure.cause;
            tracing::warn!(domain = %self.pattern, %cause, "how a challenge ended is not remembered");
        }
    }
}

/// The kinds among `challenges`, each once.
pub(super) fn kinds_of(challenges: &[Challenge]) -> Vec<ChallengeKind> {
    let mut kinds: Vec<ChallengeKind> = challenges.iter().map(|challenge| challenge.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::error::{Document, Step};
    use crate::model::certificate::CaId;

    #[test]
    fn behind_a_content_delivery_network_a_name_is_not_proved_on_port_443() {
        use ChallengeKind::{Http01, TlsAlpn01};

        let order = ChallengeOrder::new(&[TlsAlpn01, Http01]).unwrap();
        let mut memory = DomainMemory::default();
        memory.challenges.note_passed(TlsAlpn01);
        assert_eq!(
            kinds(&order, &memory, Fronted::Unknown),
            [TlsAlpn01, Http01]
        );
        assert_eq!(kinds(&order, &memory, Fronted::Yes), [Http01]);
        let only = ChallengeOrder::new(&[TlsAlpn01]).unwrap();
        assert!(kinds(&only, &memory, Fronted::Yes).is_empty());
    }

    #[test]
    fn only_what_another_kind_may_avoid_counts_against_a_kind() {
        let check = |kind: &str, expected| {
            let document = Document {
                kind: kind.to_owned(),
                ..Document::default()
            };
            let cause = Cause::Ca(CaError::Refused {
                ca: CaId::new("ca"),
                step: Step::Authorization,
                document: Box::new(document),
                retry_after: None,
            });
            assert_eq!(concerns_kind(&cause), expected, "{kind}");
        };
        for kind in ["connection", "unauthorized", "incorrectResponse", "tls"] {
            check(kind, true);
        }
        for kind in ["dns", "caa", "rateLimited", "serverInternal", "badNonce"] {
            check(kind, false);
        }
    }
}
