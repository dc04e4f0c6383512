//! A drill: what would happen to what serves if everything had to be replaced, an authority were away, or the file of
//! the key-encryption key could not be read. Touches no authority, and nothing that serves.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Mutex;

use crate::base::clock::{Clock, Timestamp, monotonic};
use crate::base::published::Published;
use crate::certs;
use crate::certs::accounts::Accounts;
use crate::certs::budget::{Class, Keeper};
use crate::certs::drill::{Means, Orders, Rehearsal, Serving};
use crate::certs::load::{LoadError, Loader};
use crate::certs::renewal::Life;
use crate::certs::resolver::Resolver;
use crate::certs::vault::{Vault, VaultError};
use crate::control::actions::ActionError;
use crate::control::caller::Grant;
use crate::control::declare::Declaration;
use crate::keys;
use crate::keys::sealed::sealed_by;
use crate::model::certificate::CaId;
use crate::model::domain::DomainState;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::record::{CertificateRecord, DomainRecord, KeyOwner};
use crate::store::{Deadline, PageRequest, Store, StoreError};
use crate::telemetry::labels::IssuanceKind;
use crate::telemetry::metrics::Metrics;

// What drills show as it is reckoned: those who ask name it from here.
pub use crate::certs::authorities::breaker::Standing;
pub use crate::certs::drill::{Group, OUTAGES, Outage, Takes};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(10);
/// Reading ends after so long: what was not read by then is said.
const READING: Duration = Duration::from_secs(40);
/// Certificates that are read at the same time.
const AT_ONCE: usize = 8;
/// Orders a second that may be asked for.
pub const RATES: RangeInclusive<u32> = 1..=1_000_000;
/// Orders a second that are reckoned with where nothing better is known.
const ASSUMED: f64 = 12.0;
/// Issuances from which on their mean time is one.
const ENOUGH: u64 = 20;
/// Keys that do not open, and tenants, are told one by one up to so many.
const MOST_TOLD: usize = 100;

/// Holds drills, one at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drills {
    parts: Arc<Parts>,
    held: Arc<Mutex<()>>,
}

/// What drills look at.
#[derive(Debug)]
pub struct Parts {
    /// What serves.
    pub store: Arc<dyn Store>,
    /// Opens keys, as this process does.
    pub vault: Vault,
    /// Where the next start finds the key-encryption key.
    pub keys: keys::Settings,
    /// Where it finds those of tenants' own.
    pub declaration: Published<Arc<Declaration>>,
    /// What serves from memory.
    pub resolver: Resolver,
    /// The authorities.
    pub accounts: Accounts,
    /// What is left of their limits.
    pub budget: Keeper,
    /// When certificates are renewed, and how many at once.
    pub settings: Published<certs::Settings>,
    /// How long issuances took.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

/// Orders a second, and where the number is from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// Somebody asked for this number.
    Asked(f64),
    /// As many at once as are configured, each as long as those of this process took on average.
    Measured {
        /// Orders a second.
        rate: f64,
        /// How many were measured.
        issuances: u64,
        /// How long one took.
        mean: Duration,
    },
    /// Nothing is known.
    Assumed(f64),
}

impl Speed {
    /// Orders a second.
    #[must_use]
    pub const fn rate(self) -> f64 {
        match self {
            Self::Asked(rate) | Self::Measured { rate, .. } | Self::Assumed(rate) => rate,
        }
    }
}

/// What a drill found.
#[derive(Clone, Debug)]
pub struct Drilled {
    /// When.
    pub at: Timestamp,
    /// Certificates that serve.
    pub certificates: u64,
    /// Whether all were read: where the time for it was over first, all numbers are of what was.
    pub complete: bool,
    /// What is reckoned with.
    pub speed: Speed,
    /// Replacing everything takes so long, all authorities at the same time.
    pub replacing: Duration,
    /// By the authority that renews them; nothing is nobody.
    pub authorities: Vec<DrilledAuthority>,
    /// What became of the keys.
    pub keys: DrilledKeys,
}

/// What one authority's certificates would go through.
#[derive(Clone, Debug)]
pub struct DrilledAuthority {
    /// Which; nothing is none: what no authority renews.
    pub ca: Option<CaId>,
    /// Whether it is asked at present.
    pub standing: Option<Standing>,
    /// What it renews.
    pub group: Group,
    /// What would become of that; nothing where no authority renews it.
    pub reckoned: Option<Reckoned>,
    /// Who is next in order, with how many names, and how long they take there.
    pub next: Vec<Next>,
}

