//! Budgets: exact under any number of takers.

use std::time::Duration;

use futures_util::future::join_all;

use super::support::{Factory, Fresh, soon};
use crate::store::batch::{Batch, Operation};
use crate::store::budget::{BucketCost, Taken};

pub(crate) fn cost(bucket: &str, units: u32) -> BucketCost {
    BucketCost {
        bucket: bucket.to_owned(),
        units,
        refill: Duration::from_secs(36),
        capacity: 30,
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
