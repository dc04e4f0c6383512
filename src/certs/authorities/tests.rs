//! The watch over authorities, one of which fails, with pauses of milliseconds; no sockets, no store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::base::backoff::Backoff;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::ca::error::{Document, Step};
use crate::ca::{Acceptance, Material, Opened, RevokedLeaf};
use crate::model::NamePattern;
use crate::model::challenge::ChallengeOrder;

/// An authority whose directory answers or does not.
#[derive(Debug)]
struct Switched {
    id: CaId,
    up: AtomicBool,
    read: AtomicUsize,
    /// Of a public one.
    directory: Option<String>,
}

impl Switched {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            id: CaId::new(name),
            up: AtomicBool::new(true),
            read: AtomicUsize::new(0),
            directory: None,
        })
    }

    /// A public one, which certifies no wildcard.
    fn public(name: &str) -> Arc<Self> {
        let directory = Some(format!("https://{name}.test/directory"));
        let mut one = Self::new(name);
        Arc::get_mut(&mut one).unwrap().directory = directory;
        one
    }

    fn goes(&self) {
        self.up.store(false, Ordering::SeqCst);
    }

    fn comes_back(&self) {
        self.up.store(true, Ordering::SeqCst);
    }

    fn outage(&self) -> CaError {
        CaError::Status {
            ca: self.id.clone(),
            step: Step::NewOrder,
            status: 502,
            excerpt: String::new(),
            retry_after: None,
        }
    }
}

#[async_trait]
impl CertificateAuthority for Switched {
    fn id(&self) -> &CaId {
        &self.id
    }

    fn slots(&self) -> Vec<String> {
        Vec::new()
    }

    fn directory(&self) -> Option<&str> {
        self.directory.as_deref()
    }

    fn certifies(&self, pattern: &NamePattern) -> bool {
        self.directory.is_none() || !pattern.is_wildcard()
    }

    async fn open(&self, _kept: Vec<Material>, _now: Timestamp) -> Result<Opened, CaError> {
        std::future::ready(Err(self.outage())).await
    }

    async fn revoke_by_key(
        &self,
        _leaf: RevokedLeaf<'_>,
        _key: &Secret,
    ) -> Result<Acceptance, CaError> {
        std::future::ready(Err(self.outage())).await
    }

    async fn meta(&self) -> Result<Meta, CaError> {
        self.read.fetch_add(1, Ordering::SeqCst);
        let result = match self.up.load(Ordering::SeqCst) {
            true => Ok(Meta {
                caa_identities: vec![format!("{}.test", self.id)],
                ..Meta::default()
            }),
            false => Err(self.outage()),
        };
        std::future::ready(result).await
    }

    fn next_key(&self, _kept: &[Material]) -> Result<Option<Material>, CaError> {
        Ok(None)
    }

    async fn change_key(&self, _kept: Vec<Material>) -> Result<Opened, CaError> {
        std::future::ready(Err(self.outage())).await
    }
}

struct World {
    one: Arc<Switched>,
    two: Arc<Switched>,
    authorities: Authorities,
    metrics: Metrics,
    readiness: Readiness,
    tasks: Tasks,
}

impl World {
    fn new() -> Self {
        let (one, two) = (Switched::new("one"), Switched::new("two"));
        let tasks = Tasks::new();
        let pauses = Backoff {
            first: Duration::from_millis(2),
            factor: 2,
            most: Duration::from_millis(8),
        };
        let parts = Parts {
            breaker: breaker::Settings {
                pauses,
                ..breaker::Settings::default()
            },
            authorities: vec![Arc::clone(&one) as _, Arc::clone(&two) as _],
            ..Parts::default()
        };
        let (metrics, readiness) = (parts.metrics.clone(), parts.readiness.clone());
        Self {
            authorities: Authorities::new(parts, &tasks),
            one,
            two,
            metrics,
            readiness,
            tasks,
        }
    }

    fn reason(&self) -> Option<String> {
        let report = self.readiness.report();
        let condition = report
            .conditions
            .into_iter()
            .find(|one| one.name == "authorities");
        condition.unwrap().reason.map(String::from)
    }
}