/// What would become of the certificates of one authority.
#[derive(Clone, Copy, Debug)]
pub struct Reckoned {
    /// Replacing all of them by the same authority, as after a mass revocation.
    pub replacing: Takes,
    /// Its outages, in the order of [`OUTAGES`].
    pub outages: [Outage; OUTAGES.len()],
    /// The longest outage from now on in which none expires; nothing where all have.
    pub survives: Option<Duration>,
}

/// The authority that takes over where another is away.
#[derive(Clone, Debug)]
pub struct Next {
    /// Which; nothing is none.
    pub ca: Option<CaId>,
    /// So many certificates.
    pub certificates: u64,
    /// How long certifying all of them takes there, as new names.
    pub takes: Option<Takes>,
    /// Whether it is asked at present.
    pub standing: Option<Standing>,
}

/// What became of the keys.
#[derive(Clone, Debug, Default)]
pub struct DrilledKeys {
    /// Private keys that this process opened, and that fit their certificates.
    pub opened: u64,
    /// Those that it did not.
    pub unreadable: u64,
    /// The first of those, and why.
    pub unreadable_names: Vec<(NamePattern, String)>,
    /// Tenants with such a key.
    pub tenants: BTreeMap<TenantId, Affected>,
    /// What a start would say now that reads the key-encryption key from its file: nothing where it would serve.
    pub restart: Option<String>,
    /// Tenants with names that are served now and would not be after a start that serves.
    pub lost: BTreeMap<TenantId, Lost>,
    /// The file.
    pub file: std::path::PathBuf,
}

/// What a start would cost a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// So many of its names.
    pub names: u64,
    /// Why, of the first.
    pub why: String,
}

/// What unreadable keys mean for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Its names with such a key.
    pub names: u64,
    /// So many of them are served only until this process forgets their certificates, at the next start at the latest. The
    /// others are not served.
    pub in_memory: u64,
    /// Whether it gets new certificates all the same.
    pub renewals: Renewals,
}

/// Whether a tenant gets new certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewals {
    /// Its data key opens: what is unreadable is replaced in its time.
    GoOn,
    /// Its data key does not open, so that no new key can be sealed.
    Stop,
}

