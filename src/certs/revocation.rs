//! From the wish that a certificate be revoked to its destroyed key.
//!
//! The wish is committed with the certificate's standing and a job of its own, `revoke:<certificate>`; whoever holds the
//! job takes one step after the other, each committed with its audit event before the next: after a kill at any point the
//! next holder goes on where this one was. A certificate that is to be replaced is replaced by the same
//! [`lifecycle`](crate::certs::lifecycle) that renews it, told by
//! [`Replace`](crate::model::standing::Replace). Four events tell of a compromised key, in this order:
//! `certificate.revocation_asked`, `certificate.issued` (the one that takes its place), `certificate.revoked`,
//! `certificate.key_destroyed`. Where nobody here can revoke it, `certificate.revocation_left` stands in the place of the
//! third: the rest is done all the same, and what is left is its issuer's.
//!
//! Reading order: this file (the pure table), [`work`] (the jobs), `steps` (the steps done), `telling` (who is told, and
//! how).

pub mod work;

mod steps;

mod telling;

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::model::domain::DomainState;
use crate::model::revocation::{Revocation, RevocationOrder};

/// How long after another certificate took its place a certificate is revoked: until then every process of every node
/// has heard of it.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long it is waited for this process to take its successor into memory; then it is revoked all the same.
pub const LONGEST_GRACE: Duration = Duration::from_secs(60);
/// Between two looks at a certificate that is to be replaced first, at least and at most.
const LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// The same where nobody works on a replacement.
const IDLE_LOOK: Duration = Duration::from_secs(3600);

/// What the certificate does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// A domain points to it for which certificates are obtained: it can be replaced.
    Domains,
    /// Only domains point to it for which none are: they are suspended, or their DNS points elsewhere.
    Idle,
    /// None does, but this process has it in memory still.
    Memory,
    /// Nothing any more.
    No,
    /// Nothing ever: it is a client's.
    Never,
}

impl Serves {
    /// From the domains that point to it; where none does, it is as `otherwise` says.
    #[must_use]
    pub fn of(mut domains: impl Iterator<Item = DomainState>, otherwise: Self) -> Self {
        let Some(first) = domains.next() else {
            return otherwise;
        };
        match obtains(first) || domains.any(obtains) {
            true => Self::Domains,
            false => Self::Idle,
        }
    }
}

/// Whether certificates are obtained for a domain in this state.
#[must_use]
pub const fn obtains(state: DomainState) -> bool {
    match state {
        DomainState::PendingDns
        | DomainState::Verifying
        | DomainState::Issuing
        | DomainState::Active
        | DomainState::Renewing
        | DomainState::Degraded => true,
        DomainState::Moved
        | DomainState::Suspended
        | DomainState::Deleting
        | DomainState::Tombstoned => false,
    }
}

/// What is left of the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// What it does.
    pub serves: Serves,
    /// When it ends: after that nobody takes it for valid, and no authority revokes it.
    pub not_after: Timestamp,
    /// Whether its private key is here.
    pub key: Key,
}

/// Whether a private key is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// It is.
    Kept,
    /// It was destroyed, or never was here.
    Gone,
}

/// The next step of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for a certificate in its place, and look again after so long.
    AwaitReplacement(Duration),
    /// Note that it serves nothing any more.
    NoteReplaced,
    /// Look again after so long.
    Wait(Duration),
    /// Note that an authority is told from now on.
    NoteTelling,
    /// Tell the authority.
    Revoke,
    /// Destroy its private key.
    DestroyKey,
    /// Nothing is left to do.
    Done,
}

