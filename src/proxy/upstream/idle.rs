//! Connections of one upstream that wait for a next request: the latest is taken first, the oldest makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::Instant;
use crate::model::TenantId;
use crate::model::route::Route;
use crate::proxy::upstream::connect::Sender;
use crate::proxy::upstream::stream::Received;
use crate::proxy::upstream::watch::{Cut, Watch};
use crate::telemetry::family::Entered;
use crate::telemetry::metrics::Metrics;

/// Stale notes of the order that are borne before it is cleared up.
const BORNE: usize = 32;

/// What a connection may be used for again: requests of the same tenant, by the same route, to the same address. A
/// route is itself, not another with the same content: with it go its upstream's TLS identity and protocol.
#[derive(Clone)]
pub(super) struct Key {
    tenant: TenantId,
    route: Arc<Route>,
    address: SocketAddr,
}

impl Key {
    pub(super) fn new(tenant: &TenantId, route: &Arc<Route>, address: SocketAddr) -> Self {
        Self {
            tenant: tenant.clone(),
            route: Arc::clone(route),
            address,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.tenant == other.tenant
            && Arc::ptr_eq(&self.route, &other.route)
            && self.address == other.address
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tenant.hash(state);
        Arc::as_ptr(&self.route).hash(state);
        self.address.hash(state);
    }
}

/// A connection that waits.
pub(super) struct Resting {
    pub(super) sender: Sender,
    pub(super) watch: Rc<Watch>,
    pub(super) received: Received,
}

/// The waiting connections of one upstream, over all tenants.
pub(super) struct Idle {
    metrics: Metrics,
    /// A key stays while it has connections, lent ones too; so there are at most as many as connections.
    by_key: HashMap<Key, Vec<(Resting, Entered)>>,
    /// The oldest first. A note holds while its connection rests under the same serial.
    order: VecDeque<(u64, Rc<Watch>)>,
    resting: usize,
    serial: u64,
}

impl Idle {
    /// None yet.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            by_key: HashMap::new(),
            order: VecDeque::new(),
            resting: 0,
            serial: 0,
        }
    }

    /// Whether none waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.resting == 0
    }

    /// Puts a connection to rest until `until`; beyond `most`, the oldest of the upstream make room.
    pub(super) fn put(&mut self, key: &Key, resting: Resting, until: Instant, most: usize) {
        self.serial += 1;
        resting.watch.rests(self.serial, until);
        self.order
            .push_back((self.serial, Rc::clone(&resting.watch)));
        let noted = (resting, self.metrics.upstream_idle.enter(()));
        match self.by_key.get_mut(key) {
            Some(list) => list.push(noted),
            None => {
                self.by_key.insert(key.clone(), vec![noted]);
            }
        }
        self.resting += 1;
        while self.resting > most {
            self.close_oldest();
        }
        if self.order.len() > 2 * self.resting + BORNE {
            self.order
                .retain(|(serial, watch)| watch.resting() == Some(*serial));
        }
    }

    /// Takes the connection that rested last and is ready.
    pub(super) fn take(&mut self, key: &Key) -> Option<Resting> {
        let list = self.by_key.get_mut(key)?;
        let mut at = list.len();
        while let Some(next) = at.checked_sub(1) {
            at = next;
            let (resting, _) = list.get(at)?;
            let dead = resting.watch.cut().is_some() || resting.sender.is_closed();
            if !dead && !resting.sender.is_ready() {
                // Its driver has not finished the exchange before.
                continue;
            }
            let (resting, _counted) = list.remove(at);
            self.resting -= usize::from(resting.watch.rises());
            if !dead {
                return Some(resting);
            }
        }
        None
    }

    /// A connection has ended: nothing is kept of it.
    pub(super) fn forget(&mut self, key: &Key, watch: &Rc<Watch>) {
        self.resting -= usize::from(watch.rises());
        if let Some(list) = self.by_key.get_mut(key) {
            list.retain(|(resting, _)| !Rc::ptr_eq(&resting.watch, watch));
            if list.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    fn close_oldest(&mut self) {
        while let Some((serial, watch)) = self.order.pop_front() {
            if watch.resting() == Some(serial) {
                self.resting -= usize::from(watch.rises());
                // Its driver ends, and has it forgotten.
                watch.cut_off(Cut::Idle);
                return;
            }
        }
        // Nothing rests that has no note; were it so, this ends the caller's loop.
        self.resting = 0;
    }
}
