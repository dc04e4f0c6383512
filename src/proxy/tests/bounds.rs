//! What the operator sets for requests on their way takes effect on them.

use tokio::io::AsyncWriteExt as _;

use super::support::{Edge, answer, soon, tell};
use super::upstreams::{Backend, edge_set, everyone, ok};
use crate::proxy::limits::Limits;
use crate::proxy::settings::Settings;

/// An edge under `configure` that leads everyone to an upstream which answers politely.
async fn edge_to_core(configure: impl FnOnce(&mut Settings)) -> (Edge, Backend) {
    let (edge, backend) = (edge_set(configure), Backend::start(|_| ok("ok")).await);
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    (edge, backend)
}

/// Publishes other limits.
fn limit(edge: &Edge, change: impl Fn(&mut Limits)) {
    edge.shared.settings.update(|settings| {
        let mut next = Settings::clone(settings);
        change(&mut next.limits);
        next
    });
}

#[tokio::test]
async fn raised_limits_of_a_head_let_larger_ones_pass() {
    let (edge, _backend) = edge_to_core(|settings| {
        settings.limits.fields = 200;
        settings.limits.head_bytes = 256 * 1024;
        settings.limits.target_bytes = 32 * 1024;
    })
    .await;
    let check = async |target: &str, fields: &str, expected: &str| {
        let mut stream = edge.visit("a.test").await.unwrap();
        let head =
            format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n");
        let answer = tell(&mut stream, head.as_bytes()).await;
        assert!(
            answer.starts_with(expected),
            "{} bytes: {answer}",
            head.len()
        );
    };
    check("/", &"X: x\r\n".repeat(198), "HTTP/1.1 200 ").await;
    check("/", &"X: x\r\n".repeat(199), "HTTP/1.1 431 ").await;
    let large = format!("X: {}\r\n", "x".repeat(100_000));
    check("/", &large, "HTTP/1.1 200 ").await;
    check(&large_target(30_000), "", "HTTP/1.1 200 ").await;
    check(&large_target(33_000), "", "HTTP/1.1 414 ").await;
}

#[tokio::test]
async fn lowered_limits_of_a_head_hold_at_once() {
    let (edge, backend) = edge_to_core(|_| {}).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    limit(&edge, |limits| {
        limits.fields = 20;
        limits.head_bytes = 8 * 1024;
        limits.target_bytes = 1024;
    });
    for (target, fields, expected) in [
        ("/", "X: x\r\n".repeat(18), "HTTP/1.1 200 "),
        ("/", "X: x\r\n".repeat(20), "HTTP/1.1 431 "),
        ("/", format!("X: {}\r\n", "x".repeat(9000)), "HTTP/1.1 431 "),
        (&*large_target(1000), String::new(), "HTTP/1.1 200 "),
        (&*large_target(1100), String::new(), "HTTP/1.1 414 "),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        soon(visitor.write_all(head.as_bytes())).await.unwrap();
        let answer = answer(&mut visitor).await;
        assert!(answer.starts_with(expected), "{head}: {answer}");
    }
    assert_eq!(backend.heard().len(), 2);
}

fn large_target(bytes: usize) -> String {
    format!("/{}", "x".repeat(bytes))
}
