//! What the operator sets for requests on their way takes effect on them.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use super::support::{Edge, answer, exchange, get, rest, soon, tell, until};
use super::upstreams::{Backend, Reply, edge_set, everyone, ok, upstream};
use crate::model::route::UpstreamTimeouts;
use crate::proxy::limits::Limits;
use crate::proxy::settings::Settings;
use crate::telemetry::labels::{Protocol, RequestLimit, UpstreamConnection};

/// A deadline short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// An edge under `configure` that leads everyone to an upstream which answers politely.
async fn edge_to_core(configure: impl FnOnce(&mut Settings)) -> (Edge, Backend) {
    let (edge, backend) = (edge_set(configure), Backend::start(|_| ok("ok")).await);
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    (edge, backend)
}

/// Publishes other limits.
fn limit(edge: &Edge, change: impl Fn(&mut Limits)) {
    edge.shared.settings.update(|settings| {
        let mut next = Settings::clone(settings);
        change(&mut next.limits);
        next
    });
}

#[tokio::test]
async fn raised_limits_of_a_head_let_larger_ones_pass() {
    let (edge, _backend) = edge_to_core(|settings| {
        settings.limits.fields = 200;
        settings.limits.head_bytes = 256 * 1024;
        settings.limits.target_bytes = 32 * 1024;
    })
    .await;
    let check = async |target: &str, fields: &str, expected: &str| {
        let mut stream = edge.visit("a.test").await.unwrap();
        let head =
            format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n");
        let answer = tell(&mut stream, head.as_bytes()).await;
        assert!(
            answer.starts_with(expected),
            "{} bytes: {answer}",
            head.len()
        );
    };
    check("/", &"X: x\r\n".repeat(198), "HTTP/1.1 200 ").await;
    check("/", &"X: x\r\n".repeat(199), "HTTP/1.1 431 ").await;
    let large = format!("X: {}\r\n", "x".repeat(100_000));
    check("/", &large, "HTTP/1.1 200 ").await;
    check(&large_target(30_000), "", "HTTP/1.1 200 ").await;
    check(&large_target(33_000), "", "HTTP/1.1 414 ").await;
}

#[tokio::test]
async fn lowered_limits_of_a_head_hold_at_once() {
    let (edge, backend) = edge_to_core(|_| {}).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    // The connection itself goes by the limits that it began under.
    exchange(&mut visitor, "a.test", "/").await;
    limit(&edge, |limits| {
        limits.fields = 20;
        limits.head_bytes = 8 * 1024;
        limits.target_bytes = 1024;
    });
    for (target, fields, expected) in [
        ("/", "X: x\r\n".repeat(18), "HTTP/1.1 200 "),
        ("/", "X: x\r\n".repeat(20), "HTTP/1.1 431 "),
        ("/", format!("X: {}\r\n", "x".repeat(9000)), "HTTP/1.1 431 "),
        (&*large_target(1000), String::new(), "HTTP/1.1 200 "),
        (&*large_target(1100), String::new(), "HTTP/1.1 414 "),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        soon(visitor.write_all(head.as_bytes())).await.unwrap();
        let answer = answer(&mut visitor).await;
        assert!(answer.starts_with(expected), "{head}: {answer}");
    }
    assert_eq!(backend.heard().len(), 3);
}

fn large_target(bytes: usize) -> String {
    format!("/{}", "x".repeat(bytes))
}

/// A request of `a.test` whose content wants one more byte.
async fn begin(edge: &Edge, path: &str) -> TlsStream<TcpStream> {
    let mut visitor = edge.visit("a.test").await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nx");
    soon(visitor.write_all(request.as_bytes())).await.unwrap();
    visitor
}

