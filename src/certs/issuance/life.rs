//! From what the store holds to a state of the [`lifecycle`], and what a run does about it.

use super::attempt::{Attempt, Known};
use super::failure::{Cause, Failure};
use crate::base::clock::Timestamp;
use crate::certs::gauges::FRESH;
use crate::certs::lifecycle::{self, Effect, Event, State};
use crate::certs::policy::Denial;
use crate::certs::renewal::Life;
use crate::certs::request::Reason;
use crate::certs::setback::{Lane, Tries};
use crate::model::domain::DomainState;
use crate::model::standing::Replace;
use crate::store::job::ClaimedJob;
use crate::store::record::{CertificateRecord, DomainRecord};

/// What a run is for.
pub(super) enum Due {
    /// A certificate.
    Order(Reason),
    /// To ask the authority about the renewal of the one there is.
    Inquiry,
    /// Nothing before this time: the one there is is good.
    Nothing(Timestamp),
}

/// The state that the store's records tell, when a run of `job` begins: its back-off is over then, or forgotten.
pub(super) fn state(
    domain: Option<&DomainRecord>,
    certificate: Option<&CertificateRecord>,
    job: &ClaimedJob,
) -> State {
    let Some(domain) = domain else {
        return State::Retired;
    };
    let serving = certificate.map(Life::of);
    match domain.state {
        DomainState::Deleting | DomainState::Tombstoned => return State::Retired,
        DomainState::Suspended => return State::Suspended { kept: serving },
        DomainState::Moved => return State::Moved { serving },
        DomainState::PendingDns
        | DomainState::Verifying
        | DomainState::Issuing
        | DomainState::Active
        | DomainState::Renewing
        | DomainState::Degraded => {}
    }
    let troubled = |problem: &&crate::model::problem::Problem| !Lane::of(problem.code).counts();
    let tries = Tries {
        failures: job.failures,
        trouble_since: job
            .problem
            .as_ref()
            .filter(troubled)
            .map(|problem| problem.first_seen),
    };
    match serving {
        _ if tries != Tries::default() => State::BackingOff {
            serving,
            tries,
            until: Timestamp::EPOCH,
        },
        Some(serving) if serving.replace == Some(Replace::Revoked) => State::Revoked { serving },
        Some(serving) => State::Active { serving },
        None => State::Requested,
    }
}

impl Known {
    /// The state once the run has begun.
    pub(super) fn begun(&self, attempt: &Attempt<'_>, now: Timestamp) -> State {
        lifecycle::step(self.state, Event::Due, &attempt.settings.renewal, now).0
    }
}

impl Attempt<'_> {
    /// What is due, and why.
    pub(super) async fn due(&self, known: &Known) -> Result<Due, Failure> {
        if self.is_time_in_doubt(known.state) {
            self.parts.accounts.authorities().ask_the_time().await;
        }
        let now = self.parts.clock.now();
        let settings = &self.settings.renewal;
        let (state, effects) = lifecycle::step(known.state, Event::Due, settings, now);
        let facts = known.certificate.as_ref().map(|record| &record.facts);
        for effect in effects {
            match effect {
                Effect::Order(why) => return Ok(Due::Order(Reason::of(why, facts))),
                Effect::Inquire => return Ok(Due::Inquiry),
                Effect::RunAt(at) if matches!(state, State::Active { .. }) => {
                    return Ok(Due::Nothing(at));
                }
                Effect::RunAt(_)
                | Effect::Serve
                | Effect::Count
                | Effect::Forget
                | Effect::Name(_)
                | Effect::Drop => {}
            }
        }
        let denial = match &known.domain {
            Some(domain) => Denial::NotServed(domain.state),
            None => Denial::NotRegistered,
        };
        Err(Cause::Denied(denial).into())
    }
}

impl Attempt<'_> {
    /// Whether the machine's clock alone says that the certificate is due, or that it is not: should that clock have
    /// jumped, then by days, and with it every certificate would be due.
    fn is_time_in_doubt(&self, state: State) -> bool {
        let clock = &self.parts.clock;
        let is_due = |now| {
            let (_, effects) = lifecycle::step(state, Event::Due, &self.settings.renewal, now);
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Order(_)))
        };
        if state.life().is_none() {
            return false;
        }
        match clock.told() {
            None => is_due(clock.machine()),
            Some((_, age)) => age > FRESH && is_due(clock.machine()) != is_due(clock.now()),
        }
    }
}

/// When the job runs next, as the effects say.
pub(super) fn run_at(effects: &[Effect], now: Timestamp) -> Timestamp {
    let at = effects.iter().find_map(|effect| match effect {
        Effect::RunAt(at) => Some(*at),
        Effect::Order(_)
        | Effect::Inquire
        | Effect::Serve
        | Effect::Count
        | Effect::Forget
        | Effect::Name(_)
        | Effect::Drop => None,
    });
    at.unwrap_or(now)
}
