//! Budgets: exact under any number of takers.

use std::time::Duration;

use futures_util::future::join_all;

use super::support::{Factory, Fresh, soon};
use crate::store::PageRequest;
use crate::store::batch::{Batch, Operation};
use crate::store::budget::{BucketCost, BucketRecord, Taken};

pub(crate) fn cost(bucket: &str, units: u32) -> BucketCost {
    BucketCost {
        bucket: bucket.to_owned(),
        units,
        refill: Duration::from_secs(36),
        capacity: 30,
        whole: 30,
    }
}

async fn take(fresh: &Fresh, costs: &[BucketCost]) -> Taken {
    fresh.store.take(soon(), costs).await.unwrap()
}

pub(crate) async fn a_bucket_gives_exactly_what_it_holds(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let wanted = [cost("orders", 1)];
    let takes = join_all((0..160).map(|_| take(&fresh, &wanted))).await;
    let granted = takes
        .iter()
        .filter(|taken| **taken == Taken::Granted)
        .count();
    assert_eq!(granted, 30);
    let retry_after = Duration::from_secs(36);
    let denied = Taken::Denied {
        bucket: "orders".to_owned(),
        retry_after,
    };
    assert_eq!(take(&fresh, &wanted).await, denied);
    fresh.clock.advance(retry_after * 2);
    let again = join_all((0..10).map(|_| take(&fresh, &wanted))).await;
    assert_eq!(
        again
            .iter()
            .filter(|taken| **taken == Taken::Granted)
            .count(),
        2
    );
}

pub(crate) async fn all_buckets_give_or_none(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    assert_eq!(take(&fresh, &[cost("b", 30)]).await, Taken::Granted);
    for _ in 0..5 {
        let both = take(&fresh, &[cost("a", 10), cost("b", 1)]).await;
        assert!(matches!(both, Taken::Denied { bucket, .. } if bucket == "b"));
    }
    assert_eq!(
        take(&fresh, &[cost("a", 30)]).await,
        Taken::Granted,
        "a lost nothing"
    );
    // One bucket named twice gives twice.
    let twice = [cost("c", 20), cost("c", 20)];
    assert!(matches!(take(&fresh, &twice).await, Taken::Denied { .. }));
    assert_eq!(
        take(&fresh, &[cost("c", 15), cost("c", 15)]).await,
        Taken::Granted
    );
}

pub(crate) async fn a_frozen_bucket_gives_nothing_even_after_a_restart(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let freeze = |seconds| {
        Batch::new().then(Operation::FreezeBucket {
            bucket: "orders".to_owned(),
            duration: Duration::from_secs(seconds),
        })
    };
    fresh.apply(freeze(600)).await;
    fresh.apply(freeze(60)).await;
    let again = factory(fresh.folder.path(), fresh.clock.clone()).await;
    let retry_after = Duration::from_secs(600);
    let denied = Taken::Denied {
        bucket: "orders".to_owned(),
        retry_after,
    };
    let wanted = [cost("orders", 1)];
    assert_eq!(again.take(soon(), &wanted).await.unwrap(), denied);
    fresh.clock.advance(retry_after);
    assert_eq!(again.take(soon(), &wanted).await.unwrap(), Taken::Granted);
}

pub(crate) async fn a_clock_that_was_ahead_keeps_no_bucket_empty_or_stopped(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let (now, refill) = (fresh.clock.now(), Duration::from_secs(36));
    let some = BucketCost {
        capacity: 20,
        ..cost("orders", 1)
    };
    fresh.clock.advance(Duration::from_secs(10 * 86_400));
    assert_eq!(
        take(&fresh, std::slice::from_ref(&some)).await,
        Taken::Granted
    );
    let stop = Operation::FreezeBucket {
        bucket: "stopped".to_owned(),
        duration: Duration::from_secs(600),
    };
    fresh.apply(Batch::new().then(stop)).await;

    fresh.clock.set(now);
    assert_eq!(take(&fresh, &[cost("stopped", 1)]).await, Taken::Granted);
    // Empty, as it may be, and filling from now on.
    let denied = |bucket: &str, units: u32| Taken::Denied {
        bucket: bucket.to_owned(),
        retry_after: refill * units,
    };
    assert_eq!(
        take(&fresh, std::slice::from_ref(&some)).await,
        denied("orders", 11)
    );
    fresh.clock.advance(refill * 11);
    assert_eq!(
        take(&fresh, std::slice::from_ref(&some)).await,
        Taken::Granted
    );
    assert_eq!(take(&fresh, &[cost("orders", 10)]).await, Taken::Granted);
    assert_eq!(
        take(&fresh, &[cost("orders", 1)]).await,
        denied("orders", 1)
    );
}

