//! From what was seen to what is wrong: pure.

use std::net::IpAddr;

use crate::base::clock::Timestamp;
use crate::certs::preflight::facts::{Facts, Fetch, Found};
use crate::certs::problem::fix;
use crate::dns::examine::{Answer, Signatures, Witness};
use crate::model::edge::Edge;
use crate::model::problem::{Problem, ProblemCode};
use crate::model::{DnsName, NamePattern};
use crate::net::address::is_public;

/// What is wrong, the weightiest first, and whether we are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What is wrong; nothing where all is well.
    pub verdicts: Vec<Verdict>,
    /// Whether the name leads here.
    pub reach: Reach,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What.
    pub code: ProblemCode,
    /// One sentence for a person.
    pub detail: String,
    /// What was seen.
    pub evidence: Vec<String>,
    /// The exact record or command that repairs it.
    pub fix: String,
    /// Whether an order is spared for it.
    pub weight: Weight,
}

/// Whether a verdict keeps an order from being placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It does: every authority would meet the same.
    Blocks,
    /// It does not: an authority may see more than we do.
    Tells,
}

/// Whether our own challenge is reached through public DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At one address at least.
    Here,
    /// For sure not: others answer everywhere, or the name does not exist.
    Elsewhere,
    /// We could not find out.
    Untold,
}

impl Judgement {
    /// Nothing is known but that we could not find out.
    #[must_use]
    pub fn check_failed(name: &DnsName, detail: &str, edge: &Edge) -> Self {
        let judge = Judge { name, edge };
        Self {
            verdicts: vec![judge.verdict(
                ProblemCode::CheckFailed,
                Weight::Tells,
                detail.to_owned(),
                Vec::new(),
            )],
            reach: Reach::Untold,
        }
    }

    /// The verdict for which no order is placed, if any.
    #[must_use]
    pub fn block(&self) -> Option<&Verdict> {
        self.verdicts
            .iter()
            .find(|verdict| verdict.weight == Weight::Blocks)
    }

    /// The weightiest verdict that says something about the domain.
    #[must_use]
    pub fn definite(&self) -> Option<&Verdict> {
        self.verdicts
            .iter()
            .find(|verdict| verdict.code != ProblemCode::CheckFailed)
    }
}

impl Verdict {
    /// As the problem of a domain whose last problem was `earlier`: first seen when that was, where it is the same.
    #[must_use]
    pub fn problem(
        &self,
        earlier: Option<&Problem>,
        next_retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Problem {
        Problem {
            code: self.code,
            actor: self.code.actor(),
            detail: self.detail.clone(),
            evidence: self.evidence.clone(),
            fix: Some(self.fix.clone()),
            first_seen: earlier
                .filter(|earlier| earlier.code == self.code)
                .map_or(now, |earlier| earlier.first_seen),
            last_seen: now,
            next_retry_at,
        }
    }
}

/// Judges what was seen.
#[must_use]
pub fn judge(facts: &Facts, edge: &Edge) -> Judgement {
    let judge = Judge {
        name: &facts.name,
        edge,
    };
    let mut verdicts = Vec::new();
    verdicts.extend(judge.signatures(facts));
    let any_address = facts.records.addresses().next().is_some();
    match any_address {
        true => verdicts.extend(judge.addresses(facts)),
        false => verdicts.extend(judge.no_address(facts)),
    }
    verdicts.sort_by_key(|verdict| verdict.weight == Weight::Tells);
    Judgement {
        verdicts,
        reach: judge.reach(facts),
    }
}

/// What a problem that an authority reported comes to, given what was seen right after: its code stands unless the cause
/// behind it was found.
#[must_use]
pub fn refine(problem: Problem, earlier: Option<&Problem>, judgement: &Judgement) -> Problem {
    let Some(verdict) = judgement.definite().filter(|_| is_refined(problem.code)) else {
        return problem;
    };
    let seen = [&*problem.evidence, &*verdict.evidence].concat();
    Problem {
        evidence: seen,
        next_retry_at: problem.next_retry_at,
        ..verdict.problem(earlier, None, problem.last_seen)
    }
}

/// Whether a code tells of a name that could not be proved, without its cause.
#[must_use]
pub const fn is_refined(code: ProblemCode) -> bool {
    matches!(
        code,
        ProblemCode::DnsNxdomain
            | ProblemCode::DnsServfail
            | ProblemCode::HttpUnreachable
            | ProblemCode::HttpWrongBody
            | ProblemCode::RedirectLoop
            | ProblemCode::TlsAlpnIntercepted
            | ProblemCode::GeoBlocked
            | ProblemCode::MpicDisagree
            | ProblemCode::Unknown
    )
}

struct Judge<'a> {
    name: &'a DnsName,
    edge: &'a Edge,
}

