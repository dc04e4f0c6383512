//! When a private key is to be destroyed, and that it is.

use std::time::Duration;

use super::{Settings, apply, open_on, sweep};
use crate::base::clock::{Clock, Timestamp};
use crate::model::TenantScope;
use crate::model::certificate::CertificateId;
use crate::model::domain::DomainState;
use crate::model::revocation::{LeftTo, Revocation, RevocationOrder, RevocationReason};
use crate::model::standing::{CertificateStanding, Replace};
use crate::store::batch::{ApplyError, Batch, Operation};
use crate::store::conformance::support::{certificate, pattern, registration, soon, tenant};
use crate::store::embedded::Embedded;
use crate::store::record::{CertificateRecord, KeyOwner};
use crate::store::{PageRequest, Store as _};

const NAME: &str = "a.test";

struct Fixture {
    _folder: tempfile::TempDir,
    clock: Clock,
    store: Embedded,
}

impl Fixture {
    async fn with(certificates: &[&CertificateRecord]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
        let store = open_on(folder.path(), clock.clone()).await;
        let batch = certificates
            .iter()
            .fold(registration("acme", NAME), |batch, record| {
                batch.then(Operation::PutCertificate(Box::new((*record).clone())))
            });
        apply(&store, batch).await.unwrap();
        Self {
            _folder: folder,
            clock,
            store,
        }
    }

    async fn point(&self, id: CertificateId) -> Result<(), ApplyError> {
        let batch = Batch::new().then(Operation::PointDomain {
            pattern: pattern(NAME),
            certificate: id,
        });
        apply(&self.store, batch).await.map(drop)
    }

    async fn revoke(&self, id: CertificateId, revocation: &Revocation) {
        let standing = CertificateStanding {
            revocation: Some(revocation.clone()),
            ..CertificateStanding::default()
        };
        let set = Operation::SetCertificateStanding {
            certificate: id,
            standing: Box::new(standing),
        };
        apply(&self.store, Batch::new().then(set)).await.unwrap();
    }

    async fn set_state(&self, state: DomainState) {
        let set = Operation::SetDomainState {
            pattern: pattern(NAME),
            state,
            problem: None,
        };
        apply(&self.store, Batch::new().then(set)).await.unwrap();
    }

    async fn read(&self, id: CertificateId) -> CertificateRecord {
        let scope = TenantScope::operator();
        let found = self.store.certificate(soon(), &scope, id).await;
        found.unwrap().unwrap()
    }

    async fn sweep(&self) {
        sweep::sweep(&self.store.parts).await.unwrap();
    }

    async fn destroyed(&self) -> usize {
        let (scope, owner) = (TenantScope::operator(), KeyOwner::Tenant(tenant("acme")));
        let page = PageRequest::first();
        let events = self.store.events(soon(), &scope, &owner, &page).await;
        let events = events.unwrap().items.into_iter();
        events
            .filter(|event| event.kind == "certificate.key_destroyed")
            .count()
    }
}

