//! What an order costs with one authority: which buckets, how much, for whom.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bucket::BucketName;
use super::limits::{Limit, Limits, Renewals, span};
use super::shares::{Class, Shares, Standing};
use crate::model::certificate::CaId;
use crate::model::problem::ProblemCode;
use crate::model::{DnsName, NamePattern, TenantId};
use crate::store::budget::{BucketCost, Taken};
use crate::telemetry::labels::BudgetFamily as Family;

/// Of the failures in a row after which an authority pauses a name, this part of them stops us: one in so many.
const CONSECUTIVE_PART: u32 = 10;
/// How long the certificate of a name set exempts its next order (Boulder looks back 120 days); a day for clocks.
pub const EXEMPT_FOR: Duration = Duration::from_secs(119 * 86_400);

/// Jobs that wait for the same bucket come back spread over half their wait, but no more than this.
const MOST_SPREAD: Duration = Duration::from_secs(3600);

/// What an authority knows of the names of an order: it decides what the order is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// It has not certified exactly these names within [`EXEMPT_FOR`].
    New,
    /// It has.
    Certified,
    /// The order says which certificate of the authority it replaces (RFC 9773 §5), and comes within the window that the
    /// authority suggests for that.
    Replaces,
}

/// An order as the budget sees it.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Exactly these names.
    pub names: &'a [NamePattern],
    /// Whose share it is.
    pub tenant: &'a TenantId,
    /// How much it may take.
    pub class: Class,
    /// What it is charged to.
    pub history: History,
}

/// The limits of one `[[ca]]` and how they are shared: pure. Cheap to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Book {
    /// Which authority; what its account is limited by is counted under this name.
    pub ca: CaId,
    /// What it bears.
    pub limits: Limits,
    /// Who gets it.
    pub shares: Shares,
}

/// What an order takes, all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// What it takes while its tenant is within its share.
    pub within: Vec<BucketCost>,
    /// What it takes where the tenant's own bucket refuses that: less of the common one.
    pub beyond: Vec<BucketCost>,
    /// What the authority charges only with a certificate: to be given back where none comes of the order.
    pub if_issued: Vec<BucketCost>,
}

/// Why the budget refuses an order for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// With which authority.
    pub ca: CaId,
    /// Which bucket.
    pub bucket: BucketName,
    /// What the authority allows; nothing where that is not known and it only asked to wait.
    pub limit: Option<Limit>,
    /// What of it this order may take at most.
    pub ours: u32,
    /// It can give after so long.
    pub retry_after: Duration,
}

impl Book {
    /// What `order` takes. Where a limit is not known nothing is taken, but a stop is heeded.
    #[must_use]
    pub fn charge(&self, order: &Order<'_>) -> Charge {
        let mut others = vec![self.calls()];
        let mut if_issued = Vec::new();
        let exempt = self.limits.renewals == Renewals::Exempt;
        let charged = match order.history {
            History::Replaces if exempt => return self.only_guards(order.names),
            History::Certified => !exempt,
            History::New | History::Replaces => true,
        };
        if charged {
            for domain in registered_domains(order.names) {
                let name = self.common(Family::Domain, domain);
                let domain = (&name, self.limits.domain);
                if_issued.push(self.reserving(domain, order.class, Standing::Within));
            }
        }
        let set = self.common(Family::ExactSet, set(order.names));
        let exact_set = self.limit(Family::ExactSet);
        if_issued.push(exact_set.map_or_else(|| open(&set), |limit| take(&set, limit, 1)));
        for name in bases(order.names) {
            others.extend(self.failures_left(name));
        }
        others.extend(if_issued.iter().cloned());
        if_issued.retain(|cost| cost.units > 0);
        let mut within = others.clone();
        let mut beyond = Vec::new();
        if charged {
            let account = |standing| {
                let name = self.own(Family::Orders, "");
                self.reserving((&name, self.limits.orders), order.class, standing)
            };
            within.push(account(Standing::Within));
            if let Some(share) = self.share(order) {
                within.push(share);
                beyond = others;
                beyond.push(account(Standing::Beyond));
            }
        }
        Charge {
            within,
            beyond,
            if_issued,
        }
    }

    /// An order that is charged to nothing still waits while the authority asks to be left alone, and while one failure
    /// more of its names might have them paused: a pause is looked at whatever the order says.
    fn only_guards(&self, names: &[NamePattern]) -> Charge {
        let mut within = vec![self.calls()];
        for name in bases(names) {
            within.extend(self.may_fail(name, Family::ConsecutiveFailures));
        }
        Charge {
            within,
            ..Charge::default()
        }
    }

    /// Takes nothing, and is refused while the authority has asked to be left alone.
    #[must_use]
    pub fn calls(&self) -> BucketCost {
        open(&self.own(Family::Calls, ""))
    }

    /// The tenant's share; emergencies need none, nor does anybody where orders are not limited.
    fn share(&self, order: &Order<'_>) -> Option<BucketCost> {
        let share = self.limit(Family::TenantShare)?;
        let name = self.own(Family::TenantShare, order.tenant);
        (order.class != Class::Emergency).then(|| take(&name, share, 1))
    }

