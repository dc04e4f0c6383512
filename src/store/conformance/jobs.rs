//! Work that happens once: claims, leases, requests.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::support::{
    Factory, Fresh, LEASE, certificate, claim, job_key, pattern, problem, registration, request,
    soon, tenant,
};
use crate::model::TenantScope;
use crate::model::certificate::CaId;
use crate::model::domain::DomainState;
use crate::model::problem::ProblemCode;
use crate::store::batch::{ApplyError, Batch, Guard, JobOutcome, Operation, Urgency};
use crate::store::job::{
    ClaimRequest, Held, JobKey, JobKind, JobStanding, Pace, Paces, Priority, SavedOrder,
};

const MINUTE: Duration = Duration::from_secs(60);

fn finish(outcome: JobOutcome, next: Duration) -> Operation {
    Operation::FinishJob {
        key: job_key("a.test"),
        outcome,
        next,
    }
}

fn failed() -> JobOutcome {
    JobOutcome::Failed(problem(ProblemCode::CaOutage))
}

/// A store with one requested job, `a.test`.
async fn with_job(factory: &Factory) -> Fresh {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    fresh.request("acme", "a.test").await;
    fresh
}

pub(crate) async fn a_job_has_one_holder_however_many_ask(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    for n in 0..20 {
        let host = format!("n{n}.test");
        fresh
            .apply(registration("acme", &host).then(request("acme", &host)))
            .await;
    }
    let mut nonces = HashSet::new();
    for round in 1..=30 {
        let askers = (0..32).map(|n| claim(&*fresh.store, 1 + n % 3));
        let claimed: Vec<_> = join_all(askers).await.into_iter().flatten().collect();
        let keys: HashSet<_> = claimed.iter().map(|job| job.claim.key.clone()).collect();
        assert_eq!((claimed.len(), keys.len()), (20, 20), "round {round}");
        for job in claimed {
            assert_eq!(job.claim.counter, round, "counters rise by one");
            assert!(nonces.insert(job.claim.nonce), "nonces differ");
        }
        fresh.clock.advance(LEASE + Duration::from_millis(1));
    }
}

pub(crate) async fn a_late_holder_may_publish_until_somebody_else_has_claimed(factory: &Factory) {
    let fresh = with_job(factory).await;
    let first = fresh.claim_one().await.claim;
    let publish = |claim| Batch::new().guard(Guard::ClaimHeld(claim));
    fresh.clock.advance(LEASE * 10);
    fresh.apply(publish(first.clone())).await;
    let held = fresh.store.extend(soon(), &first, LEASE).await.unwrap();
    assert_eq!(
        held,
        Held::Ours,
        "an expired lease that nobody took is still ours"
    );
    assert!(
        fresh.claim(1).await.is_empty(),
        "and lengthened it keeps others away"
    );

    fresh.clock.advance(LEASE);
    let second = fresh.claim_one().await.claim;
    assert!(second.counter > first.counter);
    let refused = fresh.try_apply(publish(first.clone())).await.unwrap_err();
    assert!(matches!(
        refused,
        ApplyError::GuardFailed(Guard::ClaimHeld(_))
    ));
    assert_eq!(
        fresh.store.extend(soon(), &first, LEASE).await.unwrap(),
        Held::Lost
    );
    fresh.apply(publish(second.clone())).await;
    fresh
        .apply(Batch::new().then(finish(JobOutcome::Done, MINUTE)))
        .await;
    assert!(fresh.try_apply(publish(second.clone())).await.is_err());
    assert_eq!(
        fresh.store.extend(soon(), &second, LEASE).await.unwrap(),
        Held::Lost
    );
}

pub(crate) async fn a_lengthened_lease_keeps_others_away(factory: &Factory) {
    let fresh = with_job(factory).await;
    let ours = fresh.claim_one().await.claim;
    for _ in 0..5 {
        fresh.clock.advance(LEASE / 2);
        assert_eq!(
            fresh.store.extend(soon(), &ours, LEASE).await.unwrap(),
            Held::Ours
        );
        assert!(fresh.claim(1).await.is_empty());
    }
    fresh.clock.advance(LEASE);
    assert_eq!(fresh.claim(1).await.len(), 1);
}

