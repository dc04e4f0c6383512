//! The whole life of a domain's certificate as one pure table: what an event makes of a state, and what is to be done.
//!
//! No authority, clock or disk is in it. [`issuance`](crate::certs::issuance) reads the state from the store, asks
//! [`step`], and does the effects; the next step of every state is known ([`State::next`]), or who must take it.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::certs::renewal::{Life, Settings, due_at};
use crate::certs::setback::{self, Setback, Tries};
use crate::model::domain::DomainState;
use crate::model::standing::Replace;

/// How often it is looked whether a domain whose DNS points elsewhere is back, where no visitor and nobody else asks.
pub const MOVED_LOOK: Duration = Duration::from_secs(86_400);

/// Where the life stands. Beside it the job's lease tells whether somebody works on it right now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// Nothing was obtained yet: the next visitor, or whoever registered it, asks.
    Requested,
    /// A certificate is being obtained; none serves.
    Ordering {
        /// What went wrong before.
        tries: Tries,
    },
    /// A certificate serves and is good.
    Active {
        /// It.
        serving: Life,
    },
    /// Another is being obtained; the old one serves.
    Renewing {
        /// The old one.
        serving: Life,
        /// What went wrong before.
        tries: Tries,
    },
    /// The last attempt gave none; what served goes on serving.
    BackingOff {
        /// What serves, if anything does.
        serving: Option<Life>,
        /// What went wrong.
        tries: Tries,
        /// When the next attempt comes.
        until: Timestamp,
    },
    /// What serves is revoked: another is due at once.
    Revoked {
        /// It serves until then, for better than nothing.
        serving: Life,
    },
    /// The domain's DNS points elsewhere: what is valid serves, nothing is obtained.
    Moved {
        /// What serves.
        serving: Option<Life>,
    },
    /// The domain is stopped: nothing serves, nothing is obtained.
    Suspended {
        /// What would serve.
        kept: Option<Life>,
    },
    /// The domain is gone.
    Retired,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The job runs: its time has come, or somebody has brought it forward.
    Due,
    /// A visitor, or whoever registers the domain, wants a certificate to be there. A back-off is heeded.
    Wanted,
    /// Somebody wants a new certificate now, for this reason; or DNS has come right, which is [`Replace::Asked`] where
    /// nothing serves. A back-off is forgotten, what went wrong is not.
    Asked(Replace),
    /// A checked certificate is there.
    Issued(Life),
    /// The attempt failed.
    Failed(Setback),
    /// The attempt was put off through no fault of domain or authority.
    Deferred(Duration),
    /// The authority was asked about the renewal of what serves: a point to renew at, and when to ask again.
    Told(Option<Timestamp>, Timestamp),
    /// The domain's DNS points elsewhere.
    Left,
    /// The domain's DNS leads here again.
    Returned,
    /// The domain is stopped.
    Stopped,
    /// The domain is served again.
    Resumed,
    /// What serves was revoked.
    WasRevoked,
    /// The domain is removed.
    Removed,
}

/// Why a certificate is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is none.
    First,
    /// The one there is nears its end.
    Renewal,
    /// The one there was has ended.
    Expired,
    /// The one there is must be replaced before its time.
    Replacement(Replace),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// Obtain a certificate, or take up the order that is there.
    Order(Why),
    /// Ask the authority about the renewal of what serves.
    Inquire,
    /// Run the job again at this time.
    RunAt(Timestamp),
    /// Serve the new certificate: whatever served before is superseded by it.
    Serve,
    /// Count a failure of the domain's own.
    Count,
    /// Forget what went wrong.
    Forget,
    /// Tell the tenant this state.
    Name(DomainState),
    /// There is nothing more to do: drop the job.
    Drop,
}

/// The next step of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The job runs at this time.
    At(Timestamp),
    /// Somebody takes it.
    By(Owner),
}

/// Who takes the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The next visitor, or whoever registers the domain.
    Visitor,
    /// The attempt in progress, or who takes it up when its lease ends.
    Attempt,
    /// Who owns the domain's DNS.
    Customer,
    /// Who stopped it.
    Operator,
    /// Nobody: it is over.
    Nobody,
}

