//! Server name → credential, from memory only: never waits, never does I/O.
//!
//! Every handshake passes here, so a look-up takes one shard's read lock, allocates nothing and writes one
//! flag. What is kept is bounded by bytes; the clock algorithm chooses what makes room: a hand goes round over
//! the entries in the order of their arrival, spares each one that was used since it last came by, and takes
//! the first that was not. Only writers touch the order, behind one lock.

mod order;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;

use crate::base::clock::Timestamp;
use crate::certs::credential::Credential;
use crate::model::certificate::CertificateId;
use crate::model::{DnsName, NamePattern};

use order::{Order, Place};

/// What an entry keeps beside its credential: the name, both maps' slots, the place in the order.
const ENTRY_BYTES: usize = 256;
/// Of a day.
const MINUTES: u32 = 24 * 60;

/// The credentials in memory, shared by all workers; bounded by bytes. Clones are the same.
#[derive(Clone, Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    exact: DashMap<DnsName, Entry>,
    wildcard: DashMap<DnsName, Entry>,
    order: Mutex<Order>,
    most_bytes: usize,
    // Mirrors of what the order knows, for metrics: readable without its lock.
    entries: AtomicUsize,
    bytes: AtomicUsize,
    evictions: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    credential: Arc<Credential>,
    visited: AtomicBool,
    /// The minute of its last handshake, since 1970; none where nobody came yet.
    minute: AtomicU32,
    /// The day that was last told as one with a visit.
    told: AtomicU32,
    place: Place,
    bytes: usize,
}

impl Entry {
    fn visited_at(&self) -> Option<Timestamp> {
        let minute = self.minute.load(Ordering::Relaxed);
        (minute > 0).then(|| Timestamp::from_seconds(i64::from(minute) * 60))
    }

    /// The last visit, where its day was not told yet; it is from now on.
    fn fresh_visit(&self) -> Option<Timestamp> {
        let day = self.minute.load(Ordering::Relaxed) / MINUTES;
        if day <= self.told.load(Ordering::Relaxed) {
            return None;
        }
        self.told.store(day, Ordering::Relaxed);
        self.visited_at()
    }
}

/// Taken before a credential is read from the store and handed in with it: a credential that was read before
/// the name was removed is not put after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Resolver {
    /// Keeps at most about `most_bytes` of credentials; the least used make room.
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        let shared = Shared {
            exact: DashMap::new(),
            wildcard: DashMap::new(),
            order: Mutex::default(),
            most_bytes,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The credential that serves `name`: exact, then by one wildcard parent. One that has expired at `now` is passed
    /// over as if it were absent; one that is not valid yet is not, for then it is this machine's clock that is behind.
    #[must_use]
    pub fn get(&self, name: &DnsName, now: Timestamp) -> Option<Arc<Credential>> {
        let name = name.as_str();
        look_up(&self.shared.exact, name, now).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            look_up(&self.shared.wildcard, parent, now)
        })
    }

    /// What is kept under exactly this pattern, valid or not; does not count as use.
    #[must_use]
    pub fn peek(&self, pattern: &NamePattern) -> Option<Arc<Credential>> {
        let entry = self.shared.map(pattern).get(pattern.base().as_str())?;
        Some(Arc::clone(&entry.credential))
    }

    /// Whether anything is served with this certificate. Goes over all that is kept: for upkeep.
    #[must_use]
    pub fn holds(&self, certificate: CertificateId) -> bool {
        let is_it = |entry: &Entry| entry.credential.facts.id == certificate;
        self.shared.exact.iter().any(|entry| is_it(entry.value()))
            || self
                .shared
                .wildcard
                .iter()
                .any(|entry| is_it(entry.value()))
    }

    /// When a handshake last asked for what is kept under this pattern, to the minute, as far as memory tells.
    #[must_use]
    pub fn visited(&self, pattern: &NamePattern) -> Option<Timestamp> {
        let entry = self.shared.map(pattern).get(pattern.base().as_str())?;
        entry.visited_at()
    }

    /// At most `most` patterns that were visited on a day that was not told before, each with its last visit. Goes over
    /// all that is kept: for upkeep.
    #[must_use]
    pub fn fresh_visits(&self, most: usize) -> Vec<(NamePattern, Timestamp)> {
        let exact = self.shared.exact.iter().filter_map(|entry| {
            let at = entry.value().fresh_visit()?;
            Some((NamePattern::Exact(entry.key().clone()), at))
        });
        let wildcard = self.shared.wildcard.iter().filter_map(|entry| {
            let at = entry.value().fresh_visit()?;
            Some((NamePattern::Wildcard(entry.key().clone()), at))
        });
        exact.chain(wildcard).take(most).collect()
    }

    /// Leave to put what is read from the store from now on.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.shared.order().removals())
    }

    /// Puts a fresh credential under each of its names. Under a name that holds a newer one of the same tenant, the
    /// newer one stays.
    pub fn put(&self, credential: &Arc<Credential>) {
        let mut order = self.shared.order();
        for pattern in &credential.facts.names {
            self.shared
                .insert(&mut order, pattern, credential, Precedence::Newer);
        }
        self.shared.make_room(&mut order);
    }

    /// Puts a credential that was read from the store for `pattern` under that pattern alone, unless the pattern
    /// was removed since `ticket` was taken.
    pub fn put_loaded(&self, pattern: &NamePattern, credential: &Arc<Credential>, ticket: Ticket) {
        let mut order = self.shared.order();
        if order.removed_since(pattern, ticket.0) {
            return;
        }
        self.shared
            .insert(&mut order, pattern, credential, Precedence::Newer);
        self.shared.make_room(&mut order);
    }

    /// The same, for the credential that the domain's record points to: it takes the place of whatever is there, of a
    /// newer one too, for somebody chose an older certificate.
    pub fn put_chosen(&self, pattern: &NamePattern, credential: &Arc<Credential>, ticket: Ticket) {
        let mut order = self.shared.order();
        if order.removed_since(pattern, ticket.0) {
            return;
        }
        self.shared
            .insert(&mut order, pattern, credential, Precedence::Given);
        self.shared.make_room(&mut order);
    }

    /// Forgets what serves `pattern`.
    pub fn remove(&self, pattern: &NamePattern) {
        let mut order = self.shared.order();
        order.note_removal(pattern);
        self.shared.take(&mut order, pattern);
        self.shared.sweep(&mut order);
        self.shared.mirror(&order);
    }

    /// Every pattern that has a credential in memory now, in no order. Copies them: for upkeep.
    #[must_use]
    pub fn patterns(&self) -> Vec<NamePattern> {
        let exact = self.shared.exact.iter();
        let exact = exact.map(|entry| NamePattern::Exact(entry.key().clone()));
        let wildcard = self.shared.wildcard.iter();
        exact
            .chain(wildcard.map(|entry| NamePattern::Wildcard(entry.key().clone())))
            .collect()
    }

    /// How many names have a credential in memory.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.shared.entries.load(Ordering::Relaxed)
    }

    /// About how many bytes they take. A credential of several names counts once for each.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// How many entries have made room for others so far.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.shared.evictions.load(Ordering::Relaxed)
    }
}

