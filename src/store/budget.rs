//! Rates over all nodes: buckets by the generic cell rate algorithm, one timestamp each.
//!
//! [`Bucket`] is the algorithm, pure; adapters keep its two times in a row. A bucket knows neither its size nor its
//! rate: each cost brings them, so that a limit may change from one taking to the next, and one who may not empty a
//! bucket brings a smaller capacity than one who may.
//!
//! Times are by a clock that may jump. What was written while it was ahead counts for no more than can be true
//! ([`Bucket::put_right`]): a bucket is empty at worst, and a stop that ends later than any is over. While it is ahead,
//! each bucket seems full and every stop seems over: a jump lets the whole amount be taken once more, not more, and who
//! stopped us says so again. Rows stay for [`KEPT`] after they are full, so that a smaller jump removes none, and what
//! was taken before it counts again once the clock is right.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// The longest stop: nobody is believed who asks to wait for longer.
pub const LONGEST_STOP: Duration = Duration::from_secs(24 * 3600);
/// How long a bucket is kept after it is full: clocks that jump mostly jump by less.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// A stop that is longer than the longest by so much is no sign of a clock that jumped.
const SLACK: Duration = Duration::from_secs(3600);

/// A cost to take from a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketCost {
    /// Its key: `orders:<account>`.
    pub bucket: String,
    /// How many units. None takes nothing, and is refused where the bucket is frozen or emptier than `capacity`
    /// allows.
    pub units: u32,
    /// One unit comes back after so long.
    pub refill: Duration,
    /// How many units the bucket may be down by afterwards: fewer than [`Self::whole`] for one who must leave some to
    /// others.
    pub capacity: u32,
    /// The most units that a full bucket holds, whoever takes them.
    pub whole: u32,
}

impl BucketCost {
    /// The time that `units` take to come back, in whole milliseconds, rounded up.
    fn lasts(&self, units: u32) -> Duration {
        whole_millis(self.refill).saturating_mul(units)
    }
}

/// Whether the costs were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// From every bucket.
    Granted,
    /// From none: the first that could not give, and after how long it could.
    Denied {
        /// The bucket.
        bucket: String,
        /// After how long to try again.
        retry_after: Duration,
    },
}

/// A bucket: when it is full again, and until when it gives nothing. The default is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The theoretical arrival time: all that was taken will have come back by then.
    pub full_at: Timestamp,
    /// It gives nothing before.
    pub frozen_until: Timestamp,
}

impl Bucket {
    /// The bucket after `cost` was taken from it at `now`.
    ///
    /// # Errors
    /// After how long it could give. Parts of a millisecond count as a whole one; what never fits is refused with the
    /// time that it would take.
    pub fn take(self, cost: &BucketCost, now: Timestamp) -> Result<Self, Duration> {
        let right = self.put_right(cost, now);
        if right.frozen_until > now {
            return Err(right.frozen_until.since(now));
        }
        let full_at = right.full_at.max(now).plus(cost.lasts(cost.units));
        let allowed = now.plus(cost.lasts(cost.capacity));
        match full_at <= allowed && cost.units <= cost.capacity {
            true if cost.units == 0 => Ok(right),
            true => Ok(Self { full_at, ..right }),
            false => Err(full_at.since(allowed)),
        }
    }

    /// The bucket without what can only have been written while the clock was ahead: it is empty at worst, and stopped
    /// for no longer than anybody is believed. To be kept even where nothing is taken, for it is by this that an empty
    /// bucket fills again.
    #[must_use]
    pub fn put_right(self, cost: &BucketCost, now: Timestamp) -> Self {
        let empty = now.plus(cost.lasts(cost.whole.max(cost.capacity)));
        Self {
            full_at: self.full_at.min(empty),
            frozen_until: self.stopped_until(now),
        }
    }

