//! How long new names take at the present limits.

use std::time::Duration;

use super::book::Book;
use super::limits::Limit;
use super::shares::Class;
use crate::telemetry::labels::BudgetFamily as Family;

/// What is to be certified: all new, one order each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Import {
    /// So many names.
    pub names: u64,
    /// So many of them under each registered domain; one at least.
    pub per_domain: u64,
}

/// How long an import takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// With all that the authority allows.
    pub full: Estimate,
    /// With what we spend of it, beside its reserves.
    pub ours: Estimate,
}

/// How long, and what it takes that long for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// From buckets that are full at the start to the last order.
    pub takes: Duration,
    /// The limit that decides; nothing where there is none.
    pub bound_by: Option<Family>,
}

impl Estimate {
    /// In days, a part of one as a whole one.
    #[must_use]
    pub fn days(&self) -> u64 {
        self.takes.as_secs().div_ceil(86_400)
    }
}

/// How long `import` takes with the authority of `book`, whatever its speed.
#[must_use]
pub fn forecast(book: &Book, import: Import) -> Forecast {
    let full = |family| book.published(family).map(|limit| (limit, limit.amount()));
    let ours = |family| {
        let limit = book.limit(family)?;
        let reserved = book.shares.reserved(limit.amount(), Class::Bulk);
        Some((limit, limit.amount().saturating_sub(reserved)))
    };
    Forecast {
        full: estimate(import, full),
        ours: estimate(import, ours),
    }
}

/// How long `import` takes at the limits that `limit` tells, each with what it gives at once.
#[must_use]
pub fn estimate(import: Import, limit: impl Fn(Family) -> Option<(Limit, u32)>) -> Estimate {
    let parts = [
        (Family::Orders, import.names),
        (
            Family::Domain,
            import.per_domain.clamp(1, import.names.max(1)),
        ),
    ];
    let longest = parts.into_iter().filter_map(|(family, wanted)| {
        let (limit, at_once) = limit(family)?;
        let waiting = wanted.saturating_sub(u64::from(at_once));
        let millis = limit
            .refill()
            .as_millis()
            .saturating_mul(u128::from(waiting));
        let takes = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        Some((takes, family))
    });
    let longest = longest.reduce(|longest, next| match next.0 > longest.0 {
        true => next,
        false => longest,
    });
    let (takes, bound_by) = longest.map_or((Duration::ZERO, None), |(takes, by)| (takes, Some(by)));
    Estimate { takes, bound_by }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Shares};
    use super::*;
    use crate::model::certificate::CaId;

    fn book(limits: Limits) -> Book {
        Book {
            ca: CaId::new("ca"),
            limits,
            shares: Shares::default(),
        }
    }

    #[test]
    fn a_million_names_take_417_days_at_lets_encrypts_limits_and_521_at_80_percent() {
        let import = Import {
            names: 1_000_000,
            per_domain: 1,
        };
        let forecast = forecast(&book(Limits::lets_encrypt()), import);
        assert_eq!((forecast.full.days(), forecast.ours.days()), (417, 521));
        assert_eq!(forecast.ours.bound_by, Some(Family::Orders));
    }

    #[test]
    fn many_names_under_one_registered_domain_are_bound_by_it() {
        let import = Import {
            names: 1000,
            per_domain: 1000,
        };
        let forecast = forecast(&book(Limits::lets_encrypt()), import);
        // 950 times 201.6 minutes.
        assert_eq!(forecast.full.days(), 133);
        assert_eq!(forecast.full.bound_by, Some(Family::Domain));
    }

    #[test]
    fn what_is_not_limited_takes_no_time_and_nothing_overflows() {
        let most = Import {
            names: u64::MAX,
            per_domain: u64::MAX,
        };
        let unlimited = forecast(&book(Limits::none("x")), most);
        assert_eq!(unlimited.full.takes, Duration::ZERO);
        assert_eq!(unlimited.full.bound_by, None);
        let limited = forecast(&book(Limits::lets_encrypt()), most);
        assert!(limited.full.days() > 1_000_000_000);
        let none = Import {
            names: 0,
            per_domain: 0,
        };
        assert_eq!(forecast(&book(Limits::lets_encrypt()), none).ours.days(), 0);
    }
}
