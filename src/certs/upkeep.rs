//! Goes round all domains from time to time: a domain without a job gets one, and certificates are counted by the time
//! they have left.
//!
//! Renewal itself needs no round: every domain's job knows when it is due. This is for what should not happen and does,
//! a job that was lost with a restored backup or by hand. A round reads page by page, holds nothing, and may run in
//! several processes at once.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::certs::Settings;
use crate::certs::accounts::Accounts;
use crate::certs::lifecycle::{self, Effect, Event, State, Why};
use crate::certs::preflight::Preflight;
use crate::certs::renewal::{self, Life, Margin};
use crate::certs::settings::Obtain;
use crate::model::TenantScope;
use crate::model::domain::DomainState;
use crate::store::batch::{Operation, Urgency};
use crate::store::job::{JobKey, JobRecord, Priority};
use crate::store::record::{CertificateRecord, DomainRecord};
use crate::store::{ApplyError, Batch, Deadline, PageRequest, Store, StoreError};
use crate::telemetry::metrics::{ExpiryCensus, Metrics};

/// How long one call of the store may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pages, so that a round over many domains leaves the store to others.
const BREATH: Duration = Duration::from_millis(10);
/// A job that is due so much later than its certificate waits by a wrong clock: longer than any back-off.
const ADRIFT: Duration = Duration::from_secs(2 * 86_400);
/// The wait after a round that the store broke off.
const AGAIN: Duration = Duration::from_secs(60);

/// A certificate whose authority was never asked about its renewal has that done within this time.
const FIRST_INQUIRY: Duration = Duration::from_secs(6 * 3600);

/// The rounds.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Domains, jobs, certificates.
    pub store: Arc<dyn Store>,
    /// Who could certify what.
    pub accounts: Accounts,
    /// Looks at domains whose DNS is wrong; nothing where no authority proves names.
    pub preflight: Option<Preflight>,
    /// What is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
    /// How often, and when renewals are due.
    pub settings: Published<Settings>,
}

/// What a round found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Domains seen.
    pub domains: u64,
    /// Jobs that were missing or adrift, and are there now.
    pub restored: u64,
    /// The certificates that serve.
    pub census: ExpiryCensus,
}

impl Upkeep {
    /// Goes round at once and then as often as the settings say, until the group is cancelled.
    pub async fn run(self, tasks: Tasks) {
        let cancelled = tasks.token();
        let rounds = async {
            loop {
                let wait = match self.round().await {
                    Ok(round) => {
                        self.metrics.set_expiries(&round.census);
                        tracing::debug!(
                            domains = round.domains,
                            restored = round.restored,
                            "upkeep done"
                        );
                        self.settings.load().upkeep
                    }
                    Err(error) => {
                        tracing::warn!(%error, "upkeep was broken off");
                        self.settings.load().upkeep.min(AGAIN)
                    }
                };
                tokio::time::sleep(wait.max(BREATH)).await;
            }
        };
        cancelled.run_until_cancelled(rounds).await;
    }

