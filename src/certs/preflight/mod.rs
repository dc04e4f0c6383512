//! A look at a name before an authority is asked, and after it refused: no authority is asked for it, so it costs none
//! of its limits.
//!
//! Records and signatures are looked up ([`examine`](crate::dns::examine)), our own challenge is asked for at every
//! address over port 80 ([`probe`]), the certificate that the name serves today is looked at. [`judge`] turns what was
//! seen ([`facts`]) into verdicts, pure. A handshake never waits for any of it: before its first order only what is
//! remembered counts.
//!
//! # What keeps an order back
//!
//! A wrong order costs one of five failures an hour, and the back-off bounds it. A wrong block keeps a customer without
//! HTTPS for as long as our view of the world is wrong, and nobody is told by an authority that it is. So an order is
//! kept back only where every authority must meet the same:
//!
//! - the name does not exist, in a zone's own words (NXDOMAIN with the zone's SOA, below a public suffix), or exists
//!   without any address, or its aliases lead in a circle;
//! - the resolver refuses the name for its DNSSEC signatures, and answers once it is told not to check them;
//! - somebody else answers at **every** address, none of which is this edge's, with more than a refusal to talk to us
//!   (401, 403, 429, 5xx): those keep robots out and may let an authority in.
//!
//! All else only tells: SERVFAIL (authorities have other resolvers), no answer (their networks are others), our own
//! public address that cannot be reached from inside or where our own router answers, private addresses and denials of a
//! private view (split-horizon DNS), one wrong address among right ones. Where the edge is not described in the
//! configuration, nobody can tell our own addresses from others: but for signatures, nothing is kept back. And a renewal of
//! what is nearly over is kept back by nothing. "Could not check" never blocks.

pub mod facts;

pub mod judge;

pub mod cdn;

mod probe;

pub mod moved;

mod watched;

pub mod watch;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use tokio::sync::Semaphore;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::base::clock::{Clock, Instant, Timestamp, monotonic};
use crate::base::published::Published;
use crate::certs::challenge::Challenges;
use crate::certs::preflight::facts::{Facts, Fetch, Found, Served};
use crate::certs::preflight::judge::Judgement;
use crate::certs::preflight::probe::Probe;
use crate::certs::preflight::watched::{Watched, is_of_dns};
use crate::certs::settings::Obtain;
use crate::dns::examine::{Examiner, Records};
use crate::model::challenge::ChallengeOrder;
use crate::model::domain::DomainState;
use crate::model::edge::Edge;
use crate::model::problem::ProblemCode;
use crate::model::reach::ReachMemory;
use crate::model::{DnsName, NamePattern, TenantId};
use crate::net::direct;
use crate::store::record::DomainRecord;

/// Checks at once; further ones wait, within their deadline.
const AT_ONCE: usize = 16;
/// Addresses of one name that are asked at once.
const FETCHES: usize = 4;
/// Looking at the certificate that is served.
const LOOK: Duration = Duration::from_secs(3);
/// Names whose last report is remembered.
const MOST_REMEMBERED: usize = 10_000;
/// How long a report is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How names are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether at all. Default: [`Mode::On`].
    pub mode: Mode,
    /// How long one check may take. Default 10 s.
    pub deadline: Duration,
    /// Which addresses may be dialled. Default: [`Dial::PublicAndOwn`].
    pub dial: Dial,
    /// How often the records of a domain that waits for its DNS are looked at in the first hour. Default 1 minute.
    pub recheck: Duration,
    /// How long a domain whose DNS leads elsewhere must have gone without a visitor to be called moved. Default 7 days.
    pub moved_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::On,
            deadline: Duration::from_secs(10),
            dial: Dial::PublicAndOwn,
            recheck: Duration::from_secs(60),
            moved_after: Duration::from_secs(7 * 86_400),
        }
    }
}

/// Whether names are checked before an order and after a failure; when asked for by hand they always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// Which addresses may be dialled for a name that a stranger's DNS describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// Public ones, and those of this edge.
    PublicAndOwn,
    /// Private, loopback and link-local ones too: the authority is one of our own.
    Any,
}

/// How much of a name is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// All of it.
    ForReaders,
    /// What a verdict may rest on. What the name serves today is evidence alone, and where we cannot reach ourselves from
    /// inside the handshake ends with its deadline: only where the order is held back is it asked for.
    ForDecisions,
}

/// What a check needs.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Looks names up.
    pub examiner: Examiner,
    /// Where our own challenge is published.
    pub challenges: Challenges,
    /// What the outside sees of this edge.
    pub edge: Published<Edge>,
    /// Read anew for every check.
    pub settings: Published<crate::certs::Settings>,
    /// The time.
    pub clock: Clock,
}

/// Checks names. Clones are the same.
#[derive(Clone)]
pub struct Preflight(Arc<Shared>);

