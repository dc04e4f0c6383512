//! Port 80.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::support::{Edge, name, soon, tell};
use crate::base::published::Published;
use crate::certs::challenge::Challenges;
use crate::certs::lists::PublishedList;
use crate::model::Snapshot;
use crate::model::issuer_key::IssuerKey;
use crate::proxy::request as requests;
use crate::telemetry::access::AccessLog;
use crate::telemetry::labels::{ChallengeAnswer, ChallengeAsked};

async fn ask(edge: &Edge, request: &str) -> String {
    let mut tcp = soon(TcpStream::connect(edge.http)).await.unwrap();
    tell(&mut tcp, request.as_bytes()).await
}

fn request(method: &str, target: &str, host: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let prefix = format!("{name}: ");
    answer.lines().find_map(|line| line.strip_prefix(&prefix))
}

#[tokio::test]
async fn known_hosts_are_sent_to_https_with_path_and_query() {
    let edge = Edge::start(|settings| settings.public_https_port = Some(443));
    edge.know("acme", &["app.example"]);
    let check = async |request: String, location: &str| {
        let answer = ask(&edge, &request).await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        assert_eq!(field(&answer, "location"), Some(location));
    };
    let to = "https://app.example/a/b?c=d";
    check(request("GET", "/a/b?c=d", "app.example"), to).await;
    check(request("POST", "/a/b?c=d", "APP.example:80"), to).await;
    check(
        request("GET", "http://app.example/a/b?c=d", "app.example"),
        to,
    )
    .await;
    check(
        request("GET", "//evil.example/x", "app.example"),
        "https://app.example//evil.example/x",
    )
    .await;
    edge.shared.settings.update(|settings| {
        let mut next = settings.clone();
        next.public_https_port = Some(8443);
        next
    });
    check(
        request("GET", "/", "app.example."),
        "https://app.example:8443/",
    )
    .await;
    // A challenge's path without a challenge is a path like any other.
    let path = "/.well-known/acme-challenge/none";
    check(
        request("GET", path, "app.example"),
        &format!("https://app.example:8443{path}"),
    )
    .await;
}

#[tokio::test]
async fn a_challenge_is_answered_for_its_exact_host_and_token_only() {
    const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
    let edge = Edge::start(|_| {});
    edge.know("acme", &["app.example", "other.example"]);
    let path = format!("/.well-known/acme-challenge/{TOKEN}");
    let challenges = &edge.shared.challenges;
    challenges.publish(&name("app.example"), TOKEN, &format!("{TOKEN}.thumb"));
    let answer = ask(&edge, &request("GET", &path, "APP.example:80")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.ends_with(&format!("\r\n\r\n{TOKEN}.thumb")),
        "{answer}"
    );
    assert_eq!(field(&answer, "x-content-type-options"), Some("nosniff"));
    assert!(
        field(&answer, "content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    let head = ask(&edge, &request("HEAD", &path, "app.example")).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"));
    for (method, path, host, expected) in [
        ("GET", &path, "other.example", "308"),
        ("GET", &path, "unknown.example", "404"),
        ("POST", &path, "app.example", "308"),
        ("GET", &format!("{path}x"), "app.example", "308"),
        ("GET", &format!("{path}/"), "app.example", "308"),
        ("GET", &format!("/x/..{path}"), "app.example", "308"),
    ] {
        let answer = ask(&edge, &request(method, path, host)).await;
        let begins = format!("HTTP/1.1 {expected} ");
        assert!(
            answer.starts_with(&begins),
            "{method} {path} {host}: {answer}"
        );
    }
    challenges.withdraw(&name("app.example"), TOKEN);
    let answer = ask(&edge, &request("GET", &path, "app.example")).await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
}