#[tokio::test]
async fn a_wildcard_that_no_authority_certifies_is_denied_before_it_is_asked_for() {
    let denied = |authorities: Vec<Arc<Switched>>, name: &str| {
        let parts = Parts {
            authorities: authorities.into_iter().map(|one| one as _).collect(),
            ..Parts::default()
        };
        let authorities = Authorities::new(parts, &Tasks::new());
        let denial = authorities.none_certifies(&ruling::Question {
            pattern: &NamePattern::parse(name).unwrap(),
            tenant: None,
            methods: ChallengeOrder::default(),
            accounts: &HashMap::new(),
        });
        denial.map(|denial| denial.to_string())
    };
    let public = || Switched::public("one");
    let said = denied(vec![public()], "*.acme.test").unwrap();
    assert!(said.contains("one certifies no wildcard"), "{said}");
    assert_eq!(denied(vec![public()], "a.acme.test"), None);
    let beside_own = vec![public(), Switched::new("own")];
    assert_eq!(denied(beside_own, "*.acme.test"), None);
    assert!(denied(Vec::new(), "a.test").unwrap().contains("[[ca]]"));
}

#[tokio::test]
async fn an_authority_that_is_not_there_is_given_up_at_once_and_shown() {
    let world = World::new();
    world.one.goes();
    let standing = world.authorities.failed(&world.one.outage()).await;
    assert_eq!(standing, Standing::Open);
    assert_eq!(
        world.one.read.load(Ordering::SeqCst),
        2,
        "two looks at the directory"
    );
    assert_eq!(world.metrics.ca_ready.value(&world.one.id), Some(0));
    assert_eq!(world.metrics.ca_ready.value(&world.two.id), Some(1));
    let reason = world.reason().unwrap();
    assert!(
        reason.starts_with("one is not asked at present: "),
        "{reason}"
    );
}

#[tokio::test]
async fn a_trial_that_is_dropped_without_an_outcome_lets_another_try_at_once() {
    let world = World::new();
    world.one.goes();
    world.authorities.failed(&world.one.outage()).await;
    world.one.comes_back();
    world.authorities.read(&world.one.id).await.unwrap();
    let admits = || {
        let watched = world.authorities.watched(&world.one.id).unwrap();
        watched.state().breaker.admits(monotonic())
    };
    let trial = world.authorities.began(&world.one.id);
    assert!(!admits());
    drop(trial);
    assert!(admits());
}

#[tokio::test]
async fn a_slip_of_an_authority_that_is_there_does_not_give_it_up() {
    let world = World::new();
    for _ in 0..2 {
        let standing = world.authorities.failed(&world.one.outage()).await;
        assert_eq!(standing, Standing::Closed);
        assert!(world.reason().is_some());
    }
    // Whoever refuses is there.
    let refused = CaError::Refused {
        ca: world.one.id.clone(),
        step: Step::NewOrder,
        document: Box::new(Document::default()),
        retry_after: None,
    };
    assert_eq!(world.authorities.failed(&refused).await, Standing::Closed);
    assert_eq!(world.reason(), None);
    // A directory that answers is no order that works: three in a row are enough all the same.
    for _ in 0..3 {
        world.authorities.failed(&world.one.outage()).await;
    }
    assert_eq!(world.authorities.standing(&world.one.id), Standing::Open);
}

#[tokio::test]
async fn an_authority_comes_back_by_itself_and_no_order_is_placed_to_find_out() {
    let world = World::new();
    world
        .tasks
        .spawn("authorities", world.authorities.clone().run());
    world.one.goes();
    world.authorities.failed(&world.one.outage()).await;
    let by = monotonic() + Duration::from_secs(20);
    let waits = |done: &dyn Fn() -> bool| {
        assert!(monotonic() < by, "{world:?}", world = world.authorities);
        !done()
    };
    while waits(&|| world.one.read.load(Ordering::SeqCst) >= 6) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.authorities.standing(&world.one.id), Standing::Open);
    world.one.comes_back();
    while waits(&|| world.authorities.standing(&world.one.id) == Standing::HalfOpen) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.metrics.ca_ready.value(&world.one.id), Some(1));
    let _trial = world.authorities.began(&world.one.id);
    world.authorities.worked(&world.one.id);
    assert_eq!(world.authorities.standing(&world.one.id), Standing::Closed);
    assert_eq!(world.reason(), None);
    world.tasks.cancel();
}

