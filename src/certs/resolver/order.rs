//! The hand's way over the entries, and what they weigh together. Plain data behind the resolver's lock.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::model::NamePattern;

/// Removals are told apart by this many stripes of names.
const STRIPES: usize = 1024;

/// Which arrival an entry is: an entry that was removed and put again has another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

/// Entries in the order in which the hand meets them. A removed entry leaves its place behind, to be skipped.
#[derive(Debug)]
pub(super) struct Order {
    queue: VecDeque<(NamePattern, Place)>,
    arrivals: u64,
    entries: usize,
    bytes: usize,
    removals: u64,
    /// For each stripe of names, the number of its latest removal.
    latest_removal: Box<[u64]>,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            arrivals: 0,
            entries: 0,
            bytes: 0,
            removals: 0,
            latest_removal: vec![0; STRIPES].into_boxed_slice(),
        }
    }
}

impl Order {
    pub(super) const fn entries(&self) -> usize {
        self.entries
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn removals(&self) -> u64 {
        self.removals
    }

    pub(super) fn arrive(&mut self, pattern: &NamePattern, bytes: usize) -> Place {
        self.arrivals += 1;
        self.entries += 1;
        self.bytes += bytes;
        let place = Place(self.arrivals);
        self.queue.push_back((pattern.clone(), place));
        place
    }

    pub(super) const fn resize(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes.saturating_sub(before) + after;
    }

    pub(super) const fn leave(&mut self, bytes: usize) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// What the hand meets next; the caller drops it or puts it back.
    pub(super) fn next(&mut self) -> Option<(NamePattern, Place)> {
        self.queue.pop_front()
    }

    pub(super) fn spare(&mut self, pattern: NamePattern, place: Place) {
        self.queue.push_back((pattern, place));
    }

    /// Remembers a removal, for [`Order::removed_since`].
    pub(super) fn note_removal(&mut self, pattern: &NamePattern) {
        self.removals += 1;
        let number = self.removals;
        if let Some(latest) = self.latest_removal.get_mut(stripe(pattern)) {
            *latest = number;
        }
    }

    /// Whether the pattern, or one of its stripe, was removed after the removal numbered `since`.
    pub(super) fn removed_since(&self, pattern: &NamePattern, since: u64) -> bool {
        self.latest_removal
            .get(stripe(pattern))
            .is_some_and(|latest| *latest > since)
    }

    /// Whether more places were left behind than are taken: time to [`Order::sweep`].
    pub(super) fn needs_sweep(&self) -> bool {
        self.queue.len() > 2 * self.entries + 64
    }

    /// Drops the places that `is_taken` does not know.
    pub(super) fn sweep(&mut self, mut is_taken: impl FnMut(&NamePattern, Place) -> bool) {
        self.queue
            .retain(|(pattern, place)| is_taken(pattern, *place));
    }
}

fn stripe(pattern: &NamePattern) -> usize {
    let mut hasher = DefaultHasher::new();
    pattern.base().as_str().hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0)
}
