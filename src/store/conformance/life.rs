//! A domain's whole way through the store.

use std::time::Duration;

use super::support::{Factory, Fresh, certificate, job_key, name, pattern, problem, soon, tenant};
use crate::base::clock::Timestamp;
use crate::model::TenantScope;
use crate::model::certificate::{CertificateId, SerialNumber};
use crate::model::challenge::{ChallengeKind, ChallengeMemory};
use crate::model::domain::DomainState;
use crate::model::problem::ProblemCode;
use crate::model::reach::ReachMemory;
use crate::model::standing::{CertificateStanding, DomainMemory, Learnt, Origin};
use crate::store::batch::{Batch, Guard, JobOutcome, Operation};
use crate::store::job::JobStanding;
use crate::store::record::{CertificateRecord, DataKeyRecord, KeyOwner};

pub(crate) async fn a_domain_lives_from_registration_to_a_served_certificate(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let host = name("shop.example.com");
    assert_eq!(fresh.store.resolve(soon(), &host).await.unwrap(), None);
    fresh.register("acme", "shop.example.com").await;
    let resolved = fresh.store.resolve(soon(), &host).await.unwrap().unwrap();
    assert_eq!(resolved.domain.state, DomainState::PendingDns);
    assert_eq!((resolved.certificate, resolved.data_key), (None, None));

    let standing = fresh.request("acme", "shop.example.com").await;
    assert_eq!(standing, JobStanding::Queued(Duration::ZERO));
    let job = fresh.claim_one().await;
    assert_eq!(job.tenant, Some(tenant("acme")));
    let standing = fresh.request("acme", "shop.example.com").await;
    assert_eq!(standing, JobStanding::Running);

    let certificate = certificate("acme", &["shop.example.com"]);
    let data_key = DataKeyRecord {
        owner: KeyOwner::Tenant(tenant("acme")),
        id: 1,
        wrapped: vec![7; 69],
    };
    let publish = Batch::new()
        .guard(Guard::ClaimHeld(job.claim.clone()))
        .then(Operation::PutDataKey(data_key.clone()))
        .then(Operation::PutCertificate(Box::new(certificate.clone())))
        .then(Operation::PointDomain {
            pattern: pattern("shop.example.com"),
            certificate: certificate.facts.id,
        })
        .then(Operation::FinishJob {
            key: job_key("shop.example.com"),
            outcome: JobOutcome::Done,
            next: Duration::from_secs(3600),
        });
    fresh.apply(publish.clone()).await;
    let resolved = fresh.store.resolve(soon(), &host).await.unwrap().unwrap();
    assert_eq!(resolved.domain.state, DomainState::Active);
    assert_eq!(resolved.certificate, Some(certificate));
    assert_eq!(resolved.data_key, Some(data_key));
    assert!(fresh.claim(1).await.is_empty());
    // The claim ended with the run.
    assert!(fresh.try_apply(publish).await.is_err());
    fresh.clock.advance(Duration::from_secs(3600));
    assert_eq!(fresh.claim_one().await.claim.counter, 2);
}

pub(crate) async fn what_is_learnt_stays_and_a_names_certificates_are_found_newest_first(
    factory: &Factory,
) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    let (old, new) = (
        certificate("acme", &["a.test"]),
        certificate("acme", &["b.test", "a.test"]),
    );
    let standing = CertificateStanding {
        origin: Origin::Imported,
        account: Some("https://ca.test/acct/1".to_owned()),
        renewed_from: Some(new.facts.id),
        ask_at: Some(Timestamp::from_millis(1_800_000_000_123)),
        ..CertificateStanding::default()
    };
    let batch = Batch::new()
        .then(Operation::PutCertificate(Box::new(old.clone())))
        .then(Operation::PutCertificate(Box::new(new.clone())))
        .then(Operation::SetCertificateStanding {
            certificate: old.facts.id,
            standing: Box::new(standing.clone()),
        });
    fresh.apply(batch).await;
    let acme = TenantScope::certificate_work(tenant("acme"));
    let of = async |scope: &TenantScope, name: &str, most| {
        let (store, name) = (&fresh.store, pattern(name));
        let found = store.certificates_of(soon(), scope, &name, most);
        found.await.unwrap()
    };
    let old = CertificateRecord { standing, ..old };
    assert_eq!(of(&acme, "a.test", 9).await, [new.clone(), old]);
    assert_eq!(of(&acme, "a.test", 1).await, std::slice::from_ref(&new));
    assert_eq!(of(&acme, "b.test", 9).await, std::slice::from_ref(&new));
    let globex = TenantScope::certificate_work(tenant("globex"));
    assert_eq!(of(&globex, "a.test", 9).await, []);
    let missing = Batch::new().then(Operation::SetCertificateStanding {
        certificate: CertificateId::new(),
        standing: Box::default(),
    });
    assert!(fresh.try_apply(missing).await.is_err());
}

