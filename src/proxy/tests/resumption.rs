//! Tickets spare the handshake at any worker, and never cross a tenant or a policy.

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};

use super::support::{Edge, exchange};
use crate::proxy::facts::TlsVersion;

fn client(edge: &Edge, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut config = edge.client(&[]);
    let resumption = rustls::client::Resumption::in_memory_sessions(64);
    config.resumption = resumption;
    let provider = Arc::clone(config.crypto_provider());
    // Versions cannot be changed in a made configuration: make it anew around the same verifier.
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(edge.roots()),
        Arc::clone(&provider),
    )
    .build()
    .unwrap();
    let mut own = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    own.resumption = config.resumption;
    Arc::new(own)
}

/// Visits once and tells how the handshake went.
async fn kind(edge: &Edge, config: &Arc<ClientConfig>, name: &str) -> io::Result<HandshakeKind> {
    let mut stream = edge.visit_with(Arc::clone(config), name).await?;
    // Tickets of TLS 1.3 come after the handshake: reading an answer reads them.
    assert!(exchange(&mut stream, name, "/").await.contains(name));
    Ok(stream.get_ref().1.handshake_kind().unwrap())
}

#[tokio::test]
async fn a_visitor_resumes_at_any_worker_in_both_versions() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = client(&edge, version);
        let first = kind(&edge, &config, "app.example").await.unwrap();
        assert_eq!(first, HandshakeKind::Full);
        // Ports decide which of the two workers takes a connection: sixteen meet both.
        for _ in 0..16 {
            let next = kind(&edge, &config, "app.example").await.unwrap();
            assert_eq!(next, HandshakeKind::Resumed, "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_ticket_is_useless_under_another_tenant_policy_or_epoch() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    let config = client(&edge, &rustls::version::TLS13);
    let expect = async |edge: &Edge, expected: HandshakeKind, why: &str| {
        let seen = kind(edge, &config, "app.example").await.unwrap();
        assert_eq!(seen, expected, "{why}");
    };
    expect(&edge, HandshakeKind::Full, "the first").await;
    expect(&edge, HandshakeKind::Resumed, "the same").await;
    let change = |edge: &Edge, epoch, minimum| {
        edge.shared.settings.update(|settings| {
            let mut next = settings.clone();
            (next.tls.epoch, next.tls.minimum) = (epoch, minimum);
            next
        });
    };
    change(&edge, 1, TlsVersion::Tls12);
    expect(&edge, HandshakeKind::Full, "another epoch").await;
    expect(&edge, HandshakeKind::Resumed, "the same again").await;
    change(&edge, 1, TlsVersion::Tls13);
    expect(&edge, HandshakeKind::Full, "another policy").await;
    expect(&edge, HandshakeKind::Resumed, "the same again").await;
}

#[tokio::test]
async fn a_name_that_moves_to_another_tenant_is_not_resumed() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["moving.example"]);
    let moved = super::support::credential("globex", &["moving.example"]);
    edge.trust(&moved);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = client(&edge, version);
        edge.know("acme", &["moving.example"]);
        let before = super::support::credential("acme", &["moving.example"]);
        edge.trust(&before);
        let config_before = client(&edge, version);
        drop(config);
        edge.shared.resolver.put(&before);
        let first = kind(&edge, &config_before, "moving.example").await.unwrap();
        assert_eq!(first, HandshakeKind::Full);
        edge.know("globex", &["moving.example"]);
        edge.shared.resolver.put(&moved);
        let after = kind(&edge, &config_before, "moving.example").await.unwrap();
        assert_eq!(after, HandshakeKind::Full, "{version:?}");
        assert_eq!(
            kind(&edge, &config_before, "moving.example").await.unwrap(),
            HandshakeKind::Resumed
        );
    }
}

#[tokio::test]
async fn the_oldest_version_is_the_policys() {
    let mut edge = Edge::start(|settings| settings.tls.minimum = TlsVersion::Tls13);
    edge.serve("acme", &["app.example"]);
    let old = client(&edge, &rustls::version::TLS12);
    assert!(kind(&edge, &old, "app.example").await.is_err());
    let new = client(&edge, &rustls::version::TLS13);
    assert!(kind(&edge, &new, "app.example").await.is_ok());
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_where_the_visitor_knows_it() {
    let mut edge = Edge::start(|_| {});
    edge.serve("acme", &["app.example"]);
    let stream = edge.visit("app.example").await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}
