//! How long after a failure the next attempt comes, by whose failure it was: pure.
//!
//! What the customer or the operator must repair is tried again after 1, 10 and 100 times the first wait, then daily; an
//! authority's own trouble is waited out, longer the longer it lasts, and is counted against nobody.

use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::clock::Timestamp;
use crate::certs::renewal::{SHORTEST, Settings};
use crate::model::problem::{Actor, ProblemCode};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// With the default first wait: no more than five attempts within any hour, however little lifetime is left. Let's
/// Encrypt bears five failures an hour, and pauses a name after 1,152 in a row, of which it forgives one a day.
const CLOSEST: u32 = 20;
/// The longest wait for an authority in trouble, in first waits: an hour.
const LONGEST_OUTAGE_WAIT: u32 = 60;
/// The same for one that limits us without saying for how long, at least.
const LIMITED: u32 = 10;

/// Whose failure it was, as far as waiting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The domain's: its DNS, or our configuration. Somebody must act.
    Domain,
    /// The authority is in trouble.
    Authority,
    /// The authority's limits are reached for now.
    Limited,
    /// The authority has paused the name until somebody follows its link.
    Paused,
}

impl Lane {
    /// The lane of a problem.
    #[must_use]
    pub fn of(code: ProblemCode) -> Self {
        let limited = [
            ProblemCode::RateLimitedAccount,
            ProblemCode::RateLimitedDomain,
            ProblemCode::RateLimitedExactSet,
        ];
        if limited.contains(&code) {
            Self::Limited
        } else if code == ProblemCode::Paused {
            Self::Paused
        } else if code.actor() == Actor::Ca {
            Self::Authority
        } else {
            Self::Domain
        }
    }

    /// Whether failures of it are counted against the domain.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Domain | Self::Paused)
    }
}

/// One failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setback {
    /// Whose it was.
    pub lane: Lane,
    /// How long the authority asks to wait.
    pub retry_after: Option<Duration>,
    /// In 0..1: spreads those that failed together.
    pub random: f64,
}

/// What has gone wrong since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Failures of the domain's own, in a row.
    pub failures: u32,
    /// Since when the authority has been in trouble, where the last attempt met that.
    pub trouble_since: Option<Timestamp>,
}

impl Tries {
    /// With one more.
    #[must_use]
    pub fn after(self, setback: &Setback, now: Timestamp) -> Self {
        match setback.lane.counts() {
            true => Self {
                failures: self.failures.saturating_add(1),
                trouble_since: None,
            },
            false => Self {
                failures: self.failures,
                trouble_since: Some(self.trouble_since.unwrap_or(now)),
            },
        }
    }
}

/// How long to wait after `setback`, the last of `tries`, where the certificate that serves meanwhile, if any, ends at
/// `serves_until`. Never sooner than the authority asks, up to a day; up to a tenth longer than computed.
#[must_use]
pub fn wait(
    tries: &Tries,
    setback: &Setback,
    serves_until: Option<Timestamp>,
    settings: &Settings,
    now: Timestamp,
) -> Duration {
    let first = settings.first_retry;
    let left = serves_until.map_or(Duration::ZERO, |until| until.since(now));
    let trouble = tries
        .trouble_since
        .map_or(Duration::ZERO, |at| now.since(at));
    let wait = match setback.lane {
        Lane::Domain => steps(tries.failures, first).min(hurry(left, first, CLOSEST)),
        // Twice as long each time: as long again as the trouble has lasted.
        Lane::Authority => trouble
            .clamp(first, first.saturating_mul(LONGEST_OUTAGE_WAIT).max(first))
            .min(hurry(left, first, 1)),
        Lane::Limited => trouble.max(first.saturating_mul(LIMITED)),
        Lane::Paused => DAY,
    };
    let asked = setback.retry_after.unwrap_or_default();
    let wait = wait.max(asked).min(DAY);
    let spread = wait.mul_f64(0.1 * setback.random.clamp(0.0, 1.0));
    wait.saturating_add(spread).max(SHORTEST)
}

/// 1, 10 and 100 times the first wait, then a day.
fn steps(failures: u32, first: Duration) -> Duration {
    let steps = Backoff {
        first,
        factor: 10,
        most: first.saturating_mul(100),
    };
    match failures {
        0..=3 => steps.after(failures.max(1)),
        _ => DAY,
    }
}

