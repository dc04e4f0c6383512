//! One piece of work for any number of waiters: the first caller of a key starts it, the others wait for the
//! same result. The work belongs to a task group, not to the first caller, whose client may go away.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::base::task::Tasks;

/// Work in flight, by key. Clones share it.
pub struct SingleFlight<K, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
    most_keys: usize,
    most_waiters: usize,
}

struct Flight<V> {
    result: watch::Receiver<Option<V>>,
    waiters: Arc<()>,
}

/// Why a caller was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many keys are in flight as allowed.
    TooManyKeys,
    /// As many callers wait for this key as allowed.
    TooManyWaiters,
    /// The work ended without a result: it panicked, or the group was cancelled.
    Abandoned,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyKeys => "too many different names are being worked on",
            Self::TooManyWaiters => "too many callers wait for this name",
            Self::Abandoned => "the work ended without a result",
        })
    }
}

impl std::error::Error for Refused {}

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self {
            flights: Arc::clone(&self.flights),
            most_keys: self.most_keys,
            most_waiters: self.most_waiters,
        }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// At most `most_keys` works at once, each with at most `most_waiters` callers, its first included.
    #[must_use]
    pub fn new(most_keys: usize, most_waiters: usize) -> Self {
        Self {
            flights: Arc::default(),
            most_keys,
            most_waiters,
        }
    }

    /// The result of the work for `key`: joined where it runs already, else started in `tasks` by `start`.
    ///
    /// # Errors
    /// [`Refused`], at once where a bound is reached.
    pub async fn run<F>(
        &self,
        tasks: &Tasks,
        key: K,
        start: impl FnOnce() -> F,
    ) -> Result<V, Refused>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (mut result, _waiter) = self.join(tasks, key, start)?;
        match result.wait_for(Option::is_some).await {
            Ok(value) => value.clone().ok_or(Refused::Abandoned),
            Err(_) => Err(Refused::Abandoned),
        }
    }

    fn join<F>(
        &self,
        tasks: &Tasks,
        key: K,
        start: impl FnOnce() -> F,
    ) -> Result<(watch::Receiver<Option<V>>, Arc<()>), Refused>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            // One reference is the map's own.
            if Arc::strong_count(&flight.waiters) > self.most_waiters {
                return Err(Refused::TooManyWaiters);
            }
            return Ok((flight.result.clone(), Arc::clone(&flight.waiters)));
        }
        if flights.len() >= self.most_keys {
            return Err(Refused::TooManyKeys);
        }
        let (sender, result) = watch::channel(None);
        let waiters = Arc::new(());
        let flight = Flight {
            result: result.clone(),
            waiters: Arc::clone(&waiters),
        };
        flights.insert(key.clone(), flight);
        drop(flights);
        let landing = Landing {
            flights: Arc::clone(&self.flights),
            key,
        };
        let work = start();
        tasks.spawn_until_cancelled("single_flight", async move {
            let value = work.await;
            drop(landing);
            sender.send_replace(Some(value));
        });
        Ok((result, waiters))
    }

    /// Works in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes the key out of the map when the work ends, however it ends.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_callers_share_one_run() {
        let (tasks, flight) = (Tasks::new(), SingleFlight::new(4, 200));
        let runs = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Notify::new());
        let callers = (0..200).map(|_| {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            flight.run(&tasks, "name", move || async move {
                go.notified().await;
                runs.fetch_add(1, Ordering::SeqCst)
            })
        });
        let (results, ()) = tokio::join!(join_all(callers), async { go.notify_one() });
        assert!(results.iter().all(|r| *r == Ok(0)));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(flight.is_empty());
    }

    #[tokio::test]
    async fn bounds_refuse_at_once_and_the_work_outlives_its_first_caller() {
        let (tasks, flight) = (Tasks::new(), SingleFlight::new(1, 1));
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let (mut result, first) = flight
            .join(&tasks, 1, || async move { wait.notified().await })
            .unwrap();
        assert_eq!(
            flight.run(&tasks, 1, || async {}).await,
            Err(Refused::TooManyWaiters)
        );
        assert_eq!(
            flight.run(&tasks, 2, || async {}).await,
            Err(Refused::TooManyKeys)
        );
        drop(first);
        go.notify_one();
        assert!(result.wait_for(Option::is_some).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_in_the_work_releases_waiters_and_key() {
        let (tasks, flight) = (Tasks::new(), SingleFlight::<u8, ()>::new(1, 1));
        let run = flight
            .run(&tasks, 1, || async { panic!("on purpose") })
            .await;
        assert_eq!(run, Err(Refused::Abandoned));
        assert!(flight.is_empty());
    }
}
