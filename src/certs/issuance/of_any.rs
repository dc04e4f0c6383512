//! The order placed with the first authority that suits; where that one turns out not to be there, or its budget gives
//! nothing in time, with the next.

use std::time::Duration;

use super::attempt::{Attempt, Known};
use super::failure::{Cause, Failure};
use super::order::{Obtained, Wanted};
use super::share::Share;
use crate::certs::authorities::breaker::Standing;
use crate::certs::authorities::{Found, Subject, Waits};
use crate::certs::policy::{self, IssuancePermit, Offer};
use crate::certs::request::IssuanceRequest;
use crate::model::certificate::CaId;
use crate::store::job::Priority;
use crate::store::record::DomainRecord;

/// Authorities that one run tries: more than anybody configures.
const MOST_AUTHORITIES: usize = 16;

impl Attempt<'_> {
    /// Asks the authorities that suit, the preferred first, until one certifies or refuses. An order that was begun with
    /// one that is not there is forgotten when the next takes one: with a key of its own, so that no key is certified by
    /// two authorities.
    pub(super) async fn obtain_of_any(
        &self,
        request: IssuanceRequest,
        (known, domain): (&Known, &DomainRecord),
        mut share: Option<Share>,
    ) -> Result<(IssuancePermit, Obtained), Failure> {
        let methods = self.kinds(&domain.memory);
        let mut passed = Passed::default();
        let mut last = None;
        for _ in 0..MOST_AUTHORITIES {
            let subject = Subject {
                request: &request,
                begun_with: self.begun_with(),
                passed: &passed.cas,
                methods: &methods,
                waits: self.who_waits(),
            };
            // Looking for one opens the account with the first, which may take as long as an order.
            let accounts = &self.parts.accounts;
            let (begun, cas) = (self.begun_with(), &passed.cas);
            if let Some(ca) = accounts.first(self.tenant, self.pattern, begun, cas) {
                share = Some(self.share_with(share, &ca).await?);
            }
            let Found { offers, not_opened } = accounts.offers(&subject).await;
            let (ca, failure) = match not_opened.filter(|(ca, _)| matters(&offers, ca)) {
                Some((ca, error)) => (ca, Cause::Account(error).into()),
                None => {
                    let permit = match policy::decide(request.clone(), Some(domain), &offers) {
                        Ok(permit) => permit,
                        Err(denial) => return Err(passed.or(Cause::Denied(denial).into())),
                    };
                    share = Some(self.share_with(share, permit.ca()).await?);
                    match self.obtain_with(&permit, known, domain).await {
                        Ok(obtained) => return Ok((permit, obtained)),
                        Err(failure) => (permit.ca().clone(), failure),
                    }
                }
            };
            let is_last = !others(&offers, &ca);
            match self.verdict(&ca, &failure.cause, &request) {
                Verdict::Final => return Err(failure),
                Verdict::Waits { wait, patience } if is_last || wait <= patience => {
                    passed.add(&ca, Some(wait), failure);
                    return Err(passed.or(self.late()));
                }
                Verdict::Away | Verdict::NoAccount if is_last => return Err(passed.or(failure)),
                Verdict::Waits { wait, .. } => {
                    self.tell_passed(&ca, &failure.cause);
                    passed.add(&ca, Some(wait), failure);
                }
                Verdict::NoAccount => {
                    self.tell_passed(&ca, &failure.cause);
                    passed.add(&ca, None, failure);
                }
                // From now on it is no offer any more.
                Verdict::Away => {
                    self.tell_passed(&ca, &failure.cause);
                    last = Some(failure);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.late()))
    }

    /// The order placed with one authority; it is told how that went.
    async fn obtain_with(
        &self,
        permit: &IssuancePermit,
        known: &Known,
        domain: &DomainRecord,
    ) -> Result<Obtained, Failure> {
        let authorities = self.parts.accounts.authorities();
        let _trial = authorities.began(permit.ca());
        let wanted = Wanted {
            permit,
            known,
            domain,
        };
        match Box::pin(self.obtain(wanted)).await {
            Ok(obtained) => {
                authorities.worked(permit.ca());
                Ok(obtained)
            }
            Err(failure) => {
                self.note_stops(failure.cause.ca_error()).await;
                if let Some(error) = failure.cause.ca_error() {
                    authorities.failed(error).await;
                }
                Err(failure)
            }
        }
    }

    /// What a failure with `ca` says of asking another.
    fn verdict(&self, ca: &CaId, cause: &Cause, request: &IssuanceRequest) -> Verdict {
        if let Some(wait) = self.comes_back(cause) {
            let class = self.class(&request.reason);
            let patience = policy::patience(class, self.left(request), cause.code());
            return Verdict::Waits { wait, patience };
        }
        let is_open = self.parts.accounts.authorities().standing(ca) == Standing::Open;
        match (cause.ca_error(), cause) {
            (None, _) => Verdict::Final,
            (Some(_), _) if is_open => Verdict::Away,
            (Some(_), Cause::Account(_)) => Verdict::NoAccount,
            (Some(_), _) => Verdict::Final,
        }
    }

    fn tell_passed(&self, ca: &CaId, cause: &Cause) {
        tracing::warn!(
            tenant = %self.tenant, domain = %self.pattern, %ca, %cause,
            "the authority certifies nothing in time: another is asked"
        );
    }

    pub(super) const fn who_waits(&self) -> Waits {
        match self.job.priority {
            Priority::Handshake => Waits::Visitor,
            Priority::Expiring | Priority::Renewal | Priority::Background => Waits::Nobody,
        }
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

/// What a failure with one authority says of asking the next.
enum Verdict {
    /// It would fail there too, or is none of the authority's.
    Final,
    /// This one gives after a wait, and so long may be waited.
    Waits { wait: Duration, patience: Duration },
    /// This one is not there.
    Away,
    /// This one lets us have no account.
    NoAccount,
}

/// Authorities that are asked no more in a run.
#[derive(Default)]
struct Passed {
    cas: Vec<CaId>,
    /// The one that gives again first, and after how long.
    soonest: Option<(Duration, Failure)>,
}

impl Passed {
    fn add(&mut self, ca: &CaId, wait: Option<Duration>, failure: Failure) {
        self.cas.push(ca.clone());
        let Some(wait) = wait else {
            return;
        };
        if self.soonest.as_ref().is_none_or(|(least, _)| wait < *least) {
            self.soonest = Some((wait, failure));
        }
    }

    /// What the job waits for: an authority that gives again, else what failed.
    fn or(self, failure: Failure) -> Failure {
        self.soonest.map_or(failure, |(_, soonest)| soonest)
    }
}

/// Whether it matters that the account with `ca` cannot be opened: not where the order would go to another anyhow.
fn matters(offers: &[Offer], ca: &CaId) -> bool {
    let own = offers.iter().find(|offer| offer.ca == *ca);
    own.is_some_and(|offer| offer.unsuitable().is_none()) || !others(offers, ca)
}

/// Whether another authority than `ca` suits.
fn others(offers: &[Offer], ca: &CaId) -> bool {
    offers
        .iter()
        .any(|offer| offer.ca != *ca && offer.unsuitable().is_none())
}
