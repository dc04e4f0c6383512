//! A street side with certificates of its own, and visitors.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::base::clock::{Clock, Timestamp};
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::challenge::Challenges;
use crate::certs::credential::Credential;
use crate::certs::lists::Lists;
use crate::certs::on_demand::{self, OnDemand, Wanted};
use crate::certs::resolver::Resolver;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::snapshot::KnownDomain;
use crate::model::{DnsName, NamePattern, Snapshot, TenantId};
use crate::proxy::facts::ConnectionFacts;
use crate::proxy::listener::{Bound, Inherited, Port};
use crate::proxy::report::{HandshakeReport, Reports};
use crate::proxy::running::Running;
use crate::proxy::settings::Settings;
use crate::proxy::worker::{Answer, Services, Shared, Worker};
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trouble::UpstreamTroubles;

/// Nothing in these tests takes longer where it works.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must come.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// Waits until something holds.
pub(super) async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A certificate for `names` that signs itself.
pub(super) fn credential(tenant: &str, names: &[&str]) -> Arc<Credential> {
    let key = KeyPair::generate().unwrap();
    let subjects: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let cert = CertificateParams::new(subjects)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
    let now = Clock::system().now();
    Arc::new(Credential {
        facts: CertificateFacts {
            id: CertificateId::new(),
            tenant: TenantId::parse(tenant).unwrap(),
            names: names
                .iter()
                .map(|name| NamePattern::parse(name).unwrap())
                .collect(),
            ca: CaId::new("test"),
            serial: "01".to_owned(),
            not_before: now.minus(Duration::from_hours(1)),
            not_after: Timestamp::MAX,
        },
        certified: Arc::new(CertifiedKey::new(vec![cert.der().clone()], signer)),
    })
}

/// A running street side.
pub(super) struct Edge {
    pub running: Option<Running>,
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub shared: Arc<Shared>,
    pub wanted: mpsc::Receiver<Wanted>,
    pub reports: mpsc::Receiver<HandshakeReport>,
    /// Lets one request for `/held` go on.
    pub release: Arc<Notify>,
    roots: RootCertStore,
    tasks: Tasks,
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Edge {
    /// On free ports of 127.0.0.1, with two workers; knows no name. Answers by itself.
    pub(super) fn start(configure: impl FnOnce(&mut Settings)) -> Self {
        let release = Arc::new(Notify::new());
        let held = Arc::clone(&release);
        let answer = move |_: Rc<Worker>, facts: Rc<ConnectionFacts>, request| {
            respond(facts, request, Arc::clone(&held))
        };
        let mut edge = Self::start_with(configure, AccessLog::off(), &answer);
        edge.release = release;
        edge
    }

    /// The same with another's answers.
    pub(super) fn start_with(
        configure: impl FnOnce(&mut Settings),
        access_log: AccessLog,
        answer: &impl Answer,
    ) -> Self {
        let challenges = |_: &Published<Snapshot>| Challenges::default();
        Self::start_whole(configure, access_log, challenges, answer)
    }

    /// The same with another way to the challenges of others, which is given the names that are known.
    pub(super) fn start_whole(
        configure: impl FnOnce(&mut Settings),
        access_log: AccessLog,
        challenges: impl FnOnce(&Published<Snapshot>) -> Challenges,
        answer: &impl Answer,
    ) -> Self {
        let mut settings = Settings {
            https: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            http: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            workers: NonZeroUsize::new(2).unwrap(),
            ..Settings::default()
        };
        configure(&mut settings);
        let bound = Bound::bind(&settings, Inherited::default()).unwrap();
        let https = bound.addresses(Port::Https).next().unwrap();
        let http = bound.addresses(Port::Http).next().unwrap();
        let mut snapshot = Snapshot::empty();
        snapshot.mark_complete();
        let snapshot = Published::new(snapshot);
        let (on_demand, wanted) =
            OnDemand::channel(&on_demand::Settings::default(), snapshot.clone(), None);
        let (reports, watched) = Reports::watched(64);
        let challenges = challenges(&snapshot);
        let shared = Shared::new(Services {
            snapshot,
            resolver: Resolver::new(1 << 20),
            on_demand,
            challenges,
            lists: Lists::default(),
            settings: Published::new(settings),
            clock: Clock::system(),
            metrics: Metrics::default(),
            troubles: UpstreamTroubles::default(),
            access_log,
            reports,
        });
        let tasks = Tasks::new();
        let running = bound.start(Arc::clone(&shared), &tasks, answer).unwrap();
        Self {
            running: Some(running),
            https,
            http,
            shared,
            wanted,
            reports: watched,
            release: Arc::new(Notify::new()),
            roots: RootCertStore::empty(),
            tasks,
        }
    }

    /// Registers names for a tenant, without a certificate.
    pub(super) fn know(&self, tenant: &str, names: &[&str]) {
        self.set_domains(tenant, names, Answered::Yes);
    }

    /// Registers names for a tenant, suspended.
    pub(super) fn suspend(&self, tenant: &str, names: &[&str]) {
        self.set_domains(tenant, names, Answered::No);
    }

    fn set_domains(&self, tenant: &str, names: &[&str], answered: Answered) {
        self.shared.snapshot.update(|snapshot| {
            let mut next = snapshot.clone();
            next.put(names.iter().map(|name| {
                let domain = KnownDomain {
                    tenant: TenantId::parse(tenant).unwrap(),
                    served: answered == Answered::Yes,
                    upstream: None,
                };
                (NamePattern::parse(name).unwrap(), domain)
            }));
            next
        });
    }

    /// Registers names for a tenant and has a certificate for them in memory.
    pub(super) fn serve(&mut self, tenant: &str, names: &[&str]) -> Arc<Credential> {
        self.know(tenant, names);
        let credential = credential(tenant, names);
        self.shared.resolver.put(&credential);
        self.trust(&credential);
        credential
    }

    /// Lets visitors trust a certificate.
    pub(super) fn trust(&mut self, credential: &Credential) {
        let cert: CertificateDer<'static> = credential.certified.cert[0].clone();
        self.roots.add(cert).unwrap();
    }

    /// The certificates that visitors trust.
    pub(super) fn roots(&self) -> RootCertStore {
        self.roots.clone()
    }

    /// What a visitor's TLS is made of; change it at will.
    pub(super) fn client(&self, alpn: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(self.roots.clone())
        .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        config
    }

    /// A TLS connection to `name`, or why there is none.
    pub(super) async fn visit(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.visit_with(Arc::new(self.client(&[])), name).await
    }

    pub(super) async fn visit_with(
        &self,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.https).await?;
        self.visit_over(tcp, config, name).await
    }

