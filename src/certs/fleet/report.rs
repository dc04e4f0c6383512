//! What came of a simulated fleet, and how evenly it was renewed.

use std::fmt;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// Windows over which a rate may be measured, in minutes.
const WINDOWS: [u32; 9] = [1, 5, 10, 15, 30, 60, 120, 360, 720];
/// The longest one.
const DAY: u32 = 1440;
/// By how much the busiest window of a perfectly even fleet may exceed the mean, by chance alone.
const BY_CHANCE: f64 = 0.3;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Certificates issued.
    pub issued: u64,
    /// Attempts that failed by the domain's own fault.
    pub failed: u64,
    /// Attempts that met the authority's outage.
    pub refused: u64,
    /// Attempts that the budget put off.
    pub put_off: u64,
    /// Orders that the authority, counting by itself, would have refused: none may be.
    pub overdrawn: u64,
    /// Certificates of names in order that expired before another was there.
    pub expired: u64,
    /// The last order that an outage had held up was done so long after its end.
    pub caught_up_after: Duration,
    /// Certificates issued in each minute.
    minutes: Vec<u32>,
}

impl Report {
    pub(super) fn over(over: Duration) -> Self {
        let minutes = over.as_secs().div_ceil(60);
        Self {
            minutes: vec![0; usize::try_from(minutes).unwrap_or(0)],
            ..Self::default()
        }
    }

    /// A certificate is issued so long after the start.
    pub(super) fn count(&mut self, since: Duration) {
        self.issued += 1;
        let minute = usize::try_from(since.as_secs() / 60).ok();
        if let Some(count) = minute.and_then(|minute| self.minutes.get_mut(minute)) {
            *count += 1;
        }
    }

    /// Minutes from the first renewal on.
    fn renewing(&self) -> &[u32] {
        let first = self.minutes.iter().position(|count| *count > 0);
        first
            .and_then(|first| self.minutes.get(first..))
            .unwrap_or_default()
    }

    /// Renewals a minute over all, from the first on.
    #[must_use]
    pub fn per_minute(&self) -> f64 {
        let minutes = self.renewing();
        let all: f64 = minutes.iter().copied().map(f64::from).sum();
        all / count(minutes.len()).max(1.0)
    }

    /// Over what the peak rate is measured: the shortest window that tells an uneven fleet from an even one.
    ///
    /// Renewals come one by one, so that a minute of few is uneven by chance: 10,000 names of 90 days renew 0.12 times a
    /// minute, and the busiest single minute has thirty times that however well they are spread. Of `w` windows with `m`
    /// independent renewals each on average, the busiest has about `sqrt(2 ln(w) / m)` more than the mean; here that may
    /// be 0.3 at most, so that 1.5 is missed only by a fleet that is spread badly.
    #[must_use]
    pub fn window(&self) -> Duration {
        let minutes = count(self.renewing().len());
        let even = |window: &u32| by_chance(self.per_minute(), minutes, *window) <= BY_CHANCE;
        let window = WINDOWS.into_iter().find(even);
        MINUTE * window.unwrap_or(DAY)
    }

    /// Renewals a minute in the busiest [`Report::window`].
    #[must_use]
    pub fn peak_per_minute(&self) -> f64 {
        let window = self.window().as_secs() / 60;
        let windows = self.renewing().chunks(usize::try_from(window).unwrap_or(1));
        let sums = windows.map(|window| window.iter().copied().map(f64::from).sum());
        sums.fold(0.0, f64::max) / f64::from(u32::try_from(window).unwrap_or(1))
    }

    /// The peak against the mean of renewals a minute; 1 where all are spread evenly.
    #[must_use]
    pub fn peak_to_mean(&self) -> f64 {
        match self.per_minute() > 0.0 {
            true => self.peak_per_minute() / self.per_minute(),
            false => 0.0,
        }
    }

    /// Renewals in the busiest single minute, chance and all.
    #[must_use]
    pub fn busiest_minute(&self) -> u32 {
        self.minutes.iter().max().copied().unwrap_or_default()
    }
}

/// By how much of the mean the busiest of all windows exceeds it where only chance makes it uneven.
fn by_chance(per_minute: f64, minutes: f64, window: u32) -> f64 {
    let window = f64::from(window);
    let windows = (minutes / window).max(2.0);
    (2.0 * windows.ln() / (per_minute * window).max(f64::MIN_POSITIVE)).sqrt()
}

fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} issued, {:.2} a minute; the busiest {} minutes {:.2} a minute, {:.2} of the mean; the busiest single \
             minute {}; {} failed, {} met the outage, {} put off by the budget, {} beyond it, {} expired",
            self.issued,
            self.per_minute(),
            self.window().as_secs() / 60,
            self.peak_per_minute(),
            self.peak_to_mean(),
            self.busiest_minute(),
            self.failed,
            self.refused,
            self.put_off,
            self.overdrawn,
            self.expired,
        )?;
        match self.caught_up_after.is_zero() {
            true => Ok(()),
            false => {
                let minutes = self.caught_up_after.as_secs() / 60;
                write!(f, ", caught up {minutes} min after the outage")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(minutes: &[u32]) -> Report {
        Report {
            minutes: minutes.to_vec(),
            ..Report::default()
        }
    }

    #[test]
    fn the_window_is_long_enough_for_chance_not_to_look_like_a_peak() {
        let day = 1440;
        // 30 a minute: a minute tells little, five tell enough.
        assert_eq!(report(&vec![30; day]).window(), MINUTE * 5);
        assert_eq!(report(&vec![1000; day]).window(), MINUTE);
        let few: Vec<u32> = (0..day * 100).map(|at| u32::from(at % 8 == 0)).collect();
        assert_eq!(report(&few).window(), MINUTE * 1440);
    }

    #[test]
    fn what_comes_at_once_is_a_peak_and_what_is_spread_is_none() {
        assert!((report(&[1000; 60]).peak_to_mean() - 1.0).abs() < 1e-9);
        let mut uneven = vec![1000; 60];
        uneven[30] = 3000;
        let uneven = report(&uneven);
        assert!(uneven.peak_to_mean() > 2.8, "{uneven}");
        assert_eq!(uneven.busiest_minute(), 3000);
        // What is before the first renewal is no part of it.
        let late = [vec![0; 1000], vec![1000; 60]].concat();
        assert!((report(&late).peak_to_mean() - 1.0).abs() < 1e-9);
        assert!(report(&[]).peak_to_mean().abs() < 1e-9);
    }
}
