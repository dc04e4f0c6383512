//! Requests through to an upstream and back.

use super::support::{exchange, get, tell};
use super::upstreams::{ok, through};

#[tokio::test]
async fn a_request_goes_to_the_upstream_and_its_answer_comes_back() {
    let (edge, backend) = through(|_| ok("hello from core")).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = get(&mut visitor, "a.test", "/x?y=1").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("hello from core"), "{answer}");
    let heard = backend.only();
    assert_eq!(heard.line(), "GET /x?y=1 HTTP/1.1");
    assert_eq!(heard.field("host"), ["a.test"]);
    assert_eq!(heard.field("vestibule-tenant"), ["acme"]);
    assert_eq!(heard.field("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(heard.field("x-forwarded-proto"), ["https"]);
    assert_eq!(heard.field("x-forwarded-host"), ["a.test"]);
    assert_eq!(
        heard.field("forwarded"),
        ["for=127.0.0.1;host=a.test;proto=https"]
    );
    assert_eq!(heard.field("connection"), [""; 0]);
    let id = &heard.field("x-request-id")[0];
    assert!(
        answer.contains(&format!("x-request-id: {id}\r\n")),
        "{answer}"
    );
}

#[tokio::test]
async fn requests_of_one_visitor_share_connections_to_the_upstream() {
    let (edge, backend) = through(|heard| ok(&heard.before.to_string())).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    for n in 0..5 {
        let answer = exchange(&mut visitor, "a.test", "/").await;
        assert!(answer.ends_with(&format!("\r\n\r\n{n}")), "{answer}");
    }
    assert!(backend.heard().iter().all(|heard| heard.connection == 0));
}

#[tokio::test]
async fn content_goes_both_ways_by_length_and_in_chunks() {
    let (edge, backend) = through(|heard| ok(&String::from_utf8_lossy(&heard.content))).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let by_length = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                   5\r\nwhole\r\n3;x=y\r\nabc\r\n0\r\n\r\n";
    let both = tell(&mut visitor, format!("{by_length}{chunked}").as_bytes()).await;
    assert_eq!(both.matches("HTTP/1.1 200 OK").count(), 2, "{both}");
    assert!(
        both.contains("\r\n\r\nhello") && both.ends_with("wholeabc"),
        "{both}"
    );
    let heard = backend.heard();
    assert_eq!(heard[0].field("content-length"), ["5"]);
    assert_eq!(heard[1].field("transfer-encoding"), ["chunked"]);
    assert_eq!(heard[1].content, b"wholeabc");
}
