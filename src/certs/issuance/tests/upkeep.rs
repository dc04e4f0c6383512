//! Rounds of upkeep.

use super::*;

#[tokio::test]
async fn a_round_of_upkeep_restores_missing_jobs_and_counts_certificates() {
    let world = World::new(quick()).await;
    let at_once = Settings {
        obtain: Obtain::AtOnce,
        ..quick()
    };
    for name in ["a.test", "b.test", "*.c.test"] {
        world.register(name).await;
    }
    world.obtain("a.test").await.unwrap();
    world
        .job_when("a.test", |job| job.leased_until.is_none())
        .await;
    world
        .apply(Batch::new().then(Operation::DeleteJob { key: key("a.test") }))
        .await;
    let upkeep = Upkeep {
        preflight: None,
        store: Arc::clone(&world.parts.store),
        accounts: world.parts.accounts.clone(),
        metrics: world.parts.metrics.clone(),
        clock: world.clock.clone(),
        settings: world.parts.settings.clone(),
    };
    let round = upkeep.round().await.unwrap();
    assert_eq!((round.domains, round.restored), (3, 1));
    // A name without a certificate waits for its visitor, unless it shall not.
    assert!(world.job("b.test").await.is_none());
    world.parts.settings.publish(at_once);
    assert_eq!(upkeep.round().await.unwrap().restored, 1);
    let due = world.due("a.test").await;
    assert_eq!(world.job("a.test").await.unwrap().run_at, due);
    world
        .job_when("b.test", |job| {
            job.leased_until.is_none() && job.run_at > world.clock.now()
        })
        .await;
    assert_eq!(world.certificates().await, 2);
    assert!(world.job("*.c.test").await.is_none());
    let again = upkeep.round().await.unwrap();
    assert_eq!(again.restored, 0);
}
