//! What the hook has answered and still holds, and what refuses a name without asking: shared with the
//! workers, so that a name known to be denied costs one look-up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;

use crate::base::clock::{Instant, monotonic};
use crate::certs::on_demand::Refusal;
use crate::certs::permission::Settings;
use crate::certs::permission::breaker::Breaker;
use crate::certs::permission::rate::{DomainRates, Rate};
use crate::model::route::UpstreamName;
use crate::model::{DnsName, TenantId};

/// Answers kept at most.
const MOST_ANSWERS: usize = 100_000;
/// About how many bytes they may take.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// An answer's share beside its texts: the map's slot, the queue's, the name's and the answer's own allocations.
const ANSWER_BYTES: usize = 224;

/// What the hook said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be served.
    Allowed {
        /// The tenant it belongs to, where the hook named one.
        tenant: Option<TenantId>,
        /// The upstream it goes to, where the hook named one.
        upstream: Option<UpstreamName>,
    },
    /// It may not.
    Denied {
        /// In the hook's words, where it gave any; at most 200 characters.
        reason: Option<Arc<str>>,
    },
}

/// Everything that decides without asking. Clones are the same.
#[derive(Clone, Debug)]
pub struct Verdicts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    answers: DashMap<DnsName, Answer>,
    arrivals: Mutex<Arrivals>,
    total: Rate,
    domains: DomainRates,
    breaker: Breaker,
}

#[derive(Debug)]
struct Answer {
    verdict: Verdict,
    until: Instant,
    number: u64,
}

/// Answers in the order of their arrival: the oldest make room.
#[derive(Debug, Default)]
struct Arrivals {
    queue: VecDeque<(DnsName, u64, usize)>,
    count: u64,
    bytes: usize,
}

/// Why the hook is not asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// The rate in all is used up.
    Total,
    /// The registered domain's rate is used up.
    Domain,
    /// The hook has failed too often lately.
    Open,
}

impl Verdicts {
    /// Nothing answered yet; rates as set.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let shared = Shared {
            answers: DashMap::new(),
            arrivals: Mutex::default(),
            total: Rate::new(settings.rate),
            domains: DomainRates::new(settings.rate_per_domain),
            breaker: Breaker::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Why an unregistered `name` is refused at `now` without asking; nothing where it is worth asking. Neither
    /// waits nor allocates.
    #[must_use]
    pub fn refusal(&self, name: &DnsName, now: Instant) -> Option<Refusal> {
        if let Some(answer) = self.shared.answers.get(name)
            && now < answer.until
        {
            return match answer.verdict {
                Verdict::Allowed { .. } => None,
                Verdict::Denied { .. } => Some(Refusal::UnknownName),
            };
        }
        let refuses = self.shared.breaker.is_open(now) || !self.shared.total.has_room(now);
        refuses.then_some(Refusal::PermissionUnavailable)
    }

    /// The answer for `name` that still holds at `now`.
    #[must_use]
    pub fn get(&self, name: &DnsName, now: Instant) -> Option<Verdict> {
        let answer = self.shared.answers.get(name)?;
        (now < answer.until).then(|| answer.verdict.clone())
    }

    /// How many answers are kept, those that hold no longer included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.answers.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.answers.is_empty()
    }

    /// Keeps an answer for `ttl`; the oldest make room.
    pub fn keep(&self, name: &DnsName, verdict: Verdict, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = monotonic();
        let bytes = weight(name, &verdict);
        let mut arrivals = self
            .shared
            .arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        arrivals.count += 1;
        let number = arrivals.count;
        let answer = Answer {
            verdict,
            until: now + ttl,
            number,
        };
        self.shared.answers.insert(name.clone(), answer);
        arrivals.queue.push_back((name.clone(), number, bytes));
        arrivals.bytes += bytes;
        while arrivals.queue.len() > MOST_ANSWERS || arrivals.bytes > MOST_BYTES {
            let Some((oldest, number, bytes)) = arrivals.queue.pop_front() else {
                break;
            };
            arrivals.bytes -= bytes;
            // A newer answer for the same name has a place of its own.
            self.shared
                .answers
                .remove_if(&oldest, |_, answer| answer.number == number);
        }
    }

    /// Whether the hook may be asked about `name` now; takes from the rates. The result of the call must be told to
    /// the [`Verdicts::breaker`].
    ///
    /// # Errors
    /// [`NotNow`] says what stands against it.
    pub fn admit(&self, name: &DnsName, now: Instant) -> Result<(), NotNow> {
        // The breaker's leave comes last, for it must be used.
        if self.shared.breaker.is_open(now) {
            return Err(NotNow::Open);
        }
        if !self.shared.domains.take(&name.registered_domain(), now) {
            return Err(NotNow::Domain);
        }
        if !self.shared.total.take(now) {
            return Err(NotNow::Total);
        }
        match self.shared.breaker.admits(now) {
            true => Ok(()),
            false => Err(NotNow::Open),
        }
    }

    /// The breaker of the hook.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.shared.breaker
    }
}