impl Drills {
    /// Over these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            held: Arc::default(),
        }
    }

    /// Reads every certificate that serves, opens every key, and reckons, with `rate` orders a second where that is
    /// given. Changes nothing.
    ///
    /// # Errors
    /// [`ActionError::NotFound`] for whoever is not the operator; [`ActionError::Store`].
    pub async fn hold(&self, grant: &Grant, rate: Option<f64>) -> Result<Drilled, ActionError> {
        if grant.scope().only().is_some() {
            return Err(ActionError::NotFound("drill".to_owned()));
        }
        let _held = self.held.lock().await;
        let speed = self.speed(rate);
        let means = self.means(speed.rate()).await.map_err(ActionError::Store)?;
        let mut read = Read {
            rehearsal: Rehearsal::new(self.parts.settings.load().renewal, self.parts.clock.now()),
            keys: DrilledKeys {
                file: self.parts.keys.key_file.clone(),
                ..DrilledKeys::default()
            },
            complete: false,
        };
        let restarted = self.restart().await;
        read.keys.restart = restarted.as_ref().err().cloned();
        self.read(grant.scope(), restarted.ok().as_ref(), &mut read)
            .await
            .map_err(ActionError::Store)?;
        let drilled = self.reckon(read, speed, &means);
        tracing::info!(
            certificates = drilled.certificates,
            unreadable_keys = drilled.keys.unreadable,
            complete = drilled.complete,
            "drill held"
        );
        Ok(drilled)
    }

    fn speed(&self, asked: Option<f64>) -> Speed {
        if let Some(rate) = asked {
            return Speed::Asked(rate);
        }
        let took = &self.parts.metrics.issuance_duration;
        let kinds = [IssuanceKind::First, IssuanceKind::Renewal];
        let issuances: u64 = kinds.into_iter().map(|kind| took.observed(kind)).sum();
        let total: Duration = kinds.into_iter().map(|kind| took.total(kind)).sum();
        let Some(mean) = u32::try_from(issuances)
            .ok()
            .and_then(|n| total.checked_div(n))
        else {
            return Speed::Assumed(ASSUMED);
        };
        if issuances < ENOUGH || mean.is_zero() {
            return Speed::Assumed(ASSUMED);
        }
        let parallel = u32::try_from(self.parts.settings.load().parallel).unwrap_or(u32::MAX);
        Speed::Measured {
            rate: f64::from(parallel) / mean.as_secs_f64(),
            issuances,
            mean,
        }
    }

    /// What each authority with limits bears now.
    async fn means(&self, speed: f64) -> Result<BTreeMap<CaId, Means>, StoreError> {
        let surveys = self.parts.budget.survey().await?;
        let means = surveys.into_iter().map(|survey| {
            let means = Means {
                speed,
                book: self.parts.budget.book(&survey.ca),
                left: survey.orders.iter().map(|of| (of.class, of.left)).collect(),
                stopped_for: survey.calls_frozen_for,
            };
            (survey.ca, means)
        });
        Ok(means.collect())
    }

    /// What a start would open keys with that happened now: the same steps, with the files as they are. Or why it would not.
    async fn restart(&self) -> Result<Vault, String> {
        let store = Arc::clone(&self.parts.store);
        let unlocked = Vault::unlock(store, &self.parts.keys).await;
        let vault = unlocked.map_err(|error| chain(&error))?;
        vault.rehearse_own(&self.parts.declaration.load().own_keys);
        Ok(vault)
    }

    async fn read(
        &self,
        scope: &TenantScope,
        restarted: Option<&Vault>,
        read: &mut Read,
    ) -> Result<(), StoreError> {
        let began = monotonic();
        let loader = Loader::new(self.parts.vault.clone());
        let mut request = PageRequest::first();
        while monotonic().saturating_duration_since(began) < READING {
            let by = Deadline::after(CALL);
            let page = self.parts.store.domains(by, scope, None, &request).await?;
            let domains = page.items.iter();
            let reads: Vec<_> = domains.map(|domain| self.serving(scope, domain)).collect();
            let reads = stream::iter(reads).buffered(AT_ONCE);
            let found: Vec<Option<CertificateRecord>> = reads.try_collect().await?;
            for (domain, record) in page.items.iter().zip(found) {
                if let Some(record) = record {
                    self.add(domain, &record, &mut read.rehearsal);
                    let in_memory = match self.parts.resolver.holds(record.facts.id) {
                        true => Memory::Held,
                        false => Memory::NotHeld,
                    };
                    let after = opens_after(restarted, domain, &record).await?;
                    let loaded = loader.load(domain, record, None).await;
                    let error = loaded.err();
                    if error.is_none() || in_memory == Memory::Held {
                        read.keys.note_lost(domain, after);
                    }
                    read.keys.note(domain, error.as_ref(), in_memory);
                }
            }
            match page.next {
                Some(next) => request = PageRequest::following(next),
                None => {
                    read.complete = true;
                    break;
                }
            }
            // Others work too.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn serving(
        &self,
        scope: &TenantScope,
        domain: &DomainRecord,
    ) -> Result<Option<CertificateRecord>, StoreError> {
        let by = Deadline::after(CALL);
        match domain.certificate.filter(|_| domain.state.is_served()) {
            Some(id) => self.parts.store.certificate(by, scope, id).await,
            None => Ok(None),
        }
    }

    fn add(&self, domain: &DomainRecord, record: &CertificateRecord, rehearsal: &mut Rehearsal) {
        let asked = match domain.state {
            // Not renewed until its DNS leads here again.
            DomainState::Moved => Vec::new(),
            DomainState::PendingDns
            | DomainState::Verifying
            | DomainState::Issuing
            | DomainState::Active
            | DomainState::Renewing
            | DomainState::Degraded
            | DomainState::Suspended
            | DomainState::Deleting
            | DomainState::Tombstoned => self
                .parts
                .accounts
                .in_order(&domain.tenant, &domain.pattern),
        };
        rehearsal.add(&Serving {
            pattern: &domain.pattern,
            life: &Life::of(record),
            issued_by: &record.facts.ca,
            asked: &asked,
        });
    }

    fn reckon(&self, read: Read, speed: Speed, means: &BTreeMap<CaId, Means>) -> Drilled {
        let Read {
            rehearsal,
            keys,
            complete,
        } = read;
        let unlimited = Means {
            speed: speed.rate(),
            book: None,
            left: Vec::new(),
            stopped_for: Duration::ZERO,
        };
        let means_of = |ca: &CaId| means.get(ca).unwrap_or(&unlimited).clone();
        let reckoned = rehearsal.groups.iter().map(|(ca, group)| {
            let next = self.next(&rehearsal, (ca.as_ref(), group), means_of);
            (reckoned(&rehearsal, ca.as_ref(), means_of), next)
        });
        let reckoned: Vec<_> = reckoned.collect();
        let certificates = rehearsal.certificates();
        let watched = self.parts.accounts.authorities();
        let groups = rehearsal.groups.into_iter().zip(reckoned);
        let authorities = groups.map(|((ca, group), (reckoned, next))| DrilledAuthority {
            standing: ca.as_ref().map(|ca| watched.standing(ca)),
            ca,
            group,
            reckoned,
            next,
        });
        let authorities: Vec<DrilledAuthority> = authorities.collect();
        Drilled {
            at: self.parts.clock.now(),
            certificates,
            complete,
            speed,
            replacing: all(&authorities, &unlimited),
            authorities,
            keys,
        }
    }

    /// Who takes over from an authority.
    fn next(
        &self,
        rehearsal: &Rehearsal,
        (ca, group): (Option<&CaId>, &Group),
        means: impl Fn(&CaId) -> Means,
    ) -> Vec<Next> {
        let watched = self.parts.accounts.authorities();
        let Some(ca) = ca else {
            return Vec::new();
        };
        let next = group.next.iter().map(|(next, certificates)| {
            let takes = |next| rehearsal.taking_over(ca, next, &means(next));
            Next {
                ca: next.clone(),
                certificates: *certificates,
                takes: next.as_ref().map(takes),
                standing: next.as_ref().map(|next| watched.standing(next)),
            }
        });
        next.collect()
    }
}

