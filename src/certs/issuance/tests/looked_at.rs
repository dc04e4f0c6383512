//! What a look at a name keeps back, and what it brings back.

use tokio::net::TcpListener;

use super::*;
use crate::certs::preflight::fixture::answer;

const NAME: &str = "shop.acme.com";
const HERE: &str = "127.0.0.1";
/// Somebody else answers there.
const ELSEWHERE: &str = "127.0.0.2";

async fn start() -> (Ground, World) {
    let clock = Clock::manual(Clock::system().now()).listening();
    let ground = Ground::start(clock.clone()).await;
    let other = TcpListener::bind((ELSEWHERE, ground.port)).await.unwrap();
    answer(other, Challenges::default(), &ground.tasks);
    let world = World::looking(&ground, clock).await;
    world.register(NAME).await;
    (ground, world)
}

#[tokio::test]
async fn after_a_failure_a_name_is_looked_at_anew_though_a_visitor_waits() {
    let (ground, world) = start().await;
    ground.leads(NAME, &[HERE]);
    world.script.will(Does::Invalidates);
    world.obtain(NAME).await.unwrap_err();
    // Looked at after the failure, it led here. It does not any more.
    let (name, looked) = (DnsName::parse(NAME).unwrap(), &ground.preflight);
    let diagnosed = async {
        while looked.remembered(&name).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, diagnosed).await.unwrap();
    ground.leads(NAME, &[ELSEWHERE]);
    let problem = world.obtain(NAME).await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::WrongA);
    assert_eq!(world.placed(), 1);
    ground.tasks.cancel();
}

#[tokio::test]
async fn a_renewal_near_the_end_of_what_serves_is_kept_back_by_nothing_that_is_seen_from_here() {
    let (ground, world) = start().await;
    ground.leads(NAME, &[HERE]);
    let first = world.obtain(NAME).await.unwrap();
    ground.leads(NAME, &[ELSEWHERE]);
    world.until_next_run(NAME).await;
    let job = world
        .job_when(NAME, |job| job.failures == 1 && job.leased_until.is_none())
        .await;
    assert_eq!(job.problem.unwrap().code, ProblemCode::WrongA);
    assert_eq!(world.placed(), 1);

    let (begin, end) = (first.facts.not_before, first.facts.not_after);
    let near = end.minus(end.since(begin) / 30);
    world.clock.advance(near.since(world.clock.now()));
    world
        .job_when(NAME, |job| job.failures == 0 && job.leased_until.is_none())
        .await;
    assert_eq!(world.placed(), 2);
    assert_ne!(world.serving(NAME).await.facts.id, first.facts.id);
    ground.tasks.cancel();
}

impl World {
    /// A certificate, and then a domain that has moved and whose certificate has expired.
    async fn move_and_expire(&self, ground: &Ground) {
        ground.leads(NAME, &[HERE]);
        let credential = self.obtain(NAME).await.unwrap();
        ground.leads(NAME, &[ELSEWHERE]);
        let moved = Batch::new().then(Operation::SetDomainState {
            pattern: pattern(NAME),
            state: DomainState::Moved,
            problem: None,
        });
        self.apply(moved).await;
        let end = credential.facts.not_after;
        self.clock.advance(end.since(self.clock.now()) + HOUR);
    }

    async fn visit(&self) -> Outcome {
        let mut outcomes = self.parts.outcomes.subscribe(&pattern(NAME));
        self.request(NAME, Urgency::HeedBackoff).await;
        let told = tokio::time::timeout(LONG, outcomes.next());
        told.await.unwrap()
    }
}

#[tokio::test]
async fn a_visitor_takes_a_moved_domain_back_where_it_leads_here_again() {
    let (ground, world) = start().await;
    world.move_and_expire(&ground).await;
    for _ in 0..2 {
        assert!(matches!(world.visit().await, Outcome::Failed(_)));
        assert_eq!(world.domain(NAME).await.state, DomainState::Moved);
        // Those who come within a minute are answered by what was found for the first.
        ground.leads(NAME, &[HERE]);
    }
    assert_eq!(world.placed(), 1);
    ground.forget(NAME);
    assert!(matches!(world.visit().await, Outcome::Issued(_)));
    assert_eq!(world.domain(NAME).await.state, DomainState::Active);
    ground.tasks.cancel();
}
