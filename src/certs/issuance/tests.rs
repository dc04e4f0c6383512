//! The engine over a real store and a CA that does what a test tells it to.

mod script;
mod time;

mod absent;
mod looked_at;
mod passing;
mod replaced;
mod told;
mod upkeep;

mod budgets;
mod crowded;
mod opening;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use super::*;
use crate::base::clock::Timestamp;
use crate::ca::CertificateAuthority;
use crate::ca::private::{self, Private};
use crate::certs::accounts;
use crate::certs::budget;
use crate::certs::credential::Credential;
use crate::certs::outcome::Outcome;
use crate::certs::permission;
use crate::certs::preflight::fixture::Ground;
use crate::certs::renewal;
use crate::certs::settings::Obtain;
use crate::certs::upkeep::Upkeep;
use crate::keys::KeyEncryptionKey;
use crate::model::DnsName;
use crate::model::certificate::{CaId, CertificateId};
use crate::model::domain::{DomainState, Source};
use crate::model::problem::{Problem, ProblemCode};
use crate::store::PageRequest;
use crate::store::embedded::{self, Embedded};
use crate::store::job::JobRecord;
use crate::store::record::{CertificateRecord, DomainRecord};
use script::{Does, Script, Scripted, watch};

const LONG: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// What is configured.
#[derive(Clone, Copy, Debug)]
enum Authority {
    Scripted,
    /// And `second`, which does as it should.
    Two,
    None,
}

/// An engine, what it works with, and the hands of a test.
struct World {
    parts: Parts,
    issuer: Issuer,
    script: Arc<Script>,
    clock: Clock,
    shares: Published<budget::Settings>,
    tasks: Tasks,
    storing: Tasks,
    folder: TempDir,
}

impl World {
    async fn new(settings: Settings) -> Self {
        Self::with(settings, Authority::Scripted, None).await
    }

    async fn with(settings: Settings, authority: Authority, hook: Option<SocketAddr>) -> Self {
        let clock = Clock::manual(Clock::system().now()).listening();
        let folder = tempfile::tempdir().unwrap();
        Self::over(folder, clock, settings, (authority, hook)).await
    }

    /// Over what a folder holds.
    async fn over(
        folder: TempDir,
        clock: Clock,
        settings: Settings,
        (authority, hook): (Authority, Option<SocketAddr>),
    ) -> Self {
        let preflight = None;
        Self::made_of(folder, clock, settings, (authority, hook, preflight)).await
    }

    /// Where names are looked at.
    async fn looking(ground: &Ground, clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let preflight = Some(ground.preflight.clone());
        let made = (Authority::Scripted, None, preflight);
        let world = Self::made_of(folder, clock, quick(), made).await;
        world.script.is_public();
        world
    }

    async fn made_of(
        folder: TempDir,
        clock: Clock,
        settings: Settings,
        (authority, hook, preflight): (Authority, Option<SocketAddr>, Option<Preflight>),
    ) -> Self {
        let (tasks, storing) = (Tasks::new(), Tasks::new());
        let place = embedded::Settings::in_folder(folder.path().join("data"));
        let store = Embedded::open(place, clock.clone(), &storing)
            .await
            .unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let kek = KeyEncryptionKey::load_or_create(&folder.path().join("kek")).unwrap();
        let vault = Vault::start(Arc::clone(&store), kek).await.unwrap();
        let (id, usual) = (CaId::new("test"), private::Settings::default());
        let script = Arc::new(Script::new(Private::new(id, usual, clock.corrected())));
        let authorities: Vec<Arc<dyn CertificateAuthority>> = match authority {
            Authority::Scripted => vec![Arc::new(Scripted(Arc::clone(&script)))],
            Authority::Two => {
                let usual = private::Settings::default();
                let second = Private::new(CaId::new("second"), usual, clock.corrected());
                vec![Arc::new(Scripted(Arc::clone(&script))), Arc::new(second)]
            }
            Authority::None => Vec::new(),
        };
        let parts = accounts::Parts {
            authorities,
            store: Arc::clone(&store),
            vault: vault.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
        };
        let accounts = Accounts::watched(parts, watch());
        let shares = Published::new(budget::Settings::default());
        let metrics = Metrics::default();
        let parts = Parts {
            budget: Keeper::new(Arc::clone(&store), shares.clone(), metrics.clone()),
            store,
            vault,
            accounts,
            permission: None,
            challenges: Challenges::default(),
            preflight,
            resolver: Resolver::new(1 << 20),
            outcomes: Outcomes::new(),
            metrics,
            readiness: Readiness::default(),
            clock: clock.corrected(),
            settings: Published::new(settings),
        };
        let parts = Parts {
            permission: hook.map(|address| permission(address, &tasks)),
            ..parts
        };
        let issuer = Issuer::new(parts.clone(), Uuid::now_v7());
        tasks.spawn("issuer", issuer.clone().run(tasks.clone()));
        Self {
            parts,
            issuer,
            script,
            clock,
            shares,
            tasks,
            storing,
            folder,
        }
    }

