//! Every path of the table, and random lives of years.

use proptest::prelude::*;

use super::*;
use crate::certs::setback::Lane;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn life(days: u32) -> Life {
    Life {
        not_before: Timestamp::EPOCH,
        not_after: Timestamp::EPOCH.plus(DAY * days),
        chance: 0.0,
        began: None,
        told: None,
        chosen: None,
        ask_at: Timestamp::MAX,
        replace: None,
    }
}

fn at(days: u32) -> Timestamp {
    Timestamp::EPOCH.plus(DAY * days)
}

fn active() -> State {
    State::Active { serving: life(90) }
}

fn renewing() -> State {
    State::Renewing {
        serving: life(90),
        tries: Tries::default(),
    }
}

const ORDERING: State = State::Ordering {
    tries: Tries {
        failures: 0,
        trouble_since: None,
    },
};

fn backing_off(serving: Option<Life>, failures: u32, until: Timestamp) -> State {
    State::BackingOff {
        serving,
        tries: Tries {
            failures,
            trouble_since: None,
        },
        until,
    }
}

fn failure(lane: Lane) -> Event {
    Event::Failed(Setback {
        lane,
        retry_after: None,
        random: 0.0,
    })
}

fn check(state: State, event: Event, now: Timestamp, expected: (State, &[Effect])) {
    let (after, effects) = step(state, event, &Settings::default(), now);
    assert_eq!(after, expected.0, "{state:?} {event:?}");
    assert_eq!(effects, expected.1, "{state:?} {event:?}");
}

#[test]
fn a_first_certificate_is_asked_for_ordered_and_serves() {
    use DomainState as Name;
    check(
        State::Requested,
        Event::Wanted,
        at(0),
        (State::Requested, &[Effect::RunAt(at(0))]),
    );
    check(
        State::Requested,
        Event::Due,
        at(0),
        (
            ORDERING,
            &[Effect::Order(Why::First), Effect::Name(Name::Issuing)],
        ),
    );
    check(
        ORDERING,
        Event::Issued(life(90)),
        at(0),
        (
            active(),
            &[
                Effect::Serve,
                Effect::Forget,
                Effect::RunAt(at(60)),
                Effect::Name(Name::Active),
            ],
        ),
    );
    check(active(), Event::Wanted, at(1), (active(), &[]));
}

#[test]
fn a_certificate_is_left_alone_then_renewed_while_it_serves_then_replaced() {
    use DomainState as Name;
    let rest = [Effect::Forget, Effect::RunAt(at(60))];
    check(active(), Event::Due, at(1), (active(), &rest));
    check(
        active(),
        Event::Due,
        at(60),
        (
            renewing(),
            &[Effect::Order(Why::Renewal), Effect::Name(Name::Renewing)],
        ),
    );
    check(
        renewing(),
        Event::Issued(life(150)),
        at(60),
        (
            State::Active { serving: life(150) },
            &[
                Effect::Serve,
                Effect::Forget,
                Effect::RunAt(at(100)),
                Effect::Name(Name::Active),
            ],
        ),
    );
    check(
        active(),
        Event::Due,
        at(90),
        (
            ORDERING,
            &[Effect::Order(Why::Expired), Effect::Name(Name::Issuing)],
        ),
    );
}

