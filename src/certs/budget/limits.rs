//! How much an authority bears: numbers that it publishes, or that the configuration states.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// So many in so long: a bucket of `amount` units that is filled once in `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    amount: u32,
    period: Duration,
}

impl Limit {
    /// `amount` in `period`, each taken as the least that makes sense: one unit, a millisecond.
    #[must_use]
    pub fn new(amount: u32, period: Duration) -> Self {
        Self {
            amount: amount.max(1),
            period: period.max(Duration::from_millis(1)),
        }
    }

    /// The most at once.
    #[must_use]
    pub const fn amount(self) -> u32 {
        self.amount
    }

    /// How long an empty bucket takes to be full.
    #[must_use]
    pub const fn period(self) -> Duration {
        self.period
    }

    /// One unit comes back after so long, in whole milliseconds, rounded up.
    #[must_use]
    pub fn refill(self) -> Duration {
        refill(self.period, u64::from(self.amount))
    }

    /// The limit, of which only a part is spent: both the most at once and the rate. Never nothing.
    #[must_use]
    pub fn spent(self, part: f64) -> Self {
        let part = match part.is_finite() {
            true => part.clamp(0.0, 1.0),
            false => 1.0,
        };
        let amount = share_of(self.amount, part).max(1);
        // The rate is that part of the whole rate, however the amount was rounded.
        let exact = f64::from(self.amount) * part;
        let slower = self.period.mul_f64(f64::from(amount) / exact.max(1.0));
        Self {
            amount,
            period: slower.max(self.period),
        }
    }
}

/// `part` of `amount`, rounded down; a hair below a whole number counts as that.
#[must_use]
pub fn share_of(amount: u32, part: f64) -> u32 {
    let share = (f64::from(amount) * part + 1e-9).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a saturating cast of a share of a u32"
    )]
    let share = share as u32;
    share.min(amount)
}

fn refill(period: Duration, amount: u64) -> Duration {
    let millis = period
        .as_nanos()
        .div_ceil(1_000_000)
        .div_ceil(u128::from(amount.max(1)));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// `300 in 3h`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.amount, span(self.period))
    }
}

/// A span of time in its largest whole unit: `3h`, `7d`; milliseconds below a second.
#[must_use]
pub fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let whole = units
        .into_iter()
        .find(|(size, _)| millis >= *size && millis.is_multiple_of(*size));
    match whole {
        Some((size, unit)) => format!("{}{unit}", millis / size),
        None if millis >= 1000 => format!("{}s", millis.div_ceil(1000)),
        None => format!("{millis}ms"),
    }
}

/// Whether the authority charges renewals as it does new orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewals {
    /// As Let's Encrypt: an order with `replaces` (RFC 9773 §5) is charged to no limit while the window lasts that is
    /// suggested for it, and may be refused for a paused name all the same; one for exactly the names of a certificate of
    /// the last 120 days, and one with `replaces` outside the window, neither to orders nor to registered domains. So
    /// Boulder's `validateReplacementOrder` and `NewOrder` have it.
    Exempt,
    /// It charges every order alike.
    Charged,
}

/// What one authority bears. Nothing in a field means that it sets no such limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Who counts: limits that do not belong to an account are shared by all `[[ca]]` sections of one operator.
    pub operator: Arc<str>,
    /// New orders of an account.
    pub orders: Option<Limit>,
    /// Certificates of a registered domain, by the public suffix list, over all accounts.
    pub domain: Option<Limit>,
    /// Certificates of exactly the same names, over all accounts.
    pub exact_set: Option<Limit>,
    /// Failed validations of a name and account.
    pub failures: Option<Limit>,
    /// Failed validations of a name and account in a row; a success forgets them all.
    pub consecutive: Option<Limit>,
    /// Whether renewals are charged.
    pub renewals: Renewals,
}

impl Limits {
    /// Nothing is limited.
    #[must_use]
    pub fn none(operator: &str) -> Self {
        Self {
            operator: operator.into(),
            orders: None,
            domain: None,
            exact_set: None,
            failures: None,
            consecutive: None,
            renewals: Renewals::Charged,
        }
    }

