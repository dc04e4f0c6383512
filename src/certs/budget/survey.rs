//! What is left of each limit now, read from the store: for operators and metrics.

use std::cmp::Reverse;
use std::time::Duration;

use super::book::Book;
use super::bucket::BucketName;
use super::keeper::Keeper;
use super::limits::{Limit, Renewals};
use super::shares::{Class, Shares};
use crate::base::task::Tasks;
use crate::model::certificate::CaId;
use crate::store::budget::BucketRecord;
use crate::store::{Deadline, PageRequest, StoreError};
use crate::telemetry::labels::BudgetFamily as Family;

/// Pages of one family that are read: buckets beyond them are not told of.
const MOST_PAGES: usize = 20;
/// Buckets of a family that are told one by one, the emptiest.
const MOST_TOLD: usize = 10;
/// How long one call of the store may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for the metrics.
const EVERY: Duration = Duration::from_secs(30);

/// How the budget of one authority stands.
#[derive(Clone, Debug, PartialEq)]
pub struct CaSurvey {
    /// Which authority.
    pub ca: CaId,
    /// Whether renewals are charged.
    pub renewals: Renewals,
    /// How it is shared.
    pub shares: Shares,
    /// For how long it still wants to be left alone; nothing where it does not.
    pub calls_frozen_for: Duration,
    /// Its limits; one that it does not set is not here.
    pub families: Vec<FamilySurvey>,
    /// What it has stopped of what no limit of it is known.
    pub stops: Vec<StopSurvey>,
    /// What each class of new orders may take at present, where orders are limited.
    pub orders: Vec<ClassSurvey>,
}

/// How the buckets of one limit stand.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilySurvey {
    /// Which.
    pub family: Family,
    /// The limit as the authority states it.
    pub limit: Limit,
    /// What we spend of it.
    pub ours: Limit,
    /// Buckets that are not full, as far as they were read.
    pub in_use: usize,
    /// The emptiest of them, the emptiest first.
    pub emptiest: Vec<BucketSurvey>,
}

impl FamilySurvey {
    /// What is left in the emptiest bucket.
    #[must_use]
    pub fn least(&self) -> u32 {
        self.emptiest
            .first()
            .map_or_else(|| self.ours.amount(), |bucket| bucket.left)
    }

    /// For how long the authority has stopped one, the longest.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        let stops = self.emptiest.iter().map(|bucket| bucket.frozen_for);
        stops.max().unwrap_or_default()
    }
}

/// How one bucket stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSurvey {
    /// What it is for: a name, a registered domain, a tenant; empty for the account.
    pub subject: String,
    /// What is left of what we spend.
    pub left: u32,
    /// It gives the next unit after so long; at once where that is nothing.
    pub next_in: Duration,
    /// The authority has stopped it for so long.
    pub frozen_for: Duration,
}

/// A bucket without a known limit that the authority has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSurvey {
    /// What is stopped.
    pub family: Family,
    /// What it is for: a name, a registered domain; empty for the account.
    pub subject: String,
    /// For so long.
    pub frozen_for: Duration,
}

/// What a class of orders may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassSurvey {
    /// Which.
    pub class: Class,
    /// What it must leave to the classes before it.
    pub reserved: u32,
    /// What it may take now.
    pub left: u32,
    /// When its next order may go.
    pub next_in: Duration,
}

