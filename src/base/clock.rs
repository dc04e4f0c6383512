//! The only place that reads time.
//!
//! Decisions take `now: Timestamp` as an argument; only the outermost caller asks a [`Clock`]. Wall-clock time
//! ([`Timestamp`]) is for what the world agrees on: lifetimes of certificates, records. Deadlines and
//! durations use the monotonic [`Instant`], which no administrator can move.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use tokio::time::Instant;

/// A point in wall-clock time: milliseconds since 1970-01-01T00:00:00Z. Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The beginning of Unix time.
    pub const EPOCH: Self = Self(0);
    /// The latest representable point; "never" for schedules.
    pub const MAX: Self = Self(i64::MAX);

    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the epoch.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This point plus `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This point minus `duration`.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long ago `earlier` was, or zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As calendar time; the nearest representable one where the year is beyond 9999.
    #[must_use]
    pub fn to_offset(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).unwrap_or(
            if self.0 < 0 {
                OffsetDateTime::UNIX_EPOCH
            } else {
                LATEST
            },
        )
    }
}

const LATEST: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self(i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX))
    }
}

/// RFC 3339, UTC, to the millisecond.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_offset().format(&Rfc3339) {
            Ok(text) => f.write_str(&text),
            Err(_) => write!(f, "@{}ms", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From RFC 3339, to the millisecond.
impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339)
            .map(Self::from)
            .map_err(serde::de::Error::custom)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Tells the time: the machine's, or one that a test moves by hand.
///
/// A clock that listens ([`Clock::listening`]) is told by others what time it is, such as a CA whose every answer bears a
/// date. Between two answers the monotonic clock counts on, so a jump of the machine's clock is seen at once. What must
/// not follow such a jump, the judgement of certificates, asks [`Clock::corrected`].
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
    told: Option<Arc<Mutex<Option<Told>>>>,
    view: View,
}

/// What somebody said.
#[derive(Clone, Copy, Debug)]
struct Told {
    time: Timestamp,
    at: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum View {
    /// The machine's time.
    #[default]
    Machine,
    /// What was told, where the machine is far from it.
    Corrected,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self {
            manual: None,
            told: None,
            view: View::Machine,
        }
    }

    /// By how much clocks may differ without anyone's concern.
    pub const TOLERANCE: Duration = Duration::from_secs(300);

    /// A clock that stands at `start` until [`Clock::advance`] moves it; clones move together.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self {
            manual: Some(Arc::new(AtomicI64::new(start.as_millis()))),
            ..Self::system()
        }
    }

    /// The same clock, which from now on keeps what [`Clock::hear`] tells it or a clone of it.
    #[must_use]
    pub fn listening(self) -> Self {
        Self {
            told: Some(Arc::default()),
            ..self
        }
    }

    /// The same clock, which gives the time that was told wherever the machine's is further from it than
    /// [`Clock::TOLERANCE`].
    #[must_use]
    pub fn corrected(&self) -> Self {
        Self {
            view: View::Corrected,
            ..self.clone()
        }
    }

    /// The wall-clock time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let machine = self.machine();
        match (self.view, self.told()) {
            (View::Corrected, Some((told, _age))) if apart(told, machine) > Self::TOLERANCE => told,
            (View::Corrected | View::Machine, _) => machine,
        }
    }

    /// The machine's time, however wrong.
    #[must_use]
    pub fn machine(&self) -> Timestamp {
        match &self.manual {
            Some(millis) => Timestamp(millis.load(Ordering::Relaxed)),
            None => system_now(),
        }
    }

    /// Somebody who is trusted says that it is `time` now.
    pub fn hear(&self, time: Timestamp) {
        if let Some(told) = &self.told {
            let at = monotonic();
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Told { time, at });
        }
    }

    /// What time it is now by what was last told, and how long ago that was; nothing where nobody has.
    #[must_use]
    pub fn told(&self) -> Option<(Timestamp, Duration)> {
        let told = self.told.as_ref()?;
        let told = (*told.lock().unwrap_or_else(PoisonError::into_inner))?;
        let age = monotonic().saturating_duration_since(told.at);
        Some((told.time.plus(age), age))
    }

    /// By how many milliseconds the machine's clock is ahead of what was told; negative where it is behind.
    #[must_use]
    pub fn ahead(&self) -> Option<i64> {
        let (told, _age) = self.told()?;
        let machine = self.machine().as_millis();
        Some(machine.saturating_sub(told.as_millis()))
    }

    /// Sets a manual clock; the system's clock does not move for anyone.
    pub fn set(&self, time: Timestamp) {
        if let Some(at) = &self.manual {
            at.store(time.as_millis(), Ordering::Relaxed);
        }
    }

    /// Moves a manual clock forward; the system's clock does not move for anyone.
    pub fn advance(&self, by: Duration) {
        if let Some(at) = &self.manual {
            at.fetch_add(millis(by), Ordering::Relaxed);
        }
    }
}

fn apart(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

/// The monotonic time now, for deadlines and durations.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the monotonic clock"
)]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the wall clock"
)]
fn system_now() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp(millis(since)),
        Err(before) => Timestamp(millis(before.duration()).saturating_neg()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(
            Timestamp::from_millis(i64::MIN)
                .minus(Duration::MAX)
                .as_millis(),
            i64::MIN
        );
        assert_eq!(
            Timestamp::EPOCH.since(Timestamp::from_seconds(5)),
            Duration::ZERO
        );
    }

    #[test]
    fn prints_as_rfc_3339_even_beyond_year_9999() {
        assert_eq!(
            Timestamp::from_seconds(1_800_000_000).to_string(),
            "2027-01-15T08:00:00Z"
        );
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_corrected_clock_follows_what_was_told_once_the_machines_jumps() {
        let start = Timestamp::from_seconds(1_800_000_000);
        let day = Duration::from_secs(86_400);
        let machine = Clock::manual(start).listening();
        let corrected = machine.corrected();
        assert_eq!((corrected.now(), machine.ahead()), (start, None));
        machine.hear(start);
        for jumped in [start.plus(day * 40), start.minus(day * 40)] {
            machine.set(jumped);
            assert_eq!(machine.now(), jumped);
            assert!(corrected.now().since(start) < day && corrected.now() >= start);
        }
        assert!(machine.ahead().unwrap() < -39 * 86_400_000);
        // Small differences are those of any two clocks.
        let near = start.plus(Duration::from_secs(200));
        machine.set(near);
        assert_eq!(corrected.now(), near);
        // Nobody tells a clock that does not listen.
        let deaf = Clock::manual(start);
        deaf.hear(start.plus(day));
        assert_eq!(deaf.corrected().now(), start);
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_for_all_clones() {
        let clock = Clock::manual(Timestamp::from_seconds(10));
        let other = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(other.now(), Timestamp::from_seconds(15));
    }
}