impl Judge<'_> {
    fn verdict(
        &self,
        code: ProblemCode,
        weight: Weight,
        detail: String,
        evidence: Vec<String>,
    ) -> Verdict {
        let pattern = NamePattern::Exact(self.name.clone());
        Verdict {
            code,
            detail,
            evidence,
            fix: fix(code, &pattern, self.edge),
            weight,
        }
    }

    fn signatures(&self, facts: &Facts) -> Option<Verdict> {
        let zone = self.name.registered_domain();
        let (witness, weight) = match facts.records.signatures {
            Signatures::Good | Signatures::Untold => return None,
            Signatures::Bogus(Witness::Resolver) => (
                "the resolver refuses the name, and answers once it is told not to check signatures",
                Weight::Blocks,
            ),
            // Our own reading of the chain alone is not enough to keep an order back.
            Signatures::Bogus(Witness::Chain) => (
                "the chain of trust from the root breaks at the name",
                Weight::Tells,
            ),
        };
        let detail =
            format!("the DNSSEC signatures of {zone} do not verify, and no authority issues then");
        let evidence = [vec![witness.to_owned()], facts.records.lines()].concat();
        Some(self.verdict(ProblemCode::DnssecBogus, weight, detail, evidence))
    }

    /// There is no address at all: why.
    fn no_address(&self, facts: &Facts) -> Option<Verdict> {
        let (name, records) = (self.name, &facts.records);
        let bogus = matches!(records.signatures, Signatures::Bogus(_));
        if bogus {
            return None;
        }
        let fails = records.ipv4 == Answer::Servfail || records.ipv6 == Answer::Servfail;
        let untold =
            matches!(records.ipv4, Answer::Untold(_)) || matches!(records.ipv6, Answer::Untold(_));
        let absent = matches!(records.ipv4, Answer::Nxdomain(_))
            || matches!(records.ipv6, Answer::Nxdomain(_));
        // A name that does not exist, or has no address, cannot be proved by anybody.
        let sure = !fails && !untold && self.holds_for_others(facts);
        let weight = |sure: bool| match sure {
            true => Weight::Blocks,
            false => Weight::Tells,
        };
        let (code, weight, detail) = if records.is_circle(name) {
            let way = [&[name.to_string()], &*records.aliases].concat();
            let detail = format!(
                "the aliases of {name} lead in a circle: {}",
                way.join(" → ")
            );
            let surely = self.holds_for_others(facts) && name.has_public_suffix();
            (ProblemCode::CnameWrongTarget, weight(surely), detail)
        } else if fails {
            let detail = format!("the name servers of {name} fail to answer");
            (ProblemCode::DnsServfail, Weight::Tells, detail)
        } else if untold {
            let detail = format!("the records of {name} could not be read");
            (ProblemCode::CheckFailed, Weight::Tells, detail)
        } else if let Some(alias) = facts.records.aliases.last() {
            let detail = format!("{name} is an alias of {alias}, which has no address");
            (
                ProblemCode::CnameWrongTarget,
                weight(sure && name.has_public_suffix()),
                detail,
            )
        } else if absent {
            let detail = format!("{name} does not exist in DNS");
            let surely = sure && records.is_surely_nowhere();
            (ProblemCode::DnsNxdomain, weight(surely), detail)
        } else {
            let detail = format!(
                "{name} exists in DNS and leads nowhere: it has no A, AAAA or CNAME record"
            );
            (
                ProblemCode::CnameMissing,
                weight(sure && name.has_public_suffix()),
                detail,
            )
        };
        Some(self.verdict(code, weight, detail, records.lines()))
    }

    fn addresses(&self, facts: &Facts) -> Vec<Verdict> {
        let ours = facts.fetches.iter().any(|fetch| fetch.found == Found::Ours);
        match ours {
            true => self.astray(facts),
            false => self.unreached(facts).into_iter().collect(),
        }
    }

    /// We are reached, but not at every address: authorities ask at one of them, and prefer IPv6.
    fn astray(&self, facts: &Facts) -> Vec<Verdict> {
        let wrong = |family: fn(&IpAddr) -> bool| {
            let wrong = facts.fetches.iter().filter(move |fetch| {
                family(&fetch.address) && (fetch.is_elsewhere() || fetch.found == Found::NotPublic)
            });
            wrong.map(Fetch::to_string).collect::<Vec<_>>()
        };
        let (ipv4, ipv6) = (wrong(IpAddr::is_ipv4), wrong(IpAddr::is_ipv6));
        let mut verdicts = Vec::new();
        if !ipv6.is_empty() {
            let detail = format!(
                "an AAAA record of {} leads elsewhere, and authorities prefer IPv6",
                self.name
            );
            verdicts.push(self.verdict(ProblemCode::WrongAaaa, Weight::Tells, detail, ipv6));
        }
        if !ipv4.is_empty() {
            let detail = format!("one of the A records of {} leads elsewhere", self.name);
            verdicts.push(self.verdict(ProblemCode::WrongA, Weight::Tells, detail, ipv4));
        }
        verdicts
    }

    /// We are reached at no address.
    fn unreached(&self, facts: &Facts) -> Option<Verdict> {
        let name = self.name;
        let mut evidence: Vec<String> = facts.fetches.iter().map(Fetch::to_string).collect();
        evidence.extend(
            facts
                .records
                .aliases
                .iter()
                .map(|alias| format!("CNAME {alias}")),
        );
        evidence.extend(facts.served.as_ref().map(ToString::to_string));
        let answered: Vec<&Fetch> = facts
            .fetches
            .iter()
            .filter(|fetch| matches!(fetch.found, Found::Other { .. } | Found::Loop(_)))
            .collect();
        let weight = match self.others_answer(facts) {
            true => Weight::Blocks,
            false => Weight::Tells,
        };
        if answered.is_empty() {
            return self.silent(facts, evidence);
        }
        let loops = answered
            .iter()
            .all(|fetch| matches!(fetch.found, Found::Loop(_)));
        let own = answered
            .iter()
            .all(|fetch| self.is_own(fetch.address, facts));
        let (code, detail) = if let Some(cdn) = answered.iter().find_map(|fetch| fetch.cdn) {
            let detail = format!("{cdn} answers for {name} and does not pass our challenge on");
            (ProblemCode::CdnInFront, detail)
        } else if loops {
            let detail = format!(
                "what answers for {name} redirects our challenge without end, or where no authority follows"
            );
            (ProblemCode::RedirectLoop, detail)
        } else if own {
            let detail = format!(
                "{name} leads here, and as seen from this machine something else answers on port {}: another program, or a \
                 router that does not lead our own public address back to us",
                self.edge.http_port
            );
            (ProblemCode::HttpWrongBody, detail)
        } else if let Some(alias) = facts.records.aliases.first() {
            let detail = format!("{name} is an alias of {alias}, which does not lead here");
            (ProblemCode::CnameWrongTarget, detail)
        } else if answered.iter().any(|fetch| fetch.address.is_ipv4()) {
            let detail = format!("the A records of {name} lead to another server");
            (ProblemCode::WrongA, detail)
        } else {
            let detail = format!("the AAAA records of {name} lead to another server");
            (ProblemCode::WrongAaaa, detail)
        };
        Some(self.verdict(code, weight, detail, evidence))
    }

    /// Nobody answered: where the addresses are ours, it is our own network that does not lead back to us.
    fn silent(&self, facts: &Facts, evidence: Vec<String>) -> Option<Verdict> {
        let name = self.name;
        let all = |is: &dyn Fn(&Fetch) -> bool| facts.fetches.iter().all(is);
        let (code, detail) = if all(&|fetch| self.is_own(fetch.address, facts)) {
            let detail = format!(
                "{name} leads here, and this machine does not reach its own public address: that says nothing about others"
            );
            (ProblemCode::CheckFailed, detail)
        } else if all(&|fetch| fetch.found == Found::NoRoute) {
            let detail = format!("this machine has no route to the addresses of {name}");
            (ProblemCode::CheckFailed, detail)
        } else if all(&|fetch| matches!(fetch.found, Found::NotPublic | Found::NoRoute)) {
            let detail =
                format!("the addresses of {name} are private: no public authority can reach them");
            let code = match facts.fetches.iter().any(|fetch| fetch.address.is_ipv4()) {
                true => ProblemCode::WrongA,
                false => ProblemCode::WrongAaaa,
            };
            (code, detail)
        } else {
            let detail = format!(
                "nobody answers for {name} on port {} as seen from here",
                self.edge.http_port
            );
            (ProblemCode::HttpUnreachable, detail)
        };
        Some(self.verdict(code, Weight::Tells, detail, evidence))
    }

    fn reach(&self, facts: &Facts) -> Reach {
        let fetches = &facts.fetches;
        if fetches.iter().any(|fetch| fetch.found == Found::Ours) {
            return Reach::Here;
        }
        let nowhere = facts.records.is_surely_nowhere() && self.holds_for_others(facts);
        match self.others_answer(facts) || nowhere {
            true => Reach::Elsewhere,
            false => Reach::Untold,
        }
    }

    /// Whether somebody else answers at every address, none of which is ours. Where the edge is not described nobody knows
    /// which are: behind NAT it may be our own router that answers, as seen from inside.
    fn others_answer(&self, facts: &Facts) -> bool {
        let is_other = |fetch: &Fetch| fetch.is_elsewhere() && !self.is_own(fetch.address, facts);
        self.edge.is_described() && !facts.fetches.is_empty() && facts.fetches.iter().all(is_other)
    }

    /// Whether what our resolver denies is denied to others too. Many an operator's own zone has a private view that is
    /// asked here: it shows where the edge's own name leads to a private address, and cannot be told where that name is in
    /// the same zone or the edge is not described. An alias of ours that leads nowhere is our own trouble.
    fn holds_for_others(&self, facts: &Facts) -> bool {
        let zone = self.name.registered_domain();
        let target = self.edge.cname_target.as_ref();
        let is_our_zone = target.is_some_and(|target| target.registered_domain() == zone);
        self.edge.is_described()
            && !is_our_zone
            && facts.edge_addresses.iter().copied().all(is_public)
            && !self.is_alias_of_ours(facts)
    }

    /// Whether an address is this edge's, as far as the configuration and the edge's own name tell.
    fn is_own(&self, address: IpAddr, facts: &Facts) -> bool {
        self.edge.has_address(address)
            || facts.edge_addresses.contains(&address)
            || self.is_alias_of_ours(facts)
    }

    fn is_alias_of_ours(&self, facts: &Facts) -> bool {
        let target = self.edge.cname_target.as_ref();
        target.is_some_and(|target| {
            facts
                .records
                .aliases
                .iter()
                .any(|alias| alias == target.as_str())
        })
    }
}

#[cfg(test)]
mod tests;
