//! Workers: threads that share nothing mutable but counters, each with its own run time, sockets and pools.

use std::future::Future;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rustix::process::{Resource, getrlimit};

use crate::base::clock::Clock;
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::challenge::Challenges;
use crate::certs::lists::Lists;
use crate::certs::on_demand::OnDemand;
use crate::certs::resolver::Resolver;
use crate::model::Snapshot;
use crate::proxy::accept;
use crate::proxy::admission::Admission;
use crate::proxy::drain::Drain;
use crate::proxy::facts::{ConnectionFacts, ConnectionId};
use crate::proxy::report::Reports;
use crate::proxy::settings::Settings;
use crate::proxy::tickets::TicketKeys;
use crate::proxy::tls::Composer;
use crate::proxy::upstream::Pools;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trouble::UpstreamTroubles;

/// How long tasks may take to notice that they have been cancelled.
const CANCELLED_WITHIN: Duration = Duration::from_secs(1);

/// What the proxy is given by the rest of the program.
#[derive(Clone, Debug)]
pub struct Services {
    /// Every known name and route.
    pub snapshot: Published<Snapshot>,
    /// Credentials in memory.
    pub resolver: Resolver,
    /// The way to a credential that is not in memory.
    pub on_demand: OnDemand,
    /// Answers to CAs.
    pub challenges: Challenges,
    /// Lists of revoked certificates.
    pub lists: Lists,
    /// The settings.
    pub settings: Published<Settings>,
    /// The time.
    pub clock: Clock,
    /// Metrics.
    pub metrics: Metrics,
    /// Whose upstreams fail at present.
    pub troubles: UpstreamTroubles,
    /// The access log.
    pub access_log: AccessLog,
    /// Who watches handshakes.
    pub reports: Reports,
}

/// What all workers share: [`Services`], and the proxy's own. Immutable, or published, or counters.
#[derive(Debug)]
pub struct Shared {
    services: Services,
    /// Places for visitors.
    pub admission: Admission,
    /// The keys of session tickets.
    pub tickets: TicketKeys,
    connections: AtomicU64,
}

impl Deref for Shared {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

/// How many files this process may open.
fn open_files() -> Option<usize> {
    let files = getrlimit(Resource::Nofile).current?;
    usize::try_from(files).ok()
}

impl Shared {
    /// What workers share, with what the rest of the program gives.
    #[must_use]
    pub fn new(services: Services) -> Arc<Self> {
        Arc::new(Self {
            services,
            admission: Admission::within(open_files()),
            tickets: TicketKeys::new(),
            connections: AtomicU64::new(1),
        })
    }

    /// The number of one more connection.
    #[must_use]
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId::new(self.connections.fetch_add(1, Ordering::Relaxed))
    }
}

/// One worker, as everything on its thread sees it.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Owns every task on this thread: connections, tunnels, upstream connections.
    pub tasks: Tasks,
    /// Makes TLS configurations.
    pub composer: Composer,
    /// Connections to upstreams.
    pub pools: Pools,
    /// Says when connections shall wind down.
    pub drain: Drain,
}

/// What answers requests: the request half of the proxy, or a test's own.
pub trait Answer: Clone + Send + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + 'static;

    /// Answers one request of a connection. Never fails: what goes wrong is an answer too.
    fn answer(
        &self,
        worker: Rc<Worker>,
        connection: Rc<ConnectionFacts>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;
}

impl<F, R, B> Answer for F
where
    F: Fn(Rc<Worker>, Rc<ConnectionFacts>, Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static,
{
    type Body = B;

    fn answer(
        &self,
        worker: Rc<Worker>,
        connection: Rc<ConnectionFacts>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<B>> + 'static {
        self(worker, connection, request)
    }
}

impl Worker {
    /// A worker that will end with `tasks`.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>, tasks: Tasks, drain: Drain) -> Rc<Self> {
        let composer = Composer::new(shared.tickets.clone());
        // A group of its own: a drain waits for visitors, not for idle connections to upstreams, which end with
        // the thread.
        let pools = Pools::new(
            tasks.child(),
            shared.metrics.clone(),
            shared.settings.clone(),
        );
        Rc::new(Self {
            index,
            shared,
            tasks,
            composer,
            pools,
            drain,
        })
    }

    /// Accepts until the drain begins, and ends when every connection has, or soon after it is cancelled.
    pub(in crate::proxy) async fn run<A: Answer>(
        self: Rc<Self>,
        sockets: Vec<accept::Socket>,
        answer: A,
    ) {
        for socket in sockets {
            let (worker, answer) = (Rc::clone(&self), answer.clone());
            self.tasks
                .spawn_local("accept", accept::run(worker, socket, answer));
        }
        let cancelled = async {
            self.tasks.cancelled().await;
            tokio::time::sleep(CANCELLED_WITHIN).await;
        };
        tokio::select! {
            _left = self.tasks.finish(Duration::MAX) => {}
            () = cancelled => {}
        }
    }
}
