//! Handshakes against a real store and vault; issuance is played by the tests.

use futures_util::future::join_all;
use tokio::sync::watch;

use super::*;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::certs::credential::{Credential, sealed_as};
use crate::certs::on_demand::{OnDemand, Origin};
use crate::certs::outcome::Outcome;
use crate::certs::vault::Vault;
use crate::keys;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::{DomainState, Source};
use crate::model::problem::{Problem, ProblemCode};
use crate::model::snapshot::KnownDomain;
use crate::model::standing::CertificateStanding;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{JobOutcome, Operation};
use crate::store::embedded::{self, Embedded};
use crate::store::job::{ClaimRequest, JobKey, JobKind, Paces, Priority};
use crate::store::record::{CertificateRecord, KeyOwner};
use crate::store::{Batch, Deadline};

const DAY: Duration = Duration::from_secs(86_400);

struct World {
    _folder: tempfile::TempDir,
    embedded: Embedded,
    vault: Vault,
    parts: Parts,
    nudges: watch::Receiver<u32>,
    tasks: Tasks,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, clock) = (Tasks::new(), Clock::system());
        let settings = embedded::Settings::in_folder(folder.path().join("data"));
        let embedded = Embedded::open(settings, clock.clone(), &tasks)
            .await
            .unwrap();
        let store: Arc<dyn Store> = Arc::new(embedded.clone());
        let keys = keys::Settings {
            key_file: folder.path().join("kek"),
        };
        let vault = Vault::unlock(Arc::clone(&store), &keys).await.unwrap();
        let (nudged, nudges) = watch::channel(0);
        let mut snapshot = Snapshot::empty();
        snapshot.mark_complete();
        let parts = Parts {
            store,
            snapshot: Published::new(snapshot),
            resolver: Resolver::new(1 << 20),
            loader: Loader::new(vault.clone()),
            permission: None,
            outcomes: Outcomes::new(),
            nudge: Arc::new(move || nudged.send_modify(|count| *count += 1)),
            publish: Arc::new(|_| Box::pin(std::future::ready(()))),
            clock,
        };
        Self {
            _folder: folder,
            embedded,
            vault,
            parts,
            nudges,
            tasks,
        }
    }

    fn answering(&self, settings: &Settings) -> OnDemand {
        let (asking, requests) = OnDemand::channel(settings, self.parts.snapshot.clone(), None);
        start(self.parts.clone(), settings.clone(), requests, &self.tasks);
        asking
    }

    async fn apply(&self, batch: Batch) {
        let scope = TenantScope::operator();
        self.parts.store.apply(soon(), &scope, batch).await.unwrap();
    }

    /// Registers the name for `acme`, in the store and in the snapshot.
    async fn register(&self, text: &str) {
        self.store_domain(text).await;
        know(&self.parts.snapshot, &pattern(text));
    }

    async fn store_domain(&self, text: &str) {
        let batch = Batch::new()
            .then(Operation::PutTenant {
                id: tenant(),
                source: Source::Api,
            })
            .then(Operation::PutDomain {
                pattern: pattern(text),
                tenant: tenant(),
                source: Source::Api,
                upstream: None,
            });
        self.apply(batch).await;
    }

    /// Stores a certificate for the name that expires after `lifetime` days, or did so many days ago.
    async fn certify(&self, text: &str, lifetime: i64) -> Arc<Credential> {
        let made = rcgen::generate_simple_self_signed([text.to_owned()]).unwrap();
        let key = Secret::new(made.signing_key.serialize_der());
        let now = self.parts.clock.now();
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: tenant(),
            names: vec![pattern(text)],
            ca: CaId::new("test"),
            serial: "01".to_owned(),
            not_before: now.minus(DAY * 100),
            not_after: Timestamp::from_seconds(now.as_seconds() + lifetime * 86_400),
        };
        let leaf = made.cert.der().to_vec();
        let owner = KeyOwner::Tenant(tenant());
        let name = sealed_as(&pattern(text));
        let record = CertificateRecord {
            facts: facts.clone(),
            leaf: leaf.clone(),
            chain: Vec::new(),
            sealed_key: self.vault.seal(&owner, &name, &key).await.unwrap(),
            standing: CertificateStanding::default(),
            created_at: now,
        };
        let batch = Batch::new()
            .then(Operation::PutCertificate(Box::new(record)))
            .then(Operation::PointDomain {
                pattern: pattern(text),
                certificate: facts.id,
            });
        self.apply(batch).await;
        Arc::new(Credential::from_der(facts, leaf, Vec::new(), &key).unwrap())
    }

    async fn has_job(&self, text: &str) -> Option<Priority> {
        let (scope, key) = (TenantScope::operator(), JobKey::Certificate(pattern(text)));
        let job = self.parts.store.job(soon(), &scope, &key).await.unwrap();
        job.map(|job| job.priority)
    }

    /// Waits for the nudge by which a flight says that it has requested a job.
    async fn nudged(&self) {
        let mut nudges = self.nudges.clone();
        let nudged = nudges.wait_for(|count| *count > 0);
        tokio::time::timeout(DAY, nudged).await.unwrap().unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn tenant() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn pattern(text: &str) -> NamePattern {
    NamePattern::parse(text).unwrap()
}

/// Puts a name of `acme` into the snapshot.
fn know(snapshot: &Published<Snapshot>, pattern: &NamePattern) {
    snapshot.update(|snapshot| {
        let mut next = snapshot.clone();
        let known = KnownDomain {
            tenant: tenant(),
            served: true,
            upstream: None,
        };
        next.put([(pattern.clone(), known)]);
        next
    });
}

async fn ask(asking: &OnDemand, text: &str) -> Result<Served, Refusal> {
    let name = DnsName::parse(text).unwrap();
    asking.credential(name, "192.0.2.7".parse().unwrap()).await
}

fn problem() -> Problem {
    let code = ProblemCode::CaOutage;
    Problem {
        code,
        actor: code.actor(),
        detail: "down".to_owned(),
        evidence: Vec::new(),
        fix: None,
        first_seen: Timestamp::EPOCH,
        last_seen: Timestamp::EPOCH,
        next_retry_at: None,
    }
}

#[tokio::test]
async fn a_stored_certificate_is_loaded_and_kept_without_a_job() {
    let world = World::new().await;
    let asking = world.answering(&Settings::default());
    for (registered, asked) in [("shop.test", "shop.test"), ("*.wide.test", "any.wide.test")] {
        world.register(registered).await;
        let stored = world.certify(registered, 30).await;
        let served = ask(&asking, asked).await.unwrap();
        assert_eq!(served.origin, Origin::Store);
        assert_eq!(served.credential.facts.id, stored.facts.id);
        let name = DnsName::parse(asked).unwrap();
        let kept = world.parts.resolver.get(&name, world.parts.clock.now());
        assert_eq!(kept.unwrap().facts.id, stored.facts.id);
        assert_eq!(world.has_job(registered).await, None);
    }
}

#[tokio::test]
async fn a_name_that_has_not_been_read_yet_is_published_before_its_visitor_is_answered() {
    let mut world = World::new().await;
    world.parts.snapshot.publish(Snapshot::empty());
    world.store_domain("a.test").await;
    world.certify("a.test", 30).await;
    let snapshot = world.parts.snapshot.clone();
    let published = snapshot.clone();
    world.parts.publish = Arc::new(move |pattern| {
        know(&published, &pattern);
        Box::pin(std::future::ready(()))
    });
    let asking = world.answering(&Settings::default());
    ask(&asking, "a.test").await.unwrap();
    let name = DnsName::parse("a.test").unwrap();
    assert!(snapshot.load().domain(&name).is_some());
    // What was not asked for is left to the index.
    assert_eq!(snapshot.load().len(), 1);
}

#[tokio::test]
async fn two_hundred_handshakes_share_one_urgent_job_and_its_certificate() {
    let world = World::new().await;
    world.register("new.test").await;
    let settings = Settings {
        waiters_per_name: 200,
        ..Settings::default()
    };
    let asking = world.answering(&settings);
    let handshakes = join_all((0..200).map(|_| ask(&asking, "new.test")));
    let issuance = async {
        world.nudged().await;
        let priority = world.has_job("new.test").await;
        assert_eq!(priority, Some(Priority::Handshake));
        let issued = world.certify("new.test", 30).await;
        let outcome = Outcome::Issued(Arc::clone(&issued));
        world.parts.outcomes.tell(&pattern("new.test"), outcome);
        issued
    };
    let (served, issued) = tokio::join!(handshakes, issuance);
    for served in served {
        let served = served.unwrap();
        assert_eq!(served.origin, Origin::Issued);
        assert_eq!(served.credential.facts.id, issued.facts.id);
    }
    assert_eq!(*world.nudges.borrow(), 1);
    assert!(world.parts.outcomes.is_empty());
}

#[tokio::test]
async fn a_certificate_that_another_process_obtained_is_found_in_the_store() {
    let world = World::new().await;
    world.register("new.test").await;
    let asking = world.answering(&Settings::default());
    let elsewhere = async {
        world.nudged().await;
        world.certify("new.test", 30).await
    };
    let (served, issued) = tokio::join!(ask(&asking, "new.test"), elsewhere);
    assert_eq!(served.unwrap().credential.facts.id, issued.facts.id);
}

#[tokio::test]
async fn an_expired_certificate_is_not_served_but_replaced() {
    let world = World::new().await;
    world.register("old.test").await;
    world.certify("old.test", -1).await;
    let asking = world.answering(&Settings::default());
    let failing = async {
        world.nudged().await;
        let outcome = Outcome::Failed(Arc::new(problem()));
        world.parts.outcomes.tell(&pattern("old.test"), outcome);
    };
    let (served, ()) = tokio::join!(ask(&asking, "old.test"), failing);
    assert_eq!(served.unwrap_err(), Refusal::IssuanceFailed);
}

#[tokio::test]
async fn a_name_that_backs_off_is_refused_at_once() {
    let world = World::new().await;
    world.register("bad.test").await;
    let key = JobKey::Certificate(pattern("bad.test"));
    world
        .apply(Batch::new().then(Operation::RequestJob {
            key: key.clone(),
            tenant: tenant(),
            priority: Priority::Background,
            delay: Duration::ZERO,
            urgency: crate::store::batch::Urgency::HeedBackoff,
        }))
        .await;
    let request = ClaimRequest {
        kind: JobKind::Certificate,
        holder: uuid::Uuid::new_v4(),
        most: 1,
        lease: DAY,
        paces: Paces::default(),
    };
    let claims = world.parts.store.claim(soon(), &request).await.unwrap();
    assert_eq!(claims.jobs.len(), 1);
    world
        .apply(Batch::new().then(Operation::FinishJob {
            key,
            outcome: JobOutcome::Failed(problem()),
            next: DAY,
        }))
        .await;
    let asking = world.answering(&Settings::default());
    assert_eq!(
        ask(&asking, "bad.test").await.unwrap_err(),
        Refusal::BackingOff
    );
    // Even without the store: for a while the name is remembered.
    world.embedded.close(soon()).await.unwrap();
    assert_eq!(
        ask(&asking, "bad.test").await.unwrap_err(),
        Refusal::BackingOff
    );
}

#[tokio::test]
async fn after_the_deadline_the_handshake_is_refused_and_the_job_stays() {
    let world = World::new().await;
    world.register("slow.test").await;
    let asking = world.answering(&Settings {
        deadline: Duration::from_millis(300),
        ..Settings::default()
    });
    assert_eq!(
        ask(&asking, "slow.test").await.unwrap_err(),
        Refusal::Deadline
    );
    assert_eq!(world.has_job("slow.test").await, Some(Priority::Handshake));
}

#[tokio::test]
async fn unknown_and_suspended_names_are_told_apart() {
    let world = World::new().await;
    world.store_domain("held.test").await;
    world.store_domain("gone.test").await;
    for (text, state) in [
        ("held.test", DomainState::Suspended),
        ("gone.test", DomainState::Tombstoned),
    ] {
        world
            .apply(Batch::new().then(Operation::SetDomainState {
                pattern: pattern(text),
                state,
                problem: None,
            }))
            .await;
    }
    // While not every name has been read, the store tells.
    world.parts.snapshot.publish(Snapshot::empty());
    let asking = world.answering(&Settings::default());
    for (text, expected) in [
        ("held.test", Refusal::Suspended),
        ("gone.test", Refusal::UnknownName),
        ("never.test", Refusal::UnknownName),
    ] {
        assert_eq!(ask(&asking, text).await.unwrap_err(), expected, "{text}");
    }
    // Afterwards memory does, without a message to anyone.
    let mut complete = Snapshot::empty();
    complete.mark_complete();
    world.parts.snapshot.publish(complete);
    let (unanswered, _requests) =
        OnDemand::channel(&Settings::default(), world.parts.snapshot.clone(), None);
    assert_eq!(
        ask(&unanswered, "never.test").await.unwrap_err(),
        Refusal::UnknownName
    );
}

#[tokio::test]
async fn a_failing_store_is_no_unknown_name() {
    let world = World::new().await;
    world.register("known.test").await;
    world.embedded.close(soon()).await.unwrap();
    let asking = world.answering(&Settings::default());
    assert_eq!(
        ask(&asking, "known.test").await.unwrap_err(),
        Refusal::StoreFailed
    );
    world.parts.snapshot.publish(Snapshot::empty());
    assert_eq!(
        ask(&asking, "unsure.test").await.unwrap_err(),
        Refusal::StoreFailed
    );
}

#[tokio::test]
async fn a_key_that_does_not_open_orders_nothing() {
    let world = World::new().await;
    world.register("a.test").await;
    world.register("b.test").await;
    world.certify("a.test", 30).await;
    // The certificate of another name, moved here with its names changed: its sealed key does not fit.
    let stolen = world
        .parts
        .store
        .resolve(soon(), &DnsName::parse("a.test").unwrap())
        .await
        .unwrap()
        .unwrap();
    let mut record = stolen.certificate.unwrap();
    record.facts.id = CertificateId::new();
    record.facts.names = vec![pattern("b.test")];
    let certificate = record.facts.id;
    world
        .apply(
            Batch::new()
                .then(Operation::PutCertificate(Box::new(record)))
                .then(Operation::PointDomain {
                    pattern: pattern("b.test"),
                    certificate,
                }),
        )
        .await;
    let asking = world.answering(&Settings::default());
    assert_eq!(
        ask(&asking, "b.test").await.unwrap_err(),
        Refusal::StoreFailed
    );
    assert_eq!(world.has_job("b.test").await, None);
}

#[tokio::test]
async fn waiters_are_bounded_per_name_and_in_all_and_those_who_left_make_room() {
    let world = World::new().await;
    for text in ["a.test", "b.test", "c.test"] {
        world.register(text).await;
    }
    let settings = Settings {
        waiters_per_name: 2,
        waiters: 3,
        ..Settings::default()
    };
    let asking = world.answering(&settings);
    let wait = |text: &'static str| {
        let asking = asking.clone();
        let (ended, end) = oneshot::channel();
        let tasks = world.tasks.child();
        tasks.spawn_until_cancelled("handshake", async move {
            let _gone = ended.send(ask(&asking, text).await);
        });
        (tasks, end)
    };
    let first = wait("a.test");
    let second = wait("a.test");
    world.nudged().await;
    // Both are in the queue before this one.
    assert_eq!(
        ask(&asking, "a.test").await.unwrap_err(),
        Refusal::TooManyWaiters
    );
    let third = wait("b.test");
    let mut nudges = world.nudges.clone();
    nudges.wait_for(|count| *count == 2).await.unwrap();
    assert_eq!(
        ask(&asking, "c.test").await.unwrap_err(),
        Refusal::TooManyWaiters
    );
    // Two visitors leave: there is room for another.
    for (tasks, end) in [first, second] {
        tasks.cancel();
        assert!(end.await.is_err());
    }
    let fourth = wait("c.test");
    nudges.wait_for(|count| *count == 3).await.unwrap();
    for text in ["a.test", "b.test", "c.test"] {
        let outcome = Outcome::Failed(Arc::new(problem()));
        world.parts.outcomes.tell(&pattern(text), outcome);
    }
    for (_, end) in [third, fourth] {
        assert_eq!(end.await.unwrap().unwrap_err(), Refusal::IssuanceFailed);
    }
}
