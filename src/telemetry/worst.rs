//! Which tenants have the most errors, within a fixed amount of memory: the space-saving algorithm.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::TenantId;

/// Tenants watched for each one exposed: the more, the surer the order.
const WATCHED_PER_EXPOSED: usize = 8;

/// Counts errors of at most a fixed number of tenants. When a new one comes and all places are taken, it takes the
/// place of the one with the least; so a tenant with more errors than all/places is never missed.
#[derive(Debug)]
pub struct WorstTenants {
    exposed: usize,
    places: usize,
    counts: Mutex<HashMap<TenantId, Count>>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// Errors counted while it has had its place. Exposed: never too high, and it never falls.
    sure: u64,
    /// What the tenant whose place it took had, at most its own errors before. Decides with `sure` who gives way.
    inherited: u64,
}

impl Count {
    const fn upper(self) -> u64 {
        self.sure.saturating_add(self.inherited)
    }
}

impl WorstTenants {
    /// Exposes the `exposed` worst; none where it is 0.
    #[must_use]
    pub fn new(exposed: usize) -> Self {
        let places = exposed.saturating_mul(WATCHED_PER_EXPOSED);
        Self {
            exposed,
            places,
            counts: Mutex::default(),
        }
    }

    /// Counts an error of `tenant`. Takes a lock: errors are rare, requests do not come by here.
    pub fn count(&self, tenant: &TenantId) {
        if self.places == 0 {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(tenant) {
            count.sure = count.sure.saturating_add(1);
            return;
        }
        let mut inherited = 0;
        if counts.len() >= self.places {
            let least = counts.iter().min_by_key(|(_, count)| count.upper());
            if let Some((tenant, count)) = least.map(|(tenant, count)| (tenant.clone(), *count)) {
                counts.remove(&tenant);
                inherited = count.upper();
            }
        }
        counts.insert(tenant.clone(), Count { sure: 1, inherited });
    }

    /// The worst tenants and their errors, the worst first.
    #[must_use]
    pub fn worst(&self) -> Vec<(TenantId, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<(TenantId, u64)> = counts
            .iter()
            .map(|(tenant, count)| (tenant.clone(), count.sure))
            .collect();
        drop(counts);
        all.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        all.truncate(self.exposed);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn the_worst_stay_and_memory_is_bounded_under_many_tenants() {
        let worst = WorstTenants::new(2);
        for round in 0..1000 {
            worst.count(&tenant("bad"));
            if round % 2 == 0 {
                worst.count(&tenant("poor"));
            }
            worst.count(&tenant(&format!("t{round}")));
        }
        assert_eq!(
            worst.worst(),
            [(tenant("bad"), 1000), (tenant("poor"), 500)]
        );
        assert_eq!(worst.counts.lock().unwrap().len(), 16);
    }

    #[test]
    fn a_tenant_that_took_a_place_does_not_inherit_errors_in_what_is_exposed() {
        let worst = WorstTenants::new(1);
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            (0..5).for_each(|_| worst.count(&tenant(name)));
        }
        worst.count(&tenant("late"));
        let late = worst.counts.lock().unwrap()[&tenant("late")];
        assert_eq!((late.sure, late.inherited), (1, 5));
    }

    #[test]
    fn none_are_kept_where_none_are_exposed() {
        let worst = WorstTenants::new(0);
        worst.count(&tenant("a"));
        assert!(worst.worst().is_empty());
    }
}
