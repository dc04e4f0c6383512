//! A handshake for a name without a credential in memory: load it, or obtain it, within one deadline.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::certs::credential::Credential;
use crate::model::DnsName;

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

/// A worker's way to ask: a bounded message to the control runtime, where the answering half lives.
#[derive(Clone, Debug)]
pub struct OnDemand {
    requests: mpsc::Sender<Wanted>,
    deadline: Duration,
}

impl OnDemand {
    /// The asking half over a channel whose receiver answers; a handshake waits at most `deadline`.
    #[must_use]
    pub const fn new(requests: mpsc::Sender<Wanted>, deadline: Duration) -> Self {
        Self { requests, deadline }
    }

    /// A credential for `name`, loaded or obtained.
    ///
    /// # Errors
    /// [`Refusal`] says why there is none; [`Refusal::TooManyWaiters`] at once where the queue is full.
    pub async fn credential(&self, name: DnsName, client: IpAddr) -> Result<Served, Refusal> {
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
}
