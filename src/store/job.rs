//! Work that must happen once: jobs, claims on them, and the fences that keep a late holder from harm.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::model::certificate::{CaId, CertificateId};
use crate::model::problem::Problem;
use crate::model::{NamePattern, TenantId};

/// What a job is about; its key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobKey {
    /// Obtain, and later renew, the certificate of a domain: one row for its whole life.
    Certificate(NamePattern),
    /// Revoke a certificate; the row goes when that is done.
    Revocation(CertificateId),
    /// The program's own upkeep, by a fixed name; one holder over all nodes.
    Upkeep(Arc<str>),
}

impl JobKey {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Certificate(_) => JobKind::Certificate,
            Self::Revocation(_) => JobKind::Revocation,
            Self::Upkeep(_) => JobKind::Upkeep,
        }
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(pattern) => write!(f, "certificate:{pattern}"),
            Self::Revocation(certificate) => write!(f, "revoke:{certificate}"),
            Self::Upkeep(task) => write!(f, "upkeep:{task}"),
        }
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The kinds of job, claimed separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// See [`JobKey::Certificate`].
    Certificate,
    /// See [`JobKey::Revocation`].
    Revocation,
    /// See [`JobKey::Upkeep`].
    Upkeep,
}

/// How urgent a job is: lower values first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A visitor waits in a handshake.
    Handshake,
    /// A certificate has expired or is about to.
    Expiring,
    /// A renewal in good time.
    Renewal,
    /// A new name without a visitor.
    Background,
}

impl Priority {
    /// Every priority, most urgent first; the index is the value in rows.
    pub const ALL: [Self; 4] = [
        Self::Handshake,
        Self::Expiring,
        Self::Renewal,
        Self::Background,
    ];
}

/// An order placed with a CA, kept in the job's row before anything else happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedOrder {
    /// The CA it was placed with.
    pub ca: CaId,
    /// Its URL there.
    pub url: String,
    /// The private key made for it, sealed with the tenant's data key.
    pub sealed_key: Vec<u8>,
}

/// The sealed key of a saved order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// The job that saved it.
    pub job: JobKey,
    /// The private key made for it, sealed with the tenant's data key.
    pub sealed_key: Vec<u8>,
}

/// A fence: proof that a job was claimed by us and by nobody since. Equal counters with different nonces
/// happen after a fail-over that lost its tail; the nonce decides then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The job.
    pub key: JobKey,
    /// Grows with every claim of the job.
    pub counter: u64,
    /// Random for every claim.
    pub nonce: Uuid,
}

/// Which jobs to take, for whom, for how long.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Jobs of this kind.
    pub kind: JobKind,
    /// The node that takes them; shown to others.
    pub holder: Uuid,
    /// At most so many.
    pub most: usize,
    /// How long the lease is.
    pub lease: Duration,
    /// How freely jobs of each priority are taken. Default: freely.
    pub paces: Paces,
}

/// How freely jobs are claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As many as are wanted.
    #[default]
    Free,
    /// One at most.
    One,
    /// None: they stay due.
    None,
}

/// A pace for each priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paces([Pace; Priority::ALL.len()]);

impl Paces {
    /// The pace of a priority.
    #[must_use]
    pub fn of(&self, priority: Priority) -> Pace {
        let pace = self.0.get(priority as usize);
        pace.copied().unwrap_or_default()
    }

    /// Sets the pace of a priority.
    pub fn set(&mut self, priority: Priority, pace: Pace) {
        if let Some(own) = self.0.get_mut(priority as usize) {
            *own = pace;
        }
    }
}

/// Jobs taken, and when to ask again.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The jobs, most urgent first.
    pub jobs: Vec<ClaimedJob>,
    /// How long until the next job of the kind is due, where one waits: not before then need anyone ask. Those of
    /// priorities that were not taken freely do not count.
    pub next_due: Option<Duration>,
}

/// A job that is ours until its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedJob {
    /// The fence.
    pub claim: Claim,
    /// The tenant it works for; nothing for upkeep.
    pub tenant: Option<TenantId>,
    /// How urgent it is.
    pub priority: Priority,
    /// Failures in a row so far.
    pub failures: u32,
    /// The order that an earlier run left behind.
    pub order: Option<SavedOrder>,
    /// What went wrong the last time.
    pub problem: Option<Problem>,
}

/// Whether a lease is still ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is, lengthened.
    Ours,
    /// Somebody else has claimed the job since.
    Lost,
}

/// Jobs that are due and wait for somebody to claim them, by priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog([Waiting; Priority::ALL.len()]);

/// Due jobs of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many; beyond [`Backlog::MOST`] they are not counted.
    pub due: u64,
    /// How long the one has waited that has been due longest; zero where none is.
    pub oldest: Duration,
}

impl Backlog {
    /// Jobs of a priority that are counted, so that looking stays cheap however many wait.
    pub const MOST: u32 = 100_000;

    /// Those of a priority.
    #[must_use]
    pub fn of(&self, priority: Priority) -> Waiting {
        let waiting = self.0.get(priority as usize);
        waiting.copied().unwrap_or_default()
    }

    /// Sets those of a priority.
    pub fn set(&mut self, priority: Priority, waiting: Waiting) {
        if let Some(own) = self.0.get_mut(priority as usize) {
            *own = waiting;
        }
    }

    /// How many of all priorities.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.0.iter().map(|waiting| waiting.due).sum()
    }
}

/// How a requested job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStanding {
    /// It waits to be claimed, and is due after so long.
    Queued(Duration),
    /// A node works on it.
    Running,
    /// It failed, or must wait for a budget; its next attempt comes after so long.
    BackingOff(Duration, Option<Problem>),
}

/// A job as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Its key, as text: `certificate:shop.example.com`.
    pub key: String,
    /// The tenant it works for; nothing for upkeep.
    pub tenant: Option<TenantId>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it runs next.
    pub run_at: Timestamp,
    /// Until when it is leased, where a node works on it.
    pub leased_until: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// What went wrong the last time.
    pub problem: Option<Problem>,
    /// The URL of an order in progress.
    pub order_url: Option<String>,
}
