//! One TLS connection: handshake, then HTTP/1.1 or HTTP/2 by ALPN, until it ends, idles too long or is drained.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_rustls::server::TlsStream;

use crate::base::clock::Instant;
use crate::base::task::Tasks;
use crate::proxy::client_hello::Refused;
use crate::proxy::counted::Counted;
use crate::proxy::drive::{Driver, Ended, Pause, Rest};
use crate::proxy::facts::{ConnectionFacts, HttpProtocol};
use crate::proxy::frames::Allowance;
use crate::proxy::handshake::{self, Arrival, Established, Performed};
use crate::proxy::limits::{Deadlines, Limits};
use crate::proxy::pulse::Pulse;
use crate::proxy::report::{AnsweredBy, FirstAnswer, PendingReport};
use crate::proxy::resting::Resting;
use crate::proxy::street::Street;
use crate::proxy::watched::Watched;
use crate::proxy::worker::{Answer, Worker};

/// The least buffer that hyper accepts.
const LEAST_BUFFER: usize = 8 * 1024;
/// Fields up to which hyper needs no heap for them.
const USUAL_FIELDS: usize = 100;
/// Resets that a visitor may have pending, and that he may provoke, before he is sent away (RFC 9113 §10.5;
/// CVE-2023-44487, CVE-2025-8671).
const PENDING_RESETS: usize = 20;
const PROVOKED_RESETS: usize = 100;
/// What a stream and a connection may send ahead of our reading. Below 1 MiB for the connection the h2 library's
/// budget for small frames would end legitimate gRPC.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is buffered of an answer, per stream.
const SEND_BUFFER: usize = 64 * 1024;

type Stream = Watched<TlsStream<Street>>;
type AnswerFuture<B> = Pin<Box<dyn Future<Output = Result<Response<Counted<B>>, Infallible>>>>;

/// Serves one connection from accept to its end.
pub(in crate::proxy) async fn serve<A: Answer>(worker: Rc<Worker>, arrival: Arrival, answer: A) {
    // Each half is boxed, so that an idle connection does not keep the room that its handshake needed.
    let arrived = arrival.at;
    match Box::pin(handshake::perform(&worker, arrival)).await {
        Ok(Performed::Established(established)) => {
            Box::pin(converse(worker, established, answer)).await;
        }
        Ok(Performed::Proved) => {}
        Err(refused) => Box::pin(refuse(&worker, refused, arrived)).await,
    }
}

async fn converse<A: Answer>(worker: Rc<Worker>, established: Box<Established>, answer: A) {
    let settings = worker.shared.settings.get();
    let report = worker.note_established(&established);
    let Established { facts, stream, .. } = *established;
    let (id, protocol) = (facts.id, facts.tls.protocol);
    let pulse = Arc::clone(&facts.pulse);
    let requests = Rc::new(Requests {
        worker: Rc::clone(&worker),
        facts: Rc::new(facts),
        pulse: Arc::clone(&pulse),
        report: RefCell::new(report),
        answer,
    });
    let driver = Driver::new(worker, settings, pulse);
    let ended = match protocol {
        HttpProtocol::Http1 => Box::pin(converse_http1(driver, stream, requests)).await,
        HttpProtocol::Http2 => Box::pin(converse_http2(driver, stream, requests)).await,
    };
    tracing::debug!(connection = %id, ended = ended.as_str(), "connection ended");
}

/// Requests, then rest, then requests again. Not an `async fn`, which would keep room for the stream twice.
fn converse_http1<A: Answer>(
    mut driver: Driver,
    stream: TlsStream<Street>,
    requests: Rc<Requests<A>>,
) -> impl Future<Output = Ended> {
    let mut stream: Stream = Watched::http1(stream, Arc::clone(&requests.pulse));
    async move {
        loop {
            let mut resting = Resting::new(&mut stream);
            if let Pause::Ended(ended) = driver.run(&mut resting, Rest::Never).await {
                return ended;
            }
            let requests = Rc::clone(&requests);
            let service = service_fn(move |request| requests.begin(request));
            // Boxed, and so let go while the connection rests.
            let mut connection = Box::new(
                http1_builder(&driver.settings().limits)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades(),
            );
            if let Pause::Ended(ended) = driver.run(&mut *connection, Rest::WhenIdle).await {
                return ended;
            }
            match connection.into_parts() {
                Some(parts) if parts.read_buf.is_empty() => stream = parts.io.into_inner(),
                // An idle connection is not upgraded and has no half of a head.
                _ => return Ended::Failed,
            }
        }
    }
}

