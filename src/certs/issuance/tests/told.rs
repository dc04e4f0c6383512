//! What the authority tells of renewals moves them, and never stops one.

use super::*;
use crate::ca::{CaError, RenewalInfo};
use crate::model::standing::{CertificateStanding, Replace};
use script::refused;

const DAY: Duration = Duration::from_secs(86_400);

fn window(start: Timestamp, end: Timestamp) -> RenewalInfo {
    RenewalInfo {
        window: Some((start, end)),
        explanation: Some("https://ca.test/why".to_owned()),
        retry_after: Some(HOUR),
    }
}

impl World {
    fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }

    /// Lets the job run, and waits until its next run is known.
    async fn run_once(&self) -> JobRecord {
        self.until_next_run("a.test").await;
        let now = self.clock.now();
        self.job_when("a.test", |job| {
            job.leased_until.is_none() && job.run_at > now
        })
        .await
    }
}

async fn telling(answers: Vec<Result<Option<RenewalInfo>, CaError>>) -> World {
    let world = World::new(quick()).await;
    world.script.will_tell(answers);
    world.register("a.test").await;
    world.obtain("a.test").await.unwrap();
    world
}

#[tokio::test]
async fn an_authority_is_asked_once_for_each_time_that_its_answer_is_good() {
    let world = telling(vec![Ok(Some(RenewalInfo {
        retry_after: Some(HOUR),
        ..RenewalInfo::default()
    }))])
    .await;
    let began = world.clock.now();
    let job = world.run_once().await;
    assert_eq!(world.asked(), 1);
    let since = world.clock.now().since(began);
    assert!(since >= HOUR * 6 && since <= HOUR * 7, "{since:?}");
    // As it said, and as is usual where it does not say.
    let wait = job.run_at.since(world.clock.now());
    assert!(wait >= HOUR && wait <= HOUR * 2, "{wait:?}");
    let job = world.run_once().await;
    assert_eq!(world.asked(), 2);
    let wait = job.run_at.since(world.clock.now());
    assert!(wait >= HOUR * 6 && wait <= HOUR * 7, "{wait:?}");
    assert_eq!(world.placed(), 1);
}

#[tokio::test]
async fn a_window_in_the_past_renews_within_the_hour_and_is_kept_over_runs() {
    let now = Clock::system().now();
    let past = window(now.minus(DAY), now);
    let world = telling(vec![Ok(Some(past))]).await;
    let first = world.serving("a.test").await;
    world.run_once().await;
    let told = world.certificate(first.facts.id).await.standing;
    let told = told.renewal_info.unwrap();
    assert_eq!(told.explanation.as_deref(), Some("https://ca.test/why"));
    let wait = told.renew_at.since(world.clock.now());
    assert!(wait <= HOUR, "{wait:?}");
    // It may be asked once more before that point.
    while world.placed() == 1 {
        world.run_once().await;
    }
    assert!(world.clock.now() <= told.renew_at.plus(HOUR));
    let second = world.serving("a.test").await;
    // Many were replaced with it, perhaps: it does not just follow in time.
    assert_eq!(second.standing.renewed_from, None);
    let replaced = world.script.replaced.lock().unwrap().clone();
    assert_eq!(replaced, [None, Some(first.leaf)]);
}

#[tokio::test]
async fn answers_that_fail_or_make_no_sense_never_put_a_renewal_off() {
    let far = Timestamp::from_seconds(40_000_000_000);
    let garbled = CaError::Garbled {
        ca: CaId::new("test"),
        step: crate::ca::error::Step::RenewalInfo,
        why: "no JSON".to_owned(),
    };
    let answers = [
        Ok(Some(window(far, far.plus(DAY)))),
        Ok(Some(window(far, Timestamp::EPOCH))),
        Ok(None),
        Err(refused("serverInternal", Some(DAY * 400))),
        Err(garbled),
    ];
    for answer in answers {
        let world = telling(vec![answer]).await;
        let latest = world.due("a.test").await;
        while world.placed() == 1 {
            world.run_once().await;
        }
        assert!(world.clock.now() <= latest, "{latest}");
    }
}

#[tokio::test]
async fn an_authority_that_wants_to_be_left_alone_is_not_asked_and_one_that_says_so_stops_orders() {
    let world = World::new(quick()).await;
    let limits = budget::Limits::none("test");
    world.shares.publish(budget::Settings {
        limits: [(CaId::new("test"), limits)].into(),
        ..budget::Settings::default()
    });
    let mut busy = refused("rateLimited", Some(HOUR));
    if let CaError::Refused { step, .. } = &mut busy {
        *step = crate::ca::error::Step::RenewalInfo;
    }
    world.script.will_tell(vec![Err(busy)]);
    for name in ["a.test", "b.test"] {
        world.register(name).await;
    }
    world.obtain("a.test").await.unwrap();
    let job = world.run_once().await;
    assert_eq!(world.asked(), 1);
    let wait = job.run_at.since(world.clock.now());
    assert!(wait >= HOUR && wait <= HOUR * 2, "{wait:?}");
    // It said so of all calls: no order is placed.
    let stopped = world.obtain("b.test").await.unwrap_err();
    assert_eq!((stopped.code, world.placed()), (ProblemCode::CaOutage, 1));

    // Somebody else is told to stay away meanwhile.
    let until = world.clock.now().plus(HOUR * 4);
    let stop = Operation::FreezeBucket {
        bucket: "calls:test:".to_owned(),
        duration: HOUR * 4,
    };
    world.apply(Batch::new().then(stop)).await;
    let job = world.run_once().await;
    assert_eq!(world.asked(), 1);
    assert!(job.run_at >= until, "{job:?}");
    world.run_once().await;
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn whoever_asks_gets_a_new_certificate_before_the_old_one_is_due() {
    for why in [Replace::Asked, Replace::KeyCompromised, Replace::Revoked] {
        let world = World::new(quick()).await;
        world.register("a.test").await;
        let first = world.obtain("a.test").await.unwrap();
        let standing = CertificateStanding {
            replace: Some(why),
            ..world.serving("a.test").await.standing
        };
        let asked = Batch::new().then(Operation::SetCertificateStanding {
            certificate: first.facts.id,
            standing: Box::new(standing),
        });
        world.apply(asked).await;
        let second = world.obtain("a.test").await.unwrap();
        assert_ne!(first.facts.id, second.facts.id);
        assert_eq!(world.serving("a.test").await.standing.replace, None);
        let old = world.certificate(first.facts.id).await.standing;
        assert_eq!(old.superseded_by, Some(second.facts.id));
    }
}

#[tokio::test]
async fn what_somebody_chose_again_is_left_alone_until_its_time_and_then_renewed() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let chosen = world.obtain("a.test").await.unwrap();
    let (due, end) = (world.due("a.test").await, chosen.facts.not_after);
    let renew_at = due.plus(end.since(due) / 2);
    let standing = CertificateStanding {
        renew_at: Some(renew_at),
        ..world.serving("a.test").await.standing
    };
    let choice = Batch::new().then(Operation::SetCertificateStanding {
        certificate: chosen.facts.id,
        standing: Box::new(standing),
    });
    world.apply(choice).await;
    while world.run_once().await.run_at <= due {}
    assert_eq!(world.placed(), 1);
    while world.placed() == 1 {
        world.run_once().await;
    }
    assert!(renew_at <= world.clock.now());
    assert!(world.clock.now() < end);
}