#[test]
fn a_failure_keeps_what_serves_and_backs_off_by_its_cause() {
    use DomainState as Name;
    let until = at(60).plus(MINUTE);
    check(
        renewing(),
        failure(Lane::Domain),
        at(60),
        (
            backing_off(Some(life(90)), 1, until),
            &[
                Effect::RunAt(until),
                Effect::Count,
                Effect::Name(Name::Degraded),
            ],
        ),
    );
    let tries = Tries {
        failures: 0,
        trouble_since: Some(at(60)),
    };
    let waiting = State::BackingOff {
        serving: Some(life(90)),
        tries,
        until,
    };
    check(
        renewing(),
        failure(Lane::Authority),
        at(60),
        (
            waiting,
            &[Effect::RunAt(until), Effect::Name(Name::Degraded)],
        ),
    );
    check(
        ORDERING,
        failure(Lane::Domain),
        at(60),
        (
            backing_off(None, 1, until),
            &[Effect::RunAt(until), Effect::Count],
        ),
    );
    // Nobody comes sooner, but for one who may.
    let state = backing_off(Some(life(90)), 3, at(61));
    check(state, Event::Due, at(60), (state, &[Effect::RunAt(at(61))]));
    check(
        state,
        Event::Wanted,
        at(60),
        (state, &[Effect::RunAt(at(61))]),
    );
    let asked = Life {
        replace: Some(Replace::Asked),
        ..life(90)
    };
    check(
        state,
        Event::Asked(Replace::Asked),
        at(60),
        (
            backing_off(Some(asked), 3, at(60)),
            &[Effect::RunAt(at(60))],
        ),
    );
    let (after, effects) = step(state, Event::Due, &Settings::default(), at(61));
    assert!(matches!(after, State::Renewing { tries, .. } if tries.failures == 3));
    assert!(effects.contains(&Effect::Order(Why::Renewal)));
    // What was wanted came another way meanwhile.
    let replaced = backing_off(Some(life(200)), 3, at(61));
    let (after, effects) = step(replaced, Event::Due, &Settings::default(), at(61));
    assert_eq!(after, State::Active { serving: life(200) });
    assert!(effects.contains(&Effect::Forget));
}

#[test]
fn what_is_put_off_is_no_failure() {
    let until = at(60).plus(HOUR);
    check(
        renewing(),
        Event::Deferred(HOUR),
        at(60),
        (
            backing_off(Some(life(90)), 0, until),
            &[Effect::RunAt(until), Effect::Name(DomainState::Active)],
        ),
    );
    check(
        active(),
        Event::Deferred(HOUR),
        at(60),
        (active(), &[Effect::RunAt(until)]),
    );
}

#[test]
fn a_replacement_comes_before_its_time_whoever_wants_it() {
    let settings = Settings::default();
    for why in [Replace::Asked, Replace::KeyCompromised] {
        let (state, effects) = step(active(), Event::Asked(why), &settings, at(3));
        assert_eq!(effects, [Effect::RunAt(at(3))]);
        assert_eq!(state.next(&settings), Next::At(Timestamp::EPOCH));
        let (state, effects) = step(state, Event::Due, &settings, at(3));
        assert!(effects.contains(&Effect::Order(Why::Replacement(why))));
        assert!(matches!(state, State::Renewing { .. }));
    }
    let (state, _) = step(active(), Event::WasRevoked, &settings, at(3));
    assert_eq!(state, State::Revoked { serving: life(90) });
    let (state, effects) = step(state, Event::Due, &settings, at(3));
    assert!(matches!(state, State::Renewing { .. }));
    assert!(effects.contains(&Effect::Order(Why::Replacement(Replace::Revoked))));
    // A window of the authority's that lies far before the usual time.
    let (state, effects) = step(active(), Event::Told(Some(at(4)), at(5)), &settings, at(3));
    assert_eq!(effects, [Effect::RunAt(at(4))]);
    let (_, effects) = step(state, Event::Due, &settings, at(4));
    assert!(effects.contains(&Effect::Order(Why::Replacement(Replace::Told))));
}

#[test]
fn the_authority_is_asked_about_renewal_when_that_is_due_and_nothing_else_is() {
    let settings = Settings::default();
    let asking = Life {
        ask_at: at(10),
        ..life(90)
    };
    let state = State::Active { serving: asking };
    assert_eq!(state.next(&settings), Next::At(at(10)));
    let (after, effects) = step(state, Event::Due, &settings, at(10));
    assert_eq!((after, effects), (state, vec![Effect::Inquire]));
    let (after, effects) = step(after, Event::Told(None, at(11)), &settings, at(10));
    assert_eq!(effects, [Effect::RunAt(at(11))]);
    let (_, effects) = step(after, Event::Due, &settings, at(60));
    assert!(effects.contains(&Effect::Order(Why::Renewal)));
}