impl Keeper {
    /// How every authority's budget stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn survey(&self) -> Result<Vec<CaSurvey>, StoreError> {
        let mut surveys = Vec::new();
        for book in self.books() {
            surveys.push(self.survey_of(&book).await?);
        }
        Ok(surveys)
    }

    async fn survey_of(&self, book: &Book) -> Result<CaSurvey, StoreError> {
        let calls = self.buckets(book, Family::Calls).await?;
        let calls_frozen_for = calls.iter().map(|record| record.frozen_for).max();
        let mut survey = CaSurvey {
            ca: book.ca.clone(),
            renewals: book.limits.renewals,
            shares: book.shares,
            calls_frozen_for: calls_frozen_for.unwrap_or_default(),
            families: Vec::new(),
            stops: Vec::new(),
            orders: Vec::new(),
        };
        for family in Family::ALL {
            let limits = book.published(*family).zip(book.limit(*family));
            let Some((limit, ours)) = limits else {
                // What calls are stopped for is told already.
                if *family != Family::Calls {
                    let records = self.buckets(book, *family).await?;
                    survey.stops.extend(stops(*family, &records));
                }
                continue;
            };
            let records = self.buckets(book, *family).await?;
            if *family == Family::Orders {
                let account = records.first();
                let class = |class| class_survey(book, ours, account, class);
                survey.orders = Class::ALL.map(class).to_vec();
            }
            let mut emptiest: Vec<BucketSurvey> =
                records.iter().map(|record| bucket(record, ours)).collect();
            emptiest.sort_by(|a, b| {
                let key = |of: &BucketSurvey| (of.frozen_for.is_zero(), of.left);
                key(a).cmp(&key(b)).then_with(|| a.subject.cmp(&b.subject))
            });
            emptiest.truncate(MOST_TOLD);
            survey.families.push(FamilySurvey {
                family: *family,
                limit,
                ours,
                in_use: records.len(),
                emptiest,
            });
        }
        Ok(survey)
    }

    async fn buckets(&self, book: &Book, family: Family) -> Result<Vec<BucketRecord>, StoreError> {
        let prefix = BucketName::prefix(family, book.counter(family));
        let mut records = Vec::new();
        let mut page = PageRequest::first();
        for _ in 0..MOST_PAGES {
            let by = Deadline::after(PATIENCE);
            let read = self.store().buckets(by, &prefix, &page).await?;
            records.extend(read.items);
            match read.next {
                Some(next) => page = PageRequest::following(next),
                None => break,
            }
        }
        Ok(records)
    }

    /// Keeps the metrics of budgets up to date, until the group is cancelled. Where the store fails, the last answer
    /// stands.
    pub async fn watch(self, tasks: Tasks) {
        let cancelled = tasks.token();
        let looks = async {
            loop {
                if let Ok(surveys) = self.survey().await {
                    surveys.iter().for_each(|survey| self.tell(survey));
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        cancelled.run_until_cancelled(looks).await;
    }

    fn tell(&self, survey: &CaSurvey) {
        let metrics = self.metrics();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let frozen = seconds(survey.calls_frozen_for);
        metrics.budget_frozen.set(&survey.ca, Family::Calls, frozen);
        let unlimited = Family::ALL
            .iter()
            .filter(|family| survey.families.iter().all(|known| known.family != **family));
        for family in unlimited.filter(|family| **family != Family::Calls) {
            let stops = survey.stops.iter().filter(|stop| stop.family == *family);
            let longest = stops.map(|stop| stop.frozen_for).max();
            let frozen = seconds(longest.unwrap_or_default());
            metrics.budget_frozen.set(&survey.ca, *family, frozen);
        }
        for family in &survey.families {
            let left = i64::from(family.least());
            metrics.budget_left.set(&survey.ca, family.family, left);
            let frozen = seconds(family.longest_stop());
            metrics.budget_frozen.set(&survey.ca, family.family, frozen);
        }
    }
}

/// The longest first, as many as are told one by one.
fn stops(family: Family, records: &[BucketRecord]) -> Vec<StopSurvey> {
    let stopped = records.iter().filter(|record| !record.frozen_for.is_zero());
    let mut stops: Vec<StopSurvey> = stopped
        .map(|record| StopSurvey {
            family,
            subject: subject(record),
            frozen_for: record.frozen_for,
        })
        .collect();
    stops.sort_by_key(|stop| Reverse(stop.frozen_for));
    stops.truncate(MOST_TOLD);
    stops
}

fn subject(record: &BucketRecord) -> String {
    let name = BucketName::parse(&record.bucket);
    name.map(|name| name.subject).unwrap_or_default()
}

fn bucket(record: &BucketRecord, ours: Limit) -> BucketSurvey {
    BucketSurvey {
        subject: subject(record),
        left: record.left(ours.refill(), ours.amount()),
        next_in: next_in(Some(record), ours, ours.amount()),
        frozen_for: record.frozen_for,
    }
}

fn class_survey(
    book: &Book,
    ours: Limit,
    account: Option<&BucketRecord>,
    class: Class,
) -> ClassSurvey {
    let reserved = book.shares.reserved(ours.amount(), class);
    let capacity = ours.amount().saturating_sub(reserved);
    let left = account.map_or(capacity, |record| record.left(ours.refill(), capacity));
    ClassSurvey {
        class,
        reserved,
        left,
        next_in: next_in(account, ours, capacity),
    }
}

/// When a bucket of this rate gives one unit more to those who may take it down by `capacity`.
fn next_in(record: Option<&BucketRecord>, ours: Limit, capacity: u32) -> Duration {
    let Some(record) = record else {
        return Duration::ZERO;
    };
    let room = ours.refill().saturating_mul(capacity.saturating_sub(1));
    // What was taken while the clock was ahead leaves it empty at worst.
    let full_in = record
        .full_in
        .min(ours.refill().saturating_mul(ours.amount()));
    full_in.saturating_sub(room).max(record.frozen_for)
}
