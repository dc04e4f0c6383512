//! The drain.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{Edge, answer, exchange, rest, soon};

const LONG: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_running_request_ends_and_says_close_and_the_port_is_free() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    let mut stream = edge.visit("app.example").await.unwrap();
    let request = b"GET /held HTTP/1.1\r\nHost: app.example\r\n\r\n";
    soon(stream.write_all(request)).await.unwrap();
    edge.until_open(1).await;
    let (release, https) = (edge.release.clone(), edge.https);
    let drained = edge.drain(LONG);
    let visitor = async {
        // Nobody is accepted any more.
        while TcpStream::connect(https).await.is_ok() {
            tokio::task::yield_now().await;
        }
        release.notify_one();
        let answer = answer(&mut stream).await;
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(rest(&mut stream).await.is_empty());
    };
    let (cut, ()) = soon(async { tokio::join!(drained, visitor) }).await;
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn an_idle_http1_connection_may_ask_once_more() {
    let mut edge = Edge::start(|settings| settings.drain.idle = LONG);
    edge.serve("acme", &["app.example"]);
    let mut stream = edge.visit("app.example").await.unwrap();
    let before = exchange(&mut stream, "app.example", "/").await;
    assert!(!before.contains("connection: close"), "{before}");
    let https = edge.https;
    let drained = edge.drain(LONG);
    let visitor = async {
        while TcpStream::connect(https).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let last = exchange(&mut stream, "app.example", "/").await;
        assert!(last.contains("connection: close\r\n"), "{last}");
        assert!(rest(&mut stream).await.is_empty());
    };
    let (cut, ()) = soon(async { tokio::join!(drained, visitor) }).await;
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn idle_connections_end_soon_and_http2_is_told_to_go() {
    let mut edge = Edge::start(|settings| settings.drain.idle = Duration::from_millis(20));
    edge.serve("acme", &["app.example"]);
    let mut old = edge.visit("app.example").await.unwrap();
    exchange(&mut old, "app.example", "/").await;
    let config = edge.client(&["h2"]).into();
    let mut new = edge.visit_with(config, "app.example").await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    soon(new.write_all(&preface)).await.unwrap();
    edge.until_open(2).await;
    let drained = edge.drain(LONG);
    let (cut, old, new) =
        soon(async { tokio::join!(drained, rest(&mut old), rest(&mut new)) }).await;
    assert_eq!((cut, old.len()), (0, 0));
    assert!(has_goaway(&new), "{new:?}");
}

/// Whether one of the frames in `bytes` is GOAWAY.
fn has_goaway(mut bytes: &[u8]) -> bool {
    while let [a, b, c, kind, ..] = bytes {
        if *kind == 7 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize + 9;
        bytes = bytes.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_deadline_and_counted() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    let mut stream = edge.visit("app.example").await.unwrap();
    let request = b"GET /held HTTP/1.1\r\nHost: app.example\r\n\r\n";
    soon(stream.write_all(request)).await.unwrap();
    edge.until_open(1).await;
    assert_eq!(edge.drain(Duration::from_millis(50)).await, 1);
    assert!(rest(&mut stream).await.is_empty());
}