#[test]
fn a_domain_that_moved_or_was_stopped_orders_nothing_and_goes_on_where_it_was() {
    let settings = Settings::default();
    for (leave, back) in [
        (Event::Left, Event::Returned),
        (Event::Stopped, Event::Resumed),
    ] {
        for begun in [active(), renewing(), backing_off(Some(life(90)), 2, at(9))] {
            let (away, effects) = step(begun, leave, &settings, at(1));
            assert!(effects.contains(&Effect::Name(away.name())));
            for event in [Event::Due, Event::Wanted, Event::Asked(Replace::Asked)] {
                let (still, effects) = step(away, event, &settings, at(70));
                assert_eq!(still, away);
                assert!(!effects.iter().any(|e| matches!(e, Effect::Order(_))));
            }
            let (home, _) = step(away, back, &settings, at(2));
            assert_eq!(home, active());
        }
        let (away, _) = step(ORDERING, leave, &settings, at(1));
        // An order that was in progress may still come to its end.
        let (late, effects) = step(away, Event::Issued(life(90)), &settings, at(1));
        assert!(effects.contains(&Effect::Serve));
        assert_eq!(late.name(), away.name());
        assert_eq!(step(late, back, &settings, at(2)).0, active());
        assert_eq!(step(away, back, &settings, at(2)).0, State::Requested);
    }
}

#[test]
fn nothing_comes_after_the_end() {
    let settings = Settings::default();
    let (gone, effects) = step(active(), Event::Removed, &settings, at(1));
    assert_eq!(gone, State::Retired);
    assert!(effects.contains(&Effect::Drop));
    for event in [Event::Due, Event::Issued(life(90)), Event::Resumed] {
        assert_eq!(step(gone, event, &settings, at(2)), (gone, Vec::new()));
    }
}

/// What the world does next in a random life.
#[derive(Clone, Copy, Debug)]
enum World {
    /// Time passes until the job runs, and the attempt ends like this.
    Run(End),
    /// Time passes, in minutes.
    Wait(u32),
    Does(Event),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Issued { days: u32, chance: f64 },
    Failed(Lane, Option<u32>, f64),
    Deferred(u32),
}

fn ends() -> impl Strategy<Value = End> {
    let lane = prop::sample::select(vec![
        Lane::Domain,
        Lane::Authority,
        Lane::Limited,
        Lane::Paused,
    ]);
    let days = prop::sample::select(vec![6u32, 45, 64, 90, 398]);
    prop_oneof![
        2 => (days, 0.0..1.0f64).prop_map(|(days, chance)| End::Issued { days, chance }),
        4 => (lane, prop::option::of(0..2_000_000u32), 0.0..1.0f64)
            .prop_map(|(lane, after, random)| End::Failed(lane, after, random)),
        1 => (0..7200u32).prop_map(End::Deferred),
    ]
}

fn worlds() -> impl Strategy<Value = World> {
    let events = prop::sample::select(vec![
        Event::Due,
        Event::Wanted,
        Event::Left,
        Event::Returned,
        Event::Stopped,
        Event::Resumed,
        Event::WasRevoked,
        Event::Told(None, Timestamp::EPOCH),
        Event::Told(Some(Timestamp::EPOCH), Timestamp::EPOCH),
        Event::Told(Some(Timestamp::MAX), Timestamp::MAX),
    ]);
    prop_oneof![
        8 => ends().prop_map(World::Run),
        1 => (0..30_000u32).prop_map(World::Wait),
        1 => events.prop_map(World::Does),
    ]
}

/// A life in progress, and what must hold of it.
struct Watched {
    state: State,
    now: Timestamp,
    /// When attempts began since the last success.
    attempts: Vec<Timestamp>,
    not_before: Timestamp,
}

