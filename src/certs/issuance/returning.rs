//! A domain that has moved, and somebody who wants its certificate all the same: a visitor who comes to an expired one, or
//! whoever asks for a retry. It is looked at then and there, and taken back where it leads here.

use std::time::Duration;

use super::attempt::{Attempt, Known, Success};
use super::failure::{Cause, Failure};
use crate::certs::policy::Denial;
use crate::certs::preflight::judge::Reach;
use crate::certs::preflight::watch::taken_back;
use crate::model::domain::DomainState;
use crate::store::batch::JobOutcome;

/// For how long what was found answers further visitors, and whoever asks for it by name.
const FRESH: Duration = Duration::from_secs(60);
const ASKED: Duration = Duration::from_secs(5);

impl Attempt<'_> {
    /// Takes the domain back where it leads here, and has the job run again at once.
    pub(super) async fn look_for_return(&self, known: &Known) -> Result<Success, Failure> {
        let domain = known.domain.as_ref();
        let domain = domain.ok_or(Cause::Denied(Denial::NotRegistered))?;
        if self.reach(known).await != Reach::Here {
            return Err(Cause::Denied(Denial::NotServed(DomainState::Moved)).into());
        }
        let visited = self.parts.resolver.visited(self.pattern);
        let batch = taken_back(domain, visited);
        let again = self.finished(JobOutcome::Deferred, Duration::ZERO);
        self.commit(&batch.then(again)).await?;
        Ok(Success::Returned)
    }

    async fn reach(&self, known: &Known) -> Reach {
        // Where nothing looks any more, nothing says that it is elsewhere.
        let Some((preflight, name)) = self.preflight() else {
            return Reach::Here;
        };
        let asked = known.certificate.as_ref();
        let fresh = match asked.and_then(|record| record.standing.replace) {
            Some(_) => ASKED,
            None => FRESH,
        };
        let report = match preflight.remembered_for(name, fresh) {
            Some(report) => report,
            None => preflight.check_briefly(name).await,
        };
        report.judgement.reach
    }
}
