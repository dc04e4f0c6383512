//! Which of an upstream's addresses a request goes to: the one with the fewest requests from this worker, in turns
//! where several have as few; one that just failed is left out for a while.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::base::backoff::Backoff;
use crate::base::clock::Instant;

/// How long an address that failed is left out, where there are others.
const EJECTION: Backoff = Backoff {
    first: Duration::from_secs(1),
    factor: 2,
    most: Duration::from_secs(30),
};
/// A retry costs as much as this many requests bring.
const REQUESTS_PER_RETRY: u32 = 10;
/// Retries that may be saved up.
const MOST_RETRIES: u32 = 10;

/// The addresses of one upstream, as this worker knows them.
#[derive(Debug, Default)]
pub(super) struct Balance {
    addresses: RefCell<Vec<Rc<Address>>>,
    turn: Cell<usize>,
    retries: RetryBudget,
}

/// One address.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) at: SocketAddr,
    requests: Cell<usize>,
    failures: Cell<u32>,
    left_out_until: Cell<Option<Instant>>,
}

impl Address {
    fn new(at: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            at,
            requests: Cell::new(0),
            failures: Cell::new(0),
            left_out_until: Cell::new(None),
        })
    }

    /// It failed to connect, or broke a new connection off.
    pub(super) fn failed(&self, now: Instant) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        self.left_out_until
            .set(Some(now + EJECTION.after(failures)));
    }

    /// It answered.
    pub(super) fn succeeded(&self) {
        if self.failures.get() > 0 {
            self.failures.set(0);
            self.left_out_until.set(None);
        }
    }

    fn is_left_out(&self, now: Instant) -> bool {
        self.left_out_until.get().is_some_and(|until| now < until)
    }
}

/// A request at an address, until dropped.
#[derive(Debug)]
pub(super) struct InFlight(Rc<Address>);

impl InFlight {
    pub(super) fn at(address: Rc<Address>) -> Self {
        address.requests.set(address.requests.get() + 1);
        Self(address)
    }

    pub(super) fn address(&self) -> &Address {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get().saturating_sub(1));
    }
}

impl Balance {
    /// Takes over where the upstream is now; addresses that stay keep what is known of them.
    pub(super) fn follow(&self, resolved: &[SocketAddr]) {
        let mut addresses = self.addresses.borrow_mut();
        let same = addresses.len() == resolved.len()
            && addresses
                .iter()
                .zip(resolved)
                .all(|(own, at)| own.at == *at);
        if same {
            return;
        }
        let known = |at: &SocketAddr| addresses.iter().find(|own| own.at == *at).cloned();
        let next = resolved
            .iter()
            .map(|at| known(at).unwrap_or_else(|| Address::new(*at)))
            .collect();
        *addresses = next;
    }

    /// The address for a request that has `tried` others in vain. Where all that are left failed lately, the one
    /// that will be back first: never none because of failures alone.
    pub(super) fn choose(&self, tried: &[SocketAddr], now: Instant) -> Option<Rc<Address>> {
        let addresses = self.addresses.borrow();
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        let start = turn.checked_rem(addresses.len())?;
        let (after, before) = addresses.split_at_checked(start)?;
        let mut in_turn = before.iter().chain(after);
        let mut best: Option<&Rc<Address>> = None;
        let order = |address: &Address| {
            let left_out = address
                .left_out_until
                .get()
                .filter(|_| address.is_left_out(now));
            (left_out, address.requests.get())
        };
        for address in &mut in_turn {
            if tried.contains(&address.at) {
                continue;
            }
            // `None`, not left out, comes before every `Some`.
            if best.is_none_or(|best| order(address) < order(best)) {
                best = Some(address);
            }
        }
        best.cloned()
    }

    /// What retries may use up.
    pub(super) const fn retries(&self) -> &RetryBudget {
        &self.retries
    }
}

/// Keeps retries to about a tenth of requests, so that they do not multiply the load of an upstream in trouble.
#[derive(Debug)]
pub(super) struct RetryBudget(Cell<u32>);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Cell::new(REQUESTS_PER_RETRY * MOST_RETRIES))
    }
}

impl RetryBudget {
    /// A request brings its share.
    pub(super) fn earn(&self) {
        let more = self.0.get().saturating_add(1);
        self.0.set(more.min(REQUESTS_PER_RETRY * MOST_RETRIES));
    }

    /// Pays for a retry, if there is enough.
    pub(super) fn spend(&self) -> bool {
        match self.0.get().checked_sub(REQUESTS_PER_RETRY) {
            Some(left) => {
                self.0.set(left);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::monotonic;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn balance(ports: &[u16]) -> Balance {
        let balance = Balance::default();
        balance.follow(&ports.iter().map(|port| address(*port)).collect::<Vec<_>>());
        balance
    }

    #[test]
    fn takes_turns_where_all_are_as_busy_and_prefers_the_least_busy() {
        let (balance, now) = (balance(&[1, 2, 3]), monotonic());
        let pick = || balance.choose(&[], now).unwrap();
        let mut first: Vec<u16> = (0..3).map(|_| pick().at.port()).collect();
        first.sort_unstable();
        assert_eq!(first, [1, 2, 3]);
        let busy: Vec<InFlight> = (0..3).map(|_| InFlight::at(pick())).collect();
        let fourth = InFlight::at(pick());
        assert_eq!(fourth.address().requests.get(), 2, "all had one");
        drop(busy);
        assert_ne!(pick().at, fourth.address().at);
    }

    #[test]
    fn one_that_failed_is_left_out_and_comes_back_by_itself_or_when_it_answers() {
        let (balance, now) = (balance(&[1, 2]), monotonic());
        let bad = balance.choose(&[address(2)], now).unwrap();
        bad.failed(now);
        for _ in 0..4 {
            assert_eq!(balance.choose(&[], now).unwrap().at.port(), 2);
        }
        let later = now + Duration::from_secs(1);
        let seen: Vec<u16> = (0..2)
            .map(|_| balance.choose(&[], later).unwrap().at.port())
            .collect();
        assert!(seen.contains(&1), "{seen:?}");
        bad.failed(now);
        bad.succeeded();
        assert!(!bad.is_left_out(now));
    }

    #[test]
    fn failures_alone_never_leave_no_address_and_tried_ones_are_not_tried_again() {
        let (balance, now) = (balance(&[1, 2]), monotonic());
        let second = balance.choose(&[address(1)], now).unwrap();
        second.failed(now);
        second.failed(now);
        let first = balance.choose(&[], now).unwrap();
        first.failed(now);
        assert_eq!(balance.choose(&[], now).unwrap().at.port(), 1, "back first");
        assert_eq!(balance.choose(&[address(1)], now).unwrap().at.port(), 2);
        assert!(balance.choose(&[address(1), address(2)], now).is_none());
        assert!(Balance::default().choose(&[], now).is_none());
    }

    #[test]
    fn a_changed_list_keeps_what_is_known_of_those_that_stay() {
        let (balance, now) = (balance(&[1, 2]), monotonic());
        balance.choose(&[address(2)], now).unwrap().failed(now);
        balance.follow(&[address(3), address(1)]);
        for _ in 0..3 {
            assert_eq!(balance.choose(&[], now).unwrap().at.port(), 3);
        }
    }

    #[test]
    fn retries_are_a_tenth_of_requests() {
        let budget = RetryBudget::default();
        while budget.spend() {}
        let mut retries = 0;
        for _ in 0..1000 {
            budget.earn();
            retries += usize::from(budget.spend());
        }
        assert_eq!(retries, 100);
    }
}
