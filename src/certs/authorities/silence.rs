//! Name servers that were silent lately: no visitor waits long for them. Others wait as long as ever, so that one who is
//! only slow is heard again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::clock::Instant;
use crate::model::DnsName;

/// For how long silence is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Registered domains whose silence is remembered, at most.
const MOST: usize = 1000;
/// So many domains that are silent one after the other make the resolvers themselves suspect.
const MANY: usize = 3;

/// Which registered domains were silent.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    of: HashMap<DnsName, Instant>,
    /// Domains that were silent since any last answered, and until when that counts.
    since: usize,
    until: Option<Instant>,
}

impl Silence {
    /// Whether silence is to be expected for `domain`.
    pub(super) fn is_expected(&self, domain: &DnsName, now: Instant) -> bool {
        let met = self.met();
        let own = met.of.get(domain).is_some_and(|until| now < *until);
        own || (met.since >= MANY && met.until.is_some_and(|until| now < until))
    }

    /// Nothing was heard of `domain` for as long as anybody waits.
    pub(super) fn note(&self, domain: DnsName, now: Instant) {
        let mut met = self.met();
        met.of.retain(|_, until| now < *until);
        let until = now + REMEMBERED;
        if met.of.len() < MOST && met.of.insert(domain, until).is_none() {
            met.since = met.since.saturating_add(1);
        }
        met.until = Some(until);
    }

    /// Something was heard of `domain`, whatever it was.
    pub(super) fn heard(&self, domain: &DnsName) {
        let mut met = self.met();
        met.of.remove(domain);
        met.since = 0;
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::monotonic;

    fn domain(text: &str) -> DnsName {
        DnsName::parse(text).unwrap()
    }

    #[test]
    fn a_slow_domain_is_its_own_affair_and_many_in_a_row_are_the_resolvers() {
        let (silence, now) = (Silence::default(), monotonic());
        let (slow, other) = (domain("slow.test"), domain("other.test"));
        silence.note(slow.clone(), now);
        silence.note(slow.clone(), now);
        silence.note(domain("too.test"), now);
        assert!(silence.is_expected(&slow, now));
        assert!(!silence.is_expected(&other, now));
        silence.note(domain("three.test"), now);
        assert!(silence.is_expected(&other, now));
        assert!(!silence.is_expected(&other, now + REMEMBERED));
        // One that answers clears the resolvers, and itself alone.
        silence.heard(&other);
        assert!(!silence.is_expected(&other, now));
        assert!(silence.is_expected(&slow, now));
        assert!(!silence.is_expected(&slow, now + REMEMBERED));
        silence.heard(&slow);
        assert!(!silence.is_expected(&slow, now));
    }
}