    async fn apply(&self, batch: Batch) {
        let by = Deadline::after(LONG);
        let scope = TenantScope::operator();
        self.parts.store.apply(by, &scope, batch).await.unwrap();
    }

    async fn register(&self, name: &str) {
        self.register_from(name, Source::File).await;
    }

    async fn register_from(&self, name: &str, source: Source) {
        let register = Batch::new()
            .then(Operation::PutTenant {
                id: tenant(),
                source,
            })
            .then(Operation::PutDomain {
                pattern: pattern(name),
                tenant: tenant(),
                source,
                upstream: None,
            });
        self.apply(register).await;
    }

    async fn request(&self, name: &str, urgency: Urgency) {
        let request = Batch::new().then(Operation::RequestJob {
            key: key(name),
            tenant: tenant(),
            priority: Priority::Handshake,
            delay: Duration::ZERO,
            urgency,
        });
        self.apply(request).await;
        self.issuer.nudge();
    }

    async fn obtain(&self, name: &str) -> Result<Arc<Credential>, Arc<Problem>> {
        let mut subscription = self.parts.outcomes.subscribe(&pattern(name));
        self.request(name, Urgency::Now).await;
        match tokio::time::timeout(LONG, subscription.next())
            .await
            .unwrap()
        {
            Outcome::Issued(credential) => Ok(credential),
            Outcome::Failed(problem) => Err(problem),
        }
    }

    async fn domain(&self, name: &str) -> DomainRecord {
        let by = Deadline::after(LONG);
        let store = &self.parts.store;
        let (scope, pattern) = (TenantScope::operator(), pattern(name));
        store.domain(by, &scope, &pattern).await.unwrap().unwrap()
    }

    async fn job(&self, name: &str) -> Option<JobRecord> {
        let by = Deadline::after(LONG);
        let store = &self.parts.store;
        let (scope, key) = (TenantScope::operator(), key(name));
        store.job(by, &scope, &key).await.unwrap()
    }