#[tokio::test]
async fn a_superseded_certificate_keeps_its_key_for_thirty_days_and_may_serve_until_then() {
    let (old, new) = (certificate("acme", &[NAME]), certificate("acme", &[NAME]));
    let (old, new) = (&old, &new);
    let fixture = Fixture::with(&[old, new]).await;
    let kept = Settings::in_folder("/".into()).retired_keys;
    fixture.point(old.facts.id).await.unwrap();
    fixture.point(new.facts.id).await.unwrap();
    let standing = fixture.read(old.facts.id).await.standing;
    assert_eq!(standing.superseded_by, Some(new.facts.id));
    assert_eq!(standing.superseded_at, Some(fixture.clock.now()));
    assert_eq!(standing.retire_at, Some(fixture.clock.now().plus(kept)));

    // Chosen again, it is not superseded any more; the other is.
    fixture.point(old.facts.id).await.unwrap();
    assert_eq!(
        fixture.read(old.facts.id).await.standing,
        CertificateStanding::default()
    );
    assert!(
        fixture
            .read(new.facts.id)
            .await
            .standing
            .retire_at
            .is_some()
    );
    fixture.point(new.facts.id).await.unwrap();

    fixture.clock.advance(kept - Duration::from_secs(1));
    fixture.sweep().await;
    assert_eq!(fixture.read(old.facts.id).await.sealed_key, old.sealed_key);
    fixture.clock.advance(Duration::from_secs(1));
    fixture.sweep().await;
    let retired = fixture.read(old.facts.id).await;
    assert!(retired.sealed_key.is_empty());
    assert_eq!(retired.standing.key_destroyed_at, Some(fixture.clock.now()));
    assert_eq!(retired.standing.retire_at, None);
    assert_eq!(fixture.read(new.facts.id).await.sealed_key, new.sealed_key);
    assert_eq!(fixture.destroyed().await, 1);
    let refused = fixture.point(old.facts.id).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotUsable(id) if id == old.facts.id));
    fixture.sweep().await;
    assert_eq!(fixture.destroyed().await, 1, "once");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_keeps_no_other_key_from_its_end() {
    let (first, second) = (certificate("acme", &[NAME]), certificate("acme", &[NAME]));
    let last = certificate("acme", &[NAME]);
    let fixture = Fixture::with(&[&first, &second, &last]).await;
    for record in [&first, &second, &last] {
        fixture.point(record.facts.id).await.unwrap();
        fixture.clock.advance(Duration::from_secs(1));
    }
    fixture
        .store
        .spoil(
            "UPDATE certificate SET standing = 'oops' WHERE retire_at = (SELECT MIN(retire_at) FROM certificate)",
        )
        .await;
    fixture.clock.advance(Duration::from_hours(24 * 30));
    fixture.sweep().await;
    assert!(fixture.read(second.facts.id).await.sealed_key.is_empty());
    let scope = TenantScope::operator();
    let spoilt = fixture.store.certificate(soon(), &scope, first.facts.id);
    let error = spoilt.await.unwrap_err().to_string();
    assert!(error.contains(&first.facts.id.to_string()), "{error}");
}

#[tokio::test]
async fn the_key_of_a_removed_domain_is_destroyed_in_time() {
    let record = certificate("acme", &[NAME]);
    let fixture = Fixture::with(&[&record]).await;
    fixture.point(record.facts.id).await.unwrap();
    let delete = Batch::new().then(Operation::DeleteDomain {
        pattern: pattern(NAME),
    });
    apply(&fixture.store, delete).await.unwrap();
    fixture.clock.advance(Duration::from_hours(24 * 30));
    fixture.sweep().await;
    assert!(fixture.read(record.facts.id).await.sealed_key.is_empty());
}

#[tokio::test]
async fn a_key_stays_while_its_certificate_is_still_to_be_revoked() {
    let records: Vec<_> = (0..150).map(|_| certificate("acme", &[NAME])).collect();
    let serving = certificate("acme", &[NAME]);
    let all: Vec<_> = records.iter().chain([&serving]).collect();
    let fixture = Fixture::with(&all).await;
    let asked = Revocation::asked(
        RevocationReason::Superseded,
        RevocationOrder::ReplacedFirst,
        fixture.clock.now(),
    );
    let taken = Revocation {
        told_at: Some(fixture.clock.now()),
        revoked_at: Some(fixture.clock.now()),
        ..asked.clone()
    };
    let raised = taken.clone().asked_again(
        RevocationReason::KeyCompromise,
        RevocationOrder::RevokedFirst,
    );
    let left = Revocation {
        left_to: Some(LeftTo {
            issuer: "Other CA".to_owned(),
            at: fixture.clock.now(),
        }),
        ..asked.clone()
    };
    for record in &records {
        fixture.point(record.facts.id).await.unwrap();
        fixture.revoke(record.facts.id, &asked).await;
    }
    fixture.point(serving.facts.id).await.unwrap();
    // Behind all those that wait.
    let (taken_id, left_id) = (records[148].facts.id, records[149].facts.id);
    fixture.revoke(records[0].facts.id, &raised).await;
    fixture.revoke(taken_id, &taken).await;
    fixture.revoke(left_id, &left).await;

    let kept = Settings::in_folder("/".into()).retired_keys;
    fixture.clock.advance(kept);
    fixture.sweep().await;
    for record in &records {
        let read = fixture.read(record.facts.id).await;
        let revocation = read.standing.revocation.unwrap();
        assert_eq!(read.sealed_key.is_empty(), revocation.is_told());
    }
    assert_eq!(fixture.destroyed().await, 2);
    // Nobody revokes it once it has expired.
    fixture.clock.advance(Duration::from_hours(24 * 60));
    fixture.sweep().await;
    fixture.sweep().await;
    let first = fixture.read(records[0].facts.id).await;
    assert!(first.sealed_key.is_empty());
}

