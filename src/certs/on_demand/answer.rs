//! The answering half: on the control runtime, one task that keeps the books of who waits, and one flight per name.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::base::clock::{Clock, Instant, monotonic};
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::load::Loader;
use crate::certs::on_demand::flight::Flight;
use crate::certs::on_demand::{Refusal, Served, Settings, Wanted};
use crate::certs::outcome::Outcomes;
use crate::certs::permission::Permission;
use crate::certs::resolver::Resolver;
use crate::model::{DnsName, NamePattern, Snapshot};
use crate::store::Store;

/// How long a name that backs off is refused without a look at the store.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Names that back off which are remembered.
const MOST_REMEMBERED: usize = 10_000;
/// Look-ups in the store at once.
const LOOKUPS: usize = 64;

/// Wakes those who work on jobs: a visitor waits.
pub type Nudge = Arc<dyn Fn() + Send + Sync>;

/// Puts the record of a domain into the snapshot that traffic is served from; done, or given up, when it ends.
pub type Publish = Arc<dyn Fn(NamePattern) -> BoxFuture<'static, ()> + Send + Sync>;

/// What answers are made with.
#[derive(Clone)]
pub struct Parts {
    /// Domains, certificates, jobs.
    pub store: Arc<dyn Store>,
    /// Which names are known.
    pub snapshot: Published<Snapshot>,
    /// Where credentials go.
    pub resolver: Resolver,
    /// Makes them of stored certificates.
    pub loader: Loader,
    /// The permission hook, where one is configured.
    pub permission: Option<Permission>,
    /// Tells how issuances end.
    pub outcomes: Outcomes,
    /// Wakes issuance.
    pub nudge: Nudge,
    /// Publishes a name that was found in the store before all have been read.
    pub publish: Publish,
    /// The time.
    pub clock: Clock,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("permission", &self.permission)
            .finish_non_exhaustive()
    }
}

/// Answers what workers want, until the group is cancelled or the last worker is gone. Bounded: so many waiters per
/// name and in all, so many names, so many look-ups at once.
pub fn start(parts: Parts, settings: Settings, requests: mpsc::Receiver<Wanted>, tasks: &Tasks) {
    let desk = Desk::new(parts, settings, tasks.clone());
    tasks.spawn_until_cancelled("on_demand", desk.run(requests));
}

/// How a flight ended.
type Landed = (DnsName, Result<Served, Refusal>);

/// Who waits for what.
struct Desk {
    parts: Arc<Parts>,
    lookups: Arc<Semaphore>,
    settings: Settings,
    tasks: Tasks,
    flights: HashMap<DnsName, Vec<Waiter>>,
    waiting: usize,
    backing_off: HashMap<DnsName, Instant>,
    landed: (mpsc::Sender<Landed>, mpsc::Receiver<Landed>),
}

struct Waiter {
    since: Instant,
    client: IpAddr,
    answer: oneshot::Sender<Result<Served, Refusal>>,
}

impl Waiter {
    fn answer(self, result: Result<Served, Refusal>) {
        // Who has given up waiting needs no answer.
        drop(self.answer.send(result));
    }
}

impl Desk {
    fn new(parts: Parts, settings: Settings, tasks: Tasks) -> Self {
        let most = settings.waiters.max(1);
        Self {
            parts: Arc::new(parts),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            settings,
            tasks,
            flights: HashMap::new(),
            waiting: 0,
            backing_off: HashMap::new(),
            // Each flight lands once, and there are at most so many.
            landed: mpsc::channel(most),
        }
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Wanted>) {
        loop {
            tokio::select! {
                biased;
                Some((name, result)) = self.landed.1.recv() => self.land(&name, &result),
                wanted = requests.recv() => match wanted {
                    Some(wanted) => self.admit(wanted),
                    None => return,
                },
            }
        }
    }