    async fn job_when(&self, name: &str, is: impl Fn(&JobRecord) -> bool) -> JobRecord {
        let look = async {
            loop {
                if let Some(job) = self.job(name).await.filter(|job| is(job)) {
                    return job;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, look).await.unwrap()
    }

    async fn certificates(&self) -> usize {
        let by = Deadline::after(LONG);
        let scope = TenantScope::operator();
        let page = PageRequest::first();
        let store = &self.parts.store;
        store
            .certificates(by, &scope, None, &page)
            .await
            .unwrap()
            .items
            .len()
    }

    /// The certificate that serves.
    async fn serving(&self, name: &str) -> CertificateRecord {
        let id = self.domain(name).await.certificate.unwrap();
        self.certificate(id).await
    }

    async fn certificate(&self, id: CertificateId) -> CertificateRecord {
        let by = Deadline::after(LONG);
        let (store, scope) = (&self.parts.store, TenantScope::operator());
        store.certificate(by, &scope, id).await.unwrap().unwrap()
    }

    /// When what serves is renewed.
    async fn due(&self, name: &str) -> Timestamp {
        let life = renewal::Life::of(&self.serving(name).await);
        renewal::due_at(&life, &quick().renewal)
    }

    /// Moves the clock to the job's next run.
    async fn until_next_run(&self, name: &str) {
        let waits = |job: &JobRecord| job.leased_until.is_none() && job.run_at > self.clock.now();
        let job = self.job_when(name, waits).await;
        self.clock.advance(job.run_at.since(self.clock.now()));
    }

    fn placed(&self) -> usize {
        self.script.placed.load(Ordering::SeqCst)
    }

    fn resumed(&self) -> usize {
        self.script.resumed.load(Ordering::SeqCst)
    }
}

/// A permission hook at `address`, asked anew each time.
fn permission(address: SocketAddr, tasks: &Tasks) -> Permission {
    let mut settings = permission::Settings::new(format!("http://{address}/").parse().unwrap());
    settings.allow_ttl = Duration::ZERO;
    settings.deny_ttl = Duration::ZERO;
    let register: permission::Register = Arc::new(|_| Box::pin(async { Ok(()) }));
    let told = (Metrics::default(), Readiness::default());
    Permission::new(settings, register, told, tasks).unwrap()
}

/// A hook that gives every question the status that the counter says now.
async fn hook(status: Arc<AtomicU16>, tasks: &Tasks) -> SocketAddr {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let pages = axum::Router::new()
        .fallback(async move || http::StatusCode::from_u16(status.load(Ordering::SeqCst)).unwrap());
    crate::base::serve::serve(tasks, "hook", socket, pages);
    address
}

fn quick() -> Settings {
    Settings {
        poll: Duration::from_millis(10),
        ..Settings::default()
    }
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn pattern(name: &str) -> NamePattern {
    NamePattern::parse(name).unwrap()
}

fn key(name: &str) -> JobKey {
    JobKey::Certificate(pattern(name))
}

#[tokio::test]
async fn a_request_becomes_a_certificate_that_serves_and_asking_again_makes_no_second() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let credential = world.obtain("a.test").await.unwrap();
    assert_eq!(credential.facts.names, [pattern("a.test")]);
    let domain = world.domain("a.test").await;
    assert_eq!(domain.state, DomainState::Active);
    assert_eq!(domain.certificate, Some(credential.facts.id));
    let name = DnsName::parse("a.test").unwrap();
    assert!(world.parts.resolver.get(&name, world.clock.now()).is_some());

    let again = world.obtain("a.test").await.unwrap();
    assert_eq!(again.facts, credential.facts);
    assert_eq!((world.placed(), world.certificates().await), (1, 1));
    let due = world.due("a.test").await;
    let job = world
        .job_when("a.test", |job| job.leased_until.is_none())
        .await;
    assert_eq!((job.run_at, job.failures, job.order_url), (due, 0, None));
}

#[tokio::test]
async fn a_certificate_is_renewed_unasked_when_it_is_due() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let first = world.obtain("a.test").await.unwrap();
    let mut subscription = world.parts.outcomes.subscribe(&pattern("a.test"));
    world.clock.advance(HOUR * 24 * 4);
    let told = tokio::time::timeout(LONG, subscription.next())
        .await
        .unwrap();
    let Outcome::Issued(second) = told else {
        panic!("the renewal failed: {told:?}");
    };
    assert_ne!(first.facts.id, second.facts.id);
    let domain = world.domain("a.test").await;
    assert_eq!(domain.certificate, Some(second.facts.id));
    assert_eq!(
        world
            .parts
            .resolver
            .peek(&pattern("a.test"))
            .unwrap()
            .facts
            .id,
        second.facts.id
    );
}

#[tokio::test]
async fn only_a_denial_of_the_hook_stops_renewal_and_what_is_valid_stays() {
    let (tasks, status) = (Tasks::new(), Arc::new(AtomicU16::new(403)));
    let hook = hook(Arc::clone(&status), &tasks).await;
    let world = World::with(quick(), Authority::Scripted, Some(hook)).await;
    world.register_from("a.test", Source::Hook).await;
    let first = world.obtain("a.test").await.unwrap();

    world.clock.advance(HOUR * 24 * 4);
    let job = world.job_when("a.test", |job| job.failures == 1).await;
    let domain = world.domain("a.test").await;
    assert_eq!(domain.problem.unwrap().code, ProblemCode::PolicyDenied);
    assert_eq!(domain.certificate, Some(first.facts.id));
    let name = DnsName::parse("a.test").unwrap();
    assert!(world.parts.resolver.get(&name, world.clock.now()).is_some());
    assert_eq!(world.placed(), 1);

    // A hook that fails has denied nothing.
    status.store(500, Ordering::SeqCst);
    world.clock.advance(job.run_at.since(world.clock.now()));
    world.job_when("a.test", |job| job.failures == 0).await;
    assert_ne!(
        world.domain("a.test").await.certificate,
        Some(first.facts.id)
    );
    tasks.cancel();
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_old_certificate_and_waits_longer_each_time() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let first = world.obtain("a.test").await.unwrap();
    for _ in 0..2 {
        world.script.will(Does::Refuses);
    }
    world.clock.advance(HOUR * 24 * 4);
    let job = world.job_when("a.test", |job| job.failures == 1).await;
    let domain = world.domain("a.test").await;
    assert_eq!(domain.state, DomainState::Degraded);
    assert_eq!(domain.certificate, Some(first.facts.id));
    let problem = domain.problem.unwrap();
    assert_eq!(problem.code, ProblemCode::CaaForbidsCa);
    assert_eq!(problem.evidence, ["caa: in its own words"]);
    assert_eq!(problem.next_retry_at, Some(job.run_at));
    let wait = job.run_at.since(world.clock.now()).as_secs();
    assert!((60..=66).contains(&wait), "{wait}");

    world.clock.advance(Duration::from_secs(66));
    let job = world.job_when("a.test", |job| job.failures == 2).await;
    let wait = job.run_at.since(world.clock.now()).as_secs();
    assert!((600..=660).contains(&wait), "{wait}");
    let later = world.domain("a.test").await.problem.unwrap();
    assert_eq!(later.first_seen, problem.first_seen);
    assert!(later.last_seen > problem.last_seen);

    world.clock.advance(Duration::from_secs(660));
    world.job_when("a.test", |job| job.failures == 0).await;
    let domain = world.domain("a.test").await;
    assert_eq!((domain.state, domain.problem), (DomainState::Active, None));
    assert_ne!(domain.certificate, Some(first.facts.id));
    // A refused order is not taken up again.
    assert_eq!((world.placed(), world.resumed()), (4, 0));
}

#[tokio::test]
async fn an_expired_certificate_is_replaced_and_never_offered() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let first = world.obtain("a.test").await.unwrap();
    world.script.will(Does::Refuses);
    world.clock.advance(HOUR * 24 * 8);
    let problem = world.obtain("a.test").await;
    let now = world.clock.now();
    let name = DnsName::parse("a.test").unwrap();
    assert!(!first.is_valid_at(now));
    if problem.is_err() {
        assert!(world.parts.resolver.get(&name, now).is_none());
        assert_eq!(world.domain("a.test").await.state, DomainState::Issuing);
    }
    let second = world.obtain("a.test").await.unwrap();
    assert!(second.is_valid_at(now));
}