    fn reserving(
        &self,
        (name, limit): (&BucketName, Option<Limit>),
        class: Class,
        standing: Standing,
    ) -> BucketCost {
        let Some(limit) = limit else {
            return open(name);
        };
        let limit = self.shares.spent(limit);
        BucketCost {
            capacity: self.shares.capacity(limit.amount(), class, standing),
            ..take(name, limit, 1)
        }
    }

    /// Whether `name` may fail once more: takes nothing.
    fn failures_left(&self, name: &DnsName) -> impl Iterator<Item = BucketCost> {
        let stopped = || open(&self.own(Family::Failures, name));
        let failures = self.may_fail(name, Family::Failures);
        let in_a_row = self.may_fail(name, Family::ConsecutiveFailures);
        std::iter::once(failures.unwrap_or_else(stopped)).chain(in_a_row)
    }

    /// The same, as far as one limit goes.
    fn may_fail(&self, name: &DnsName, family: Family) -> Option<BucketCost> {
        let limit = self.limit(family)?;
        Some(BucketCost {
            capacity: limit.amount().saturating_sub(1),
            ..take(&self.own(family, name), limit, 0)
        })
    }

    /// What a failed validation of `name` has cost already.
    #[must_use]
    pub fn failed(&self, name: &DnsName) -> Vec<BucketCost> {
        let families = [Family::Failures, Family::ConsecutiveFailures];
        let costs = families.into_iter().filter_map(|family| {
            let limit = self.limit(family)?;
            Some(take(&self.own(family, name), limit, 1))
        });
        costs.collect()
    }

    /// The buckets that a success of `name` fills.
    #[must_use]
    pub fn succeeded(&self, name: &DnsName) -> Vec<String> {
        let counted = self.limits.consecutive.is_some();
        let bucket = self.own(Family::ConsecutiveFailures, name);
        counted.then(|| bucket.to_string()).into_iter().collect()
    }

    /// The buckets that an authority means which refuses an order of `names` for this reason: they are empty. Nothing
    /// where the reason is no limit.
    #[must_use]
    pub fn meant_by(&self, code: ProblemCode, names: &[NamePattern]) -> Vec<BucketName> {
        let each = |family| {
            bases(names)
                .into_iter()
                .map(move |name| self.own(family, name))
        };
        if code == ProblemCode::RateLimitedAccount {
            vec![self.own(Family::Orders, "")]
        } else if code == ProblemCode::RateLimitedDomain {
            let domains = registered_domains(names).into_iter();
            domains
                .map(|domain| self.common(Family::Domain, domain))
                .collect()
        } else if code == ProblemCode::RateLimitedExactSet {
            vec![self.common(Family::ExactSet, set(names))]
        } else if code == ProblemCode::RateLimitedFailures {
            each(Family::Failures).collect()
        } else if code == ProblemCode::CaOutage {
            vec![self.own(Family::Calls, "")]
        } else {
            Vec::new()
        }
    }

    /// What empties `bucket`; nothing where we know of no such limit.
    #[must_use]
    pub fn all_of(&self, bucket: &BucketName) -> Option<BucketCost> {
        let limit = self.limit(bucket.family)?;
        Some(take(bucket, limit, limit.amount()))
    }

    /// What we spend of the limit of a family; nothing where there is none.
    #[must_use]
    pub fn limit(&self, family: Family) -> Option<Limit> {
        if family == Family::ConsecutiveFailures {
            let limit = self.limits.consecutive?;
            let most = (limit.amount() / CONSECUTIVE_PART).max(1);
            return Some(Limit::new(most, limit.refill().saturating_mul(most)));
        }
        if family == Family::TenantShare {
            return self.shares.tenant(self.limits.orders?);
        }
        self.published(family).map(|limit| self.shares.spent(limit))
    }

    /// The limit of a family as the authority states it.
    #[must_use]
    pub const fn published(&self, family: Family) -> Option<Limit> {
        match family {
            Family::Calls => None,
            Family::Orders | Family::TenantShare => self.limits.orders,
            Family::Domain => self.limits.domain,
            Family::ExactSet => self.limits.exact_set,
            Family::Failures => self.limits.failures,
            Family::ConsecutiveFailures => self.limits.consecutive,
        }
    }

    /// Who counts what belongs to a family.
    #[must_use]
    pub fn counter(&self, family: Family) -> &str {
        match family {
            Family::Domain | Family::ExactSet => &self.limits.operator,
            Family::Calls
            | Family::Orders
            | Family::Failures
            | Family::ConsecutiveFailures
            | Family::TenantShare => self.ca.as_str(),
        }
    }

