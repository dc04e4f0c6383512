//! The one task that writes: takes what is queued, commits it together, answers after the commit.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, query};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, monotonic};
use crate::base::task::Tasks;
use crate::store::Deadline;
use crate::store::batch::ApplyError;
use crate::store::embedded::failure;
use crate::store::embedded::feed::Heads;
use crate::store::embedded::transaction::Transaction;
use crate::store::error::StoreError;

/// Requests that wait at most; further ones wait for a place until their deadline.
const QUEUE: usize = 1024;
/// Requests that one commit carries at most.
const GROUP: usize = 64;
/// How long SQLite itself waits for another process's lock before we look at deadlines again.
pub(super) const LOCK_WAIT: Duration = Duration::from_millis(200);

/// A change to make in a transaction.
pub(super) trait Change: Send + 'static {
    /// What it gives.
    type Output: Send;
    /// How it is refused: it is undone alone then.
    type Error: Refusal;

    /// Makes the change.
    fn run(
        &mut self,
        transaction: &mut Transaction<'_>,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;
}

/// How a change is refused: for a reason of its own, or because the store failed.
pub(super) trait Refusal: From<StoreError> + Send {
    /// The store's failure, where that is the reason.
    fn failure(&self) -> Option<&StoreError>;
}

impl Refusal for StoreError {
    fn failure(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl Refusal for ApplyError {
    fn failure(&self) -> Option<&StoreError> {
        match self {
            Self::Store(failure) => Some(failure),
            Self::GuardFailed(_)
            | Self::OwnedByOther { .. }
            | Self::OutOfScope(_)
            | Self::NotUsable(_)
            | Self::Missing(_) => None,
        }
    }
}

/// The way to the writing task.
#[derive(Debug)]
pub(super) struct Writer {
    requests: mpsc::Sender<Box<dyn Pending>>,
    commits: watch::Receiver<u64>,
    close: CancellationToken,
    ended: CancellationToken,
}

impl Writer {
    /// Starts the task over `connection`; `options` open a new one where that breaks.
    pub(super) fn start(
        (connection, options): (SqliteConnection, SqliteConnectOptions),
        retired_keys: Duration,
        clock: Clock,
        tasks: &Tasks,
    ) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (told, commits) = watch::channel(0);
        let (close, ended) = (tasks.token().child_token(), CancellationToken::new());
        let task = WritingTask {
            queue,
            connection: Some(connection),
            options,
            retired_keys,
            clock,
            told,
        };
        let (closing, end) = (close.clone(), ended.clone().drop_guard());
        tasks.spawn("store writer", async move {
            task.run(closing).await;
            drop(end);
        });
        Self {
            requests,
            commits,
            close,
            ended,
        }
    }

    /// Makes a change and gives its answer once it is on the disk.
    pub(super) async fn change<C: Change>(
        &self,
        by: Deadline,
        change: C,
    ) -> Result<C::Output, C::Error> {
        let (answer, answered) = oneshot::channel();
        let pending = Box::new(Call {
            by,
            change,
            outcome: None,
            answer,
        });
        let asked = async {
            self.requests
                .send(pending)
                .await
                .map_err(|_closed| ended())?;
            // The task fell while it worked on this: the commit may or may not have been the last thing it did.
            answered
                .await
                .map_err(|_gone| StoreError::Unknown(Arc::new(Ended)))
        };
        match tokio::time::timeout_at(by.instant(), asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(error.into()),
            Err(_elapsed) => Err(StoreError::Timeout.into()),
        }
    }

    /// Tells of commits that changed something.
    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Asks the task to finish what is queued and waits until it has.
    pub(super) async fn close(&self) {
        self.close.cancel();
        self.ended.cancelled().await;
    }

    /// Whether the task takes requests.
    pub(super) fn is_running(&self) -> bool {
        !self.close.is_cancelled() && !self.ended.is_cancelled()
    }
}

/// The writing task has ended.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task that writes has ended")
    }
}

impl std::error::Error for Ended {}

fn ended() -> StoreError {
    StoreError::Unavailable(Arc::new(Ended))
}

/// What becomes of a request's savepoint.
enum Fate {
    Keep,
    /// With the store's failure, where that is the reason.
    Undo(Option<StoreError>),
}

/// A request of any type.
#[async_trait]
trait Pending: Send {
    /// Whether nobody waits any more, or not for long enough.
    fn is_over(&self) -> bool;
    /// Does the work and keeps the answer.
    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Fate;
    /// Gives the kept answer, or [`StoreError::Timeout`] where the work was not done.
    fn answer(self: Box<Self>);
    /// Gives an error instead.
    fn fail(self: Box<Self>, error: StoreError);
}

impl fmt::Debug for dyn Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

struct Call<C: Change> {
    by: Deadline,
    change: C,
    outcome: Option<Result<C::Output, C::Error>>,
    answer: oneshot::Sender<Result<C::Output, C::Error>>,
}

#[async_trait]
impl<C: Change> Pending for Call<C> {
    fn is_over(&self) -> bool {
        self.answer.is_closed() || self.by.instant() <= monotonic()
    }

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Fate {
        let outcome = self.change.run(transaction).await;
        let fate = match &outcome {
            Ok(_) => Fate::Keep,
            Err(refusal) => Fate::Undo(refusal.failure().cloned()),
        };
        self.outcome = Some(outcome);
        fate
    }

