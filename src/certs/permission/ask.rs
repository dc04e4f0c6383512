//! One question: remembered, joined, admitted by the caps, sent, understood, kept; an allowed name registered.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::base::clock::monotonic;
use crate::base::single_flight::{Refused, SingleFlight};
use crate::base::task::Tasks;
use crate::certs::permission::breaker::Turn;
use crate::certs::permission::trouble::Trouble;
use crate::certs::permission::verdicts::NotNow;
use crate::certs::permission::wire::{self, Question, Reason, Unusable};
use crate::certs::permission::{Settings, Verdict, Verdicts};
use crate::model::route::UpstreamName;
use crate::model::{DnsName, TenantId};
use crate::net::client::{self, HttpClient, Schemes};
use crate::net::error::{FetchError, SetupError};
use crate::store::ApplyError;
use crate::telemetry::labels::Permission as Outcome;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// Names that may be asked about at once.
const MOST_NAMES: usize = 256;
/// Callers that may wait for one name's answer.
const MOST_WAITERS: usize = 1024;
/// The largest answer of a hook.
const MOST_ANSWER_BYTES: usize = 64 * 1024;

/// A name that the hook has allowed, to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The name.
    pub name: DnsName,
    /// Whose it becomes.
    pub tenant: TenantId,
    /// The upstream that the hook chose for it.
    pub upstream: Option<UpstreamName>,
}

/// Writes an allowed name down and publishes it before it returns; given by the composition root.
pub type Register =
    Arc<dyn Fn(Registration) -> BoxFuture<'static, Result<(), RegisterError>> + Send + Sync>;

/// Why an allowed name was not registered.
#[derive(Clone, Debug)]
pub enum RegisterError {
    /// Another tenant owns it; it stays with that one.
    OwnedByOther {
        /// The name.
        name: DnsName,
        /// The tenant that the hook named.
        wanted_by: TenantId,
    },
    /// It is registered and suspended: only the operator resumes it.
    Suspended(DnsName),
    /// The store failed, or the name changed meanwhile.
    Store(Arc<ApplyError>),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnedByOther { name, wanted_by } => write!(
                f,
                "{name} belongs to another tenant than {wanted_by}, for which the permission hook allowed it"
            ),
            Self::Suspended(name) => write!(f, "{name} is suspended"),
            Self::Store(_) => f.write_str("the allowed name could not be stored"),
        }
    }
}

impl Error for RegisterError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => Some(&**error),
            Self::OwnedByOther { .. } | Self::Suspended(_) => None,
        }
    }
}

/// Why the hook could not be asked. Never a denial.
#[derive(Clone, Debug)]
pub enum AskError {
    /// As many calls a second as allowed have been made.
    RateInAll {
        /// The limit, `ask_rate`.
        per_second: u32,
    },
    /// As many calls a second for names below one registered domain as allowed have been made.
    RateOfDomain {
        /// The limit, `ask_rate_per_domain`.
        per_second: u32,
    },
    /// It failed too often lately, and is tried again one call at a time.
    BreakerOpen,
    /// As many names or callers wait as allowed.
    Busy(Refused),
    /// It gave no whole answer.
    NoAnswer(Arc<FetchError>),
    /// It gave an answer that neither allows nor denies.
    Unusable(Unusable),
    /// The question does not make a request: the configured URL is not one for HTTP.
    BadUrl(Arc<http::Error>),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateInAll { per_second } => write!(
                f,
                "the permission hook is not asked more than {per_second} times a second (ask_rate)"
            ),
            Self::RateOfDomain { per_second } => write!(
                f,
                "the permission hook is not asked more than {per_second} times a second for one registered domain \
                 (ask_rate_per_domain)"
            ),
            Self::BreakerOpen => f.write_str("the permission hook has failed too often lately"),
            Self::Busy(_) => f.write_str("too many wait for the permission hook"),
            Self::NoAnswer(_) => f.write_str("the permission hook gave no answer"),
            Self::Unusable(_) => f.write_str("the permission hook's answer cannot be used"),
            Self::BadUrl(_) => f.write_str("the permission hook's URL cannot be asked"),
        }
    }
}

