//! Changes of the store, made while the job is ours.

use std::time::Duration;

use super::PATIENCE;
use super::attempt::Attempt;
use super::failure::{Cause, Failure};
use super::lease::Gone;
use crate::store::batch::{Batch, Guard};
use crate::store::error::Retry;
use crate::store::{ApplyError, Deadline, StoreError};

/// Tries of one change of the store.
const MOST_TRIES: u32 = 6;
/// The wait before a change is tried again; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

impl Attempt<'_> {
    /// Makes a change while the job is ours; tries again where the store fails in passing. Every change that comes
    /// here may be made twice.
    pub(super) async fn commit(&self, batch: &Batch) -> Result<(), Failure> {
        let batch = Batch {
            guards: std::iter::once(Guard::ClaimHeld(self.job.claim.clone()))
                .chain(batch.guards.iter().cloned())
                .collect(),
            ..batch.clone()
        };
        let mut pause = PAUSE;
        for _ in 1..MOST_TRIES {
            match self.apply(batch.clone()).await {
                Err(ApplyError::Store(error)) if may_pass(&error) => {
                    tracing::warn!(domain = %self.pattern, %error, "a change is tried again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result.map_err(refused),
            }
        }
        self.apply(batch).await.map_err(refused)
    }

    async fn apply(&self, batch: Batch) -> Result<(), ApplyError> {
        let by = Deadline::after(PATIENCE);
        let applied = self.parts.store.apply(by, &self.scope, batch).await;
        applied.map(|_applied| ())
    }
}

/// Whether a change may succeed if tried again.
fn may_pass(error: &StoreError) -> bool {
    error.retry() != Retry::Never
}

fn refused(error: ApplyError) -> Failure {
    if let ApplyError::GuardFailed(Guard::ClaimHeld(_)) = error {
        return Cause::Gone(Gone::Taken).into();
    }
    if let ApplyError::Store(error) = error {
        return Cause::Store(error).into();
    }
    Cause::Refused(error).into()
}
