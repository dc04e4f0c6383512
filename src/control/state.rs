//! The one state of a domain that people read, from the rows that know a part of it each; and those of certificates and
//! jobs. Pure.

use crate::base::clock::Timestamp;
use crate::model::certificate::CertificateFacts;
use crate::model::domain::DomainState;
use crate::model::problem::ProblemCode;
use crate::model::standing::{CertificateStanding, Purpose};
use crate::store::job::JobRecord;
use crate::store::record::DomainRecord;

/// Whether visitors get HTTPS, coarsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStatus {
    /// Not yet.
    Pending,
    /// A valid certificate serves.
    Issued,
    /// No valid certificate, and the last attempt to get one failed.
    Failed,
}

impl TlsStatus {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Issued => "issued",
            Self::Failed => "failed",
        }
    }
}

/// The state of a domain now, from its row, the certificate it points to and its job.
#[must_use]
pub fn derive(
    domain: &DomainRecord,
    certificate: Option<&CertificateFacts>,
    job: Option<&JobRecord>,
    now: Timestamp,
) -> (DomainState, TlsStatus) {
    let valid = certificate.is_some_and(|facts| facts.not_before <= now && now < facts.not_after);
    let problem = problem(domain, job);
    let tls = match problem {
        _ if valid => TlsStatus::Issued,
        // That we could not find out is no failure.
        Some(ProblemCode::CheckFailed) | None => TlsStatus::Pending,
        Some(_) => TlsStatus::Failed,
    };
    (state(domain, certificate, job, now), tls)
}

/// What is wrong: with the domain, or with the last run of its job.
#[must_use]
pub fn problem(domain: &DomainRecord, job: Option<&JobRecord>) -> Option<ProblemCode> {
    let of_job = || job.and_then(|job| job.problem.as_ref());
    domain
        .problem
        .as_ref()
        .or_else(of_job)
        .map(|problem| problem.code)
}

fn state(
    domain: &DomainRecord,
    certificate: Option<&CertificateFacts>,
    job: Option<&JobRecord>,
    now: Timestamp,
) -> DomainState {
    match domain.state {
        // Somebody's decision, or a finding about the world: no certificate or job changes it.
        DomainState::Suspended
        | DomainState::Deleting
        | DomainState::Tombstoned
        | DomainState::Moved => return domain.state,
        DomainState::PendingDns
        | DomainState::Verifying
        | DomainState::Issuing
        | DomainState::Active
        | DomainState::Renewing
        | DomainState::Degraded => {}
    }
    let running = job.is_some_and(|job| job.leased_until.is_some_and(|until| now < until));
    let failing = problem(domain, job).is_some() || job.is_some_and(|job| job.failures > 0);
    match certificate {
        Some(_) if running => DomainState::Renewing,
        Some(facts) if failing || facts.not_after <= now => DomainState::Degraded,
        Some(_) => DomainState::Active,
        None if running || failing => DomainState::Issuing,
        None => domain.state,
    }
}

/// Where a certificate stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateStatus {
    /// Its time has not begun.
    NotYetValid,
    /// Valid.
    Valid,
    /// Over.
    Expired,
    /// Its revocation was asked for, and is not done yet.
    Revoking,
    /// Revoked.
    Revoked,
    /// Nobody here can revoke it, and all else is done: it never serves again, its key is destroyed. Its issuer is to be
    /// told.
    EndedHere,
    /// Its private key was destroyed: it never serves again, though its time is not over.
    KeyDestroyed,
}

impl CertificateStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::NotYetValid,
        Self::Valid,
        Self::Expired,
        Self::Revoking,
        Self::Revoked,
        Self::EndedHere,
        Self::KeyDestroyed,
    ];

    /// Where a stored certificate stands at `now`.
    #[must_use]
    pub fn of(facts: &CertificateFacts, standing: &CertificateStanding, now: Timestamp) -> Self {
        match &standing.revocation {
            Some(revocation) if revocation.revoked_at.is_some() => Self::Revoked,
            Some(revocation) if now < facts.not_after && revocation.left_to.is_some() => {
                // A client's key was never here.
                match standing.key_destroyed_at.is_some() || standing.purpose == Purpose::Client {
                    true => Self::EndedHere,
                    false => Self::Revoking,
                }
            }
            Some(_) if now < facts.not_after => Self::Revoking,
            Some(_) => Self::Expired,
            None if standing.key_destroyed_at.is_some() && now < facts.not_after => {
                Self::KeyDestroyed
            }
            None => Self::at(facts, now),
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotYetValid => "not_yet_valid",
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoking => "revoking",
            Self::Revoked => "revoked",
            Self::EndedHere => "ended_here",
            Self::KeyDestroyed => "key_destroyed",
        }
    }

    /// Where `facts` stand at `now`.
    #[must_use]
    pub fn at(facts: &CertificateFacts, now: Timestamp) -> Self {
        if now < facts.not_before {
            Self::NotYetValid
        } else if now < facts.not_after {
            Self::Valid
        } else {
            Self::Expired
        }
    }
}