/// What is reckoned of an authority; nothing of what no authority renews.
fn reckoned(
    rehearsal: &Rehearsal,
    ca: Option<&CaId>,
    means: impl Fn(&CaId) -> Means,
) -> Option<Reckoned> {
    let ca = ca?;
    Some(Reckoned {
        replacing: rehearsal.replacing(ca, &means(ca)),
        outages: rehearsal.outages(ca, &means),
        survives: rehearsal.survives(ca, &means(ca)),
    })
}

/// How long replacing everything takes: the authorities work at the same time, and share our own speed.
fn all(authorities: &[DrilledAuthority], unlimited: &Means) -> Duration {
    let of_authorities = authorities.iter().filter_map(|of| of.reckoned.as_ref());
    let longest = of_authorities.map(|reckoned| reckoned.replacing.long).max();
    let renewed = authorities.iter().filter(|of| of.ca.is_some());
    let orders = Orders {
        all: renewed.map(|of| of.group.certificates).sum(),
        ..Orders::default()
    };
    let fast = unlimited.takes(&orders, Class::Emergency).long;
    longest.unwrap_or_default().max(fast)
}

/// What was read.
struct Read {
    rehearsal: Rehearsal,
    keys: DrilledKeys,
    complete: bool,
}

/// Whether a certificate is in the memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Held,
    NotHeld,
}

/// Why the key of a certificate would not open after a start; nothing where it would, or where there would be no start.
async fn opens_after(
    restarted: Option<&Vault>,
    domain: &DomainRecord,
    record: &CertificateRecord,
) -> Result<Option<String>, StoreError> {
    let Some(vault) = restarted else {
        return Ok(None);
    };
    let owner = KeyOwner::Tenant(domain.tenant.clone());
    match vault.check(&owner, sealed_by(&record.sealed_key)).await {
        Ok(()) => Ok(None),
        Err(VaultError::Store(error)) => Err(error),
        Err(error) => Ok(Some(chain(&error))),
    }
}

impl DrilledKeys {
    fn note_lost(&mut self, domain: &DomainRecord, why: Option<String>) {
        let Some(why) = why else {
            return;
        };
        if self.lost.len() >= MOST_TOLD && !self.lost.contains_key(&domain.tenant) {
            return;
        }
        let none = Lost { names: 0, why };
        let lost = self.lost.entry(domain.tenant.clone()).or_insert(none);
        lost.names += 1;
    }

    fn note(&mut self, domain: &DomainRecord, error: Option<&LoadError>, memory: Memory) {
        let Some(error) = error else {
            self.opened += 1;
            return;
        };
        self.unreadable += 1;
        if self.unreadable_names.len() < MOST_TOLD {
            let why = chain(error);
            self.unreadable_names.push((domain.pattern.clone(), why));
        }
        if self.tenants.len() >= MOST_TOLD && !self.tenants.contains_key(&domain.tenant) {
            return;
        }
        let none = Affected {
            names: 0,
            in_memory: 0,
            renewals: Renewals::GoOn,
        };
        let affected = self.tenants.entry(domain.tenant.clone()).or_insert(none);
        affected.names += 1;
        affected.in_memory += u64::from(memory == Memory::Held);
        if let LoadError::Vault(VaultError::Unwrap { .. } | VaultError::OwnKek { .. }) = error {
            affected.renewals = Renewals::Stop;
        }
    }
}

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
