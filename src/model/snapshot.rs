//! What the workers serve from: every known name and every route, immutable, swapped as a whole.
//!
//! `control::publish` is its only builder. The names lie in shards, so that a change copies one shard and
//! shares the others.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::model::route::{Route, RouteScope, UpstreamName};
use crate::model::{DnsName, NamePattern, TenantId};

const SHARDS: usize = 256;

/// A domain as traffic sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDomain {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Whether it is answered; a suspended domain is known and refused.
    pub served: bool,
    /// The upstream that the permission hook chose for it, before any route of its tenant.
    pub upstream: Option<UpstreamName>,
}

/// Every known name and every route at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    hasher: RandomState,
    shards: Box<[Arc<Shard>]>,
    routes: Arc<Routes>,
    complete: bool,
}

type Shard = ByPattern<Arc<KnownDomain>>;

impl Default for Snapshot {
    fn default() -> Self {
        Self::empty()
    }
}

impl Snapshot {
    /// A snapshot that knows nothing yet, and says so: see [`Snapshot::is_complete`].
    #[must_use]
    pub fn empty() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            routes: Arc::default(),
            complete: false,
        }
    }

    /// Whether every registered name is in it: only then does an absent name mean an unknown one.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Says that every registered name is in it.
    pub const fn mark_complete(&mut self) {
        self.complete = true;
    }

    /// The domain that `name` belongs to: exact, then by one wildcard parent. Allocates nothing.
    #[must_use]
    pub fn domain(&self, name: &DnsName) -> Option<&Arc<KnownDomain>> {
        let exact = self
            .shard(name.as_str())
            .and_then(|shard| shard.exact.get(name.as_str()));
        exact.or_else(|| {
            let (_, parent) = name.as_str().split_once('.')?;
            self.shard(parent)?.wildcard.get(parent)
        })
    }

    /// The domain registered under exactly this pattern.
    #[must_use]
    pub fn exact(&self, pattern: &NamePattern) -> Option<&Arc<KnownDomain>> {
        self.shard(pattern.base().as_str())?.get(pattern)
    }

    /// Adds or replaces domains: copies only the shards they lie in.
    pub fn put(&mut self, domains: impl IntoIterator<Item = (NamePattern, KnownDomain)>) {
        for (pattern, domain) in domains {
            let index = self.shard_of(pattern.base().as_str());
            if let Some(shard) = self.shards.get_mut(index) {
                Arc::make_mut(shard).insert(pattern, Arc::new(domain));
            }
        }
    }

    /// Takes a domain out: copies only the shard it lies in.
    pub fn remove(&mut self, pattern: &NamePattern) {
        let index = self.shard_of(pattern.base().as_str());
        if let Some(shard) = self.shards.get_mut(index)
            && shard.get(pattern).is_some()
        {
            Arc::make_mut(shard).remove(pattern);
        }
    }

    /// Replaces the routes.
    pub fn set_routes(&mut self, routes: Routes) {
        self.routes = Arc::new(routes);
    }

    /// The routes.
    #[must_use]
    pub const fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// How many names it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.exact.len() + shard.wildcard.len())
            .sum()
    }

    /// Whether it knows no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every name with its domain, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (NamePattern, &Arc<KnownDomain>)> {
        self.shards.iter().flat_map(|shard| {
            let exact = shard
                .exact
                .iter()
                .map(|(name, domain)| (NamePattern::Exact(name.clone()), domain));
            let wild = shard.wildcard.iter();
            exact.chain(wild.map(|(name, domain)| (NamePattern::Wildcard(name.clone()), domain)))
        })
    }

    fn shard(&self, base: &str) -> Option<&Arc<Shard>> {
        self.shards.get(self.shard_of(base))
    }

    fn shard_of(&self, base: &str) -> usize {
        usize::try_from(self.hasher.hash_one(base) % SHARDS as u64).unwrap_or(0)
    }
}

/// Values by pattern, found by `&str` without building a pattern.
#[derive(Clone, Debug)]
struct ByPattern<T> {
    exact: HashMap<DnsName, T>,
    wildcard: HashMap<DnsName, T>,
}

impl<T> Default for ByPattern<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }
}

impl<T> ByPattern<T> {
    fn get(&self, pattern: &NamePattern) -> Option<&T> {
        match pattern {
            NamePattern::Exact(name) => self.exact.get(name),
            NamePattern::Wildcard(parent) => self.wildcard.get(parent),
        }
    }

