//! An authority that hangs takes its share of the places, and no more.

use super::*;

/// Names of the authority that hangs: more than there are places.
const MANY: usize = 40;

impl World {
    async fn request_as(&self, name: &str, priority: Priority) {
        let request = Batch::new().then(Operation::RequestJob {
            key: key(name),
            tenant: tenant(),
            priority,
            delay: Duration::ZERO,
            urgency: Urgency::HeedBackoff,
        });
        self.apply(request).await;
        self.issuer.nudge();
    }

    async fn when(&self, is: impl Fn() -> bool) {
        let look = async {
            while !is() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, look).await.unwrap();
    }
}

#[tokio::test]
async fn names_of_another_authority_are_certified_while_one_hangs() {
    let world = World::with(quick(), Authority::Two, None).await;
    for number in 0..MANY {
        world.script.will(Does::Hangs);
        let name = format!("n{number}.test");
        world.register(&name).await;
        world.request(&name, Urgency::HeedBackoff).await;
    }
    // All but a quarter of the places.
    world.when(|| world.placed() == 12).await;
    // Only the second authority certifies wildcards, and a visitor waits for this one.
    world.register("*.b.test").await;
    let credential = world.obtain("*.b.test").await.unwrap();
    assert_eq!(credential.facts.ca, CaId::new("second"));
    assert_eq!(world.placed(), 12);
    // Whoever was put aside is nobody's failure.
    for number in 0..MANY {
        let name = format!("n{number}.test");
        assert_eq!(world.job(&name).await.unwrap().failures, 0);
        assert_eq!(world.domain(&name).await.problem, None);
    }
}

#[tokio::test]
async fn a_visitors_name_is_certified_while_renewals_hang() {
    let world = World::new(quick()).await;
    for number in 0..MANY {
        world.script.will(Does::Hangs);
        let name = format!("n{number}.test");
        world.register(&name).await;
        world.request_as(&name, Priority::Background).await;
    }
    world.when(|| world.placed() == 14).await;
    world.script.forget();
    world.register("a.test").await;
    world.obtain("a.test").await.unwrap();
    assert_eq!(world.placed(), 15);
}

#[tokio::test]
async fn a_name_that_was_put_aside_is_certified_once_its_authority_answers() {
    let settings = Settings {
        job_deadline: Duration::from_secs(3),
        ..quick()
    };
    let world = World::with(settings, Authority::Two, None).await;
    for number in 0..12 {
        world.script.will(Does::Hangs);
        let name = format!("n{number}.test");
        world.register(&name).await;
        world.request(&name, Urgency::HeedBackoff).await;
    }
    world.when(|| world.placed() == 12).await;
    world.register("late.test").await;
    let mut subscription = world.parts.outcomes.subscribe(&pattern("late.test"));
    world.request("late.test", Urgency::HeedBackoff).await;
    // It comes back, by the store's clock, as often as it is put aside.
    let back = async {
        loop {
            world.until_next_run("late.test").await;
            world.issuer.nudge();
        }
    };
    let told = tokio::select! {
        told = tokio::time::timeout(LONG, subscription.next()) => told.unwrap(),
        () = back => panic!("it comes back for ever"),
    };
    assert!(matches!(told, Outcome::Issued(_)), "{told:?}");
}
