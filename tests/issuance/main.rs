//! Issuance against a real CA: the engine of this crate in this process, its store in a folder, and Pebble in strict
//! mode with its default rejection of good nonces.
//!
//! The whole program is driven in `it`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "a test that cannot go on must fail, and tells what it measured"
)]
mod authorities;
mod left_behind;
mod pebble;
mod renewal_info;
mod revocation;

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use vestibule::base::clock::{Clock, monotonic};
use vestibule::base::published::Published;
use vestibule::base::secret::Secret;
use vestibule::base::task::Tasks;
use vestibule::ca::{self, CaSettings, Kind, NewOrder, Order, OrderStatus};
use vestibule::certs::Settings;
use vestibule::certs::accounts::{self, Accounts};
use vestibule::certs::authorities as watch;
use vestibule::certs::budget::{self, Keeper};
use vestibule::certs::challenge::Challenges;
use vestibule::certs::credential::Credential;
use vestibule::certs::credential::sealed_as;
use vestibule::certs::issuance::{self, Issuer};
use vestibule::certs::outcome::{Outcome, Outcomes};
use vestibule::certs::resolver::Resolver;
use vestibule::certs::vault::Vault;
use vestibule::keys::KeyEncryptionKey;
use vestibule::model::certificate::CaId;
use vestibule::model::challenge::{ChallengeKind, ChallengeOrder};
use vestibule::model::domain::{DomainState, Source};
use vestibule::model::problem::{Actor, Problem, ProblemCode};
use vestibule::model::{DnsName, NamePattern, Snapshot, TenantId, TenantScope};
use vestibule::net;
use vestibule::store::batch::{JobOutcome, Operation, Urgency};
use vestibule::store::embedded::{self, Embedded};
use vestibule::store::job::{
    ClaimRequest, JobKey, JobKind, JobRecord, Paces, Priority, SavedOrder,
};
use vestibule::store::record::{DomainRecord, KeyOwner};
use vestibule::store::{Batch, Deadline, Store};
use vestibule::telemetry::metrics::Metrics;
use vestibule::telemetry::readiness::Readiness;

use pebble::{HTTP, Pebble, Place};

const PATIENCE: Duration = Duration::from_secs(30);

/// The engine, with what it needs around it.
struct Engine {
    issuer: Issuer,
    accounts: Accounts,
    store: Arc<dyn Store>,
    vault: Vault,
    outcomes: Outcomes,
    resolver: Resolver,
    challenges: Challenges,
    tasks: Tasks,
    clock: Clock,
}

impl Engine {
    async fn start(place: &Place, kind: Kind, settings: Settings) -> Self {
        Self::start_answering(place, place, kind, settings).await
    }

    /// An engine that works in one place and answers challenges in another.
    async fn start_answering(
        place: &Place,
        port_80: &Place,
        kind: Kind,
        settings: Settings,
    ) -> Self {
        let one = CaSettings {
            id: CaId::new("test"),
            kind,
        };
        let watch = watch::Parts::default();
        Self::choosing((place, port_80), vec![one], watch, settings).await
    }