impl Error for AskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Busy(error) => Some(error),
            Self::NoAnswer(error) => Some(&**error),
            Self::BadUrl(error) => Some(&**error),
            Self::Unusable(error) => Some(error),
            Self::RateInAll { .. } | Self::RateOfDomain { .. } | Self::BreakerOpen => None,
        }
    }
}

/// Why an unregistered name is not served.
#[derive(Clone, Debug)]
pub enum NotAllowed {
    /// The hook denies it.
    Denied(Option<Arc<str>>),
    /// The hook could not be asked.
    Unavailable(AskError),
    /// It is allowed, but could not be registered.
    Unregistered(RegisterError),
}

/// What the hook says of renewing a name that it allowed before.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It may be renewed.
    Allowed,
    /// It is not renewed any more; what is valid goes on being served until it expires.
    Denied(Option<Arc<str>>),
    /// The hook could not be asked: the name is renewed.
    Unknown(AskError),
}

/// The permission hook. Clones are the same, with one memory and one set of caps.
#[derive(Clone)]
pub struct Permission {
    shared: Arc<Shared>,
    flights: SingleFlight<DnsName, Result<Verdict, AskError>>,
    register: Register,
    tasks: Tasks,
}

struct Shared {
    settings: Settings,
    client: HttpClient,
    verdicts: Verdicts,
    trouble: Trouble,
    metrics: Metrics,
}

impl Permission {
    /// The hook as set; its calls live in `tasks`, allowed names go to `register`, failures to the log and `readiness`.
    ///
    /// # Errors
    /// [`SetupError`] where its roots cannot be read.
    pub fn new(
        settings: Settings,
        register: Register,
        (metrics, readiness): (Metrics, Readiness),
        tasks: &Tasks,
    ) -> Result<Self, SetupError> {
        let of_client = client::Settings {
            roots: settings.roots.clone(),
            schemes: Schemes::HttpsOrHttp,
            connect_deadline: settings.deadline,
            deadline: settings.deadline,
            most_bytes: MOST_ANSWER_BYTES,
        };
        let shared = Shared {
            client: HttpClient::new(tasks, &of_client)?,
            verdicts: Verdicts::new(&settings),
            settings,
            trouble: Trouble::told_to(readiness),
            metrics,
        };
        Ok(Self {
            shared: Arc::new(shared),
            flights: SingleFlight::new(MOST_NAMES, MOST_WAITERS),
            register,
            tasks: tasks.clone(),
        })
    }

    /// What it has answered and what refuses without asking: for the workers.
    #[must_use]
    pub fn verdicts(&self) -> Verdicts {
        self.shared.verdicts.clone()
    }

    /// Asks about an unregistered `name` for a visitor at `client`; allowed, it is registered when this returns, for
    /// the tenant that is given back.
    ///
    /// # Errors
    /// [`NotAllowed`] says why the name is not served.
    pub async fn handshake(&self, name: &DnsName, client: IpAddr) -> Result<TenantId, NotAllowed> {
        let asked = self.ask(name, Some(client), Reason::Handshake).await;
        match asked.map_err(NotAllowed::Unavailable)? {
            Verdict::Denied { reason } => Err(NotAllowed::Denied(reason)),
            Verdict::Allowed { tenant, upstream } => {
                let tenant = tenant.unwrap_or_else(|| TenantId::asked(name));
                let registration = Registration {
                    name: name.clone(),
                    tenant: tenant.clone(),
                    upstream,
                };
                (self.register)(registration)
                    .await
                    .map_err(NotAllowed::Unregistered)?;
                Ok(tenant)
            }
        }
    }

    /// Asks again about a name that the hook allowed before (a domain of source `hook`), before its certificate is
    /// renewed.
    pub async fn renewal(&self, name: &DnsName) -> Standing {
        match self.ask(name, None, Reason::Renew).await {
            Ok(Verdict::Allowed { .. }) => Standing::Allowed,
            Ok(Verdict::Denied { reason }) => Standing::Denied(reason),
            Err(error) => Standing::Unknown(error),
        }
    }

