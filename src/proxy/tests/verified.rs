//! Upstreams by TLS: always verified, by name or address, against their own roots.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::support::{credential, exchange};
use super::upstreams::{Backend, SHORT, edge, everyone, ok};
use crate::base::task::Tasks;
use crate::certs::credential::Credential;
use crate::model::DnsName;
use crate::model::route::{Upstream, UpstreamAddress, UpstreamName, UpstreamTls};

/// An upstream that answers one request for each connection, by TLS with `credential`.
async fn secure(tasks: &Tasks, credential: &Credential) -> SocketAddr {
    let resolver = SingleCertAndKey::from(Arc::clone(&credential.certified));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn_until_cancelled("secure upstream", async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut head = [0; 4096];
            if tls.read(&mut head).await.is_ok_and(|read| read > 0) {
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret";
                drop(tls.write_all(answer).await);
                drop(tls.shutdown().await);
            }
        }
    });
    address
}

fn upstream(address: UpstreamAddress, at: SocketAddr, tls: UpstreamTls) -> Arc<Upstream> {
    let upstream = Upstream::new(UpstreamName::new("core"), vec![address], tls, SHORT);
    upstream.resolved.publish(vec![at]);
    Arc::new(upstream)
}

fn pem(certificate: &CertificateDer<'_>) -> Arc<[u8]> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    Arc::from(pem.into_bytes())
}

#[tokio::test]
async fn an_upstream_is_verified_by_the_name_it_must_hold_and_its_own_roots() {
    let (edge, tasks) = (edge(), Tasks::new());
    let (core, other) = (
        credential("core", &["core.test"]),
        credential("core", &["core.test"]),
    );
    let at = secure(&tasks, &core).await;
    let socket = UpstreamAddress::Socket(at);
    let name = |text: &str| DnsName::parse(text).unwrap();
    let dialled = UpstreamAddress::Name(name("core.test"), at.port());
    let roots = Some(pem(&core.certified.cert[0]));
    let wrong_roots = Some(pem(&other.certified.cert[0]));
    let verified = |server_name: Option<&str>, roots: &Option<Arc<[u8]>>| UpstreamTls::Verified {
        server_name: server_name.map(name),
        roots: roots.clone(),
    };
    let garbage: Option<Arc<[u8]>> = Some(Arc::from(&b"no certificate"[..]));
    let (good, bad) = ("secret", "error=tls_certificate_error");
    for (address, tls, expected) in [
        (&socket, verified(Some("core.test"), &roots), good),
        (&dialled, verified(None, &roots), good),
        (&socket, verified(Some("other.test"), &roots), bad),
        // By its address: the certificate does not hold it.
        (&socket, verified(None, &roots), bad),
        (&socket, verified(Some("core.test"), &wrong_roots), bad),
        (&socket, verified(Some("core.test"), &None), bad),
        (
            &socket,
            verified(Some("core.test"), &garbage),
            "error=proxy_configuration_error",
        ),
        (&socket, UpstreamTls::None, "HTTP/1.1 502 "),
    ] {
        edge.lead(vec![everyone(&upstream(address.clone(), at, tls.clone()))]);
        let mut visitor = edge.visit("a.test").await.unwrap();
        let answer = exchange(&mut visitor, "a.test", "/").await;
        assert!(answer.contains(expected), "{address} {tls:?}: {answer}");
    }
    tasks.cancel();
}

#[tokio::test]
async fn plain_text_where_tls_is_due_is_refused() {
    let (edge, backend) = (edge(), Backend::start(|_| ok("plain")).await);
    let tls = UpstreamTls::Verified {
        server_name: Some(DnsName::parse("core.test").unwrap()),
        roots: None,
    };
    let upstream = upstream(
        UpstreamAddress::Socket(backend.address),
        backend.address,
        tls,
    );
    edge.lead(vec![everyone(&upstream)]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
    assert!(
        !answer.contains("plain\n") && backend.heard().is_empty(),
        "{answer}"
    );
}