    /// An engine of several authorities, watched in this way.
    async fn choosing(
        (place, port_80): (&Place, &Place),
        authorities: Vec<CaSettings>,
        watch: watch::Parts,
        settings: Settings,
    ) -> Self {
        let tasks = Tasks::new();
        let clock = Clock::system();
        let folder = embedded::Settings::in_folder(place.folder().join("data"));
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(folder, clock.clone(), &tasks).await.unwrap());
        let kek = KeyEncryptionKey::load_or_create(&place.folder().join("kek")).unwrap();
        let vault = Vault::start(Arc::clone(&store), kek).await.unwrap();
        let authorities = ca::Settings { authorities };
        let parts = accounts::Parts {
            authorities: ca::authorities(&authorities, &tasks, &clock).unwrap(),
            store: Arc::clone(&store),
            vault: vault.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
        };
        let accounts = Accounts::watched(parts, watch);
        tasks.spawn("authorities", accounts.authorities().clone().run());
        let outcomes = Outcomes::new();
        // Not all names have been read yet, as far as this snapshot can tell.
        let names = Published::new(Snapshot::empty());
        let (challenges, questions) = Challenges::channel(names);
        tasks.spawn(
            "questions",
            questions.answer(Arc::clone(&store), tasks.clone()),
        );
        let resolver = Resolver::new(1 << 20);
        let metrics = Metrics::default();
        let limits = Published::new(budget::Settings::default());
        let parts = issuance::Parts {
            budget: Keeper::new(Arc::clone(&store), limits, metrics.clone()),
            store: Arc::clone(&store),
            vault: vault.clone(),
            accounts: accounts.clone(),
            permission: None,
            challenges: challenges.clone(),
            preflight: None,
            resolver: resolver.clone(),
            outcomes: outcomes.clone(),
            metrics,
            readiness: Readiness::default(),
            clock: clock.clone(),
            settings: Published::new(settings),
        };
        let issuer = Issuer::new(parts, uuid::Uuid::now_v7());
        tasks.spawn_until_cancelled("port_80", answer(port_80.at(HTTP), challenges.clone()));
        Self {
            issuer,
            accounts,
            store,
            vault,
            outcomes,
            resolver,
            challenges,
            tasks,
            clock,
        }
    }

    async fn with_pebble(place: &Place, pebble: &Pebble) -> Self {
        Self::start(place, acme(pebble), short()).await
    }

    fn run(&self) {
        self.tasks
            .spawn("issuer", self.issuer.clone().run(self.tasks.clone()));
    }

    async fn apply(&self, batch: Batch) {
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::operator();
        self.store.apply(by, &scope, batch).await.unwrap();
    }

    async fn register(&self, name: &str) {
        let register = Batch::new()
            .then(Operation::PutTenant {
                id: tenant(),
                source: Source::File,
            })
            .then(Operation::PutDomain {
                pattern: pattern(name),
                tenant: tenant(),
                source: Source::File,
                upstream: None,
            });
        self.apply(register).await;
    }

    async fn request(&self, name: &str, urgency: Urgency) {
        let request = Batch::new().then(Operation::RequestJob {
            key: JobKey::Certificate(pattern(name)),
            tenant: tenant(),
            priority: Priority::Handshake,
            delay: Duration::ZERO,
            urgency,
        });
        self.apply(request).await;
        self.issuer.nudge();
    }

    /// As a handshake does it: subscribe, request, nudge, wait.
    async fn obtain(&self, name: &str) -> Result<Arc<Credential>, Arc<Problem>> {
        let mut subscription = self.outcomes.subscribe(&pattern(name));
        self.request(name, Urgency::Now).await;
        match tokio::time::timeout(PATIENCE, subscription.next()).await {
            Ok(Outcome::Issued(credential)) => Ok(credential),
            Ok(Outcome::Failed(problem)) => Err(problem),
            Err(_) => panic!("no outcome for {name}"),
        }
    }

    /// Leaves an order behind in the job's row, as a process that was killed would.
    async fn leave(&self, name: &str, url: &str, key: &KeyPair) {
        self.request(name, Urgency::Now).await;
        let request = ClaimRequest {
            kind: JobKind::Certificate,
            holder: uuid::Uuid::new_v4(),
            most: 1,
            lease: Duration::from_secs(60),
            paces: Paces::default(),
        };
        let by = Deadline::after(PATIENCE);
        let claims = self.store.claim(by, &request).await.unwrap();
        assert_eq!(claims.jobs[0].claim.key, JobKey::Certificate(pattern(name)));
        let owner = KeyOwner::Tenant(tenant());
        let secret = Secret::new(key.serialize_der());
        let name = sealed_as(&pattern(name));
        let sealed_key = self.vault.seal(&owner, &name, &secret).await.unwrap();
        let key = claims.jobs[0].claim.key.clone();
        let left = Batch::new()
            .then(Operation::SaveOrder {
                key: key.clone(),
                order: Some(SavedOrder {
                    ca: CaId::new("test"),
                    url: url.to_owned(),
                    sealed_key,
                }),
            })
            .then(Operation::FinishJob {
                key,
                outcome: JobOutcome::Deferred,
                // Until it is asked for.
                next: Duration::from_secs(3600),
            });
        self.apply(left).await;
    }

    /// An order of this engine's account, brought as far as `to`.
    async fn order(&self, name: &str, key: &KeyPair, to: Stage) -> Box<dyn Order> {
        let account = self.accounts.account(&CaId::new("test")).await.unwrap();
        let mut order = account
            .order(&NewOrder::of(&[pattern(name)]))
            .await
            .unwrap();
        let by = monotonic() + PATIENCE;
        if to == Stage::Placed {
            return order;
        }
        let challenges = order.challenges(&ChallengeKind::ALL).await.unwrap();
        for challenge in &challenges {
            if to != Stage::Failed {
                let answer = &challenge.key_authorization;
                self.challenges
                    .publish(&challenge.host, &challenge.token, answer);
            }
        }
        order.begin().await.unwrap();
        let settled = order.settle(by).await;
        for challenge in &challenges {
            self.challenges.withdraw(&challenge.host, &challenge.token);
        }
        match to {
            Stage::Failed => assert_eq!(settled.unwrap_err().code(), ProblemCode::HttpWrongBody),
            _ => assert_eq!(settled.unwrap(), OrderStatus::Ready),
        }
        if to == Stage::HandedIn {
            let request = CertificateParams::new([name.to_owned()]).unwrap();
            let request = request.serialize_request(key).unwrap();
            order.finalize(request.der()).await.unwrap();
            order.certificate(by).await.unwrap();
        }
        order
    }

    async fn domain(&self, name: &str) -> DomainRecord {
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::operator();
        let domain = self.store.domain(by, &scope, &pattern(name)).await;
        domain.unwrap().unwrap()
    }

    async fn job(&self, name: &str) -> JobRecord {
        let by = Deadline::after(PATIENCE);
        let key = JobKey::Certificate(pattern(name));
        let job = self.store.job(by, &TenantScope::operator(), &key).await;
        job.unwrap().unwrap()
    }
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Placed,
    Proved,
    HandedIn,
    Failed,
}