#[tokio::test]
async fn a_list_of_revoked_certificates_is_given_on_every_host_and_not_twice() {
    let edge = Edge::start(|_| {});
    edge.know("acme", &["app.example"]);
    let key = IssuerKey::from_bytes(&[0xab, 0xcd]);
    let path = key.list_path();
    let answer = ask(&edge, &request("GET", &path, "app.example")).await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    let publish = |seconds| {
        let list = PublishedList {
            der: Bytes::from_static(b"signed"),
            tag: "\"1234\"".to_owned(),
            next_update: edge.shared.clock.now().plus(Duration::from_secs(seconds)),
        };
        edge.shared.lists.publish(&key, list);
    };
    publish(86_400);
    for host in ["app.example", "unknown.example"] {
        let answer = ask(&edge, &request("GET", &path, host)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nsigned"), "{answer}");
        let fields = ["content-type", "cache-control", "etag"].map(|name| field(&answer, name));
        assert_eq!(
            fields,
            [
                Some("application/pkix-crl"),
                Some("public, max-age=3600"),
                Some("\"1234\"")
            ]
        );
    }
    let head = ask(&edge, &request("HEAD", &path, "app.example")).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"));
    for (tags, status) in [
        ("\"1234\"", "304"),
        ("\"x\", W/\"1234\"", "304"),
        ("*", "304"),
        ("\"x\"", "200"),
    ] {
        let asked = format!(
            "GET {path} HTTP/1.1\r\nHost: app.example\r\nIf-None-Match: {tags}\r\nConnection: close\r\n\r\n"
        );
        let answer = ask(&edge, &asked).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert_eq!(field(&answer, "etag"), Some("\"1234\""));
    }
    // Nobody keeps it beyond the next one, nor at all once that should be there.
    publish(100);
    let answer = ask(&edge, &request("GET", &path, "app.example")).await;
    let age = field(&answer, "cache-control").and_then(|it| it.strip_prefix("public, max-age="));
    assert!((90..=100).contains(&age.unwrap().parse::<u32>().unwrap()));
    publish(0);
    let answer = ask(&edge, &request("GET", &path, "app.example")).await;
    assert_eq!(field(&answer, "cache-control"), Some("public, max-age=0"));
    for (method, path) in [("POST", path.clone()), ("GET", format!("{path}/"))] {
        let answer = ask(&edge, &request(method, &path, "app.example")).await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    }
}

#[tokio::test]
async fn what_became_of_each_challenge_is_counted() {
    const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
    // Nobody takes questions to the store up.
    let unasked = |known: &Published<Snapshot>| Challenges::channel(known.clone()).0;
    let edge = Edge::start_whole(|_| {}, AccessLog::off(), unasked, &requests::serve);
    edge.know("acme", &["app.example"]);
    let path = |token: &str| format!("/.well-known/acme-challenge/{token}");
    let count = |what| {
        let challenges = &edge.shared.metrics.challenges;
        challenges.total((ChallengeAsked::Http01, what))
    };
    let counts = || {
        [
            count(ChallengeAnswer::Memory),
            count(ChallengeAnswer::Store),
            count(ChallengeAnswer::Unknown),
            count(ChallengeAnswer::Failed),
        ]
    };
    let answer = ask(&edge, &request("GET", &path(TOKEN), "app.example")).await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert_eq!(counts(), [0, 0, 0, 1], "the store was not reached");
    ask(&edge, &request("GET", &path("short"), "app.example")).await;
    ask(&edge, &request("GET", &path(TOKEN), "unknown.example")).await;
    assert_eq!(counts(), [0, 0, 2, 1]);
    let challenges = &edge.shared.challenges;
    challenges.publish(&name("app.example"), TOKEN, "proof");
    let answer = ask(&edge, &request("GET", &path(TOKEN), "app.example")).await;
    assert!(answer.ends_with("\r\n\r\nproof"), "{answer}");
    assert_eq!(counts(), [1, 0, 2, 1]);
}

#[tokio::test]
async fn unknown_and_suspended_hosts_get_404_without_echo() {
    let edge = Edge::start(|_| {});
    edge.suspend("acme", &["gone.example"]);
    for host in ["unknown.example", "gone.example"] {
        let answer = ask(&edge, &request("GET", "/secret-path", host)).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(!answer.contains(host) && !answer.contains("secret-path"));
        assert_eq!(field(&answer, "x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test]
async fn a_bad_host_is_400() {
    let edge = Edge::start(|_| {});
    edge.know("acme", &["app.example"]);
    for head in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app.example\r\nHost: app.example\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        &request("GET", "/", "127.0.0.1"),
        &request("GET", "/", "[::1]:80"),
        &request("GET", "/", "app.example@evil.example"),
        &request("GET", "/", "app.example/x"),
        &request("GET", "/", "app.example,evil.example"),
        &request("GET", "/", "app.example:8x"),
        &request("GET", "http://user@app.example/", "app.example"),
        &request("GET", "/", ""),
    ] {
        let answer = ask(&edge, head).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{head}{answer}"
        );
        assert!(field(&answer, "location").is_none());
    }
}

#[tokio::test]
async fn http2_is_not_spoken_here() {
    let edge = Edge::start(|_| {});
    let answer = ask(&edge, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 "),
        "{answer}"
    );
    edge.until_open(0).await;
}