pub(crate) async fn the_most_urgent_job_comes_first_and_the_next_one_is_told(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let wishes = [
        ("late.test", Priority::Background, 0),
        ("renewal.test", Priority::Renewal, 0),
        ("visitor.test", Priority::Handshake, 0),
        ("expiring.test", Priority::Expiring, 0),
        ("tomorrow.test", Priority::Handshake, 5000),
    ];
    for (host, priority, delay) in wishes {
        fresh.register("acme", host).await;
        let request = Operation::RequestJob {
            key: job_key(host),
            tenant: tenant("acme"),
            priority,
            delay: Duration::from_millis(delay),
            urgency: Urgency::HeedBackoff,
        };
        fresh.apply(Batch::new().then(request)).await;
    }
    let ask = |most| ClaimRequest {
        kind: JobKind::Certificate,
        holder: Uuid::new_v4(),
        most,
        lease: LEASE,
        paces: Paces::default(),
    };
    let claims = fresh.store.claim(soon(), &ask(3)).await.unwrap();
    let keys: Vec<_> = claims
        .jobs
        .iter()
        .map(|job| job.claim.key.to_string())
        .collect();
    let expected = ["visitor.test", "expiring.test", "renewal.test"];
    assert_eq!(keys, expected.map(|host| format!("certificate:{host}")));
    assert_eq!(claims.next_due, Some(Duration::ZERO), "one is left");
    let claims = fresh.store.claim(soon(), &ask(3)).await.unwrap();
    assert_eq!(claims.jobs.len(), 1);
    assert_eq!(claims.next_due, Some(Duration::from_millis(5000)));
    let upkeep = ClaimRequest {
        kind: JobKind::Upkeep,
        ..ask(3)
    };
    let claims = fresh.store.claim(soon(), &upkeep).await.unwrap();
    assert!(claims.jobs.is_empty() && claims.next_due.is_none());
}

pub(crate) async fn a_certificate_has_a_job_of_its_own_beside_its_domains(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    fresh.request("acme", "a.test").await;
    let stored = certificate("acme", &["a.test"]);
    let key = JobKey::Revocation(stored.facts.id);
    let ask = |owner| {
        Batch::new().then(Operation::RequestJob {
            key: key.clone(),
            tenant: tenant(owner),
            priority: Priority::Expiring,
            delay: Duration::ZERO,
            urgency: Urgency::Now,
        })
    };
    let missing = fresh.try_apply(ask("acme")).await;
    assert!(matches!(missing, Err(ApplyError::Missing(_))));
    let put = Batch::new().then(Operation::PutCertificate(Box::new(stored)));
    fresh.apply(put).await;
    let of_another = fresh.try_apply(ask("globex")).await;
    assert!(matches!(of_another, Err(ApplyError::Missing(_))));
    fresh.apply(ask("acme")).await;
    let request = ClaimRequest {
        kind: JobKind::Revocation,
        holder: Uuid::new_v4(),
        most: 9,
        lease: Duration::from_secs(60),
        paces: Paces::default(),
    };
    let claimed = fresh.store.claim(soon(), &request).await.unwrap().jobs;
    let [job] = &claimed[..] else {
        panic!("the one of its kind: {claimed:?}");
    };
    assert_eq!((&job.claim.key, &job.tenant), (&key, &Some(tenant("acme"))));
    let done = Batch::new().then(Operation::DeleteJob { key: key.clone() });
    fresh.apply(done).await;
    let scope = TenantScope::operator();
    assert_eq!(fresh.store.job(soon(), &scope, &key).await.unwrap(), None);
    assert_eq!(fresh.claim(9).await.len(), 1, "the domain's own");
}

pub(crate) async fn a_request_brings_a_waiting_job_forward_and_never_back(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    let ask = |priority, delay| {
        Batch::new().then(Operation::RequestJob {
            key: job_key("a.test"),
            tenant: tenant("acme"),
            priority,
            delay,
            urgency: Urgency::HeedBackoff,
        })
    };
    let steps = [
        (Priority::Background, 10, 10, Priority::Background),
        (Priority::Background, 20, 10, Priority::Background),
        (Priority::Handshake, 5, 5, Priority::Handshake),
        (Priority::Renewal, 5, 5, Priority::Handshake),
        (Priority::Handshake, 0, 0, Priority::Handshake),
    ];
    for (priority, delay, expected, urgency) in steps {
        let standing = fresh.apply(ask(priority, MINUTE * delay)).await.jobs;
        assert_eq!(standing, [JobStanding::Queued(MINUTE * expected)]);
        let everyone = TenantScope::operator();
        let job = fresh
            .store
            .job(soon(), &everyone, &job_key("a.test"))
            .await
            .unwrap();
        assert_eq!(job.unwrap().priority, urgency);
    }
}

