//! Long content and tunnels: bounded memory, both directions, the ends of both.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{answer, rest, soon};
use super::upstreams::{
    Backend, Heard, Manner, Reply, Spoken, edge, edge_set, everyone, say, speak_forever, through,
};
use crate::base::task::Tasks;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const WISH: &str = "GET /socket HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
                    Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn switch(_: &Heard) -> Reply {
    Reply::SayAndEcho(SWITCH.as_bytes().to_vec())
}

async fn head_of(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    soon(async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_websocket_tunnels_after_its_101_and_ends_with_either_side() {
    let (edge, backend) = through(switch).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    // Bytes behind the request wait for the upstream's answer.
    let eager = format!("{WISH}first");
    soon(visitor.write_all(eager.as_bytes())).await.unwrap();
    let head = head_of(&mut visitor).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
        "{head}"
    );
    assert!(
        head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    let heard = backend.only();
    assert_eq!(heard.field("upgrade"), ["websocket"]);
    assert_eq!(heard.field("connection"), ["upgrade"]);
    assert_eq!(
        heard.field("sec-websocket-key"),
        ["dGhlIHNhbXBsZSBub25jZQ=="]
    );
    let mut echo = [0; 5];
    soon(visitor.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"first");
    let large = vec![7; 1 << 20];
    let (mut reading, mut writing) = tokio::io::split(visitor);
    let sends = async {
        writing.write_all(&large).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let ((), back) = tokio::join!(sends, rest(&mut reading));
    assert_eq!(back.len(), large.len());
    backend.until_closed(1).await;
}

#[tokio::test]
async fn no_tunnel_comes_of_a_refusal_another_protocol_or_a_false_101() {
    let (edge, backend) = through(|heard| match heard.line().contains("/refused") {
        true => say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
        false => Reply::SayAndClose(SWITCH.replace("websocket", "h2c").into_bytes()),
    })
    .await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let refused = WISH.replace("/socket", "/refused");
    soon(visitor.write_all(refused.as_bytes())).await.unwrap();
    let given = answer(&mut visitor).await;
    assert!(
        given.starts_with("HTTP/1.1 403 ") && given.ends_with("no"),
        "{given}"
    );
    // The same connection goes on, and a 101 to another protocol is none.
    soon(visitor.write_all(WISH.as_bytes())).await.unwrap();
    let refused = answer(&mut visitor).await;
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
    // Other upgrades are not even asked for.
    let mut visitor = edge.visit("a.test").await.unwrap();
    let h2c = WISH
        .replace("WebSocket", "h2c")
        .replace("/socket", "/refused");
    soon(visitor.write_all(h2c.as_bytes())).await.unwrap();
    let refusal = answer(&mut visitor).await;
    assert!(refusal.starts_with("HTTP/1.1 403 "), "{refusal}");
    let heard = backend.heard();
    assert!(heard.last().unwrap().field("upgrade").is_empty());
    assert!(heard.last().unwrap().field("connection").is_empty());
}

#[tokio::test]
async fn a_tunnel_through_which_nothing_passes_is_closed_both_ways() {
    let edge = edge_set(|settings| settings.deadlines.tunnel_idle = Duration::from_millis(300));
    let backend = Backend::start(switch).await;
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    soon(visitor.write_all(WISH.as_bytes())).await.unwrap();
    assert!(head_of(&mut visitor).await.starts_with("HTTP/1.1 101 "));
    soon(visitor.write_all(b"ping")).await.unwrap();
    assert_eq!(rest(&mut visitor).await, b"ping");
    backend.until_closed(1).await;
    edge.until_open(0).await;
}

#[tokio::test]
async fn an_upstream_is_not_read_faster_than_its_visitor_reads() {
    let chunk = vec![b'x'; 64 * 1024];
    let mut first = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n".to_vec();
    first.extend(&chunk);
    let (edge, backend) = through(move |_| Reply::SayForever(first.clone())).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    soon(visitor.write_all(request)).await.unwrap();
    let head = head_of(&mut visitor).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    // Whatever the sockets hold, the upstream is stopped after some megabytes.
    let before = backend.said.until_stuck().await;
    assert!(
        before < 64 << 20,
        "{before} bytes were taken for a visitor who reads none"
    );
    let mut some = vec![0; 16 << 20];
    soon(visitor.read_exact(&mut some)).await.unwrap();
    backend.said.until_moving().await;
    drop(visitor);
    backend.until_closed(1).await;
}

#[tokio::test]
async fn a_visitor_is_not_read_faster_than_the_upstream_reads() {
    let (edge, backend) = (
        edge(),
        Backend::start_in(Manner::Early, |_| Reply::Stall).await,
    );
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    let visitor = edge.visit("a.test").await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(visitor);
    let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000000\r\n\r\n";
    soon(writing.write_all(head)).await.unwrap();
    let sent = Arc::new(Spoken::default());
    let (own, tasks) = (Arc::clone(&sent), Tasks::new());
    tasks.spawn_until_cancelled("visitor", async move {
        speak_forever(&mut writing, &[b'x'; 64 * 1024], &own).await;
    });
    let before = sent.until_stuck().await;
    assert!(
        before < 64 << 20,
        "{before} bytes were taken for an upstream that reads none"
    );
    tasks.cancel();
    drop(rest(&mut reading));
}
