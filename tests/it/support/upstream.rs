//! The core application: a real HTTP server that says what it was asked, and can be told to wait, to stream, to
//! break and to change protocol.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::place::Place;
use super::wait;

/// One piece of a download.
pub(crate) const PIECE: usize = 64 * 1024;
/// Pieces of a download; the first comes at once, the others when the story says so.
pub(crate) const PIECES: usize = 64;

/// A running server. Paths mean:
///
/// * `/allow?domain=` the permission hook: 200 for names that [`Upstream::allow`] named, else 403;
/// * `/download` one piece, and [`PIECES`] in all after [`Upstream::release`];
/// * `/held` an answer after [`Upstream::release`];
/// * `/broken` no answer, the connection closes;
/// * `/socket` changes protocol and echoes bytes;
/// * anything else: the request as JSON.
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<thread::JoinHandle<()>>,
}

struct State {
    name: &'static str,
    released: watch::Sender<bool>,
    requests: AtomicUsize,
    held: AtomicUsize,
    asked: Mutex<Vec<String>>,
    allowed: Mutex<Vec<String>>,
}

type Body = BoxBody<Bytes, io::Error>;

impl Upstream {
    pub(crate) fn start(place: &Place) -> Self {
        Self::named(place, "core")
    }

    /// One that says `name` in its answers.
    pub(crate) fn named(place: &Place, name: &'static str) -> Self {
        let listener = std::net::TcpListener::bind((place.address(), 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            name,
            released: watch::Sender::new(false),
            requests: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            asked: Mutex::default(),
            allowed: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&state);
        let server = thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(async {
                    tokio::select! {
                        () = serve(TcpListener::from_std(listener).unwrap(), serving) => {}
                        _ = stopped => {}
                    }
                });
        });
        Self {
            address,
            state,
            stop: Some(stop),
            server: Some(server),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the permission hook is asked.
    pub(crate) fn ask_url(&self) -> String {
        format!("http://{}/allow", self.address)
    }

    /// The permission hook allows `domain` from now on.
    pub(crate) fn allow(&self, domain: &str) {
        locked(&self.state.allowed).push(domain.to_owned());
    }

    /// Names that the permission hook was asked about, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        locked(&self.state.asked).clone()
    }

    /// Requests that arrived, those to the permission hook left out.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have arrived that wait for [`Upstream::release`].
    #[track_caller]
    pub(crate) fn wait_for_held(&self, count: usize) {
        wait::until("requests are held at the upstream", || {
            (self.state.held.load(Ordering::SeqCst) >= count).then_some(())
        });
    }

    /// Ends it; nobody answers at its address from now on.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }

    /// Lets go whatever waits.
    pub(crate) fn release(&self) {
        self.state.released.send_replace(true);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(Arc::clone(&state), request));
            // The other side may go away whenever it likes.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .with_upgrades()
                    .await,
            );
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    if request.uri().path() == "/allow" {
        return Ok(permission(&state, request.uri().query()));
    }
    state.requests.fetch_add(1, Ordering::SeqCst);
    match request.uri().path() {
        "/download" => Ok(Response::new(download(state))),
        "/held" => {
            released(&state).await;
            Ok(plain(StatusCode::OK, "released"))
        }
        "/broken" => Err(io::Error::other("asked to break")),
        "/socket" => Ok(upgraded(request)),
        _ => echoed(&state, request).await,
    }
}

async fn released(state: &State) {
    state.held.fetch_add(1, Ordering::SeqCst);
    let mut released = state.released.subscribe();
    // The sender lives in the state.
    drop(released.wait_for(|released| *released).await);
}

fn permission(state: &State, query: Option<&str>) -> Response<Body> {
    let domain = query
        .and_then(|query| query.strip_prefix("domain="))
        .unwrap_or_default()
        .to_owned();
    let allowed = locked(&state.allowed).contains(&domain);
    locked(&state.asked).push(domain);
    if allowed {
        plain(StatusCode::OK, "yes")
    } else {
        plain(StatusCode::FORBIDDEN, "no")
    }
}

fn download(state: Arc<State>) -> Body {
    let pieces = stream::unfold((state, 0), |(state, sent)| async move {
        if sent == PIECES {
            return None;
        }
        if sent == 1 {
            released(&state).await;
        }
        let piece = Frame::data(Bytes::from(vec![b'v'; PIECE]));
        Some((Ok(piece), (state, sent + 1)))
    });
    StreamBody::new(Box::pin(pieces) as PieceStream).boxed()
}

type PieceStream =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync>>;

fn upgraded(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers()["sec-websocket-key"].as_bytes();
    // RFC 6455 §4.2.2.
    let proof = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &proof);
    let proof = STANDARD.encode(proof.as_ref());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            // It ends when the visitor goes.
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let fields = response.headers_mut();
    fields.insert(header::CONNECTION, "upgrade".parse().unwrap());
    fields.insert(header::UPGRADE, "websocket".parse().unwrap());
    fields.insert("sec-websocket-accept", proof.parse().unwrap());
    response
}

async fn echoed(state: &State, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let fields: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        })
        .collect();
    let text = serde_json::json!({
        "upstream": state.name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "fields": fields,
        "body_bytes": body.len(),
    });
    Ok(plain(StatusCode::OK, &text.to_string()))
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()))
        .map_err(|never: Infallible| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
