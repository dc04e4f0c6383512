//! The wire between the edge and its CA, in a story's hands: it passes every request on and counts the orders, and can
//! hold a request at a named step, let it go wrong, or stand for a CA that is broken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::fault::Fault;
use super::pebble::{Pebble, ServerIdentity};
use super::place::{Place, port};
use super::wait;

/// A request of an issuance, or of a revocation, by what it asks the CA for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Directory,
    Account,
    Nonce,
    Order,
    Authorization,
    Challenge,
    Look,
    Finalize,
    Certificate,
    Revocation,
}

impl Step {
    /// Those of an issuance.
    pub(crate) const ALL: [Self; 9] = [
        Self::Directory,
        Self::Account,
        Self::Nonce,
        Self::Order,
        Self::Authorization,
        Self::Challenge,
        Self::Look,
        Self::Finalize,
        Self::Certificate,
    ];

    /// Pebble's paths.
    fn of(path: &str) -> Option<Self> {
        let first = path.split('/').nth(1).unwrap_or_default();
        match first {
            "dir" => Some(Self::Directory),
            "nonce-plz" => Some(Self::Nonce),
            "my-order" => Some(Self::Look),
            "sign-me-up" => Some(Self::Account),
            "order-plz" => Some(Self::Order),
            "authZ" => Some(Self::Authorization),
            "chalZ" => Some(Self::Challenge),
            "finalize-order" => Some(Self::Finalize),
            "certZ" => Some(Self::Certificate),
            "revoke-cert" => Some(Self::Revocation),
            _ => None,
        }
    }
}

/// On which side of the CA a held request stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The CA has not seen it.
    Before,
    /// The CA has done what was asked; the edge does not know yet.
    After,
}

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Passes everything on.
    Pass,
    /// Holds the first request of this step until [`Wire::release`].
    Hold(Step, Side),
    /// Lets the first request of this step go wrong.
    Fault(Step, Fault),
    /// Answers everything itself, with a page that is no ACME.
    Garbage,
    /// Answers everything itself with an internal error.
    Failing,
    /// Takes every request and never answers.
    Silent,
}

/// Before something goes wrong, so that requests which are on their way come before.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// A running wire.
pub(crate) struct Wire {
    directory: String,
    root: PathBuf,
    state: Arc<State>,
    _stop: oneshot::Sender<()>,
}

struct State {
    mood: Mutex<Mood>,
    seen: Mutex<Vec<(String, Instant)>>,
    faulted_at: Mutex<Option<Instant>>,
    placed: AtomicUsize,
    holding: watch::Sender<bool>,
    ca: std::net::SocketAddrV4,
    connector: TlsConnector,
}

impl Wire {
    /// Between the edge and `pebble`.
    pub(crate) fn start(place: &Place, pebble: &Pebble, mood: Mood) -> Self {
        let identity = ServerIdentity::make(place, "wire");
        let address = place.at(port::WIRE);
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(State {
            mood: Mutex::new(mood),
            seen: Mutex::default(),
            faulted_at: Mutex::default(),
            placed: AtomicUsize::new(0),
            holding: watch::Sender::new(false),
            ca: place.at(port::ACME),
            connector: connector(pebble.server_root()),
        });
        let (stop, stopped) = oneshot::channel();
        let (serving, acceptor) = (Arc::clone(&state), acceptor(&identity));
        thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        () = serve(listener, acceptor, serving) => {}
                        _ = stopped => {}
                    }
                });
        });
        Self {
            directory: format!("https://{address}/dir"),
            root: identity.root,
            state,
            _stop: stop,
        }
    }

    /// The URL that clients begin with.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// What to trust when speaking to the CA through this wire.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Changes what it does with later requests.
    pub(crate) fn become_(&self, mood: Mood) {
        *locked(&self.state.faulted_at) = None;
        *locked(&self.state.mood) = mood;
    }

    /// Paths of the requests that came, in order.
    pub(crate) fn seen(&self) -> Vec<String> {
        let seen = locked(&self.state.seen);
        seen.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Orders that the CA took.
    pub(crate) fn placed(&self) -> usize {
        self.state.placed.load(Ordering::Relaxed)
    }

    /// Whether the request of [`Mood::Fault`] came.
    pub(crate) fn has_faulted(&self) -> bool {
        locked(&self.state.faulted_at).is_some()
    }

    /// How long after it went wrong the next request of that step came; nothing where none did. What was on its way
    /// by then does not count.
    pub(crate) fn asked_again_after(&self, step: Step) -> Option<Duration> {
        let at = (*locked(&self.state.faulted_at))?;
        let seen = locked(&self.state.seen);
        let mut later = seen.iter().filter(|(_, seen)| *seen > at);
        let again = later.find(|(path, _)| Step::of(path) == Some(step));
        again.map(|(_, seen)| *seen - at)
    }

    /// Waits until the request of [`Mood::Hold`] is held.
    #[track_caller]
    pub(crate) fn wait_until_holding(&self) {
        wait::until("the wire holds a request", || {
            self.state.holding.borrow().then_some(())
        });
    }

    /// Lets the held request go and passes everything on.
    pub(crate) fn release(&self) {
        self.become_(Mood::Pass);
        self.state.holding.send_replace(false);
    }
}

