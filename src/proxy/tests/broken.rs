//! Upstreams that misbehave: each gets the right answer, and never spoils the next request.

use super::support::{Edge, exchange, get, soon, tell};
use super::upstreams::{
    Backend, Manner, Reply, SHORT, edge, everyone, nobody, ok, say, through, upstream,
};

/// Sends a GET to an upstream that answers `/bad` by `reply` and everything else politely; then another request over
/// the same visitor's tenant, which must be answered in peace. Gives the first answer.
async fn after(reply: Reply) -> String {
    let (edge, backend) = through(move |heard| match heard.line().contains("/bad") {
        true => reply.clone(),
        false => ok("fine"),
    })
    .await;
    let upstream = upstream("core", &[backend.address], SHORT);
    edge.lead(vec![everyone(&upstream)]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    let first = get(&mut visitor, "a.test", "/bad").await;
    let mut next = edge.visit("a.test").await.unwrap();
    let second = get(&mut next, "a.test", "/good").await;
    assert!(
        second.starts_with("HTTP/1.1 200 OK") && second.ends_with("fine"),
        "{second}"
    );
    first
}

async fn check(reply: &str, status: &str, reason: &str) {
    let answer = after(Reply::SayAndClose(reply.as_bytes().to_vec())).await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{reply:?}: {answer}"
    );
    assert!(answer.contains(reason), "{reply:?}: {answer}");
}

#[tokio::test]
async fn malformed_answers_are_bad_gateways() {
    check("", "502", "upstream_closed").await;
    check("garbage\r\n\r\n", "502", "upstream_malformed").await;
    check("HTTP/0.9 200 OK\r\n\r\nx", "502", "upstream_malformed").await;
    check(
        "<html>HTTP/0.9 has no head</html>",
        "502",
        "upstream_malformed",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "502",
        "upstream_malformed",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "502",
        "upstream_malformed",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
        "502",
        "upstream_malformed",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "502",
        "upstream_malformed",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        "502",
        "upstream_malformed",
    )
    .await;
    check("HTTP/1.1 2000 OK\r\n\r\n", "502", "upstream_malformed").await;
    check("HTTP/1.1 200 OK\r\nContent-Le", "502", "upstream_closed").await;
}

#[tokio::test]
async fn an_answer_whose_head_is_too_large_is_a_bad_gateway() {
    let large = "x".repeat(300 * 1024);
    check(
        &format!("HTTP/1.1 200 OK\r\nA: {large}\r\n\r\n"),
        "502",
        "upstream_head_too_large",
    )
    .await;
    let many = "A: b\r\n".repeat(150);
    check(
        &format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        "502",
        "upstream_head_too_large",
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_could_be_read_in_two_ways_is_a_bad_gateway() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
    ] {
        let reply = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{chunks}");
        let answer = after(Reply::Say(reply.into_bytes())).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{fields}: {answer}");
        assert!(!answer.contains("hello"), "{fields}: {answer}");
    }
}