    /// Those of Let's Encrypt, as published 2026-08-05 (letsencrypt.org/docs/rate-limits).
    #[must_use]
    pub fn lets_encrypt() -> Self {
        Self {
            operator: "letsencrypt".into(),
            orders: Some(Limit::new(300, HOUR * 3)),
            domain: Some(Limit::new(50, DAY * 7)),
            exact_set: Some(Limit::new(5, DAY * 7)),
            failures: Some(Limit::new(5, HOUR)),
            consecutive: Some(Limit::new(1152, DAY * 1152)),
            renewals: Renewals::Exempt,
        }
    }

    /// Those of Let's Encrypt's staging environment, as published 2026-04-10. Its limit of registered domains is given
    /// there as 30,000 in a second; the same number in a week is on the safe side.
    #[must_use]
    pub fn lets_encrypt_staging() -> Self {
        Self {
            operator: "letsencrypt-staging".into(),
            orders: Some(Limit::new(1500, HOUR * 3)),
            domain: Some(Limit::new(30_000, DAY * 7)),
            exact_set: Some(Limit::new(30_000, DAY * 7)),
            failures: Some(Limit::new(200, HOUR)),
            consecutive: Some(Limit::new(3600, HOUR * 6)),
            renewals: Renewals::Exempt,
        }
    }

    /// What is known of the authority with this directory; none otherwise, for what is not known must not stop orders.
    #[must_use]
    pub fn of_directory(url: &str) -> Self {
        let host = url
            .strip_prefix("https://")
            .and_then(|rest| rest.split('/').next());
        match host {
            Some("acme-v02.api.letsencrypt.org") => Self::lets_encrypt(),
            Some("acme-staging-v02.api.letsencrypt.org") => Self::lets_encrypt_staging(),
            Some(host) => Self::none(host),
            None => Self::none(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_comes_back_as_the_authority_says() {
        let check = |limit: Option<Limit>, seconds: u64| {
            assert_eq!(limit.unwrap().refill().as_secs(), seconds);
        };
        let limits = Limits::lets_encrypt();
        check(limits.orders, 36);
        check(limits.domain, 12_096); // 202 minutes
        check(limits.exact_set, 120_960); // 34 hours
        check(limits.failures, 720); // 12 minutes
        check(limits.consecutive, 86_400);
    }

    #[test]
    fn a_part_of_a_limit_has_that_part_of_its_size_and_rate() {
        let check = |limit: (u32, u64), part, expected: (u32, u64)| {
            let limit = Limit::new(limit.0, Duration::from_secs(limit.1)).spent(part);
            assert_eq!((limit.amount(), limit.refill().as_secs()), expected);
        };
        check((300, 10_800), 0.8, (240, 45));
        check((300, 10_800), 1.0, (300, 36));
        check((5, 3600), 0.8, (4, 900));
        check((50, 604_800), 0.8, (40, 15_120));
        // Never nothing, and never faster than the whole.
        check((1, 60), 0.8, (1, 60));
        check((300, 10_800), 0.0, (1, 10_800));
        check((300, 10_800), f64::NAN, (300, 36));
        check((0, 0), 0.8, (1, 0));
    }

    #[test]
    fn only_known_authorities_are_limited() {
        let of = Limits::of_directory;
        assert_eq!(
            of("https://acme-v02.api.letsencrypt.org/directory"),
            Limits::lets_encrypt()
        );
        assert_eq!(
            of("https://acme-staging-v02.api.letsencrypt.org/directory"),
            Limits::lets_encrypt_staging()
        );
        assert_eq!(
            of("https://dv.acme-v02.api.pki.goog/directory"),
            Limits::none("dv.acme-v02.api.pki.goog")
        );
        let pebble = Limits::of_directory("https://127.0.0.1:14000/dir");
        assert_eq!(pebble, Limits::none("127.0.0.1:14000"));
    }

    #[test]
    fn a_limit_reads_as_it_is_written() {
        let limits = Limits::lets_encrypt();
        assert_eq!(limits.orders.unwrap().to_string(), "300 in 3h");
        assert_eq!(limits.domain.unwrap().to_string(), "50 in 7d");
        assert_eq!(span(Duration::from_millis(500)), "500ms");
        assert_eq!(span(Duration::from_millis(1500)), "2s");
    }
}
