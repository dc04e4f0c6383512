//! A look at a name for whoever asks, registered or not: what is wrong with it today, and what repairs it. It costs none
//! of an authority's limits and changes nothing.

use std::sync::Arc;

use crate::base::clock::Timestamp;
use crate::certs::preflight::Report;
use crate::certs::preflight::judge::{Reach, Weight};
use crate::control::caller::Grant;
use crate::control::views::{ViewError, Views};
use crate::model::problem::Problem;
use crate::model::{DnsName, NamePattern};
use crate::store::Deadline;
use crate::store::job::JobKey;

/// The label that is looked at in the place of a wildcard's star.
const ANY: &str = "vestibule-check";

/// What was found.
#[derive(Clone, Debug)]
pub struct CheckView {
    /// What was asked about.
    pub pattern: NamePattern,
    /// The name that was looked at: one below the wildcard, where that was asked about.
    pub name: DnsName,
    /// Whether the name leads here.
    pub reached: Reached,
    /// What is wrong, the weightiest first; nothing where all is well.
    pub problems: Vec<CheckProblem>,
    /// What was seen, line by line.
    pub seen: Vec<String>,
    /// The content delivery network in front of the name.
    pub cdn: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// Something wrong with a name.
#[derive(Clone, Debug)]
pub struct CheckProblem {
    /// What it is.
    pub problem: Problem,
    /// Whether an order is spared for it.
    pub blocks: bool,
}

/// Whether a name leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Our own challenge came back.
    Here,
    /// Somebody else answers, or the name does not exist.
    Elsewhere,
    /// It could not be found out.
    Unknown,
}

impl Reached {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Elsewhere => "elsewhere",
            Self::Unknown => "unknown",
        }
    }
}

impl Views {
    /// Looks at a name now: seconds at most, by the `deadline` of `[preflight]`.
    ///
    /// # Errors
    /// [`ViewError::Store`], where it is not known since when the name's problem has been seen; [`ViewError::NotFound`]
    /// where no name can be made of the pattern.
    pub async fn check(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<CheckView, ViewError> {
        let earlier = self.known_problem(grant, pattern).await?;
        let name = looked_at(pattern)
            .ok_or_else(|| ViewError::NotFound(format!("name below {pattern}")))?;
        let report = self.sources().preflight.check(&name).await;
        Ok(view(pattern.clone(), name, &report, earlier.as_ref()))
    }

    async fn known_problem(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<Option<Problem>, ViewError> {
        let (store, scope) = (&self.sources().store, grant.scope());
        let by = Deadline::after(crate::control::views::READ);
        let domain = store.domain(by, scope, pattern).await?;
        let key = JobKey::Certificate(pattern.clone());
        let of_domain = domain.and_then(|domain| domain.problem);
        match of_domain {
            Some(problem) => Ok(Some(problem)),
            None => {
                let job = store.job(by, scope, &key).await?;
                Ok(job.and_then(|job| job.problem))
            }
        }
    }
}

fn looked_at(pattern: &NamePattern) -> Option<DnsName> {
    match pattern {
        NamePattern::Exact(name) => Some(name.clone()),
        NamePattern::Wildcard(parent) => DnsName::parse(&format!("{ANY}.{parent}")).ok(),
    }
}

fn view(
    pattern: NamePattern,
    name: DnsName,
    report: &Arc<Report>,
    earlier: Option<&Problem>,
) -> CheckView {
    let verdicts = report.judgement.verdicts.iter();
    let problems = verdicts.map(|verdict| CheckProblem {
        problem: verdict.problem(earlier, None, report.at),
        blocks: verdict.weight == Weight::Blocks,
    });
    let facts = report.facts.as_ref();
    CheckView {
        problems: problems.collect(),
        seen: facts.map_or_else(Vec::new, |facts| facts.lines()),
        cdn: facts
            .and_then(|facts| facts.fronted_by())
            .map(|cdn| cdn.to_string()),
        reached: match report.judgement.reach {
            Reach::Here => Reached::Here,
            Reach::Elsewhere => Reached::Elsewhere,
            Reach::Untold => Reached::Unknown,
        },
        at: report.at,
        pattern,
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_looked_at_by_a_name_below_it() {
        let looked = |text| {
            looked_at(&NamePattern::parse(text).unwrap())
                .unwrap()
                .to_string()
        };
        assert_eq!(looked("shop.acme.com"), "shop.acme.com");
        assert_eq!(looked("*.acme.com"), "vestibule-check.acme.com");
    }
}
