//! Upstreams that say exactly what a test has them say, byte for byte, and remember what they heard.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Edge, soon, until};
use crate::base::task::Tasks;
use crate::model::route::{
    HeaderEdits, PathPrefix, Route, RouteScope, Upstream, UpstreamAddress, UpstreamName,
    UpstreamTimeouts, UpstreamTls,
};
use crate::model::snapshot::Routes;
use crate::model::{NamePattern, TenantId};
use crate::proxy::request;
use crate::proxy::settings::Settings;
use crate::telemetry::access::AccessLog;

/// A request as an upstream heard it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Which of the upstream's connections, from 0.
    pub connection: usize,
    /// How many requests that connection had carried before.
    pub before: usize,
    /// The head, without its empty line.
    pub head: String,
    /// The content, chunks put together.
    pub content: Vec<u8>,
    /// The lines behind the last chunk.
    pub trailers: Vec<String>,
}

impl Heard {
    /// The values of a field, in order.
    pub(super) fn field(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().skip(1);
        lines
            .filter_map(|line| line.split_once(':'))
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    /// The request line.
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// What an upstream does with a request it heard.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Says this and waits for the next request.
    Say(Vec<u8>),
    /// Says this and closes.
    SayAndClose(Vec<u8>),
    /// Says this and resets the connection.
    SayAndReset(Vec<u8>),
    /// Says this, then sends back whatever comes.
    SayAndEcho(Vec<u8>),
    /// Says this again and again until nobody takes it.
    SayForever(Vec<u8>),
    /// Says nothing, reads what comes, and keeps the connection.
    Hang,
    /// Says nothing, reads nothing, and keeps the connection.
    Stall,
}

/// A 200 with this content.
pub(super) fn ok(content: &str) -> Reply {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    Reply::Say([head.as_bytes(), content.as_bytes()].concat())
}

/// Exactly these bytes.
pub(super) fn say(bytes: &str) -> Reply {
    Reply::Say(bytes.as_bytes().to_vec())
}

/// A running upstream.
pub(super) struct Backend {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    closed: Arc<Mutex<usize>>,
    /// By [`Reply::SayForever`].
    pub said: Arc<Spoken>,
    tasks: Tasks,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// When an upstream answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// When it has read the whole request.
    Polite,
    /// When it has read the head.
    Early,
}

impl Backend {
    /// Answers each whole request by `reply`.
    pub(super) async fn start(reply: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_in(Manner::Polite, reply).await
    }

    pub(super) async fn start_in(
        manner: Manner,
        reply: impl Fn(&Heard) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, heard) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let closed = Arc::new(Mutex::new(0));
        let said = Arc::new(Spoken::default());
        let (own, log, ended) = (tasks.clone(), Arc::clone(&heard), Arc::clone(&closed));
        let told = Arc::clone(&said);
        let reply = Arc::new(reply);
        tasks.spawn_until_cancelled("upstream", async move {
            for connection in 0.. {
                let (stream, _peer) = listener.accept().await.unwrap();
                let (log, reply, ended) =
                    (Arc::clone(&log), Arc::clone(&reply), Arc::clone(&ended));
                let told = Arc::clone(&told);
                own.spawn_until_cancelled("upstream connection", async move {
                    let first = Heard {
                        connection,
                        ..Heard::default()
                    };
                    converse(stream, manner, first, (&log, &told), &*reply).await;
                    *ended.lock().unwrap() += 1;
                });
            }
        });
        Self {
            address,
            heard,
            closed,
            said,
            tasks,
        }
    }

    /// Every request heard so far.
    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The only request heard.
    pub(super) fn only(&self) -> Heard {
        let heard = self.heard();
        assert_eq!(heard.len(), 1, "{heard:#?}");
        heard.into_iter().next().unwrap()
    }

    /// Waits until so many connections have ended.
    pub(super) async fn until_closed(&self, count: usize) {
        until(|| *self.closed.lock().unwrap() >= count).await;
    }

