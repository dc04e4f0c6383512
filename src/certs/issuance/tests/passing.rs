//! What passes is waited for; what does not is told, and waits as long as its cause wants.

use super::*;
use crate::ca::CaError;
use crate::ca::error::{Document, Step};
use script::refused;

const DAY: Duration = Duration::from_secs(86_400);

fn status(status: u16, retry_after: Option<Duration>) -> CaError {
    CaError::Status {
        ca: CaId::new("test"),
        step: Step::NewOrder,
        status,
        excerpt: "<html>".to_owned(),
        retry_after,
    }
}

#[tokio::test]
async fn trouble_that_passes_costs_a_first_visitor_no_back_off() {
    let now = Some(Duration::ZERO);
    for error in [
        status(502, None),
        status(503, now),
        status(429, now),
        refused("rateLimited", now),
        refused("serverInternal", None),
    ] {
        let world = World::new(quick()).await;
        world.register("a.test").await;
        world.script.will_refuse(error);
        world.obtain("a.test").await.unwrap();
        assert_eq!(world.placed(), 1);
    }
}

#[tokio::test]
async fn an_order_whose_authority_fails_in_passing_is_gone_on_with() {
    let world = World::new(quick()).await;
    world.script.will(Does::Fails);
    world.register("a.test").await;
    world.obtain("a.test").await.unwrap();
    assert_eq!((world.placed(), world.resumed()), (1, 1));
}

#[tokio::test]
async fn limits_that_say_for_how_long_are_kept_to_and_count_against_nobody() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    world
        .script
        .will_refuse(refused("rateLimited", Some(HOUR * 3)));
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::RateLimitedAccount);
    let job = world.job("a.test").await.unwrap();
    assert_eq!((job.failures, world.placed()), (0, 0));
    let wait = job.run_at.since(world.clock.now());
    assert!(wait >= HOUR * 3 && wait <= HOUR * 4, "{wait:?}");
    assert_eq!(problem.next_retry_at, Some(job.run_at));
    // No visitor brings it forward.
    world.request("a.test", Urgency::HeedBackoff).await;
    assert_eq!(world.job("a.test").await.unwrap().run_at, job.run_at);
}

#[tokio::test]
async fn a_paused_name_waits_a_day_and_keeps_the_link_that_unpauses_it_until_somebody_wakes_it() {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let link = "https://portal.ca.test/sfe/v1/unpause?jwt=ey.J0.x-Y_z";
    world.script.will_refuse(CaError::Refused {
        ca: CaId::new("test"),
        step: Step::NewOrder,
        document: Box::new(Document {
            kind: "rateLimited".to_owned(),
            detail: format!("Your account is temporarily paused. Please visit {link}."),
            ..Document::default()
        }),
        retry_after: None,
    });
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::Paused);
    assert!(problem.fix.as_ref().unwrap().contains(link), "{problem:?}");
    let job = world.job("a.test").await.unwrap();
    let wait = job.run_at.since(world.clock.now());
    assert!(wait >= DAY && wait <= DAY * 2, "{wait:?}");

    let mut subscription = world.parts.outcomes.subscribe(&pattern("a.test"));
    world
        .issuer
        .wake(&tenant(), &pattern("a.test"))
        .await
        .unwrap();
    let told = tokio::time::timeout(LONG, subscription.next()).await;
    assert!(matches!(told.unwrap(), Outcome::Issued(_)));
}