/// The next step, from what is stored.
#[must_use]
pub fn next(revocation: &Revocation, left: Left, now: Timestamp) -> Step {
    if revocation.is_told() || left.not_after <= now {
        return match (left.serves, left.key) {
            // A key that serves is never destroyed.
            (Serves::Domains, _) => Step::AwaitReplacement(look(revocation, now)),
            (Serves::Memory | Serves::No, _) if revocation.replaced_at.is_none() => {
                Step::NoteReplaced
            }
            (_, Key::Gone) => Step::Done,
            (Serves::Idle, Key::Kept) => Step::Wait(IDLE_LOOK),
            (Serves::Memory | Serves::No | Serves::Never, Key::Kept) => Step::DestroyKey,
        };
    }
    let is_revoked = revocation.revoked_at.is_some();
    if is_revoked || revocation.order == RevocationOrder::RevokedFirst {
        return tell(revocation);
    }
    let grace = match left.serves {
        Serves::Domains => return Step::AwaitReplacement(look(revocation, now)),
        // Nobody will replace it.
        Serves::Idle | Serves::Never => return tell(revocation),
        Serves::Memory => LONGEST_GRACE,
        Serves::No => GRACE,
    };
    match revocation.replaced_at {
        None => Step::NoteReplaced,
        // A clock that jumped delays it by no more than the grace.
        Some(at) => match at.plus(grace).since(now).min(grace) {
            Duration::ZERO => tell(revocation),
            left => Step::Wait(left.min(LOOK)),
        },
    }
}

/// Noted first: from then on it is not taken back, for nobody knows how far a call that was broken off has come.
const fn tell(revocation: &Revocation) -> Step {
    match revocation.told_at {
        None => Step::NoteTelling,
        Some(_) => Step::Revoke,
    }
}

