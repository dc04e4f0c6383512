//! A look at a name for whoever asks, registered or not: what is wrong with it today, and what repairs it. It costs none
//! of an authority's limits and changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::clock::Timestamp;
use crate::certs::authorities::ruling::{Question, Ruling, Rulings};
use crate::certs::preflight::Report;
use crate::certs::preflight::judge::{Reach, Weight};
use crate::certs::problem::fix;
use crate::control::caller::Grant;
use crate::control::views::{READ, ViewError, Views};
use crate::dns::caa::CaaSet;
use crate::model::certificate::CaId;
use crate::model::edge::Edge;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::{DnsName, NamePattern};
use crate::store::Deadline;
use crate::store::job::JobKey;
use crate::store::record::DomainRecord;

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
    /// What the CAA records say; nothing where only authorities of our own would be asked.
    pub caa: Option<CaaView>,
    /// When.
    pub at: Timestamp,
}

/// What the CAA records of a name say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaView {
    /// Whose records count, the nearest up the tree; nobody's where there are none.
    pub at: Option<DnsName>,
    /// The records, as a zone file has them.
    pub records: Vec<String>,
    /// Why they could not be read.
    pub unread: Option<String>,
    /// What they say about each authority, the preferred first.
    pub authorities: Vec<CaaAuthority>,
}

/// What CAA says about one authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaAuthority {
    /// Its name.
    pub ca: CaId,
    /// Whether it may issue; nothing where nobody knows.
    pub permitted: Option<bool>,
    /// Why, in a few words.
    pub why: String,
    /// The record that decided.
    pub decided_by: Option<String>,
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
        let name = looked_at(pattern)
            .ok_or_else(|| ViewError::NotFound(format!("name below {pattern}")))?;
        let sources = self.sources();
        let by = Deadline::after(READ);
        let domain = sources.store.domain(by, grant.scope(), pattern).await?;
        let tenant = domain.as_ref().map(|domain| domain.tenant.clone());
        let earlier = self.known_problem(grant, pattern, domain).await?;
        let accounts = self.account_urls().await?;
        let question = Question {
            pattern,
            tenant: tenant.as_ref(),
            methods: sources.preflight.challenge_order(),
            accounts: &accounts,
        };
        let (report, rulings) = tokio::join!(
            sources.preflight.check(&name),
            sources.authorities.rulings(&question)
        );
        let mut view = view(pattern.clone(), name, &report, earlier.as_ref());
        if let Some(rulings) = rulings {
            view.add_caa(&rulings, earlier.as_ref(), &sources.edge.load());
        }
        Ok(view)
    }

    async fn known_problem(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
        domain: Option<DomainRecord>,
    ) -> Result<Option<Problem>, ViewError> {
        let of_domain = domain.and_then(|domain| domain.problem);
        if of_domain.is_some() {
            return Ok(of_domain);
        }
        let key = JobKey::Certificate(pattern.clone());
        let by = Deadline::after(READ);
        let job = self.sources().store.job(by, grant.scope(), &key).await?;
        Ok(job.and_then(|job| job.problem))
    }

    async fn account_urls(&self) -> Result<HashMap<CaId, String>, ViewError> {
        let mut urls = HashMap::new();
        for authority in self.sources().authorities.all() {
            let ca = authority.id();
            if let Some(url) = self.account_url(ca).await? {
                urls.insert(ca.clone(), url);
            }
        }
        Ok(urls)
    }
}

impl CheckView {
    /// Adds what CAA says; it is a problem where no authority may issue and nothing else told so already.
    fn add_caa(&mut self, rulings: &Rulings, earlier: Option<&Problem>, edge: &Edge) {
        use ProblemCode::{DnsServfail, DnssecBogus};
        if let Some((ca, why)) = rulings.obstacle() {
            let code = why.code();
            // A validating resolver fails for what is bogus: the same trouble under its better name.
            let is_told = |found: &CheckProblem| {
                let told = found.problem.code;
                told == code || (told == DnssecBogus && code == DnsServfail)
            };
            if !self.problems.iter().any(is_told) {
                let problem = Problem {
                    code,
                    actor: code.actor(),
                    detail: format!("{ca} {why}"),
                    evidence: why.evidence(),
                    fix: why.fix().or_else(|| Some(fix(code, &self.pattern, edge))),
                    first_seen: earlier
                        .filter(|earlier| earlier.code == code)
                        .map_or(self.at, |earlier| earlier.first_seen),
                    last_seen: self.at,
                    next_retry_at: None,
                };
                let blocks = true;
                self.problems.push(CheckProblem { problem, blocks });
            }
        }
        let (set, unread) = match &rulings.found {
            Ok(set) => (Some(set), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let authorities = rulings.authorities.iter();
        self.caa = Some(CaaView {
            at: set.and_then(|set| set.at.clone()),
            records: set.map_or_else(Vec::new, CaaSet::lines),
            unread,
            authorities: authorities
                .map(|(ca, ruling)| CaaAuthority::of(ca, ruling))
                .collect(),
        });
    }
}

impl CaaAuthority {
    fn of(ca: &CaId, ruling: &Ruling) -> Self {
        let (permitted, why, decided_by) = match ruling {
            Ruling::OwnAuthority => (Some(true), "CAA is not about a CA of your own".into(), None),
            Ruling::Permitted(None) => (Some(true), "no record says who may issue".into(), None),
            Ruling::Permitted(by) => (Some(true), "a record names it".into(), by.clone()),
            Ruling::Forbidden { why, by } => (Some(false), format!("it {why}"), by.clone()),
            Ruling::Unknown(why) => (None, why.clone(), None),
        };
        Self {
            ca: ca.clone(),
            permitted,
            why,
            decided_by,
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
        caa: None,
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
