//! The PROXY protocol on real connections.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{Edge, get, rest, soon, until};
use crate::proxy::settings::{ProxyProtocol, Settings};
use crate::telemetry::labels::{Handshake, HandshakeReason};

fn behind(trusted: &str) -> impl FnOnce(&mut Settings) {
    let range = trusted.parse().unwrap();
    move |settings| {
        settings.proxy_protocol = ProxyProtocol::FromTrusted;
        settings.trusted_proxies = vec![range];
        settings.deadlines.proxy_header = Duration::from_millis(100);
    }
}

/// The visitor that the application sees behind `header`, in `pieces`.
async fn visitor(edge: &Edge, header: &[u8], piece: usize) -> String {
    let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    for bytes in header.chunks(piece) {
        soon(tcp.write_all(bytes)).await.unwrap();
        tokio::task::yield_now().await;
    }
    let config = edge.client(&[]).into();
    let mut stream = edge.visit_over(tcp, config, "app.example").await.unwrap();
    let answer = get(&mut stream, "app.example", "/").await;
    answer.rsplit(' ').next().unwrap().to_owned()
}

fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    let head = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length];
    [head.concat(), addresses.to_vec()].concat()
}

#[tokio::test]
async fn a_trusted_proxy_says_who_visits_in_either_version() {
    let mut edge = Edge::start(behind("127.0.0.0/8"));
    edge.serve("acme", &["app.example"]);
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    assert_eq!(visitor(&edge, v1, 100).await, "192.0.2.7:4711");
    assert_eq!(visitor(&edge, v1, 5).await, "192.0.2.7:4711");
    let addresses = [192, 0, 2, 9, 198, 51, 100, 1, 0x10, 0x00, 0x01, 0xbb];
    let header = v2(0x21, 0x11, &addresses);
    assert_eq!(visitor(&edge, &header, 100).await, "192.0.2.9:4096");
    assert_eq!(visitor(&edge, &header, 1).await, "192.0.2.9:4096");
    let local = visitor(&edge, &v2(0x20, 0, &[]), 100).await;
    assert!(local.starts_with("127.0.0.1:"), "a health check: {local}");
}

#[tokio::test]
async fn the_cap_per_address_counts_visitors_not_the_proxy() {
    let mut edge = Edge::start(|settings| {
        behind("127.0.0.0/8")(settings);
        settings.limits.connections_per_address = 1;
    });
    edge.serve("acme", &["app.example"]);
    let mut kept = Vec::new();
    for host in 1..=3 {
        let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
        let header = format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 1 443\r\n");
        soon(tcp.write_all(header.as_bytes())).await.unwrap();
        let config = edge.client(&[]).into();
        kept.push(edge.visit_over(tcp, config, "app.example").await.unwrap());
    }
}

#[tokio::test]
async fn a_trusted_proxy_that_does_not_say_is_closed_and_counted() {
    let mut edge = Edge::start(behind("127.0.0.0/8"));
    edge.serve("acme", &["app.example"]);
    assert!(
        edge.visit("app.example").await.is_err(),
        "TLS without a header"
    );
    for sent in [
        &b""[..],
        b"PROXY TCP4 192",
        b"PROXY TCP9 x\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21",
    ] {
        let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
        soon(tcp.write_all(sent)).await.unwrap();
        assert!(rest(&mut tcp).await.is_empty());
    }
    let handshakes = &edge.shared.metrics.handshakes;
    let reason = Handshake::without(HandshakeReason::ProxyHeader);
    until(|| handshakes.total(reason) == 5).await;
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let mut edge = Edge::start(behind("192.0.2.0/24"));
    edge.serve("acme", &["app.example"]);
    let mut direct = edge.visit("app.example").await.unwrap();
    assert!(
        get(&mut direct, "app.example", "/")
            .await
            .contains(" 127.0.0.1:")
    );
    let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    let forged = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 443\r\n";
    soon(tcp.write_all(forged)).await.unwrap();
    let said = rest(&mut tcp).await;
    assert!(
        said.starts_with(b"HTTP/1.1 400"),
        "not TLS, and not a header either"
    );
}
