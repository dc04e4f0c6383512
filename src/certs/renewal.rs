//! When a certificate is renewed: a pure function of what is known of it.
//!
//! Nothing assumes a lifetime: 90 days, 45, 6, or the seconds of a test all work. What the authority tells (RFC 9773)
//! may bring a renewal forward, and never puts it off beyond the share of the lifetime after which we renew anyway.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::model::certificate::{CertificateFacts, CertificateId};
use crate::model::standing::Replace;
use crate::store::record::CertificateRecord;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(3600);
/// Below this nothing is ever scheduled: a job that is due again at once would spin.
pub const SHORTEST: Duration = Duration::from_millis(100);
/// Renewals that are due at once for many certificates together are spread over so long, where their lifetimes allow.
const RUSH: Duration = HOUR;

/// The fractions and waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Renewed when so much of the lifetime has passed, at the latest. Default two thirds.
    pub fraction: f64,
    /// The same for a lifetime shorter than [`Settings::short`]. Default a half.
    pub short_fraction: f64,
    /// What counts as a short lifetime. Default 10 days.
    pub short: Duration,
    /// Renewals come earlier by up to this share of the time before them, so that certificates issued together are not
    /// renewed together. Default 0.1.
    pub spread: f64,
    /// The same for the first certificate of a name, one brought along, and one that replaced another before its time:
    /// many of those begin together. Default 0.85.
    pub first_spread: f64,
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
            first_spread: 0.85,
            first_retry: Duration::from_secs(60),
        }
    }
}

/// How much longer a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Margin {
    /// Long enough for others to go first.
    Ample,
    /// A twentieth of its lifetime or less.
    Short,
}

/// A certificate's life, as far as its renewal goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Life {
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ends to be valid.
    pub not_after: Timestamp,
    /// In 0..1, its own: the same whenever and wherever it is asked for.
    pub chance: f64,
    /// Since when it has been here, where it did not just follow another in time.
    pub began: Option<Timestamp>,
    /// The point chosen in the window that the authority told.
    pub told: Option<Timestamp>,
    /// When it is renewed whatever else says, where somebody chose it in place of a newer one.
    pub chosen: Option<Timestamp>,
    /// When the authority is to be asked about it, again or for the first time.
    pub ask_at: Timestamp,
    /// Why it is to be replaced before its time.
    pub replace: Option<Replace>,
}

impl Life {
    /// That of a certificate of which nothing else is known, here since `began`.
    #[must_use]
    pub fn new(facts: &CertificateFacts, began: Timestamp) -> Self {
        Self {
            not_before: facts.not_before,
            not_after: facts.not_after,
            chance: chance(facts.id),
            began: Some(began),
            told: None,
            chosen: None,
            ask_at: facts.not_after,
            replace: None,
        }
    }