pub(crate) async fn a_failed_job_heeds_its_back_off_unless_the_operator_wants_it_now(
    factory: &Factory,
) {
    let fresh = with_job(factory).await;
    fresh.claim_one().await;
    fresh
        .apply(Batch::new().then(finish(failed(), MINUTE * 10)))
        .await;
    let seen = Some(problem(ProblemCode::CaOutage));
    let standing = fresh.request("acme", "a.test").await;
    assert_eq!(standing, JobStanding::BackingOff(MINUTE * 10, seen.clone()));
    fresh.clock.advance(MINUTE * 4);
    let standing = fresh.request("acme", "a.test").await;
    assert_eq!(standing, JobStanding::BackingOff(MINUTE * 6, seen.clone()));
    assert!(fresh.claim(1).await.is_empty());
    // Both were visitors, and neither waits for the next run.
    let everyone = TenantScope::operator();
    let job = fresh.store.job(soon(), &everyone, &job_key("a.test")).await;
    assert_eq!(job.unwrap().unwrap().priority, Priority::Renewal);

    let now = Operation::RequestJob {
        key: job_key("a.test"),
        tenant: tenant("acme"),
        priority: Priority::Handshake,
        delay: Duration::ZERO,
        urgency: Urgency::Now,
    };
    let standing = fresh.apply(Batch::new().then(now)).await.jobs;
    assert_eq!(standing, [JobStanding::Queued(Duration::ZERO)]);
    let job = fresh.claim_one().await;
    assert_eq!(
        (job.failures, job.problem),
        (1, seen),
        "the count is not forgotten"
    );

    fresh
        .apply(Batch::new().then(finish(failed(), MINUTE)))
        .await;
    fresh.clock.advance(MINUTE);
    assert_eq!(fresh.claim_one().await.failures, 2);
    fresh
        .apply(Batch::new().then(finish(JobOutcome::Done, MINUTE)))
        .await;
    let standing = fresh.request("acme", "a.test").await;
    assert_eq!(standing, JobStanding::Queued(Duration::ZERO));
    let job = fresh.claim_one().await;
    assert_eq!((job.failures, job.problem), (0, None));
}

pub(crate) async fn an_interrupted_run_counts_for_nothing(factory: &Factory) {
    let fresh = with_job(factory).await;
    fresh.claim_one().await;
    fresh
        .apply(Batch::new().then(finish(JobOutcome::Deferred, MINUTE)))
        .await;
    assert!(fresh.claim(1).await.is_empty());
    fresh.clock.advance(MINUTE);
    let job = fresh.claim_one().await;
    assert_eq!((job.failures, job.priority), (0, Priority::Handshake));
}

pub(crate) async fn a_successor_finds_the_order_that_a_dead_holder_saved(factory: &Factory) {
    let fresh = with_job(factory).await;
    let first = fresh.claim_one().await;
    assert_eq!(first.order, None);
    let order = SavedOrder {
        ca: CaId::new("letsencrypt"),
        url: "https://ca.test/order/1".to_owned(),
        sealed_key: vec![1, 2, 3],
    };
    let save = |order| {
        let key = job_key("a.test");
        Batch::new().then(Operation::SaveOrder { key, order })
    };
    fresh
        .apply(save(Some(order.clone())).guard(Guard::ClaimHeld(first.claim)))
        .await;
    fresh.clock.advance(LEASE);
    assert_eq!(fresh.claim_one().await.order, Some(order.clone()));
    fresh
        .apply(Batch::new().then(finish(failed(), MINUTE)))
        .await;
    fresh.clock.advance(MINUTE);
    assert_eq!(
        fresh.claim_one().await.order,
        Some(order.clone()),
        "a failure keeps it"
    );
    fresh.apply(save(None)).await;
    fresh.clock.advance(LEASE);
    assert_eq!(fresh.claim_one().await.order, None);
    fresh
        .apply(save(Some(order)).then(finish(JobOutcome::Done, Duration::ZERO)))
        .await;
    assert_eq!(fresh.claim_one().await.order, None, "a success forgets it");
}