#[tokio::test]
async fn answers_without_content_have_none_whatever_the_upstream_sends() {
    let no_content = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello";
    let answer = after(Reply::Say(no_content.as_bytes().to_vec())).await;
    assert!(
        answer.starts_with("HTTP/1.1 204") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    let not_modified = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n";
    let answer = after(Reply::Say(not_modified.as_bytes().to_vec())).await;
    assert!(
        answer.starts_with("HTTP/1.1 304") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_head_request_keeps_the_length_and_gets_no_content() {
    let (edge, backend) = through(|heard| match heard.line().starts_with("HEAD") {
        true => say("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        false => ok("next"),
    })
    .await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let head = "HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let get = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let both = tell(&mut visitor, format!("{head}{get}").as_bytes()).await;
    assert!(both.contains("content-length: 1234\r\n"), "{both}");
    assert!(both.ends_with("\r\n\r\nnext"), "{both}");
    assert_eq!(backend.heard().len(), 2);
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(100);
    let answer = after(Reply::Say(
        format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").into_bytes(),
    ))
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok"),
        "{answer}"
    );
}

#[tokio::test]
async fn content_that_breaks_off_never_looks_whole() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
    let unfinished = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
    for reply in [short, unfinished, broken] {
        let closed = Reply::SayAndClose(reply.as_bytes().to_vec());
        let reset = Reply::SayAndReset(reply.as_bytes().to_vec());
        for reply in [closed, reset] {
            let answer = after(reply.clone()).await;
            if answer.starts_with("HTTP/1.1 502") {
                // The reset overtook what had been sent.
                continue;
            }
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(!answer.ends_with("0\r\n\r\n"), "ended in order: {answer}");
            let (head, content) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                !head.contains("content-length: 9\r\n") && content.len() < 100,
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn bytes_after_an_answer_are_never_taken_for_the_next_one() {
    let (edge, backend) = through(|heard| match heard.before {
        0 => say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
        _ => ok("clean"),
    })
    .await;
    for _ in 0..3 {
        let mut visitor = edge.visit("a.test").await.unwrap();
        let answer = get(&mut visitor, "a.test", "/").await;
        assert!(!answer.contains("poison"), "{answer}");
    }
    assert!(
        backend.heard().iter().all(|heard| heard.before == 0),
        "a spoilt connection was used"
    );
}

#[tokio::test]
async fn an_unasked_switch_of_protocols_is_a_bad_gateway() {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw";
    let answer = after(Reply::Say(switch.as_bytes().to_vec())).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(
        answer.contains("proxy-status: vestibule; error=http_upgrade_failed"),
        "{answer}"
    );
    assert!(!answer.contains("raw"), "{answer}");
}

#[tokio::test]
async fn silence_is_a_gateway_timeout_and_closes_the_connection() {
    let answer = after(Reply::Hang).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(
        answer.contains("proxy-status: vestibule; error=http_response_timeout"),
        "{answer}"
    );
    assert!(answer.contains("upstream_timeout"), "{answer}");
}

#[tokio::test]
async fn content_that_stalls_is_broken_off_in_time() {
    let (edge, backend) = (
        edge(),
        Backend::start(|heard| match heard.before {
            0 => say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
            _ => Reply::Hang,
        })
        .await,
    );
    edge.lead(vec![everyone(&upstream("core", &[backend.address], SHORT))]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = get(&mut visitor, "a.test", "/").await;
    assert!(answer.ends_with("\r\n\r\nonly this"), "{answer}");
    backend.until_closed(1).await;
}

#[tokio::test]
async fn nobody_listening_is_a_bad_gateway_and_the_next_address_is_tried() {
    let edge = edge();
    let dead = nobody().await;
    edge.lead(vec![everyone(&upstream("core", &[dead], SHORT))]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(
        answer.contains("proxy-status: vestibule; error=connection_refused"),
        "{answer}"
    );
    assert!(!answer.contains(&dead.port().to_string()), "{answer}");
    let backend = Backend::start(|_| ok("second")).await;
    let both = upstream("core", &[dead, backend.address], SHORT);
    edge.lead(vec![everyone(&both)]);
    for _ in 0..4 {
        let answer = exchange(&mut visitor, "a.test", "/").await;
        assert!(answer.ends_with("second"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_before_the_content_is_passed_on_and_its_connection_not_used_again() {
    let backend = Backend::start_in(Manner::Early, |_| {
        say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
    })
    .await;
    let edge = edge();
    edge.lead(vec![everyone(&backend.upstream("core"))]);
    for _ in 0..2 {
        let mut visitor = edge.visit("a.test").await.unwrap();
        let unfinished = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nonly this";
        let answer = tell(&mut visitor, unfinished.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.ends_with("big"),
            "{answer}"
        );
    }
    let connections: Vec<_> = backend
        .heard()
        .iter()
        .map(|heard| heard.connection)
        .collect();
    assert_eq!(connections, [0, 1]);
    backend.until_closed(2).await;
}

#[tokio::test]
async fn a_visitor_who_leaves_closes_the_connection_to_the_upstream() {
    let (edge, backend) = through(|_| Reply::Hang).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    soon(tokio::io::AsyncWriteExt::write_all(&mut visitor, request))
        .await
        .unwrap();
    soon(async {
        while backend.heard().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(visitor);
    backend.until_closed(1).await;
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_while_it_waited_costs_no_request() {
    let (edge, backend) =
        through(|_| Reply::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()))
            .await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    for n in 0..20 {
        let answer = exchange(&mut visitor, "a.test", "/").await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK"),
            "request {n}: {answer}"
        );
    }
    assert_eq!(backend.heard().len(), 20, "no request was heard twice");
}

#[tokio::test]
async fn content_is_never_sent_twice() {
    // Every second request on a connection is broken off without an answer.
    let (edge, backend) = through(|heard| match heard.before {
        0 => ok("first"),
        _ => Reply::SayAndClose(Vec::new()),
    })
    .await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let post = |edge: &Edge| {
        let _same = edge;
        "POST /once HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nonce"
    };
    exchange(&mut visitor, "a.test", "/").await;
    soon(tokio::io::AsyncWriteExt::write_all(
        &mut visitor,
        post(&edge).as_bytes(),
    ))
    .await
    .unwrap();
    let answer = super::support::answer(&mut visitor).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let posts = backend
        .heard()
        .iter()
        .filter(|heard| heard.line().starts_with("POST"))
        .count();
    assert_eq!(posts, 1);
    // A GET in the same place is sent again, once.
    exchange(&mut visitor, "a.test", "/").await;
    let answer = exchange(&mut visitor, "a.test", "/again").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let gets = backend
        .heard()
        .iter()
        .filter(|heard| heard.line().contains("/again"))
        .count();
    assert_eq!(gets, 2);
}

#[tokio::test]
async fn a_stopped_upstream_is_found_again_when_it_is_back() {
    let edge = edge();
    let first = Backend::start(|_| ok("first")).await;
    edge.lead(vec![everyone(&first.upstream("core"))]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    assert!(
        exchange(&mut visitor, "a.test", "/")
            .await
            .ends_with("first")
    );
    first.stop().await;
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let second = Backend::start(|_| ok("second")).await;
    edge.lead(vec![everyone(&upstream("core", &[second.address], SHORT))]);
    assert!(
        exchange(&mut visitor, "a.test", "/")
            .await
            .ends_with("second")
    );
}
