//! The configured authorities as they are right now: what each says about itself, whether it is asked at all, and which
//! of them suit a name.
//!
//! Reading order: [`breaker`] (pure), [`choice`] (what makes an authority unsuitable, and in which words), this file
//! (what is known of each, and its upkeep), [`trial`] (work with one), [`silence`] (of name servers), [`offers`] (one
//! name's authorities in order), [`ruling`] (what CAA says about each).

pub mod breaker;

pub mod choice;

mod trial;

mod silence;

mod offers;

pub mod ruling;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use crate::base::clock::{Instant, monotonic};
use crate::base::published::Published;
use crate::base::single_flight::{Refused, SingleFlight};
use crate::base::task::Tasks;
use crate::ca::{CaError, CertificateAuthority, Meta};
use crate::dns::Dns;
use crate::model::TenantId;
use crate::model::certificate::CaId;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Condition, Health, Readiness};

use breaker::{Breaker, Outcome, Standing};
use silence::Silence;

pub use offers::{Found, Outlook, Subject, Waits};
pub use trial::Trial;

/// How long reading a directory may take where somebody waits for it or it is a probe.
const PROBE: Duration = Duration::from_secs(5);
/// How long what a directory says is believed.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// How long a directory that could not be read is left alone, where it does not say.
const UNREAD: Duration = Duration::from_secs(10);
/// Directories that are read at once.
const MOST_READ: usize = 64;
/// Callers that may wait for one directory.
const MOST_WAITERS: usize = 10_000;

/// What tenants choose for themselves. What the configuration does not name is as for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices(pub HashMap<TenantId, Choice>);

/// What one tenant has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Its authorities, the preferred first; empty for those of the configuration, where a private one never follows a
    /// public one.
    pub authorities: Vec<CaId>,
    /// The profile of its certificates; nothing for each authority's own.
    pub profile: Option<Arc<str>>,
}

/// What is watched, and with what.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The authorities, in order of preference.
    pub authorities: Vec<Arc<dyn CertificateAuthority>>,
    /// What tenants choose.
    pub choices: Published<Arc<Choices>>,
    /// Reads CAA; where there is none, nothing is read.
    pub dns: Option<Dns>,
    /// When an authority is given up for a while.
    pub breaker: breaker::Settings,
    /// Where it is counted whether they are asked.
    pub metrics: Metrics,
    /// Where trouble shows.
    pub readiness: Readiness,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            authorities: Vec::new(),
            choices: Published::new(Arc::default()),
            dns: None,
            breaker: breaker::Settings::default(),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
        }
    }
}

/// The authorities. Clones are the same.
#[derive(Clone)]
pub struct Authorities(Arc<Shared>);

struct Shared {
    /// In order of preference; a reload replaces it.
    watched: Published<Vec<Arc<Watched>>>,
    choices: Published<Arc<Choices>>,
    dns: Option<Dns>,
    breaker: breaker::Settings,
    metrics: Metrics,
    readiness: Readiness,
    tasks: Tasks,
    turned: Notify,
    reading: SingleFlight<CaId, Result<Arc<Meta>, Arc<CaError>>>,
    silence: Silence,
}

/// One authority and what is known of it. Another configuration of the same name is another one.
struct Watched {
    authority: Arc<dyn CertificateAuthority>,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    meta: Option<(Arc<Meta>, Instant)>,
    /// Its directory could not be read: it is not read before then but to find out whether the authority is back.
    unread_until: Option<Instant>,
    /// How it failed last and what was seen, while it is troubled; empty else.
    trouble: Vec<String>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(
                self.0
                    .watched
                    .get()
                    .iter()
                    .map(|watched| watched.authority.id()),
            )
            .finish()
    }
}

/// An authority as an operator sees it.
#[derive(Clone, Debug)]
pub struct AuthorityFacts {
    /// Its name.
    pub ca: CaId,
    /// The URL of its directory; nothing for one of our own.
    pub directory: Option<String>,
    /// The profile that is ordered of it where a tenant chooses none.
    pub profile: Option<String>,
    /// Whether it is asked.
    pub standing: Standing,
    /// How it failed last, where that was the last that was heard of it.
    pub trouble: Option<String>,
    /// How long until its directory is read again; nothing unless it is not asked.
    pub probe_in: Option<Duration>,
    /// What it says about itself, as last read.
    pub meta: Option<Arc<Meta>>,
}

/// Why nothing is known of what an authority says about itself.
#[derive(Clone, Debug)]
pub enum MetaError {
    /// No authority of this name is configured.
    NotConfigured(CaId),
    /// It could not be asked a moment ago, and is not asked again yet.
    NotNow(CaId),
    /// It could not be asked.
    Ca(Arc<CaError>),
    /// Too many ask, or asking was abandoned at shutdown.
    Busy(Refused),
}

