//! Drills over the embedded store.

use super::*;
use crate::base::secret::Secret;
use crate::ca::{self, CaSettings, Kind, acme};
use crate::certs::accounts;
use crate::certs::budget::{self, Limit, Limits};
use crate::certs::credential::Credential;
use crate::certs::vault::own::OwnKeys;
use crate::control::caller::Caller;
use crate::control::fixture::{World, pattern, soon, tenant, within};
use crate::model::certificate::{CertificateFacts, CertificateId};
use crate::model::domain::Source;
use crate::store::Batch;
use crate::store::batch::Operation;

const DAY: Duration = Duration::from_secs(86_400);

/// The authorities `le`, which charges renewals to 4 orders a day, and `second`: neither is there, nor ever asked.
fn drills(world: &World, metrics: &Metrics, key_file: &str) -> Drills {
    drills_of(world, metrics, key_file, &Declaration::default())
}

/// The same, of an edge that was given these declarations.
fn drills_of(
    world: &World,
    metrics: &Metrics,
    key_file: &str,
    declaration: &Declaration,
) -> Drills {
    let settings = ca::Settings {
        authorities: ["le", "second"]
            .map(|id| CaSettings {
                id: CaId::new(id),
                kind: Kind::Acme(acme::Settings::new("https://ca.test/dir")),
            })
            .into(),
    };
    let clock = Clock::system();
    let accounts = Accounts::new(accounts::Parts {
        authorities: ca::authorities(&settings, &world.tasks, &clock).unwrap(),
        store: Arc::clone(&world.store),
        vault: world.vault.clone(),
        clock: clock.clone(),
        tasks: world.tasks.clone(),
    });
    let limits = Limits {
        orders: Some(Limit::new(5, DAY)),
        ..Limits::none("ca.test")
    };
    let budget = budget::Settings {
        limits: [(CaId::new("le"), limits)].into(),
        ..budget::Settings::default()
    };
    let (store, budget) = (Arc::clone(&world.store), Published::new(budget));
    Drills::new(Parts {
        store: Arc::clone(&store),
        vault: world.vault.clone(),
        keys: keys::Settings {
            key_file: world.key_file().with_file_name(key_file),
        },
        declaration: Published::new(Arc::new(declaration.clone())),
        resolver: world.resolver.clone(),
        accounts,
        budget: Keeper::new(store, budget, metrics.clone()),
        settings: Published::new(certs::Settings::default()),
        metrics: metrics.clone(),
        clock,
    })
}

/// The drill of an operator.
async fn hold(drills: &Drills, rate: Option<f64>) -> Drilled {
    let grant = Caller::Operator.grant();
    within(drills.hold(&grant, rate)).await.unwrap()
}

impl World {
    /// Names of a tenant with certificates that have a day left.
    async fn serving(&self, slug: &str, names: &[&str]) {
        for name in names {
            self.register(slug, name, Source::File).await;
            self.certify(slug, name).await;
        }
    }

    /// Spoils the key of a name's certificate.
    async fn spoil(&self, name: &str) {
        let id = self.domain(name).await.unwrap().certificate.unwrap();
        let scope = TenantScope::operator();
        let record = self.store.certificate(soon(), &scope, id).await.unwrap();
        let mut record = record.unwrap();
        record.facts.id = CertificateId::new();
        if let Some(last) = record.sealed_key.last_mut() {
            *last ^= 1;
        }
        let certificate = record.facts.id;
        let spoil = Batch::new()
            .then(Operation::PutCertificate(Box::new(record)))
            .then(Operation::PointDomain {
                pattern: pattern(name),
                certificate,
            });
        self.apply(spoil).await;
    }
}

/// What a process has in memory that loaded this certificate while its key opened.
fn held(slug: &str, name: &str, id: CertificateId) -> Arc<Credential> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = Secret::new(made.signing_key.serialize_der());
    let facts = CertificateFacts {
        id,
        tenant: tenant(slug),
        names: vec![pattern(name)],
        ca: CaId::new("test"),
        serial: "01".to_owned(),
        not_before: Timestamp::EPOCH,
        not_after: Clock::system().now().plus(DAY),
    };
    let leaf = made.cert.der().to_vec();
    Arc::new(Credential::from_der(facts, leaf, Vec::new(), &key).unwrap())
}

