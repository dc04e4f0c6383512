//! Orders go by the budget: who gets one, who waits, and what is told.

use super::*;
use crate::ca::CaError;
use crate::certs::budget::survey::StopSurvey;
use crate::certs::budget::{Limit, Limits};
use crate::model::standing::{CertificateStanding, RenewalWindow, Replace};
use crate::telemetry::labels::BudgetFamily;
use script::refused;

const DAY: Duration = Duration::from_secs(86_400);

fn other() -> TenantId {
    TenantId::parse("globex").unwrap()
}

impl World {
    async fn limited(limits: Limits) -> Self {
        let world = Self::new(quick()).await;
        world.limit(limits);
        world
    }

    fn limit(&self, limits: Limits) {
        self.shares.publish(budget::Settings {
            limits: [(CaId::new("test"), limits)].into(),
            ..budget::Settings::default()
        });
    }

    /// Another process, after this one has ended.
    async fn restarted(self) -> Self {
        self.tasks.cancel();
        self.tasks.finish(LONG).await;
        let settings = *self.parts.settings.get();
        drop((self.parts, self.issuer));
        self.storing.cancel();
        self.storing.finish(LONG).await;
        Self::over(
            self.folder,
            self.clock,
            settings,
            (Authority::Scripted, None),
        )
        .await
    }

    /// Registers names of a tenant and asks for their certificates, as an import does.
    async fn import(&self, of: &TenantId, names: &[String]) {
        let mut batch = Batch::new().then(Operation::PutTenant {
            id: of.clone(),
            source: Source::Api,
        });
        for name in names {
            batch = batch
                .then(Operation::PutDomain {
                    pattern: pattern(name),
                    tenant: of.clone(),
                    source: Source::Api,
                    upstream: None,
                })
                .then(Operation::RequestJob {
                    key: key(name),
                    tenant: of.clone(),
                    priority: Priority::Background,
                    delay: Duration::ZERO,
                    urgency: Urgency::HeedBackoff,
                });
        }
        self.apply(batch).await;
        self.issuer.nudge();
    }

    /// How many of the names are certified.
    async fn certified(&self, names: &[String]) -> usize {
        let mut certified = 0;
        for name in names {
            certified += usize::from(self.domain(name).await.certificate.is_some());
        }
        certified
    }

    async fn certified_reach(&self, names: &[String], count: usize) {
        let look = async {
            while self.certified(names).await < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, look).await.unwrap();
    }
}

fn names(of: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n{n}.{of}{n}.test")).collect()
}

fn limited(words: &'static str, retry_after: Duration) -> CaError {
    let mut error = refused("rateLimited", Some(retry_after));
    if let CaError::Refused { document, .. } = &mut error {
        document.detail = words.to_owned();
    }
    error
}

const TOO_MANY_ORDERS: &str = "too many new orders (300) from this account in the last 3h0m0s";

#[tokio::test]
async fn a_tenants_import_leaves_room_for_anothers_visitor_and_import() {
    let mut limits = Limits::lets_encrypt();
    limits.orders = Some(Limit::new(50, HOUR * 3));
    let world = World::limited(limits).await;
    let many = names("bulk", 500);
    world.import(&tenant(), &many).await;
    // 80 % of 50, less the reserves of 5, 20 and 20 % and the room for other tenants: 18.
    world.certified_reach(&many, 18).await;
    let waiting = world.job_when(&many[499], |job| job.failures == 0).await;
    assert_eq!(waiting.priority, Priority::Background);

    // A visitor of another tenant is served at once.
    let visited = "shop.globex.test";
    let register = Batch::new()
        .then(Operation::PutTenant {
            id: other(),
            source: Source::Api,
        })
        .then(Operation::PutDomain {
            pattern: pattern(visited),
            tenant: other(),
            source: Source::Api,
            upstream: None,
        })
        .then(Operation::RequestJob {
            key: key(visited),
            tenant: other(),
            priority: Priority::Handshake,
            delay: Duration::ZERO,
            urgency: Urgency::HeedBackoff,
        });
    let mut subscription = world.parts.outcomes.subscribe(&pattern(visited));
    world.apply(register).await;
    world.issuer.nudge();
    let told = tokio::time::timeout(LONG, subscription.next())
        .await
        .unwrap();
    assert!(matches!(told, Outcome::Issued(_)), "{told:?}");

    // And its import gets its share although hundreds of names of the first tenant came before.
    let few = names("few", 2);
    world.import(&other(), &few).await;
    world.certified_reach(&few, 2).await;
    assert_eq!(world.certified(&many).await, 18);
    assert_eq!(world.placed(), 21);
}