impl State {
    /// What goes wrong with this request.
    fn fault_at(&self, path: &str, arrived: Instant) -> Option<Fault> {
        let mut mood = locked(&self.mood);
        let Mood::Fault(step, fault) = *mood else {
            return None;
        };
        if Step::of(path) != Some(step) {
            return None;
        }
        *mood = Mood::Pass;
        *locked(&self.faulted_at) = Some(arrived);
        Some(fault)
    }

    /// Has the next request of this step go wrong, unless something else is in store by now.
    fn go_wrong_later(&self, path: &str, fault: Fault) {
        let mut mood = locked(&self.mood);
        if let (Mood::Pass, Some(step)) = (*mood, Step::of(path)) {
            *mood = Mood::Fault(step, fault);
            *locked(&self.faulted_at) = None;
        }
    }

    /// Stops here where this request is the one to hold.
    async fn hold_at(&self, path: &str, side: Side) {
        {
            let mut mood = locked(&self.mood);
            match (*mood, Step::of(path)) {
                (Mood::Hold(step, at), Some(this)) if step == this && at == side => {
                    *mood = Mood::Pass;
                }
                _ => return,
            }
        }
        self.holding.send_replace(true);
        let mut holding = self.holding.subscribe();
        // The sender lives in the state.
        drop(holding.wait_for(|holding| !*holding).await);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        stream.set_nodelay(true).unwrap();
        let (state, acceptor) = (Arc::clone(&state), acceptor.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|request| answer(Arc::clone(&state), request));
            // The edge may go away whenever it likes.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
        });
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let arrived = Instant::now();
    locked(&state.seen).push((path.clone(), arrived));
    let fault = state.fault_at(&path, arrived);
    let mood = *locked(&state.mood);
    let fixed = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    match mood {
        Mood::Garbage => return Ok(fixed(StatusCode::OK, "<html>no CA lives here</html>")),
        Mood::Failing => {
            return Ok(fixed(StatusCode::INTERNAL_SERVER_ERROR, "out of order"));
        }
        Mood::Silent => return std::future::pending().await,
        Mood::Pass | Mood::Hold(..) | Mood::Fault(..) => {}
    }
    if let Some(response) = fault.and_then(Fault::instead) {
        drop(tokio::time::timeout(ON_ITS_WAY, std::future::pending::<()>()).await);
        *locked(&state.faulted_at) = Some(Instant::now());
        return Ok(response.map(Full::new));
    }
    if fault == Some(Fault::Hung) {
        return std::future::pending().await;
    }
    state.hold_at(&path, Side::Before).await;
    let mut response = passed_on(&state, request).await?;
    if response.status() == StatusCode::CREATED && Step::of(&path) == Some(Step::Order) {
        state.placed.fetch_add(1, Ordering::Relaxed);
    }
    state.hold_at(&path, Side::After).await;
    match fault {
        // A refused nonce says nothing about the step: its next try is the one that goes wrong.
        Some(fault) if response.status() == StatusCode::BAD_REQUEST => {
            state.go_wrong_later(&path, fault);
        }
        Some(fault) => response = fault.spoil(response),
        None => {}
    }
    Ok(response.map(Full::new))
}

/// The CA's own answer. `Host` stays as it is, so that the CA's URLs lead through this wire.
async fn passed_on(state: &State, request: Request<Incoming>) -> io::Result<Response<Bytes>> {
    let stream = TcpStream::connect(state.ca).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress((*state.ca.ip()).into());
    let stream = state.connector.connect(name, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = Request::from_parts(head, Full::new(body));
    let response = sender.send_request(request).await;
    let (head, body) = response.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(head, body))
}

fn acceptor(identity: &ServerIdentity) -> TlsAcceptor {
    let chain = certificates(&identity.chain);
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn connector(root: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(root) {
        roots.add(certificate).unwrap();
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}