/// Which of two credentials of one name stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precedence {
    /// The newer one, where both are one tenant's.
    Newer,
    /// The one that is put.
    Given,
}

fn look_up(map: &DashMap<DnsName, Entry>, name: &str, now: Timestamp) -> Option<Arc<Credential>> {
    let entry = map.get(name)?;
    // Written once a minute, however many come.
    let minute = minute(now);
    if entry.minute.load(Ordering::Relaxed) != minute {
        entry.minute.store(minute, Ordering::Relaxed);
    }
    if entry.credential.facts.not_after <= now {
        return None;
    }
    // Read first: a flag that is set already is not written again by every core.
    if !entry.visited.load(Ordering::Relaxed) {
        entry.visited.store(true, Ordering::Relaxed);
    }
    Some(Arc::clone(&entry.credential))
}

fn minute(now: Timestamp) -> u32 {
    u32::try_from(now.as_seconds() / 60).unwrap_or(0)
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn map(&self, pattern: &NamePattern) -> &DashMap<DnsName, Entry> {
        match pattern {
            NamePattern::Exact(_) => &self.exact,
            NamePattern::Wildcard(_) => &self.wildcard,
        }
    }

    fn insert(
        &self,
        order: &mut Order,
        pattern: &NamePattern,
        credential: &Arc<Credential>,
        precedence: Precedence,
    ) {
        let bytes = credential.weight() + pattern.base().as_str().len() + ENTRY_BYTES;
        if let Some(mut entry) = self.map(pattern).get_mut(pattern.base().as_str()) {
            if precedence == Precedence::Newer && is_newer(&entry.credential, credential) {
                return;
            }
            order.resize(entry.bytes, bytes);
            entry.credential = Arc::clone(credential);
            entry.bytes = bytes;
            return;
        }
        let entry = Entry {
            credential: Arc::clone(credential),
            visited: AtomicBool::new(false),
            minute: AtomicU32::new(0),
            told: AtomicU32::new(0),
            place: order.arrive(pattern, bytes),
            bytes,
        };
        self.map(pattern).insert(pattern.base().clone(), entry);
    }

    /// Takes out what the hand reaches unvisited, until the bound holds.
    fn make_room(&self, order: &mut Order) {
        while order.bytes() > self.most_bytes
            && let Some((pattern, place)) = order.next()
        {
            let visited = match self.map(&pattern).get(pattern.base().as_str()) {
                Some(entry) if entry.place == place => entry.visited.swap(false, Ordering::Relaxed),
                // Removed since, or removed and put again at another place.
                _ => continue,
            };
            if visited {
                order.spare(pattern, place);
            } else {
                self.take(order, &pattern);
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.mirror(order);
    }

    fn take(&self, order: &mut Order, pattern: &NamePattern) {
        if let Some((_, entry)) = self.map(pattern).remove(pattern.base().as_str()) {
            order.leave(entry.bytes);
        }
    }

    /// Keeps the places that removed entries left behind fewer than those taken.
    fn sweep(&self, order: &mut Order) {
        if order.needs_sweep() {
            order.sweep(|pattern, place| {
                let entry = self.map(pattern).get(pattern.base().as_str());
                entry.is_some_and(|entry| entry.place == place)
            });
        }
    }

    fn mirror(&self, order: &Order) {
        self.entries.store(order.entries(), Ordering::Relaxed);
        self.bytes.store(order.bytes(), Ordering::Relaxed);
    }
}

/// Whether `kept` is newer than `offered` and of the same tenant: what another tenant left behind never stays.
fn is_newer(kept: &Credential, offered: &Credential) -> bool {
    let age = |credential: &Credential| (credential.facts.not_before, credential.facts.id);
    kept.tenant() == offered.tenant() && age(kept) > age(offered)
}

#[cfg(test)]
mod tests;