/// Soon at first, then more seldom: the authority may be away for days.
fn look(revocation: &Revocation, now: Timestamp) -> Duration {
    (now.since(revocation.asked_at) / 10).clamp(LOOK, LONGEST_LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::revocation::{LeftTo, RevocationReason};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn asked(order: RevocationOrder) -> Revocation {
        Revocation::asked(RevocationReason::KeyCompromise, order, NOW)
    }

    fn left(serves: Serves) -> Left {
        Left {
            serves,
            not_after: NOW.plus(Duration::from_hours(24)),
            key: Key::Kept,
        }
    }

    const LOOK_AGAIN: Step = Step::AwaitReplacement(LOOK);

    #[test]
    fn what_serves_is_replaced_then_revoked_then_its_key_destroyed() {
        let mut revocation = asked(RevocationOrder::ReplacedFirst);
        let step = |revocation: &Revocation, serves| next(revocation, left(serves), NOW);
        assert_eq!(step(&revocation, Serves::Domains), LOOK_AGAIN);
        assert_eq!(step(&revocation, Serves::Memory), Step::NoteReplaced);
        assert_eq!(step(&revocation, Serves::No), Step::NoteReplaced);
        revocation.replaced_at = Some(NOW);
        assert_eq!(step(&revocation, Serves::No), Step::Wait(LOOK));
        let after = |serves, wait| next(&revocation, left(serves), NOW.plus(wait));
        assert_eq!(after(Serves::No, GRACE), Step::NoteTelling);
        assert_eq!(after(Serves::Memory, GRACE), Step::Wait(LOOK));
        assert_eq!(after(Serves::Memory, LONGEST_GRACE), Step::NoteTelling);
        revocation.told_at = Some(NOW);
        let later = next(&revocation, left(Serves::No), NOW.plus(GRACE));
        assert_eq!(later, Step::Revoke);
        revocation.revoked_at = Some(NOW);
        assert_eq!(step(&revocation, Serves::No), Step::DestroyKey);
        let gone = Left {
            key: Key::Gone,
            ..left(Serves::No)
        };
        assert_eq!(next(&revocation, gone, NOW), Step::Done);
    }

    #[test]
    fn at_once_means_before_it_is_replaced_but_a_key_that_serves_is_never_destroyed() {
        let mut revocation = asked(RevocationOrder::RevokedFirst);
        let step = |revocation: &Revocation, serves| next(revocation, left(serves), NOW);
        assert_eq!(step(&revocation, Serves::Domains), Step::NoteTelling);
        revocation.told_at = Some(NOW);
        assert_eq!(step(&revocation, Serves::Domains), Step::Revoke);
        revocation.revoked_at = Some(NOW);
        assert_eq!(step(&revocation, Serves::Domains), LOOK_AGAIN);
        assert_eq!(step(&revocation, Serves::Idle), Step::Wait(IDLE_LOOK));
        // That it serves no more is told whichever came first.
        assert_eq!(step(&revocation, Serves::No), Step::NoteReplaced);
        revocation.replaced_at = Some(NOW);
        assert_eq!(step(&revocation, Serves::No), Step::DestroyKey);
    }

    #[test]
    fn what_its_issuer_alone_can_revoke_ends_here_all_the_same() {
        let mut revocation = asked(RevocationOrder::RevokedFirst);
        revocation.left_to = Some(LeftTo {
            issuer: "CN=elsewhere".to_owned(),
            at: NOW,
        });
        let step = |revocation: &Revocation, serves| next(revocation, left(serves), NOW);
        assert_eq!(step(&revocation, Serves::Domains), LOOK_AGAIN);
        assert_eq!(step(&revocation, Serves::No), Step::NoteReplaced);
        revocation.replaced_at = Some(NOW);
        assert_eq!(step(&revocation, Serves::No), Step::DestroyKey);
    }

    #[test]
    fn a_reason_that_was_raised_is_told_before_the_key_that_proves_it_is_destroyed() {
        let mut revocation = asked(RevocationOrder::ReplacedFirst);
        let at = Some(NOW);
        (revocation.replaced_at, revocation.told_at) = (at, at);
        revocation.revoked_at = at;
        revocation.taken_for = Some(RevocationReason::Superseded);
        for serves in [Serves::Domains, Serves::Idle, Serves::Memory, Serves::No] {
            assert_eq!(next(&revocation, left(serves), NOW), Step::Revoke);
        }
        revocation.taken_for = Some(RevocationReason::KeyCompromise);
        assert_eq!(next(&revocation, left(Serves::No), NOW), Step::DestroyKey);
    }

    #[test]
    fn a_clients_certificate_is_revoked_at_once_for_there_is_nothing_to_replace() {
        let mut revocation = asked(RevocationOrder::ReplacedFirst);
        let client = Left {
            key: Key::Gone,
            ..left(Serves::Never)
        };
        assert_eq!(next(&revocation, client, NOW), Step::NoteTelling);
        revocation.told_at = Some(NOW);
        assert_eq!(next(&revocation, client, NOW), Step::Revoke);
        revocation.revoked_at = Some(NOW);
        assert_eq!(next(&revocation, client, NOW), Step::Done);
    }

    #[test]
    fn a_domain_for_which_nothing_is_obtained_holds_no_revocation_up() {
        let revocation = asked(RevocationOrder::ReplacedFirst);
        assert_eq!(
            next(&revocation, left(Serves::Idle), NOW),
            Step::NoteTelling
        );
        let of = |states: &[DomainState]| Serves::of(states.iter().copied(), Serves::Memory);
        assert_eq!(of(&[]), Serves::Memory);
        assert_eq!(of(&[DomainState::Suspended]), Serves::Idle);
        assert_eq!(
            of(&[DomainState::Moved, DomainState::Active]),
            Serves::Domains
        );
    }

    #[test]
    fn what_has_ended_is_not_revoked_any_more_but_its_key_is_destroyed() {
        let mut revocation = asked(RevocationOrder::ReplacedFirst);
        revocation.replaced_at = Some(NOW);
        let ended = left(Serves::No).not_after;
        assert_eq!(next(&revocation, left(Serves::No), ended), Step::DestroyKey);
    }

    #[test]
    fn a_clock_that_jumps_back_delays_it_by_no_more_than_the_grace() {
        let mut revocation = asked(RevocationOrder::ReplacedFirst);
        revocation.replaced_at = Some(NOW.plus(Duration::from_hours(1000)));
        assert_eq!(next(&revocation, left(Serves::No), NOW), Step::Wait(LOOK));
    }

    #[test]
    fn looks_grow_seldom_while_an_authority_is_away() {
        let revocation = asked(RevocationOrder::ReplacedFirst);
        let after = |minutes| {
            let now = NOW.plus(Duration::from_mins(minutes));
            next(&revocation, left(Serves::Domains), now)
        };
        let look = |seconds| Step::AwaitReplacement(Duration::from_secs(seconds));
        assert_eq!(
            [after(0), after(5), after(60)],
            [look(1), look(30), look(60)]
        );
    }
}