    fn answer(self: Box<Self>) {
        let outcome = self.outcome;
        // A caller that is gone does not want the answer.
        drop(
            self.answer
                .send(outcome.unwrap_or_else(|| Err(StoreError::Timeout.into()))),
        );
    }

    fn fail(self: Box<Self>, error: StoreError) {
        drop(self.answer.send(Err(error.into())));
    }
}

struct WritingTask {
    queue: mpsc::Receiver<Box<dyn Pending>>,
    /// Nothing after it broke; the next group opens a new one.
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    retired_keys: Duration,
    clock: Clock,
    told: watch::Sender<u64>,
}

impl WritingTask {
    async fn run(mut self, closing: CancellationToken) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let received = tokio::select! {
                biased;
                // What is queued is still done; `recv_many` gives nothing once that is through.
                () = closing.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
                received = self.queue.recv_many(&mut group, GROUP) => received,
            };
            if received == 0 {
                break;
            }
            self.commit(std::mem::take(&mut group)).await;
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = fold(connection).await
        {
            tracing::warn!(%error, "the store's log was not folded at its end; the next start does it");
        }
    }

    /// Commits a group and answers it.
    async fn commit(&mut self, group: Vec<Box<dyn Pending>>) {
        let mut connection = match self.connected().await {
            Ok(connection) => connection,
            Err(error) => return fail_all(group, &error),
        };
        let mut group = match begin(&mut connection, group).await {
            Begun::Holding(group) => group,
            Begun::NobodyLeft => return self.connection = Some(connection),
            Begun::Broken => return,
        };
        match self.write(&mut connection, &mut group).await {
            Ok(changed) => {
                self.connection = Some(connection);
                if changed {
                    self.told
                        .send_modify(|count| *count = count.wrapping_add(1));
                }
                group.into_iter().for_each(|pending| pending.answer());
            }
            Err(error) => {
                tracing::warn!(%error, cause = std::error::Error::source(&error).map(ToString::to_string), "the store could not write");
                // SQLite may have rolled back by itself, so a refusal of this says nothing.
                if query("ROLLBACK").execute(&mut connection).await.is_ok()
                    || matches!(error, StoreError::Full(_))
                {
                    self.connection = Some(connection);
                }
                fail_all(group, &error);
            }
        }
    }

    async fn connected(&mut self) -> Result<SqliteConnection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Ok(self.options.connect().await?),
        }
    }

    /// Runs the group's requests in the open transaction and commits it; tells whether the feed moved.
    async fn write(
        &self,
        connection: &mut SqliteConnection,
        group: &mut [Box<dyn Pending>],
    ) -> Result<bool, StoreError> {
        let heads = Heads::read(connection).await?;
        let mut transaction = Transaction {
            connection,
            now: self.clock.now(),
            retired_keys: self.retired_keys,
            heads,
        };
        for pending in group {
            if pending.is_over() {
                continue;
            }
            let before = transaction.heads.clone();
            query("SAVEPOINT request")
                .execute(&mut *transaction.connection)
                .await?;
            if let Fate::Undo(failure) = pending.run(&mut transaction).await {
                transaction.heads = before;
                let undone = query("ROLLBACK TO request")
                    .execute(&mut *transaction.connection)
                    .await;
                // On a full disk, and on other failures, SQLite has rolled everything back by itself: the whole
                // group shares the failure then.
                undone.map_err(|error| failure.unwrap_or_else(|| error.into()))?;
            }
            query("RELEASE request")
                .execute(&mut *transaction.connection)
                .await?;
        }
        let changed = transaction.heads.write(transaction.connection).await?;
        match query("COMMIT").execute(&mut *transaction.connection).await {
            Ok(_) => Ok(changed),
            Err(error) => Err(failure::after_commit(error)),
        }
    }
}

/// How taking the write lock ended.
enum Begun {
    /// We hold it, for these requests.
    Holding(Vec<Box<dyn Pending>>),
    /// Another process held it until all were over.
    NobodyLeft,
    /// It cannot be taken; all were told why.
    Broken,
}

/// Takes the write lock. While another process holds it, requests whose time is over are let go.
async fn begin(connection: &mut SqliteConnection, mut group: Vec<Box<dyn Pending>>) -> Begun {
    loop {
        let (over, waiting): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|pending| pending.is_over());
        fail_all(over, &StoreError::Timeout);
        if waiting.is_empty() {
            return Begun::NobodyLeft;
        }
        group = waiting;
        match query("BEGIN IMMEDIATE").execute(&mut *connection).await {
            Ok(_) => return Begun::Holding(group),
            Err(error) if failure::is_busy(&error) => {}
            Err(error) => {
                fail_all(group, &error.into());
                return Begun::Broken;
            }
        }
    }
}

fn fail_all(group: Vec<Box<dyn Pending>>, error: &StoreError) {
    for pending in group {
        pending.fail(error.clone());
    }
}

/// Folds the write-ahead log into the database and closes.
async fn fold(mut connection: SqliteConnection) -> Result<(), sqlx::Error> {
    query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut connection)
        .await?;
    connection.close().await
}