    /// That of a stored certificate.
    #[must_use]
    pub fn of(record: &CertificateRecord) -> Self {
        let standing = &record.standing;
        Self {
            began: Some(record.created_at).filter(|_| standing.renewed_from.is_none()),
            chosen: standing.renew_at,
            told: standing.renewal_info.as_ref().map(|info| info.renew_at),
            ask_at: standing.ask_at.unwrap_or(record.created_at),
            replace: standing.replace,
            ..Self::new(&record.facts, record.created_at)
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.not_after <= now
    }

    /// How much longer it is good.
    #[must_use]
    pub fn margin(&self, now: Timestamp) -> Margin {
        match self.not_after.since(now) > self.lifetime() / 20 {
            true => Margin::Ample,
            false => Margin::Short,
        }
    }

    fn lifetime(&self) -> Duration {
        self.not_after.since(self.not_before)
    }

    fn age(&self, settings: &Settings) -> Duration {
        let lifetime = self.lifetime();
        let fraction = match lifetime < settings.short {
            true => settings.short_fraction,
            false => settings.fraction,
        };
        lifetime.mul_f64(fraction.clamp(0.0, 1.0))
    }

    /// When it is renewed at the latest, whatever anybody tells.
    #[must_use]
    pub fn last_point(&self, settings: &Settings) -> Timestamp {
        self.not_before.plus(self.age(settings))
    }

    /// When it is renewed where the authority tells nothing.
    #[must_use]
    pub fn usual_point(&self, settings: &Settings) -> Timestamp {
        let last = self.last_point(settings);
        let Some(began) = self.began else {
            return last.minus(self.part(settings.spread, settings));
        };
        // Brought along late: with others, perhaps.
        if last <= began {
            return self.rushed(began);
        }
        let earliest = last.minus(self.age(settings).mul_f64(share(settings.first_spread)));
        let from = earliest.max(began);
        from.plus(last.since(from).mul_f64(share(self.chance)))
    }

    /// Whether the authority wants it replaced markedly earlier than it would be renewed: a mass revocation, say.
    #[must_use]
    pub fn is_cut_short(&self, settings: &Settings) -> bool {
        let early = self
            .last_point(settings)
            .minus(self.age(settings).mul_f64(share(settings.spread)));
        self.told
            .is_some_and(|told| told < early && told < self.usual_point(settings))
    }

    /// A part of the time before its renewal, by its own chance.
    fn part(&self, most: f64, settings: &Settings) -> Duration {
        self.age(settings).mul_f64(share(most) * share(self.chance))
    }

    /// Soon after `at`, not all at once.
    fn rushed(&self, at: Timestamp) -> Timestamp {
        let over = RUSH.min(self.not_after.since(at) / 20);
        at.plus(over.mul_f64(share(self.chance)))
    }
}

/// When a certificate is to be renewed: the same answer whenever and wherever it is asked.
#[must_use]
pub fn due_at(life: &Life, settings: &Settings) -> Timestamp {
    if let Some(chosen) = life.chosen
        && !life.is_cut_short(settings)
    {
        return chosen.min(life.not_after);
    }
    let last = life.last_point(settings);
    match life.told {
        // The first of their kind keep their spread, for authorities tell all of one day the same window.
        Some(told) if life.began.is_some() => told.min(life.usual_point(settings)),
        Some(told) => told.min(last),
        None => life.usual_point(settings),
    }
}

/// The point in the window from `start` to `end` that an authority told at `now`: random, but the same if asked again
/// for the same certificate at the same time. A window that has begun is entered from now on, one that is over at once,
/// but not by all together. Nothing where the window is of no use: it ends before it begins, or begins later than we
/// dare to wait.
#[must_use]
pub fn point_in(
    (start, end): (Timestamp, Timestamp),
    life: &Life,
    settings: &Settings,
    now: Timestamp,
) -> Option<Timestamp> {
    let lifetime = life.lifetime();
    // A third of the lifetime stays for failures, and of short ones 8 hours, where that leaves half.
    let margin = (lifetime / 3).max((HOUR * 8).min(lifetime / 2));
    let last = life.last_point(settings).min(life.not_after.minus(margin));
    if end <= start || last <= start {
        return None;
    }
    let from = start.max(life.not_before).max(now);
    let to = end.min(last);
    Some(match from < to {
        true => from.plus(to.since(from).mul_f64(share(life.chance))),
        false => life.rushed(now),
    })
}

/// How long until `at`, for a schedule: never nothing.
#[must_use]
pub fn wait_until(at: Timestamp, now: Timestamp) -> Duration {
    at.since(now).max(SHORTEST)
}

/// A number in 0..1 that belongs to the certificate: its identity's random half.
#[must_use]
pub fn chance(id: CertificateId) -> f64 {
    let [.., a, b, c, d] = *id.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

const fn share(of: f64) -> f64 {
    if of.is_nan() { 0.0 } else { of.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn life(lifetime: Duration, chance: f64) -> Life {
        Life {
            not_before: Timestamp::EPOCH,
            not_after: Timestamp::EPOCH.plus(lifetime),
            chance,
            began: None,
            told: None,
            chosen: None,
            ask_at: Timestamp::MAX,
            replace: None,
        }
    }

    fn days(days: f64) -> Timestamp {
        // To the nearest millisecond.
        let part = DAY.mul_f64(days.abs()) + Duration::from_micros(500);
        match days < 0.0 {
            true => Timestamp::EPOCH.minus(part),
            false => Timestamp::EPOCH.plus(part),
        }
    }

    #[test]
    fn what_somebody_chose_again_stays_until_then_unless_its_authority_wants_it_gone() {
        let settings = Settings::default();
        let chosen = Life {
            chosen: Some(days(80.0)),
            ..life(DAY * 90, 0.5)
        };
        assert_eq!(due_at(&chosen, &settings), days(80.0));
        let usual = Life {
            told: Some(days(60.0)),
            ..chosen
        };
        assert_eq!(due_at(&usual, &settings), days(80.0));
        let unwanted = Life {
            told: Some(days(20.0)),
            ..chosen
        };
        assert_eq!(due_at(&unwanted, &settings), days(20.0));
        let too_late = Life {
            chosen: Some(days(100.0)),
            ..chosen
        };
        assert_eq!(due_at(&too_late, &settings), days(90.0));
    }

    #[test]
    fn renews_at_two_thirds_or_at_half_of_a_short_life_or_up_to_a_tenth_earlier() {
        let check = |lifetime: Duration, chance, expected: f64| {
            let due = due_at(&life(lifetime, chance), &Settings::default());
            assert_eq!(
                due.as_seconds(),
                days(expected).as_seconds(),
                "{lifetime:?}"
            );
        };
        check(DAY * 90, 0.0, 60.0);
        check(DAY * 90, 0.5, 57.0);
        check(DAY * 90, 1.0, 54.0);
        check(DAY * 45, 0.0, 30.0);
        check(DAY * 6, 0.0, 3.0);
        check(DAY * 6, 1.0, 2.7);
        check(Duration::ZERO, 0.5, 0.0);
    }

    #[test]
    fn first_certificates_are_spread_over_most_of_the_time_before_their_renewal() {
        let check = |began: f64, chance, expected: Timestamp| {
            let life = Life {
                began: Some(days(began)),
                ..life(DAY * 90, chance)
            };
            let due = due_at(&life, &Settings::default());
            assert_eq!(due, expected, "{began} {chance}");
        };
        check(0.0, 0.0, days(9.0));
        check(0.0, 1.0, days(60.0));
        // Brought along later: over what is left, and soon where nothing is.
        check(40.0, 0.0, days(40.0));
        check(40.0, 0.5, days(50.0));
        check(70.0, 0.5, days(70.0).plus(MINUTE * 30));
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_is_due_when_it_begins() {
        let mut life = life(DAY, 0.0);
        life.not_after = Timestamp::EPOCH.minus(DAY);
        assert_eq!(due_at(&life, &Settings::default()), Timestamp::EPOCH);
    }

    #[test]
    fn settings_out_of_range_never_schedule_beyond_the_end() {
        let settings = Settings {
            fraction: f64::INFINITY,
            short_fraction: -1.0,
            spread: 40.0,
            first_spread: f64::NAN,
            ..Settings::default()
        };
        for chance in [0.0, 1.0, f64::NAN] {
            for began in [None, Some(Timestamp::EPOCH)] {
                let long = Life {
                    began,
                    ..life(DAY * 90, chance)
                };
                assert!(due_at(&long, &settings) <= long.not_after);
                let short = life(DAY, chance);
                assert_eq!(due_at(&short, &settings), short.not_before);
            }
        }
    }

    #[test]
    fn a_point_in_the_authoritys_window_is_chosen_and_kept_to() {
        let settings = Settings::default();
        let check = |lifetime: f64, window: (f64, f64), chance, expected: Option<f64>| {
            let life = life(DAY.mul_f64(lifetime), chance);
            let window = (days(window.0), days(window.1));
            let point = point_in(window, &life, &settings, Timestamp::EPOCH);
            assert_eq!(point, expected.map(days), "{lifetime} {window:?} {chance}");
        };
        check(90.0, (50.0, 52.0), 0.5, Some(51.0));
        // As Let's Encrypt tells: around two thirds. Half of it is too late for us.
        check(90.0, (59.0, 61.0), 0.5, Some(59.5));
        check(45.0, (29.0, 31.0), 1.0, Some(30.0));
        check(6.0, (2.75, 3.25), 1.0, Some(3.0));
        // Before the certificate began is now; but not everybody's.
        check(90.0, (-9.0, 1.0), 0.5, Some(0.5));
        check(90.0, (-9.0, -8.0), 0.0, Some(0.0));
        check(90.0, (-9.0, -8.0), 1.0, Some(1.0 / 24.0));
        // Later than we dare, or nonsense.
        check(90.0, (60.0, 62.0), 0.5, None);
        check(90.0, (4000.0, 5000.0), 0.5, None);
        check(90.0, (52.0, 50.0), 0.5, None);
        check(90.0, (50.0, 50.0), 0.5, None);
        // A window without end is one up to the last point.
        check(90.0, (50.0, 1e9), 0.5, Some(55.0));
    }

    #[test]
    fn a_window_never_puts_a_renewal_off_and_may_bring_it_forward() {
        let settings = Settings::default();
        let with = |told: f64, began: Option<f64>| Life {
            told: Some(days(told)),
            began: began.map(days),
            ..life(DAY * 90, 0.5)
        };
        assert_eq!(due_at(&with(80.0, None), &settings), days(60.0));
        assert_eq!(due_at(&with(59.0, None), &settings), days(59.0));
        assert_eq!(due_at(&with(3.0, None), &settings), days(3.0));
        assert_eq!(due_at(&with(59.0, Some(0.0)), &settings), days(34.5));
        assert_eq!(due_at(&with(3.0, Some(0.0)), &settings), days(3.0));
        assert!(with(3.0, None).is_cut_short(&settings));
        assert!(!with(59.0, None).is_cut_short(&settings));
        assert!(!with(50.0, Some(0.0)).is_cut_short(&settings));
    }

    #[test]
    fn the_last_twentieth_of_a_lifetime_is_a_short_margin() {
        let life = life(DAY * 80, 0.0);
        assert_eq!(life.margin(days(75.9)), Margin::Ample);
        for day in [76.0, 80.0, 81.0] {
            assert_eq!(life.margin(days(day)), Margin::Short, "{day}");
        }
    }

    #[test]
    fn a_wait_is_never_nothing() {
        assert_eq!(wait_until(Timestamp::EPOCH, Timestamp::MAX), SHORTEST);
    }
}
