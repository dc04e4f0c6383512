//! The choice of a route: with one rule for everyone, with a tenant's own among ten thousand tenants, and with a path
//! that has to be normalised first.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot set itself up must fail"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use vestibule::model::route::{
    HeaderEdits, PathPrefix, Route, RouteScope, Upstream, UpstreamName, UpstreamTimeouts,
    UpstreamTls,
};
use vestibule::model::snapshot::{KnownDomain, Routes};
use vestibule::model::{DnsName, TenantId};
use vestibule::proxy::route::choose;

const TENANTS: usize = 10_000;

fn route(scope: RouteScope, path: &str, upstream: &Arc<Upstream>) -> Route {
    Route {
        scope,
        path: PathPrefix::new(path).unwrap(),
        upstream: Arc::clone(upstream),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

fn upstream(name: &str) -> Arc<Upstream> {
    let name = UpstreamName::new(name);
    let timeouts = UpstreamTimeouts::default();
    Arc::new(Upstream::new(name, Vec::new(), UpstreamTls::None, timeouts))
}

fn benchmarks(criterion: &mut Criterion) {
    let core = upstream("core");
    let everyone = route(RouteScope::Everyone, "/", &core);
    let simple = Routes::new(vec![everyone.clone()], Vec::new());
    let tenant = |n: usize| TenantId::parse(&format!("tenant{n}")).unwrap();
    let own = (0..TENANTS).flat_map(|n| {
        ["/", "/shop", "/shop/api", "/static"]
            .map(|path| route(RouteScope::Tenant(tenant(n)), path, &core))
    });
    let many = Routes::new(own.chain([everyone]).collect(), Vec::new());
    let host = DnsName::parse("shop.example.com").unwrap();
    let domain = KnownDomain {
        tenant: tenant(TENANTS / 2),
        served: true,
        upstream: None,
    };
    let mut measure = |name: &str, routes: &Routes, path: &str| {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| choose(routes, &host, &domain, black_box(path)).unwrap());
        });
    };
    measure("route/one rule", &simple, "/shop/api/items/17");
    measure(
        "route/four rules of one of 10,000 tenants",
        &many,
        "/shop/api/items/17",
    );
    measure(
        "route/a path to normalise",
        &many,
        "/x/../shop/%61pi/items/17",
    );
}

criterion_group!(route_benches, benchmarks);
criterion_main!(route_benches);