    /// Stops listening and closes every connection.
    pub(super) async fn stop(&self) {
        self.tasks.cancel();
        assert_eq!(self.tasks.finish(Duration::from_secs(20)).await, 0);
    }
}

async fn converse(
    mut stream: TcpStream,
    manner: Manner,
    mut next: Heard,
    (log, said): (&Mutex<Vec<Heard>>, &Spoken),
    reply: &(dyn Fn(&Heard) -> Reply + Send + Sync),
) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        next.head = head;
        next.content = Vec::new();
        let place = log.lock().unwrap().len();
        log.lock().unwrap().push(next.clone());
        if manner == Manner::Polite {
            let Some((content, trailers)) = read_content(&mut stream, &mut buffer, &next).await
            else {
                return;
            };
            (next.content, next.trailers) = (content, trailers);
            log.lock().unwrap()[place].clone_from(&next);
        }
        let answered = match reply(&next) {
            Reply::Say(bytes) => stream.write_all(&bytes).await,
            Reply::SayAndClose(bytes) => {
                drop(stream.write_all(&bytes).await);
                return;
            }
            Reply::SayAndReset(bytes) => {
                drop(stream.write_all(&bytes).await);
                socket2::SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                return;
            }
            Reply::SayAndEcho(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                let (mut reading, mut writing) = stream.split();
                drop(tokio::io::copy(&mut reading, &mut writing).await);
                return;
            }
            Reply::SayForever(bytes) => {
                speak_forever(&mut stream, &bytes, said).await;
                return;
            }
            Reply::Stall => std::future::pending().await,
            Reply::Hang => {
                drop(stream.read_to_end(&mut buffer).await);
                return;
            }
        };
        if answered.is_err() {
            return;
        }
        next.before += 1;
    }
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 4);
            return Some(head);
        }
        match stream.read_buf(buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn read_content(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    heard: &Heard,
) -> Option<(Vec<u8>, Vec<String>)> {
    let mut trailers = Vec::new();
    if heard.field("transfer-encoding") == ["chunked"] {
        let mut content = Vec::new();
        loop {
            let line = read_until(stream, buffer, b"\r\n").await?;
            let length = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            if length == 0 {
                loop {
                    let line = read_until(stream, buffer, b"\r\n").await?;
                    if line.is_empty() {
                        return Some((content, trailers));
                    }
                    trailers.push(line);
                }
            }
            content.extend(read_exactly(stream, buffer, length).await?);
            read_exactly(stream, buffer, 2).await?;
        }
    }
    let length = heard
        .field("content-length")
        .first()
        .map_or(0, |n| n.parse().unwrap());
    Some((read_exactly(stream, buffer, length).await?, trailers))
}

async fn read_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|part| part == end) {
            let line = String::from_utf8_lossy(&buffer[..at]).into_owned();
            buffer.drain(..at + end.len());
            return Some(line);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn read_exactly(stream: &mut TcpStream, buffer: &mut Vec<u8>, n: usize) -> Option<Vec<u8>> {
    while buffer.len() < n {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(buffer.drain(..n).collect())
}

/// How much was written, and whether the other side has stopped taking more.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    bytes: AtomicUsize,
    stuck: AtomicBool,
}

impl Spoken {
    /// Waits until the other side takes no more; tells how much it took.
    pub(super) async fn until_stuck(&self) -> usize {
        until(|| self.stuck.load(Ordering::Relaxed)).await;
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until the other side takes more again.
    pub(super) async fn until_moving(&self) {
        until(|| !self.stuck.load(Ordering::Relaxed)).await;
    }
}

/// Writes `bytes` again and again until nobody takes them.
pub(super) async fn speak_forever(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    spoken: &Spoken,
) {
    loop {
        let mut write = pin!(stream.write_all(bytes));
        let in_time = tokio::time::timeout(Duration::from_millis(300), &mut write).await;
        let written = match in_time {
            Ok(written) => written,
            Err(_stuck) => {
                spoken.stuck.store(true, Ordering::Relaxed);
                let written = write.await;
                spoken.stuck.store(false, Ordering::Relaxed);
                written
            }
        };
        if written.is_err() {
            return;
        }
        spoken.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
    }
}

/// An edge that carries requests to upstreams, with certificates for `a.test` and `www.a.test` (tenant `acme`) and
/// `b.test` (tenant `globex`).
pub(super) fn edge() -> Edge {
    edge_with(AccessLog::off())
}

pub(super) fn edge_with(access_log: AccessLog) -> Edge {
    edge_under(|_| {}, access_log)
}

/// The same under other settings.
pub(super) fn edge_set(configure: impl FnOnce(&mut Settings)) -> Edge {
    edge_under(configure, AccessLog::off())
}

fn edge_under(configure: impl FnOnce(&mut Settings), access_log: AccessLog) -> Edge {
    let mut edge = Edge::start_with(configure, access_log, &request::serve);
    edge.serve("acme", &["a.test", "www.a.test"]);
    edge.serve("globex", &["b.test"]);
    edge
}

/// An edge, and an upstream that answers everyone by `reply`.
pub(super) async fn through(
    reply: impl Fn(&Heard) -> Reply + Send + Sync + 'static,
) -> (Edge, Backend) {
    let (edge, backend) = (edge(), Backend::start(reply).await);
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    (edge, backend)
}

impl Edge {
    /// Sets the routes.
    pub(super) fn lead(&self, routes: Vec<Route>) {
        self.lead_some(routes, Vec::new());
    }

    /// Sets the routes, and those of domains whose upstream the permission hook chose.
    pub(super) fn lead_some(&self, routes: Vec<Route>, whole: Vec<Route>) {
        let routes = Routes::new(routes, whole);
        self.shared.snapshot.update(|snapshot| {
            let mut next = snapshot.clone();
            next.set_routes(routes.clone());
            next
        });
    }
}

/// Deadlines short enough to wait for.
pub(super) const SHORT: UpstreamTimeouts = UpstreamTimeouts {
    connect: Duration::from_millis(300),
    response: Duration::from_millis(300),
    idle: Duration::from_millis(300),
};

impl Backend {
    /// The upstream of this name at its address, by plain HTTP.
    pub(super) fn upstream(&self, name: &str) -> Arc<Upstream> {
        upstream(name, &[self.address], UpstreamTimeouts::default())
    }
}

pub(super) fn upstream(
    name: &str,
    addresses: &[SocketAddr],
    timeouts: UpstreamTimeouts,
) -> Arc<Upstream> {
    let addresses = addresses.iter().copied().map(UpstreamAddress::Socket);
    let name = UpstreamName::new(name);
    Arc::new(Upstream::new(
        name,
        addresses.collect(),
        UpstreamTls::None,
        timeouts,
    ))
}

/// Everyone's requests go to `upstream`.
pub(super) fn everyone(upstream: &Arc<Upstream>) -> Route {
    route(RouteScope::Everyone, "/", upstream)
}

pub(super) fn route(scope: RouteScope, path: &str, upstream: &Arc<Upstream>) -> Route {
    Route {
        scope,
        path: PathPrefix::new(path).unwrap(),
        upstream: Arc::clone(upstream),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        tenants: None,
    }
}

pub(super) fn of_tenant(tenant: &str) -> RouteScope {
    RouteScope::Tenant(TenantId::parse(tenant).unwrap())
}

pub(super) fn of_host(host: &str) -> RouteScope {
    RouteScope::Host(NamePattern::parse(host).unwrap())
}

/// An address where nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    let listener = soon(TcpListener::bind("127.0.0.1:0")).await.unwrap();
    listener.local_addr().unwrap()
}
