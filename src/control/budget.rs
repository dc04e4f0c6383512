//! What is left of the authorities' limits, and who may take it.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::certs::budget::survey::{BucketSurvey, CaSurvey, ClassSurvey, FamilySurvey, StopSurvey};
use crate::certs::budget::{Renewals, limits};
use crate::control::caller::Grant;
use crate::control::views::{ViewError, Views};
use crate::model::certificate::CaId;

/// How the budget of one authority stands.
#[derive(Clone, Debug)]
pub struct BudgetView {
    /// Which authority.
    pub ca: CaId,
    /// Whether its renewals are charged to orders and registered domains.
    pub renewals_charged: Charged,
    /// What we spend of each limit, in percent.
    pub spend_percent: u32,
    /// A tenant's share of the orders, in percent.
    pub tenant_share_percent: u32,
    /// Until when it wants to be left alone.
    pub stopped_until: Option<Timestamp>,
    /// What each class of new orders may take.
    pub classes: Vec<ClassView>,
    /// Its limits.
    pub limits: Vec<LimitView>,
    /// What it has stopped without a limit of it being known, the longest first.
    pub stops: Vec<StopView>,
}

/// Whether an authority charges renewals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// As it charges new orders.
    Yes,
    /// To neither orders nor registered domains.
    No,
}

/// What a class of new orders may take: `emergency`, `renewal`, `visitor`, `bulk`.
#[derive(Clone, Debug)]
pub struct ClassView {
    /// Which.
    pub class: &'static str,
    /// What it must leave to the classes before it.
    pub reserved: u32,
    /// What it may take now.
    pub left: u32,
    /// When its next order may go; nothing for at once.
    pub next_at: Option<Timestamp>,
}

/// How the buckets of one limit stand.
#[derive(Clone, Debug)]
pub struct LimitView {
    /// What is limited: `orders`, `domain`, `exact_set`, …
    pub bucket: &'static str,
    /// The limit as the authority states it: `300 in 3h`.
    pub limit: String,
    /// What of it we spend at most, at once.
    pub ours: u32,
    /// What is left of that in the emptiest bucket.
    pub left: u32,
    /// Buckets that are not full.
    pub in_use: usize,
    /// The emptiest, ten at most.
    pub emptiest: Vec<BucketView>,
}

/// How one bucket stands.
#[derive(Clone, Debug)]
pub struct BucketView {
    /// What it is for: a name, a registered domain, a tenant; empty for the whole account.
    pub subject: String,
    /// What is left.
    pub left: u32,
    /// When it gives the next; nothing for at once.
    pub next_at: Option<Timestamp>,
    /// Until when the authority has stopped it.
    pub stopped_until: Option<Timestamp>,
}

/// What an authority has stopped of which no limit is known.
#[derive(Clone, Debug)]
pub struct StopView {
    /// What is stopped: `orders`, `domain`, `exact_set`, …
    pub bucket: &'static str,
    /// What it is for: a name, a registered domain; empty for the whole account.
    pub subject: String,
    /// Until when.
    pub stopped_until: Option<Timestamp>,
}

impl Views {
    /// How the budget of every authority stands that has limits or may ask to be left alone. The operator's alone: it is
    /// about all tenants.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn budget(&self, grant: &Grant) -> Result<Vec<BudgetView>, ViewError> {
        if grant.scope().only().is_some() {
            return Err(ViewError::NotFound("budget".to_owned()));
        }
        let sources = self.sources();
        let surveys = sources.budget.survey().await?;
        let now = sources.clock.now();
        Ok(surveys.iter().map(|survey| view(survey, now)).collect())
    }
}

fn view(survey: &CaSurvey, now: Timestamp) -> BudgetView {
    BudgetView {
        ca: survey.ca.clone(),
        renewals_charged: match survey.renewals {
            Renewals::Exempt => Charged::No,
            Renewals::Charged => Charged::Yes,
        },
        spend_percent: percent(survey.shares.spend),
        tenant_share_percent: percent(survey.shares.tenant),
        stopped_until: at(survey.calls_frozen_for, now),
        classes: survey.orders.iter().map(|of| class(of, now)).collect(),
        limits: survey.families.iter().map(|of| limit(of, now)).collect(),
        stops: survey.stops.iter().map(|of| stop(of, now)).collect(),
    }
}

fn percent(share: f64) -> u32 {
    limits::share_of(100, share)
}

/// When something comes that is so far away.
fn at(wait: Duration, now: Timestamp) -> Option<Timestamp> {
    (!wait.is_zero()).then(|| now.plus(wait))
}

fn class(survey: &ClassSurvey, now: Timestamp) -> ClassView {
    ClassView {
        class: survey.class.as_str(),
        reserved: survey.reserved,
        left: survey.left,
        next_at: at(survey.next_in, now),
    }
}

fn limit(survey: &FamilySurvey, now: Timestamp) -> LimitView {
    LimitView {
        bucket: survey.family.as_str(),
        limit: survey.limit.to_string(),
        ours: survey.ours.amount(),
        left: survey.least(),
        in_use: survey.in_use,
        emptiest: survey.emptiest.iter().map(|of| bucket(of, now)).collect(),
    }
}

fn stop(survey: &StopSurvey, now: Timestamp) -> StopView {
    StopView {
        bucket: survey.family.as_str(),
        subject: survey.subject.clone(),
        stopped_until: at(survey.frozen_for, now),
    }
}

fn bucket(survey: &BucketSurvey, now: Timestamp) -> BucketView {
    BucketView {
        subject: survey.subject.clone(),
        left: survey.left,
        next_at: at(survey.next_in, now),
        stopped_until: at(survey.frozen_for, now),
    }
}
