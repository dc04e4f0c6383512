//! Raw requests, byte for byte: what is answered, with what, and that the upstream hears exactly what was accepted.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Edge, soon, tell};
use super::upstreams::{Backend, Heard, ok, through};

/// Sends `raw` on a connection of its own; the status of the first final answer, or 0 where there is none.
async fn status_of(edge: &Edge, raw: &[u8]) -> u16 {
    let mut visitor = edge.visit("a.test").await.unwrap();
    soon(visitor.write_all(raw)).await.unwrap();
    let mut heard = Vec::new();
    soon(async {
        loop {
            let text = String::from_utf8_lossy(&heard).into_owned();
            let final_answer = text
                .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
                .unwrap_or(&text);
            let rest = final_answer.strip_prefix("HTTP/1.");
            if let Some(rest) = rest
                && rest.contains("\r\n\r\n")
            {
                return rest.get(2..5).unwrap().parse().unwrap();
            }
            match visitor.read_buf(&mut heard).await {
                Ok(0) | Err(_) => return 0,
                Ok(_) => {}
            }
        }
    })
    .await
}

/// Asserts the answers to a table of requests, and that the upstream heard the accepted ones only.
async fn check_all(cases: &[(&[u8], u16)]) -> (Edge, Backend) {
    let (edge, backend) = through(|_| ok("fine")).await;
    let mut accepted = 0;
    for (raw, expected) in cases {
        let status = status_of(&edge, raw).await;
        let shown = String::from_utf8_lossy(raw);
        assert_eq!(
            status,
            *expected,
            "{}",
            shown.chars().take(300).collect::<String>()
        );
        accepted += usize::from(status == 200);
        let heard = backend.heard();
        assert_eq!(
            heard.len(),
            accepted,
            "{shown}: the upstream heard {:?}",
            heard.last()
        );
    }
    (edge, backend)
}