/// What a certificate is used for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateUse {
    /// A domain that is served points to it.
    Serves,
    /// Another took its place.
    Superseded,
    /// Nothing points to it.
    Unused,
    /// A client shows it; where, nobody here knows.
    Client,
}

impl CertificateUse {
    /// Every use.
    pub const ALL: [Self; 4] = [Self::Serves, Self::Superseded, Self::Unused, Self::Client];

    /// The use of a certificate to which these domains point.
    #[must_use]
    pub fn of(standing: &CertificateStanding, domains: &[DomainRecord]) -> Self {
        let is_served = |domain: &DomainRecord| domain.state.is_served();
        match standing.purpose {
            Purpose::Client => Self::Client,
            Purpose::Server
                if standing.key_destroyed_at.is_none() && domains.iter().any(is_served) =>
            {
                Self::Serves
            }
            Purpose::Server if standing.superseded_by.is_some() => Self::Superseded,
            Purpose::Server => Self::Unused,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Superseded => "superseded",
            Self::Unused => "unused",
            Self::Client => "client",
        }
    }
}

/// What a job does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// A node works on it.
    Running,
    /// It is due.
    Due,
    /// Its time has not come.
    Waiting,
    /// It failed, and its next attempt has not come.
    BackingOff,
}

impl JobStatus {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Due => "due",
            Self::Waiting => "waiting",
            Self::BackingOff => "backing_off",
        }
    }

    /// What `job` does at `now`.
    #[must_use]
    pub fn of(job: &JobRecord, now: Timestamp) -> Self {
        match job.leased_until {
            Some(until) if now < until => Self::Running,
            Some(_) | None if job.run_at <= now => Self::Due,
            Some(_) | None if job.failures > 0 || job.problem.is_some() => Self::BackingOff,
            Some(_) | None => Self::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::certificate::{CaId, CertificateId};
    use crate::model::domain::Source;
    use crate::model::problem::Problem;
    use crate::model::revocation::{LeftTo, Revocation, RevocationOrder, RevocationReason};
    use crate::model::standing::DomainMemory;
    use crate::model::{NamePattern, TenantId};
    use crate::store::job::Priority;

    const NOW: Timestamp = Timestamp::from_seconds(1000);

    fn problem(code: ProblemCode) -> Problem {
        Problem {
            code,
            actor: code.actor(),
            detail: String::new(),
            evidence: Vec::new(),
            fix: None,
            first_seen: NOW,
            last_seen: NOW,
            next_retry_at: None,
        }
    }

    fn domain(state: DomainState, code: Option<ProblemCode>) -> DomainRecord {
        DomainRecord {
            pattern: NamePattern::parse("a.test").unwrap(),
            tenant: TenantId::parse("t").unwrap(),
            source: Source::File,
            state,
            upstream: None,
            certificate: None,
            problem: code.map(problem),
            memory: DomainMemory::default(),
            version: 1,
            created_at: NOW,
        }
    }

    fn certificate(not_after: i64) -> CertificateFacts {
        CertificateFacts {
            id: CertificateId::new(),
            tenant: TenantId::parse("t").unwrap(),
            names: vec![NamePattern::parse("a.test").unwrap()],
            ca: CaId::new("ca"),
            serial: "1".to_owned(),
            not_before: Timestamp::EPOCH,
            not_after: Timestamp::from_seconds(not_after),
        }
    }

    fn job(leased_until: Option<i64>, failures: u32, code: Option<ProblemCode>) -> JobRecord {
        JobRecord {
            key: "certificate:a.test".to_owned(),
            tenant: None,
            priority: Priority::Renewal,
            run_at: NOW,
            leased_until: leased_until.map(Timestamp::from_seconds),
            failures,
            problem: code.map(problem),
            order_url: None,
        }
    }

    #[test]
    fn one_state_for_every_combination_of_rows() {
        use DomainState as S;
        use ProblemCode as P;
        use TlsStatus as T;
        let (valid, expired) = (Some(certificate(2000)), Some(certificate(900)));
        let table = [
            // row, certificate, job → state, tls
            (S::PendingDns, None, None, None, (S::PendingDns, T::Pending)),
            (
                S::PendingDns,
                None,
                None,
                Some(job(Some(1500), 0, None)),
                (S::Issuing, T::Pending),
            ),
            // A lease that ended is nobody's work.
            (
                S::PendingDns,
                None,
                None,
                Some(job(Some(999), 0, None)),
                (S::PendingDns, T::Pending),
            ),
            (
                S::Issuing,
                None,
                None,
                Some(job(None, 2, Some(P::WrongA))),
                (S::Issuing, T::Failed),
            ),
            (
                S::Issuing,
                Some(P::CheckFailed),
                None,
                None,
                (S::Issuing, T::Pending),
            ),
            (
                S::Active,
                None,
                valid.clone(),
                Some(job(None, 0, None)),
                (S::Active, T::Issued),
            ),
            (
                S::Active,
                None,
                valid.clone(),
                Some(job(Some(1500), 0, None)),
                (S::Renewing, T::Issued),
            ),
            (
                S::Active,
                None,
                valid.clone(),
                Some(job(None, 1, Some(P::CaOutage))),
                (S::Degraded, T::Issued),
            ),
            (
                S::Active,
                None,
                expired.clone(),
                Some(job(None, 9, Some(P::CaOutage))),
                (S::Degraded, T::Failed),
            ),
            (S::Active, None, expired, None, (S::Degraded, T::Pending)),
            (
                S::Suspended,
                None,
                valid.clone(),
                Some(job(Some(1500), 0, None)),
                (S::Suspended, T::Issued),
            ),
            (S::Moved, None, valid, None, (S::Moved, T::Issued)),
        ];
        for (index, (row, code, certificate, job, expected)) in table.into_iter().enumerate() {
            let row = domain(row, code);
            let found = derive(&row, certificate.as_ref(), job.as_ref(), NOW);
            assert_eq!(found, expected, "line {index}");
        }
    }

    #[test]
    fn a_certificate_whose_key_was_destroyed_is_not_called_valid() {
        let destroyed = CertificateStanding {
            key_destroyed_at: Some(Timestamp::from_seconds(20)),
            ..CertificateStanding::default()
        };
        let facts = certificate(100);
        let status = |now| CertificateStatus::of(&facts, &destroyed, Timestamp::from_seconds(now));
        assert_eq!(status(50), CertificateStatus::KeyDestroyed);
        assert_eq!(status(100), CertificateStatus::Expired);
    }
    #[test]
    fn what_is_left_to_its_issuer_is_ended_here_once_its_key_is_destroyed() {
        let at = Timestamp::from_seconds;
        let order = RevocationOrder::ReplacedFirst;
        let left = CertificateStanding {
            revocation: Some(Revocation {
                left_to: Some(LeftTo {
                    issuer: "CN=elsewhere".to_owned(),
                    at: at(10),
                }),
                ..Revocation::asked(RevocationReason::KeyCompromise, order, at(10))
            }),
            ..CertificateStanding::default()
        };
        let ended = CertificateStanding {
            key_destroyed_at: Some(at(20)),
            ..left.clone()
        };
        let facts = certificate(100);
        let status = |standing, now| CertificateStatus::of(&facts, standing, at(now));
        assert_eq!(status(&left, 50), CertificateStatus::Revoking);
        assert_eq!(status(&ended, 50), CertificateStatus::EndedHere);
        assert_eq!(status(&ended, 100), CertificateStatus::Expired);
    }
    #[test]
    fn a_certificate_serves_while_a_served_domain_points_to_it_and_its_key_is_there() {
        let (active, suspended) = (
            domain(DomainState::Active, None),
            domain(DomainState::Suspended, None),
        );
        let fresh = CertificateStanding::default();
        let superseded = CertificateStanding {
            superseded_by: Some(CertificateId::new()),
            ..CertificateStanding::default()
        };
        let destroyed = CertificateStanding {
            key_destroyed_at: Some(NOW),
            ..CertificateStanding::default()
        };
        let client = CertificateStanding {
            purpose: Purpose::Client,
            ..CertificateStanding::default()
        };
        use CertificateUse as U;
        for (standing, domains, expected) in [
            (&fresh, vec![suspended.clone(), active.clone()], U::Serves),
            (&fresh, vec![suspended], U::Unused),
            (&superseded, vec![], U::Superseded),
            (&destroyed, vec![active], U::Unused),
            (&client, vec![], U::Client),
        ] {
            assert_eq!(U::of(standing, &domains), expected);
        }
    }
}
