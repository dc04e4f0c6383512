//! While the authority is away nobody is bothered, names wait longer and longer, and all come once it is back.

use super::*;
use crate::certs::authorities::breaker::Standing;

const DAY: Duration = Duration::from_secs(86_400);

impl World {
    /// With `a.test` certified, an authority that is away, and a hook that answers its renewal with `status`.
    async fn abandoned(status: u16, tasks: &Tasks) -> Self {
        let hook = hook(Arc::new(AtomicU16::new(status)), tasks).await;
        let world = Self::with(quick(), Authority::Scripted, Some(hook)).await;
        world.register_from("a.test", Source::Hook).await;
        world.obtain("a.test").await.unwrap();
        world.register("first.test").await;
        world.script.goes();
        let problem = world.obtain("first.test").await.unwrap_err();
        assert_eq!(problem.code, ProblemCode::CaOutage);
        let authorities = world.parts.accounts.authorities();
        assert_eq!(authorities.standing(&CaId::new("test")), Standing::Open);
        world
    }

    /// The job once it has run and waits again.
    async fn held(&self, name: &str) -> JobRecord {
        let now = self.clock.now();
        self.job_when(name, |job| {
            job.leased_until.is_none() && job.run_at > now && job.problem.is_some()
        })
        .await
    }
}

#[tokio::test]
async fn while_the_authority_is_away_nobody_is_asked_and_names_wait_longer_and_longer() {
    let tasks = Tasks::new();
    let world = World::abandoned(403, &tasks).await;
    world.clock.advance(DAY * 4);
    let mut waits = Vec::new();
    let began = world.held("a.test").await.problem.unwrap().first_seen;
    for _ in 0..5 {
        let job = world.held("a.test").await;
        let problem = job.problem.unwrap();
        assert_eq!((problem.code, job.failures), (ProblemCode::CaOutage, 0));
        assert_eq!(problem.first_seen, began);
        let wait = job.run_at.since(world.clock.now());
        waits.push(wait.as_secs() / 60);
        world.clock.advance(wait);
    }
    assert!(waits[0] <= 1 && waits[4] >= 8, "{waits:?}");

    // A visitor brings it forward once, and then hears what it waits for.
    world.register("b.test").await;
    world.obtain("b.test").await.unwrap_err();
    let job = world.held("b.test").await;
    world.clock.advance(Duration::from_secs(1));
    world.request("b.test", Urgency::HeedBackoff).await;
    assert_eq!(world.job("b.test").await.unwrap().run_at, job.run_at);
    assert_eq!(world.placed(), 1);
    tasks.cancel();
}

#[tokio::test]
async fn what_waits_for_an_authority_is_brought_forward_once_it_is_back() {
    let tasks = Tasks::new();
    let world = World::abandoned(200, &tasks).await;
    world.register("b.test").await;
    world.obtain("b.test").await.unwrap_err();
    world.clock.advance(DAY * 4);
    world.held("a.test").await;
    let before = world.domain("a.test").await.certificate;
    let mut waiting =
        ["first.test", "b.test"].map(|name| world.parts.outcomes.subscribe(&pattern(name)));

    world.script.comes_back();
    let authorities = world.parts.accounts.authorities().clone();
    world.tasks.spawn("authorities", authorities.run());
    for told in &mut waiting {
        let issued = async { while !matches!(told.next().await, Outcome::Issued(_)) {} };
        tokio::time::timeout(LONG, issued).await.unwrap();
    }
    // A renewal comes within seconds of the rest.
    let soon = world.clock.now().plus(Duration::from_secs(1));
    world
        .job_when("a.test", |job| job.run_at <= soon || job.problem.is_none())
        .await;
    world.clock.advance(Duration::from_secs(1));
    let renewed = async {
        while world.domain("a.test").await.certificate == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, renewed).await.unwrap();
    tasks.cancel();
}