#[tokio::test]
async fn a_drill_reckons_with_what_serves_and_with_the_configured_limits() {
    let world = World::new().await;
    let names = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];
    world.serving("acme", &names).await;
    world.register("acme", "bare.test", Source::File).await;
    let drilled = hold(&drills(&world, &Metrics::default(), "kek"), Some(2.0)).await;

    assert_eq!((drilled.certificates, drilled.complete), (6, true));
    assert_eq!(drilled.speed, Speed::Asked(2.0));
    let [le] = &drilled.authorities[..] else {
        panic!("{:?}", drilled.authorities);
    };
    let reckoned = le.reckoned.unwrap();
    // We spend 4 a day of 5: 4 at once, and the other two in 6 hours each.
    assert_eq!(reckoned.replacing.long, DAY / 2);
    assert_eq!(reckoned.replacing.bound_by.as_str(), "orders");
    assert_eq!(drilled.replacing, DAY / 2);
    assert_eq!(reckoned.outages[0].expired, 6);
    // The second has no limits.
    assert_eq!(reckoned.outages[0].expired_in_spite, 0);
    let next = &le.next[0];
    assert_eq!(next.ca, Some(CaId::new("second")));
    let takes = next.takes.unwrap();
    assert_eq!(takes.long, Duration::from_secs(3));
    assert_eq!(takes.bound_by.as_str(), "speed");
}

#[tokio::test]
async fn the_speed_is_what_was_measured_once_that_tells_something() {
    let world = World::new().await;
    let metrics = Metrics::default();
    let drills = drills(&world, &metrics, "kek");
    let check = async |expected: Speed| assert_eq!(hold(&drills, None).await.speed, expected);
    check(Speed::Assumed(ASSUMED)).await;
    for _ in 1..ENOUGH {
        let took = Duration::from_secs(4);
        metrics.issuance_duration.observe(IssuanceKind::First, took);
    }
    check(Speed::Assumed(ASSUMED)).await;
    let took = Duration::from_secs(4);
    metrics
        .issuance_duration
        .observe(IssuanceKind::Renewal, took);
    // 16 at once.
    check(Speed::Measured {
        rate: 4.0,
        issuances: ENOUGH,
        mean: took,
    })
    .await;
}

#[tokio::test]
async fn a_key_that_does_not_open_is_told_with_what_it_means_for_its_tenant() {
    let world = World::new().await;
    world.serving("acme", &["good.test", "spoilt.test"]).await;
    world.serving("globex", &["other.test"]).await;
    world.spoil("spoilt.test").await;
    let drills = drills(&world, &Metrics::default(), "kek");
    let keys = hold(&drills, None).await.keys;
    assert_eq!((keys.opened, keys.unreadable), (2, 1));
    assert_eq!(keys.restart, None);
    let affected = Affected {
        names: 1,
        in_memory: 0,
        renewals: Renewals::GoOn,
    };
    assert_eq!(keys.tenants, [(tenant("acme"), affected)].into());
    let (name, why) = &keys.unreadable_names[0];
    assert_eq!(*name, pattern("spoilt.test"));
    assert!(why.contains("does not open"), "{why}");
}

#[tokio::test]
async fn a_key_file_that_is_gone_stops_no_renewal_and_the_next_start() {
    let world = World::new().await;
    world.serving("acme", &["a.test"]).await;
    let drills = drills(&world, &Metrics::default(), "elsewhere");
    let keys = hold(&drills, None).await.keys;
    assert_eq!((keys.opened, keys.unreadable), (1, 0));
    let restart = keys.restart.unwrap();
    assert!(restart.contains("elsewhere"), "{restart}");
    assert!(!keys.file.exists(), "a rehearsal makes no key");
}

#[tokio::test]
async fn a_start_without_a_tenants_own_key_loses_that_tenant_alone() {
    let world = World::new().await;
    let file = world.key_file().with_file_name("acme.key");
    let declaration = Declaration {
        own_keys: OwnKeys {
            files: [(tenant("acme"), file.clone())].into(),
            ..OwnKeys::default()
        },
        ..Declaration::default()
    };
    world.vault.take_own(&declaration.own_keys).await.unwrap();
    world.serving("acme", &["a.test", "b.test"]).await;
    world.serving("globex", &["other.test"]).await;
    let drills = drills_of(&world, &Metrics::default(), "kek", &declaration);
    assert_eq!(hold(&drills, None).await.keys.lost, BTreeMap::new());

    std::fs::remove_file(&file).unwrap();
    let keys = hold(&drills, None).await.keys;
    assert_eq!((keys.opened, keys.restart), (3, None));
    assert_eq!(keys.lost.len(), 1);
    let lost = &keys.lost[&tenant("acme")];
    assert_eq!(lost.names, 2);
    assert!(lost.why.contains(file.to_str().unwrap()), "{}", lost.why);
    assert!(!file.exists(), "a rehearsal makes no key");
}

#[tokio::test]
async fn what_is_in_no_memory_and_does_not_open_is_not_called_served() {
    let world = World::new().await;
    world.serving("acme", &["a.test", "b.test"]).await;
    for name in ["a.test", "b.test"] {
        world.spoil(name).await;
    }
    let id = world.domain("a.test").await.unwrap().certificate.unwrap();
    let credential = held("acme", "a.test", id);
    world.resolver.put(&credential);
    let keys = hold(&drills(&world, &Metrics::default(), "kek"), None)
        .await
        .keys;
    let affected = keys.tenants[&tenant("acme")];
    assert_eq!((affected.names, affected.in_memory), (2, 1));
}
