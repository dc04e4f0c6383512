//! Whether an authority is asked at all: a circuit breaker, pure. It opens by outages, in a row or by their share, and
//! never by refusals or limits: who answers, whatever the answer, is there.
//!
//! While it is open only the directory is read from time to time, never an order placed. Once the directory answers it is
//! half open: one order at a time is tried, and the first that the authority works on closes it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::backoff::{Backoff, jittered};
use crate::base::clock::Instant;

/// The window is counted in so many parts.
const PARTS: u32 = 10;
/// How far a pause is spread, up and down: processes do not ask in step.
const JITTER: f64 = 0.2;

/// When it opens and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Outages in a row that open it. Default 3.
    pub in_a_row: u32,
    /// The sliding window for the share of outages. Default 5 minutes.
    pub window: Duration,
    /// The least outcomes in the window by which the share counts. Default 20.
    pub least: u32,
    /// The share of outages that opens it, in percent. Default 50.
    pub share: u32,
    /// The pauses between probes. Default 5 s, doubling, at most 5 minutes.
    pub pauses: Backoff,
    /// How long a trial may go without an outcome before another is allowed. Default 5 minutes.
    pub trial: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_a_row: 3,
            window: Duration::from_secs(300),
            least: 20,
            share: 50,
            pauses: Backoff {
                first: Duration::from_secs(5),
                factor: 2,
                most: Duration::from_secs(300),
            },
            trial: Duration::from_secs(300),
        }
    }
}

/// How a call went, as far as it tells of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered: with what was asked for or with a refusal.
    Answered,
    /// It did not, or with nothing of use.
    Outage,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is asked as usual.
    Closed,
    /// It is not asked.
    Open,
    /// It is tried, one order at a time.
    HalfOpen,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "ready",
            Self::Open => "away",
            Self::HalfOpen => "tried",
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    Closed,
    /// Not to be asked; the directory is read at this time.
    Open {
        probe_at: Instant,
    },
    /// Somebody tries an order until this time.
    HalfOpen {
        tried_until: Option<Instant>,
    },
}

/// A part of the window.
#[derive(Clone, Debug)]
struct Part {
    began: Instant,
    answered: u32,
    outages: u32,
}

