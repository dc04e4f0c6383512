//! Domains looked after over days, with a clock that is moved by hand, a store, a scripted name server and real HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::certs::challenge::Challenges;
use crate::certs::preflight::fixture::{Ground, answer};
use crate::model::TenantId;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::Source;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::standing::CertificateStanding;
use crate::model::standing::DomainMemory;
use crate::store::batch::JobOutcome;
use crate::store::embedded::{self, Embedded};
use crate::store::job::{ClaimRequest, JobKind, Paces};
use crate::store::record::CertificateRecord;

const NAME: &str = "shop.acme.com";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

struct World {
    ground: Ground,
    watch: Watch,
    nudges: Arc<AtomicUsize>,
    clock: Clock,
    storing: Tasks,
    _folder: TempDir,
}

fn pattern() -> NamePattern {
    NamePattern::parse(NAME).unwrap()
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn by() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

impl World {
    /// A domain that leads to somebody else's server, whose renewal has failed for it and waits for a day.
    async fn start() -> Self {
        let world = Self::leading(&["127.0.0.2"]).await;
        let unreached = ReachMemory {
            unreached_since: Some(world.clock.now()),
            ..ReachMemory::default()
        };
        let domain = world.domain().await;
        world.apply(remembering(&domain, unreached)).await;
        world
    }

    /// A domain that leads to these addresses, whose renewal has failed and waits for a day. Ours is 127.0.0.1.
    async fn leading(addresses: &[&str]) -> Self {
        let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
        let ground = Ground::start(clock.clone()).await;
        let other = TcpListener::bind(("127.0.0.2", ground.port)).await.unwrap();
        answer(other, Challenges::default(), &ground.tasks);
        ground.leads(NAME, addresses);
        let folder = tempfile::tempdir().unwrap();
        let storing = Tasks::new();
        let place = embedded::Settings::in_folder(folder.path().join("data"));
        let store = Embedded::open(place, clock.clone(), &storing)
            .await
            .unwrap();
        let nudges = Arc::new(AtomicUsize::new(0));
        let nudged = Arc::clone(&nudges);
        let watch = Watch {
            store: Arc::new(store),
            preflight: ground.preflight.clone(),
            resolver: Resolver::new(1 << 20),
            nudge: Arc::new(move || {
                nudged.fetch_add(1, Ordering::Relaxed);
            }),
            clock: clock.clone(),
        };
        let world = Self {
            ground,
            watch,
            nudges,
            clock,
            storing,
            _folder: folder,
        };
        world.register().await;
        world.fail().await;
        world
    }

    async fn apply(&self, batch: Batch) {
        let scope = TenantScope::operator();
        self.watch.store.apply(by(), &scope, batch).await.unwrap();
    }

    async fn register(&self) {
        let now = self.clock.now();
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: tenant(),
            names: vec![pattern()],
            ca: CaId::new("test"),
            serial: "01".to_owned(),
            not_before: now,
            not_after: now.plus(DAY * 90),
        };
        let certificate = facts.id;
        let record = CertificateRecord {
            facts,
            leaf: vec![1],
            chain: Vec::new(),
            sealed_key: vec![2],
            standing: CertificateStanding::default(),
            created_at: now,
        };
        let source = Source::File;
        let batch = Batch::new()
            .then(Operation::PutTenant {
                id: tenant(),
                source,
            })
            .then(Operation::PutDomain {
                pattern: pattern(),
                tenant: tenant(),
                source,
                upstream: None,
            })
            .then(Operation::PutCertificate(Box::new(record)))
            .then(Operation::PointDomain {
                pattern: pattern(),
                certificate,
            })
            .then(job(&self.domain_to_be(), Duration::ZERO));
        self.apply(batch).await;
    }

    fn domain_to_be(&self) -> DomainRecord {
        DomainRecord {
            pattern: pattern(),
            tenant: tenant(),
            source: Source::File,
            state: DomainState::Active,
            upstream: None,
            certificate: None,
            problem: None,
            memory: DomainMemory::default(),
            version: 1,
            created_at: self.clock.now(),
        }
    }

    async fn fail(&self) {
        let request = ClaimRequest {
            kind: JobKind::Certificate,
            holder: Uuid::now_v7(),
            most: 1,
            lease: HOUR,
            paces: Paces::default(),
        };
        let claims = self.watch.store.claim(by(), &request).await.unwrap();
        let code = ProblemCode::WrongA;
        let problem = Problem {
            code,
            actor: code.actor(),
            detail: String::new(),
            evidence: Vec::new(),
            fix: None,
            first_seen: self.clock.now(),
            last_seen: self.clock.now(),
            next_retry_at: None,
        };
        let batch = Batch::new()
            .guard(Guard::ClaimHeld(claims.jobs[0].claim.clone()))
            .then(Operation::SetDomainState {
                pattern: pattern(),
                state: DomainState::Degraded,
                problem: Some(problem.clone()),
            })
            .then(Operation::FinishJob {
                key: JobKey::Certificate(pattern()),
                outcome: JobOutcome::Failed(problem),
                next: DAY * 300,
            });
        self.apply(batch).await;
        self.watch.preflight.watch(&pattern(), &tenant());
    }

    async fn domain(&self) -> DomainRecord {
        let scope = TenantScope::operator();
        let found = self.watch.store.domain(by(), &scope, &pattern()).await;
        found.unwrap().unwrap()
    }

    async fn is_due(&self) -> bool {
        let (scope, key) = (TenantScope::operator(), JobKey::Certificate(pattern()));
        let job = self.watch.store.job(by(), &scope, &key).await;
        job.unwrap().unwrap().run_at <= self.clock.now()
    }

    async fn after(&self, time: Duration) {
        self.clock.advance(time);
        self.watch.round().await;
    }

    /// As after a restart: what was in memory is gone, and upkeep finds the domain.
    async fn restart(&self) {
        self.watch.preflight.watched().remove(&pattern());
        let domain = self.domain().await;
        self.watch.preflight.keep_watching(&domain);
    }

    fn nudged(&self) -> usize {
        self.nudges.load(Ordering::Relaxed)
    }

    /// Until it is called moved.
    async fn leave(&self) {
        self.after(Duration::ZERO).await;
        self.after(HOUR * 2).await;
        self.after(DAY * 7).await;
        assert_eq!(self.domain().await.state, DomainState::Moved);
    }

    fn end(&self) {
        self.ground.tasks.cancel();
        self.storing.cancel();
    }
}