impl Authorities {
    /// All closed; asks nobody yet.
    #[must_use]
    pub fn new(parts: Parts, tasks: &Tasks) -> Self {
        let this = Self(Arc::new(Shared {
            reading: SingleFlight::new(MOST_READ, MOST_WAITERS),
            watched: Published::new(Vec::new()),
            choices: parts.choices,
            dns: parts.dns,
            breaker: parts.breaker,
            metrics: parts.metrics,
            readiness: parts.readiness,
            tasks: tasks.clone(),
            turned: Notify::new(),
            silence: Silence::default(),
        }));
        this.replace(parts.authorities);
        this
    }

    /// These are the authorities from now on. What is known of one stays with its adapter: one that is the same object as
    /// before goes on as it stands, any other begins anew. Gives the names of those that went or became others.
    pub fn replace(&self, authorities: Vec<Arc<dyn CertificateAuthority>>) -> Vec<CaId> {
        let before = self.0.watched.get();
        let watch = |authority: Arc<dyn CertificateAuthority>| {
            let same = before.iter().find(|watched| watched.is(&authority));
            let new = || Arc::new(Watched::new(authority, self.0.breaker));
            same.map_or_else(new, Arc::clone)
        };
        let after: Vec<Arc<Watched>> = authorities.into_iter().map(watch).collect();
        for one in &after {
            let ready = one.state().breaker.standing() != Standing::Open;
            let ca = one.authority.id();
            self.0.metrics.ca_ready.set(ca, i64::from(ready));
        }
        let is_there = |ca: &CaId| after.iter().any(|one| one.authority.id() == ca);
        let went = before
            .iter()
            .filter(|one| !after.iter().any(|other| Arc::ptr_eq(one, other)))
            .map(|one| one.authority.id().clone());
        let went: Vec<CaId> = went.collect();
        for ca in went.iter().filter(|ca| !is_there(ca)) {
            self.0.metrics.ca_ready.forget(ca);
            self.0.metrics.root_expiry.forget(ca);
        }
        self.0.watched.publish(after);
        self.0.readiness.set(Condition::Authorities, self.health());
        self.0.turned.notify_waiters();
        went
    }

    /// Reads the directories of authorities that are not asked, until the group is cancelled.
    pub async fn run(self) {
        let cancelled = self.0.tasks.token();
        let rounds = async {
            loop {
                let turned = self.0.turned.notified();
                match self.next_probe() {
                    Some(at) => tokio::select! {
                        () = tokio::time::sleep_until(at) => self.probe_due().await,
                        () = turned => {}
                    },
                    None => turned.await,
                }
            }
        };
        cancelled.run_until_cancelled(rounds).await;
    }

    /// The first authority of our own.
    #[must_use]
    pub fn own(&self) -> Option<Arc<dyn CertificateAuthority>> {
        self.own_all().into_iter().next()
    }

    /// The authorities of our own.
    #[must_use]
    pub fn own_all(&self) -> Vec<Arc<dyn CertificateAuthority>> {
        let mut all = self.all();
        all.retain(|authority| authority.directory().is_none());
        all
    }

