//! Whether this process should get traffic, and what is not well with it.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It does not accept connections yet.
    Starting,
    /// It serves.
    Serving,
    /// It is shutting down: it still serves, but new visitors should go elsewhere.
    Draining,
}

/// What is watched. None of them stops the process from serving what it knows, so none makes it unready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The configuration in force is that of the file, not the last good one.
    Configuration,
    /// The store answers.
    Store,
    /// Every registered name has been read from the store.
    Names,
    /// Each CA answered its last question.
    Authorities,
    /// This machine's clock agrees with what the CAs say.
    Clock,
    /// Every data key opens.
    Keys,
    /// The permission hook, where there is one, answered its last question.
    PermissionHook,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 7] = [
        Self::Configuration,
        Self::Store,
        Self::Names,
        Self::Authorities,
        Self::Clock,
        Self::Keys,
        Self::PermissionHook,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Store => "store",
            Self::Names => "names",
            Self::Authorities => "authorities",
            Self::Clock => "clock",
            Self::Keys => "keys",
            Self::PermissionHook => "permission_hook",
        }
    }
}

/// How a condition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nobody has looked yet.
    Unknown,
    /// Well.
    Well,
    /// Not well, and why, in words for the operator; no secret.
    Degraded(Cow<'static, str>),
}

/// The state of the process as `/readyz` tells it. Clones are the same; starts as [`Phase::Starting`] with
/// everything unknown.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    health: [Health; Condition::ALL.len()],
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Starting,
            health: Condition::ALL.map(|_| Health::Unknown),
        })))
    }
}

impl Readiness {
    /// Enters a phase. There is no way back from [`Phase::Draining`].
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if state.phase != Phase::Draining {
            state.phase = phase;
        }
    }

    /// Says how a condition stands.
    pub fn set(&self, condition: Condition, health: Health) {
        if let Some(known) = self.state().health.get_mut(condition as usize) {
            *known = health;
        }
    }

    /// Where the process is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Every condition, and whether it is degraded.
    #[must_use]
    pub fn degraded(&self) -> Vec<(Condition, bool)> {
        let state = self.state();
        let degraded = state.health.iter();
        let degraded = degraded.map(|health| matches!(health, Health::Degraded(_)));
        Condition::ALL.into_iter().zip(degraded).collect()
    }

    /// The whole state, to be written out.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.state();
        let conditions = Condition::ALL.into_iter().zip(&state.health);
        let conditions = conditions.map(|(condition, health)| ConditionReport {
            name: condition.as_str(),
            status: match health {
                Health::Unknown => "unknown",
                Health::Well => "well",
                Health::Degraded(_) => "degraded",
            },
            reason: match health {
                Health::Unknown | Health::Well => None,
                Health::Degraded(why) => Some(why.clone()),
            },
        });
        Report {
            ready: state.phase == Phase::Serving,
            phase: state.phase,
            conditions: conditions.collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Whether new visitors should come here.
    pub ready: bool,
    /// Where the process is in its life.
    pub phase: Phase,
    /// What is watched.
    pub conditions: Vec<ConditionReport>,
}

/// One condition of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConditionReport {
    /// Which.
    pub name: &'static str,
    /// `well`, `degraded` or `unknown`.
    pub status: &'static str,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_phase_decides_and_draining_is_final() {
        let readiness = Readiness::default();
        assert!(!readiness.report().ready);
        readiness.enter(Phase::Serving);
        readiness.set(Condition::Store, Health::Degraded("disk full".into()));
        let report = readiness.report();
        assert!(report.ready);
        assert_eq!(report.conditions[1].reason.as_deref(), Some("disk full"));
        readiness.enter(Phase::Draining);
        readiness.enter(Phase::Serving);
        assert!(!readiness.report().ready);
    }
}
