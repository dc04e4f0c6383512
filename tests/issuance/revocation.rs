//! Revoking what another account ordered: by the certificate's own key.

use std::sync::Arc;
use std::time::Duration;

use vestibule::ca::{self, Acceptance, CaSettings, Kind, RevokedLeaf};
use vestibule::certs::accounts::{self, Accounts};
use vestibule::certs::revocation::work::{Parts, Revoker};
use vestibule::model::TenantScope;
use vestibule::model::certificate::CaId;
use vestibule::model::revocation::{Revocation, RevocationOrder, RevocationReason};
use vestibule::model::standing::CertificateStanding;
use vestibule::store::batch::{Operation, Urgency};
use vestibule::store::job::{JobKey, Priority};
use vestibule::store::{Batch, Deadline};
use vestibule::telemetry::labels::RevocationOutcome;
use vestibule::telemetry::metrics::Metrics;

use super::pebble::{Pebble, Place};
use super::{Engine, PATIENCE, acme, pattern, tenant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_account_ordered_is_revoked_by_its_own_key() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let engine = Engine::with_pebble(&place, &pebble).await;
    engine.run();
    engine.register("lost.example.com").await;
    let credential = engine.obtain("lost.example.com").await.unwrap();
    let id = credential.facts.id;

    // Another account of the same authority, as after the first was lost.
    let Kind::Acme(mut settings) = acme(&pebble) else {
        panic!("this is ACME");
    };
    settings.directory.push_str("?another");
    let authorities = ca::Settings {
        authorities: vec![CaSettings {
            id: CaId::new("test"),
            kind: Kind::Acme(settings),
        }],
    };
    let others = Accounts::new(accounts::Parts {
        authorities: ca::authorities(&authorities, &engine.tasks, &engine.clock).unwrap(),
        store: Arc::clone(&engine.store),
        vault: engine.vault.clone(),
        clock: engine.clock.clone(),
        tasks: engine.tasks.clone(),
    });
    let leaf = RevokedLeaf {
        der: &credential.certified.cert[0],
        reason: RevocationReason::KeyCompromise,
    };
    let refused = others.revoke((&tenant(), &CaId::new("test")), leaf).await;
    assert!(refused.is_err(), "another account may not");

    // What serves is replaced before its key is destroyed: nothing is to be replaced here.
    let remove = Operation::DeleteDomain {
        pattern: pattern("lost.example.com"),
    };
    engine.apply(Batch::new().then(remove)).await;

    let asked = Revocation::asked(
        RevocationReason::KeyCompromise,
        RevocationOrder::RevokedFirst,
        engine.clock.now(),
    );
    let standing = CertificateStanding {
        revocation: Some(asked),
        ..CertificateStanding::default()
    };
    let wish = Batch::new()
        .then(Operation::SetCertificateStanding {
            certificate: id,
            standing: Box::new(standing),
        })
        .then(Operation::RequestJob {
            key: JobKey::Revocation(id),
            tenant: tenant(),
            priority: Priority::Expiring,
            delay: Duration::ZERO,
            urgency: Urgency::Now,
        });
    engine.apply(wish).await;
    let metrics = Metrics::default();
    let parts = Parts {
        store: Arc::clone(&engine.store),
        vault: engine.vault.clone(),
        accounts: others.clone(),
        resolver: engine.resolver.clone(),
        metrics: metrics.clone(),
        clock: engine.clock.clone(),
    };
    let revoker = Revoker::new(parts, uuid::Uuid::new_v4());
    let running = revoker.run(engine.tasks.clone());
    engine.tasks.spawn("revoker", running);
    let revoked = async {
        let mut changes = engine.store.wake();
        loop {
            let by = Deadline::after(PATIENCE);
            let scope = TenantScope::operator();
            let record = engine.store.certificate(by, &scope, id).await;
            let standing = record.unwrap().unwrap().standing;
            if standing.key_destroyed_at.is_some() {
                return standing;
            }
            tokio::time::timeout(Duration::from_millis(100), changes.changed())
                .await
                .ok();
        }
    };
    let standing = tokio::time::timeout(PATIENCE, revoked).await.unwrap();
    assert!(standing.revocation.unwrap().revoked_at.is_some());
    let revoked = metrics
        .revocations
        .total(&CaId::new("test"), RevocationOutcome::Revoked);
    assert_eq!(revoked, 1);
    // Told again, the authority says that it knows: that is a success.
    let again = engine
        .accounts
        .revoke((&tenant(), &CaId::new("test")), leaf)
        .await;
    let known = matches!(again, Ok((_, Acceptance::Before)));
    assert!(known, "revoked already: {again:?}");
}
