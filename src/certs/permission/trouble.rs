//! A hook that fails, told to the operator: a condition while it lasts, and a line in the log now and then.

use std::borrow::Cow;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Instant;
use crate::certs::permission::ask::AskError;
use crate::model::DnsName;
use crate::telemetry::readiness::{Condition, Health, Readiness};

/// A failed call has a line of its own in the log at most this often.
const PAUSE: Duration = Duration::from_mins(1);

/// Tells how the hook's last call ended.
#[derive(Debug)]
pub(super) struct Trouble {
    readiness: Readiness,
    warned: Mutex<Option<Instant>>,
}

impl Trouble {
    /// Tells `readiness`.
    pub(super) const fn told_to(readiness: Readiness) -> Self {
        Self {
            readiness,
            warned: Mutex::new(None),
        }
    }

    /// The hook has allowed or denied a name.
    pub(super) fn over(&self) {
        self.readiness.set(Condition::PermissionHook, Health::Well);
    }

    /// The call about `name` failed at `now`.
    pub(super) fn failed(&self, name: &DnsName, error: &AskError, now: Instant) {
        let health = Health::Degraded(reason(error));
        self.readiness.set(Condition::PermissionHook, health);
        if self.may_warn(now) {
            tracing::warn!(domain = %name, %error, cause = error.source(), "permission not known");
        } else {
            tracing::debug!(domain = %name, %error, cause = error.source(), "permission not known");
        }
    }

    fn may_warn(&self, now: Instant) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let may = warned.is_none_or(|at| now.saturating_duration_since(at) >= PAUSE);
        if may {
            *warned = Some(now);
        }
        may
    }
}

/// What failed, with its cause, and what it means.
fn reason(error: &AskError) -> Cow<'static, str> {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    let told = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    format!("{told}; unknown names are refused until it answers, known ones go on").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::monotonic;

    #[test]
    fn a_failed_call_is_logged_once_a_minute() {
        let trouble = Trouble::told_to(Readiness::default());
        let start = monotonic();
        let seconds = [0, 1, 59, 60, 61, 120];
        let warned = seconds.map(|after| trouble.may_warn(start + Duration::from_secs(after)));
        assert_eq!(warned, [true, false, false, true, false, true]);
    }
}