#[tokio::test]
async fn targets_and_methods() {
    let long = |length: usize| {
        let target = "a".repeat(length - 1);
        format!("GET /{target} HTTP/1.1\r\nHost: a.test\r\n\r\n").into_bytes()
    };
    let (fits, too_long) = (long(16 * 1024), long(16 * 1024 + 1));
    check_all(&[
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 200),
        (b"OPTIONS /x HTTP/1.1\r\nHost: a.test\r\n\r\n", 200),
        (b"PURGE /x HTTP/1.1\r\nHost: a.test\r\n\r\n", 200),
        (
            b"GET https://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
            200,
        ),
        (
            b"GET https://A.TEST:443/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
            200,
        ),
        (b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (
            b"GET https://b.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
            400,
        ),
        (
            b"GET https://a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n",
            400,
        ),
        (
            b"GET https://a.test:8443/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
            400,
        ),
        (b"GET https://a.test/x HTTP/1.1\r\n\r\n", 400),
        (
            b"GET https://u:p@a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
            400,
        ),
        (b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: a.test\r\n\r\n", 405),
        (b"TRACK / HTTP/1.1\r\nHost: a.test\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET /\x7f HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"G@T / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: a.test\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a.test\r\n\r\n", 400),
        (&fits, 200),
        (&too_long, 414),
    ])
    .await;
}

#[tokio::test]
async fn hosts() {
    let (_edge, backend) = check_all(&[
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            400,
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test b.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test#x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test?x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test\\b.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a%2etest\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test:\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test:0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test:65536\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test:+443\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test:443:443\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test:x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: *.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xc3\xa9.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: xa.test\r\n\r\n", 421),
        (b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: A.TeSt\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a.test.\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a.test:8443\r\n\r\n", 200),
    ])
    .await;
    let hosts: Vec<String> = backend
        .heard()
        .iter()
        .map(|heard| heard.field("host").join("|"))
        .collect();
    assert_eq!(
        hosts,
        ["a.test", "a.test", "a.test", "a.test", "a.test:8443"]
    );
}

fn post(fields: &str, content: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n{content}").into_bytes()
}

#[tokio::test]
async fn framing() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let cases = [
        (post("Content-Length: 5", "hello"), 200),
        (post("Content-Length: 005", "hello"), 200),
        (post("Content-Length: 5\r\nContent-Length: 5", "hello"), 200),
        (post("Content-Length: 5, 5", "hello"), 400),
        (
            post("Content-Length: 5\r\nContent-Length: 6", "hello!"),
            400,
        ),
        (post("Content-Length: +5", "hello"), 400),
        (post("Content-Length: -5", "hello"), 400),
        (post("Content-Length: 0x5", "hello"), 400),
        (post("Content-Length: 5 5", "hello"), 400),
        (post("Content-Length: ", "hello"), 400),
        (post("Content-Length: 99999999999999999999", "hello"), 400),
        (post("Content-Length : 5", "hello"), 400),
        (post("Transfer-Encoding: chunked", chunks), 200),
        (post("Transfer-Encoding: CHUNKED", chunks), 200),
        (post("Transfer-Encoding: chunked, chunked", chunks), 501),
        (post("Transfer-Encoding: gzip, chunked", chunks), 501),
        (
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                chunks,
            ),
            501,
        ),
        (
            post(
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
                chunks,
            ),
            501,
        ),
        (post("Transfer-Encoding: chunked, gzip", chunks), 400),
        (post("Transfer-Encoding: identity", chunks), 400),
        (post("Transfer-Encoding: xchunked", chunks), 400),
        (post("Transfer-Encoding: \"chunked\"", chunks), 400),
        (post("Transfer-Encoding:\x0bchunked", chunks), 400),
        (post("Transfer-Encoding : chunked", chunks), 400),
        (post("X: y\r\n Transfer-Encoding: chunked", chunks), 400),
        (
            post("Transfer-Encoding: chunked", "zz\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            post("Transfer-Encoding: chunked", "-5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            post("Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            post(
                "Transfer-Encoding: chunked",
                "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            ),
            400,
        ),
        (
            post("Transfer-Encoding: chunked", "5\r\nhelloXX0\r\n\r\n"),
            400,
        ),
        (
            post("Transfer-Encoding: chunked", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            post("Transfer-Encoding: chunked", "5;a=b\r\nhello\r\n0\r\n\r\n"),
            200,
        ),
        (
            post(
                "Transfer-Encoding: chunked",
                "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
            ),
            200,
        ),
        (
            post("Expect: 100-continue\r\nContent-Length: 5", "hello"),
            200,
        ),
        (
            post("Expect: 100-Continue\r\nContent-Length: 5", "hello"),
            200,
        ),
        (post("Expect: something\r\nContent-Length: 5", "hello"), 417),
        (
            post("Expect: 100-continue, x\r\nContent-Length: 5", "hello"),
            417,
        ),
    ];
    let (edge, backend) = through(|_| ok("fine")).await;
    for (raw, expected) in &cases {
        let status = status_of(&edge, raw).await;
        assert_eq!(status, *expected, "{}", String::from_utf8_lossy(raw));
    }
    // A request whose content breaks may have begun at the upstream, but none came whole that was refused.
    let whole = |heard: &&Heard| heard.content == b"hello";
    let accepted = cases.iter().filter(|(_, status)| *status == 200).count();
    assert_eq!(backend.heard().iter().filter(whole).count(), accepted);
    for heard in backend.heard() {
        let framings = heard.field("content-length").len() + heard.field("transfer-encoding").len();
        assert_eq!(framings, 1, "{}", heard.head);
        assert!(heard.field("expect").is_empty());
    }
}

#[tokio::test]
async fn old_versions_and_odd_fields() {
    let fields = |count: usize| {
        let many: String = (0..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a.test\r\n{many}\r\n").into_bytes()
    };
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n",
        "x".repeat(70 * 1024)
    );
    let (most, too_many) = (fields(99), fields(100));
    check_all(&[
        (
            b"POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nX: a\0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nX y: z\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n: z\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: a.test\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nX: y\r\n folded\r\n\r\n",
            400,
        ),
        (&most, 200),
        (&too_many, 431),
        (large.as_bytes(), 431),
        // RFC 9112 §2.2 lets a server take a bare LF for the end of a line; the upstream gets CRLF.
        (b"GET / HTTP/1.1\nHost: a.test\n\n", 200),
    ])
    .await;
}

#[tokio::test]
async fn a_request_of_both_framings_is_the_last_on_its_connection() {
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
    ] {
        let (edge, backend) = through(|_| ok("fine")).await;
        let mut visitor = edge.visit("a.test").await.unwrap();
        let first = post(fields, "0\r\n\r\n");
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let answer = tell(&mut visitor, &[&first[..], smuggled].concat()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        let heard = backend.only();
        assert_eq!(heard.line(), "POST /x HTTP/1.1");
        assert!(heard.field("content-length").is_empty(), "{}", heard.head);
    }
}

#[tokio::test]
async fn nothing_that_frames_routes_or_identifies_can_be_nominated_away_or_claimed() {
    let (edge, backend) = through(|_| ok("fine")).await;
    let raw = post(
        "Content-Length: 5\r\n\
         Connection: close, Host, Content-Length, Transfer-Encoding, X-Forwarded-For, Forwarded, X-Request-Id, \
         Vestibule-Tenant, Cookie, Authorization, X-Own, Keep-Alive\r\n\
         Cookie: c=1\r\nAuthorization: Basic eA==\r\nX-Own: dropped\r\nKeep-Alive: timeout=5\r\n\
         TE: trailers, gzip;q=0.5\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nProxy: http://evil.test\r\n\
         X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /evil\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
         True-Client-IP: 1.2.3.4\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Request-Id: evil\r\n\
         X_Forwarded_For: 1.2.3.4\r\nX-Forwarded_For: 1.2.3.4\r\nVestibule_Tenant: evil\r\n\
         Vestibule-Tenant: evil\r\nVestibule-Other: evil\r\nContent_Length: 99\r\nX-SSL-Client-Cert: evil\r\n\
         api_key: kept\r\nX-Custom: kept",
        "hello",
    );
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = tell(&mut visitor, &raw).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let heard = backend.only();
    // Our own request id is random: any two digits may stand in it.
    let own_id = heard.field("x-request-id");
    assert_eq!(own_id.len(), 1, "one request id, ours: {}", heard.head);
    let claimed = heard.head.replace(&own_id[0], "");
    for hostile in [
        "1.2.3.4",
        "evil",
        "/admin",
        "dropped",
        "h2c",
        "99",
        "timeout=5",
    ] {
        assert!(!claimed.contains(hostile), "{hostile}: {}", heard.head);
    }
    for (name, value) in [
        ("host", "a.test"),
        ("content-length", "5"),
        ("cookie", "c=1"),
        ("authorization", "Basic eA=="),
        ("te", "trailers"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=127.0.0.1;host=a.test;proto=https"),
        ("vestibule-tenant", "acme"),
        ("api_key", "kept"),
        ("x-custom", "kept"),
    ] {
        assert_eq!(heard.field(name), [value], "{name}: {}", heard.head);
    }
    for gone in [
        "connection",
        "upgrade",
        "proxy",
        "proxy-connection",
        "proxy-authorization",
        "http2-settings",
    ] {
        assert!(heard.field(gone).is_empty(), "{gone}: {}", heard.head);
    }
}