fn weight(name: &DnsName, verdict: &Verdict) -> usize {
    let texts = match verdict {
        Verdict::Allowed { tenant, upstream } => {
            tenant.as_ref().map_or(0, |tenant| tenant.as_str().len())
                + upstream.as_ref().map_or(0, |name| name.as_str().len())
        }
        Verdict::Denied { reason } => reason.as_ref().map_or(0, |reason| reason.len()),
    };
    name.as_str().len() + texts + ANSWER_BYTES
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn verdicts(rate: u32) -> Verdicts {
        let mut settings = Settings::new(Url::parse("http://127.0.0.1/").unwrap());
        settings.rate = rate;
        Verdicts::new(&settings)
    }

    fn name(text: &str) -> DnsName {
        DnsName::parse(text).unwrap()
    }

    const DENIED: Verdict = Verdict::Denied { reason: None };
    const TTL: Duration = Duration::from_secs(15);

    #[test]
    fn a_denial_refuses_until_its_time_is_over() {
        let verdicts = verdicts(10);
        let now = monotonic();
        assert_eq!(verdicts.refusal(&name("a.test"), now), None);
        verdicts.keep(&name("a.test"), DENIED, TTL);
        let refusal = |at| verdicts.refusal(&name("a.test"), at);
        assert_eq!(refusal(now), Some(Refusal::UnknownName));
        assert_eq!(refusal(now + TTL + Duration::from_secs(1)), None);
        assert_eq!(verdicts.get(&name("a.test"), now), Some(DENIED));
    }

    #[test]
    fn a_used_up_rate_and_an_open_breaker_refuse_as_unavailable_not_as_unknown() {
        let verdicts = verdicts(1);
        let now = monotonic();
        assert_eq!(verdicts.admit(&name("a.one.test"), now), Ok(()));
        assert_eq!(verdicts.admit(&name("a.two.test"), now), Err(NotNow::Total));
        let refusal = |at| verdicts.refusal(&name("b.test"), at);
        assert_eq!(refusal(now), Some(Refusal::PermissionUnavailable));
        let later = now + Duration::from_secs(2);
        assert_eq!(refusal(later), None);
        for _ in 0..5 {
            verdicts.breaker().failed(later);
        }
        assert_eq!(refusal(later), Some(Refusal::PermissionUnavailable));
        assert_eq!(verdicts.admit(&name("b.test"), later), Err(NotNow::Open));
    }

    #[test]
    fn the_oldest_answers_make_room() {
        let verdicts = verdicts(1);
        let now = monotonic();
        let most = MOST_BYTES / ANSWER_BYTES;
        for n in 0..most {
            verdicts.keep(&name(&format!("n{n}.test")), DENIED, TTL);
        }
        assert!(verdicts.len() < most);
        assert_eq!(verdicts.get(&name("n0.test"), now), None);
        assert_eq!(
            verdicts.get(&name(&format!("n{}.test", most - 1)), now),
            Some(DENIED)
        );
    }

    #[test]
    fn an_answer_given_again_outlives_its_first_place() {
        let verdicts = verdicts(1);
        verdicts.keep(&name("twice.test"), DENIED, TTL);
        for n in 0..MOST_ANSWERS / 2 {
            verdicts.keep(&name(&format!("n{n}.test")), DENIED, TTL);
        }
        verdicts.keep(&name("twice.test"), DENIED, TTL);
        for n in 0..MOST_ANSWERS / 2 {
            verdicts.keep(&name(&format!("m{n}.test")), DENIED, TTL);
        }
        assert_eq!(verdicts.get(&name("twice.test"), monotonic()), Some(DENIED));
    }
}
