//! Tenants never touch: not by authority, not by routes, not by connections.

use super::support::{Edge, exchange, get, tell};
use super::upstreams::{Backend, edge, everyone, of_host, of_tenant, ok, route, through};
use crate::model::route::UpstreamName;
use crate::model::snapshot::KnownDomain;
use crate::model::{NamePattern, TenantId};

#[tokio::test]
async fn connections_to_one_upstream_are_never_shared_between_tenants() {
    let (edge, backend) = through(|heard| ok(&heard.field("vestibule-tenant").join(","))).await;
    for _ in 0..10 {
        for (host, tenant) in [
            ("a.test", "acme"),
            ("b.test", "globex"),
            ("www.a.test", "acme"),
        ] {
            let mut visitor = edge.visit(host).await.unwrap();
            let answer = get(&mut visitor, host, "/").await;
            assert!(answer.ends_with(tenant), "{answer}");
        }
    }
    let heard = backend.heard();
    for one in &heard {
        for other in heard
            .iter()
            .filter(|other| other.connection == one.connection)
        {
            assert_eq!(
                one.field("vestibule-tenant"),
                other.field("vestibule-tenant")
            );
        }
    }
    assert!(
        heard.iter().any(|heard| heard.before > 0),
        "connections are used again at all"
    );
}

#[tokio::test]
async fn another_host_of_the_same_tenant_and_certificate_is_served_and_others_are_misdirected() {
    let (edge, backend) = through(|_| ok("served")).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = exchange(&mut visitor, "www.a.test", "/").await;
    assert!(answer.ends_with("served"), "{answer}");
    for other in ["b.test", "unknown.test", "a.test.test"] {
        let answer = exchange(&mut visitor, other, "/").await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{other}: {answer}");
    }
    // The connection stays usable.
    let answer = exchange(&mut visitor, "A.Test.", "/").await;
    assert!(answer.ends_with("served"), "{answer}");
    let hosts: Vec<_> = backend
        .heard()
        .iter()
        .map(|heard| heard.field("host"))
        .collect();
    assert_eq!(hosts, [["www.a.test"], ["a.test"]]);
}

#[tokio::test]
async fn a_domain_that_changed_its_tenant_is_not_served_on_old_connections() {
    let (edge, _backend) = through(|heard| ok(&heard.field("vestibule-tenant").join(","))).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    assert!(
        exchange(&mut visitor, "a.test", "/")
            .await
            .ends_with("acme")
    );
    edge.know("globex", &["a.test"]);
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    edge.know("acme", &["a.test"]);
    edge.suspend("acme", &["a.test"]);
    let answer = tell(
        &mut visitor,
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

#[tokio::test]
async fn the_narrowest_scope_and_the_longest_path_win() {
    let edge = edge();
    let say_where =
        |place: &'static str| Backend::start(move |heard| ok(&format!("{place} {}", heard.line())));
    let (all, tenant, host, api) = (
        say_where("all").await,
        say_where("tenant").await,
        say_where("host").await,
        say_where("api").await,
    );
    edge.lead(vec![
        everyone(&all.upstream("all")),
        route(of_tenant("acme"), "/shop", &tenant.upstream("tenant")),
        route(of_host("a.test"), "/only", &host.upstream("host")),
        route(of_tenant("acme"), "/shop/api", &api.upstream("api")),
    ]);
    let mut visitor = edge.visit("a.test").await.unwrap();
    for (path, expected) in [
        ("/", "all GET / HTTP/1.1"),
        ("/shop", "tenant GET /shop HTTP/1.1"),
        ("/shopping", "all GET /shopping HTTP/1.1"),
        ("/shop/api/x?q=%2F", "api GET /shop/api/x?q=%2F HTTP/1.1"),
        ("/x/../shop//api/./y?z", "api GET /shop/api/y?z HTTP/1.1"),
        ("/%73hop", "tenant GET /shop HTTP/1.1"),
        ("/only", "host GET /only HTTP/1.1"),
    ] {
        let answer = exchange(&mut visitor, "a.test", path).await;
        assert!(answer.ends_with(expected), "{path}: {answer}");
    }
    let answer = exchange(&mut visitor, "a.test", "/shop%2fapi").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    edge.lead(vec![route(of_tenant("globex"), "/", &all.upstream("all"))]);
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("no_route"),
        "{answer}"
    );
}

#[tokio::test]
async fn without_rules_about_paths_they_are_forwarded_byte_for_byte() {
    let (edge, backend) = through(|_| ok("")).await;
    let mut visitor = edge.visit("a.test").await.unwrap();
    for path in [
        "/a%2fb",
        "//x/../y",
        "/%61",
        "/a\\b",
        "/..;/x",
        "/?a=b?c&d=%00",
    ] {
        exchange(&mut visitor, "a.test", path).await;
        let heard = backend.heard();
        assert_eq!(heard.last().unwrap().line(), format!("GET {path} HTTP/1.1"));
    }
}

/// The permission hook has chosen this upstream for `a.test`.
fn choose(edge: &Edge, upstream: &str) {
    edge.shared.snapshot.update(|snapshot| {
        let mut next = snapshot.clone();
        let domain = KnownDomain {
            tenant: TenantId::parse("acme").unwrap(),
            served: true,
            upstream: Some(UpstreamName::new(upstream)),
        };
        next.put([(NamePattern::parse("a.test").unwrap(), domain)]);
        next
    });
}

#[tokio::test]
async fn an_upstream_that_the_hook_chose_and_nobody_configured_is_never_another_one() {
    let (edge, backend) = through(|_| ok("another's")).await;
    choose(&edge, "missing");
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = exchange(&mut visitor, "a.test", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let why = "proxy-status: vestibule; error=proxy_configuration_error\r\n";
    assert!(answer.contains(why), "{answer}");
    assert!(answer.contains("upstream_not_configured"), "{answer}");
    assert!(backend.heard().is_empty());
}

#[tokio::test]
async fn the_upstream_that_the_hook_chose_for_a_domain_takes_all_of_it_and_of_no_other() {
    let edge = edge();
    let (shared, own) = (
        Backend::start(|_| ok("shared")).await,
        Backend::start(|heard| ok(&format!("own {}", heard.line()))).await,
    );
    edge.lead_some(
        vec![
            everyone(&shared.upstream("shared")),
            route(of_host("a.test"), "/shop", &shared.upstream("shared")),
        ],
        vec![
            everyone(&shared.upstream("shared")),
            everyone(&own.upstream("own")),
        ],
    );
    let mut visitor = edge.visit("a.test").await.unwrap();
    let answer = exchange(&mut visitor, "a.test", "/shop").await;
    assert!(answer.ends_with("shared"), "{answer}");
    choose(&edge, "own");
    for path in ["/", "/shop", "/x/../shop"] {
        let answer = exchange(&mut visitor, "a.test", path).await;
        let expected = format!("own GET {path} HTTP/1.1");
        assert!(answer.ends_with(&expected), "{path}: {answer}");
    }
    let answer = exchange(&mut visitor, "www.a.test", "/").await;
    assert!(answer.ends_with("shared"), "{answer}");
}
