//! Which jobs are worth claiming while an account gives nothing to their class: pure.

use std::collections::HashMap;
use std::time::Duration;

use super::shares::Class;
use crate::store::job::{Pace, Paces, Priority};

/// While a class gets nothing, one of its jobs is tried in so long: the first to get something may be of an authority
/// that is not exhausted.
pub const PROBE: Duration = Duration::from_secs(1);

/// The classes that get nothing at present. Times are since any fixed point that does not move.
#[derive(Clone, Debug, Default)]
pub struct Scarcity {
    /// Until when the jobs of a priority are tried one at a time, and when the next may be.
    scarce: HashMap<Priority, Scarce>,
}

#[derive(Clone, Copy, Debug)]
struct Scarce {
    until: Duration,
    next: Duration,
}

impl Scarcity {
    /// How freely jobs are to be claimed at `now`. Jobs of a class that gets nothing at present are not worth claiming by
    /// the hundred: one each [`PROBE`] is tried, and the answer counts as that try.
    #[must_use]
    pub fn paces(&mut self, now: Duration) -> Paces {
        let mut paces = Paces::default();
        self.scarce.retain(|_, scarce| now < scarce.until);
        for (priority, scarce) in &mut self.scarce {
            let pace = match now < scarce.next {
                true => Pace::None,
                false => Pace::One,
            };
            if pace == Pace::One {
                scarce.next = now.saturating_add(PROBE);
            }
            paces.set(*priority, pace);
        }
        paces
    }

    /// The account itself gives nothing to `class` for so long.
    pub fn note(&mut self, class: Class, wait: Duration, now: Duration) {
        if let Some(priority) = paced(class) {
            let scarce = Scarce {
                until: now.saturating_add(wait),
                next: now.saturating_add(PROBE),
            };
            self.scarce.insert(priority, scarce);
        }
    }

    /// An order of `class` was given.
    pub fn plenty(&mut self, class: Class) {
        if let Some(priority) = paced(class) {
            self.scarce.remove(&priority);
        }
    }

    /// When a job of this priority may be claimed next; nothing for at once.
    #[must_use]
    pub fn next(&self, priority: Priority) -> Option<Duration> {
        let scarce = self.scarce.get(&priority)?;
        Some(scarce.next.min(scarce.until))
    }
}

/// The priority whose jobs are mostly of a class that can wait. A visitor is told at once, whatever the answer.
const fn paced(class: Class) -> Option<Priority> {
    match class {
        Class::Emergency | Class::Visitor => None,
        Class::Renewal => Some(Priority::Renewal),
        Class::Bulk => Some(Priority::Background),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const START: Duration = Duration::from_secs(1000);

    #[test]
    fn a_class_that_gets_nothing_is_tried_once_a_second_until_its_wait_is_over() {
        let mut scarcity = Scarcity::default();
        scarcity.note(Class::Renewal, MINUTE, START);
        let mut pace = |after: Duration| scarcity.paces(START + after).of(Priority::Renewal);
        assert_eq!(pace(Duration::ZERO), Pace::None);
        assert_eq!(pace(PROBE), Pace::One);
        assert_eq!(pace(PROBE), Pace::None);
        assert_eq!(pace(PROBE * 2), Pace::One);
        assert_eq!(pace(MINUTE), Pace::Free);
    }

    #[test]
    fn who_gets_something_is_claimed_freely_and_nobody_who_is_urgent_ever_waits() {
        let mut scarcity = Scarcity::default();
        for class in Class::ALL {
            scarcity.note(class, MINUTE, START);
        }
        let paces = scarcity.paces(START);
        let seen = Priority::ALL.map(|priority| paces.of(priority));
        let (free, none) = (Pace::Free, Pace::None);
        assert_eq!(seen, [free, free, none, none]);
        assert_eq!(scarcity.next(Priority::Renewal), Some(START + PROBE));
        scarcity.plenty(Class::Renewal);
        assert_eq!(scarcity.next(Priority::Renewal), None);
        assert_eq!(scarcity.paces(START).of(Priority::Background), none);
    }
}