    /// Until when it is stopped. A stop that ends later than the longest began while the clock was ahead, and nobody
    /// knows when it would be over: who stopped us will say so again.
    fn stopped_until(self, now: Timestamp) -> Timestamp {
        match self.frozen_until > now.plus(LONGEST_STOP).plus(SLACK) {
            true => Timestamp::EPOCH,
            false => self.frozen_until,
        }
    }

    /// For how long it gives nothing from `now` on.
    #[must_use]
    pub fn stopped_for(self, now: Timestamp) -> Duration {
        self.stopped_until(now).since(now)
    }

    /// The bucket after `cost` was spent elsewhere, whatever it holds: at worst it is empty, never in debt.
    #[must_use]
    pub fn charge(self, cost: &BucketCost, now: Timestamp) -> Self {
        let right = self.put_right(cost, now);
        let spent = right.full_at.max(now).plus(cost.lasts(cost.units));
        let empty = now.plus(cost.lasts(cost.capacity));
        Self {
            full_at: spent.min(empty).max(right.full_at),
            ..right
        }
    }

    /// The bucket after the units of `cost` were put back.
    #[must_use]
    pub fn give_back(self, cost: &BucketCost) -> Self {
        Self {
            full_at: self.full_at.minus(cost.lasts(cost.units)),
            ..self
        }
    }

    /// The bucket, stopped for `duration` from `now` on, [`LONGEST_STOP`] at most; a longer stop stays.
    #[must_use]
    pub fn freeze(self, duration: Duration, now: Timestamp) -> Self {
        let until = now.plus(duration.min(LONGEST_STOP));
        Self {
            frozen_until: self.stopped_until(now).max(until),
            ..self
        }
    }
}

/// A bucket that is not full, or is frozen, as listed: by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRecord {
    /// Its key.
    pub bucket: String,
    /// It is full after so long.
    pub full_in: Duration,
    /// It gives nothing for so long.
    pub frozen_for: Duration,
}

impl BucketRecord {
    /// How many units a bucket of this size and rate still holds, frozen or not.
    #[must_use]
    pub fn left(&self, refill: Duration, capacity: u32) -> u32 {
        let refill = whole_millis(refill).as_millis().max(1);
        let used = self.full_in.as_millis().div_ceil(refill);
        capacity.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }
}