/// Answers challenges as port 80 of the edge would.
async fn answer(at: std::net::SocketAddrV4, challenges: Challenges) {
    let listener = TcpListener::bind(at).await.unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let challenges = challenges.clone();
        Tasks::new().spawn("request", async move {
            let mut buffer = vec![0; 4096];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let token = text
                .split_whitespace()
                .nth(1)
                .and_then(|path| path.strip_prefix("/.well-known/acme-challenge/"))
                .unwrap_or_default();
            let host = text
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("host: ")
                        .map(str::to_owned)
                })
                .unwrap_or_default();
            let host = host.split(':').next().unwrap_or_default();
            let found = match DnsName::parse(host) {
                Ok(host) => challenges.http01(&host, token).await.unwrap_or_default(),
                Err(_) => None,
            };
            let (status, body) = found
                .as_deref()
                .map_or(("404 Not Found", ""), |body| ("200 OK", body));
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.ok();
        });
    }
}

fn acme(pebble: &Pebble) -> Kind {
    Kind::Acme(ca::acme::Settings {
        terms_agreed: true,
        roots: net::Roots::Pem(pebble.root().as_bytes().into()),
        ..ca::acme::Settings::new(pebble.directory())
    })
}

fn short() -> Settings {
    let mut settings = Settings {
        job_deadline: Duration::from_secs(20),
        poll: Duration::from_millis(50),
        ..Settings::default()
    };
    settings.renewal.first_retry = Duration::from_millis(200);
    settings
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn pattern(name: &str) -> NamePattern {
    NamePattern::parse(name).unwrap()
}

/// Cold issuances in a row.
const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cold_issuance_places_one_order() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let engine = Engine::with_pebble(&place, &pebble).await;
    engine.run();
    for round in 0..ROUNDS {
        let name = format!("cold{round}.example.com");
        engine.register(&name).await;
        let credential = engine.obtain(&name).await.unwrap();
        assert_eq!(credential.facts.names, [pattern(&name)]);
        let served = engine
            .resolver
            .get(&DnsName::parse(&name).unwrap(), engine.clock.now());
        assert!(served.is_some());
        assert_eq!(engine.domain(&name).await.state, DomainState::Active);
    }
    assert_eq!(pebble.orders(), ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_fails_backs_off_with_its_cause_and_succeeds_later() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    // Nobody answers on port 80.
    let elsewhere = Place::claim();
    let engine = Engine::start_answering(&place, &elsewhere, acme(&pebble), short()).await;
    engine.run();
    engine.register("late.example.com").await;
    let problem = engine.obtain("late.example.com").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::HttpUnreachable, "{problem:?}");
    assert!(
        problem.evidence[0].starts_with("connection: "),
        "{problem:?}"
    );
    assert!(problem.fix.as_ref().unwrap().contains("late.example.com"));
    let domain = engine.domain("late.example.com").await;
    assert_eq!(domain.state, DomainState::Issuing);
    assert_eq!(domain.problem.as_ref(), Some(&*problem));
    let job = engine.job("late.example.com").await;
    assert!(job.failures >= 1);

    let mut subscription = engine.outcomes.subscribe(&pattern("late.example.com"));
    let at = place.at(HTTP);
    engine
        .tasks
        .spawn("port_80", answer(at, engine.challenges.clone()));
    loop {
        let told = tokio::time::timeout(PATIENCE, subscription.next()).await;
        if let Outcome::Issued(_) = told.expect("it is tried again by itself") {
            break;
        }
    }
    let domain = engine.domain("late.example.com").await;
    assert_eq!((domain.state, domain.problem), (DomainState::Active, None));
    assert_eq!(engine.job("late.example.com").await.failures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kind_of_challenge_that_worked_is_remembered_with_the_domain() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    // Nobody answers on port 443 here.
    let mut settings = short();
    settings.challenges =
        ChallengeOrder::new(&[ChallengeKind::TlsAlpn01, ChallengeKind::Http01]).unwrap();
    let engine = Engine::start(&place, acme(&pebble), settings).await;
    engine.run();
    engine.register("learnt.example.com").await;
    let problem = engine.obtain("learnt.example.com").await.unwrap_err();
    assert_eq!(problem.actor, Actor::Customer, "{problem:?}");
    let memory = engine.domain("learnt.example.com").await.memory.challenges;
    assert_eq!(memory.failed, [ChallengeKind::TlsAlpn01]);

    engine.obtain("learnt.example.com").await.unwrap();
    let memory = engine.domain("learnt.example.com").await.memory.challenges;
    assert_eq!(memory.passed, Some(ChallengeKind::Http01));
    assert_eq!(memory.failed, [ChallengeKind::TlsAlpn01]);
    assert_eq!(pebble.orders(), 2, "one for each kind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_on_one_store_place_one_order_for_each_name_and_answer_for_each_other() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let elsewhere = Place::claim();
    let first = Engine::with_pebble(&place, &pebble).await;
    // Its challenges are answered by the first, from the store.
    let second = Engine::start_answering(&place, &elsewhere, acme(&pebble), short()).await;
    let names: Vec<_> = (0..20).map(|n| format!("shared{n}.example.com")).collect();
    let mut waiting = Vec::new();
    for name in &names {
        first.register(name).await;
        let pattern = pattern(name);
        let both = (
            first.outcomes.subscribe(&pattern),
            second.outcomes.subscribe(&pattern),
        );
        waiting.push(both);
        first.request(name, Urgency::HeedBackoff).await;
    }
    first.run();
    second.run();
    for (one, two) in &mut waiting {
        let told = async {
            tokio::select! {
                told = one.next() => told,
                told = two.next() => told,
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
        assert!(matches!(told, Outcome::Issued(_)), "{told:?}");
    }
    assert_eq!(
        (pebble.orders(), pebble.issued()),
        (names.len(), names.len())
    );
    let (one, two) = (first.resolver.entries(), second.resolver.entries());
    println!("{one} names by the first, {two} by the second");
    assert_eq!(one + two, names.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terms_that_are_not_agreed_to_place_no_order() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let Kind::Acme(mut settings) = acme(&pebble) else {
        panic!("this is ACME");
    };
    settings.terms_agreed = false;
    let engine = Engine::start(&place, Kind::Acme(settings), short()).await;
    engine.run();
    engine.register("a.example.com").await;
    let problem = engine.obtain("a.example.com").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::CaRejected);
    assert!(
        problem.detail.contains("terms_agreed = true"),
        "{problem:?}"
    );
    assert_eq!(pebble.orders(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_an_unknown_root_is_not_spoken_to() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let Kind::Acme(mut settings) = acme(&pebble) else {
        panic!("this is ACME");
    };
    settings.roots = net::Roots::Public;
    let engine = Engine::start(&place, Kind::Acme(settings), short()).await;
    engine.run();
    engine.register("a.example.com").await;
    let problem = engine.obtain("a.example.com").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::CaOutage);
    let told = problem.evidence.join("; ");
    assert!(
        told.contains("not trusted by the configured roots"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_uses_the_account_that_was_kept() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    for name in ["before.example.com", "after.example.com"] {
        let engine = Engine::with_pebble(&place, &pebble).await;
        engine.run();
        engine.register(name).await;
        engine.obtain(name).await.unwrap();
        engine.tasks.cancel();
        assert_eq!(engine.tasks.finish(PATIENCE).await, 0);
    }
    assert_eq!(pebble.accounts(), 1);
}
