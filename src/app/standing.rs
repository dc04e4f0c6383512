//! How the configuration in force stands to its files, told wherever an operator looks: log, `/readyz`, metric.

use crate::config::mistake::Mistake;
use crate::telemetry::labels::ConfigState;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Condition, Health, Readiness};

/// How it stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing<'a> {
    /// It is the file's; these are the mistakes of included files, which go on with their last good text or without.
    Current(&'a [Mistake]),
    /// The file is broken: an older configuration is served.
    Older {
        /// What is wrong with the file.
        mistakes: &'a [Mistake],
        /// Which one is served instead.
        serves: &'static str,
    },
}

impl Standing<'_> {
    /// Tells it.
    pub(super) fn tell(self, readiness: &Readiness, metrics: &Metrics) {
        let (state, health) = match self {
            Self::Current(included) => {
                for mistake in included {
                    tracing::warn!(
                        mistake = mistake.headline(),
                        "an included file goes on with its last good text, or without"
                    );
                }
                (ConfigState::Current, health(included))
            }
            Self::Older { mistakes, serves } => {
                let count = mistakes.len();
                tracing::error!(mistakes = count, serves, "the configuration file is broken");
                for mistake in mistakes {
                    tracing::error!(mistake = mistake.headline(), "mistake");
                }
                let told = format!("the file has {count} mistakes; {serves} is served");
                (ConfigState::LastGood, Health::Degraded(told.into()))
            }
        };
        readiness.set(Condition::Configuration, health);
        metrics.set_config_state(state);
    }
}

/// How a configuration stands whose included files have these mistakes.
fn health(included: &[Mistake]) -> Health {
    match included.first() {
        None => Health::Well,
        Some(first) => {
            let (count, file, line) = (included.len(), &first.file, first.line);
            let told = format!(
                "included files have {count} mistakes, the first at {file}:{line}: they go on with \
                 their last good text, or without"
            );
            Health::Degraded(told.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};
    use crate::config::load::load;

    #[test]
    fn a_broken_included_file_shows_in_the_health_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            replace(&folder.path().join(name), text.as_bytes(), Access::Everyone).unwrap();
        };
        write(
            "proxy.toml",
            "include = [\"*.tenant\"]\n[[ca]]\nname = \"own\"\nkind = \"private\"\n",
        );
        write("good.tenant", "[[tenant]]\nname = \"good\"\n");
        let path = folder.path().join("proxy.toml");
        assert_eq!(health(&load(&path).unwrap().warnings), Health::Well);
        write("bad.tenant", "[[tenant]]\nnome = \"bad\"\n");
        let Health::Degraded(told) = health(&load(&path).unwrap().warnings) else {
            panic!("a mistake that nobody is told of");
        };
        assert!(told.contains("bad.tenant:"), "{told}");
    }
}