#[tokio::test]
async fn an_exhausted_budget_tells_what_and_until_when_and_counts_no_failure() {
    let mut limits = Limits::lets_encrypt();
    limits.domain = Some(Limit::new(2, DAY * 2));
    let world = World::limited(limits).await;
    for name in ["a.shared.test", "b.shared.test"] {
        world.register(name).await;
    }
    // 80 % of 2 is 1.
    world.obtain("a.shared.test").await.unwrap();
    let problem = world.obtain("b.shared.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::RateLimitedDomain);
    assert!(problem.detail.contains("shared.test"), "{problem:?}");
    assert!(problem.evidence[0].contains("domain:letsencrypt:shared.test"));
    assert!(problem.evidence[1].contains("2 in 2d"), "{problem:?}");
    let job = world.job("b.shared.test").await.unwrap();
    assert_eq!((job.failures, world.placed()), (0, 1));
    assert_eq!(problem.next_retry_at, Some(job.run_at));
    let domain = world.domain("b.shared.test").await;
    assert_eq!(domain.problem.unwrap().next_retry_at, Some(job.run_at));

    world.clock.advance(job.run_at.since(world.clock.now()));
    world
        .job_when("b.shared.test", |job| {
            job.problem.is_none() && job.leased_until.is_none()
        })
        .await;
    assert_eq!(world.domain("b.shared.test").await.problem, None);
}

#[tokio::test]
async fn who_cannot_wait_for_a_budget_gets_the_next_authority_and_bulk_work_waits() {
    let world = World::with(quick(), Authority::Two, None).await;
    let mut limits = Limits::lets_encrypt();
    // 80 % of 2 is 1.
    limits.domain = Some(Limit::new(2, DAY * 2));
    world.limit(limits);
    for name in ["a.shared.test", "b.shared.test"] {
        world.register(name).await;
    }
    let by = |credential: Arc<Credential>| credential.facts.ca.to_string();
    assert_eq!(by(world.obtain("a.shared.test").await.unwrap()), "test");
    // A visitor does not wait for days.
    assert_eq!(by(world.obtain("b.shared.test").await.unwrap()), "second");
    let bulk = ["c.shared.test".to_owned()];
    world.import(&tenant(), &bulk).await;
    let held = world
        .job_when("c.shared.test", |job| job.problem.is_some())
        .await;
    let problem = held.problem.unwrap();
    assert_eq!(problem.code, ProblemCode::RateLimitedDomain);
    assert_eq!((world.placed(), held.failures), (1, 0));
    assert_eq!(world.used("domain:letsencrypt:shared.test").await, 1);
}

#[tokio::test]
async fn a_visitor_of_an_authority_that_says_when_to_come_back_gets_the_next_one_and_bulk_work_waits()
 {
    let world = World::with(quick(), Authority::Two, None).await;
    world.register("a.test").await;
    world.script.will(Does::Busy);
    let credential = world.obtain("a.test").await.unwrap();
    assert_eq!(credential.facts.ca.as_str(), "second");
    world.script.will(Does::Busy);
    world.import(&tenant(), &["b.test".to_owned()]).await;
    let held = world.job_when("b.test", |job| job.problem.is_some()).await;
    assert_eq!(held.problem.unwrap().code, ProblemCode::CaOutage);
    assert_eq!((world.placed(), held.failures), (2, 0));
}

#[tokio::test]
async fn where_an_account_cannot_be_opened_the_next_authority_certifies_and_the_last_one_says_why()
{
    let ca = || CaId::new("test");
    for error in [
        refused("serverInternal", Some(HOUR)),
        limited("too many registrations", HOUR),
        CaError::BindingRequired { ca: ca() },
        CaError::AccountUnknown { ca: ca() },
        CaError::TermsNotAgreed { ca: ca() },
    ] {
        let world = World::with(quick(), Authority::Two, None).await;
        world.register("a.test").await;
        world.script.will_not_open(error);
        let credential = world.obtain("a.test").await.unwrap();
        assert_eq!(credential.facts.ca.as_str(), "second");
    }
    let world = World::new(quick()).await;
    world.register("a.test").await;
    world
        .script
        .will_not_open(CaError::BindingRequired { ca: ca() });
    let problem = world.obtain("a.test").await.unwrap_err();
    assert!(problem.detail.contains("set eab"), "{problem:?}");
}

#[tokio::test]
async fn where_no_budget_gives_the_one_that_gives_first_is_waited_for() {
    let world = World::with(quick(), Authority::Two, None).await;
    let limits = |days| Limits {
        domain: Some(Limit::new(1, DAY * days)),
        ..Limits::lets_encrypt()
    };
    let second = Limits {
        operator: "second".into(),
        ..limits(1)
    };
    let both = [
        (CaId::new("test"), limits(4)),
        (CaId::new("second"), second),
    ];
    world.shares.publish(budget::Settings {
        limits: both.into(),
        ..budget::Settings::default()
    });
    for name in ["a.shared.test", "b.shared.test", "c.shared.test"] {
        world.register(name).await;
    }
    world.obtain("a.shared.test").await.unwrap();
    world.obtain("b.shared.test").await.unwrap();
    let problem = world.obtain("c.shared.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::RateLimitedDomain);
    assert!(problem.detail.contains("second"), "{problem:?}");
    let job = world.job("c.shared.test").await.unwrap();
    assert!(job.run_at.since(world.clock.now()) < DAY * 2);
    assert_eq!(job.failures, 0);
}

#[tokio::test]
async fn what_an_authority_stops_stays_stopped_over_a_restart_and_renewals_go_on() {
    let world = World::limited(Limits::lets_encrypt()).await;
    for name in ["a.test", "b.test", "c.test"] {
        world.register(name).await;
    }
    // Renewal is due after 3.5 of 7 days: a first certificate's is not spread.
    let mut settings = *world.parts.settings.get();
    settings.renewal.first_spread = 0.0;
    world.parts.settings.publish(settings);
    world.obtain("a.test").await.unwrap();
    world.clock.advance(DAY * 3);
    world.script.will_refuse(limited(TOO_MANY_ORDERS, DAY));
    let before = world.domain("a.test").await.certificate;
    let refused = world.obtain("b.test").await.unwrap_err();
    assert_eq!(refused.code, ProblemCode::RateLimitedAccount);
    let job = world.job("b.test").await.unwrap();
    assert_eq!(job.failures, 0);
    assert!(job.run_at.since(world.clock.now()) >= DAY);

    let world = world.restarted().await;
    world.limit(Limits::lets_encrypt());
    let denied = world.obtain("c.test").await.unwrap_err();
    assert_eq!(denied.code, ProblemCode::RateLimitedAccount);
    assert_eq!(world.placed(), 0, "nobody was asked");
    // A renewal that says what it replaces is charged to nothing.
    world.clock.advance(HOUR * 18);
    world.issuer.nudge();
    let renewed = async {
        while world.domain("a.test").await.certificate == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, renewed).await.unwrap();
    assert_eq!(world.script.replaced.lock().unwrap().len(), 1);

    // A visitor gets nothing before the CA takes orders again.
    assert!(world.obtain("c.test").await.is_err());
    world.clock.advance(HOUR * 6);
    world.obtain("c.test").await.unwrap();
}

#[tokio::test]
async fn what_an_authority_stops_is_left_alone_and_told_though_no_limit_of_it_is_known() {
    let world = World::limited(Limits::none("test")).await;
    for name in ["a.test", "b.test"] {
        world.register(name).await;
    }
    world.script.will_refuse(limited(TOO_MANY_ORDERS, HOUR));
    world.obtain("a.test").await.unwrap_err();
    let denied = world.obtain("b.test").await.unwrap_err();
    assert_eq!(denied.code, ProblemCode::RateLimitedAccount);
    assert_eq!(world.orders_asked_for(), 1);
    let stop = StopSurvey {
        family: BudgetFamily::Orders,
        subject: String::new(),
        frozen_for: HOUR,
    };
    let surveys = world.parts.budget.survey().await.unwrap();
    assert_eq!(surveys[0].stops, [stop]);
    world.clock.advance(HOUR);
    world.obtain("b.test").await.unwrap();
}

#[tokio::test]
async fn an_authority_that_limits_us_without_saying_for_how_long_is_left_alone_for_a_minute() {
    let world = World::limited(Limits::none("test")).await;
    for name in ["a.test", "b.test"] {
        world.register(name).await;
    }
    world.script.will_refuse(refused("rateLimited", None));
    world.obtain("a.test").await.unwrap_err();
    let job = world.job("a.test").await.unwrap();
    let wait = job.run_at.since(world.clock.now());
    assert!(wait >= HOUR / 6 && job.failures == 0, "{job:?}");
    let denied = world.obtain("b.test").await.unwrap_err();
    assert_eq!(denied.code, ProblemCode::RateLimitedAccount);
    assert_eq!(world.orders_asked_for(), 1);
    world.clock.advance(HOUR / 60);
    world.obtain("b.test").await.unwrap();
}

#[tokio::test]
async fn what_is_replaced_outside_the_suggested_window_is_charged_as_a_renewal_and_within_it_to_nothing()
 {
    let set = "exact_set:letsencrypt:a.test";
    for (days, charged) in [((0, 1), 0), ((6, 7), 1)] {
        let world = World::limited(Limits::lets_encrypt()).await;
        world.register("a.test").await;
        world.obtain("a.test").await.unwrap();
        let (used, ordered) = (world.used(set).await, world.used("orders:test:").await);
        let first = world.serving("a.test").await;
        let now = world.clock.now();
        let standing = CertificateStanding {
            replace: Some(Replace::Asked),
            renewal_info: Some(RenewalWindow {
                start: now.plus(DAY * days.0),
                end: now.plus(DAY * days.1),
                renew_at: now.plus(DAY * days.0),
                explanation: None,
            }),
            ..first.standing
        };
        let asked = Batch::new().then(Operation::SetCertificateStanding {
            certificate: first.facts.id,
            standing: Box::new(standing),
        });
        world.apply(asked).await;
        world.obtain("a.test").await.unwrap();
        let replaced = world.script.replaced.lock().unwrap().clone();
        assert_eq!(replaced, [None, Some(first.leaf)]);
        assert_eq!(world.used(set).await, used + charged);
        // Neither way is it charged to the account, or to the registered domain.
        assert_eq!(world.used("orders:test:").await, ordered);
    }
}

#[tokio::test]
async fn a_busy_authority_is_not_called_at_all_not_even_for_renewals() {
    let world = World::limited(Limits::none("test")).await;
    for name in ["a.test", "b.test"] {
        world.register(name).await;
    }
    world.script.will(Does::Busy);
    world.obtain("a.test").await.unwrap_err();
    assert_eq!(world.placed(), 1);
    let denied = world.obtain("b.test").await.unwrap_err();
    assert_eq!(denied.code, ProblemCode::CaOutage);
    assert_eq!((world.placed(), world.resumed()), (1, 0));
    assert_eq!(world.job("b.test").await.unwrap().failures, 0);
    world.clock.advance(HOUR);
    world.obtain("b.test").await.unwrap();
}

#[tokio::test]
async fn failed_validations_are_charged_to_the_name_and_a_success_forgets_those_in_a_row() {
    let mut limits = Limits::lets_encrypt();
    limits.failures = Some(Limit::new(3, HOUR));
    let world = World::limited(limits).await;
    world.register("a.test").await;
    // 80 % of 3 is 2.
    for _ in 0..2 {
        world.script.will(Does::Invalidates);
        let problem = world.obtain("a.test").await.unwrap_err();
        assert_eq!(problem.code, ProblemCode::HttpUnreachable);
    }
    let stopped = world.obtain("a.test").await.unwrap_err();
    assert_eq!(stopped.code, ProblemCode::RateLimitedFailures);
    assert_eq!(world.placed(), 2);
    assert_eq!(world.used("consecutive_failures:test:a.test").await, 2);
    // No certificate came of them: what is charged with one was given back.
    assert_eq!(world.used("exact_set:letsencrypt:a.test").await, 0);
    assert_eq!(world.used("domain:letsencrypt:a.test").await, 0);

    world.clock.advance(HOUR);
    world.obtain("a.test").await.unwrap();
    assert_eq!(world.used("consecutive_failures:test:a.test").await, 0);
    assert_eq!(world.used("exact_set:letsencrypt:a.test").await, 1);
}

#[tokio::test]
async fn a_certificate_that_is_not_what_was_ordered_is_charged_all_the_same() {
    let world = World::limited(Limits::lets_encrypt()).await;
    world.register("a.test").await;
    world.script.will(Does::OtherName);
    let problem = world.obtain("a.test").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::CaRejected);
    for bucket in ["domain:letsencrypt:a.test", "exact_set:letsencrypt:a.test"] {
        assert_eq!(world.used(bucket).await, 1, "{bucket}");
    }
}

impl World {
    /// How often the CA was asked for an order, whatever it said.
    fn orders_asked_for(&self) -> usize {
        self.script.replaced.lock().unwrap().len()
    }

    /// How many units of a bucket are in use, by the refill of Let's Encrypt's limits at 80 %.
    async fn used(&self, bucket: &str) -> u32 {
        let by = Deadline::after(LONG);
        let page = PageRequest::first();
        let page = self.parts.store.buckets(by, bucket, &page).await.unwrap();
        let book = self.parts.budget.book(&CaId::new("test")).unwrap();
        let name = budget::BucketName::parse(bucket).unwrap();
        let limit = book.limit(name.family).unwrap();
        page.items.first().map_or(0, |record| {
            limit.amount() - record.left(limit.refill(), limit.amount())
        })
    }
}
