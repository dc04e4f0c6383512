//! Visitors who speak HTTP/2, by hyper's own client.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Edge, rest, soon, until};
use super::upstreams::{Backend, Heard, Reply, edge_set, everyone, ok, say, through};
use crate::base::task::Tasks;
use crate::proxy::upgrade;
use crate::telemetry::labels;

type Content = BoxBody<Bytes, Infallible>;

/// A visitor of `a.test`, and what drives the connection.
struct Visitor {
    sender: SendRequest<Content>,
    tasks: Tasks,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Visitor {
    async fn of(edge: &Edge) -> Self {
        Self::who(edge, |_| {}).await
    }

    /// One who speaks HTTP/2 in his own way.
    async fn who(edge: &Edge, speaks: impl FnOnce(&mut Builder<TokioExecutor>)) -> Self {
        let tls = edge
            .visit_with(Arc::new(edge.client(&["h2"])), "a.test")
            .await
            .unwrap();
        let mut builder = Builder::new(TokioExecutor::new());
        speaks(&mut builder);
        let handshake = Box::pin(builder.handshake(TokioIo::new(tls)));
        let connected = soon(handshake).await;
        let (sender, connection) = connected.unwrap();
        let tasks = Tasks::new();
        tasks.spawn_until_cancelled("visitor", async move { drop(connection.await) });
        Self { sender, tasks }
    }

    async fn ask(&mut self, request: Request<Content>) -> Response<Incoming> {
        soon(self.sender.send_request(request)).await.unwrap()
    }

    /// The server's SETTINGS, which allow extended CONNECT, come with the first answer at the latest.
    async fn learn_settings(&mut self) {
        let first = get("https://a.test/").method(Method::TRACE).body(none());
        let first = self.ask(first.unwrap()).await;
        assert_eq!(first.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    /// A WebSocket.
    async fn socket(&mut self) -> TokioIo<Upgraded> {
        self.learn_settings().await;
        let response = self.ask(wish("https://a.test/socket", "websocket")).await;
        assert_eq!(response.status(), StatusCode::OK);
        TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap())
    }
}

fn get(uri: &str) -> http::request::Builder {
    Request::builder().uri(uri).version(Version::HTTP_2)
}

fn none() -> Content {
    Empty::new().boxed()
}

async fn text(response: Response<Incoming>) -> String {
    let bytes = soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_become_http1_with_one_host_and_one_cookie() {
    let (edge, backend) = through(|_| {
        say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nConnection: X-Own\r\nX-Own: y\r\n\
             Alt-Svc: h3=\":1\"\r\nX-Kept: z\r\n\r\nok")
    })
    .await;
    let mut visitor = Visitor::of(&edge).await;
    let request = get("https://A.test/x?y")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3")
        .header("te", "trailers")
        .body(none())
        .unwrap();
    let response = visitor.ask(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let fields = response.headers().clone();
    for gone in ["alt-svc", "keep-alive", "connection", "x-own"] {
        assert!(!fields.contains_key(gone), "{gone}");
    }
    assert_eq!(fields["x-kept"], "z");
    assert_eq!(text(response).await, "ok");
    let heard = backend.only();
    assert_eq!(heard.line(), "GET /x?y HTTP/1.1");
    assert_eq!(heard.field("host"), ["a.test"]);
    assert_eq!(heard.field("cookie"), ["a=1; b=2; c=3"]);
    assert_eq!(
        fields["x-request-id"],
        heard.field("x-request-id")[0].as_str()
    );
}

#[tokio::test]
async fn authorities_are_compared_with_the_connection() {
    let (edge, backend) = through(|_| ok("ok")).await;
    let mut visitor = Visitor::of(&edge).await;
    for (uri, host, status) in [
        ("https://a.test/", None, 200),
        ("https://www.a.test/", None, 200),
        ("https://a.test/", Some("a.test"), 200),
        ("https://a.test/", Some("b.test"), 400),
        ("https://b.test/", Some("a.test"), 400),
        ("https://b.test/", None, 421),
        ("https://unknown.test/", None, 421),
        ("http://a.test/", None, 400),
    ] {
        let mut request = get(uri).body(none()).unwrap();
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        let response = visitor.ask(request).await;
        assert_eq!(response.status().as_u16(), status, "{uri} {host:?}");
    }
    let hosts: Vec<_> = backend
        .heard()
        .iter()
        .map(|heard| heard.field("host").join(","))
        .collect();
    assert_eq!(hosts, ["a.test", "www.a.test", "a.test"]);
}

#[tokio::test]
async fn content_of_unknown_length_is_chunked_for_any_method() {
    let (edge, backend) = through(|heard| ok(&String::from_utf8_lossy(&heard.content))).await;
    let mut visitor = Visitor::of(&edge).await;
    for method in [Method::POST, Method::GET] {
        let pieces = ["one ", "two ", "three"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
        let content = StreamBody::new(futures_util::stream::iter(pieces)).boxed();
        let request = get("https://a.test/").method(method).body(content).unwrap();
        let response = visitor.ask(request).await;
        assert_eq!(text(response).await, "one two three");
        assert_eq!(
            backend.heard().last().unwrap().field("transfer-encoding"),
            ["chunked"]
        );
    }
    let request = get("https://a.test/")
        .method(Method::POST)
        .body(Full::from("known").boxed());
    assert_eq!(text(visitor.ask(request.unwrap()).await).await, "known");
    assert_eq!(
        backend.heard().last().unwrap().field("content-length"),
        ["5"]
    );
}

#[tokio::test]
async fn content_that_breaks_off_resets_its_stream_only() {
    let (edge, _backend) = through(|heard| match heard.line().contains("/broken") {
        true => {
            Reply::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this".to_vec())
        }
        false => ok("whole"),
    })
    .await;
    let mut visitor = Visitor::of(&edge).await;
    let broken = visitor
        .ask(get("https://a.test/broken").body(none()).unwrap())
        .await;
    assert_eq!(broken.status(), StatusCode::OK);
    assert!(
        soon(broken.into_body().collect()).await.is_err(),
        "it looked whole"
    );
    let whole = visitor
        .ask(get("https://a.test/").body(none()).unwrap())
        .await;
    assert_eq!(text(whole).await, "whole");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (edge, backend) = through(|_| {
        say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Request-Id: forged\r\n\r\n",
        )
    })
    .await;
    let mut visitor = Visitor::of(&edge).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", HeaderValue::from_static("7"));
    trailers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
    let frames = [Frame::data(Bytes::from("hello")), Frame::trailers(trailers)].map(Ok);
    let content = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let request = get("https://a.test/")
        .method(Method::POST)
        .header("trailer", "x-check, x-forwarded-for")
        .body(content)
        .unwrap();
    let response = visitor.ask(request).await;
    let whole = soon(response.into_body().collect()).await.unwrap();
    let trailers = whole.trailers().unwrap();
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert_eq!(trailers["x-sum"], "1");
    assert_eq!(whole.to_bytes(), "ok");
    let heard = backend.only();
    assert_eq!(heard.content, b"hello");
    assert_eq!(heard.trailers, ["x-check: 7"]);
}

fn switch(heard: &Heard) -> Reply {
    let key = heard.field("sec-websocket-key").join("");
    let accept = upgrade::accept_of(key.as_bytes());
    let accept = match heard.line().contains("/liar") {
        true => "bGllcyBhbmQgc3RhdGlzdGljcw==",
        false => accept.to_str().unwrap(),
    };
    Reply::SayAndEcho(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes(),
    )
}

/// An extended CONNECT.
fn wish(uri: &str, protocol: &'static str) -> Request<Content> {
    let request = get(uri)
        .method(Method::CONNECT)
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static(protocol));
    request.body(none()).unwrap()
}

#[tokio::test]
async fn extended_connect_is_a_websocket_upgrade_to_the_upstream() {
    let (edge, backend) = through(switch).await;
    let mut visitor = Visitor::of(&edge).await;
    visitor.learn_settings().await;
    let other = visitor
        .ask(wish("https://a.test/socket", "connect-udp"))
        .await;
    assert_eq!(other.status(), StatusCode::METHOD_NOT_ALLOWED);
    let liar = visitor.ask(wish("https://a.test/liar", "websocket")).await;
    assert_eq!(liar.status(), StatusCode::BAD_GATEWAY);
    let response = visitor
        .ask(wish("https://a.test/socket", "websocket"))
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let upgraded = soon(hyper::upgrade::on(response)).await.unwrap();
    let mut socket = TokioIo::new(upgraded);
    soon(socket.write_all(b"hello")).await.unwrap();
    let mut echo = [0; 5];
    soon(socket.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");
    let heard = backend.heard().pop().unwrap();
    assert_eq!(heard.line(), "GET /socket HTTP/1.1");
    assert_eq!(heard.field("upgrade"), ["websocket"]);
    assert_eq!(heard.field("sec-websocket-version"), ["13"]);
    drop(socket);
    backend.until_closed(2).await;
}

async fn echoes(socket: &mut TokioIo<Upgraded>) {
    soon(socket.write_all(b"hello")).await.unwrap();
    let mut echo = [0; 5];
    soon(socket.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn a_connection_with_a_websocket_is_not_idle() {
    let edge = edge_set(|settings| settings.deadlines.keep_alive = Duration::from_millis(100));
    let backend = Backend::start(switch).await;
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    let mut visitor = Visitor::of(&edge).await;
    let mut socket = visitor.socket().await;
    // Others idle out meanwhile, so more than the deadline has passed, and what is given to close in order.
    for _ in 0..12 {
        rest(&mut edge.visit("a.test").await.unwrap()).await;
    }
    echoes(&mut socket).await;
    drop(socket);
    // Then it is idle again.
    edge.until_open(0).await;
}

#[tokio::test]
async fn a_websocket_may_go_on_until_the_drains_deadline() {
    let mut edge = edge_set(|settings| {
        settings.drain.idle = Duration::from_millis(20);
        settings.deadlines.head = Duration::from_millis(1500);
    });
    let backend = Backend::start(switch).await;
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    let mut visitor = Visitor::of(&edge).await;
    let mut socket = visitor.socket().await;
    let mut slow = edge.visit("a.test").await.unwrap();
    soon(slow.write_all(b"GET / HT")).await.unwrap();
    let shared = Arc::clone(&edge.shared);
    let drained = edge.drain(Duration::from_secs(15));
    let visitors = async {
        // A head is waited for longer than an idle connection lasts, with what it is given to close in order.
        rest(&mut slow).await;
        until(|| shared.admission.open() == 1).await;
        echoes(&mut socket).await;
        drop((socket, visitor));
    };
    let (cut, ()) = soon(async { tokio::join!(drained, visitors) }).await;
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn an_answer_that_is_no_101_never_opens_a_tunnel() {
    let (edge, _backend) = through(|heard| {
        Reply::SayAndClose(match heard.line().contains("/length") {
            true => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
            false => b"HTTP/1.1 200 OK\r\n\r\nok".to_vec(),
        })
    })
    .await;
    let mut visitor = Visitor::of(&edge).await;
    visitor.learn_settings().await;
    for uri in ["https://a.test/", "https://a.test/length"] {
        let response = visitor.ask(wish(uri, "websocket")).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{uri}");
        assert!(text(response).await.contains("upstream_upgrade_failed"));
    }
}

#[tokio::test]
async fn a_visitor_who_gives_up_request_after_request_is_sent_away() {
    let (edge, backend) = through(|_| Reply::Hang).await;
    let mut visitor = Visitor::of(&edge).await;
    let open = &edge.shared.metrics.requests_open;
    let mut served = 0;
    while served < 200 && !visitor.sender.is_closed() {
        let asked = visitor
            .sender
            .send_request(get("https://a.test/").body(none()).unwrap());
        // As paced as can be: each is given up once it is at the upstream, and the next comes once that is known.
        let at_upstream = until(|| backend.heard().len() > served);
        tokio::select! {
            answered = asked => {
                assert!(answered.is_err());
                break;
            }
            () = at_upstream => {}
        }
        until(|| open.level(labels::Protocol::H2) == 0).await;
        served += 1;
    }
    assert!((100..=102).contains(&served), "{served}");
    edge.until_open(0).await;
}

#[tokio::test]
async fn an_answer_that_its_visitor_takes_nothing_of_ends_as_his_timeout() {
    let edge = edge_set(|settings| settings.deadlines.write_stall = Duration::from_millis(100));
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nx".to_vec();
    let backend = Backend::start(move |_| Reply::SayForever(endless.clone())).await;
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    let mut visitor = Visitor::who(&edge, |builder| {
        builder.initial_stream_window_size(0);
    })
    .await;
    let asks = get("https://a.test/").body(none()).unwrap();
    let response = visitor.ask(asks).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(soon(response.into_body().collect()).await.is_err());
    let ended = &edge.shared.metrics.requests_ended;
    until(|| ended.total(labels::End::ClientTimeout) == 1).await;
    backend.until_closed(1).await;
}
