//! The choice of a route: with one rule for everyone, with a tenant's own among ten thousand tenants, and with a path
//! that has to be normalised first.
//!
//! `cargo bench --bench route`. A round takes every 7th tenant in turn, so that the processor's caches do not hold the
//! rules.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot set itself up must fail"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

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
        tenants: None,
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
    let domains: Vec<_> = (0..TENANTS)
        .map(|n| KnownDomain {
            tenant: tenant(n),
            served: true,
            upstream: None,
        })
        .collect();
    let mut measure = |name: &str, routes: &Routes, path: &str| {
        let mut next = 0;
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                next = (next + 7) % TENANTS;
                choose(routes, &host, &domains[next], black_box(path)).unwrap()
            });
        });
    };
    measure("route/one rule", &simple, "/shop/api/items/17");
    measure(
        "route/four rules of each of 10,000 tenants",
        &many,
        "/shop/api/items/17",
    );
    measure(
        "route/a path to normalise",
        &many,
        "/x/../shop/%61pi/items/17",
    );
}

criterion_group! {
    name = route_benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets = benchmarks
}
criterion_main!(route_benches);