struct Shared {
    parts: Parts,
    places: Semaphore,
    reports: Mutex<HashMap<DnsName, Arc<Report>>>,
    watched: Mutex<Watched>,
}

impl fmt::Debug for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preflight").finish_non_exhaustive()
    }
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was seen; nothing where the check was not done in time.
    pub facts: Option<Facts>,
    /// What is wrong.
    pub judgement: Judgement,
    /// When it was done.
    pub at: Timestamp,
    noted: Instant,
}

impl Report {
    /// What is remembered of the domain after this.
    #[must_use]
    pub fn noted(&self, memory: &ReachMemory, now: Timestamp) -> ReachMemory {
        let facts = self.facts.as_ref();
        let fronted_since = facts.map_or(memory.fronted_since, |facts| {
            moved::fronted_since(memory, facts, now)
        });
        ReachMemory {
            fronted_since,
            ..moved::noted(memory, &self.judgement, now)
        }
    }
}

impl Preflight {
    /// Checks nothing before it is asked to.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            parts,
            places: Semaphore::new(AT_ONCE),
            reports: Mutex::default(),
            watched: Mutex::default(),
        }))
    }

    /// How names are checked at present.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.0.parts.settings.load().preflight
    }

    /// When names get their first certificate at present.
    #[must_use]
    pub fn obtain(&self) -> Obtain {
        self.0.parts.settings.load().obtain
    }

    /// The kinds of challenge that may be tried at present.
    #[must_use]
    pub fn challenge_order(&self) -> ChallengeOrder {
        self.0.parts.settings.load().challenges
    }

    /// What the outside sees of this edge at present.
    #[must_use]
    pub fn edge(&self) -> Arc<Edge> {
        self.0.parts.edge.get()
    }

    /// Checks `name` now, within the configured deadline, for somebody who reads what was found.
    pub async fn check(&self, name: &DnsName) -> Arc<Report> {
        self.check_in(Depth::ForReaders, name).await
    }

    /// The same for a decision: without what rests on no verdict, which may take seconds.
    pub async fn check_briefly(&self, name: &DnsName) -> Arc<Report> {
        self.check_in(Depth::ForDecisions, name).await
    }

    async fn check_in(&self, depth: Depth, name: &DnsName) -> Arc<Report> {
        let deadline = self.settings().deadline;
        let edge = self.edge();
        let checked = async {
            let _place = self.0.places.acquire().await.ok()?;
            Some(Box::pin(self.look(depth, name, &edge)).await)
        };
        let facts = tokio::time::timeout(deadline, checked).await;
        let facts = facts.ok().flatten();
        let judgement = match &facts {
            Some(facts) => judge::judge(facts, &edge),
            None => {
                let detail = format!(
                    "{name} could not be checked within {} s",
                    deadline.as_secs()
                );
                Judgement::check_failed(name, &detail, &edge)
            }
        };
        let report = Arc::new(Report {
            facts,
            judgement,
            at: self.0.parts.clock.now(),
            noted: monotonic(),
        });
        self.remember(name, &report);
        report
    }

    /// What was found of `name` in the last ten minutes, from memory.
    #[must_use]
    pub fn remembered(&self, name: &DnsName) -> Option<Arc<Report>> {
        self.remembered_for(name, REMEMBERED)
    }

    /// Like [`Preflight::remembered`], where it is no older than `age`.
    #[must_use]
    pub fn remembered_for(&self, name: &DnsName, age: Duration) -> Option<Arc<Report>> {
        let report = self.reports().get(name).cloned()?;
        (report.noted.elapsed() < age).then_some(report)
    }

    /// Whether a content delivery network is in front of `name`: as the last ten minutes tell, else as is remembered with
    /// the domain.
    #[must_use]
    pub fn is_fronted(&self, name: &DnsName, memory: &ReachMemory) -> bool {
        let lately = self.remembered(name);
        let facts = lately.as_ref().and_then(|report| report.facts.as_ref());
        match facts {
            Some(facts) if facts.is_answered() || facts.fronted_by().is_some() => {
                facts.fronted_by().is_some()
            }
            Some(_) | None => memory.fronted_since.is_some(),
        }
    }

    /// Whether it is noticed from outside when a problem with this code is put right.
    #[must_use]
    pub const fn is_noticed(code: ProblemCode) -> bool {
        is_of_dns(code)
    }

    /// Looks at a domain again and again from now on, because it has just failed for what may be wrong with its DNS; see
    /// [`watch`]. Where that is so already, ever more rarely as before.
    pub fn watch(&self, pattern: &NamePattern, tenant: &TenantId) {
        let now = self.0.parts.clock.now();
        self.watched().add(pattern, tenant, now, now);
    }

    /// The same of one that somebody asked for, or that is urgent: as often as at the beginning.
    pub fn watch_closely(&self, pattern: &NamePattern, tenant: &TenantId) {
        let now = self.0.parts.clock.now();
        let mut watched = self.watched();
        watched.add(pattern, tenant, now, now);
        watched.begin_anew(pattern, now);
    }

    /// Looks at a domain that was found failing for its DNS, or moved, if it is not looked at already: as often as one
    /// whose trouble has lasted so long.
    pub fn keep_watching(&self, domain: &DomainRecord) {
        let fails = domain.problem.as_ref();
        let fails = fails.filter(|problem| is_of_dns(problem.code));
        let served = domain.state.is_served();
        let wanted = domain.state == DomainState::Moved || (served && fails.is_some());
        if wanted && self.settings().mode == Mode::On && !domain.pattern.is_wildcard() {
            let now = self.0.parts.clock.now();
            let since = fails.map_or(now, |problem| problem.first_seen);
            self.watched()
                .add(&domain.pattern, &domain.tenant, since, now);
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of `name` alone: cheap enough for every minute.
    pub async fn records(&self, name: &DnsName) -> Records {
        self.0.parts.examiner.records(name).await
    }

    async fn look(&self, depth: Depth, name: &DnsName, edge: &Edge) -> Facts {
        let examiner = &self.0.parts.examiner;
        let (records, edge_addresses) =
            tokio::join!(examiner.examine(name), self.edge_addresses(edge));
        let published = OwnChallenge::token(&self.0.parts.challenges, name);
        let probe = Probe {
            examiner,
            edge,
            dial: self.settings().dial,
            name,
            token: &published.token,
            expected: &published.answer,
        };
        let addresses: Vec<IpAddr> = records.addresses().collect();
        let probe = &probe;
        let fetches: Vec<Fetch> = stream::iter(addresses)
            .map(|address| async move { probe.fetch(address).await })
            .buffered(FETCHES)
            .collect()
            .await;
        let reached = fetches.iter().any(|fetch| fetch.found == Found::Ours);
        tracing::debug!(domain = %name, addresses = fetches.len(), reached, "name checked");
        let mut facts = Facts {
            name: name.clone(),
            records,
            edge_addresses,
            fetches,
            served: None,
        };
        let is_told = match depth {
            Depth::ForReaders => true,
            Depth::ForDecisions => judge::judge(&facts, edge).block().is_some(),
        };
        // Where we answer ourselves, a handshake would wait for the very certificate that is about to be ordered.
        let elsewhere = facts
            .fetches
            .iter()
            .find(|fetch| fetch.found != Found::Ours && probe.may_dial(fetch.address));
        if let Some(fetch) = elsewhere.filter(|_| is_told) {
            let address = SocketAddr::new(fetch.address, edge.https_port);
            facts.served = served(address, name).await;
        }
        facts
    }

    async fn edge_addresses(&self, edge: &Edge) -> Vec<IpAddr> {
        match &edge.cname_target {
            Some(target) => {
                let records = self.0.parts.examiner.records(target).await;
                records.addresses().collect()
            }
            None => Vec::new(),
        }
    }

    fn remember(&self, name: &DnsName, report: &Arc<Report>) {
        let mut reports = self.reports();
        if reports.len() >= MOST_REMEMBERED && !reports.contains_key(name) {
            reports.retain(|_, report| report.noted.elapsed() < REMEMBERED);
        }
        if reports.len() < MOST_REMEMBERED || reports.contains_key(name) {
            reports.insert(name.clone(), Arc::clone(report));
        }
    }

    fn reports(&self) -> MutexGuard<'_, HashMap<DnsName, Arc<Report>>> {
        self.0
            .reports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A challenge of our own, published for as long as this lives. Nobody but us ever hears of it.
struct OwnChallenge<'a> {
    challenges: &'a Challenges,
    name: &'a DnsName,
    token: String,
    answer: String,
}

impl<'a> OwnChallenge<'a> {
    fn token(challenges: &'a Challenges, name: &'a DnsName) -> Self {
        let token = random();
        let answer = format!("{token}.{}", random());
        challenges.publish(name, &token, &answer);
        Self {
            challenges,
            name,
            token,
            answer,
        }
    }
}

impl Drop for OwnChallenge<'_> {
    fn drop(&mut self) {
        self.challenges.withdraw(self.name, &self.token);
    }
}

/// 256 random bits as base64url (RFC 8555 §8.3 asks for 128).
fn random() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    URL_SAFE_NO_PAD.encode(bytes)
}

async fn served(address: SocketAddr, name: &DnsName) -> Option<Served> {
    let leaf = direct::certificate(address, name, LOOK).await.ok()?;
    let (_, certificate) = X509Certificate::from_der(&leaf).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Served {
        address: address.ip(),
        issuer: certificate.issuer().to_string(),
        not_after: Timestamp::from_seconds(seconds),
    })
}

#[cfg(test)]
pub(in crate::certs) mod fixture;

#[cfg(test)]
mod tests;
