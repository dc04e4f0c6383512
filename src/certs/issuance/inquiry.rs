//! Asks the authority when it wants the certificate renewed (RFC 9773), as often as it says.
//!
//! An answer moves the next run of the job and nothing else. Whatever is wrong with it, the certificate is renewed in
//! its time all the same.

use std::time::Duration;

use rand::RngExt as _;

use super::attempt::{Attempt, Known, StillGood, Success};
use super::failure::{Cause, Failure};
use super::life;
use crate::base::clock::Timestamp;
use crate::ca::{CaError, RenewalInfo};
use crate::certs::authorities::Waits;
use crate::certs::lifecycle::{self, Event};
use crate::certs::policy::Denial;
use crate::certs::renewal::{self, Life};
use crate::model::standing::{CertificateStanding, RenewalWindow};
use crate::store::job::Priority;
use crate::store::record::CertificateRecord;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait where every place is taken, or somebody more urgent waits.
const LATER: Duration = Duration::from_secs(5);
/// How long an answer is good where the authority does not say (RFC 9773 §4.3.3 suggests this).
const USUAL: Duration = Duration::from_secs(6 * 3600);
/// The shortest and the longest time between two questions, whatever the authority says.
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(24 * 3600);

/// How long until the next question.
pub(super) fn pause(said: Option<Duration>) -> Duration {
    let pause = said.unwrap_or(USUAL).clamp(SOONEST, LATEST);
    // Never sooner than it says, and not with all others.
    pause.saturating_add(pause.mul_f64(0.1 * rand::rng().random::<f64>()))
}

impl Attempt<'_> {
    /// Asks, and notes the answer.
    pub(super) async fn inquire(&self, known: &Known) -> Result<Success, Failure> {
        let record = known.certificate.as_ref();
        let record = record.ok_or(Cause::Denied(Denial::NotRegistered))?;
        let now = self.parts.clock.now();
        let place = self.inquiries.try_acquire().ok();
        let share = self.shares.try_take(&record.facts.ca, Waits::Nobody);
        let standing = match (place.zip(share), self.job.priority) {
            // A visitor waits for the certificate that is there.
            (None, _) | (_, Priority::Handshake) => None,
            (Some(_place), _) => Some(self.told(record, now).await?),
        };
        let run_at = match &standing {
            Some(standing) => {
                let told = standing.renewal_info.as_ref().map(|info| info.renew_at);
                let event = Event::Told(told, standing.ask_at.unwrap_or(now));
                let settings = &self.settings.renewal;
                let (_, effects) = lifecycle::step(known.begun(self, now), event, settings, now);
                life::run_at(&effects, now)
            }
            None => now.plus(LATER),
        };
        Ok(Success::StillGood(StillGood {
            record: Box::new(record.clone()),
            standing: standing.map(Box::new),
            run_at,
        }))
    }

    /// What is known of the certificate once the authority was asked, unless it wants to be left alone.
    async fn told(
        &self,
        record: &CertificateRecord,
        now: Timestamp,
    ) -> Result<CertificateStanding, Cause> {
        if let Some(wait) = self.stopped_for(record).await? {
            let ask_at = Some(now.plus(pause(Some(wait))));
            let standing = record.standing.clone();
            return Ok(CertificateStanding { ask_at, ..standing });
        }
        let asked = tokio::time::timeout(PATIENCE, self.ask(record)).await;
        let answer = asked.unwrap_or_else(|_elapsed| {
            Err(CaError::Deadline {
                ca: record.facts.ca.clone(),
                step: crate::ca::error::Step::RenewalInfo,
            })
        });
        self.note_stops(answer.as_ref().err()).await;
        Ok(self.note(record, answer, now))
    }

    /// For how long the authority still wants to be left alone, where it does: it is asked nothing meanwhile.
    async fn stopped_for(&self, record: &CertificateRecord) -> Result<Option<Duration>, Cause> {
        match self.may_call(&record.facts.ca).await {
            Ok(()) => Ok(None),
            Err(Cause::Budget(denied)) => Ok(Some(denied.retry_after)),
            Err(cause) => Err(cause),
        }
    }

    async fn ask(&self, record: &CertificateRecord) -> Result<Option<RenewalInfo>, CaError> {
        match self.parts.accounts.account(&record.facts.ca).await {
            Ok(account) => account.renewal_info(&record.leaf).await,
            // An authority that is not configured any more, or cannot be used now, tells nothing.
            Err(error) => {
                tracing::debug!(domain = %self.pattern, %error, "nobody to ask about the renewal");
                Ok(Some(RenewalInfo::default()))
            }
        }
    }

    /// What is known of the certificate after `answer`.
    fn note(
        &self,
        record: &CertificateRecord,
        answer: Result<Option<RenewalInfo>, CaError>,
        now: Timestamp,
    ) -> CertificateStanding {
        let mut standing = record.standing.clone();
        match answer {
            Ok(Some(info)) => {
                if let Some((start, end)) = info.window {
                    standing.renewal_info =
                        self.window(record, (start, end), info.explanation, now);
                }
                standing.ask_at = Some(now.plus(pause(info.retry_after)));
            }
            Ok(None) => {
                standing.renewal_info = None;
                standing.ask_at = Some(record.facts.not_after);
            }
            // What it said before stays.
            Err(error) => {
                tracing::info!(domain = %self.pattern, ca = %error.ca(), %error, "no renewal information");
                standing.ask_at = Some(now.plus(pause(error.retry_after())));
            }
        }
        standing
    }

    fn window(
        &self,
        record: &CertificateRecord,
        (start, end): (Timestamp, Timestamp),
        explanation: Option<String>,
        now: Timestamp,
    ) -> Option<RenewalWindow> {
        let same = |known: &&RenewalWindow| (known.start, known.end) == (start, end);
        if let Some(known) = record.standing.renewal_info.as_ref().filter(same) {
            return Some(known.clone());
        }
        let settings = &self.settings.renewal;
        let renew_at = renewal::point_in((start, end), &Life::of(record), settings, now);
        let (domain, ca) = (self.pattern, &record.facts.ca);
        match renew_at {
            Some(at) => {
                let why = explanation.as_deref();
                tracing::debug!(%domain, %ca, renew_at = %at, why, "renewal window told");
            }
            None => tracing::info!(%domain, %ca, %start, %end, "renewal window of no use"),
        }
        Some(RenewalWindow {
            start,
            end,
            renew_at: renew_at?,
            explanation,
        })
    }
}