    /// One round.
    ///
    /// # Errors
    /// [`StoreError`] where the store failed; what was done until then stays done.
    pub async fn round(&self) -> Result<Round, StoreError> {
        let mut round = Round::default();
        let mut request = PageRequest::first();
        loop {
            let by = Deadline::after(PATIENCE);
            let scope = TenantScope::upkeep();
            let page = self.store.domains(by, &scope, None, &request).await?;
            for domain in &page.items {
                self.look_after(domain, &mut round).await?;
            }
            match page.next {
                Some(next) => request = PageRequest::following(next),
                None => return Ok(round),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn look_after(&self, domain: &DomainRecord, round: &mut Round) -> Result<(), StoreError> {
        round.domains += 1;
        if let Some(preflight) = &self.preflight
            && self.accounts.authorities().prove_names()
        {
            preflight.keep_watching(domain);
        }
        let by = Deadline::after(PATIENCE);
        let scope = TenantScope::upkeep();
        let certificate = match domain.certificate {
            Some(id) => self.store.certificate(by, &scope, id).await?,
            None => None,
        };
        let wanted = domain.state.is_served() && domain.state != DomainState::Moved;
        // That of a name which is not to be renewed may expire without anyone's alarm.
        if let Some(record) = certificate.as_ref().filter(|_| wanted) {
            let (begin, end) = (record.facts.not_before, record.facts.not_after);
            round.census.add(begin, end, self.clock.now());
        }
        let waits_for_visitor =
            certificate.is_none() && self.settings.load().obtain == Obtain::AtFirstVisit;
        if !wanted || waits_for_visitor || !self.is_certified(domain) {
            return Ok(());
        }
        let key = JobKey::Certificate(domain.pattern.clone());
        let job = self.store.job(by, &scope, &key).await?;
        let due = self.due(certificate.as_ref());
        match (job, &certificate) {
            // Brought along, or from before its authority was asked about renewals: asked within one round of answers.
            (Some(_), Some(record)) if record.standing.ask_at.is_none() => {
                let delay = FIRST_INQUIRY.mul_f64(renewal::chance(record.facts.id));
                self.request(domain, key, (Priority::Renewal, delay))
                    .await?;
            }
            (Some(job), _) if is_more_urgent(due, &job) => self.request(domain, key, due).await?,
            (Some(job), _) if !self.is_adrift(&job, due.1) => {}
            (None | Some(_), _) => {
                tracing::info!(tenant = %domain.tenant, domain = %domain.pattern, "a job that was missing, or adrift, is due when it should be");
                self.request(domain, key, due).await?;
                round.restored += 1;
            }
        }
        Ok(())
    }

    /// Whether a job waits for much longer than its certificate can: it was put off while the machine's clock was ahead,
    /// or that is behind now.
    fn is_adrift(&self, job: &JobRecord, needed: Duration) -> bool {
        // Jobs are kept by the machine's clock.
        job.run_at.since(self.clock.machine()) > needed.saturating_add(ADRIFT)
    }

    fn is_certified(&self, domain: &DomainRecord) -> bool {
        self.accounts.certifies(&domain.tenant, &domain.pattern)
    }

    /// How urgent the job of a domain with this certificate is, and when it is due.
    fn due(&self, certificate: Option<&CertificateRecord>) -> (Priority, Duration) {
        let now = self.clock.now();
        let settings = self.settings.load().renewal;
        need(certificate.map(Life::of), &settings, now)
    }

    async fn request(
        &self,
        domain: &DomainRecord,
        key: JobKey,
        (priority, delay): (Priority, Duration),
    ) -> Result<(), StoreError> {
        let request = Batch::new().then(Operation::RequestJob {
            key,
            tenant: domain.tenant.clone(),
            priority,
            delay,
            urgency: Urgency::HeedBackoff,
        });
        let scope = TenantScope::certificate_work(domain.tenant.clone());
        let by = Deadline::after(PATIENCE);
        match self.store.apply(by, &scope, request).await {
            Err(ApplyError::Store(error)) => Err(error),
            // The domain was removed or changed hands meanwhile; the next round sees how it is then.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// How urgent the job of a name is that has this certificate, or none, and after how long it is due.
#[must_use]
pub fn need(
    serving: Option<Life>,
    settings: &renewal::Settings,
    now: Timestamp,
) -> (Priority, Duration) {
    let state = match serving {
        Some(serving) => State::Active { serving },
        None => State::Requested,
    };
    let ends_soon = serving.is_some_and(|life| life.margin(now) == Margin::Short);
    let (_, effects) = lifecycle::step(state, Event::Due, settings, now);
    let need = effects.iter().find_map(|effect| match effect {
        Effect::Order(Why::First) => Some((Priority::Background, Duration::ZERO)),
        Effect::Order(Why::Renewal) if ends_soon => Some((Priority::Expiring, Duration::ZERO)),
        Effect::Order(Why::Renewal) | Effect::Inquire => Some((Priority::Renewal, Duration::ZERO)),
        Effect::Order(Why::Expired | Why::Replacement(_)) => {
            Some((Priority::Expiring, Duration::ZERO))
        }
        Effect::RunAt(at) => Some((Priority::Renewal, renewal::wait_until(*at, now))),
        Effect::Serve | Effect::Count | Effect::Forget | Effect::Name(_) | Effect::Drop => None,
    });
    need.unwrap_or((Priority::Background, Duration::ZERO))
}

/// Whether a certificate nears its end whose job waits among those in good time, as after a long outage. A name that
/// fails by its own fault is not brought forward.
fn is_more_urgent((priority, delay): (Priority, Duration), job: &JobRecord) -> bool {
    priority == Priority::Expiring
        && delay.is_zero()
        && job.priority > priority
        && job.leased_until.is_none()
        && job.failures == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: u32) -> Timestamp {
        Timestamp::EPOCH.plus(DAY * day)
    }

    #[test]
    fn what_ends_soon_is_urgent_and_what_is_due_is_not_yet() {
        let life = Life {
            not_before: at(0),
            not_after: at(90),
            chance: 0.0,
            began: None,
            told: None,
            chosen: None,
            ask_at: at(90),
            replace: None,
        };
        let check = |day, expected| {
            let need = need(Some(life), &renewal::Settings::default(), at(day));
            assert_eq!(need, expected, "day {day}");
        };
        check(10, (Priority::Renewal, DAY * 50));
        check(60, (Priority::Renewal, Duration::ZERO));
        check(85, (Priority::Renewal, Duration::ZERO));
        check(86, (Priority::Expiring, Duration::ZERO));
        check(91, (Priority::Expiring, Duration::ZERO));
        let none = need(None, &renewal::Settings::default(), at(0));
        assert_eq!(none, (Priority::Background, Duration::ZERO));
    }

    #[test]
    fn a_waiting_job_goes_before_those_in_good_time_once_its_certificate_nears_its_end() {
        let waiting = JobRecord {
            key: "certificate:a.test".to_owned(),
            tenant: None,
            priority: Priority::Renewal,
            run_at: at(0),
            leased_until: None,
            failures: 0,
            problem: None,
            order_url: None,
        };
        let now = (Priority::Expiring, Duration::ZERO);
        assert!(is_more_urgent(now, &waiting));
        let in_good_time = (Priority::Renewal, Duration::ZERO);
        assert!(!is_more_urgent(in_good_time, &waiting));
        let leased = JobRecord {
            leased_until: Some(at(1)),
            ..waiting.clone()
        };
        let failing = JobRecord {
            failures: 1,
            ..waiting.clone()
        };
        let urgent = JobRecord {
            priority: Priority::Expiring,
            ..waiting
        };
        for job in [leased, failing, urgent] {
            assert!(!is_more_urgent(now, &job), "{job:?}");
        }
    }
}
