//! What messages say on their way: who visits, and what routes change.

use http::header::{HeaderName, HeaderValue};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{Edge, get, soon, tell};
use super::upstreams::{Backend, Heard, edge, edge_set, everyone, ok, say, through};
use crate::model::route::HeaderEdits;
use crate::proxy::settings::ProxyProtocol;

/// What proxies say about visitors, and what only we say.
const CLAIMS: &str = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n\
                      X-Forwarded-Host: shop.test\r\nForwarded: for=203.0.113.7;proto=http\r\n\
                      X-Real-IP: 203.0.113.7\r\nX_Forwarded_For: 203.0.113.7\r\nX-Request-Id: theirs-1\r\n\
                      Vestibule-Tenant: globex\r\nVestibule-Admin: yes\r\n";

/// Our answer to a visitor of `a.test` who makes these claims, and what the upstream heard of them.
async fn claim(edge: &Edge, announced: &[u8]) -> (String, Heard) {
    let backend = Backend::start(|_| ok("ok")).await;
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    let mut tcp = soon(TcpStream::connect(edge.https)).await.unwrap();
    soon(tcp.write_all(announced)).await.unwrap();
    let config = edge.client(&[]).into();
    let mut visitor = edge.visit_over(tcp, config, "a.test").await.unwrap();
    let nominated = "Connection: close, X-Forwarded-For, Vestibule-Tenant, X-Request-Id";
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{nominated}\r\n{CLAIMS}\r\n");
    let answer = tell(&mut visitor, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    (answer, backend.only())
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_its_fields_are_continued() {
    let range = "127.0.0.0/8".parse().unwrap();
    let edge = edge_set(|settings| settings.trusted_proxies = vec![range]);
    let (answer, heard) = claim(&edge, b"").await;
    let expected = [
        ("x-forwarded-for", "203.0.113.7, 10.0.0.1, 127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.test"),
        (
            "forwarded",
            "for=203.0.113.7;proto=http, for=127.0.0.1;host=a.test;proto=https",
        ),
        ("x-real-ip", "203.0.113.7"),
        ("x-request-id", "theirs-1"),
        ("vestibule-tenant", "acme"),
    ];
    for (name, value) in expected {
        assert_eq!(heard.field(name), [value], "{name}");
    }
    for gone in ["x_forwarded_for", "vestibule-admin"] {
        assert!(heard.field(gone).is_empty(), "{gone}");
    }
    assert!(
        answer.contains("\r\nx-request-id: theirs-1\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_anyone_else_claims_is_overwritten() {
    let elsewhere = "192.0.2.0/24".parse().unwrap();
    let edge = edge_set(|settings| settings.trusted_proxies = vec![elsewhere]);
    let (answer, heard) = claim(&edge, b"").await;
    check_overwritten(&heard, &answer, "127.0.0.1");
}

#[tokio::test]
async fn a_visitor_announced_by_a_trusted_proxy_is_not_believed_himself() {
    let range = "127.0.0.0/8".parse().unwrap();
    let edge = edge_set(|settings| {
        settings.trusted_proxies = vec![range];
        settings.proxy_protocol = ProxyProtocol::FromTrusted;
    });
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let (answer, heard) = claim(&edge, header).await;
    check_overwritten(&heard, &answer, "192.0.2.7");
}

fn check_overwritten(heard: &Heard, answer: &str, visitor: &str) {
    let forwarded = format!("for={visitor};host=a.test;proto=https");
    for (name, value) in [
        ("x-forwarded-for", visitor),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "a.test"),
        ("forwarded", &forwarded),
        ("vestibule-tenant", "acme"),
    ] {
        assert_eq!(heard.field(name), [value], "{name}");
    }
    for gone in ["x-real-ip", "x_forwarded_for", "vestibule-admin"] {
        assert!(heard.field(gone).is_empty(), "{gone}");
    }
    let [id] = &heard.field("x-request-id")[..] else {
        panic!("{heard:?}");
    };
    assert_ne!(id, "theirs-1");
    assert!(
        answer.contains(&format!("\r\nx-request-id: {id}\r\n")),
        "{answer}"
    );
    for claimed in ["203.0.113.7", "10.0.0.1", "shop.test", "globex"] {
        assert!(!heard.head.contains(claimed), "{claimed}: {}", heard.head);
    }
}

fn edits(remove: &[&'static str], set: &[(&'static str, &'static str)]) -> HeaderEdits {
    HeaderEdits {
        remove: remove
            .iter()
            .map(|name| HeaderName::from_static(name))
            .collect(),
        set: set
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect(),
    }
}

#[tokio::test]
async fn a_route_removes_and_sets_fields_both_ways_but_none_of_framing() {
    let (edge, backend) = through(|_| {
        say(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: core/1\r\nX-Powered-By: core\r\n\
             X-Frame-Options: a\r\nX-Frame-Options: b\r\nX-Kept: y\r\n\r\nok",
        )
    })
    .await;
    let mut route = everyone(&backend.upstream("core"));
    route.request_headers = edits(
        &["cookie", "x-absent", "content-length"],
        &[("x-team", "blue"), ("transfer-encoding", "chunked")],
    );
    route.response_headers = edits(
        &["server", "x-powered-by", "content-length"],
        &[("x-frame-options", "DENY"), ("connection", "upgrade")],
    );
    edge.lead(vec![route]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    let request = "POST / HTTP/1.1\r\nHost: a.test\r\nCookie: a=b\r\nX-Team: red\r\nX-Team: green\r\n\
                   X-Kept: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = tell(&mut visitor, request.as_bytes()).await;
    let heard = backend.only();
    assert_eq!(heard.field("x-team"), ["blue"]);
    assert_eq!(heard.field("x-kept"), ["x"]);
    assert_eq!(heard.field("content-length"), ["2"]);
    assert_eq!(heard.content, b"hi");
    for gone in ["cookie", "transfer-encoding"] {
        assert!(heard.field(gone).is_empty(), "{gone}");
    }
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    for line in ["x-frame-options: DENY", "x-kept: y", "content-length: 2"] {
        assert_eq!(head.matches(line).count(), 1, "{line}: {head}");
    }
    for gone in ["x-frame-options: a", "server:", "x-powered-by", "upgrade"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
    assert_eq!(content, "ok");
}

#[tokio::test]
async fn trailers_pass_both_ways_without_what_must_not_come_that_late() {
    let (edge, backend) = through(|_| {
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie, X-Request-Id\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nX-Request-Id: forged\r\n\r\n")
    })
    .await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let request = "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
                   Trailer: X-Check, X-Forwarded-For, Authorization, Vestibule-Tenant\r\n\
                   Connection: close\r\n\r\n\
                   5\r\nhello\r\n0\r\nX-Check: 7\r\nX-Forwarded-For: 203.0.113.7\r\n\
                   Authorization: root\r\nVestibule-Tenant: globex\r\n\r\n";
    let answer = tell(&mut visitor, request.as_bytes()).await;
    let heard = backend.only();
    assert_eq!(heard.content, b"hello");
    assert_eq!(heard.trailers, ["x-check: 7"]);
    assert_eq!(heard.field("te"), ["trailers"]);
    let (_, content) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(content, "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n");
}

#[tokio::test]
async fn a_visitor_who_did_not_ask_for_trailers_gets_none() {
    let edge = edge();
    let backend = Backend::start(|_| {
        say(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
        )
    })
    .await;
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = get(&mut visitor, "a.test", "/").await;
    assert!(answer.ends_with("\r\n\r\n2\r\nok\r\n0\r\n\r\n"), "{answer}");
}
