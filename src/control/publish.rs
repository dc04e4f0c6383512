//! Records and the file's routes → the [`Snapshot`] that traffic is served from. The only builder of it.
//!
//! One task owns it. At a start it reads every domain, page by page, while traffic is served already: what is read
//! so far is published now and then, and marked complete at the end. After that it follows the store's feed, and
//! copies one shard per change. Invariants: what is published never goes back to an older state of a name (one task
//! reads and publishes, in turn); while the store fails, the last snapshot goes on serving; a row that cannot be
//! used is left out with a warning.
//!
//! Reading order: [`Publisher`] (the handle), [`routes`] (routes and upstreams), `follow` (the task).

pub mod routes;

mod follow;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::load::Loader;
use crate::certs::resolver::Resolver;
use crate::control::declare::{Declaration, Warning};
use crate::model::route::Upstream;
use crate::model::{NamePattern, Snapshot};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;

use follow::Follower;

/// Requests that may wait for the task.
const QUEUE: usize = 1024;

/// What the task works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where the records are.
    pub store: Arc<dyn Store>,
    /// What it builds.
    pub snapshot: Published<Snapshot>,
    /// What it keeps in line with the records.
    pub resolver: Resolver,
    /// Loads what another process has put in the place of a credential in memory.
    pub loader: Loader,
    /// Where it counts.
    pub metrics: Metrics,
}

/// A handle on the task. Clones are the same.
#[derive(Clone, Debug)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
    snapshot: Published<Snapshot>,
    upstreams: Published<Vec<Arc<Upstream>>>,
    warnings: Published<Vec<Warning>>,
}

enum Request {
    Refresh(NamePattern, oneshot::Sender<Result<(), StoreError>>),
    Declare(Arc<Declaration>, oneshot::Sender<()>),
}

/// Why a change is not published yet. It will be, by the feed.
#[derive(Clone, Debug)]
pub enum PublishError {
    /// The store failed.
    Store(StoreError),
    /// The task has ended, or more requests wait than are allowed.
    Busy,
}

impl std::fmt::Display for PublishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Store(_) => "the store failed while a change was published",
            Self::Busy => "too many changes wait to be published",
        })
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Busy => None,
        }
    }
}

impl Publisher {
    /// Starts the task in `tasks`, on the current runtime: it reads all domains at once, and follows from there on.
    #[must_use]
    pub fn start(parts: Parts, tasks: &Tasks) -> Self {
        let (requests, received) = mpsc::channel(QUEUE);
        let publisher = Self {
            requests,
            snapshot: parts.snapshot.clone(),
            upstreams: Published::new(Vec::new()),
            warnings: Published::new(Vec::new()),
        };
        let follower = Follower::new(
            parts,
            received,
            publisher.upstreams.clone(),
            publisher.warnings.clone(),
        );
        tasks.spawn_until_cancelled("publisher", follower.run());
        publisher
    }

    /// Puts the declared upstreams and routes in force; published when this returns. An upstream that has not changed
    /// stays the same object, with its resolved addresses.
    ///
    /// # Errors
    /// [`PublishError::Busy`].
    pub async fn declare(&self, declaration: Arc<Declaration>) -> Result<(), PublishError> {
        let (done, answered) = oneshot::channel();
        self.request(Request::Declare(declaration, done))?;
        answered.await.map_err(|_ended| PublishError::Busy)
    }

    /// Reads one domain's record and publishes it before this returns: for those who have just changed it.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn refresh(&self, pattern: NamePattern) -> Result<(), PublishError> {
        let (done, answered) = oneshot::channel();
        self.request(Request::Refresh(pattern, done))?;
        match answered.await {
            Ok(result) => result.map_err(PublishError::Store),
            Err(_ended) => Err(PublishError::Busy),
        }
    }

    /// Waits until every registered name is in the snapshot: at most the time that the caller gives.
    pub async fn complete(&self) {
        let mut versions = self.snapshot.watch();
        while !self.snapshot.load().is_complete() {
            if versions.changed().await.is_err() {
                return;
            }
        }
    }

    /// The upstreams in force, whose names are to be resolved again and again.
    #[must_use]
    pub const fn upstreams(&self) -> &Published<Vec<Arc<Upstream>>> {
        &self.upstreams
    }

    /// What cannot be used and was left out, at present.
    #[must_use]
    pub const fn warnings(&self) -> &Published<Vec<Warning>> {
        &self.warnings
    }

    fn request(&self, request: Request) -> Result<(), PublishError> {
        self.requests
            .try_send(request)
            .map_err(|_full_or_ended| PublishError::Busy)
    }
}

#[cfg(test)]
mod tests;
