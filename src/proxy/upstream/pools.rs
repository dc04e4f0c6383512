//! Getting a connection to an upstream, and giving it back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use rustls::ClientConfig;

use crate::base::clock::{Instant, monotonic};
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::model::TenantId;
use crate::model::route::{Route, Upstream, UpstreamName, UpstreamTls};
use crate::proxy::fault::Fault;
use crate::proxy::settings::Settings;
use crate::proxy::upstream::balance::{Address, Balance, InFlight};
use crate::proxy::upstream::connect::{self, ConnectError, Connected, Proof, Sender};
use crate::proxy::upstream::driver::Driver;
use crate::proxy::upstream::identity::{self, IdentityError};
use crate::proxy::upstream::idle::{Idle, Key, Resting};
use crate::proxy::upstream::stream::Received;
use crate::proxy::upstream::upload::Upload;
use crate::proxy::upstream::watch::{self, Cut, Patience, Watch};
use crate::telemetry::labels::UpstreamConnection;
use crate::telemetry::metrics::Metrics;

/// The most addresses tried for one request.
const MOST_TRIES: usize = 3;

/// A worker's connections to all upstreams. Clones are the same; not for other threads.
#[derive(Clone)]
pub struct Pools(Rc<Inner>);

struct Inner {
    tasks: Tasks,
    metrics: Metrics,
    settings: Published<Settings>,
    targets: RefCell<HashMap<UpstreamName, Rc<Target>>>,
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

/// One upstream as this worker knows it. Replaced when its configuration changes, so what was connected under the
/// old one is not used under the new.
struct Target {
    upstream: Arc<Upstream>,
    balance: Balance,
    client: RefCell<Option<Result<Arc<ClientConfig>, IdentityError>>>,
    idle: RefCell<Idle>,
}

/// Whose connection is wanted, and where to.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Wanted<'a> {
    /// The tenant of the request.
    pub tenant: &'a TenantId,
    /// Its route.
    pub route: &'a Arc<Route>,
    /// Whether one that has been used will do.
    pub freshness: Freshness,
}

/// Whether a connection that has been used will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Freshness {
    /// The latest that waits, or a new one.
    Any,
    /// A new one: those that wait may have been closed by now.
    New,
}

impl Pools {
    /// No connections yet. Those to come end with `tasks`; each request goes by the settings that hold when it begins.
    #[must_use]
    pub fn new(tasks: Tasks, metrics: Metrics, settings: Published<Settings>) -> Self {
        Self(Rc::new(Inner {
            tasks,
            metrics,
            settings,
            targets: RefCell::default(),
        }))
    }

    /// A connection for one request: the latest that waits, or a new one to the first address that answers.
    pub(in crate::proxy) async fn lease(&self, wanted: Wanted<'_>) -> Result<Lease, Fault> {
        let now = monotonic();
        let target = self.target(&wanted.route.upstream);
        target.balance.follow(&target.upstream.resolved.load());
        if wanted.freshness == Freshness::Any {
            target.balance.retries().earn();
        }
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut last = Fault::Unresolved;
        while tried.len() < MOST_TRIES {
            let Some(address) = target.balance.choose(&tried, now) else {
                break;
            };
            let key = Key::new(wanted.tenant, wanted.route, address.at);
            if wanted.freshness == Freshness::Any
                && let Some(rested) = target.idle.borrow_mut().take(&key)
            {
                self.count(UpstreamConnection::Reused);
                return Ok(self.lend(&target, key, address, rested.into()));
            }
            tried.push(address.at);
            match Box::pin(self.connect(&target, &key, &address)).await {
                Ok(live) => return Ok(self.lend(&target, key, address, live)),
                Err(fault) => last = fault,
            }
        }
        if tried.is_empty() {
            self.count(UpstreamConnection::Unresolved);
        }
        Err(last)
    }

    /// Pays for a retry, if the upstream's budget has enough.
    pub(in crate::proxy) fn may_retry(&self, upstream: &Arc<Upstream>) -> bool {
        self.target(upstream).balance.retries().spend()
    }