impl State {
    /// What is known of a certificate that serves, or would.
    #[must_use]
    pub const fn life(&self) -> Option<Life> {
        match *self {
            Self::Active { serving }
            | Self::Renewing { serving, .. }
            | Self::Revoked { serving } => Some(serving),
            Self::BackingOff { serving, .. } | Self::Moved { serving } => serving,
            Self::Suspended { kept } => kept,
            Self::Requested | Self::Ordering { .. } | Self::Retired => None,
        }
    }

    /// What the tenant reads.
    #[must_use]
    pub fn name(&self) -> DomainState {
        match self {
            Self::Requested => DomainState::PendingDns,
            Self::Ordering { .. } => DomainState::Issuing,
            Self::Active { .. } => DomainState::Active,
            Self::Renewing { .. } | Self::Revoked { .. } => DomainState::Renewing,
            Self::BackingOff { serving: None, .. } => DomainState::Issuing,
            // Put off without a failure.
            Self::BackingOff { tries, .. } if *tries == Tries::default() => DomainState::Active,
            Self::BackingOff { .. } => DomainState::Degraded,
            Self::Moved { .. } => DomainState::Moved,
            Self::Suspended { .. } => DomainState::Suspended,
            Self::Retired => DomainState::Tombstoned,
        }
    }

    /// The next step, or who takes it.
    #[must_use]
    pub fn next(&self, settings: &Settings) -> Next {
        match self {
            Self::Requested => Next::By(Owner::Visitor),
            Self::Ordering { .. } | Self::Renewing { .. } => Next::By(Owner::Attempt),
            Self::Active { serving } => Next::At(run_at(serving, settings)),
            Self::BackingOff { until, .. } => Next::At(*until),
            Self::Revoked { .. } => Next::At(Timestamp::EPOCH),
            Self::Moved { .. } => Next::By(Owner::Customer),
            Self::Suspended { .. } => Next::By(Owner::Operator),
            Self::Retired => Next::By(Owner::Nobody),
        }
    }

    /// What has gone wrong since the last success.
    #[must_use]
    pub const fn tries(&self) -> Tries {
        match *self {
            Self::Ordering { tries }
            | Self::Renewing { tries, .. }
            | Self::BackingOff { tries, .. } => tries,
            Self::Requested
            | Self::Active { .. }
            | Self::Revoked { .. }
            | Self::Moved { .. }
            | Self::Suspended { .. }
            | Self::Retired => Tries {
                failures: 0,
                trouble_since: None,
            },
        }
    }
}

/// What `event` makes of `state`, and what is to be done.
#[must_use]
pub fn step(
    state: State,
    event: Event,
    settings: &Settings,
    now: Timestamp,
) -> (State, Vec<Effect>) {
    if state == State::Retired {
        return (state, Vec::new());
    }
    let (after, mut effects) = match event {
        Event::Due => due(state, settings, now),
        Event::Wanted => wanted(state, now),
        Event::Asked(why) => asked(state, why, now),
        Event::Issued(life) => issued(state, life, settings),
        Event::Failed(setback) => failed(state, &setback, settings, now),
        Event::Deferred(wait) => deferred(state, wait, now),
        Event::Told(point, ask_at) => told(state, point, ask_at, settings),
        Event::Left if matches!(state, State::Suspended { .. }) => (state, Vec::new()),
        Event::Left => {
            let serving = state.life();
            let look = Effect::RunAt(now.plus(MOVED_LOOK));
            (State::Moved { serving }, vec![look])
        }
        Event::Stopped => (State::Suspended { kept: state.life() }, Vec::new()),
        Event::Returned if matches!(state, State::Moved { .. }) => {
            settle(state.life(), settings, now)
        }
        Event::Resumed if matches!(state, State::Suspended { .. }) => {
            settle(state.life(), settings, now)
        }
        Event::Returned | Event::Resumed => (state, Vec::new()),
        Event::WasRevoked => revoked(state, now),
        Event::Removed => (State::Retired, vec![Effect::Drop]),
    };
    if after.name() != state.name() {
        effects.push(Effect::Name(after.name()));
    }
    (after, effects)
}

