//! Slow and greedy visitors.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Edge, answer, exchange, get, hello_bytes, rest, soon, until};
use crate::proxy::facts::ConnectionFacts;
use crate::proxy::settings::Settings;
use crate::proxy::worker::Worker;
use crate::telemetry::access::AccessLog;
use crate::telemetry::labels::AdmissionLimit;

const SHORT: Duration = Duration::from_millis(50);
/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_head_that_does_not_end_ends_the_connection_and_idling_does_not() {
    let mut edge = Edge::start(|settings| {
        settings.deadlines.head = SHORT;
        settings.deadlines.keep_alive = LONG;
    });
    edge.serve("acme", &["app.example"]);
    let mut stream = edge.visit("app.example").await.unwrap();
    exchange(&mut stream, "app.example", "/").await;
    soon(stream.write_all(b"GET / HTTP/1.1\r\nHost: app.ex"))
        .await
        .unwrap();
    assert!(rest(&mut stream).await.is_empty());

    let mut plain = soon(TcpStream::connect(edge.http)).await.unwrap();
    soon(plain.write_all(b"GET / HT")).await.unwrap();
    assert!(rest(&mut plain).await.is_empty());
    edge.until_open(0).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_order_before_and_after_a_request() {
    let mut edge = Edge::start(|settings| {
        settings.deadlines.keep_alive = SHORT;
        settings.deadlines.head = LONG;
    });
    edge.serve("acme", &["app.example"]);
    let mut silent = edge.visit("app.example").await.unwrap();
    let mut bytes = Vec::new();
    // In order: with a close_notify, without which reading would fail.
    soon(silent.read_to_end(&mut bytes)).await.unwrap();
    let config = edge.client(&["h2"]).into();
    let mut silent = edge.visit_with(config, "app.example").await.unwrap();
    rest(&mut silent).await;
    let mut used = edge.visit("app.example").await.unwrap();
    exchange(&mut used, "app.example", "/").await;
    assert!(rest(&mut used).await.is_empty());
    edge.until_open(0).await;
}

#[tokio::test]
async fn a_connection_that_rested_answers_again_and_ends_in_order() {
    let mut edge = Edge::start(|settings| {
        settings.deadlines.rest = Duration::ZERO;
        settings.deadlines.head = SHORT;
    });
    edge.serve("acme", &["app.example"]);
    let mut stream = edge.visit("app.example").await.unwrap();
    for _ in 0..5 {
        let answer = exchange(&mut stream, "app.example", "/").await;
        assert!(answer.contains("acme app.example"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
    soon(stream.write_all(b"GET / HTTP/1.1\r\nHo"))
        .await
        .unwrap();
    assert!(rest(&mut stream).await.is_empty());
    let mut leaver = edge.visit("app.example").await.unwrap();
    exchange(&mut leaver, "app.example", "/").await;
    soon(leaver.shutdown()).await.unwrap();
    let mut bytes = Vec::new();
    // Our close_notify answers theirs.
    soon(leaver.read_to_end(&mut bytes)).await.unwrap();
    edge.until_open(0).await;
}

#[tokio::test]
async fn a_running_request_is_not_idle() {
    let mut edge = Edge::start(|settings| settings.deadlines.keep_alive = SHORT);
    edge.serve("acme", &["app.example"]);
    let mut held = edge.visit("app.example").await.unwrap();
    let request = b"GET /held HTTP/1.1\r\nHost: app.example\r\n\r\n";
    soon(held.write_all(request)).await.unwrap();
    // Another connection idles out meanwhile, so more than the deadline has passed.
    let mut idle = edge.visit("app.example").await.unwrap();
    rest(&mut idle).await;
    edge.release.notify_one();
    assert!(answer(&mut held).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_visitor_who_reads_nothing_is_let_go() {
    let mut edge = Edge::start(|settings| settings.deadlines.write_stall = SHORT);
    edge.serve("acme", &["app.example"]);
    let tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    socket2::SockRef::from(&tcp)
        .set_recv_buffer_size(4096)
        .unwrap();
    let mut stream = edge
        .visit_over(tcp, edge.client(&[]).into(), "app.example")
        .await
        .unwrap();
    let request = b"GET /large HTTP/1.1\r\nHost: app.example\r\n\r\n";
    for _ in 0..64 {
        soon(stream.write_all(request)).await.unwrap();
    }
    soon(stream.flush()).await.unwrap();
    edge.until_open(0).await;
}

#[tokio::test]
async fn connections_above_a_cap_are_closed_counted_and_free_again() {
    let mut edge = Edge::start(|settings| settings.limits.connections_per_address = 2);
    edge.serve("acme", &["app.example"]);
    let first = edge.visit("app.example").await.unwrap();
    let _second = edge.visit("app.example").await.unwrap();
    assert!(edge.visit("app.example").await.is_err());
    let refusals = &edge.shared.metrics.admission_refusals;
    until(|| refusals.total(AdmissionLimit::Address) == 1).await;
    drop(first);
    edge.until_open(1).await;
    let mut third = edge.visit("app.example").await.unwrap();
    assert!(get(&mut third, "app.example", "/").await.contains("200 OK"));
}

#[tokio::test]
async fn a_tenant_at_its_cap_leaves_room_for_the_others() {
    let mut edge = Edge::start(|settings| settings.limits.connections_per_tenant = 1);
    edge.serve("acme", &["app.example", "www.example"]);
    edge.serve("globex", &["globex.example"]);
    let _one = edge.visit("app.example").await.unwrap();
    assert!(edge.visit("www.example").await.is_err());
    assert!(edge.visit("globex.example").await.is_ok());
    let refusals = &edge.shared.metrics.admission_refusals;
    until(|| refusals.total(AdmissionLimit::Tenant) == 1).await;
}

#[tokio::test]
async fn the_cap_in_all_closes_at_accept() {
    let edge = Edge::start(|settings| settings.limits.connections = 1);
    let _one = soon(TcpStream::connect(edge.http)).await.unwrap();
    edge.until_open(1).await;
    let mut two = soon(TcpStream::connect(edge.http)).await.unwrap();
    assert!(rest(&mut two).await.is_empty());
    let refusals = &edge.shared.metrics.admission_refusals;
    until(|| refusals.total(AdmissionLimit::Total) == 1).await;
}

#[tokio::test]
async fn unfinished_handshakes_are_bounded_and_those_who_wait_for_a_certificate_do_not_count() {
    let mut edge = Edge::start(|settings| settings.limits.handshakes = 1);
    edge.serve("acme", &["app.example"]);
    edge.know("acme", &["new.example"]);
    let hello = hello_bytes(edge.client(&[]), "new.example");
    let mut waits = soon(TcpStream::connect(edge.https)).await.unwrap();
    soon(waits.write_all(&hello)).await.unwrap();
    let _asked = soon(edge.wanted.recv()).await.unwrap();
    // Its answer tells that the handshake has ended here too, and its place is free.
    let mut visitor = edge.visit("app.example").await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n\r\n";
    super::support::tell(&mut visitor, request).await;
    drop(visitor);
    let silent = soon(TcpStream::connect(edge.https)).await.unwrap();
    edge.until_open(2).await;
    let refusals = &edge.shared.metrics.admission_refusals;
    soon(async {
        while refusals.total(AdmissionLimit::Handshakes) == 0 {
            drop(edge.visit("app.example").await);
        }
        drop(silent);
        while edge.visit("app.example").await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_and_fields() {
    let mut edge = Edge::start(|settings| settings.limits.head_bytes = 16 * 1024);
    edge.serve("acme", &["app.example"]);
    let check = async |field: String, expected: &str| {
        let mut stream = edge.visit("app.example").await.unwrap();
        let head =
            format!("GET / HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n{field}\r\n");
        let answer = super::support::tell(&mut stream, head.as_bytes()).await;
        assert!(
            answer.starts_with(expected),
            "{} bytes: {answer}",
            head.len()
        );
    };
    check(format!("X: {}\r\n", "x".repeat(15_000)), "HTTP/1.1 200").await;
    check(format!("X: {}\r\n", "x".repeat(17_000)), "HTTP/1.1 431").await;
    check("X: x\r\n".repeat(98), "HTTP/1.1 200").await;
    check("X: x\r\n".repeat(99), "HTTP/1.1 431").await;
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The frames in `bytes`: kind, stream and payload of each.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (payload, next) = rest.split_at(length.min(rest.len()));
        found.push((head[3], stream, payload));
        bytes = next;
    }
    found
}

/// HEADERS of `GET https://app.example/<path>`.
fn head(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    let literal = |name: u8, value: &str| {
        let length = u8::try_from(value.len()).unwrap();
        [&[name, length], value.as_bytes()].concat()
    };
    // `:method: GET` and `:scheme: https` by index; `:path` and `:authority` by the index of their names.
    let fields = [
        vec![0x82, 0x87],
        literal(4, path),
        literal(1, "app.example"),
    ];
    frame(1, flags, stream, &fields.concat())
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Writes what `flood` makes of 0, 1, 2 and so on until nobody reads it; tells how often, and what was said.
async fn flooded(edge: &Edge, opening: &[u8], flood: impl Fn(u32) -> Vec<u8>) -> (u32, Vec<u8>) {
    let config = edge.client(&["h2"]).into();
    let mut stream = edge.visit_with(config, "app.example").await.unwrap();
    let opening = [PREFACE, &frame(4, 0, 0, &[]), opening].concat();
    soon(stream.write_all(&opening)).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let flooding = async {
        let mut sent = 0;
        while sent < 20_000 && writer.write_all(&flood(sent)).await.is_ok() {
            sent += 1;
            tokio::task::yield_now().await;
        }
        sent
    };
    soon(async { tokio::join!(flooding, rest(&mut reader)) }).await
}

#[tokio::test]
async fn floods_of_frames_end_the_connection() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    let post = head(1, "/held", END_HEADERS);
    let unfinished = head(1, "/held", 0);
    let same = |frame: Vec<u8>| move |_| frame.clone();
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        let asks = head(stream, "/held", END_STREAM | END_HEADERS);
        [asks, frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let ping = flooded(&edge, &[], same(frame(6, 0, 0, &[0; 8]))).await;
    let settings = flooded(&edge, &[], same(frame(4, 0, 0, &[]))).await;
    let priority = flooded(&edge, &[], same(frame(2, 0, 1, &[0, 0, 0, 0, 0]))).await;
    let unknown = flooded(&edge, &[], same(frame(0xee, 0, 0, &[0; 4]))).await;
    let window = flooded(&edge, &[], same(frame(8, 0, 0, &[0, 0, 0, 1]))).await;
    let resets = flooded(&edge, &[], reset).await;
    let continuation = flooded(&edge, &unfinished, same(frame(9, 0, 1, &[]))).await;
    let data = flooded(&edge, &post, same(frame(0, 0, 1, &[]))).await;
    for (name, (sent, said)) in [
        ("PING", ping),
        ("SETTINGS", settings),
        ("PRIORITY", priority),
        ("unknown", unknown),
        ("WINDOW_UPDATE", window),
        ("RST_STREAM", resets),
        ("CONTINUATION", continuation),
        ("DATA", data),
    ] {
        assert!(sent < 20_000, "{name}");
        // GOAWAY with ENHANCE_YOUR_CALM is the last that is said.
        let last = frames(&said).pop();
        let calm = |(kind, _, payload): (u8, u32, &[u8])| {
            kind == 7 && payload.get(4..8) == Some(&[0, 0, 0, 11])
        };
        assert!(last.is_some_and(calm), "{name}: {last:?}");
    }
    edge.until_open(0).await;
}

/// Reads frames until one of this kind on this stream comes; gives its payload.
async fn until_frame(stream: &mut (impl AsyncRead + Unpin), (kind, id): (u8, u32)) -> Vec<u8> {
    soon(async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            if (head[3], &head[5..]) == (kind, &id.to_be_bytes()[..]) {
                return payload;
            }
        }
    })
    .await
}

/// SETTINGS with this initial window of streams.
fn initial_window(bytes: u8) -> Vec<u8> {
    frame(4, 0, 0, &[0, 4, 0, 0, 0, bytes])
}

#[tokio::test]
async fn an_answer_for_which_no_window_is_granted_loses_its_stream_and_no_other_does() {
    let mut edge = Edge::start(|settings| settings.deadlines.write_stall = SHORT);
    edge.serve("acme", &["app.example"]);
    let config = edge.client(&["h2"]).into();
    let mut stream = edge.visit_with(config, "app.example").await.unwrap();
    let asks = head(1, "/large", END_STREAM | END_HEADERS);
    let opening = [PREFACE, &initial_window(0), &asks].concat();
    soon(stream.write_all(&opening)).await.unwrap();
    let cancel = until_frame(&mut stream, (3, 1)).await;
    assert_eq!(cancel, [0, 0, 0, 8]);
    let asks = head(3, "/", END_STREAM | END_HEADERS);
    let grants = frame(8, 0, 3, &[0, 0, 4, 0]);
    let asks = [asks, grants].concat();
    soon(stream.write_all(&asks)).await.unwrap();
    let answer = until_frame(&mut stream, (0, 3)).await;
    assert!(answer.starts_with(b"acme app.example"), "{answer:?}");
}

#[tokio::test]
async fn the_rest_of_an_answer_that_nobody_takes_ends_the_connection() {
    let mut edge = Edge::start(|settings| settings.deadlines.write_stall = SHORT);
    edge.serve("acme", &["app.example"]);
    let config = edge.client(&["h2"]).into();
    let mut stream = edge.visit_with(config, "app.example").await.unwrap();
    let asks = head(1, "/", END_STREAM | END_HEADERS);
    let opening = [PREFACE, &initial_window(1), &asks].concat();
    soon(stream.write_all(&opening)).await.unwrap();
    assert_eq!(until_frame(&mut stream, (0, 1)).await, b"a");
    rest(&mut stream).await;
    edge.until_open(0).await;
}

/// More than the system takes ahead of a visitor who does not read.
const MORE_THAN_TAKEN: usize = 32 << 20;

#[tokio::test]
async fn an_answer_on_its_way_to_a_visitor_who_takes_his_time_is_not_idleness() {
    let large = |_: Rc<Worker>, _: Rc<ConnectionFacts>, request: Request<Incoming>| async move {
        Response::new(Full::<Bytes>::from(match request.uri().path() {
            "/large" => vec![b'x'; MORE_THAN_TAKEN],
            _ => Vec::new(),
        }))
    };
    for (keep_alive, to_rest) in [(SHORT, LONG), (LONG, Duration::ZERO)] {
        let configure = |settings: &mut Settings| {
            settings.deadlines.keep_alive = keep_alive;
            settings.deadlines.rest = to_rest;
        };
        let mut edge = Edge::start_with(configure, AccessLog::off(), &large);
        edge.serve("acme", &["app.example"]);
        let mut slow = edge.visit("app.example").await.unwrap();
        let request = b"GET /large HTTP/1.1\r\nHost: app.example\r\n\r\n";
        soon(slow.write_all(request)).await.unwrap();
        let mut first = [0];
        soon(slow.read_exact(&mut first)).await.unwrap();
        // Others idle out meanwhile, so more than the deadline has passed, and what is given to close in order.
        for _ in 0..if keep_alive == SHORT { 25 } else { 0 } {
            rest(&mut edge.visit("app.example").await.unwrap()).await;
        }
        let mut whole = vec![0; MORE_THAN_TAKEN];
        soon(slow.read_exact(&mut whole)).await.unwrap();
    }
}

#[tokio::test]
async fn a_head_in_fragments_that_never_end_is_bounded_in_time() {
    let mut edge = Edge::start(|settings| settings.deadlines.head = SHORT);
    edge.serve("acme", &["app.example"]);
    let config = edge.client(&["h2"]).into();
    let mut stream = edge.visit_with(config, "app.example").await.unwrap();
    // HEADERS without END_HEADERS: `:method: GET` by index, and then nothing.
    let opening = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 0, 1, &[0x82])].concat();
    soon(stream.write_all(&opening)).await.unwrap();
    rest(&mut stream).await;
    edge.until_open(0).await;
}
