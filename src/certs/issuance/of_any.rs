//! The order placed with the first authority that suits; where that one turns out not to be there, or its budget gives
//! nothing in time, with the next.

use std::time::Duration;

use super::attempt::{Attempt, Known};
use super::failure::{Cause, Failure};
use super::order::{Obtained, Wanted};
use crate::certs::authorities::breaker::Standing;
use crate::certs::authorities::{Found, Subject};
use crate::certs::policy::{self, IssuancePermit, Offer};
use crate::certs::request::IssuanceRequest;
use crate::model::certificate::CaId;
use crate::store::job::Priority;
use crate::store::record::DomainRecord;

/// How long CAA is waited for while a visitor waits.
const VISITOR: Duration = Duration::from_secs(1);
/// How long else.
const NOBODY: Duration = Duration::from_secs(5);
/// Authorities that one run tries: more than anybody configures.
const MOST_AUTHORITIES: usize = 16;

impl Attempt<'_> {
    /// Asks the authorities that suit, the preferred first, until one certifies or refuses. An order that was begun with
    /// one that is not there is forgotten when the next takes one: with a key of its own, so that no key is certified by
    /// two authorities.
    pub(super) async fn obtain_of_any(
        &self,
        request: IssuanceRequest,
        known: &Known,
        domain: &DomainRecord,
    ) -> Result<(IssuancePermit, Obtained), Failure> {
        let accounts = &self.parts.accounts;
        let methods = self.kinds(&domain.memory);
        let mut last = None;
        let mut spent = Spent::default();
        for _ in 0..MOST_AUTHORITIES {
            let subject = Subject {
                request: &request,
                begun_with: self.job.order.as_ref().map(|order| &order.ca),
                methods: &methods,
                patience: match self.job.priority {
                    Priority::Handshake => VISITOR,
                    Priority::Expiring | Priority::Renewal | Priority::Background => NOBODY,
                },
            };
            let Found {
                mut offers,
                not_opened,
            } = accounts.offers(&subject).await;
            offers.retain(|offer| !spent.cas.contains(&offer.ca));
            let not_opened = not_opened.filter(|(ca, _)| !spent.cas.contains(ca));
            if let Some((ca, error)) = not_opened {
                let is_away = accounts.authorities().standing(&ca) == Standing::Open;
                if !is_away || !others(&offers, &ca) {
                    return Err(Cause::Account(error).into());
                }
            }
            let decided = policy::decide(request.clone(), Some(domain), &offers);
            let denied = |denial| {
                spent
                    .soonest
                    .take()
                    .map_or(Cause::Denied(denial).into(), |(_, held)| held)
            };
            let permit = decided.map_err(denied)?;
            accounts.authorities().began(permit.ca());
            let wanted = Wanted {
                permit: &permit,
                known,
                domain,
            };
            let failure = match Box::pin(self.obtain(wanted)).await {
                Ok(obtained) => {
                    accounts.authorities().worked(permit.ca());
                    return Ok((permit, obtained));
                }
                Err(failure) => failure,
            };
            self.note_stops(&failure).await;
            if let Some(wait) = self.held_for(&failure.cause) {
                let is_last = !others(&offers, permit.ca());
                let class = self.class(&request.reason);
                let limited = failure.cause.code();
                let patience = policy::patience(class, self.left(&request), limited);
                spent.add(permit.ca(), wait, failure);
                if is_last || wait <= patience {
                    return Err(spent.soonest().unwrap_or_else(|| self.late()));
                }
                tracing::info!(
                    tenant = %self.tenant, domain = %self.pattern, ca = %permit.ca(), seconds = wait.as_secs(),
                    "the authority's budget gives nothing in time: another is asked"
                );
                continue;
            }
            let standing = match failure.cause.ca_error() {
                Some(error) => accounts.authorities().failed(error).await,
                None => Standing::Closed,
            };
            if standing != Standing::Open || !others(&offers, permit.ca()) {
                return Err(failure);
            }
            tracing::warn!(
                tenant = %self.tenant, domain = %self.pattern, ca = %permit.ca(), cause = ?failure.cause,
                "the authority is not there: another is asked"
            );
            last = Some(failure);
        }
        Err(last.unwrap_or_else(|| self.late()))
    }

    fn late(&self) -> Failure {
        Cause::Deadline(self.settings.job_deadline).into()
    }

    /// How long what serves is good.
    fn left(&self, request: &IssuanceRequest) -> Duration {
        let now = self.parts.clock.now();
        let certificate = request.reason.certificate();
        certificate.map_or(Duration::ZERO, |facts| facts.not_after.since(now))
    }
}

/// Authorities whose budget gives nothing in time.
#[derive(Default)]
struct Spent {
    cas: Vec<CaId>,
    /// The one that gives again first, and after how long.
    soonest: Option<(Duration, Failure)>,
}

impl Spent {
    fn add(&mut self, ca: &CaId, wait: Duration, failure: Failure) {
        self.cas.push(ca.clone());
        if self.soonest.as_ref().is_none_or(|(least, _)| wait < *least) {
            self.soonest = Some((wait, failure));
        }
    }

    /// What the job waits for.
    fn soonest(self) -> Option<Failure> {
        self.soonest.map(|(_, failure)| failure)
    }
}

/// Whether another authority than `ca` suits.
fn others(offers: &[Offer], ca: &CaId) -> bool {
    offers
        .iter()
        .any(|offer| offer.ca != *ca && offer.unsuitable().is_none())
}