pub(crate) async fn what_a_dead_holder_held_is_due_at_once_and_nothing_else(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    for host in ["dead.test", "living.test", "waiting.test"] {
        fresh.register("acme", host).await;
        fresh.request("acme", host).await;
    }
    let (dead, living) = (Uuid::new_v4(), Uuid::new_v4());
    let ask = |holder| ClaimRequest {
        kind: JobKind::Certificate,
        holder,
        most: 1,
        lease: LEASE,
        paces: Paces::default(),
    };
    let left = fresh.store.claim(soon(), &ask(dead)).await.unwrap().jobs;
    let kept = fresh.store.claim(soon(), &ask(living)).await.unwrap().jobs;
    assert_eq!(fresh.store.release(soon(), dead).await.unwrap(), 1);
    assert_eq!(fresh.store.release(soon(), dead).await.unwrap(), 0);

    let late = Batch::new().guard(Guard::ClaimHeld(left[0].claim.clone()));
    assert!(
        fresh.try_apply(late).await.is_err(),
        "the dead write no more"
    );
    let held = fresh.store.extend(soon(), &left[0].claim, LEASE).await;
    assert_eq!(held.unwrap(), Held::Lost);
    let due = fresh.claim(9).await.into_iter().map(|job| job.claim.key);
    let due: HashSet<_> = due.collect();
    assert_eq!(due.len(), 2, "{due:?}");
    assert!(due.contains(&left[0].claim.key) && !due.contains(&kept[0].claim.key));
    let held = fresh.store.extend(soon(), &kept[0].claim, LEASE).await;
    assert_eq!(held.unwrap(), Held::Ours);
}

pub(crate) async fn jobs_that_wait_are_counted_with_the_longest_wait(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let backlog = async || {
        let found = fresh.store.backlog(soon(), JobKind::Certificate).await;
        let found = found.unwrap();
        let oldest = |priority| found.of(priority).oldest;
        let (visitor, renewal) = (oldest(Priority::Handshake), oldest(Priority::Renewal));
        (found.due(), visitor, renewal)
    };
    assert_eq!(backlog().await, (0, Duration::ZERO, Duration::ZERO));
    for (host, priority, delay) in [
        ("visitor.test", Priority::Handshake, MINUTE),
        ("renewal.test", Priority::Renewal, Duration::ZERO),
        ("tomorrow.test", Priority::Renewal, MINUTE * 1440),
    ] {
        fresh.register("acme", host).await;
        let request = Operation::RequestJob {
            key: job_key(host),
            tenant: tenant("acme"),
            priority,
            delay,
            urgency: Urgency::HeedBackoff,
        };
        fresh.apply(Batch::new().then(request)).await;
    }
    fresh.clock.advance(MINUTE * 3);
    // Each priority by itself: the visitor's job became due a minute later.
    assert_eq!(backlog().await, (2, MINUTE * 2, MINUTE * 3));
    let by = fresh.store.backlog(soon(), JobKind::Upkeep).await.unwrap();
    assert_eq!(by.due(), 0);
    // The visitor's goes first; who works on one is not waited for.
    fresh.claim_one().await;
    assert_eq!(backlog().await, (1, Duration::ZERO, MINUTE * 3));
    fresh.claim_one().await;
    assert_eq!(backlog().await, (0, Duration::ZERO, Duration::ZERO));
}

pub(crate) async fn upkeep_has_one_row_a_task(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let task: Arc<str> = Arc::from("sweep");
    let ask = |delay| {
        let task = Arc::clone(&task);
        Batch::new().then(Operation::RequestUpkeep { task, delay })
    };
    fresh.apply(ask(MINUTE)).await;
    fresh.apply(ask(Duration::ZERO)).await;
    let request = ClaimRequest {
        kind: JobKind::Upkeep,
        holder: Uuid::new_v4(),
        most: 10,
        lease: LEASE,
        paces: Paces::default(),
    };
    assert!(
        fresh
            .store
            .claim(soon(), &request)
            .await
            .unwrap()
            .jobs
            .is_empty()
    );
    fresh.clock.advance(MINUTE);
    let jobs = fresh.store.claim(soon(), &request).await.unwrap().jobs;
    let keys: Vec<_> = jobs.iter().map(|job| job.claim.key.clone()).collect();
    assert_eq!(keys, [JobKey::Upkeep(task)]);
    assert_eq!(jobs[0].tenant, None);
}

pub(crate) async fn a_change_of_state_does_not_disturb_a_run(factory: &Factory) {
    let fresh = with_job(factory).await;
    let claim = fresh.claim_one().await.claim;
    let state = Operation::SetDomainState {
        pattern: pattern("a.test"),
        state: DomainState::Issuing,
        problem: None,
    };
    fresh
        .apply(
            Batch::new()
                .guard(Guard::ClaimHeld(claim.clone()))
                .then(state),
        )
        .await;
    fresh
        .apply(Batch::new().guard(Guard::ClaimHeld(claim)))
        .await;
}