/// The breaker of one authority.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: Settings,
    state: State,
    /// Outages since the last answer.
    in_a_row: u32,
    recent: VecDeque<Part>,
    /// Times it opened or stayed open without having closed: makes the pauses longer.
    opened: u32,
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Closed,
            in_a_row: 0,
            recent: VecDeque::new(),
            opened: 0,
        }
    }

    /// How it stands.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self.state {
            State::Closed => Standing::Closed,
            State::Open { .. } => Standing::Open,
            State::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    /// Whether the last that was heard of the authority is an outage.
    #[must_use]
    pub const fn is_troubled(&self) -> bool {
        self.in_a_row > 0 || matches!(self.state, State::Open { .. })
    }

    /// How many outages more open it: so often is the directory read before an authority is given up.
    #[must_use]
    pub const fn doubts_left(&self) -> u32 {
        self.settings.in_a_row.saturating_sub(self.in_a_row)
    }

    /// Whether an order may be placed now.
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { .. } => false,
            State::HalfOpen { tried_until } => tried_until.is_none_or(|until| until <= now),
        }
    }

    /// Notes that somebody works with the authority from now on: in a half-open breaker that is the trial, which may go
    /// without an outcome until the given time.
    pub fn began(&mut self, now: Instant) -> Option<Instant> {
        let State::HalfOpen { tried_until } = &mut self.state else {
            return None;
        };
        *tried_until = Some(now + self.settings.trial);
        *tried_until
    }

    /// Notes that the trial which might have gone until then ended without a word of the authority's: another may begin.
    pub fn gave_up(&mut self, until: Instant) {
        if let State::HalfOpen { tried_until } = &mut self.state {
            *tried_until = tried_until.filter(|current| *current != until);
        }
    }

    /// Takes note of how work with the authority went. `random` is from 0 to 1.
    pub fn worked(&mut self, outcome: Outcome, now: Instant, random: f64) {
        match (outcome, &self.state) {
            (Outcome::Answered, State::Closed) => {
                self.count(outcome, now);
                self.in_a_row = 0;
            }
            // What began before it opened has come through.
            (Outcome::Answered, State::Open { .. }) => self.half_open(),
            (Outcome::Answered, State::HalfOpen { .. }) => self.close(),
            (Outcome::Outage, State::Closed) => {
                self.count(outcome, now);
                self.in_a_row = self.in_a_row.saturating_add(1);
                if self.in_a_row >= self.settings.in_a_row || self.too_many(now) {
                    self.open(now, random);
                }
            }
            (Outcome::Outage, State::Open { .. }) => {}
            (Outcome::Outage, State::HalfOpen { .. }) => self.open(now, random),
        }
    }

    /// Takes note of how reading the directory went. A directory that answers says little (it may come from a cache), so
    /// it closes nothing; one that does not is an outage.
    pub fn probed(&mut self, outcome: Outcome, now: Instant, random: f64) {
        match (outcome, &self.state) {
            (Outcome::Answered, State::Open { .. }) => self.half_open(),
            (Outcome::Outage, State::Open { .. }) => self.open(now, random),
            (Outcome::Outage, State::Closed | State::HalfOpen { .. }) => {
                self.worked(outcome, now, random);
            }
            (Outcome::Answered, State::Closed | State::HalfOpen { .. }) => {}
        }
    }

    /// When the directory is to be read; never unless it is open.
    #[must_use]
    pub const fn probe_at(&self) -> Option<Instant> {
        if let State::Open { probe_at } = self.state {
            Some(probe_at)
        } else {
            None
        }
    }

    fn open(&mut self, now: Instant, random: f64) {
        self.opened = self.opened.saturating_add(1);
        let pause = jittered(self.settings.pauses.after(self.opened), JITTER, random);
        self.state = State::Open {
            probe_at: now + pause,
        };
    }

    fn half_open(&mut self) {
        self.state = State::HalfOpen { tried_until: None };
    }

    fn close(&mut self) {
        *self = Self::new(self.settings);
    }

    fn count(&mut self, outcome: Outcome, now: Instant) {
        let part = self.settings.window / PARTS;
        if self
            .recent
            .back()
            .is_none_or(|last| now >= last.began + part)
        {
            self.recent.push_back(Part {
                began: now,
                answered: 0,
                outages: 0,
            });
        }
        self.forget(now);
        if let Some(last) = self.recent.back_mut() {
            let count = match outcome {
                Outcome::Answered => &mut last.answered,
                Outcome::Outage => &mut last.outages,
            };
            *count = count.saturating_add(1);
        }
    }

    fn forget(&mut self, now: Instant) {
        let window = self.settings.window;
        while self
            .recent
            .front()
            .is_some_and(|part| part.began + window <= now)
        {
            self.recent.pop_front();
        }
    }

    fn too_many(&self, now: Instant) -> bool {
        let within = |part: &&Part| part.began + self.settings.window > now;
        let (mut all, mut outages) = (0_u64, 0_u64);
        for part in self.recent.iter().filter(within) {
            all += u64::from(part.answered) + u64::from(part.outages);
            outages += u64::from(part.outages);
        }
        all >= u64::from(self.settings.least)
            && outages * 100 >= all * u64::from(self.settings.share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::clock::monotonic;
    use Outcome::{Answered, Outage};

    /// One event, seconds after the one before it.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Worked(Outcome),
        Probed(Outcome),
        Began,
    }
    use Event::{Began, Probed, Worked};

    fn play(breaker: &mut Breaker, mut now: Instant, events: &[(u64, Event)]) -> Instant {
        for (later, event) in events {
            now += Duration::from_secs(*later);
            match event {
                Worked(outcome) => breaker.worked(*outcome, now, 0.5),
                Probed(outcome) => breaker.probed(*outcome, now, 0.5),
                Began => _ = breaker.began(now),
            }
        }
        now
    }

    fn check(events: &[(u64, Event)], expected: Standing) {
        let mut breaker = Breaker::new(Settings::default());
        play(&mut breaker, monotonic(), events);
        assert_eq!(breaker.standing(), expected, "{events:?}");
    }

    #[test]
    fn outages_in_a_row_open_it_and_an_answer_between_does_not() {
        let outage = (1, Worked(Outage));
        check(&[outage, outage], Standing::Closed);
        check(&[outage, outage, outage], Standing::Open);
        check(
            &[outage, outage, (1, Worked(Answered)), outage, outage],
            Standing::Closed,
        );
        // A directory that cannot be read counts; one that can takes nothing back.
        check(
            &[outage, (1, Probed(Outage)), (1, Probed(Outage))],
            Standing::Open,
        );
        check(
            &[outage, (1, Probed(Answered)), outage, outage],
            Standing::Open,
        );
    }

    #[test]
    fn a_high_share_of_outages_opens_it_within_the_window_only() {
        let alternating = |apart: u64| -> Vec<(u64, Event)> {
            (0..20)
                .map(|n| (apart, Worked([Answered, Outage][n % 2])))
                .collect()
        };
        check(&alternating(1), Standing::Open);
        check(&alternating(60), Standing::Closed);
        let seldom: Vec<(u64, Event)> = (0..60)
            .map(|n| (1, Worked([Outage, Answered, Answered][n % 3])))
            .collect();
        check(&seldom, Standing::Closed);
    }

    #[test]
    fn it_comes_back_by_a_probe_and_an_order_that_is_worked_on() {
        let open = [(1, Worked(Outage)); 3];
        let after = |more: &[(u64, Event)]| [&open[..], more].concat();
        check(&after(&[(60, Probed(Outage))]), Standing::Open);
        check(&after(&[(60, Probed(Answered))]), Standing::HalfOpen);
        let tried = [(60, Probed(Answered)), (1, Began)];
        check(
            &after(&[tried[0], tried[1], (1, Worked(Answered))]),
            Standing::Closed,
        );
        check(
            &after(&[tried[0], tried[1], (1, Worked(Outage))]),
            Standing::Open,
        );
        // One outage does not open it again once it is closed.
        let closed = [
            tried[0],
            tried[1],
            (1, Worked(Answered)),
            (1, Worked(Outage)),
        ];
        check(&after(&closed), Standing::Closed);
    }

    #[test]
    fn one_order_at_a_time_is_tried() {
        let mut breaker = Breaker::new(Settings::default());
        let mut now = play(&mut breaker, monotonic(), &[(1, Worked(Outage)); 3]);
        assert!(!breaker.admits(now));
        now = play(&mut breaker, now, &[(60, Probed(Answered))]);
        assert!(breaker.admits(now));
        now = play(&mut breaker, now, &[(1, Began)]);
        assert!(!breaker.admits(now));
        // Whoever tried was never heard of again.
        assert!(breaker.admits(now + Settings::default().trial));
    }

    #[test]
    fn a_trial_that_ends_without_a_word_of_the_authority_lets_another_begin() {
        let mut breaker = Breaker::new(Settings::default());
        let mut now = play(&mut breaker, monotonic(), &[(1, Worked(Outage)); 3]);
        assert_eq!(breaker.began(now), None, "it is open");
        now = play(&mut breaker, now, &[(60, Probed(Answered))]);
        let first = breaker.began(now).unwrap();
        breaker.gave_up(first);
        assert!(breaker.admits(now));
        breaker.began(now + Duration::from_secs(1));
        breaker.gave_up(first);
        assert!(!breaker.admits(now), "it is the other's turn");
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut breaker = Breaker::new(Settings::default());
        let mut now = play(&mut breaker, monotonic(), &[(1, Worked(Outage)); 3]);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let at = breaker.probe_at().unwrap();
            pauses.push((at - now).as_secs());
            now = at;
            breaker.probed(Outage, now, 0.5);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300]);
    }

    fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
        let outcome = prop_oneof![Just(Answered), Just(Outage)];
        let event = prop_oneof![
            outcome.clone().prop_map(Worked),
            outcome.prop_map(Probed),
            Just(Began),
        ];
        proptest::collection::vec((0_u64..400, event), 0..200)
    }

    proptest! {
        #[test]
        fn it_never_stays_open_without_a_probe_and_always_comes_back(
            events in events(),
            random in 0.0_f64..1.0,
        ) {
            let longest = Settings::default().pauses.most.mul_f64(1.0 + JITTER);
            let mut breaker = Breaker::new(Settings::default());
            let mut now = monotonic();
            let mut outages = 0;
            for (later, event) in events {
                now += Duration::from_secs(later);
                let before = breaker.standing();
                match event {
                    Worked(outcome) => breaker.worked(outcome, now, random),
                    Probed(outcome) => breaker.probed(outcome, now, random),
                    Began => _ = breaker.began(now),
                }
                outages += u32::from(matches!(event, Worked(Outage) | Probed(Outage)));
                let opened = before != Standing::Open && breaker.standing() == Standing::Open;
                // Nothing but an outage opens it.
                prop_assert!(!opened || matches!(event, Worked(Outage) | Probed(Outage)));
                prop_assert!(breaker.standing() == Standing::Closed || outages >= 3);
                prop_assert_eq!(breaker.probe_at().is_some(), breaker.standing() == Standing::Open);
                prop_assert!(!breaker.admits(now) || breaker.standing() != Standing::Open);
                if let Some(at) = breaker.probe_at() {
                    prop_assert!(at <= now + longest);
                }
                prop_assert!(breaker.recent.len() <= PARTS as usize + 1);
            }
            // However it stands, an authority that is well again is used again.
            let at = breaker.probe_at().unwrap_or(now);
            breaker.probed(Answered, at, random);
            let at = at + Settings::default().trial;
            prop_assert!(breaker.admits(at));
            breaker.began(at);
            breaker.worked(Answered, at, random);
            prop_assert_eq!(breaker.standing(), Standing::Closed);
        }
    }
}