/// The longest wait where so much lifetime is left: a tenth of it, but never less than `closest` first waits; where
/// none is left nothing is to be saved any more.
fn hurry(left: Duration, first: Duration, closest: u32) -> Duration {
    match left.is_zero() {
        true => DAY,
        false => (left / 10).max(first.saturating_mul(closest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn setback(lane: Lane) -> Setback {
        Setback {
            lane,
            retry_after: None,
            random: 0.0,
        }
    }

    #[test]
    fn a_domains_failure_waits_one_ten_and_a_hundred_minutes_and_then_a_day_or_a_tenth_of_what_is_left()
     {
        let now = Timestamp::from_seconds(1_000_000);
        let check = |failures, left: Option<Duration>, expected: Duration| {
            let tries = Tries {
                failures,
                trouble_since: None,
            };
            let until = left.map(|left| now.plus(left));
            let setback = setback(Lane::Domain);
            let wait = wait(&tries, &setback, until, &Settings::default(), now);
            assert_eq!(wait, expected, "{failures} failures, {left:?} left");
        };
        for left in [None, Some(DAY * 30)] {
            check(1, left, MINUTE);
            check(2, left, MINUTE * 10);
            check(3, left, MINUTE * 100);
            check(4, left, DAY);
            check(5, left, DAY);
            check(u32::MAX, left, DAY);
        }
        check(0, None, MINUTE);
        check(4, Some(DAY * 5), DAY / 2);
        check(4, Some(MINUTE * 600), HOUR);
        check(3, Some(MINUTE * 600), HOUR);
        check(1, Some(MINUTE * 5), MINUTE);
        // Never more than five attempts an hour, however little is left; and daily again once nothing is.
        check(9, Some(MINUTE * 5), MINUTE * 20);
        check(9, Some(Duration::ZERO), DAY);
    }

    #[test]
    fn an_outage_is_waited_out_longer_the_longer_it_lasts_and_counts_against_nobody() {
        let began = Timestamp::from_seconds(1_000_000);
        let (mut tries, mut now) = (Tries::default(), began);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let setback = setback(Lane::Authority);
            tries = tries.after(&setback, now);
            let wait = wait(&tries, &setback, None, &Settings::default(), now);
            waits.push(wait.as_secs() / 60);
            now = now.plus(wait);
        }
        assert_eq!(waits, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!((tries.failures, tries.trouble_since), (0, Some(began)));
        // The domain's own failure ends that account.
        let own = tries.after(&setback(Lane::Domain), now);
        assert_eq!((own.failures, own.trouble_since), (1, None));
    }

    #[test]
    fn what_the_authority_asks_is_obeyed_up_to_a_day_and_a_paused_name_waits_one_at_least() {
        let now = Timestamp::from_seconds(1_000_000);
        let check = |lane, retry_after, expected| {
            let setback = Setback {
                retry_after,
                ..setback(lane)
            };
            let tries = Tries::default().after(&setback, now);
            let wait = wait(&tries, &setback, None, &Settings::default(), now);
            assert_eq!(wait, expected, "{lane:?} {retry_after:?}");
        };
        for lane in [Lane::Domain, Lane::Authority, Lane::Limited] {
            check(lane, Some(HOUR * 3), HOUR * 3);
            check(lane, Some(DAY * 30), DAY);
        }
        check(Lane::Domain, Some(Duration::ZERO), MINUTE);
        check(Lane::Limited, None, MINUTE * 10);
        check(Lane::Paused, None, DAY);
        check(Lane::Paused, Some(HOUR), DAY);
    }

    #[test]
    fn a_wait_is_never_nothing_and_never_overflows() {
        let settings = Settings {
            first_retry: Duration::ZERO,
            ..Settings::default()
        };
        for lane in [Lane::Domain, Lane::Authority, Lane::Limited] {
            let setback = setback(lane);
            let tries = Tries::default().after(&setback, Timestamp::MAX);
            let wait = wait(&tries, &setback, None, &settings, Timestamp::MAX);
            assert_eq!(wait, SHORTEST);
        }
        let settings = Settings {
            first_retry: Duration::MAX,
            ..Settings::default()
        };
        for lane in [Lane::Domain, Lane::Authority, Lane::Limited, Lane::Paused] {
            let setback = Setback {
                lane,
                retry_after: Some(Duration::MAX),
                random: 40.0,
            };
            let tries = Tries {
                failures: u32::MAX,
                trouble_since: Some(Timestamp::EPOCH),
            };
            let now = Timestamp::MAX;
            let wait = wait(&tries, &setback, Some(Timestamp::MAX), &settings, now);
            assert_eq!(wait, DAY + DAY / 10);
        }
    }

    #[test]
    fn the_problem_gives_the_lane() {
        let check = |code, lane| assert_eq!(Lane::of(code), lane, "{code}");
        check(ProblemCode::CaOutage, Lane::Authority);
        check(ProblemCode::RateLimitedDomain, Lane::Limited);
        check(ProblemCode::RateLimitedFailures, Lane::Domain);
        check(ProblemCode::Paused, Lane::Paused);
        check(ProblemCode::HttpUnreachable, Lane::Domain);
        check(ProblemCode::PolicyDenied, Lane::Domain);
        assert!(!Lane::Limited.counts() && Lane::Paused.counts());
    }
}