    async fn ask(
        &self,
        name: &DnsName,
        client: Option<IpAddr>,
        reason: Reason,
    ) -> Result<Verdict, AskError> {
        if let Some(verdict) = self.shared.verdicts.get(name, monotonic()) {
            self.shared.metrics.permissions.count(match verdict {
                Verdict::Allowed { .. } => Outcome::AllowedCached,
                Verdict::Denied { .. } => Outcome::DeniedCached,
            });
            return Ok(verdict);
        }
        let (shared, key) = (Arc::clone(&self.shared), name.clone());
        let asked = self
            .flights
            .run(&self.tasks, name.clone(), move || async move {
                let question = Question {
                    name: &key,
                    client,
                    reason,
                };
                shared.call(&question).await
            });
        asked.await.map_err(AskError::Busy)?
    }
}

impl Shared {
    /// One call of the hook, if the caps admit it. Runs at most once per name at a time.
    async fn call(&self, question: &Question<'_>) -> Result<Verdict, AskError> {
        let began = monotonic();
        // An answer may have come between the caller's look and the start of this flight.
        if let Some(verdict) = self.verdicts.get(question.name, began) {
            return Ok(verdict);
        }
        self.admit(question.name)?;
        let asked = self.exchange(question).await;
        let now = monotonic();
        self.metrics
            .permission_duration
            .observe((), now.saturating_duration_since(began));
        self.metrics.permissions.count(outcome(&asked));
        match &asked {
            Ok(_) => {
                self.trouble.over();
                if self.verdicts.breaker().succeeded() == Turn::Closed {
                    tracing::info!("the permission hook answers again");
                }
            }
            Err(error) => {
                self.trouble.failed(question.name, error, now);
                if self.verdicts.breaker().failed(now) == Turn::Opened {
                    tracing::warn!(
                        %error, cause = error.source(),
                        "the permission hook fails: unknown names are refused, known ones go on"
                    );
                }
            }
        }
        let (verdict, ttl) = asked?;
        self.verdicts.keep(question.name, verdict.clone(), ttl);
        Ok(verdict)
    }

    fn admit(&self, name: &DnsName) -> Result<(), AskError> {
        let (error, outcome) = match self.verdicts.admit(name, monotonic()) {
            Ok(()) => return Ok(()),
            Err(NotNow::Total) => (
                AskError::RateInAll {
                    per_second: self.settings.rate,
                },
                Outcome::RateLimited,
            ),
            Err(NotNow::Domain) => (
                AskError::RateOfDomain {
                    per_second: self.settings.rate_per_domain,
                },
                Outcome::RateLimited,
            ),
            Err(NotNow::Open) => (AskError::BreakerOpen, Outcome::BreakerOpen),
        };
        self.metrics.permissions.count(outcome);
        Err(error)
    }

    async fn exchange(
        &self,
        question: &Question<'_>,
    ) -> Result<(Verdict, std::time::Duration), AskError> {
        let request = wire::request(&self.settings, question)
            .map_err(|error| AskError::BadUrl(Arc::new(error)))?;
        let answer = self
            .client
            .send(request)
            .await
            .map_err(|error| AskError::NoAnswer(Arc::new(error)))?;
        wire::verdict(&self.settings, question.name, answer.status, &answer.body)
            .map_err(AskError::Unusable)
    }
}

fn outcome<T>(asked: &Result<(Verdict, T), AskError>) -> Outcome {
    match asked {
        Ok((Verdict::Allowed { .. }, _)) => Outcome::Allowed,
        Ok((Verdict::Denied { .. }, _)) => Outcome::Denied,
        Err(AskError::NoAnswer(error)) => match &**error {
            FetchError::Deadline { .. } => Outcome::Timeout,
            FetchError::TooLarge { .. } => Outcome::Malformed,
            FetchError::Connect { .. }
            | FetchError::Untrusted { .. }
            | FetchError::Broken { .. } => Outcome::Unreachable,
        },
        Err(AskError::Unusable(_)) => Outcome::Malformed,
        Err(AskError::RateInAll { .. } | AskError::RateOfDomain { .. } | AskError::Busy(_)) => {
            Outcome::RateLimited
        }
        Err(AskError::BreakerOpen) => Outcome::BreakerOpen,
        Err(AskError::BadUrl(_)) => Outcome::Unreachable,
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Permission")
            .field("mode", &self.shared.settings.mode)
            .field("verdicts", &self.shared.verdicts.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
