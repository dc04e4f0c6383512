//! Who may take how much of a limit: classes of orders, and tenants among each other.

use super::limits::{Limit, share_of};
use crate::certs::lifecycle::Why;
use crate::certs::renewal::Margin;
use crate::model::standing::Replace;
use crate::store::job::Priority;

/// A name that has failed more often than this in a row is no emergency any more: one that is dead for long must not eat
/// what is kept for emergencies.
const MOST_EMERGENCIES: u32 = 3;

/// Why an order is placed, as far as its claim on the budget goes: the first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// What served has expired, is about to, or must be replaced: it may take the last unit.
    Emergency,
    /// A renewal in good time.
    Renewal,
    /// The first certificate of a name whose visitor waits in a handshake, or that somebody asks for by hand.
    Visitor,
    /// The first certificate of a name, without a visitor.
    Bulk,
}

impl Class {
    /// Every class, the first first.
    pub const ALL: [Self; 4] = [Self::Emergency, Self::Renewal, Self::Visitor, Self::Bulk];

    /// The class of an order wanted for `why` by a job of this priority that has failed `failures` times in a row, in the
    /// place of a certificate that is good for so much longer.
    #[must_use]
    pub const fn of(why: Why, margin: Margin, priority: Priority, failures: u32) -> Self {
        match (why, priority) {
            // Nothing has served yet that could end: whoever asks for it urgently waits for it as a visitor does.
            (Why::First, Priority::Handshake | Priority::Expiring) => Self::Visitor,
            (Why::First, Priority::Renewal | Priority::Background) => Self::Bulk,
            (Why::Renewal, _) if failures > MOST_EMERGENCIES => Self::Renewal,
            (Why::Renewal, Priority::Expiring) => Self::Emergency,
            (Why::Renewal, _) => match margin {
                Margin::Short => Self::Emergency,
                Margin::Ample => Self::Renewal,
            },
            (Why::Expired, _) if failures > MOST_EMERGENCIES => Self::Bulk,
            (Why::Expired, _) => Self::Emergency,
            // What somebody asked for can wait like any renewal; a key that others know cannot.
            (Why::Replacement(Replace::Asked), _) => Self::Renewal,
            (Why::Replacement(_), _) => Self::Emergency,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emergency => "emergency",
            Self::Renewal => "renewal",
            Self::Visitor => "visitor",
            Self::Bulk => "bulk",
        }
    }
}

/// How a limit is shared. Each is a part of it, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// What we spend of each limit at most. Default 0.8.
    pub spend: f64,
    /// What only emergencies may take of the orders and of a registered domain's certificates. Default 0.05.
    pub emergencies: f64,
    /// What is left for renewals beside that. Default 0.2.
    pub renewals: f64,
    /// What is left for visitors in a handshake beside that. Default 0.2.
    pub visitors: f64,
    /// A tenant that has used this part of the orders leaves as much to the others, so long as the bucket is not full
    /// enough for all. Default 0.1.
    pub tenant: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            spend: 0.8,
            emergencies: 0.05,
            renewals: 0.2,
            visitors: 0.2,
            tenant: 0.1,
        }
    }
}

/// Whether a tenant has used its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not.
    Within,
    /// It has, and leaves room for the others.
    Beyond,
}

impl Shares {
    /// What we spend of `limit`.
    #[must_use]
    pub fn spent(&self, limit: Limit) -> Limit {
        limit.spent(self.spend)
    }

    /// What an order of `class` must leave in a bucket of `amount`. Small buckets have no reserves: at least one unit
    /// can be taken by everyone.
    #[must_use]
    pub fn reserved(&self, amount: u32, class: Class) -> u32 {
        let part = match class {
            Class::Emergency => 0.0,
            Class::Renewal => self.emergencies,
            Class::Visitor => self.emergencies + self.renewals,
            Class::Bulk => self.emergencies + self.renewals + self.visitors,
        };
        share_of(amount, part).min(amount.saturating_sub(1))
    }

    /// What an order may take a bucket of `amount` down by, all in all.
    pub(super) fn capacity(&self, amount: u32, class: Class, standing: Standing) -> u32 {
        let capacity = amount.saturating_sub(self.reserved(amount, class));
        match standing {
            Standing::Within => capacity,
            Standing::Beyond => capacity
                .saturating_sub(share_of(amount, self.tenant))
                .max(1),
        }
    }

    /// A tenant's share of the orders, as a limit of its own; nothing where one tenant may have all.
    pub(super) fn tenant(&self, orders: Limit) -> Option<Limit> {
        (self.tenant < 1.0).then(|| self.spent(orders).spent(self.tenant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_or_has_ended_is_an_emergency_unless_it_fails_again_and_again() {
        use Margin::{Ample, Short};
        use Priority::{Background, Expiring, Handshake, Renewal};
        let check = |why, (margin, priority, failures), expected: Class| {
            let class = Class::of(why, margin, priority, failures);
            assert_eq!(
                class, expected,
                "{why:?} {margin:?} {priority:?} {failures}"
            );
        };
        check(Why::First, (Short, Handshake, 0), Class::Visitor);
        check(Why::First, (Short, Background, 0), Class::Bulk);
        check(Why::First, (Short, Renewal, 0), Class::Bulk);
        check(Why::First, (Short, Expiring, 9), Class::Visitor);
        check(Why::Renewal, (Ample, Renewal, 0), Class::Renewal);
        check(Why::Renewal, (Ample, Expiring, 0), Class::Emergency);
        check(Why::Renewal, (Ample, Expiring, 4), Class::Renewal);
        check(Why::Renewal, (Short, Renewal, 3), Class::Emergency);
        check(Why::Renewal, (Short, Renewal, 4), Class::Renewal);
        check(Why::Expired, (Short, Renewal, 3), Class::Emergency);
        check(Why::Expired, (Short, Renewal, 4), Class::Bulk);
        let replacement = |replace| Why::Replacement(replace);
        check(
            replacement(Replace::Asked),
            (Ample, Expiring, 0),
            Class::Renewal,
        );
        check(
            replacement(Replace::Revoked),
            (Ample, Renewal, 9),
            Class::Emergency,
        );
    }

    #[test]
    fn each_class_leaves_the_reserves_of_those_before_it() {
        let shares = Shares::default();
        let check = |amount, expected: [u32; 4]| {
            let capacities =
                Class::ALL.map(|class| shares.capacity(amount, class, Standing::Within));
            assert_eq!(capacities, expected, "{amount}");
        };
        check(240, [240, 228, 180, 132]);
        check(40, [40, 38, 30, 22]);
        check(4, [4, 4, 3, 3]);
        check(1, [1, 1, 1, 1]);
        assert_eq!(shares.capacity(240, Class::Bulk, Standing::Beyond), 108);
        assert_eq!(shares.capacity(1, Class::Bulk, Standing::Beyond), 1);
    }

    #[test]
    fn reserves_of_everything_still_let_everyone_take_one() {
        let greedy = Shares {
            renewals: 1.0,
            visitors: 1.0,
            ..Shares::default()
        };
        assert_eq!(greedy.capacity(240, Class::Bulk, Standing::Within), 1);
    }
}