#[tokio::test]
async fn what_was_not_ordered_is_never_activated() {
    let world = World::new(quick()).await;
    world.script.will(Does::OtherName);
    world.register("a.test").await;
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::CaRejected);
    assert!(problem.evidence[0].contains("other.test"), "{problem:?}");
    assert_eq!(world.certificates().await, 0);
    assert_eq!(world.job("a.test").await.unwrap().order_url, None);
    world.obtain("a.test").await.unwrap();
    assert_eq!(world.placed(), 2);
}

#[tokio::test]
async fn an_authority_that_asks_to_wait_is_not_asked_sooner() {
    let world = World::new(quick()).await;
    world.script.will(Does::Busy);
    world.register("a.test").await;
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::CaOutage);
    let job = world.job("a.test").await.unwrap();
    let wait = job.run_at.since(world.clock.now());
    assert!(wait >= HOUR && wait <= HOUR + HOUR / 10, "{wait:?}");
    assert_eq!(
        job.failures, 0,
        "the authority's trouble counts against nobody"
    );
    assert!(
        job.order_url.is_some(),
        "the order is of use to the next attempt"
    );
}

#[tokio::test]
async fn an_attempt_that_hangs_ends_at_its_deadline_and_its_order_is_taken_up() {
    let settings = Settings {
        job_deadline: Duration::from_millis(200),
        ..quick()
    };
    let world = World::new(settings).await;
    world.script.will(Does::Hangs);
    world.register("a.test").await;
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::CaOutage);
    world.obtain("a.test").await.unwrap();
    assert_eq!((world.placed(), world.resumed()), (1, 1));
}