    /// The authorities, in the order of the configuration.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<dyn CertificateAuthority>> {
        let watched = self.0.watched.load();
        watched
            .iter()
            .map(|one| Arc::clone(&one.authority))
            .collect()
    }

    /// Whether any of them has names proved to it: one of our own looks at no DNS.
    #[must_use]
    pub fn prove_names(&self) -> bool {
        self.0.watched.load().iter().any(|one| one.is_public())
    }

    /// The authority with this directory.
    #[must_use]
    pub fn at(&self, directory: &str) -> Option<Arc<dyn CertificateAuthority>> {
        let mut all = self.all().into_iter();
        all.find(|authority| authority.directory() == Some(directory))
    }

    /// The authority of this name.
    #[must_use]
    pub fn find(&self, ca: &CaId) -> Option<Arc<dyn CertificateAuthority>> {
        self.watched(ca)
            .map(|watched| Arc::clone(&watched.authority))
    }

    /// Whether this is the authority of its name still: a reload may have put another in its place.
    #[must_use]
    pub fn has(&self, authority: &Arc<dyn CertificateAuthority>) -> bool {
        let watched = self.0.watched.load();
        watched.iter().any(|one| one.is(authority))
    }

    /// Notes that an authority did what it was asked.
    pub fn worked(&self, ca: &CaId) {
        self.learn(ca, |breaker| {
            breaker.worked(Outcome::Answered, monotonic(), rand::random());
            None
        });
    }

    /// Takes note of a failure. After an outage the directory is read, as often as it takes to tell a slip from an
    /// authority that is not there; gives how it stands then.
    pub async fn failed(&self, error: &CaError) -> Standing {
        let ca = error.ca();
        if !error.is_outage() {
            // Who refuses is there.
            if error.is_answer() {
                self.worked(ca);
            }
            return self.standing(ca);
        }
        self.learn(ca, |breaker| {
            breaker.worked(Outcome::Outage, monotonic(), rand::random());
            Some(trouble(error))
        });
        for _ in 0..self.doubts_left(ca) {
            if self.standing(ca) == Standing::Open || self.read(ca).await.is_ok() {
                break;
            }
        }
        self.standing(ca)
    }

    /// How an authority stands; one that is not configured is not asked.
    #[must_use]
    pub fn standing(&self, ca: &CaId) -> Standing {
        self.watched(ca)
            .map_or(Standing::Open, |watched| watched.state().breaker.standing())
    }

    /// What an authority says about itself; what was read within a day will do, and anything older while it does not
    /// answer.
    ///
    /// # Errors
    /// [`MetaError`].
    pub async fn meta(&self, ca: &CaId) -> Result<Arc<Meta>, MetaError> {
        self.meta_since(ca, FRESH).await
    }

    async fn meta_since(&self, ca: &CaId, age: Duration) -> Result<Arc<Meta>, MetaError> {
        let watched = self.watched(ca);
        let known = watched
            .as_ref()
            .and_then(|watched| watched.state().meta.clone());
        if let Some((meta, read_at)) = &known
            && monotonic().saturating_duration_since(*read_at) < age
        {
            return Ok(Arc::clone(meta));
        }
        let until = watched.and_then(|watched| watched.state().unread_until);
        if until.is_some_and(|until| monotonic() < until) {
            return known
                .map(|(old, _)| old)
                .ok_or_else(|| MetaError::NotNow(ca.clone()));
        }
        match (self.read(ca).await, known) {
            (Err(_), Some((old, _))) => Ok(old),
            (result, _) => result,
        }
    }

    /// Has the clock told what time it is by the first authority that answers; nothing happens where none does.
    pub async fn ask_the_time(&self) {
        for watched in self.0.watched.get().iter() {
            if self.read(watched.authority.id()).await.is_ok() {
                return;
            }
        }
    }

    /// Every authority, in order of preference. What has never been read is read now, within a few seconds.
    pub async fn facts(&self) -> Vec<AuthorityFacts> {
        let watched = self.0.watched.get();
        let facts = watched.iter().map(|watched| async {
            let ca = watched.authority.id();
            let meta = self.meta(ca).await.ok();
            let now = monotonic();
            let state = watched.state();
            let probe_at = state.breaker.probe_at();
            AuthorityFacts {
                ca: ca.clone(),
                directory: watched.authority.directory().map(str::to_owned),
                profile: watched.authority.profile().map(str::to_owned),
                standing: state.breaker.standing(),
                trouble: (!state.trouble.is_empty()).then(|| state.trouble.join(": ")),
                probe_in: probe_at.map(|at| at.saturating_duration_since(now)),
                meta,
            }
        });
        join_all(facts).await
    }

    /// The slot in which the account with an authority is kept; nothing for one of our own.
    #[must_use]
    pub fn account_slot(&self, ca: &CaId) -> Option<String> {
        let authority = self.find(ca)?;
        authority.directory()?;
        authority.slots().into_iter().next()
    }

    /// What a tenant has chosen.
    #[must_use]
    pub fn choice(&self, tenant: &TenantId) -> Choice {
        self.0
            .choices
            .load()
            .0
            .get(tenant)
            .cloned()
            .unwrap_or_default()
    }

    fn watched(&self, ca: &CaId) -> Option<Arc<Watched>> {
        let watched = self.0.watched.load();
        let mut all = watched.iter();
        all.find(|watched| watched.authority.id() == ca)
            .map(Arc::clone)
    }

    fn doubts_left(&self, ca: &CaId) -> u32 {
        self.watched(ca)
            .map_or(0, |watched| watched.state().breaker.doubts_left())
    }

    fn next_probe(&self) -> Option<Instant> {
        let watched = self.0.watched.load();
        let all = watched.iter();
        all.filter_map(|watched| watched.state().breaker.probe_at())
            .min()
    }

    async fn probe_due(&self) {
        let now = monotonic();
        let watched = self.0.watched.get();
        let due = watched.iter().filter(|watched| {
            watched
                .state()
                .breaker
                .probe_at()
                .is_some_and(|at| at <= now)
        });
        join_all(due.map(|watched| self.read(watched.authority.id()))).await;
    }

    /// Reads a directory, once for all who want it; the breaker learns how it went.
    async fn read(&self, ca: &CaId) -> Result<Arc<Meta>, MetaError> {
        let watched = self
            .watched(ca)
            .ok_or_else(|| MetaError::NotConfigured(ca.clone()))?;
        let this = self.clone();
        let read = || async move {
            let authority = &watched.authority;
            let ca = authority.id();
            let read = tokio::time::timeout(PROBE, authority.meta()).await;
            let result = read.unwrap_or_else(|_elapsed| {
                Err(CaError::Deadline {
                    ca: ca.clone(),
                    step: crate::ca::error::Step::Directory,
                })
            });
            this.note_read(&watched, result)
        };
        self.0
            .reading
            .run(&self.0.tasks, ca.clone(), read)
            .await
            .map_err(MetaError::Busy)?
            .map_err(MetaError::Ca)
    }

    fn note_read(
        &self,
        watched: &Watched,
        result: Result<Meta, CaError>,
    ) -> Result<Arc<Meta>, Arc<CaError>> {
        let (outcome, words) = match &result {
            Err(error) if error.is_outage() => (Outcome::Outage, Some(trouble(error))),
            Ok(_) | Err(_) => (Outcome::Answered, None),
        };
        let now = monotonic();
        self.learn_of(watched, |breaker| {
            breaker.probed(outcome, now, rand::random());
            words
        });
        let result = result.map(Arc::new).map_err(Arc::new);
        let mut state = watched.state();
        match &result {
            Ok(meta) => (state.meta, state.unread_until) = (Some((Arc::clone(meta), now)), None),
            Err(error) => {
                let wait = error.retry_after().unwrap_or(UNREAD);
                state.unread_until = Some(now + wait);
            }
        }
        drop(state);
        result
    }

    /// Tells the breaker, and everybody where it turned.
    fn learn(&self, ca: &CaId, told: impl FnOnce(&mut Breaker) -> Option<Vec<String>>) {
        if let Some(watched) = self.watched(ca) {
            self.learn_of(&watched, told);
        }
    }

    fn learn_of(&self, watched: &Watched, told: impl FnOnce(&mut Breaker) -> Option<Vec<String>>) {
        let ca = watched.authority.id();
        let mut state = watched.state();
        let before = state.breaker.standing();
        if let Some(words) = told(&mut state.breaker) {
            state.trouble = words;
        }
        if !state.breaker.is_troubled() {
            state.trouble.clear();
        }
        let (after, trouble) = (state.breaker.standing(), state.trouble.clone());
        drop(state);
        if before != after {
            note_turn(ca, after, &trouble);
            self.0.turned.notify_waiters();
        }
        // One that was replaced meanwhile is nobody's concern any more.
        if self.has(&watched.authority) {
            let ready = i64::from(after != Standing::Open);
            self.0.metrics.ca_ready.set(ca, ready);
        }
        self.0.readiness.set(Condition::Authorities, self.health());
    }

    fn health(&self) -> Health {
        let watched = self.0.watched.get();
        let troubled = watched.iter().find_map(|watched| {
            let state = watched.state();
            let trouble = state.trouble.first()?.clone();
            let ca = watched.authority.id();
            Some(match state.breaker.standing() {
                Standing::Open => format!("{ca} is not asked at present: {trouble}"),
                Standing::Closed | Standing::HalfOpen => trouble,
            })
        });
        troubled.map_or(Health::Well, |trouble| Health::Degraded(trouble.into()))
    }
}

impl Watched {
    fn new(authority: Arc<dyn CertificateAuthority>, breaker: breaker::Settings) -> Self {
        Self {
            authority,
            state: Mutex::new(State {
                breaker: Breaker::new(breaker),
                meta: None,
                unread_until: None,
                trouble: Vec::new(),
            }),
        }
    }

    fn is(&self, authority: &Arc<dyn CertificateAuthority>) -> bool {
        Arc::ptr_eq(&self.authority, authority)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failure, and what was seen.
fn trouble(error: &CaError) -> Vec<String> {
    std::iter::once(error.to_string())
        .chain(error.evidence())
        .collect()
}

fn note_turn(ca: &CaId, standing: Standing, trouble: &[String]) {
    match standing {
        Standing::Open => tracing::warn!(
            %ca, trouble = trouble.join(": "), "an authority is not asked for a while; the next one is, where there is one"
        ),
        Standing::HalfOpen => tracing::info!(%ca, "an authority answers again: one order is tried"),
        Standing::Closed => tracing::info!(%ca, "an authority is asked again"),
    }
}

#[cfg(test)]
mod tests;