#[tokio::test]
async fn a_domain_back_in_service_keeps_a_certificate_only_if_that_may_serve() {
    for is_usable in [true, false] {
        let record = certificate("acme", &[NAME]);
        let fixture = Fixture::with(&[&record]).await;
        let id = record.facts.id;
        fixture.point(id).await.unwrap();
        fixture.set_state(DomainState::Tombstoned).await;
        if !is_usable {
            let revoked = CertificateStanding {
                revocation: Some(Revocation::asked(
                    RevocationReason::KeyCompromise,
                    RevocationOrder::RevokedFirst,
                    fixture.clock.now(),
                )),
                ..CertificateStanding::default()
            };
            let set = Operation::SetCertificateStanding {
                certificate: id,
                standing: Box::new(revoked),
            };
            apply(&fixture.store, Batch::new().then(set)).await.unwrap();
        }
        fixture.set_state(DomainState::Active).await;
        let scope = TenantScope::operator();
        let found = fixture.store.domain(soon(), &scope, &pattern(NAME)).await;
        let domain = found.unwrap().unwrap();
        let expected = match is_usable {
            true => (DomainState::Active, Some(id)),
            false => (DomainState::PendingDns, None),
        };
        assert_eq!((domain.state, domain.certificate), expected);
        // What serves nothing any more does not keep its key for ever.
        let retires = fixture.read(id).await.standing.retire_at.is_some();
        assert_eq!(retires, !is_usable);
    }
}

#[tokio::test]
async fn with_a_tenants_data_keys_end_the_keys_of_all_its_certificates_and_of_nobody_elses() {
    let (serving, kept) = (certificate("acme", &[NAME]), certificate("acme", &[NAME]));
    let mut client = certificate("acme", &[NAME]);
    client.sealed_key.clear();
    let fixture = Fixture::with(&[&serving, &kept, &client]).await;
    let foreign = certificate("globex", &["b.test"]);
    let other =
        registration("globex", "b.test").then(Operation::PutCertificate(Box::new(foreign.clone())));
    apply(&fixture.store, other).await.unwrap();
    fixture.point(kept.facts.id).await.unwrap();
    fixture.point(serving.facts.id).await.unwrap();
    let destroy = Batch::new().then(Operation::DestroyDataKeys {
        tenant: tenant("acme"),
        through: 1,
    });
    apply(&fixture.store, destroy).await.unwrap();
    for id in [serving.facts.id, kept.facts.id] {
        let read = fixture.read(id).await;
        assert!(read.sealed_key.is_empty());
        assert_eq!(read.standing.key_destroyed_at, Some(fixture.clock.now()));
        assert_eq!(read.standing.retire_at, None);
        assert!(!read.standing.may_serve());
    }
    // The rest of what is known of it stays.
    let standing = fixture.read(kept.facts.id).await.standing;
    assert_eq!(standing.superseded_by, Some(serving.facts.id));
    // A client's key was never here, and another tenant's is not this one's.
    for record in [&client, &foreign] {
        let read = fixture.read(record.facts.id).await;
        assert_eq!(read.sealed_key, record.sealed_key);
        assert_eq!(read.standing, CertificateStanding::default());
    }
    let refused = fixture.point(kept.facts.id).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotUsable(_)), "{refused}");
}