async fn end(visitor: &mut TlsStream<TcpStream>) {
    soon(visitor.write_all(b"y")).await.unwrap();
    let answer = answer(visitor).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn beyond_its_cap_an_upstream_keeps_the_connections_that_rested_last() {
    let (edge, backend) = edge_to_core(|settings| {
        settings.workers = NonZeroUsize::MIN;
        settings.limits.upstream_idle_connections = 2;
    })
    .await;
    let mut visitors = Vec::new();
    for (count, path) in ["/0", "/1", "/2"].into_iter().enumerate() {
        visitors.push(begin(&edge, path).await);
        until(|| backend.heard().len() == count + 1).await;
    }
    // They come to rest in another order than they began.
    for at in [1, 0, 2] {
        end(&mut visitors[at]).await;
    }
    backend.until_closed(1).await;
    // Those that are left are used again, the latest first, and not the one that rested longest.
    let (mut third, mut fourth) = (begin(&edge, "/3").await, begin(&edge, "/4").await);
    until(|| backend.heard().len() == 5).await;
    end(&mut third).await;
    end(&mut fourth).await;
    let heard = backend.heard();
    let mut again: Vec<usize> = heard[3..].iter().map(|heard| heard.connection).collect();
    again.sort_unstable();
    assert_eq!(again, [0, 2]);
}

#[tokio::test]
async fn an_idle_upstream_connection_is_closed_in_time() {
    let (edge, backend) = edge_to_core(|settings| settings.deadlines.upstream_idle = SHORT).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    backend.until_closed(1).await;
}

#[tokio::test]
async fn a_visitor_whose_content_stalls_is_told_and_let_go() {
    let (edge, backend) = edge_to_core(|settings| settings.deadlines.read_stall = SHORT).await;
    let mut visitor = begin(&edge, "/").await;
    let answer = String::from_utf8(rest(&mut visitor).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    backend.until_closed(1).await;
}

#[tokio::test]
async fn an_address_that_refuses_is_left_out_after_it_failed() {
    // Bound and not listening, so that nobody else takes the port.
    let dead = TcpSocket::new_v4().unwrap();
    dead.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let edge = edge_set(|settings| settings.workers = NonZeroUsize::MIN);
    let backend = Backend::start(|_| ok("ok")).await;
    let addresses = [dead.local_addr().unwrap(), backend.address];
    edge.lead(vec![everyone(&upstream(
        "core",
        &addresses,
        UpstreamTimeouts::default(),
    ))]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    for _ in 0..100 {
        let answer = exchange(&mut visitor, "a.test", "/").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let connections = &edge.shared.metrics.upstream_connections;
    let failed = connections.total(UpstreamConnection::Unreachable);
    // Every other request begins with it, unless it is left out: for one second, then two, then four.
    assert!((1..=8).contains(&failed), "tried {failed} times");
}

#[tokio::test]
async fn an_address_that_breaks_off_is_left_out_after_it_failed() {
    let edge = edge_set(|settings| settings.workers = NonZeroUsize::MIN);
    let (good, bad) = (
        Backend::start(|_| ok("ok")).await,
        Backend::start(|_| Reply::SayAndClose(Vec::new())).await,
    );
    edge.lead(vec![everyone(&upstream(
        "core",
        &[good.address, bad.address],
        UpstreamTimeouts::default(),
    ))]);
    for _ in 0..100 {
        let mut visitor = edge.visit("a.test").await.unwrap();
        get(&mut visitor, "a.test", "/").await;
    }
    let (failed, answered) = (bad.heard().len(), good.heard().len());
    assert!((1..=8).contains(&failed), "tried {failed} times");
    assert!(answered >= 92, "{answered} of 100 were answered");
}

#[tokio::test]
async fn requests_above_a_cap_are_told_so_counted_and_have_room_again() {
    let (edge, backend) = edge_to_core(|settings| settings.limits.requests = Some(1)).await;
    let mut first = begin(&edge, "/").await;
    until(|| backend.heard().len() == 1).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let refused = exchange(&mut visitor, "a.test", "/").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    for part in [
        "retry-after: 1\r\n",
        "proxy-status: vestibule; error=connection_limit_reached\r\n",
        "requests_full",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    let refusals = &edge.shared.metrics.request_refusals;
    assert_eq!(refusals.total(RequestLimit::Total), 1);
    end(&mut first).await;
    let open = &edge.shared.metrics.requests_open;
    until(|| open.level(Protocol::Http1) == 0).await;
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// What a visitor does wrong: a chunk that is none.
async fn send_nonsense(edge: &Edge) {
    let mut visitor = edge.visit("a.test").await.unwrap();
    let request =
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n";
    let answer = tell(&mut visitor, request).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn what_visitors_do_wrong_leaves_no_address_out() {
    let edge = edge_set(|settings| {
        settings.workers = NonZeroUsize::MIN;
        settings.deadlines.read_stall = SHORT;
    });
    let backends = [
        Backend::start(|_| ok("ok")).await,
        Backend::start(|_| ok("ok")).await,
    ];
    let addresses = [backends[0].address, backends[1].address];
    edge.lead(vec![everyone(&upstream(
        "core",
        &addresses,
        UpstreamTimeouts::default(),
    ))]);
    for _ in 0..3 {
        send_nonsense(&edge).await;
        let mut stalls = begin(&edge, "/").await;
        let answer = String::from_utf8(rest(&mut stalls).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    let before = backends.each_ref().map(|backend| backend.heard().len());
    let mut visitor = edge.visit("a.test").await.unwrap();
    for _ in 0..10 {
        exchange(&mut visitor, "a.test", "/").await;
    }
    for (backend, before) in backends.iter().zip(before) {
        assert!(backend.heard().len() >= before + 4);
    }
}

#[tokio::test]
async fn only_retries_use_up_what_is_kept_for_them() {
    let edge = edge_set(|settings| settings.workers = NonZeroUsize::MIN);
    // Each connection carries one request, and is closed when the next comes.
    let backend = Backend::start(|heard| match heard.before {
        0 => ok("ok"),
        _ => Reply::SayAndClose(Vec::new()),
    })
    .await;
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    for _ in 0..30 {
        send_nonsense(&edge).await;
    }
    let mut visitor = edge.visit("a.test").await.unwrap();
    for _ in 0..2 {
        let answer = exchange(&mut visitor, "a.test", "/").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