    pub(super) async fn visit_over(
        &self,
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        soon(TlsConnector::from(config).connect(name, tcp)).await
    }

    /// Ends it in order; tells how many connections were cut.
    pub(super) async fn drain(&mut self, deadline: Duration) -> usize {
        let running = self.running.take().unwrap();
        soon(running.drain(deadline)).await
    }

    /// Waits until so many connections are open.
    pub(super) async fn until_open(&self, count: usize) {
        until(|| self.shared.admission.open() == count).await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    Yes,
    No,
}

/// Says who asked whom; `/held` waits for [`Edge::release`], `/large` is a mebibyte.
async fn respond(
    facts: Rc<ConnectionFacts>,
    request: Request<Incoming>,
    held: Arc<Notify>,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/held" => held.notified().await,
        "/large" => return Response::new(Full::from(vec![b'x'; 1 << 20])),
        _ => {}
    }
    let text = format!(
        "{} {} {}",
        facts.tls.tenant, facts.tls.server_name, facts.endpoints.visitor
    );
    Response::new(Full::from(text))
}

/// Sends one request over HTTP/1.1 that asks to close, and reads everything until the end.
pub(super) async fn get<S>(stream: &mut S, host: &str, path: &str) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    tell(stream, request.as_bytes()).await
}

/// Sends `bytes` and reads everything until the end.
pub(super) async fn tell<S>(stream: &mut S, bytes: &[u8]) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    soon(async {
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        String::from_utf8_lossy(&rest(stream).await).into_owned()
    })
    .await
}

/// Everything until the end, whether it ends in order or not.
pub(super) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(async {
        // What came before a reset counts as well.
        drop(stream.read_to_end(&mut bytes).await);
    })
    .await;
    bytes
}

/// One whole answer to a keep-alive request, by its Content-Length.
pub(super) async fn exchange<S>(stream: &mut S, host: &str, path: &str) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    soon(stream.write_all(request.as_bytes())).await.unwrap();
    answer(stream).await
}

/// One whole answer, by its Content-Length.
pub(super) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    soon(async {
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && body.len() >= content_length(head)
            {
                return text;
            }
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "{text}");
        }
    })
    .await
}

fn content_length(head: &str) -> usize {
    head.lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap())
}

/// A name, parsed.
pub(super) fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

/// The bytes of a ClientHello for `name`, in one record.
pub(super) fn hello_bytes(config: ClientConfig, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}