/// When the job of what serves runs next.
fn run_at(life: &Life, settings: &Settings) -> Timestamp {
    match life.replace {
        Some(_) => Timestamp::EPOCH,
        None => due_at(life, settings).min(life.ask_at),
    }
}

/// Why another is wanted in the place of what serves, where one is.
fn why(life: &Life, settings: &Settings, now: Timestamp) -> Option<Why> {
    if life.is_over(now) {
        return Some(Why::Expired);
    }
    if let Some(replace) = life.replace {
        return Some(Why::Replacement(replace));
    }
    if now < due_at(life, settings) {
        return None;
    }
    Some(match life.is_cut_short(settings) {
        true => Why::Replacement(Replace::Told),
        false => Why::Renewal,
    })
}

fn due(state: State, settings: &Settings, now: Timestamp) -> (State, Vec<Effect>) {
    match state {
        State::BackingOff { until, .. } if now < until => (state, vec![Effect::RunAt(until)]),
        State::Moved { .. } => (state, vec![Effect::RunAt(now.plus(MOVED_LOOK))]),
        State::Suspended { .. } | State::Retired => (state, Vec::new()),
        State::Revoked { serving } => begin(
            Some(serving),
            Tries::default(),
            Why::Replacement(Replace::Revoked),
        ),
        State::Requested
        | State::Ordering { .. }
        | State::Active { .. }
        | State::Renewing { .. }
        | State::BackingOff { .. } => {
            let (life, tries) = (state.life(), state.tries());
            let Some(serving) = life else {
                return begin(None, tries, Why::First);
            };
            match why(&serving, settings, now) {
                Some(why) => begin(Some(serving), tries, why),
                // Nothing is wanted (any more), whatever failed before.
                None if serving.ask_at <= now => (State::Active { serving }, vec![Effect::Inquire]),
                None => settle(Some(serving), settings, now),
            }
        }
    }
}

fn begin(serving: Option<Life>, tries: Tries, why: Why) -> (State, Vec<Effect>) {
    let state = match serving.filter(|_| why != Why::Expired) {
        Some(serving) => State::Renewing { serving, tries },
        None => State::Ordering { tries },
    };
    (state, vec![Effect::Order(why)])
}

/// What a domain comes to rest as, with this certificate.
fn settle(life: Option<Life>, settings: &Settings, now: Timestamp) -> (State, Vec<Effect>) {
    match life {
        Some(serving) => {
            let at = run_at(&serving, settings);
            (
                State::Active { serving },
                vec![Effect::Forget, Effect::RunAt(at)],
            )
        }
        None => (State::Requested, vec![Effect::RunAt(now)]),
    }
}

fn wanted(state: State, now: Timestamp) -> (State, Vec<Effect>) {
    let effects = match state {
        State::Requested => vec![Effect::RunAt(now)],
        State::BackingOff { until, .. } => vec![Effect::RunAt(until)],
        State::Ordering { .. }
        | State::Active { .. }
        | State::Renewing { .. }
        | State::Revoked { .. }
        | State::Moved { .. }
        | State::Suspended { .. }
        | State::Retired => Vec::new(),
    };
    (state, effects)
}

/// The same state, with more known of what serves. A certificate that does not serve is not learnt of, and one that is
/// revoked is to be replaced whatever else is known.
fn knowing(state: State, learn: impl FnOnce(Life) -> Life) -> State {
    match state {
        State::Active { serving } => State::Active {
            serving: learn(serving),
        },
        State::Renewing { serving, tries } => State::Renewing {
            serving: learn(serving),
            tries,
        },
        State::BackingOff {
            serving,
            tries,
            until,
        } => State::BackingOff {
            serving: serving.map(learn),
            tries,
            until,
        },
        State::Requested
        | State::Ordering { .. }
        | State::Revoked { .. }
        | State::Moved { .. }
        | State::Suspended { .. }
        | State::Retired => state,
    }
}

