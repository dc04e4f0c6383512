//! Rates by the generic cell rate algorithm, one number each, shared without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use crate::base::clock::{Instant, monotonic};
use crate::model::DnsName;

/// Registered domains whose rate is remembered.
const MOST_DOMAINS: usize = 10_000;

/// At most so many per second, with bursts of one second's worth.
#[derive(Debug)]
pub struct Rate {
    began: Instant,
    /// The theoretical arrival time of the next call that would find the bucket empty, in nanoseconds since `began`.
    arrival: AtomicU64,
    interval: u64,
}

impl Rate {
    /// `per_second` calls a second; 0 counts as 1.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            began: monotonic(),
            arrival: AtomicU64::new(0),
            interval: SECOND / u64::from(per_second.max(1)),
        }
    }

    /// Whether a call at `now` would be within the rate; takes nothing.
    #[must_use]
    pub fn has_room(&self, now: Instant) -> bool {
        self.after_one(self.arrival.load(Ordering::Relaxed), now)
            .is_some()
    }

    /// Takes one call at `now`, or tells that the rate is used up.
    #[must_use]
    pub fn take(&self, now: Instant) -> bool {
        self.arrival
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |arrival| {
                self.after_one(arrival, now)
            })
            .is_ok()
    }

    /// The arrival time after one more call, where the burst allows it.
    fn after_one(&self, arrival: u64, now: Instant) -> Option<u64> {
        let now = nanoseconds(now.saturating_duration_since(self.began));
        let next = arrival.max(now).saturating_add(self.interval);
        (next - now <= SECOND.max(self.interval)).then_some(next)
    }

    /// Whether the bucket is full again, so that forgetting it changes nothing.
    fn is_idle(&self, now: Instant) -> bool {
        let now = nanoseconds(now.saturating_duration_since(self.began));
        self.arrival.load(Ordering::Relaxed) <= now
    }
}

const SECOND: u64 = 1_000_000_000;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A rate for each registered domain.
#[derive(Debug)]
pub struct DomainRates {
    per_second: u32,
    rates: DashMap<DnsName, Rate>,
}

impl DomainRates {
    /// `per_second` calls a second for each.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            rates: DashMap::new(),
        }
    }

    /// Takes one call for `domain` at `now`, or tells that its rate is used up. While as many domains as can be
    /// remembered are busy, further ones count as used up.
    #[must_use]
    pub fn take(&self, domain: &DnsName, now: Instant) -> bool {
        if let Some(rate) = self.rates.get(domain) {
            return rate.take(now);
        }
        if self.rates.len() >= MOST_DOMAINS {
            self.rates.retain(|_, rate| !rate.is_idle(now));
            if self.rates.len() >= MOST_DOMAINS {
                return false;
            }
        }
        self.rates
            .entry(domain.clone())
            .or_insert_with(|| Rate::new(self.per_second))
            .take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_one_seconds_worth_at_once_then_one_per_interval() {
        let rate = Rate::new(5);
        let start = rate.began + Duration::from_secs(10);
        let taken = |at: Instant| (0..100).filter(|_| rate.take(at)).count();
        assert_eq!(taken(start), 5);
        assert!(!rate.has_room(start));
        assert_eq!(taken(start + Duration::from_millis(199)), 0);
        assert!(rate.has_room(start + Duration::from_millis(200)));
        assert_eq!(taken(start + Duration::from_millis(200)), 1);
        assert_eq!(taken(start + Duration::from_secs(3600)), 5);
    }

    #[test]
    fn one_domain_cannot_use_up_another_and_none_is_remembered_for_ever() {
        let rates = DomainRates::new(1);
        let now = monotonic() + Duration::from_secs(1);
        let domain = |n: usize| DnsName::parse(&format!("d{n}.test")).unwrap();
        assert!(rates.take(&domain(0), now) && !rates.take(&domain(0), now));
        for n in 1..MOST_DOMAINS {
            assert!(rates.take(&domain(n), now));
        }
        assert!(!rates.take(&domain(MOST_DOMAINS), now));
        let later = now + Duration::from_secs(2);
        assert!(rates.take(&domain(MOST_DOMAINS), later));
        assert_eq!(rates.rates.len(), 1);
    }
}