fn whole_millis(duration: Duration) -> Duration {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(units: u32) -> BucketCost {
        BucketCost {
            bucket: "b".to_owned(),
            units,
            refill: Duration::from_secs(36),
            capacity: 3,
            whole: 3,
        }
    }

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    #[test]
    fn a_full_bucket_gives_its_capacity_and_then_one_unit_each_refill() {
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            bucket = bucket.take(&cost(1), NOW).unwrap();
        }
        assert_eq!(bucket.take(&cost(1), NOW), Err(Duration::from_secs(36)));
        let later = NOW.plus(Duration::from_secs(35));
        assert_eq!(bucket.take(&cost(1), later), Err(Duration::from_secs(1)));
        let refilled = NOW.plus(Duration::from_secs(36));
        let bucket = bucket.take(&cost(1), refilled).unwrap();
        assert!(bucket.take(&cost(1), refilled).is_err());
    }

    #[test]
    fn a_frozen_bucket_gives_nothing_until_it_thaws() {
        let frozen = Bucket::default().freeze(Duration::from_secs(60), NOW);
        assert_eq!(frozen.take(&cost(1), NOW), Err(Duration::from_secs(60)));
        assert_eq!(frozen.take(&cost(0), NOW), Err(Duration::from_secs(60)));
        assert!(frozen.take(&cost(1), frozen.frozen_until).is_ok());
        let shorter = frozen.freeze(Duration::from_secs(6), NOW);
        assert_eq!(shorter, frozen, "a longer stop stays");
        assert_eq!(
            frozen.freeze(Duration::MAX, NOW).stopped_for(NOW),
            LONGEST_STOP
        );
    }

    #[test]
    fn what_a_clock_that_was_ahead_left_behind_empties_at_worst_and_stops_nothing() {
        let ahead = NOW.plus(LONGEST_STOP * 10);
        let one_left = BucketCost {
            capacity: 1,
            ..cost(1)
        };
        let taken = Bucket::default().take(&one_left, ahead).unwrap();
        // Of three units none is left, for all that is known: two come back before one who must leave two gets any.
        let refill = Duration::from_secs(36);
        assert_eq!(taken.take(&one_left, NOW), Err(refill * 3));
        assert_eq!(taken.take(&cost(1), NOW), Err(refill));
        let right = taken.put_right(&one_left, NOW);
        assert!(right.take(&one_left, NOW.plus(refill * 3)).is_ok());
        assert_eq!(right.put_right(&one_left, NOW), right);
        let charged = taken.charge(&cost(1), NOW);
        assert!(charged.take(&cost(1), NOW.plus(refill)).is_ok());

        let stopped = Bucket::default().freeze(refill, ahead);
        assert_eq!(stopped.stopped_for(NOW), Duration::ZERO);
        assert!(stopped.take(&cost(1), NOW).is_ok());
        assert_eq!(stopped.freeze(refill, NOW).stopped_for(NOW), refill);
        // A clock that is put back by little ends no stop.
        let longest = Bucket::default().freeze(LONGEST_STOP, NOW);
        let before = NOW.minus(Duration::from_secs(60));
        assert!(longest.take(&cost(1), before).is_err());
    }

    #[test]
    fn more_than_the_capacity_is_never_given_and_nothing_overflows() {
        assert!(Bucket::default().take(&cost(4), NOW).is_err());
        let endless = BucketCost {
            refill: Duration::MAX,
            units: u32::MAX,
            ..cost(0)
        };
        assert!(Bucket::default().take(&endless, Timestamp::MAX).is_err());
        assert!(Bucket::default().take(&cost(0), NOW).is_ok());
        assert_eq!(
            Bucket::default().charge(&endless, Timestamp::MAX).full_at,
            Timestamp::MAX
        );
    }

    #[test]
    fn a_cost_of_nothing_asks_whether_so_much_is_left_and_takes_nothing() {
        let one_left = |capacity: u32| BucketCost {
            capacity: capacity - 1,
            ..cost(0)
        };
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.take(&one_left(3), NOW), Ok(bucket));
            bucket = bucket.take(&cost(1), NOW).unwrap();
        }
        assert_eq!(bucket.take(&one_left(3), NOW), Err(Duration::from_secs(36)));
    }

    #[test]
    fn what_was_spent_elsewhere_empties_at_worst_and_what_is_given_back_can_be_taken_again() {
        let mut bucket = Bucket::default();
        for _ in 0..9 {
            bucket = bucket.charge(&cost(1), NOW);
        }
        assert_eq!(bucket.take(&cost(1), NOW), Err(Duration::from_secs(36)));
        let bucket = bucket.give_back(&cost(2));
        let bucket = bucket.take(&cost(2), NOW).unwrap();
        assert!(bucket.take(&cost(1), NOW).is_err());
        // A smaller bucket than before is empty, and no fuller than it was.
        let smaller = BucketCost {
            capacity: 1,
            ..cost(1)
        };
        assert_eq!(bucket.charge(&smaller, NOW), bucket);
    }

    #[test]
    fn a_record_tells_what_is_left() {
        let record = |full_in| BucketRecord {
            bucket: String::new(),
            full_in: Duration::from_secs(full_in),
            frozen_for: Duration::ZERO,
        };
        let refill = Duration::from_secs(36);
        for (full_in, left) in [(0, 3), (1, 2), (36, 2), (37, 1), (108, 0), (9999, 0)] {
            assert_eq!(record(full_in).left(refill, 3), left, "{full_in}");
        }
        assert_eq!(record(5).left(Duration::ZERO, 3), 0);
    }
}