    fn insert(&mut self, pattern: NamePattern, value: T) {
        match pattern {
            NamePattern::Exact(name) => self.exact.insert(name, value),
            NamePattern::Wildcard(parent) => self.wildcard.insert(parent, value),
        };
    }

    fn remove(&mut self, pattern: &NamePattern) {
        match pattern {
            NamePattern::Exact(name) => self.exact.remove(name),
            NamePattern::Wildcard(parent) => self.wildcard.remove(parent),
        };
    }
}

/// Routes by scope, the longest path first within each, and what upstreams there are by name.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    hosts: ByPattern<Vec<Arc<Route>>>,
    tenants: HashMap<TenantId, Vec<Arc<Route>>>,
    everyone: Vec<Arc<Route>>,
    /// For each upstream, a route that leads every path there: for domains whose upstream a hook chose.
    upstreams: HashMap<UpstreamName, Arc<Route>>,
}

impl Routes {
    /// Sorts routes by scope. Of two with the same scope and path the first wins.
    #[must_use]
    pub fn new(routes: Vec<Route>, whole_upstreams: Vec<Route>) -> Self {
        let mut sorted = Self::default();
        for route in routes {
            let route = Arc::new(route);
            match &route.scope {
                RouteScope::Host(NamePattern::Exact(host)) => {
                    sorted
                        .hosts
                        .exact
                        .entry(host.clone())
                        .or_default()
                        .push(route);
                }
                RouteScope::Host(NamePattern::Wildcard(parent)) => {
                    sorted
                        .hosts
                        .wildcard
                        .entry(parent.clone())
                        .or_default()
                        .push(route);
                }
                RouteScope::Tenant(id) => sorted.tenants.entry(id.clone()).or_default().push(route),
                RouteScope::Everyone => sorted.everyone.push(route),
            }
        }
        let hosts = sorted
            .hosts
            .exact
            .values_mut()
            .chain(sorted.hosts.wildcard.values_mut());
        for list in hosts
            .chain(sorted.tenants.values_mut())
            .chain([&mut sorted.everyone])
        {
            list.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        }
        let whole = whole_upstreams.into_iter();
        sorted.upstreams = whole
            .map(|route| (route.upstream.name.clone(), Arc::new(route)))
            .collect();
        sorted
    }

    /// Candidate lists for a host of a tenant, narrowest first; in each the longest path comes first.
    #[must_use]
    pub fn candidates<'a>(&'a self, host: &DnsName, tenant: &TenantId) -> [&'a [Arc<Route>]; 4] {
        let list = |found: Option<&'a Vec<Arc<Route>>>| found.map_or(&[][..], Vec::as_slice);
        let parent = host.as_str().split_once('.').map(|(_, parent)| parent);
        [
            list(self.hosts.exact.get(host)),
            list(parent.and_then(|parent| self.hosts.wildcard.get(parent))),
            list(self.tenants.get(tenant)),
            &self.everyone,
        ]
    }

    /// The route that leads every path to the named upstream.
    #[must_use]
    pub fn to_upstream(&self, name: &UpstreamName) -> Option<&Arc<Route>> {
        self.upstreams.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(tenant: &str) -> KnownDomain {
        KnownDomain {
            tenant: TenantId::parse(tenant).unwrap(),
            served: true,
            upstream: None,
        }
    }

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    #[test]
    fn the_exact_name_wins_over_its_wildcard_parent() {
        let mut snapshot = Snapshot::empty();
        snapshot.put([
            (pattern("*.example.com"), known("wide")),
            (pattern("a.example.com"), known("own")),
        ]);
        let tenant = |name| {
            snapshot
                .domain(&DnsName::parse(name).unwrap())
                .map(|d| d.tenant.as_str().to_owned())
        };
        assert_eq!(tenant("a.example.com").as_deref(), Some("own"));
        assert_eq!(tenant("b.example.com").as_deref(), Some("wide"));
        assert_eq!(tenant("example.com"), None);
        assert_eq!(tenant("x.b.example.com"), None);
    }

    #[test]
    fn a_change_copies_one_shard_and_leaves_old_readers_alone() {
        let mut first = Snapshot::empty();
        first.put((0..1000).map(|n| (pattern(&format!("n{n}.test")), known("t"))));
        let mut second = first.clone();
        second.remove(&pattern("n7.test"));
        let same = |(a, b): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(a, b);
        assert_eq!(
            first
                .shards
                .iter()
                .zip(&second.shards)
                .filter(|pair| same(*pair))
                .count(),
            SHARDS - 1
        );
        assert_eq!((first.len(), second.len()), (1000, 999));
    }
}
