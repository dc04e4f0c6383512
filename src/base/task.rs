//! The only place that spawns: every task has a name, an owner and an end.
//!
//! [`Tasks`] owns a group of tasks. Cancelling asks them all to end; [`Tasks::finish`] waits until they have,
//! within a deadline. A task that panics is counted and logged, never silently lost.

use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Blocking jobs that may run at once; further ones wait for a place.
const BLOCKING_JOBS: usize = 32;

/// A group of tasks that end together. Clones are the same group.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    panics: Arc<AtomicU64>,
    blocking: Arc<Semaphore>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::with_token(CancellationToken::new())
    }

    /// A group of its own that also ends when this one is cancelled.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            panics: Arc::clone(&self.panics),
            ..Self::with_token(self.cancel.child_token())
        }
    }

    fn with_token(cancel: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            cancel,
            panics: Arc::default(),
            blocking: Arc::new(Semaphore::new(BLOCKING_JOBS)),
        }
    }

    /// Runs `future` on the current runtime until it ends by itself. It is waited for by [`Tasks::finish`],
    /// and should watch [`Tasks::cancelled`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker
            .spawn(guarded(name, Arc::clone(&self.panics), future));
    }

    /// Like [`Tasks::spawn`], on the runtime behind `handle`.
    pub fn spawn_on<F>(&self, handle: &Handle, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker
            .spawn_on(guarded(name, Arc::clone(&self.panics), future), handle);
    }

    /// Runs a future that stays on this thread: on a worker's `LocalRuntime` or in a `LocalSet`.
    ///
    /// # Panics
    /// Outside of those.
    pub fn spawn_local<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + 'static,
    {
        self.tracker
            .spawn_local(guarded(name, Arc::clone(&self.panics), future));
    }

    /// Runs `future` until it ends or the group is cancelled, whichever comes first: for loops that hold
    /// nothing which must be put away.
    pub fn spawn_until_cancelled<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        self.spawn(name, async move {
            cancel.run_until_cancelled(future).await;
        });
    }

    /// Starts a thread with a run time of its own, on which `make` gives the one future that it runs to its
    /// end; tasks that the future leaves behind are dropped.
    ///
    /// # Errors
    /// Where the system gives no thread or the run time cannot start.
    pub fn spawn_thread<M, F>(&self, name: String, make: M) -> io::Result<Thread>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let (ended, alive) = oneshot::channel();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let panics = Arc::clone(&self.panics);
        thread::Builder::new().name(name).spawn(move || {
            let _ended: oneshot::Sender<()> = ended;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            let (outcome, runtime) = match runtime {
                Ok(runtime) => (Ok(()), Some(runtime)),
                Err(error) => (Err(error), None),
            };
            let heard = started.send(outcome).is_ok();
            if let Some(runtime) = runtime.filter(|_| heard) {
                runtime.block_on(guarded("thread", panics, async { make().await }));
            }
        })?;
        match start.recv() {
            Ok(outcome) => outcome.map(|()| Thread(Some(alive))),
            Err(gone) => Err(io::Error::other(gone)),
        }
    }

    /// Runs `work` on the blocking pool and gives its result; `None` if it panicked, or was never begun.
    pub async fn blocking<T, F>(&self, name: &'static str, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.blocking).acquire_owned().await.ok()?;
        let job = self.tracker.spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        match job.await {
            Ok(value) => Some(value),
            // The runtime ends before the job began: the start failed, and says so itself.
            Err(error) if error.is_cancelled() => None,
            Err(error) => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(task = name, %error, "blocking job panicked");
                None
            }
        }
    }

    /// Ends when the group is cancelled.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Whether the group has been cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The token behind the group, for `select!` and for libraries that take one.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Asks every task of this group and its children to end.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Tasks that have not ended yet, blocking jobs included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Tasks of this group and its relatives that ended by a panic.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Waits until every task of this group has ended, at most `deadline`; tells how many had not.
    pub async fn finish(&self, deadline: Duration) -> usize {
        self.tracker.close();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tracker.len(),
        }
    }
}

/// A thread started by [`Tasks::spawn_thread`].
#[derive(Debug)]
pub struct Thread(Option<oneshot::Receiver<()>>);

impl Thread {
    /// Ends when the thread has; at once if it had before.
    pub async fn ended(&mut self) {
        if let Some(alive) = &mut self.0 {
            // The thread never sends: the other half is dropped with everything else on it.
            drop(alive.await);
            self.0 = None;
        }
    }
}

async fn guarded<F: Future<Output = ()>>(name: &'static str, panics: Arc<AtomicU64>, future: F) {
    if AssertUnwindSafe(future).catch_unwind().await.is_err() {
        panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(task = name, "task panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finish_waits_for_tasks_that_heed_cancellation() {
        let tasks = Tasks::new();
        let own = tasks.clone();
        tasks.spawn("waits", async move { own.cancelled().await });
        assert_eq!(tasks.finish(Duration::from_millis(5)).await, 1);
        tasks.cancel();
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_ends_only_its_task() {
        let tasks = Tasks::new();
        tasks.child().spawn("falls", async { panic!("on purpose") });
        let child = tasks.child();
        child.spawn("stands", async {});
        assert_eq!(child.finish(Duration::from_secs(5)).await, 0);
        while tasks.panics() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            tasks.blocking("falls", || panic!("on purpose")).await,
            None::<()>
        );
        assert_eq!(tasks.panics(), 2);
    }

    #[tokio::test]
    async fn a_thread_runs_what_cannot_move_and_its_end_is_told_more_than_once() {
        let tasks = Tasks::new();
        let started = tasks.spawn_thread("own".to_owned(), || async {
            let stays = std::rc::Rc::new(1);
            tokio::task::yield_now().await;
            assert_eq!(*stays, 2, "on purpose");
        });
        let mut thread = started.unwrap();
        thread.ended().await;
        thread.ended().await;
        assert_eq!(tasks.panics(), 1);
    }

    #[tokio::test]
    async fn a_child_ends_with_its_parent_but_not_the_other_way() {
        let parent = Tasks::new();
        let child = parent.child();
        child.cancel();
        assert!(!parent.is_cancelled());
        let second = parent.child();
        parent.cancel();
        assert!(second.is_cancelled());
    }
}
