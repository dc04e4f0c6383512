//! TLS-ALPN-01: what a CA gets that asks on port 443, and what nobody else does.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use x509_parser::oid_registry::asn1_rs::oid;

use super::support::{Edge, hello_bytes, name, rest, soon};
use crate::base::published::Published;
use crate::certs::challenge::{Challenges, tls_alpn};
use crate::model::Snapshot;
use crate::net::direct::Onlooker;
use crate::proxy::request;
use crate::telemetry::access::AccessLog;
use crate::telemetry::labels::{ChallengeAnswer, ChallengeAsked};

const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Takes any certificate, as a CA does: webpki reads none with a critical extension that it does not know. Pebble checks
/// signatures in `it`.
fn authority(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Onlooker(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    config
}

async fn ask(
    edge: &Edge,
    versions: &[&'static rustls::SupportedProtocolVersion],
    host: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    edge.visit_with(Arc::new(authority(versions)), host).await
}

/// The alert that a raw ClientHello is answered by.
async fn alert(edge: &Edge, alpn: &[&str], host: &str) -> u8 {
    let hello = hello_bytes(edge.client(alpn), host);
    let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    soon(tcp.write_all(&hello)).await.unwrap();
    let record = rest(&mut tcp).await;
    assert_eq!((record[0], record.len()), (0x15, 7), "one alert");
    record[6]
}

#[tokio::test]
async fn a_published_challenge_is_answered_by_its_certificate_and_the_connection_closed() {
    let mut edge =
        Edge::start(|settings| settings.tls.minimum = crate::proxy::facts::TlsVersion::Tls13);
    edge.serve("acme", &["app.example"]);
    let challenges = &edge.shared.challenges;
    challenges.publish(&name("app.example"), tls_alpn::PROTOCOL, "proof");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = ask(&edge, &[version], "app.example").await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        let leaf = session.peer_certificates().unwrap()[0].to_vec();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let id = oid!(1.3.6.1.5.5.7.1.31);
        let extension = leaf.get_extension_unique(&id).unwrap().unwrap();
        let digest = digest::digest(&digest::SHA256, b"proof");
        assert_eq!(&extension.value[2..], digest.as_ref());
        // Nothing is served: the end comes at once, whatever is asked.
        drop(soon(stream.write_all(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")).await);
        assert!(rest(&mut stream).await.is_empty());
    }
    let counted = (ChallengeAsked::TlsAlpn01, ChallengeAnswer::Memory);
    assert_eq!(edge.shared.metrics.challenges.total(counted), 2);
    edge.until_open(0).await;
}

#[tokio::test]
async fn the_certificate_that_serves_a_name_never_answers_for_it() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example", "other.example"]);
    let alone = &["acme-tls/1"][..];
    assert_eq!(
        alert(&edge, alone, "app.example").await,
        NO_APPLICATION_PROTOCOL
    );
    let challenges = &edge.shared.challenges;
    challenges.publish(&name("app.example"), tls_alpn::PROTOCOL, "proof");
    for host in ["other.example", "unknown.example", "sub.app.example"] {
        assert_eq!(
            alert(&edge, alone, host).await,
            NO_APPLICATION_PROTOCOL,
            "{host}"
        );
    }
    // Beside another protocol it is no challenge (RFC 8737 §3).
    let beside = &["acme-tls/1", "http/1.1"][..];
    assert_eq!(
        alert(&edge, beside, "app.example").await,
        NO_APPLICATION_PROTOCOL
    );
    assert!(
        ask(&edge, rustls::ALL_VERSIONS, "app.example")
            .await
            .is_ok()
    );
    challenges.withdraw(&name("app.example"), tls_alpn::PROTOCOL);
    assert_eq!(
        alert(&edge, alone, "app.example").await,
        NO_APPLICATION_PROTOCOL
    );
}

#[tokio::test]
async fn while_the_store_does_not_tell_the_failure_is_called_ours() {
    // Nobody takes questions to the store up.
    let unasked = |known: &Published<Snapshot>| Challenges::channel(known.clone()).0;
    let edge = Edge::start_whole(|_| {}, AccessLog::off(), unasked, &request::serve);
    edge.know("acme", &["app.example"]);
    let alone = &["acme-tls/1"][..];
    assert_eq!(alert(&edge, alone, "app.example").await, 80);
    assert_eq!(
        alert(&edge, alone, "unknown.example").await,
        NO_APPLICATION_PROTOCOL
    );
    let count = |what| {
        let challenges = &edge.shared.metrics.challenges;
        challenges.total((ChallengeAsked::TlsAlpn01, what))
    };
    let counts = (
        count(ChallengeAnswer::Failed),
        count(ChallengeAnswer::Unknown),
    );
    assert_eq!(counts, (1, 1), "an unknown name asks nobody");
}