#[tokio::test]
async fn cancelling_puts_the_job_back_with_its_order_and_counts_no_failure() {
    let world = World::new(quick()).await;
    world.script.will(Does::Hangs);
    world.register("a.test").await;
    world.request("a.test", Urgency::HeedBackoff).await;
    world
        .job_when("a.test", |job| job.order_url.is_some())
        .await;
    assert_eq!(world.domain("a.test").await.state, DomainState::Issuing);
    world.tasks.cancel();
    assert_eq!(world.tasks.finish(LONG).await, 0);
    let job = world.job("a.test").await.unwrap();
    assert_eq!((job.leased_until, job.failures), (None, 0));
    assert!(job.order_url.is_some() && job.run_at <= world.clock.now());
    world.storing.cancel();
}

#[tokio::test]
async fn a_holder_that_lost_its_job_changes_nothing() {
    let settings = Settings {
        lease: Duration::from_millis(600),
        ..quick()
    };
    let world = World::new(settings).await;
    world.script.will(Does::Hangs);
    world.register("a.test").await;
    // On a machine so busy that nobody extends the lease in time, the job is lost before its lease has ended.
    let mut subscription = world.parts.outcomes.subscribe(&pattern("a.test"));
    world.request("a.test", Urgency::HeedBackoff).await;
    world
        .job_when("a.test", |job| job.order_url.is_some())
        .await;
    // The lease ends by the store's clock, and this same engine is the next to claim the job.
    world.clock.advance(HOUR);
    let told = tokio::time::timeout(LONG, subscription.next())
        .await
        .unwrap();
    assert!(matches!(told, Outcome::Issued(_)), "{told:?}");
    assert_eq!(world.placed(), 1);
    assert!(world.resumed() >= 1);
    assert_eq!(world.certificates().await, 1);
}

#[tokio::test]
async fn a_suspended_domain_orders_nothing() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let suspend = Batch::new().then(Operation::SetDomainState {
        pattern: pattern("a.test"),
        state: DomainState::Suspended,
        problem: None,
    });
    world.apply(suspend).await;
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::PolicyDenied);
    assert_eq!(world.placed(), 0);
    assert_eq!(world.domain("a.test").await.state, DomainState::Suspended);
    assert_eq!(world.job("a.test").await.unwrap().failures, 0);
}

#[tokio::test]
async fn without_a_suitable_authority_the_problem_says_what_to_configure() {
    let world = World::with(quick(), Authority::None, None).await;
    world.register("a.test").await;
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::PolicyDenied);
    assert!(problem.detail.contains("[[ca]]"), "{problem:?}");

    let world = World::new(quick()).await;
    world.register("*.a.test").await;
    let problem = world.obtain("*.a.test").await.unwrap_err();
    assert!(problem.detail.contains("wildcard"), "{problem:?}");
    assert_eq!(world.placed(), 0);
}