    fn target(&self, upstream: &Arc<Upstream>) -> Rc<Target> {
        let mut targets = self.0.targets.borrow_mut();
        if let Some(known) = targets.get(&upstream.name)
            && Arc::ptr_eq(&known.upstream, upstream)
        {
            return Rc::clone(known);
        }
        // The configuration was read again: what it no longer names goes, once its connections have.
        targets
            .retain(|_, target| Rc::strong_count(target) > 1 || !target.idle.borrow().is_empty());
        let target = Rc::new(Target {
            upstream: Arc::clone(upstream),
            balance: Balance::default(),
            client: RefCell::default(),
            idle: RefCell::new(Idle::new(&self.0.metrics)),
        });
        targets.insert(upstream.name.clone(), Rc::clone(&target));
        target
    }

    fn count(&self, outcome: UpstreamConnection) {
        self.0.metrics.upstream_connections.count(outcome);
    }

    async fn connect(
        &self,
        target: &Rc<Target>,
        key: &Key,
        address: &Rc<Address>,
    ) -> Result<Live, Fault> {
        let began = monotonic();
        let upstream = &target.upstream;
        let proof = target.proof(address.at).map_err(|error| {
            tracing::warn!(upstream = %upstream.name, %error, "upstream cannot be verified");
            self.count(UpstreamConnection::Tls);
            Fault::TlsConfiguration
        })?;
        let connected = connect::connect(address.at, proof, upstream.timeouts.connect).await;
        let now = monotonic();
        let took = now.saturating_duration_since(began);
        self.0.metrics.upstream_connect_duration.observe((), took);
        match connected {
            Ok(connected) => {
                self.count(UpstreamConnection::Connected);
                Ok(self.drive(target, key, connected))
            }
            Err(error) => {
                self.count(outcome(&error));
                address.failed(now);
                let cause = std::error::Error::source(&error).map(tracing::field::display);
                tracing::warn!(upstream = %upstream.name, %error, cause, "no connection to upstream");
                Err(error.fault())
            }
        }
    }

    /// Hands a new connection to a task of its own, which takes it out of the pool when it ends.
    fn drive(&self, target: &Rc<Target>, key: &Key, connected: Connected) -> Live {
        let watch = Rc::new(Watch::new(self.terms(target).patience));
        let driver = Driver::new(connected.connection.with_upgrades(), Rc::clone(&watch));
        let (owner, key, own) = (Rc::downgrade(target), key.clone(), Rc::clone(&watch));
        let tasks = self.0.tasks.clone();
        self.0.tasks.spawn_local("upstream connection", async move {
            tokio::select! {
                () = driver => {}
                () = tasks.cancelled() => {}
            }
            if let Some(target) = owner.upgrade() {
                target.idle.borrow_mut().forget(&key, &own);
            }
        });
        Live {
            sender: connected.sender,
            watch,
            received: connected.received,
            usage: Use::First,
        }
    }

    fn terms(&self, target: &Target) -> Terms {
        let settings = self.0.settings.load();
        let deadlines = &settings.deadlines;
        Terms {
            patience: Patience::of(deadlines, &target.upstream.timeouts),
            idle: deadlines.upstream_idle,
            most_idle: settings.limits.upstream_idle_connections,
        }
    }

    fn lend(&self, target: &Rc<Target>, key: Key, address: Rc<Address>, live: Live) -> Lease {
        Lease {
            terms: self.terms(target),
            target: Rc::clone(target),
            key,
            received_before: live.received.bytes(),
            live: Some(live),
            in_flight: InFlight::at(address),
            in_step: Cell::new(true),
        }
    }
}

const fn outcome(error: &ConnectError) -> UpstreamConnection {
    match error {
        ConnectError::Refused(_) | ConnectError::Unreachable(..) | ConnectError::Http(..) => {
            UpstreamConnection::Unreachable
        }
        ConnectError::Timeout(..) => UpstreamConnection::Timeout,
        ConnectError::Tls(..) | ConnectError::Certificate(..) => UpstreamConnection::Tls,
    }
}

