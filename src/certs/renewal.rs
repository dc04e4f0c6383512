//! When a certificate is renewed, and when a failed attempt is made again: pure functions of facts and time.
//!
//! Nothing assumes a lifetime: 90 days, 45, 6, or the seconds of a test all work.

use std::time::Duration;

use crate::base::backoff::{Backoff, jittered};
use crate::base::clock::Timestamp;
use crate::model::certificate::{CertificateFacts, CertificateId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Below this nothing is ever scheduled: a job that is due again at once would spin.
const SHORTEST: Duration = Duration::from_millis(100);

/// The fractions and waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Renewed when so much of the lifetime has passed. Default two thirds.
    pub fraction: f64,
    /// The same for a lifetime shorter than [`Settings::short`]. Default a half.
    pub short_fraction: f64,
    /// What counts as a short lifetime. Default 10 days.
    pub short: Duration,
    /// Renewals are spread by up to this share of the time before them, earlier or later, so that certificates issued
    /// together are not renewed together. Default 0.1.
    pub spread: f64,
    /// The wait after the first failure; the second waits ten times, the third a hundred times as long. Default
    /// one minute.
    pub first_retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fraction: 2.0 / 3.0,
            short_fraction: 0.5,
            short: DAY * 10,
            spread: 0.1,
            first_retry: Duration::from_secs(60),
        }
    }
}

/// When a certificate is to be renewed: the same answer for the same certificate whenever and wherever it is asked.
#[must_use]
pub fn due_at(facts: &CertificateFacts, settings: &Settings) -> Timestamp {
    let lifetime = facts.not_after.since(facts.not_before);
    let fraction = match lifetime < settings.short {
        true => settings.short_fraction,
        false => settings.fraction,
    };
    let age = lifetime.mul_f64(fraction.clamp(0.0, 1.0));
    let age = jittered(age, settings.spread.clamp(0.0, 1.0), chance(facts.id));
    facts.not_before.plus(age.min(lifetime))
}

/// How long to wait after the `failures`th failure in a row, where the certificate that serves meanwhile, if any, ends
/// at `serves_until`. `random` in 0..1 adds up to a tenth.
///
/// The steps are 1, 10 and 100 times the first wait, then a day; never more than a tenth of the remaining lifetime,
/// unless that were more than five attempts an hour (at the default first wait), which no authority bears.
#[must_use]
pub fn retry_in(
    failures: u32,
    serves_until: Option<Timestamp>,
    settings: &Settings,
    now: Timestamp,
    random: f64,
) -> Duration {
    let steps = Backoff {
        first: settings.first_retry,
        factor: 10,
        most: settings.first_retry.saturating_mul(100),
    };
    let step = match failures {
        0..=3 => steps.after(failures.max(1)),
        _ => DAY,
    };
    let remaining = serves_until.map_or(Duration::ZERO, |until| until.since(now));
    let cap = match remaining.is_zero() {
        true => DAY,
        false => (remaining / 10).max(settings.first_retry.saturating_mul(12)),
    };
    let wait = step.min(cap).min(DAY);
    let spread = wait.mul_f64(0.1 * random.clamp(0.0, 1.0));
    wait.saturating_add(spread).max(SHORTEST)
}

/// How long until `at`, for a schedule: never nothing.
#[must_use]
pub fn wait_until(at: Timestamp, now: Timestamp) -> Duration {
    at.since(now).max(SHORTEST)
}

/// A number in 0..1 that belongs to the certificate: its identity's random half.
fn chance(id: CertificateId) -> f64 {
    let [.., a, b, c, d] = *id.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;
    use crate::model::certificate::CaId;

    const MINUTE: Duration = Duration::from_secs(60);

    fn facts(lifetime: Duration, random: u32) -> CertificateFacts {
        let mut id = [7; 16];
        id[12..].copy_from_slice(&random.to_be_bytes());
        CertificateFacts {
            id: CertificateId::from_bytes(id),
            tenant: TenantId::parse("acme").unwrap(),
            names: Vec::new(),
            ca: CaId::new("ca"),
            serial: String::new(),
            not_before: Timestamp::EPOCH,
            not_after: Timestamp::EPOCH.plus(lifetime),
        }
    }

    #[test]
    fn renews_at_two_thirds_or_at_half_of_a_short_life_give_or_take_a_tenth() {
        let check = |lifetime: Duration, random, seconds: i64| {
            let due = due_at(&facts(lifetime, random), &Settings::default());
            assert_eq!(due.as_seconds(), seconds, "{lifetime:?} {random}");
        };
        let middle = u32::MAX / 2 + 1;
        check(DAY * 90, middle, 60 * 86_400);
        check(DAY * 90, 0, 54 * 86_400);
        check(DAY * 90, u32::MAX, 66 * 86_400 - 1);
        check(DAY * 45, middle, 30 * 86_400);
        check(DAY * 6, middle, 3 * 86_400);
        check(Duration::from_secs(20), middle, 10);
        check(Duration::ZERO, middle, 0);
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_is_due_when_it_begins() {
        let mut facts = facts(DAY, 0);
        facts.not_after = Timestamp::EPOCH.minus(DAY);
        assert_eq!(due_at(&facts, &Settings::default()), Timestamp::EPOCH);
    }

    #[test]
    fn settings_out_of_range_never_schedule_beyond_the_end() {
        let settings = Settings {
            fraction: f64::INFINITY,
            short_fraction: -1.0,
            spread: 40.0,
            ..Settings::default()
        };
        for random in [0, u32::MAX] {
            let long = facts(DAY * 90, random);
            assert!(due_at(&long, &settings) <= long.not_after);
            let short = facts(DAY, random);
            assert_eq!(due_at(&short, &settings), short.not_before);
        }
    }

    #[test]
    fn waits_one_ten_and_a_hundred_minutes_and_then_a_day_or_a_tenth_of_what_is_left() {
        let now = Timestamp::from_seconds(1_000_000);
        let check = |failures, left: Option<Duration>, expected: Duration| {
            let until = left.map(|left| now.plus(left));
            let wait = retry_in(failures, until, &Settings::default(), now, 0.0);
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
        check(4, Some(MINUTE * 600), MINUTE * 60);
        check(3, Some(MINUTE * 600), MINUTE * 60);
        check(1, Some(MINUTE * 5), MINUTE);
        // Never more than five attempts an hour, however little is left; and daily again once nothing is.
        check(9, Some(MINUTE * 5), MINUTE * 12);
        check(9, Some(Duration::ZERO), DAY);
    }

    #[test]
    fn a_wait_is_never_nothing_and_never_overflows() {
        let now = Timestamp::MAX;
        let settings = Settings {
            first_retry: Duration::ZERO,
            ..Settings::default()
        };
        assert_eq!(retry_in(1, None, &settings, now, 0.5), SHORTEST);
        let settings = Settings {
            first_retry: Duration::MAX,
            ..Settings::default()
        };
        let wait = retry_in(3, Some(Timestamp::MAX), &settings, Timestamp::EPOCH, 1.0);
        assert_eq!(wait, DAY + DAY / 10);
        assert_eq!(wait_until(Timestamp::EPOCH, now), SHORTEST);
    }
}
