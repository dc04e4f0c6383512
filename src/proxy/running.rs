//! The whole of the workers: started together, drained together.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::base::task::{Tasks, Thread};
use crate::proxy::drain::Drain;
use crate::proxy::listener::Bound;
use crate::proxy::worker::{Answer, Shared, Worker};

/// How long workers may take to end after their connections have been cut.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Workers that serve. Dropped without [`Running::drain`], they serve on until the process ends.
#[derive(Debug)]
pub struct Running {
    drain: Drain,
    workers: Vec<(Tasks, Thread)>,
    shared: Arc<Shared>,
}

/// Why workers could not be started.
#[derive(Debug)]
pub struct StartError {
    worker: usize,
    source: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start worker {}", self.worker)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Bound {
    /// Serves: starts a thread for each worker, whose tasks are children of `tasks`; `answer` answers requests.
    ///
    /// # Errors
    /// [`StartError`] where the system gives no thread; those started are told to end.
    pub fn start<A: Answer>(
        self,
        shared: Arc<Shared>,
        tasks: &Tasks,
        answer: &A,
    ) -> Result<Running, StartError> {
        let count = shared.settings.load().workers.get();
        let drain = Drain::new();
        let mut workers = Vec::with_capacity(count);
        for (index, sockets) in self.by_worker(count).into_iter().enumerate() {
            let own = tasks.child();
            let (worker_drain, worker_tasks) = (drain.clone(), own.clone());
            let (shared, answer) = (Arc::clone(&shared), answer.clone());
            let started = own.spawn_thread(format!("worker-{index}"), move || {
                Worker::new(index, shared, worker_tasks, worker_drain).run(sockets, answer)
            });
            match started {
                Ok(thread) => workers.push((own, thread)),
                Err(source) => {
                    drain.begin();
                    return Err(StartError {
                        worker: index,
                        source,
                    });
                }
            }
        }
        Ok(Running {
            drain,
            workers,
            shared,
        })
    }
}

impl Running {
    /// Connections now open, on all workers.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.admission.open()
    }

    /// Closes the sockets, lets running requests end, and cuts what is left after `deadline`. Tells how many
    /// connections were cut.
    pub async fn drain(mut self, deadline: Duration) -> usize {
        self.drain.begin();
        if timeout(deadline, all_ended(&mut self.workers))
            .await
            .is_ok()
        {
            return 0;
        }
        let cut = self.open();
        tracing::warn!(
            connections = cut,
            "the drain's deadline passed: cutting what is left"
        );
        for (tasks, _) in &self.workers {
            tasks.cancel();
        }
        if timeout(ENDS_WITHIN, all_ended(&mut self.workers))
            .await
            .is_err()
        {
            tracing::error!("workers did not end");
        }
        cut
    }
}

async fn all_ended(workers: &mut [(Tasks, Thread)]) {
    for (_, thread) in workers {
        thread.ended().await;
    }
}
