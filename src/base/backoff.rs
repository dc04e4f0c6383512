//! When to try again, as a pure function of the number of failures. Arithmetic saturates: a back-off that
//! overflows to zero has taken other servers down (Apache CVE-2025-55753).

use std::time::Duration;

/// Exponential growth from `first` by `factor`, never above `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// How much longer each further wait is.
    pub factor: u32,
    /// The longest wait.
    pub most: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 is the first); zero failures wait for nothing.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        let Some(exponent) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let growth = self.factor.checked_pow(exponent).unwrap_or(u32::MAX);
        self.first
            .checked_mul(growth)
            .unwrap_or(self.most)
            .min(self.most)
    }
}

/// `duration` less or more by up to `share` of it (0.1 is a tenth); `random` is uniform in 0..1.
#[must_use]
pub fn jittered(duration: Duration, share: f64, random: f64) -> Duration {
    duration.mul_f64((1.0 + share * (2.0 * random - 1.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_stays_there_for_any_number_of_failures() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let backoff = Backoff {
            first: minutes(1),
            factor: 10,
            most: minutes(1440),
        };
        let waits: Vec<_> = [0, 1, 2, 3, 4, 5, 100, u32::MAX]
            .map(|n| backoff.after(n))
            .into();
        let expected = [0, 1, 10, 100, 1000, 1440, 1440, 1440].map(minutes);
        assert_eq!(waits, expected);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let base = Duration::from_secs(100);
        assert_eq!(jittered(base, 0.1, 0.0), Duration::from_secs(90));
        assert_eq!(jittered(base, 0.1, 1.0), Duration::from_secs(110));
    }
}