pub(crate) async fn jobs_of_many_names_are_all_claimed_in_the_end(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let mut batch = registration("acme", "n0.test");
    for n in 0..250 {
        let host = format!("n{n}.test");
        batch = batch
            .then(super::support::put_domain("acme", &host))
            .then(request("acme", &host));
    }
    fresh.apply(batch).await;
    let mut seen = HashMap::new();
    loop {
        let claimed = fresh.claim(7).await;
        if claimed.is_empty() {
            break;
        }
        for job in claimed {
            *seen.entry(job.claim.key.to_string()).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 250);
    assert!(seen.values().all(|times| *times == 1));
}

pub(crate) async fn a_held_job_counts_nothing_and_only_a_more_urgent_request_brings_it_forward(
    factory: &Factory,
) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "a.test").await;
    let ask = async |priority| {
        let request = Operation::RequestJob {
            key: job_key("a.test"),
            tenant: tenant("acme"),
            priority,
            delay: Duration::ZERO,
            urgency: Urgency::HeedBackoff,
        };
        fresh.apply(Batch::new().then(request)).await.jobs
    };
    ask(Priority::Background).await;
    fresh.claim_one().await;
    let exhausted = problem(ProblemCode::RateLimitedAccount);
    let hold = || Batch::new().then(finish(JobOutcome::Held(exhausted.clone()), MINUTE * 10));
    fresh.apply(hold()).await;
    let waits = |wait| [JobStanding::BackingOff(wait, Some(exhausted.clone()))];
    assert_eq!(ask(Priority::Background).await, waits(MINUTE * 10));
    assert!(fresh.claim(1).await.is_empty());

    // A visitor may get what bulk work may not; one visitor after another does not ask again and again.
    let at_once = [JobStanding::Queued(Duration::ZERO)];
    assert_eq!(ask(Priority::Handshake).await, at_once);
    let job = fresh.claim_one().await;
    assert_eq!((job.failures, job.priority), (0, Priority::Handshake));
    assert_eq!(job.problem, Some(exhausted.clone()));
    fresh.apply(hold()).await;
    assert_eq!(ask(Priority::Handshake).await, waits(MINUTE * 10));
    fresh.clock.advance(MINUTE * 10);
    assert_eq!(fresh.claim_one().await.failures, 0);
    fresh
        .apply(Batch::new().then(finish(JobOutcome::Done, MINUTE)))
        .await;
    fresh.clock.advance(MINUTE);
    assert_eq!(fresh.claim_one().await.problem, None);
}

pub(crate) async fn tenants_with_due_jobs_take_turns(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let mut batch = Batch::new();
    for (tenant, count) in [("many", 60), ("ask:one.test", 3), ("few", 3)] {
        for n in 0..count {
            let host = format!("n{n}.{}.test", tenant.replace(':', "-"));
            let made = registration(tenant, &host).then(request(tenant, &host));
            batch.operations.extend(made.operations);
        }
    }
    fresh.apply(batch).await;
    // Long before all jobs of the first, the others have had all of theirs; and all go on afterwards.
    let mut claimed: HashMap<String, usize> = HashMap::new();
    for round in 0..16 {
        for job in fresh.claim(1 + round % 2).await {
            *claimed.entry(job.tenant.unwrap().to_string()).or_default() += 1;
        }
        if round == 5 {
            assert_eq!(claimed["few"], 3, "{claimed:?}");
        }
    }
    assert_eq!(claimed["ask:one.test"], 3, "{claimed:?}");
    assert_eq!(claimed["many"], 24 - 6, "{claimed:?}");
    assert_eq!(fresh.claim(1000).await.len(), 66 - 24);
}

pub(crate) async fn a_priority_is_claimed_at_its_pace(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    for n in 0..5 {
        let host = format!("n{n}.test");
        fresh
            .apply(registration("acme", &host).then(request("acme", &host)))
            .await;
    }
    let claim = async |pace| {
        let mut paces = Paces::default();
        paces.set(Priority::Handshake, pace);
        let request = ClaimRequest {
            kind: JobKind::Certificate,
            holder: Uuid::new_v4(),
            most: 3,
            lease: LEASE,
            paces,
        };
        let claims = fresh.store.claim(soon(), &request).await.unwrap();
        (claims.jobs.len(), claims.next_due)
    };
    assert_eq!(claim(Pace::None).await, (0, None));
    assert_eq!(claim(Pace::One).await, (1, None));
    assert_eq!(claim(Pace::Free).await, (3, Some(Duration::ZERO)));
}