#[tokio::test]
async fn dns_that_is_put_right_brings_the_job_forward_at_once() {
    let world = World::start().await;
    for _ in 0..3 {
        world.after(Duration::from_secs(90)).await;
        assert!(!world.is_due().await);
    }
    world.ground.leads(NAME, &["127.0.0.1"]);
    world.after(Duration::from_secs(90)).await;
    assert!(world.is_due().await);
    assert_eq!(world.nudges.load(Ordering::Relaxed), 1);
    assert_eq!(world.domain().await.memory.reach.elsewhere_since, None);
    world.end();
}

#[tokio::test]
async fn dns_that_is_put_right_before_the_first_look_is_noticed_once() {
    let world = World::start().await;
    world.ground.leads(NAME, &["127.0.0.1"]);
    for _ in 0..3 {
        world.after(Duration::from_secs(90)).await;
        assert!(world.is_due().await);
        assert_eq!(world.nudges.load(Ordering::Relaxed), 1);
    }
    world.end();
}

#[tokio::test]
async fn a_domain_that_is_reached_and_fails_all_the_same_is_left_to_its_back_off() {
    let world = World::leading(&["127.0.0.1", "127.0.0.2"]).await;
    let silence = || {
        let script = crate::dns::fixture::Script::Silence;
        world.ground.names.says(NAME, script);
    };
    for round in 0..6 {
        match round % 3 {
            0 => world.ground.leads(NAME, &["127.0.0.2", "127.0.0.1"]),
            1 => world.ground.leads(NAME, &["127.0.0.1", "127.0.0.2"]),
            _ => silence(),
        }
        // Who answers is asked every hour.
        world.after(Duration::from_secs(1500)).await;
        // Each attempt that fails watches it anew.
        world.watch.preflight.watch(&pattern(), &tenant());
        assert!(!world.is_due().await && world.nudged() == 0, "{round}");
    }
    world.ground.leads(NAME, &["127.0.0.1", "127.0.0.2"]);
    world.restart().await;
    world.after(Duration::ZERO).await;
    assert!(!world.is_due().await);
    // The wrong record is removed.
    world.ground.leads(NAME, &["127.0.0.1"]);
    world.after(HOUR * 2).await;
    assert!(world.is_due().await && world.nudged() == 1);
    world.end();
}

#[tokio::test]
async fn dns_that_is_put_right_while_the_process_is_down_is_noticed_at_its_start() {
    let world = World::start().await;
    world.after(Duration::ZERO).await;
    world.ground.leads(NAME, &["127.0.0.1"]);
    world.restart().await;
    world.after(Duration::ZERO).await;
    assert!(world.is_due().await && world.nudged() == 1);
    world.restart().await;
    world.after(Duration::ZERO).await;
    assert_eq!(world.nudged(), 1);
    world.end();
}

#[tokio::test]
async fn a_domain_that_leads_elsewhere_for_a_week_without_visitors_has_moved_until_it_is_reached() {
    let world = World::start().await;
    world.after(Duration::ZERO).await;
    world.after(HOUR * 2).await;
    world.after(DAY * 6).await;
    assert_eq!(world.domain().await.state, DomainState::Degraded);
    world.after(DAY).await;
    let domain = world.domain().await;
    assert_eq!(domain.state, DomainState::Moved);
    assert_eq!(domain.problem.unwrap().code, ProblemCode::WrongA);
    assert_eq!(domain.memory.reach.moved_at, Some(world.clock.now()));

    // Looked at daily; back as soon as our own challenge is reached.
    world.after(DAY * 2).await;
    assert_eq!(world.domain().await.state, DomainState::Moved);
    assert_eq!(world.nudged(), 0);
    world.ground.leads(NAME, &["127.0.0.1"]);
    world.after(DAY * 2).await;
    let domain = world.domain().await;
    assert_eq!((domain.state, domain.problem), (DomainState::Active, None));
    assert!(world.is_due().await && world.nudges.load(Ordering::Relaxed) == 1);
    world.end();
}

#[tokio::test]
async fn a_moved_domain_is_back_with_a_visit_that_was_kept() {
    let world = World::start().await;
    world.leave().await;
    let domain = world.domain().await;
    let reach = ReachMemory {
        visited: Some(world.clock.now().plus(HOUR)),
        ..domain.memory.reach.clone()
    };
    let visit = remembering(&domain, reach);
    world.apply(visit).await;
    world.after(HOUR * 2).await;
    assert_eq!(world.domain().await.state, DomainState::Active);
    world.end();
}

#[tokio::test]
async fn what_cannot_be_found_out_moves_nobody() {
    let world = World::start().await;
    world
        .ground
        .names
        .says(NAME, crate::dns::fixture::Script::Servfail);
    for _ in 0..4 {
        world.after(DAY * 5).await;
    }
    assert_eq!(world.domain().await.state, DomainState::Degraded);
    world.end();
}
