//! A look at a name for whoever asks, registered or not: what is wrong with it today, and what repairs it. It costs none
//! of an authority's limits and changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::clock::Timestamp;
use crate::certs::authorities::ruling::{Question, Ruling, Rulings};
use crate::certs::policy::Denial;
use crate::certs::preflight::Report;
use crate::certs::preflight::judge::{Reach, Weight};
use crate::certs::problem::fix as fix_of;
use crate::control::caller::Grant;
use crate::control::views::{READ, ViewError, Views};
use crate::dns::caa::CaaSet;
use crate::model::certificate::CaId;
use crate::model::domain::DomainState;
use crate::model::edge::Edge;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::{DnsName, NamePattern, TenantId};
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
    /// As what it is registered here; nothing where it is not.
    pub registered: Option<Registered>,
    /// The port that authorities ask at.
    pub http_port: u16,
    /// The ports that this edge itself listens at for HTTP; none where that is not known.
    pub http_listening: Vec<u16>,
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

/// As what a name is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Itself, or the wildcard above it.
    pub pattern: NamePattern,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its state, as stored: whether it is served.
    pub state: DomainState,
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
        let domain = self.registration(grant, pattern).await?;
        let registered = domain.as_ref().map(Registered::from);
        let tenant = registered.as_ref().map(|found| found.tenant.clone());
        let itself = domain.filter(|domain| domain.pattern == *pattern);
        let earlier = self.known_problem(grant, pattern, itself).await?;
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
        let edge = sources.edge.load();
        let mut view = CheckView {
            registered,
            http_port: edge.http_port,
            http_listening: edge.http_listening.clone(),
            ..view(pattern.clone(), name, &report, (earlier.as_ref(), &edge))
        };
        if let Some(denial) = sources.authorities.none_certifies(&question) {
            view.add_denial(&denial, earlier.as_ref(), &edge);
        }
        if let Some(rulings) = rulings {
            view.add_caa(&rulings, earlier.as_ref(), &edge);
        }
        Ok(view)
    }

    /// The domain that serves the name: itself, else the wildcard above it.
    async fn registration(
        &self,
        grant: &Grant,
        pattern: &NamePattern,
    ) -> Result<Option<DomainRecord>, ViewError> {
        let store = &self.sources().store;
        let found = store.domain(Deadline::after(READ), grant.scope(), pattern);
        let above = match (found.await?, pattern) {
            (Some(domain), _) => return Ok(Some(domain)),
            (None, NamePattern::Exact(name)) => name.parent().map(NamePattern::Wildcard),
            (None, NamePattern::Wildcard(_)) => None,
        };
        match above {
            Some(above) => Ok(store
                .domain(Deadline::after(READ), grant.scope(), &above)
                .await?),
            None => Ok(None),
        }
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

impl From<&DomainRecord> for Registered {
    fn from(domain: &DomainRecord) -> Self {
        Self {
            pattern: domain.pattern.clone(),
            tenant: domain.tenant.clone(),
            state: domain.state,
        }
    }
}

impl CheckView {
    /// Adds that no authority would be asked, as a domain says it that waits for one.
    fn add_denial(&mut self, denial: &Denial, earlier: Option<&Problem>, edge: &Edge) {
        let code = denial.code();
        let detail = denial.to_string();
        let fix = denial.fix();
        self.add_problem(Problem {
            code,
            actor: code.actor(),
            detail,
            evidence: denial.evidence(),
            fix: fix.or_else(|| Some(fix_of(code, &self.pattern, edge))),
            first_seen: self.first_seen(code, earlier),
            last_seen: self.at,
            next_retry_at: None,
        });
    }

    /// Adds a problem for which no order is placed.
    fn add_problem(&mut self, problem: Problem) {
        let blocks = true;
        self.problems.push(CheckProblem { problem, blocks });
    }

    fn first_seen(&self, code: ProblemCode, earlier: Option<&Problem>) -> Timestamp {
        let same = earlier.filter(|earlier| earlier.code == code);
        same.map_or(self.at, |earlier| earlier.first_seen)
    }

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
                self.add_problem(Problem {
                    code,
                    actor: code.actor(),
                    detail: format!("{ca} {why}"),
                    evidence: why.evidence(),
                    fix: why
                        .fix()
                        .or_else(|| Some(fix_of(code, &self.pattern, edge))),
                    first_seen: self.first_seen(code, earlier),
                    last_seen: self.at,
                    next_retry_at: None,
                });
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
    (earlier, edge): (Option<&Problem>, &Edge),
) -> CheckView {
    let verdicts = report.judgement.verdicts.iter();
    let problems = verdicts.map(|verdict| {
        let mut problem = verdict.problem(earlier, None, report.at);
        if pattern.is_wildcard() {
            // Not the name below it that was looked at: the wildcard is what is to lead here.
            problem.fix = Some(fix_of(problem.code, &pattern, edge));
        }
        CheckProblem {
            problem,
            blocks: verdict.weight == Weight::Blocks,
        }
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
        registered: None,
        http_port: 80,
        http_listening: Vec::new(),
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