#[tokio::test]
async fn what_an_authority_says_of_itself_is_kept_and_longer_while_it_is_away() {
    let world = World::new();
    let ca = world.one.id.clone();
    for _ in 0..3 {
        let meta = world.authorities.meta(&ca).await.unwrap();
        assert_eq!(meta.caa_identities, ["one.test"]);
    }
    assert_eq!(world.one.read.load(Ordering::SeqCst), 1);
    world.one.goes();
    let old = world.authorities.meta_since(&ca, Duration::ZERO).await;
    assert!(old.is_ok());
    assert_eq!(world.one.read.load(Ordering::SeqCst), 2);
    world.two.goes();
    assert!(world.authorities.meta(&world.two.id).await.is_err());
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_an_authority_that_stays_and_nothing_of_one_that_went() {
    let world = World::new();
    let (one, two) = (&world.one, &world.two);
    for switched in [one, two] {
        switched.goes();
        world.authorities.failed(&switched.outage()).await;
    }
    let (other_two, three) = (Switched::new("two"), Switched::new("three"));
    let went = world.authorities.replace(vec![
        Arc::clone(&three) as _,
        Arc::clone(&other_two) as _,
        Arc::clone(one) as _,
    ]);
    assert_eq!(went, std::slice::from_ref(&two.id));
    let standings = [&three.id, &two.id, &one.id].map(|ca| world.authorities.standing(ca));
    let expected = [Standing::Closed, Standing::Closed, Standing::Open];
    assert_eq!(standings, expected);
    let ready = |ca| world.metrics.ca_ready.value(ca);
    assert_eq!(
        [ready(&one.id), ready(&two.id), ready(&three.id)],
        [Some(0), Some(1), Some(1)]
    );
    let all = world.authorities.all();
    let order: Vec<&str> = all.iter().map(|ca| ca.id().as_str()).collect();
    assert_eq!(order, ["three", "two", "one"]);

    let went = world.authorities.replace(vec![Arc::clone(&three) as _]);
    assert_eq!(went, [two.id.clone(), one.id.clone()]);
    assert_eq!((ready(&one.id), world.reason()), (None, None));
    // Who still works with one that went harms nobody.
    world.authorities.failed(&one.outage()).await;
    assert_eq!((ready(&one.id), world.reason()), (None, None));
}

/// Those of `configured` that are asked for a name of a tenant that chooses `chosen`. Whose name begins with "public" is
/// public.
fn asked(configured: &[&str], chosen: &[&str], pattern: &str) -> Vec<String> {
    let authority = |name: &&str| match name.starts_with("public") {
        true => Switched::public(name) as Arc<dyn CertificateAuthority>,
        false => Switched::new(name) as _,
    };
    let tenant = TenantId::parse("acme").unwrap();
    let choice = Choice {
        authorities: chosen.iter().map(|name| CaId::new(name)).collect(),
        profile: Some("short".into()),
    };
    let choices = Choices(HashMap::from([(tenant.clone(), choice)]));
    let parts = Parts {
        authorities: configured.iter().map(authority).collect(),
        choices: Published::new(Arc::new(choices)),
        ..Parts::default()
    };
    let authorities = Authorities::new(parts, &Tasks::new());
    let pattern = NamePattern::parse(pattern).unwrap();
    let asked = authorities.in_order(&tenant, &pattern);
    asked.iter().map(ToString::to_string).collect()
}

#[test]
fn a_private_authority_follows_a_public_one_only_where_the_tenant_names_it() {
    /// What is configured, what the tenant names, the name, who is asked.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a str, &'a [&'a str]);
    const NAME: &str = "shop.test";
    let (a, b, own, own2) = ("public-a", "public-b", "own", "own-2");
    let table: &[Row<'_>] = &[
        (&[a, own], &[], NAME, &[a]),
        (&[a, own, b], &[], NAME, &[a, b]),
        // Named, in the order in which they are named.
        (&[a, own], &[a, own], NAME, &[a, own]),
        (&[own, a], &[a, own], NAME, &[a, own]),
        (&[a, own], &[own], NAME, &[own]),
        (&[a, own, b], &[b, a], NAME, &[b, a]),
        // Named, and not configured any more: nobody who was not chosen.
        (&[a, own], &["gone"], NAME, &[]),
        (&[a, own], &["gone", own], NAME, &[own]),
        // Where a private one is preferred for the name.
        (&[own, a], &[], NAME, &[own, a]),
        (&[own, own2], &[], NAME, &[own, own2]),
        (&[a, own], &[], "*.shop.test", &[own]),
    ];
    for (configured, chosen, name, expected) in table {
        assert_eq!(
            asked(configured, chosen, name),
            *expected,
            "{configured:?}, of which the tenant names {chosen:?}, for {name}"
        );
    }
}
