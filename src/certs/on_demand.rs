//! A handshake for a name without a credential in memory: load it, or obtain it, within one deadline.
//!
//! Two halves. The asking half, [`OnDemand`], lives on the workers: it refuses by itself, from memory, what it can
//! (an unknown name costs no message), sends the rest over a bounded queue and waits. The answering half,
//! [`answer`], lives on the control runtime: snapshot, permission, store, and only then issuance.

pub mod answer;

mod flight;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::base::clock::monotonic;
use crate::base::published::Published;
use crate::certs::credential::Credential;
use crate::certs::permission::Verdicts;
use crate::model::{DnsName, Snapshot};

/// Bounds of waiting handshakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a handshake may wait for a credential, everything included. Default 10 s.
    pub deadline: Duration,
    /// Handshakes that may wait for one name. Default 64.
    pub waiters_per_name: usize,
    /// Handshakes that may wait in all. Default 1000.
    pub waiters: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            waiters_per_name: 64,
            waiters: 1000,
        }
    }
}

/// What a worker asks for when the resolver has nothing.
#[derive(Debug)]
pub struct Wanted {
    /// The server name.
    pub name: DnsName,
    /// The visitor, for the permission hook and its limits.
    pub client: IpAddr,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Served, Refusal>>,
}

/// A credential, and how it came.
#[derive(Clone, Debug)]
pub struct Served {
    /// The credential.
    pub credential: Arc<Credential>,
    /// Where from.
    pub origin: Origin,
}

/// Where a credential came from; a label of the handshake metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The memory of this process.
    Memory,
    /// The store.
    Store,
    /// A CA, just now.
    Issued,
}

/// Why a handshake gets no credential; a label of the handshake metric. None of them is served by another's
/// certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nobody registered the name, and the hook, where there is one, does not allow it.
    UnknownName,
    /// The domain is suspended.
    Suspended,
    /// The permission hook could not be asked: it fails, or its rate is used up.
    PermissionUnavailable,
    /// The name failed before and waits for its next attempt.
    BackingOff,
    /// As many handshakes wait as allowed, for this name or in all.
    TooManyWaiters,
    /// The deadline passed; issuance goes on.
    Deadline,
    /// Issuance failed.
    IssuanceFailed,
    /// The store failed.
    StoreFailed,
}

impl Refusal {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownName => "unknown_name",
            Self::Suspended => "suspended",
            Self::PermissionUnavailable => "permission_unavailable",
            Self::BackingOff => "backing_off",
            Self::TooManyWaiters => "too_many_waiters",
            Self::Deadline => "deadline",
            Self::IssuanceFailed => "issuance_failed",
            Self::StoreFailed => "store_failed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A worker's way to ask: what memory can refuse is refused on the spot, the rest is a bounded message to the
/// control runtime, where the answering half lives. Clones share everything.
#[derive(Clone, Debug)]
pub struct OnDemand {
    requests: mpsc::Sender<Wanted>,
    deadline: Duration,
    snapshot: Published<Snapshot>,
    verdicts: Option<Verdicts>,
}

impl OnDemand {
    /// The asking half, and what the answering half receives. `verdicts` is the permission hook's memory
    /// ([`crate::certs::permission::Permission::verdicts`]); nothing where no hook is configured.
    #[must_use]
    pub fn channel(
        settings: &Settings,
        snapshot: Published<Snapshot>,
        verdicts: Option<Verdicts>,
    ) -> (Self, mpsc::Receiver<Wanted>) {
        let (requests, wanted) = mpsc::channel(settings.waiters.max(1));
        let asking = Self {
            requests,
            deadline: settings.deadline,
            snapshot,
            verdicts,
        };
        (asking, wanted)
    }

    /// A credential for `name`, loaded or obtained.
    ///
    /// # Errors
    /// [`Refusal`] says why there is none; at once where [`OnDemand::refusal`] knows or the queue is full.
    pub async fn credential(&self, name: DnsName, client: IpAddr) -> Result<Served, Refusal> {
        if let Some(refusal) = self.refusal(&name) {
            return Err(refusal);
        }
        let (answer, answered) = oneshot::channel();
        let wanted = Wanted {
            name,
            client,
            answer,
        };
        self.requests
            .try_send(wanted)
            .map_err(|_full| Refusal::TooManyWaiters)?;
        match tokio::time::timeout(self.deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_gone)) => Err(Refusal::StoreFailed),
            Err(_elapsed) => Err(Refusal::Deadline),
        }
    }

    /// Why `name` gets no credential, where memory alone tells; nothing means that it is worth asking. Neither waits
    /// nor allocates: an unknown name costs this look-up.
    #[must_use]
    pub fn refusal(&self, name: &DnsName) -> Option<Refusal> {
        match known(&self.snapshot.load(), name) {
            Known::Served | Known::Unsure => None,
            Known::Suspended => Some(Refusal::Suspended),
            Known::Absent => match &self.verdicts {
                Some(verdicts) => verdicts.refusal(name, monotonic()),
                None => Some(Refusal::UnknownName),
            },
        }
    }
}

/// What the snapshot says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Served,
    Suspended,
    /// Nobody registered it.
    Absent,
    /// It is not among the names read so far, and not all have been read.
    Unsure,
}

fn known(snapshot: &Snapshot, name: &DnsName) -> Known {
    match snapshot.domain(name) {
        Some(domain) if domain.served => Known::Served,
        Some(_) => Known::Suspended,
        None if snapshot.is_complete() => Known::Absent,
        None => Known::Unsure,
    }
}