impl Target {
    /// How to prove who is at `address`; nothing for plain HTTP.
    fn proof(&self, address: SocketAddr) -> Result<Option<Proof>, IdentityError> {
        let UpstreamTls::Verified { roots, .. } = &self.upstream.tls else {
            return Ok(None);
        };
        let name = identity::server_name(&self.upstream, address)?;
        let mut client = self.client.borrow_mut();
        let config = client.get_or_insert_with(|| identity::client_config(roots.as_deref()));
        let config = Arc::clone(config.as_ref().map_err(Clone::clone)?);
        Ok(Some(Proof { config, name }))
    }
}

/// A connection and what is known of it.
struct Live {
    sender: Sender,
    watch: Rc<Watch>,
    received: Received,
    usage: Use,
}

impl From<Resting> for Live {
    fn from(resting: Resting) -> Self {
        Self {
            sender: resting.sender,
            watch: resting.watch,
            received: resting.received,
            usage: Use::Again,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    First,
    Again,
}

/// How long a request's waits may last, and how its connection is kept afterwards.
#[derive(Clone, Copy, Debug)]
struct Terms {
    patience: Patience,
    /// How long the connection may wait for a next request.
    idle: Duration,
    /// How many of the upstream may.
    most_idle: usize,
}

/// A connection lent to one request. Given back by [`Lease::give_back`]; dropped in any other way, it is closed.
pub(in crate::proxy) struct Lease {
    terms: Terms,
    target: Rc<Target>,
    key: Key,
    live: Option<Live>,
    received_before: u64,
    in_flight: InFlight,
    in_step: Cell<bool>,
}

/// How sending ended.
pub(in crate::proxy) type Sent = Result<Response<Incoming>, TrySendError<Request<Upload>>>;

impl Lease {
    /// The connection's watch.
    pub(in crate::proxy) fn watch(&self) -> Option<&Rc<Watch>> {
        self.live.as_ref().map(|live| &live.watch)
    }

    /// Begins a request, which has content still to come or not.
    pub(in crate::proxy) fn begin(&self, upload: watch::Upload, now: Instant) {
        if let Some(live) = &self.live {
            live.watch.begins(self.terms.patience, upload, now);
        }
    }

    /// Sends the request; ends with the head of the response.
    pub(in crate::proxy) fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Option<impl Future<Output = Sent> + use<>> {
        let live = self.live.as_mut()?;
        Some(live.sender.try_send_request(request))
    }

    /// Whether any byte has come back since the request began.
    pub(in crate::proxy) fn has_answered(&self) -> bool {
        let live = self.live.as_ref();
        live.is_none_or(|live| live.received.bytes() != self.received_before)
    }

    /// Whether it had been used before: then the upstream may have closed it while nobody looked.
    pub(in crate::proxy) fn is_reused(&self) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.usage == Use::Again)
    }

    /// The head of a response has come.
    pub(in crate::proxy) fn answered(&self) {
        self.in_flight.address().succeeded();
        // An answer before the request's end may leave the upstream out of step with us.
        let in_step = self
            .watch()
            .is_some_and(|watch| watch.upload() == watch::Upload::Ended);
        self.in_step.set(in_step);
    }

    /// The connection broke off before a response, through no fault of the visitor.
    pub(in crate::proxy) fn broke(&self, now: Instant) {
        if !self.is_reused() {
            self.in_flight.address().failed(now);
        }
    }

    /// Request and response have ended: the connection waits for a next request, unless anything was out of step.
    pub(in crate::proxy) fn give_back(mut self) {
        let Some(live) = self.live.take() else {
            return;
        };
        let clean = self.in_step.get()
            && live.watch.cut().is_none()
            && live.watch.upload() == watch::Upload::Ended
            && !live.sender.is_closed();
        if !clean {
            live.watch.cut_off(Cut::NotReusable);
            return;
        }
        let until = monotonic() + self.terms.idle;
        let resting = Resting {
            sender: live.sender,
            watch: live.watch,
            received: live.received,
        };
        let mut idle = self.target.idle.borrow_mut();
        idle.put(&self.key, resting, until, self.terms.most_idle);
    }

    /// The connection becomes a tunnel, which outlives the lease.
    pub(in crate::proxy) fn into_tunnel(mut self) {
        if let Some(live) = self.live.take() {
            live.watch.becomes_tunnel();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            live.watch.cut_off(Cut::Abandoned);
        }
    }
}
