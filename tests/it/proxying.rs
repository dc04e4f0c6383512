//! One request's way: what the upstream sees, what the visitor gets back, and what is refused.

use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait;

const ISSUED: &[&str] = &["outcome=\"issued\""];

/// An edge with two tenants that have their certificates.
struct World {
    edge: Edge,
    upstream: Upstream,
    _pebble: Pebble,
    place: Place,
}

fn world() -> World {
    world_with(|setup| setup)
}

fn world_with(change: impl FnOnce(Setup) -> Setup) -> World {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"])
        .tenant("globex", &["globex.example.com"]);
    let edge = change(setup).start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 2.0);
    World {
        edge,
        upstream,
        _pebble: pebble,
        place,
    }
}

#[test]
fn a_domain_says_that_its_upstream_is_not_there_until_it_is() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = |address: &str| {
        Setup::new(&place)
            .private_ca(Duration::from_secs(86_400))
            .upstream_at(address)
            .tenant("acme", &["acme.example.com", "idle.example.com"])
    };
    let nobody = setup(&format!("{}:9", place.address()));
    let edge = nobody.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 2.0);
    let shown = |name: &str| -> serde_json::Value {
        let said = nobody.succeed(&["domain", "show", name, "--json"]);
        serde_json::from_str(&said).unwrap()
    };
    assert_eq!(
        shown("acme.example.com")["problem"],
        serde_json::Value::Null
    );
    for _ in 0..2 {
        let answer = edge.get("https://acme.example.com/").answered();
        assert_eq!(answer.status, 502);
    }
    let domain = shown("acme.example.com");
    let problem = &domain["problem"];
    assert_eq!(problem["code"], "upstream_unreachable");
    assert_eq!(problem["actor"], "operator");
    let evidence = problem["evidence"][0].as_str().unwrap();
    assert!(evidence.contains("since its last answer: 2"), "{evidence}");
    assert!(evidence.contains("upstream_unreachable"), "{evidence}");
    assert_eq!(
        (&domain["state"], &domain["tls_status"]),
        (&"active".into(), &"issued".into())
    );
    assert_eq!(
        shown("idle.example.com")["problem"],
        serde_json::Value::Null
    );

    edge.reload(&setup(&upstream.address().to_string()));
    wait::until("the upstream answers", || {
        let answer = edge.get("https://acme.example.com/").answered();
        (answer.status == 200).then_some(())
    });
    assert_eq!(
        shown("acme.example.com")["problem"],
        serde_json::Value::Null
    );
}

#[test]
fn a_domain_says_that_its_upstream_is_slow_until_it_answers_in_time() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .replace(
            "name = \"core\"",
            "name = \"core\"\nresponse_timeout = \"200ms\"",
        )
        .tenant("acme", &["acme.example.com"]);
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    let problem = || -> serde_json::Value {
        let said = setup.succeed(&["domain", "show", "acme.example.com", "--json"]);
        let mut domain: serde_json::Value = serde_json::from_str(&said).unwrap();
        domain["problem"].take()
    };
    assert_eq!(problem(), serde_json::Value::Null);
    let answer = edge.get("https://acme.example.com/held").answered();
    assert_eq!(answer.status, 504);
    let slow = problem();
    assert_eq!(slow["code"], "upstream_slow");
    assert_eq!(slow["actor"], "operator");
    let evidence = slow["evidence"][0].as_str().unwrap();
    assert!(evidence.contains("since its last answer: 1"), "{evidence}");
    assert!(evidence.contains("upstream_timeout"), "{evidence}");

    upstream.release();
    let answer = edge.get("https://acme.example.com/held").answered();
    assert_eq!(answer.status, 200);
    assert_eq!(problem(), serde_json::Value::Null);
}

