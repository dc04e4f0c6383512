//! The feed: nothing lost, nothing twice, nothing out of order.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::support::{Factory, Fresh, pattern, put_domain, registration, soon};
use crate::store::Store;
use crate::store::batch::{Batch, Operation};
use crate::store::feed::{ChangeKind, Cursor, FeedStatus};

/// Reads entry by entry from `cursor` until `wanted` of domains named `w<writer>-<number>.test` were seen, and checks that
/// in each shard every writer's numbers rise.
pub(crate) async fn read_in_order(
    store: &Arc<dyn Store>,
    mut cursor: Cursor,
    wanted: usize,
) -> usize {
    let mut newest: HashMap<(usize, String), usize> = HashMap::new();
    let mut seen = 0;
    while seen < wanted {
        let read = store.changes(soon(), &cursor, 1).await.unwrap();
        assert_ne!(read.status, FeedStatus::Restart);
        for change in &read.entries {
            let positions = read.cursor.positions.iter().zip(&cursor.positions);
            let shard = positions
                .enumerate()
                .find(|(_, (new, old))| new > old)
                .unwrap()
                .0;
            if let Some((writer, number)) = split(&change.key) {
                let before = newest.insert((shard, writer), number);
                assert!(
                    before.is_none_or(|before| before < number),
                    "{}",
                    change.key
                );
                seen += 1;
            }
        }
        if read.entries.is_empty() {
            tokio::task::yield_now().await;
        }
        cursor = read.cursor;
    }
    seen
}

fn split(key: &str) -> Option<(String, usize)> {
    let (writer, number) = key.strip_suffix(".test")?.split_once('-')?;
    Some((writer.to_owned(), number.parse().ok()?))
}

/// Registers `w<writer>-0.test` and so on, one after another.
pub(crate) async fn write_domains(store: &Arc<dyn Store>, writer: usize, count: usize) {
    for number in 0..count {
        let batch = Batch::new().then(put_domain("acme", &format!("w{writer}-{number}.test")));
        let everyone = crate::model::TenantScope::operator();
        store.apply(soon(), &everyone, batch).await.unwrap();
    }
}

pub(crate) async fn eight_writers_lose_and_disorder_nothing_for_a_reader(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    fresh.register("acme", "first.test").await;
    let start = fresh.apply(Batch::new()).await.position;
    let writers = join_all((0..8).map(|writer| write_domains(&fresh.store, writer, 40)));
    let reader = read_in_order(&fresh.store, start, 320);
    let (_, seen) = tokio::join!(writers, reader);
    assert_eq!(seen, 320);
}

pub(crate) async fn a_position_after_a_batch_includes_it(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let before = fresh.apply(Batch::new()).await.position;
    let after = fresh.apply(registration("acme", "a.test")).await.position;
    let read = fresh.store.changes(soon(), &before, 100).await.unwrap();
    assert_eq!((read.status, &read.cursor), (FeedStatus::Complete, &after));
    let mut entries: Vec<_> = read
        .entries
        .iter()
        .map(|c| (c.kind == ChangeKind::Domain, c.key.as_str()))
        .collect();
    entries.sort_unstable();
    assert_eq!(entries, [(false, "acme"), (true, "a.test")]);
    let read = fresh.store.changes(soon(), &before, 1).await.unwrap();
    assert_eq!((read.status, read.entries.len()), (FeedStatus::More, 1));
    let read = fresh.store.changes(soon(), &after, 100).await.unwrap();
    assert_eq!((read.status, read.entries.len()), (FeedStatus::Complete, 0));
    let delete = Operation::DeleteDomain {
        pattern: pattern("a.test"),
    };
    fresh.apply(Batch::new().then(delete)).await;
    let read = fresh.store.changes(soon(), &after, 100).await.unwrap();
    assert_eq!(read.entries.len(), 1, "a removal is told too");
}

pub(crate) async fn a_reader_without_a_place_is_told_to_take_a_fresh_copy(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let here = fresh.apply(registration("acme", "a.test")).await.position;
    let other_epoch = Cursor {
        epoch: Some(uuid::Uuid::new_v4()),
        ..here.clone()
    };
    let ahead = Cursor {
        positions: here.positions.iter().map(|position| position + 1).collect(),
        ..here.clone()
    };
    for lost in [Cursor::default(), other_epoch, ahead] {
        let read = fresh.store.changes(soon(), &lost, 100).await.unwrap();
        assert_eq!((read.status, &read.cursor), (FeedStatus::Restart, &here));
        assert!(read.entries.is_empty());
    }
}

pub(crate) async fn a_commit_wakes_those_who_wait(factory: &Factory) {
    let fresh = Fresh::of(factory).await;
    let mut wake = fresh.store.wake();
    wake.mark_unchanged();
    fresh.register("acme", "a.test").await;
    tokio::time::timeout_at(soon().instant(), wake.changed())
        .await
        .unwrap()
        .unwrap();
}
