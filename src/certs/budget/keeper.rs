//! The budget over the store: asked before each order, and told what became of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::book::{Book, Charge, Denied, EXEMPT_FOR, History, Order};
use super::limits::{Limits, Renewals};
use super::scarcity::Scarcity;
use super::shares::{Class, Shares};
use crate::base::clock::{Instant, Timestamp, monotonic};
use crate::base::published::Published;
use crate::model::NamePattern;
use crate::model::certificate::{CaId, CertificateFacts};
use crate::store::budget::{BucketCost, Taken};
use crate::store::job::{Paces, Priority};
use crate::store::{Deadline, PageRequest, Store, StoreError};
use crate::telemetry::labels::BudgetFamily as Family;
use crate::telemetry::metrics::Metrics;

/// How long one call of the store may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the authorities bear and how it is shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Who gets how much.
    pub shares: Shares,
    /// The limits of each authority; one that is not here, as a private one, is never asked about.
    pub limits: BTreeMap<CaId, Limits>,
}

/// Asks the store's buckets. Clones are the same.
#[derive(Clone)]
pub struct Keeper(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    settings: Published<Settings>,
    metrics: Metrics,
    started: Instant,
    scarcity: Mutex<Scarcity>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("settings", &self.0.settings.load())
            .finish_non_exhaustive()
    }
}

/// Why an order may not be placed now.
#[derive(Debug)]
pub enum TakeError {
    /// The budget does not give.
    Denied(Box<Denied>),
    /// The store failed: whether it would is not known.
    Store(StoreError),
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => denied.fmt(f),
            Self::Store(_) => f.write_str("the store failed while the budget was asked"),
        }
    }
}

impl std::error::Error for TakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Denied(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<StoreError> for TakeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Keeper {
    /// Over the buckets of `store`; `settings` are read anew for every order.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: Published<Settings>, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            store,
            settings,
            metrics,
            started: monotonic(),
            scarcity: Mutex::default(),
        }))
    }

    /// The book of an authority; nothing for one that is not limited at all.
    #[must_use]
    pub fn book(&self, ca: &CaId) -> Option<Book> {
        let settings = self.0.settings.load();
        let limits = settings.limits.get(ca)?;
        Some(Book {
            ca: ca.clone(),
            limits: limits.clone(),
            shares: settings.shares,
        })
    }

    /// The books of all authorities that are limited, or may ask to be left alone.
    pub(super) fn books(&self) -> Vec<Book> {
        let settings = self.0.settings.get();
        settings
            .limits
            .keys()
            .filter_map(|ca| self.book(ca))
            .collect()
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// What the authority of `book` knows of exactly these names, from the certificates that we have had for them.
    #[must_use]
    pub fn history<'a>(
        &self,
        book: &Book,
        names: &[NamePattern],
        had: impl IntoIterator<Item = &'a CertificateFacts>,
        now: Timestamp,
    ) -> History {
        let settings = self.0.settings.load();
        let same_operator = |ca: &CaId| {
            let limits = settings.limits.get(ca);
            limits.is_some_and(|limits| limits.operator == book.limits.operator)
        };
        let counts = |facts: &CertificateFacts| {
            now.since(facts.not_before) < EXEMPT_FOR
                && same_operator(&facts.ca)
                && facts.names.len() == names.len()
                && names.iter().all(|name| facts.names.contains(name))
        };
        match book.limits.renewals == Renewals::Exempt && had.into_iter().any(counts) {
            true => History::Certified,
            false => History::New,
        }
    }

    /// Whether the authority may be called at all: not while it has asked to be left alone.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn calls(&self, book: &Book) -> Result<(), TakeError> {
        let cost = book.calls();
        let (by, page) = (Deadline::after(PATIENCE), PageRequest::first());
        let found = self.0.store.buckets(by, &cost.bucket, &page).await?;
        let frozen = found.items.into_iter().map(|record| record.frozen_for);
        match frozen.max().filter(|wait| !wait.is_zero()) {
            Some(wait) => Err(self.denied(
                book,
                book.denied(std::slice::from_ref(&cost), &cost.bucket, wait),
            )),
            None => Ok(()),
        }
    }

    /// Takes what `order` costs, all or nothing.
    ///
    /// # Errors
    /// [`TakeError`].
    pub async fn take(&self, book: &Book, order: &Order<'_>) -> Result<Charge, TakeError> {
        let charge = book.charge(order);
        let mut costs = &charge.within;
        let mut taken = self.ask(costs).await?;
        if Book::is_share(&taken) {
            costs = &charge.beyond;
            taken = self.ask(costs).await?;
        }
        match taken {
            Taken::Granted => {
                self.plenty(order.class);
                Ok(charge)
            }
            Taken::Denied {
                bucket,
                retry_after,
            } => {
                let denied = book.denied(costs, &bucket, retry_after);
                self.note_scarce(&denied, order.class);
                Err(self.denied(book, denied))
            }
        }
    }

    async fn ask(&self, costs: &[BucketCost]) -> Result<Taken, StoreError> {
        let by = Deadline::after(PATIENCE);
        self.0.store.take(by, costs).await
    }

    fn denied(&self, book: &Book, denied: Box<Denied>) -> TakeError {
        let denials = &self.0.metrics.budget_denials;
        denials.count(&book.ca, denied.bucket.family);
        TakeError::Denied(denied)
    }

    /// How freely jobs are to be claimed now.
    #[must_use]
    pub fn paces(&self) -> Paces {
        let now = self.elapsed();
        self.scarcity().paces(now)
    }

    /// Why due jobs of this priority wait to be claimed, where an authority's budget is the reason.
    #[must_use]
    pub fn held(&self, priority: Priority) -> Option<Denied> {
        let now = self.elapsed();
        self.scarcity().held(priority, now)
    }

    /// The account itself gives nothing to this class.
    fn note_scarce(&self, denied: &Denied, class: Class) {
        if matches!(denied.bucket.family, Family::Orders | Family::Calls) {
            let now = self.elapsed();
            self.scarcity().note(class, denied, now);
        }
    }

    fn plenty(&self, class: Class) {
        self.scarcity().plenty(class);
    }

    fn elapsed(&self) -> Duration {
        monotonic().saturating_duration_since(self.0.started)
    }

    fn scarcity(&self) -> MutexGuard<'_, Scarcity> {
        let scarcity = self.0.scarcity.lock();
        scarcity.unwrap_or_else(PoisonError::into_inner)
    }
}