pub(crate) async fn a_certificate_is_found_by_its_serial_number_within_the_callers_reach(
    factory: &Factory,
) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    let mut leaked = certificate("acme", &["a.test"]);
    "008f01".clone_into(&mut leaked.facts.serial);
    let other = certificate("acme", &["a.test"]);
    let batch = Batch::new()
        .then(Operation::PutCertificate(Box::new(leaked.clone())))
        .then(Operation::PutCertificate(Box::new(other)));
    fresh.apply(batch).await;
    let found = async |slug: &str, serial: &str| {
        let scope = TenantScope::certificate_work(tenant(slug));
        let serial = SerialNumber::parse(serial).unwrap();
        let found = fresh
            .store
            .certificates_by_serial(soon(), &scope, &serial, 9);
        found.await.unwrap()
    };
    assert_eq!(found("acme", "8F:01").await, [leaked]);
    assert_eq!(found("acme", "8f02").await, []);
    assert_eq!(found("globex", "8f01").await, []);
}

pub(crate) async fn the_domains_of_a_certificate_are_those_that_point_to_it(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    for name in ["b.test", "a.test", "c.test"] {
        fresh.register("acme", name).await;
    }
    let both = certificate("acme", &["a.test", "b.test", "c.test"]);
    let point = |name: &str| Operation::PointDomain {
        pattern: pattern(name),
        certificate: both.facts.id,
    };
    let batch = Batch::new()
        .then(Operation::PutCertificate(Box::new(both.clone())))
        .then(point("b.test"))
        .then(point("a.test"));
    fresh.apply(batch).await;
    let of = async |scope: &TenantScope, most| {
        let found = fresh
            .store
            .domains_served_by(soon(), scope, both.facts.id, most);
        let names = found.await.unwrap().into_iter();
        names
            .map(|domain| domain.pattern.to_string())
            .collect::<Vec<_>>()
    };
    let acme = TenantScope::certificate_work(tenant("acme"));
    assert_eq!(of(&acme, 9).await, ["a.test", "b.test"]);
    assert_eq!(of(&acme, 1).await, ["a.test"]);
    let globex = TenantScope::certificate_work(tenant("globex"));
    assert!(of(&globex, 9).await.is_empty());
}

pub(crate) async fn two_who_learn_of_a_domain_at_once_are_both_remembered(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    let mut challenges = ChallengeMemory::default();
    challenges.note_passed(ChallengeKind::TlsAlpn01);
    let reach = ReachMemory {
        visited: Some(fresh.clock.now()),
        ..ReachMemory::default()
    };
    // Neither has read what the other learnt.
    for learnt in [
        Learnt::Challenges(challenges.clone()),
        Learnt::Reach(reach.clone()),
    ] {
        let learnt = Box::new(learnt);
        let pattern = pattern("a.test");
        let note = Batch::new().then(Operation::Remember { pattern, learnt });
        fresh.apply(note).await;
    }
    let scope = TenantScope::operator();
    let found = fresh.store.domain(soon(), &scope, &pattern("a.test")).await;
    let memory = found.unwrap().unwrap().memory;
    assert_eq!(memory, DomainMemory { challenges, reach });
}

pub(crate) async fn everything_is_there_after_a_restart(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "shop.example.com").await;
    fresh.request("acme", "shop.example.com").await;
    fresh.claim_one().await;
    let seen = problem(ProblemCode::CaOutage);
    let failed = Operation::FinishJob {
        key: job_key("shop.example.com"),
        outcome: JobOutcome::Failed(seen.clone()),
        next: Duration::from_secs(60),
    };
    fresh.apply(Batch::new().then(failed)).await;
    let again = factory(fresh.folder.path(), fresh.clock.clone()).await;
    let everyone = TenantScope::operator();
    let job = again
        .job(soon(), &everyone, &job_key("shop.example.com"))
        .await;
    let job = job.unwrap().unwrap();
    assert_eq!((job.failures, job.problem), (1, Some(seen)));
    let host = name("shop.example.com");
    let resolved = again.resolve(soon(), &host).await.unwrap().unwrap();
    assert_eq!(resolved.domain.created_at, fresh.clock.now());
}
