//! SNI look-up: server name → credential, with 1, 10 thousand and 100 thousand names in memory.
//!
//! `cargo bench --bench resolver`. A round asks for every 7th name in turn, so that beyond one name the processor's
//! caches do not hold the answer. `exact` finds the name itself, `wildcard` its parent, `unknown` nothing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up must fail"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use vestibule::base::clock::Timestamp;
use vestibule::certs::credential::Credential;
use vestibule::certs::resolver::Resolver;
use vestibule::model::certificate::{CaId, CertificateFacts, CertificateId};
use vestibule::model::{DnsName, NamePattern, TenantId};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn certified() -> Arc<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed(["bench.test".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let signer = any_supported_type(&key.into()).unwrap();
    Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], signer))
}

/// A resolver over `names` credentials, each of a tenant's exact name or wildcard.
fn resolver(names: usize, prefix: &str, certified: &Arc<CertifiedKey>) -> Resolver {
    let resolver = Resolver::new(usize::MAX);
    for n in 0..names {
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: TenantId::parse(&format!("tenant-{n}")).unwrap(),
            names: vec![NamePattern::parse(&format!("{prefix}shop-{n}.example.com")).unwrap()],
            ca: CaId::new("bench"),
            serial: "01".to_owned(),
            not_before: NOW.minus(Duration::from_secs(3600)),
            not_after: NOW.plus(Duration::from_secs(86_400)),
        };
        resolver.put(&Arc::new(Credential {
            facts,
            certified: Arc::clone(certified),
        }));
    }
    resolver
}

fn asked(names: usize, prefix: &str) -> Vec<DnsName> {
    let name = |n| DnsName::parse(&format!("{prefix}shop-{n}.example.com")).unwrap();
    (0..names).map(name).collect()
}

fn look_up(criterion: &mut Criterion) {
    let certified = certified();
    let mut group = criterion.benchmark_group("sni_look_up");
    group
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    for names in [1, 10_000, 100_000] {
        for (case, stored, prefix, found) in [
            ("exact", "", "", true),
            ("wildcard", "*.", "www.", true),
            ("unknown", "", "not-", false),
        ] {
            let resolver = resolver(names, stored, &certified);
            let asked = asked(names, prefix);
            assert_eq!(resolver.get(&asked[names / 2], NOW).is_some(), found);
            let mut next = 0;
            group.bench_function(BenchmarkId::new(case, names), |bencher| {
                bencher.iter(|| {
                    next = (next + 7) % names;
                    black_box(resolver.get(black_box(&asked[next]), NOW))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, look_up);
criterion_main!(benches);