async fn converse_http2<A: Answer>(
    mut driver: Driver,
    stream: TlsStream<Street>,
    requests: Rc<Requests<A>>,
) -> Ended {
    let settings = driver.settings();
    let most = Allowance {
        control: settings.limits.control_frames,
        given_up: settings.limits.given_up_requests,
    };
    let stream: Stream = Watched::http2(stream, Arc::clone(&requests.pulse), most);
    let executor = OnThisThread {
        tasks: requests.worker.tasks.clone(),
        pulse: Arc::clone(&requests.pulse),
    };
    let builder = http2_builder(executor, &settings.limits, &settings.deadlines);
    let service = service_fn(move |request| requests.begin(request));
    let mut connection = Box::new(builder.serve_connection(TokioIo::new(stream), service));
    match driver.run(&mut *connection, Rest::Never).await {
        Pause::Ended(ended) => ended,
        Pause::Resting | Pause::Awake => Ended::InOrder,
    }
}

/// hyper's HTTP/1.1 with our limits. Its own timeout for heads is off: [`crate::proxy::drive`] has ours, which tell an idle
/// connection from a slow head.
pub(in crate::proxy) fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(LEAST_BUFFER));
    if limits.fields != USUAL_FIELDS {
        builder.max_headers(limits.fields);
    }
    builder
}

fn http2_builder(
    executor: OnThisThread,
    limits: &Limits,
    deadlines: &Deadlines,
) -> http2::Builder<OnThisThread> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(PROVOKED_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(deadlines.ping)
        .keep_alive_timeout(deadlines.pong);
    builder
}

/// Runs the HTTP/2 streams of a connection as tasks of the worker, and drops those whose visitor takes nothing.
#[derive(Clone, Debug)]
struct OnThisThread {
    tasks: Tasks,
    pulse: Arc<Pulse>,
}

impl<F: Future<Output = ()> + Unpin + 'static> Executor<F> for OnThisThread {
    fn execute(&self, mut stream: F) {
        // hyper runs a request's stream as soon as its service has been called; all else is a tunnel's.
        let Some(sending) = self.pulse.begun() else {
            return self.tasks.spawn_local("h2 tunnel", stream);
        };
        let pulse = Arc::clone(&self.pulse);
        self.tasks.spawn_local("h2 stream", async move {
            tokio::select! {
                biased;
                () = &mut stream => {}
                () = poll_fn(|cx| sending.poll_given_up(cx)) => pulse.drop_stalled(stream),
            }
        });
    }
}

/// What each request of a connection needs.
struct Requests<A> {
    worker: Rc<Worker>,
    facts: Rc<ConnectionFacts>,
    pulse: Arc<Pulse>,
    report: RefCell<Option<PendingReport>>,
    answer: A,
}

impl<A: Answer> Requests<A> {
    /// Begins to answer. The future is boxed, for hyper keeps room for it as long as the connection lives.
    fn begin(self: &Rc<Self>, request: Request<Incoming>) -> AnswerFuture<A::Body> {
        let in_request = match self.facts.tls.protocol {
            HttpProtocol::Http1 => self.pulse.request(),
            HttpProtocol::Http2 => self.pulse.stream(),
        };
        let (worker, facts) = (Rc::clone(&self.worker), Rc::clone(&self.facts));
        let answer = self.answer.answer(worker, facts, request);
        let own = Rc::clone(self);
        Box::pin(async move {
            let mut response = answer.await;
            let in_request = in_request.answered();
            if let Some(report) = own.report.take() {
                report.answered(FirstAnswer {
                    status: response.status(),
                    upstream: response
                        .extensions()
                        .get::<AnsweredBy>()
                        .map(|by| by.0.clone()),
                });
            }
            let http1 = own.facts.tls.protocol == HttpProtocol::Http1;
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if http1 && own.worker.drain.has_begun() && !switches {
                // The last answer says so, and no client loses the race of a request against our close.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok(response.map(|body| Counted::new(body, in_request)))
        })
    }
}

/// Tells a visitor that he is not served, and notes why.
async fn refuse(worker: &Worker, refused: Refused, arrived: Instant) {
    let Refused {
        reject,
        server_name,
        street,
    } = refused;
    worker.note_refused(reject, arrived, server_name.as_ref());
    if let (Some(alert), Some(street)) = (reject.alert(), street) {
        street.close_with(&alert.record()).await;
    }
}
