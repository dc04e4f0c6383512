//! The audit chains.

use futures_util::future::join_all;
use serde_json::json;

use super::support::{Factory, Fresh, registration, soon, tenant};
use crate::model::TenantScope;
use crate::store::PageRequest;
use crate::store::audit::{ChainError, Link, verify_chain};
use crate::store::batch::{AuditEvent, Batch};
use crate::store::record::{AuditActor, AuditRecord, KeyOwner};

pub(crate) fn event(slug: &str, number: usize) -> AuditEvent {
    AuditEvent {
        owner: KeyOwner::Tenant(tenant(slug)),
        actor: AuditActor::Operator,
        kind: "domain.registered",
        subject: format!("n{number}.test"),
        detail: json!({"z": number, "a": {"share": 0.1, "text": "ü\n"}}),
    }
}

async fn all_events(fresh: &Fresh, owner: &KeyOwner) -> Vec<AuditRecord> {
    let mut events = Vec::new();
    let mut page = PageRequest {
        after: None,
        most: 7,
    };
    loop {
        let everyone = TenantScope::operator();
        let read = fresh
            .store
            .events(soon(), &everyone, owner, &page)
            .await
            .unwrap();
        events.extend(read.items);
        match read.next {
            Some(next) => page.after = Some(next),
            None => return events,
        }
    }
}

pub(crate) async fn events_form_one_chain_an_owner_without_gaps(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let write = |n: usize| {
        let slug = ["acme", "globex"][n % 2];
        let batch = registration(slug, &format!("n{n}.test")).audit(event(slug, n));
        // A refused batch takes no number.
        let refused = Batch::new()
            .audit(event(slug, n))
            .then(super::support::put_domain("nobody", "x.test"));
        let fresh = &fresh;
        async move {
            assert!(fresh.try_apply(refused).await.is_err());
            fresh.apply(batch).await;
        }
    };
    join_all((0..40).map(write)).await;
    for slug in ["acme", "globex"] {
        let mut events = all_events(&fresh, &KeyOwner::Tenant(tenant(slug))).await;
        assert_eq!(events.len(), 20);
        let end = verify_chain(Link::default(), &events).unwrap();
        assert_eq!(end.sequence, 20);
        events[9].subject = "other.test".to_owned();
        let found = verify_chain(Link::default(), &events);
        assert_eq!(found, Err(ChainError::Changed(10)));
        events.remove(9);
        let found = verify_chain(Link::default(), &events);
        assert_eq!(found, Err(ChainError::Gap(9)));
    }
    assert!(all_events(&fresh, &KeyOwner::Platform).await.is_empty());
}
