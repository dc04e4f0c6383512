//! The kinds of challenge by which a name is proved to an authority, which of them are wanted, and what a domain's past
//! says about them.
//!
//! The list is closed on purpose: a kind that is added (DNS-01 next) does not compile until every place decides about it:
//! how an order offers it (`ca::acme`), how its answer is published (`certs::challenge`, which then needs a DNS provider
//! beside the two answers that we give ourselves), and whether it suits a name (`certs::issuance`, for only DNS-01
//! proves wildcards).

use std::fmt;

/// A kind of challenge (RFC 8555 §8).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum ChallengeKind {
    /// A file under `/.well-known/acme-challenge/` on port 80 (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate of its own on port 443 (RFC 8737): what stands in front of us and ends TLS defeats it.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl ChallengeKind {
    /// Every kind, the usual order of preference.
    pub const ALL: [Self; 2] = [Self::Http01, Self::TlsAlpn01];

    /// The registered word for it (RFC 8555 §9.7.8).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl fmt::Display for ChallengeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kinds in an order of preference: at least one, none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChallengeOrder([Option<ChallengeKind>; ChallengeKind::ALL.len()]);

impl Default for ChallengeOrder {
    fn default() -> Self {
        Self(ChallengeKind::ALL.map(Some))
    }
}

impl ChallengeOrder {
    /// These kinds, the preferred first. Nothing where the list is empty or names one twice.
    #[must_use]
    pub fn new(kinds: &[ChallengeKind]) -> Option<Self> {
        let mut order = [None; ChallengeKind::ALL.len()];
        for (index, kind) in kinds.iter().enumerate() {
            if order.contains(&Some(*kind)) {
                return None;
            }
            *order.get_mut(index)? = Some(*kind);
        }
        (!kinds.is_empty()).then_some(Self(order))
    }

    /// The kinds, the preferred first.
    pub fn iter(&self) -> impl Iterator<Item = ChallengeKind> {
        self.0.into_iter().flatten()
    }
}

/// How the challenges of a domain ended before.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ChallengeMemory {
    /// The kind that passed last, unless it failed since.
    pub passed: Option<ChallengeKind>,
    /// Kinds that failed and have not passed since, the longest ago first.
    pub failed: Vec<ChallengeKind>,
}

impl ChallengeMemory {
    /// Notes that `kind` passed.
    pub fn note_passed(&mut self, kind: ChallengeKind) {
        self.passed = Some(kind);
        self.failed.retain(|failed| *failed != kind);
    }

    /// Notes that `kind` failed.
    pub fn note_failed(&mut self, kind: ChallengeKind) {
        if self.passed == Some(kind) {
            self.passed = None;
        }
        self.failed.retain(|failed| *failed != kind);
        self.failed.push(kind);
    }

    /// The kinds of `order` as they are tried: the one that passed last, then those that never failed, then the others,
    /// the one that failed last at the end.
    #[must_use]
    pub fn prefer(&self, order: &ChallengeOrder) -> Vec<ChallengeKind> {
        let mut kinds: Vec<ChallengeKind> = order.iter().collect();
        kinds.sort_by_key(|kind| match self.passed == Some(*kind) {
            true => 0,
            false => self
                .failed
                .iter()
                .position(|failed| failed == kind)
                .map_or(1, |place| place + 2),
        });
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::ChallengeKind::{Http01, TlsAlpn01};
    use super::*;

    #[test]
    fn an_order_names_each_kind_at_most_once_and_at_least_one() {
        for kinds in [&[Http01][..], &[TlsAlpn01], &[TlsAlpn01, Http01]] {
            let order = ChallengeOrder::new(kinds).unwrap();
            assert_eq!(order.iter().collect::<Vec<_>>(), kinds);
        }
        for kinds in [&[][..], &[Http01, Http01], &[Http01, TlsAlpn01, Http01]] {
            assert_eq!(ChallengeOrder::new(kinds), None);
        }
    }

    #[test]
    fn what_passed_last_is_tried_first_and_what_failed_last_is_tried_last() {
        let order = ChallengeOrder::default();
        let mut memory = ChallengeMemory::default();
        assert_eq!(memory.prefer(&order), [Http01, TlsAlpn01]);
        memory.note_failed(Http01);
        assert_eq!(memory.prefer(&order), [TlsAlpn01, Http01]);
        memory.note_failed(TlsAlpn01);
        assert_eq!(memory.prefer(&order), [Http01, TlsAlpn01], "in turn");
        memory.note_failed(Http01);
        assert_eq!(memory.prefer(&order), [TlsAlpn01, Http01]);
        memory.note_passed(TlsAlpn01);
        assert_eq!(memory.prefer(&order), [TlsAlpn01, Http01]);
        memory.note_passed(Http01);
        assert_eq!(memory.prefer(&order), [Http01, TlsAlpn01]);
        memory.note_failed(Http01);
        assert_eq!(memory.passed, None);
        assert_eq!(memory.prefer(&order), [TlsAlpn01, Http01]);
        let only = ChallengeOrder::new(&[Http01]).unwrap();
        assert_eq!(memory.prefer(&only), [Http01], "the policy stands");
    }

    #[test]
    fn the_words_are_those_of_the_registry_in_records_too() {
        for kind in ChallengeKind::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.as_str());
        }
        let empty: ChallengeMemory = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, ChallengeMemory::default());
    }
}
