//! Which jobs are worth claiming while an account gives nothing to their class: pure.

use std::collections::HashMap;
use std::time::Duration;

use super::book::Denied;
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

#[derive(Clone, Debug)]
struct Scarce {
    until: Duration,
    next: Duration,
    denied: Denied,
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

    /// The account itself gives nothing to `class`.
    pub fn note(&mut self, class: Class, denied: &Denied, now: Duration) {
        if let Some(priority) = paced(class) {
            let scarce = Scarce {
                until: now.saturating_add(denied.retry_after),
                next: now.saturating_add(PROBE),
                denied: denied.clone(),
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

    /// Why jobs of this priority are not claimed freely, and for how much longer; nothing where they are.
    #[must_use]
    pub fn held(&self, priority: Priority, now: Duration) -> Option<Denied> {
        let scarce = self
            .scarce
            .get(&priority)
            .filter(|scarce| now < scarce.until)?;
        Some(Denied {
            retry_after: scarce.until.saturating_sub(now),
            ..scarce.denied.clone()
        })
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

    use crate::certs::budget::BucketName;
    use crate::model::certificate::CaId;

    const MINUTE: Duration = Duration::from_secs(60);
    const START: Duration = Duration::from_secs(1000);

    fn denied() -> Denied {
        Denied {
            ca: CaId::new("le"),
            bucket: BucketName::parse("orders:le:").unwrap(),
            limit: None,
            ours: 240,
            retry_after: MINUTE,
        }
    }

    #[test]
    fn a_class_that_gets_nothing_is_tried_once_a_second_until_its_wait_is_over() {
        let mut scarcity = Scarcity::default();
        scarcity.note(Class::Renewal, &denied(), START);
        let held = |after| scarcity.held(Priority::Renewal, START + after);
        let left = held(PROBE).map(|denied| denied.retry_after);
        assert_eq!(left, Some(MINUTE - PROBE));
        assert_eq!(held(MINUTE), None);
        assert_eq!(scarcity.held(Priority::Background, START), None);
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
            scarcity.note(class, &denied(), START);
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
