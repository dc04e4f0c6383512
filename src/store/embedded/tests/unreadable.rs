//! Rows that cannot be read keep nobody else from anything.

use std::time::Duration;

use uuid::Uuid;

use super::{apply, open, open_on, run};
use crate::base::clock::{Clock, Timestamp};
use crate::model::TenantScope;
use crate::store::batch::{Batch, Operation, Urgency};
use crate::store::conformance::support::{pattern, registration, soon, tenant};
use crate::store::job::{ClaimRequest, JobKey, JobKind, Paces, Priority};
use crate::store::{PageRequest, Store as _};

#[tokio::test]
async fn a_job_that_cannot_be_read_is_put_off_and_the_others_are_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
    let store = open_on(folder.path(), clock.clone()).await;
    for name in ["a.test", "b.test", "c.test"] {
        apply(&store, registration("acme", name)).await.unwrap();
        let asked = Batch::new().then(Operation::RequestJob {
            key: JobKey::Certificate(pattern(name)),
            tenant: tenant("acme"),
            priority: Priority::Renewal,
            delay: Duration::ZERO,
            urgency: Urgency::HeedBackoff,
        });
        apply(&store, asked).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    run(
        &store,
        "UPDATE job SET problem = 'oops' WHERE job_key = 'certificate:a.test'; \
         UPDATE job SET failures = -1 WHERE job_key = 'certificate:b.test'",
    )
    .await;
    let request = |most| ClaimRequest {
        kind: JobKind::Certificate,
        holder: Uuid::new_v4(),
        most,
        lease: Duration::from_secs(60),
        paces: Paces::default(),
    };
    let mut claimed = Vec::new();
    for _ in 0..3 {
        let claims = store.claim(soon(), &request(1)).await.unwrap();
        claimed.extend(claims.jobs.into_iter().map(|job| job.claim.key.to_string()));
    }
    assert_eq!(claimed, ["certificate:c.test"]);
    let page = PageRequest::first();
    let everyone = TenantScope::operator();
    let jobs = store.jobs(soon(), &everyone, None, &page).await.unwrap();
    assert_eq!(jobs.items.len(), 1);
    let unreadable: Vec<&str> = jobs.unreadable.iter().map(|row| &*row.key).collect();
    assert_eq!(unreadable, ["certificate:a.test", "certificate:b.test"]);
}

#[tokio::test]
async fn a_domain_that_cannot_be_read_is_named_and_the_rest_of_its_page_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for name in ["a.test", "b.test", "c.test"] {
        apply(&store, registration("acme", name)).await.unwrap();
    }
    run(
        &store,
        "UPDATE domain SET memory = 'oops' WHERE pattern = 'b.test'",
    )
    .await;
    let everyone = TenantScope::operator();
    let mut request = PageRequest {
        after: None,
        most: 2,
    };
    let first = store
        .domains(soon(), &everyone, None, &request)
        .await
        .unwrap();
    assert_eq!(first.items[0].pattern, pattern("a.test"));
    assert_eq!(first.unreadable[0].key, "b.test");
    assert!(first.unreadable[0].why.starts_with("domain b.test: memory"));
    request.after = first.next;
    let second = store
        .domains(soon(), &everyone, None, &request)
        .await
        .unwrap();
    assert_eq!(second.items[0].pattern, pattern("c.test"));
    assert_eq!((second.next, second.unreadable), (None, Vec::new()));
    let error = store.domain(soon(), &everyone, &pattern("b.test")).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("domain b.test"), "{error}");
}