fn asked(state: State, why: Replace, now: Timestamp) -> (State, Vec<Effect>) {
    let replace = |life: Life| Life {
        replace: Some(life.replace.unwrap_or(why)),
        ..life
    };
    let at_once = vec![Effect::RunAt(now)];
    match state {
        State::Active { .. } => (knowing(state, replace), at_once),
        State::BackingOff { serving, tries, .. } => {
            let retried = State::BackingOff {
                serving,
                tries,
                until: now,
            };
            (knowing(retried, replace), at_once)
        }
        State::Requested | State::Revoked { .. } => (state, at_once),
        // It is being done, or must not be.
        State::Ordering { .. }
        | State::Renewing { .. }
        | State::Moved { .. }
        | State::Suspended { .. }
        | State::Retired => (state, Vec::new()),
    }
}

fn issued(state: State, life: Life, settings: &Settings) -> (State, Vec<Effect>) {
    let run_at = Effect::RunAt(run_at(&life, settings));
    let after = match state {
        State::Moved { .. } => State::Moved {
            serving: Some(life),
        },
        State::Suspended { .. } => State::Suspended { kept: Some(life) },
        State::Requested
        | State::Ordering { .. }
        | State::Active { .. }
        | State::Renewing { .. }
        | State::BackingOff { .. }
        | State::Revoked { .. }
        | State::Retired => State::Active { serving: life },
    };
    (after, vec![Effect::Serve, Effect::Forget, run_at])
}

fn failed(
    state: State,
    setback: &Setback,
    settings: &Settings,
    now: Timestamp,
) -> (State, Vec<Effect>) {
    match state {
        State::Suspended { .. } | State::Moved { .. } | State::Retired => (state, Vec::new()),
        State::Requested
        | State::Ordering { .. }
        | State::Active { .. }
        | State::Renewing { .. }
        | State::BackingOff { .. }
        | State::Revoked { .. } => {
            let serving = state.life().filter(|life| !life.is_over(now));
            let tries = state.tries().after(setback, now);
            let ends = serving.map(|life| life.not_after);
            let until = now.plus(setback::wait(&tries, setback, ends, settings, now));
            let mut effects = vec![Effect::RunAt(until)];
            if setback.lane.counts() {
                effects.push(Effect::Count);
            }
            let after = State::BackingOff {
                serving,
                tries,
                until,
            };
            (after, effects)
        }
    }
}

fn deferred(state: State, wait: Duration, now: Timestamp) -> (State, Vec<Effect>) {
    let until = now.plus(wait);
    let after = match state {
        State::Ordering { .. } | State::Renewing { .. } | State::BackingOff { .. } => {
            State::BackingOff {
                serving: state.life(),
                tries: state.tries(),
                until,
            }
        }
        State::Requested
        | State::Active { .. }
        | State::Revoked { .. }
        | State::Moved { .. }
        | State::Suspended { .. }
        | State::Retired => state,
    };
    (after, vec![Effect::RunAt(until)])
}

fn told(
    state: State,
    told: Option<Timestamp>,
    ask_at: Timestamp,
    settings: &Settings,
) -> (State, Vec<Effect>) {
    let after = knowing(state, |life| Life {
        told,
        ask_at,
        ..life
    });
    let effects = match &after {
        State::Active { serving } => vec![Effect::RunAt(run_at(serving, settings))],
        State::Requested
        | State::Ordering { .. }
        | State::Renewing { .. }
        | State::BackingOff { .. }
        | State::Revoked { .. }
        | State::Moved { .. }
        | State::Suspended { .. }
        | State::Retired => Vec::new(),
    };
    (after, effects)
}

fn revoked(state: State, now: Timestamp) -> (State, Vec<Effect>) {
    match state {
        State::Active { serving } => (State::Revoked { serving }, vec![Effect::RunAt(now)]),
        State::BackingOff { .. } => {
            let after = knowing(state, |life| Life {
                replace: Some(Replace::Revoked),
                ..life
            });
            (after, Vec::new())
        }
        // Another is on its way, or nothing is to be.
        State::Requested
        | State::Ordering { .. }
        | State::Renewing { .. }
        | State::Revoked { .. }
        | State::Moved { .. }
        | State::Suspended { .. }
        | State::Retired => (state, Vec::new()),
    }
}

#[cfg(test)]
mod tests;
