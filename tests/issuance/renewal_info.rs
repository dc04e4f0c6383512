//! Renewal information (RFC 9773) as the real authority tells it, moved by its operator.

use std::time::Duration;

use vestibule::base::clock::Timestamp;
use vestibule::certs::Settings;
use vestibule::model::TenantScope;
use vestibule::model::certificate::CertificateId;
use vestibule::model::standing::CertificateStanding;
use vestibule::store::batch::{Operation, Urgency};
use vestibule::store::job::{JobKey, Priority};
use vestibule::store::record::CertificateRecord;
use vestibule::store::{Batch, Deadline};

use super::pebble::{Pebble, Place};
use super::{Engine, PATIENCE, acme, pattern, short, tenant};

const NAME: &str = "told.example.com";
const DAY: Duration = Duration::from_secs(86_400);

/// Renewal by lifetime comes at exactly half of it.
fn at_half() -> Settings {
    let mut settings = short();
    (settings.renewal.spread, settings.renewal.first_spread) = (0.0, 0.0);
    settings
}

impl Engine {
    async fn certificate(&self, id: CertificateId) -> CertificateRecord {
        let (by, scope) = (Deadline::after(PATIENCE), TenantScope::operator());
        let found = self.store.certificate(by, &scope, id).await;
        found.unwrap().unwrap()
    }

    /// Makes the question to the authority due now instead of in some hours.
    async fn ask_now(&self, id: CertificateId) {
        let standing = CertificateStanding {
            ask_at: Some(self.clock.now()),
            ..self.certificate(id).await.standing
        };
        let ask = Batch::new()
            .then(Operation::SetCertificateStanding {
                certificate: id,
                standing: Box::new(standing),
            })
            .then(Operation::RequestJob {
                key: JobKey::Certificate(pattern(NAME)),
                tenant: tenant(),
                priority: Priority::Renewal,
                delay: Duration::ZERO,
                urgency: Urgency::HeedBackoff,
            });
        self.apply(ask).await;
        self.issuer.nudge();
    }

    /// What becomes of a certificate, once it has become so.
    async fn until(
        &self,
        id: CertificateId,
        so: impl Fn(&CertificateStanding) -> bool,
    ) -> CertificateRecord {
        let mut changes = self.store.wake();
        let seen = async {
            loop {
                let record = self.certificate(id).await;
                if so(&record.standing) {
                    return record;
                }
                let poll = Duration::from_millis(100);
                tokio::time::timeout(poll, changes.changed()).await.ok();
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap()
    }
}

fn around(at: Timestamp) -> (Timestamp, Timestamp) {
    (at.minus(DAY), at.plus(DAY))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_moved_into_the_past_renews_at_once_and_says_what_it_replaces() {
    let place = Place::claim();
    let lifetime = Duration::from_secs(200);
    let pebble = Pebble::start_issuing(&place, lifetime);
    let engine = Engine::start(&place, acme(&pebble), at_half()).await;
    engine.run();
    engine.register(NAME).await;
    let first = engine.obtain(NAME).await.unwrap().facts.clone();
    let record = engine.certificate(first.id).await;
    let now = engine.clock.now();
    pebble.tell_window(&record.leaf, around(now.minus(DAY * 30)));
    engine.ask_now(first.id).await;
    let old = engine
        .until(first.id, |standing| standing.superseded_by.is_some())
        .await;
    let told = old.standing.renewal_info.unwrap();
    assert_eq!(told.start.as_seconds(), now.minus(DAY * 31).as_seconds());
    let by_lifetime = first.not_before.plus(lifetime / 2);
    assert!(engine.clock.now() < by_lifetime, "long before its time");
    assert_eq!((pebble.orders(), pebble.replaced()), (2, 1));

    let next = old.standing.superseded_by.unwrap();
    assert!(old.standing.superseded_at.is_some());
    assert_eq!(engine.domain(NAME).await.certificate, Some(next));
    // A window that is over says nothing about the new one: it stays.
    let next = engine.certificate(next).await;
    assert!(next.standing.superseded_by.is_none() && next.standing.renewal_info.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_in_the_far_future_does_not_put_renewal_by_lifetime_off() {
    let place = Place::claim();
    let pebble = Pebble::start_issuing(&place, Duration::from_secs(30));
    let engine = Engine::start(&place, acme(&pebble), at_half()).await;
    engine.run();
    engine.register(NAME).await;
    let first = engine.obtain(NAME).await.unwrap().facts.clone();
    let record = engine.certificate(first.id).await;
    let now = engine.clock.now();
    pebble.tell_window(&record.leaf, around(now.plus(DAY * 3650)));
    engine.ask_now(first.id).await;
    // It was asked, and told of a window that is of no use.
    let asked = engine
        .until(first.id, |standing| {
            standing.ask_at.is_some_and(|at| at > now.plus(DAY / 8))
        })
        .await;
    assert_eq!(asked.standing.renewal_info, None);
    let old = engine
        .until(first.id, |standing| standing.superseded_by.is_some())
        .await;
    let renewed_at = old.standing.superseded_at.unwrap();
    let lifetime = first.not_after.since(first.not_before);
    let half = first.not_before.plus(lifetime / 2);
    assert!(
        half <= renewed_at && renewed_at < first.not_after,
        "{renewed_at}"
    );
    assert_eq!(pebble.replaced(), 1);
}
