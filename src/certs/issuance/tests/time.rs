//! A machine's clock that jumps by days: nothing is renewed for that, and nothing is renewed too late.

use super::*;
use crate::base::clock::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);
const NAMES: [&str; 3] = ["a.test", "b.test", "c.test"];

impl World {
    fn upkeep(&self) -> Upkeep {
        Upkeep {
            preflight: None,
            store: Arc::clone(&self.parts.store),
            accounts: self.parts.accounts.clone(),
            metrics: Metrics::default(),
            clock: self.clock.corrected(),
            settings: self.parts.settings.clone(),
        }
    }

    /// Three names with certificates of six days, which the authority says were issued just now.
    async fn with_certificates() -> (Self, Timestamp) {
        let world = Self::new(quick()).await;
        for name in NAMES {
            world.register(name).await;
            world.obtain(name).await.unwrap();
            world.job_when(name, |job| job.leased_until.is_none()).await;
        }
        let now = world.clock.now();
        world.clock.hear(now);
        (world, now)
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_renews_nothing_and_puts_nothing_off() {
    let (world, start) = World::with_certificates().await;
    let ahead = start.plus(DAY * 5);
    world.clock.set(ahead);
    world.issuer.nudge();
    // By the machine's clock every certificate is due. Each is looked at, found good, and left alone.
    for name in NAMES {
        world
            .job_when(name, |job| job.leased_until.is_none() && job.run_at > ahead)
            .await;
    }
    assert_eq!((world.placed(), world.certificates().await), (3, 3));
    assert_eq!(world.upkeep().round().await.unwrap().restored, 0);

    // Set right again, the machine would come to these jobs five days late.
    world.clock.set(start);
    assert_eq!(world.upkeep().round().await.unwrap().restored, 3);
    for name in NAMES {
        let job = world.job(name).await.unwrap();
        assert!(job.run_at < start.plus(DAY * 4), "{name}: {}", job.run_at);
    }
    assert_eq!(world.placed(), 3);
}

#[tokio::test]
async fn a_clock_that_falls_behind_stops_no_renewal() {
    let (world, start) = World::with_certificates().await;
    let behind = start.minus(DAY * 40);
    world.clock.set(behind);
    assert_eq!(world.upkeep().round().await.unwrap().restored, 3);
    assert_eq!(world.placed(), 3, "none is due");

    // Four days later half of the six are over, and the machine still lives in another month.
    world.clock.advance(DAY * 4);
    world.clock.hear(start.plus(DAY * 4));
    world.issuer.nudge();
    for name in NAMES {
        let renewed =
            |job: &JobRecord| job.leased_until.is_none() && job.run_at > behind.plus(DAY * 5);
        world.job_when(name, renewed).await;
    }
    assert_eq!((world.placed(), world.certificates().await), (6, 6));
}