    fn admit(&mut self, wanted: Wanted) {
        let now = monotonic();
        let Wanted {
            name,
            client,
            answer,
        } = wanted;
        let waiter = Waiter {
            since: now,
            client,
            answer,
        };
        if self
            .backing_off
            .get(&name)
            .is_some_and(|until| now < *until)
        {
            return waiter.answer(Err(Refusal::BackingOff));
        }
        if !self.has_place(&name) {
            return waiter.answer(Err(Refusal::TooManyWaiters));
        }
        self.waiting += 1;
        match self.flights.get_mut(&name) {
            Some(waiters) => waiters.push(waiter),
            None => self.fly(name, vec![waiter]),
        }
    }

    /// Whether one more may wait for `name`; those who have given up are swept out only where it gets tight.
    fn has_place(&mut self, name: &DnsName) -> bool {
        if self.waiting >= self.settings.waiters {
            for waiters in self.flights.values_mut() {
                waiters.retain(|waiter| !waiter.answer.is_closed());
            }
            self.waiting = self.flights.values().map(Vec::len).sum();
        }
        if self.waiting >= self.settings.waiters {
            return false;
        }
        let Some(waiters) = self.flights.get_mut(name) else {
            return self.flights.len() < self.settings.waiters;
        };
        if waiters.len() >= self.settings.waiters_per_name {
            let before = waiters.len();
            waiters.retain(|waiter| !waiter.answer.is_closed());
            self.waiting -= before - waiters.len();
        }
        waiters.len() < self.settings.waiters_per_name
    }

    fn fly(&mut self, name: DnsName, waiters: Vec<Waiter>) {
        let Some(first) = waiters.first() else {
            return;
        };
        let flight = Flight {
            parts: Arc::clone(&self.parts),
            lookups: Arc::clone(&self.lookups),
            name: name.clone(),
            client: first.client,
            deadline: monotonic() + self.settings.deadline,
        };
        let landing = Landing {
            landed: self.landed.0.clone(),
            name: Some(name.clone()),
            result: Err(Refusal::StoreFailed),
        };
        self.flights.insert(name, waiters);
        self.tasks
            .spawn_until_cancelled("on_demand_flight", async move {
                landing.with(Box::pin(flight.run()).await);
            });
    }

    fn land(&mut self, name: &DnsName, result: &Result<Served, Refusal>) {
        let Some(waiters) = self.flights.remove(name) else {
            return;
        };
        self.waiting -= waiters.len();
        let now = monotonic();
        if matches!(result, Err(Refusal::BackingOff)) {
            self.remember(name, now);
        }
        let mut patient = Vec::new();
        for waiter in waiters {
            // Who came later than the first has time left: the flight's deadline is not theirs.
            let has_time = now < waiter.since + self.settings.deadline;
            match result {
                Err(Refusal::Deadline) if has_time && !waiter.answer.is_closed() => {
                    patient.push(waiter);
                }
                _ => waiter.answer(result.clone()),
            }
        }
        if !patient.is_empty() {
            self.waiting += patient.len();
            self.fly(name.clone(), patient);
        }
    }

    fn remember(&mut self, name: &DnsName, now: Instant) {
        if self.backing_off.len() >= MOST_REMEMBERED {
            self.backing_off.retain(|_, until| now < *until);
        }
        if self.backing_off.len() < MOST_REMEMBERED {
            self.backing_off.insert(name.clone(), now + REMEMBERED);
        }
    }
}

/// Tells the desk how the flight ended, however it ended: a panic must not leave anyone waiting.
struct Landing {
    landed: mpsc::Sender<Landed>,
    name: Option<DnsName>,
    result: Result<Served, Refusal>,
}

impl Landing {
    /// Lands with `result`.
    fn with(mut self, result: Result<Served, Refusal>) {
        self.result = result;
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let result = std::mem::replace(&mut self.result, Err(Refusal::StoreFailed));
            // Full never happens; closed means that nobody waits any more.
            drop(self.landed.try_send((name, result)));
        }
    }
}

#[cfg(test)]
mod tests;