#[tokio::test]
async fn a_clients_certificate_without_name_and_key_is_written_like_any_other() {
    let mut client = certificate("acme", &[NAME]);
    client.facts.names.clear();
    client.sealed_key.clear();
    let fixture = Fixture::with(&[&client]).await;
    let id = client.facts.id;
    let standing = CertificateStanding {
        client: Some("robot".to_owned()),
        ..CertificateStanding::default()
    };
    let batch = Batch::new()
        .then(Operation::SetCertificateStanding {
            certificate: id,
            standing: Box::new(standing),
        })
        .then(Operation::DestroyKey { certificate: id });
    apply(&fixture.store, batch).await.unwrap();
    let standing = fixture.read(id).await.standing;
    assert_eq!(standing.client.as_deref(), Some("robot"));
}

#[tokio::test]
async fn a_key_that_serves_is_never_destroyed_and_a_revoked_certificate_never_serves() {
    let (serving, other) = (certificate("acme", &[NAME]), certificate("acme", &[NAME]));
    let fixture = Fixture::with(&[&serving, &other]).await;
    let (serving, other) = (serving.facts.id, other.facts.id);
    fixture.point(serving).await.unwrap();
    let destroy = |certificate| Batch::new().then(Operation::DestroyKey { certificate });
    let refused = apply(&fixture.store, destroy(serving)).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotUsable(_)), "{refused}");
    assert!(!fixture.read(serving).await.sealed_key.is_empty());

    let revocation = Revocation::asked(
        RevocationReason::KeyCompromise,
        RevocationOrder::ReplacedFirst,
        fixture.clock.now(),
    );
    let set = |certificate, standing| {
        Batch::new().then(Operation::SetCertificateStanding {
            certificate,
            standing: Box::new(standing),
        })
    };
    let revoked = CertificateStanding {
        revocation: Some(revocation.clone()),
        ..CertificateStanding::default()
    };
    apply(&fixture.store, set(other, revoked)).await.unwrap();
    // Who had read it before does not undo it.
    let stale = set(other, CertificateStanding::default());
    apply(&fixture.store, stale).await.unwrap();
    assert_eq!(
        fixture.read(other).await.standing.revocation,
        Some(revocation)
    );
    let refused = fixture.point(other).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotUsable(_)), "{refused}");
    apply(&fixture.store, destroy(other)).await.unwrap();
    assert!(fixture.read(other).await.sealed_key.is_empty());
}

#[tokio::test]
async fn a_revocation_is_taken_back_until_somebody_may_know_of_it() {
    let (serving, other) = (certificate("acme", &[NAME]), certificate("acme", &[NAME]));
    let fixture = Fixture::with(&[&serving, &other]).await;
    let id = other.facts.id;
    let now = fixture.clock.now();
    let (reason, order) = (
        RevocationReason::KeyCompromise,
        RevocationOrder::ReplacedFirst,
    );
    let asked = Revocation::asked(reason, order, now);
    let told = Revocation {
        told_at: Some(now),
        ..asked.clone()
    };
    let cancel = || Batch::new().then(Operation::CancelRevocation { certificate: id });
    for (revocation, is_taken_back) in [(asked, true), (told.clone(), false)] {
        let standing = CertificateStanding {
            account: Some("https://ca.test/acct/1".to_owned()),
            revocation: Some(revocation),
            replace: Some(Replace::KeyCompromised),
            ..CertificateStanding::default()
        };
        let set = Operation::SetCertificateStanding {
            certificate: id,
            standing: Box::new(standing),
        };
        apply(&fixture.store, Batch::new().then(set)).await.unwrap();
        let cancelled = apply(&fixture.store, cancel()).await;
        assert_eq!(cancelled.is_ok(), is_taken_back, "{cancelled:?}");
    }
    assert_eq!(fixture.read(id).await.standing.revocation, Some(told));
    // Nothing to take back is no mistake.
    let certificate = serving.facts.id;
    let nothing = Batch::new().then(Operation::CancelRevocation { certificate });
    apply(&fixture.store, nothing).await.unwrap();
}