impl Watched {
    fn apply(&mut self, event: Event) {
        let settings = Settings::default();
        let before = self.state;
        let (after, effects) = step(before, event, &settings, self.now);
        // An active certificate is never dropped for a failure.
        if let (Event::Failed(_) | Event::Deferred(_), Some(life)) = (event, before.life())
            && !life.is_over(self.now)
        {
            assert_eq!(after.life(), Some(life), "{before:?} {event:?}");
        }
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Order(_)))
        {
            assert!(self.not_before <= self.now, "sooner than its back-off");
            self.attempts.push(self.now);
        }
        // Whoever takes a domain up again wants it to be tried at once.
        if matches!(event, Event::Returned | Event::Resumed) && after != before {
            self.not_before = Timestamp::EPOCH;
        }
        if effects.contains(&Effect::Serve) {
            self.attempts.clear();
            self.not_before = Timestamp::EPOCH;
        }
        // Every state has a next step that leads somewhere, or a named owner.
        let told = effects
            .iter()
            .any(|effect| matches!(effect, Effect::RunAt(_)));
        match after.next(&settings) {
            Next::At(at) => {
                let runs = told || effects.contains(&Effect::Inquire) || after == before;
                assert!(
                    runs || matches!(event, Event::Told(..) | Event::WasRevoked),
                    "{before:?} {event:?}"
                );
                assert!(at < Timestamp::MAX, "{after:?} never runs");
            }
            Next::By(_) => {}
        }
        if let State::BackingOff { until, tries, .. } = after {
            if matches!(event, Event::Failed(_)) {
                assert!(until > self.now && until <= self.now.plus(DAY + DAY / 10));
                self.not_before = until;
            }
            assert!(tries.failures <= 100_000);
        }
        self.state = after;
    }

    fn run(&mut self, end: End) {
        match self.state.next(&Settings::default()) {
            Next::At(at) => self.now = self.now.max(at),
            Next::By(Owner::Visitor | Owner::Attempt) => {}
            Next::By(_) => {
                self.now = self.now.plus(HOUR);
                return;
            }
        }
        self.apply(Event::Due);
        if !matches!(self.state, State::Ordering { .. } | State::Renewing { .. }) {
            // It was asked about, not ordered: an answer that says nothing.
            self.apply(Event::Told(None, self.now.plus(HOUR * 6)));
            return;
        }
        let event = match end {
            End::Issued { days, chance } => Event::Issued(Life {
                not_before: self.now,
                not_after: self.now.plus(DAY * days),
                chance,
                began: Some(self.now).filter(|_| chance < 0.5),
                ask_at: self.now.plus(HOUR * 6),
                ..life(1)
            }),
            End::Failed(lane, after, random) => Event::Failed(Setback {
                lane,
                retry_after: after.map(|seconds| Duration::from_secs(seconds.into())),
                random,
            }),
            End::Deferred(seconds) => Event::Deferred(Duration::from_secs(seconds.into())),
        };
        self.now = self.now.plus(Duration::from_secs(1));
        self.apply(event);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_life_of_years_always_goes_on_and_never_rushes(
        world in prop::collection::vec(worlds(), 1..400),
    ) {
        let mut life = Watched {
            state: State::Requested,
            now: at(20_000),
            attempts: Vec::new(),
            not_before: Timestamp::EPOCH,
        };
        for event in world {
            match event {
                World::Run(end) => life.run(end),
                World::Wait(minutes) => life.now = life.now.plus(MINUTE * minutes),
                World::Does(event) => life.apply(event),
            }
        }
    }

    #[test]
    fn a_name_that_always_fails_is_tried_five_times_an_hour_at_most_and_once_a_day_in_the_end(
        days in prop::sample::select(vec![0u32, 6, 45, 90]),
        random in 0.0..1.0f64,
    ) {
        let start = at(20_000);
        let serving = Life {
            not_before: start,
            not_after: start.plus(DAY * days),
            ..life(1)
        };
        let state = match days {
            0 => State::Requested,
            _ => State::Active { serving },
        };
        let mut name = Watched { state, now: start, attempts: Vec::new(), not_before: Timestamp::EPOCH };
        while name.now < start.plus(DAY * 1000) {
            name.run(End::Failed(Lane::Domain, None, random));
        }
        for five in name.attempts.windows(6) {
            assert!(five[5].since(five[0]) >= HOUR, "{five:?}");
        }
        // Let's Encrypt forgives one failure a day, and pauses at 1,152.
        let forgiven = name.now.since(start).as_secs() / 86_400;
        assert!((name.attempts.len() as u64).saturating_sub(forgiven) < 150, "{}", name.attempts.len());
        let first_day = name.attempts.iter().filter(|at| at.since(name.attempts[0]) < DAY).count();
        // Sooner where little lifetime is left.
        assert!(first_day <= 4 || days == 6, "{first_day}");
    }
}
