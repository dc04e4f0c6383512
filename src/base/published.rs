//! A value that readers see whole, swapped by a writer; readers never wait.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

/// A shared slot for the newest version of `T`. Clones are the same slot.
#[derive(Debug)]
pub struct Published<T> {
    slot: Arc<ArcSwap<T>>,
    version: Arc<watch::Sender<u64>>,
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
            version: Arc::clone(&self.version),
        }
    }
}

impl<T> Published<T> {
    /// A slot that holds `first`, version 0.
    pub fn new(first: T) -> Self {
        Self {
            slot: Arc::new(ArcSwap::from_pointee(first)),
            version: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The newest value, cheaply and only for a moment: do not hold it across an await.
    pub fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.slot.load()
    }

    /// The newest value, to keep.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.slot.load_full()
    }

    /// Replaces the value and wakes those who watch.
    pub fn publish(&self, next: T) {
        self.slot.store(Arc::new(next));
        self.version
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Replaces the value by one made from the current one. `make` may run more than once where writers race.
    pub fn update(&self, mut make: impl FnMut(&T) -> T) {
        self.slot.rcu(|current| make(current));
        self.version
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    /// How often the value has been replaced.
    #[must_use]
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Tells of each replacement after this call; several in a row may be told as one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn watchers_wake_and_see_the_new_value() {
        let value = Published::new(1);
        let mut watch = value.watch();
        value.clone().publish(2);
        watch.changed().await.unwrap();
        assert_eq!((*value.get(), value.version()), (2, 1));
        value.update(|n| n + 1);
        assert_eq!(**value.load(), 3);
    }
}