/// Fields as the upstream echoed them.
fn fields(body: &str) -> Vec<(String, String)> {
    let seen: serde_json::Value = serde_json::from_str(body).unwrap();
    serde_json::from_value(seen["fields"].clone()).unwrap()
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

#[test]
fn the_upstream_learns_who_asks_and_a_visitor_cannot_lie_about_it() {
    let world = world();
    for version in ["--http1.1", "--http2"] {
        let answer = world
            .edge
            .get("https://acme.example.com/a/b?c=d")
            .with([version])
            .with(["-H", "X-Forwarded-For: 203.0.113.9"])
            .with(["-H", "X-Forwarded-Proto: gopher"])
            .with(["-H", "X-Forwarded-Host: bank.example.com"])
            .with(["-H", "Forwarded: for=203.0.113.9"])
            .with(["-H", "Vestibule-Tenant: globex"])
            .with(["-H", "X-Request-Id: mine"])
            .with(["-H", "X-Kept: yes"])
            .answered();
        assert_eq!(answer.status, 200, "{version}");
        let seen = fields(&answer.body);
        assert_eq!(values(&seen, "host"), ["acme.example.com"], "{version}");
        assert_eq!(values(&seen, "x-forwarded-proto"), ["https"], "{version}");
        assert_eq!(
            values(&seen, "x-forwarded-host"),
            ["acme.example.com"],
            "{version}"
        );
        assert_eq!(values(&seen, "vestibule-tenant"), ["acme"], "{version}");
        assert_eq!(values(&seen, "x-kept"), ["yes"], "{version}");
        let (forwarded_for, forwarded) =
            (values(&seen, "x-forwarded-for"), values(&seen, "forwarded"));
        assert_eq!((forwarded_for.len(), forwarded.len()), (1, 1), "{version}");
        assert!(forwarded_for[0].starts_with("127."), "{forwarded_for:?}");
        assert!(!forwarded[0].contains("203.0.113.9"), "{forwarded:?}");
        let id = values(&seen, "x-request-id");
        assert_eq!(id.len(), 1, "{version}");
        assert_ne!(id[0], "mine", "{version}");
        assert_eq!(answer.field("x-request-id"), Some(id[0]), "{version}");
    }
}

#[test]
fn bodies_of_both_versions_arrive_whole() {
    let world = world();
    let body = world.place.write("upload", &"x".repeat(3_000_000));
    let upload = format!("@{}", body.display());
    for version in ["--http1.1", "--http2"] {
        let answer = world
            .edge
            .get("https://acme.example.com/upload")
            .with([version, "--data-binary", &upload])
            .answered();
        assert!(
            answer.body.contains(r#""body_bytes":3000000"#),
            "{version}: {}",
            answer.body
        );
    }
}

#[test]
fn one_tenants_connection_serves_no_other_tenants_name() {
    let world = world();
    for version in ["--http1.1", "--http2"] {
        let answer = world
            .edge
            .get("https://acme.example.com/")
            .with([version, "-H", "Host: globex.example.com"])
            .answered();
        // RFC 9110 §15.5.20.
        assert_eq!(answer.status, 421, "{version}");
    }
    assert_eq!(world.upstream.requests(), 0);
}

#[test]
fn a_websocket_talks_both_ways() {
    let world = world();
    let (edge, host) = (&world.edge, "acme.example.com");
    let mut visitor = Visitor::connect(edge.https(), host, edge.trusted()).unwrap();
    visitor
        .ask(
            "/socket",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        )
        .unwrap();
    assert_eq!(visitor.head().unwrap().status, 101);
    for message in [&b"ping"[..], &[0, 255, 13, 10], &[7; 70_000]] {
        visitor.send(message).unwrap();
        assert_eq!(visitor.read(message.len()).unwrap(), message);
    }
}

#[test]
fn an_upstream_that_breaks_or_is_gone_is_a_502_that_names_no_address() {
    let mut world = world();
    let broken = world.edge.get("https://acme.example.com/broken").answered();
    assert_eq!(broken.status, 502);

    let address = world.upstream.address();
    world.upstream.stop();
    let gone = world.edge.get("https://acme.example.com/").answered();
    assert_eq!(gone.status, 502);
    let status = gone.field("proxy-status").unwrap().to_owned();
    assert!(status.contains("error="), "RFC 9209: {status}");
    for text in [&status, &gone.body] {
        assert!(!text.contains(&address.ip().to_string()), "{text}");
        assert!(!text.contains(&address.port().to_string()), "{text}");
    }
    let again = world.edge.get("https://globex.example.com/").answered();
    assert_eq!(again.status, 502, "the edge itself goes on");
}

#[test]
fn plain_http_redirects_known_names_only_and_gives_no_challenge_away() {
    let world = world();
    let known = world
        .edge
        .get_plain("http://acme.example.com/a?b=c")
        .answered();
    assert_eq!(known.status, 308);
    let location = known.field("location").unwrap();
    assert_eq!(location, "https://acme.example.com:18443/a?b=c");
    let unknown = world
        .edge
        .get_plain("http://nobody.example.com/a")
        .answered();
    assert_eq!(unknown.status, 404);
    assert!(!unknown.body.contains("nobody"), "{}", unknown.body);
    let token = "http://acme.example.com/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
    let challenge = world.edge.get_plain(token).answered();
    // RFC 8555 §8.3: a CA follows redirects, so an unknown token is a page like any other.
    assert_eq!(challenge.status, 308, "no such token here");
    assert_eq!(world.upstream.requests(), 0);
}

#[test]
fn a_route_by_tenant_and_path_leads_elsewhere() {
    let place = Place::claim();
    let other = Upstream::named(&place, "other");
    let section = format!(
        "[[upstream]]\nname = \"other\"\naddresses = [\"{}\"]\n\n\
         [[route]]\ntenant = \"acme\"\npath = \"/api\"\nupstream = \"other\"",
        other.address()
    );
    let world = world_with(|setup| setup.section(&section));
    for (url, upstream) in [
        ("https://acme.example.com/api/v1", "other"),
        ("https://acme.example.com/apis", "core"),
        ("https://acme.example.com/", "core"),
        ("https://globex.example.com/api", "core"),
    ] {
        let answer = world.edge.get(url).answered();
        let expected = format!(r#""upstream":"{upstream}""#);
        assert!(answer.body.contains(&expected), "{url}: {}", answer.body);
    }
}

const BEHIND_A_PROXY: &str = "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]";

/// PROXY protocol, version 2: a TCP connection over IPv4 from 203.0.113.7:4711 to 192.0.2.1:443.
const VERSION_2: &[u8] = &[
    0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0,
    12, //
    203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x67, 0x01, 0xbb,
];

#[test]
fn a_trusted_proxy_says_who_the_visitor_is() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    // A CA that came from a trusted range would have to speak the protocol too: here it is our own.
    let edge = Setup::new(&place)
        .replace("[listen]", BEHIND_A_PROXY)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"])
        .start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    let connect = |preamble: &[u8]| {
        Visitor::connect_after(preamble, edge.https(), "acme.example.com", edge.trusted())
    };
    let version_1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
    for preamble in [&version_1[..], VERSION_2] {
        let mut visitor = connect(preamble).unwrap();
        let (head, body) = visitor.get("/").unwrap();
        assert_eq!(head.status, 200);
        let seen = fields(&String::from_utf8(body).unwrap());
        let forwarded_for = values(&seen, "x-forwarded-for");
        assert_eq!(forwarded_for, ["203.0.113.7"]);
        // RFC 7239 §5.2.
        let forwarded = values(&seen, "forwarded");
        assert!(forwarded[0].contains("203.0.113.7"), "{forwarded:?}");
    }
    let nonsense: &[u8] = b"PROXY TCP4 203.0.113.7\r\n";
    assert!(connect(nonsense).is_err(), "a broken header is no visitor");
}

#[test]
fn nobody_but_a_trusted_proxy_may_say_who_the_visitor_is() {
    let untrusted = BEHIND_A_PROXY.replace("127.0.0.0/8", "192.0.2.0/24");
    let world = world_with(|setup| setup.replace("[listen]", &untrusted));
    let (edge, host) = (&world.edge, "acme.example.com");
    let lying = Visitor::connect_after(VERSION_2, edge.https(), host, edge.trusted());
    assert!(lying.is_err(), "the header is not taken for one");
    let answer = edge.get("https://acme.example.com/").answered();
    let seen = fields(&answer.body);
    assert_eq!(values(&seen, "x-forwarded-for").len(), 1);
    assert!(!answer.body.contains("203.0.113.7"), "{}", answer.body);
}

#[test]
fn each_request_leaves_one_record_without_query_or_secret() {
    let mut world = world();
    let answer = world
        .edge
        .get("https://acme.example.com/basket?password=hunter2")
        .with(["-H", "Authorization: Bearer hunter3"])
        .answered();
    let line = world.edge.process.wait_for_line("\"/basket\"");
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(record["tenant"], "acme");
    assert_eq!(record["domain"], "acme.example.com");
    assert_eq!(record["status"], 200);
    assert_eq!(record["tls"], "1.3");
    assert_eq!(record["upstream"], "core");
    assert_eq!(record["end"], "completed");
    assert_eq!(record["bytes_out"], answer.body.len());
    assert_eq!(record["request"].as_str(), answer.field("x-request-id"));
    for secret in ["hunter2", "hunter3", "password"] {
        assert_eq!(world.edge.process.count(secret), 0, "{secret} is logged");
    }
}