pub(crate) async fn what_was_spent_elsewhere_is_charged_and_can_be_given_back(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let charge = |units| Batch::new().then(Operation::ChargeBucket(cost("orders", units)));
    fresh.apply(charge(29)).await;
    assert_eq!(take(&fresh, &[cost("orders", 1)]).await, Taken::Granted);
    // An empty bucket is charged all the same, and is no emptier.
    fresh.apply(charge(30)).await;
    let denied = Taken::Denied {
        bucket: "orders".to_owned(),
        retry_after: Duration::from_secs(36),
    };
    assert_eq!(take(&fresh, &[cost("orders", 1)]).await, denied);
    let back = Batch::new().then(Operation::GiveBack(cost("orders", 2)));
    fresh.apply(back).await;
    assert_eq!(take(&fresh, &[cost("orders", 2)]).await, Taken::Granted);
    assert_eq!(take(&fresh, &[cost("orders", 1)]).await, denied);
    let bucket = "orders".to_owned();
    fresh
        .apply(Batch::new().then(Operation::FillBucket { bucket }))
        .await;
    assert_eq!(take(&fresh, &[cost("orders", 30)]).await, Taken::Granted);
}

pub(crate) async fn a_cost_of_nothing_is_refused_where_too_little_is_left(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let one_left = BucketCost {
        capacity: 29,
        ..cost("failures", 0)
    };
    let both = [one_left, cost("orders", 1)];
    assert_eq!(take(&fresh, &both).await, Taken::Granted);
    assert_eq!(take(&fresh, &[cost("failures", 30)]).await, Taken::Granted);
    let refused = take(&fresh, &both).await;
    assert!(matches!(refused, Taken::Denied { bucket, .. } if bucket == "failures"));
    assert_eq!(take(&fresh, &[cost("orders", 29)]).await, Taken::Granted);
}

pub(crate) async fn buckets_in_use_are_listed_by_prefix_page_by_page(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    for name in ["a:le:", "a:le2:", "b:le:x", "b:le:y", "b:le:z", "c:le:"] {
        assert_eq!(take(&fresh, &[cost(name, 1)]).await, Taken::Granted);
    }
    let freeze = Operation::FreezeBucket {
        bucket: "b:le:frozen".to_owned(),
        duration: Duration::from_secs(600),
    };
    fresh.apply(Batch::new().then(freeze)).await;
    let list = async |prefix: &str, page: PageRequest| {
        let page = fresh.store.buckets(soon(), prefix, &page).await.unwrap();
        let keys = page.items.iter().map(|item| item.bucket.clone());
        (keys.collect::<Vec<_>>(), page)
    };
    assert_eq!(list("a:le:", PageRequest::first()).await.0, ["a:le:"]);
    let two = PageRequest {
        after: None,
        most: 2,
    };
    let (keys, first) = list("b:le:", two).await;
    assert_eq!(keys, ["b:le:frozen", "b:le:x"]);
    let records = [(0, 600), (36, 0)]
        .map(|(full, frozen)| (Duration::from_secs(full), Duration::from_secs(frozen)));
    let times = |record: &BucketRecord| (record.full_in, record.frozen_for);
    let found: Vec<_> = first.items.iter().map(times).collect();
    assert_eq!(found, records);
    let rest = PageRequest::following(first.next.unwrap());
    let (keys, rest) = list("b:le:", rest).await;
    assert_eq!(
        (keys, rest.next),
        (vec!["b:le:y".to_owned(), "b:le:z".to_owned()], None)
    );
    assert_eq!(list("", PageRequest::first()).await.0.len(), 7);
    // What is full again is as if it had never been touched.
    fresh.clock.advance(Duration::from_secs(36));
    assert_eq!(list("", PageRequest::first()).await.0, ["b:le:frozen"]);
}
