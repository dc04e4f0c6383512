//! Which certificate a ClientHello gets, however it comes, and what is said where there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{Edge, credential, exchange, get, hello_bytes, name, rest, soon, until};
use crate::certs::on_demand::{Origin, Refusal, Served};
use crate::model::NamePattern;
use crate::proxy::report::{FirstAnswer, HandshakeOutcome, Reject};
use crate::telemetry::labels::{Handshake, HandshakeReason};

const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];
const INTERNAL_ERROR: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

/// Sends `bytes` and reads what comes back.
async fn raw(edge: &Edge, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    soon(tcp.write_all(bytes)).await.unwrap();
    rest(&mut tcp).await
}

/// The records of `hello` cut anew: `size` bytes of the message in each.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        [&[0x16, 0x03, 0x01][..], &length, piece].concat()
    };
    hello[5..].chunks(size).flat_map(record).collect()
}

#[tokio::test]
async fn each_name_gets_its_own_certificate_over_both_protocols() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.acme.example"]);
    edge.serve("globex", &["*.globex.example"]);
    for (host, tenant) in [
        ("app.acme.example", "acme"),
        ("APP.Acme.Example", "acme"),
        ("shop.globex.example", "globex"),
    ] {
        let mut stream = edge.visit(host).await.unwrap();
        let answer = get(&mut stream, host, "/").await;
        let expected = format!("{tenant} {}", host.to_ascii_lowercase());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&expected), "{answer}");
    }
    let config = Arc::new(edge.client(&["h2", "http/1.1"]));
    let stream = edge.visit_with(config, "app.acme.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut send, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let tasks = crate::base::task::Tasks::new();
    tasks.spawn("client", async move { drop(connection.await) });
    let request = http::Request::get("https://app.acme.example/")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = soon(send.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_hello_in_any_pieces_is_the_same_hello() {
    let mut edge = Edge::start(|_| {});
    let served = edge.serve("acme", &["app.example"]);
    let whole = hello_bytes(edge.client(&[]), "app.example");
    let leaf = served.certified.cert[0].to_vec();
    for (record, segment) in [(16_000, 16_000), (1, 16_000), (7, 3), (100, 1)] {
        let bytes = in_records(&whole, record);
        let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        for piece in bytes.chunks(segment) {
            soon(tcp.write_all(piece)).await.unwrap();
            tokio::task::yield_now().await;
        }
        // A ServerHello, which begins a handshake record; TLS 1.3 hides the certificate.
        let mut first = [0; 6];
        soon(tokio::io::AsyncReadExt::read_exact(&mut tcp, &mut first))
            .await
            .unwrap();
        assert_eq!((first[0], first[5]), (0x16, 0x02), "records of {record}");
    }
    let stream = edge.visit("app.example").await.unwrap();
    let seen = stream.get_ref().1.peer_certificates().unwrap();
    assert_eq!(seen[0].to_vec(), leaf);
}

#[tokio::test]
async fn no_unknown_or_suspended_name_is_told_so_and_nobody_is_asked() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    edge.suspend("globex", &["gone.example"]);
    let mut nameless = edge.client(&[]);
    nameless.enable_sni = false;
    let hello = |name: &str| hello_bytes(edge.client(&[]), name);
    for (bytes, reason) in [
        (hello("unknown.example"), HandshakeReason::UnknownName),
        (hello("sub.app.example"), HandshakeReason::UnknownName),
        (hello("gone.example"), HandshakeReason::Suspended),
        (hello("127.0.0.1"), HandshakeReason::NoServerName),
        (
            hello_bytes(nameless, "app.example"),
            HandshakeReason::NoServerName,
        ),
    ] {
        let count = || {
            let handshakes = &edge.shared.metrics.handshakes;
            handshakes.total(Handshake::without(reason))
        };
        let before = count();
        assert_eq!(raw(&edge, &bytes).await, UNRECOGNIZED_NAME, "{reason:?}");
        until(|| count() == before + 1).await;
    }
    assert!(edge.wanted.try_recv().is_err(), "on demand was asked");
    edge.until_open(0).await;
}

#[tokio::test]
async fn what_is_not_tls_gets_an_answer_of_its_own_kind() {
    let edge = Edge::start(|_| {});
    let answer = raw(&edge, b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").await;
    let text = String::from_utf8(answer).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(
        text.ends_with("\r\n\r\nThis port speaks HTTPS.\n"),
        "{text}"
    );
    let alert = raw(&edge, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await;
    assert_eq!(
        (alert[0], alert.len()),
        (0x15, 7),
        "an alert for a broken hello"
    );
}

#[tokio::test]
async fn a_challenge_by_alpn_or_a_foreign_protocol_costs_no_signature() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    for offered in [&["acme-tls/1"][..], &["acme-tls/1", "h2"], &["spdy/1"]] {
        let hello = hello_bytes(edge.client(offered), "app.example");
        assert_eq!(raw(&edge, &hello).await[6], 120);
    }
}

#[tokio::test]
async fn a_known_name_without_a_certificate_waits_for_one_and_is_reported() {
    let mut edge = Edge::start(|_| {});
    edge.know("acme", &["new.example"]);
    let issued = credential("acme", &["new.example"]);
    edge.trust(&issued);
    let config = Arc::new(edge.client(&[]));
    let tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    let (stream, ()) = {
        let server_name = rustls::pki_types::ServerName::try_from("new.example").unwrap();
        let connect = tokio_rustls::TlsConnector::from(config).connect(server_name, tcp);
        let wanted = &mut edge.wanted;
        let issue = async {
            let asked = soon(wanted.recv()).await.unwrap();
            assert_eq!(asked.name, name("new.example"));
            let served = Served {
                credential: issued,
                origin: Origin::Issued,
            };
            asked.answer.send(Ok(served)).unwrap();
        };
        soon(async { tokio::join!(connect, issue) }).await
    };
    let mut stream = stream.unwrap();
    assert!(
        exchange(&mut stream, "new.example", "/")
            .await
            .contains("acme new.example")
    );
    let report = soon(edge.reports.recv()).await.unwrap();
    assert_eq!(report.server_name, Some(name("new.example")));
    let HandshakeOutcome::Served {
        origin,
        first,
        issuer,
        ..
    } = report.outcome
    else {
        panic!("{report:?}");
    };
    assert_eq!((origin, issuer.as_str()), (Origin::Issued, "test"));
    let status = http::StatusCode::OK;
    assert_eq!(
        first,
        Some(FirstAnswer {
            status,
            upstream: None
        })
    );
}

#[tokio::test]
async fn what_could_not_be_had_is_an_internal_error_with_its_reason() {
    let mut edge = Edge::start(|_| {});
    edge.know("acme", &["late.example"]);
    let hello = hello_bytes(edge.client(&[]), "late.example");
    for refusal in [Refusal::BackingOff, Refusal::Deadline, Refusal::StoreFailed] {
        let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
        soon(tcp.write_all(&hello)).await.unwrap();
        let asked = soon(edge.wanted.recv()).await.unwrap();
        asked.answer.send(Err(refusal)).unwrap();
        assert_eq!(rest(&mut tcp).await, INTERNAL_ERROR, "{refusal}");
        let report = soon(edge.reports.recv()).await.unwrap();
        let expected = HandshakeOutcome::Refused(Reject::Credential(refusal));
        assert_eq!(report.outcome, expected);
    }
}

#[tokio::test]
async fn a_certificate_of_the_former_owner_serves_nobody() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["moved.example"]);
    edge.know("globex", &["moved.example"]);
    let hello = hello_bytes(edge.client(&[]), "moved.example");
    let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    soon(tcp.write_all(&hello)).await.unwrap();
    let asked = soon(edge.wanted.recv()).await.unwrap();
    assert_eq!(
        NamePattern::Exact(asked.name),
        NamePattern::parse("moved.example").unwrap()
    );
}

#[tokio::test]
async fn a_hello_that_does_not_come_is_not_waited_for() {
    let edge = Edge::start(|settings| {
        settings.deadlines.client_hello = Duration::from_millis(50);
        settings.deadlines.handshake = Duration::from_millis(50);
    });
    edge.know("acme", &["app.example"]);
    let hello = hello_bytes(edge.client(&[]), "app.example");
    for sent in [&[][..], &hello[..3], &hello[..hello.len() - 1]] {
        assert!(raw(&edge, sent).await.is_empty());
    }
    edge.shared
        .resolver
        .put(&credential("acme", &["app.example"]));
    // The rest of the handshake has a deadline too: our first flight, then the end.
    assert!(!raw(&edge, &hello).await.is_empty());
    edge.until_open(0).await;
}