    /// A refusal of the store, in our words.
    #[must_use]
    pub fn denied(&self, costs: &[BucketCost], bucket: &str, retry_after: Duration) -> Box<Denied> {
        let name = BucketName::parse(bucket)
            .unwrap_or_else(|| BucketName::new(Family::Calls, self.ca.as_str(), ""));
        let cost = costs.iter().find(|cost| cost.bucket == bucket);
        let ours = cost.map_or(0, |cost| cost.capacity + u32::from(cost.units == 0));
        Box::new(Denied {
            ca: self.ca.clone(),
            limit: self.published(name.family),
            bucket: name,
            ours,
            retry_after,
        })
    }

    /// Whether a refusal says no more than that the tenant has used its share: [`Charge::beyond`] may still be given.
    #[must_use]
    pub fn is_share(taken: &Taken) -> bool {
        let Taken::Denied { bucket, .. } = taken else {
            return false;
        };
        BucketName::parse(bucket).is_some_and(|name| name.family == Family::TenantShare)
    }

    fn own(&self, family: Family, subject: impl fmt::Display) -> BucketName {
        BucketName::new(family, self.ca.as_str(), subject)
    }

    fn common(&self, family: Family, subject: impl fmt::Display) -> BucketName {
        BucketName::new(family, &self.limits.operator, subject)
    }
}

fn take(name: &BucketName, limit: Limit, units: u32) -> BucketCost {
    BucketCost {
        bucket: name.to_string(),
        units,
        refill: limit.refill(),
        capacity: limit.amount(),
        whole: limit.amount(),
    }
}

/// Takes nothing, and is refused while the bucket is stopped: all that can be asked of one whose limit is not known.
fn open(name: &BucketName) -> BucketCost {
    BucketCost {
        bucket: name.to_string(),
        units: 0,
        refill: Duration::from_secs(1),
        capacity: 1,
        whole: 1,
    }
}

/// When a job comes back whose bucket gives again after `wait`: not at once with all others that wait for it. `random` is
/// in 0..1.
#[must_use]
pub fn comes_back_after(wait: Duration, random: f64) -> Duration {
    let spread = (wait / 2).min(MOST_SPREAD);
    wait.saturating_add(spread.mul_f64(random.clamp(0.0, 1.0)))
}

/// The registered domains of the names, each once. That of a wildcard is that of the name below it.
fn registered_domains(names: &[NamePattern]) -> BTreeSet<DnsName> {
    let domains = names.iter().map(|name| name.base().registered_domain());
    domains.collect()
}

/// What has to be proved, each once.
fn bases(names: &[NamePattern]) -> BTreeSet<&DnsName> {
    names.iter().map(NamePattern::base).collect()
}

/// The subject of a set of names: the name itself, or a digest of several.
fn set(names: &[NamePattern]) -> String {
    let sorted: BTreeSet<String> = names.iter().map(NamePattern::to_string).collect();
    let mut sorted = sorted.into_iter();
    match (sorted.next(), sorted.len()) {
        (Some(only), 0) => only,
        (first, _) => {
            let mut context = digest::Context::new(&digest::SHA256);
            for name in first.into_iter().chain(sorted) {
                context.update(name.as_bytes());
                context.update(b",");
            }
            format!("sha256-{}", URL_SAFE_NO_PAD.encode(context.finish()))
        }
    }
}

impl Denied {
    /// The problem that a tenant and the operator read.
    #[must_use]
    pub const fn code(&self) -> ProblemCode {
        match self.bucket.family {
            Family::Calls => ProblemCode::CaOutage,
            Family::Orders | Family::TenantShare => ProblemCode::RateLimitedAccount,
            Family::Domain => ProblemCode::RateLimitedDomain,
            Family::ExactSet => ProblemCode::RateLimitedExactSet,
            Family::Failures | Family::ConsecutiveFailures => ProblemCode::RateLimitedFailures,
        }
    }

    /// Which bucket, and its numbers.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let mut evidence = vec![format!("bucket {}", self.bucket)];
        if let Some(limit) = self.limit {
            let per = span(limit.refill());
            evidence.push(format!(
                "the CA allows {limit}, one more each {per}; this order may take {} of them",
                self.ours
            ));
        }
        let wait = self.retry_after.as_secs().max(1);
        evidence.push(format!("it can give again in {wait} s"));
        evidence
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ca, subject) = (&self.ca, &self.bucket.subject);
        match self.bucket.family {
            Family::Calls => write!(f, "{ca} asks to be left alone for a while"),
            Family::Orders => write!(
                f,
                "the new orders of the account with {ca} are used up for now"
            ),
            Family::TenantShare => write!(
                f,
                "the tenant's share of the orders with {ca} is used up for now"
            ),
            Family::Domain => write!(
                f,
                "the certificates of {subject} with {ca} are used up for now"
            ),
            Family::ExactSet => write!(
                f,
                "{ca} has certified exactly these names as often as it does for now"
            ),
            Family::Failures => write!(
                f,
                "{subject} was validated in vain by {ca} as often as it does for now"
            ),
            Family::ConsecutiveFailures => {
                write!(
                    f,
                    "{subject} was validated in vain by {ca} so often that it would be paused there soon"
                )
            }
        }
    }
}
