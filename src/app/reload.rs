//! How it changes while it runs: a configuration is read, checked and swapped in, or refused while the old one stays.
//! No connection notices.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};

use crate::app::roots::Roots;
use crate::app::standing::Standing;
use crate::base::clock::Clock;
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::ca;
use crate::ca::Configured;
use crate::certs;
use crate::certs::accounts::Accounts;
use crate::certs::budget;
use crate::certs::vault::Vault;
use crate::certs::vault::own::whole;
use crate::config::reload::{Applied, Reload, Reloader};
use crate::config::watch::{Trigger, Watch};
use crate::control::actions::{self, ReloadRefused, Reloaded};
use crate::control::declare::Declaration;
use crate::control::names;
use crate::model::Snapshot;
use crate::model::edge::Edge;
use crate::proxy::settings::Settings as ProxySettings;
use crate::telemetry::access::AccessLog;
use crate::telemetry::labels::Reload as Outcome;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// How long a start and a reload wait for the names that the files declare. Visitors are served meanwhile.
pub(super) const DECLARED_NAMES: Duration = Duration::from_secs(5);
/// Callers of the API that may wait for a reload.
const MOST_CALLERS: usize = 16;

/// What a reload replaces.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) proxy: Published<ProxySettings>,
    pub(super) edge: Published<Edge>,
    pub(super) accounts: Accounts,
    pub(super) configured: Configured,
    pub(super) roots: Roots,
    pub(super) tasks: Tasks,
    pub(super) certificates: Published<certs::Settings>,
    pub(super) choices: Published<Arc<certs::authorities::Choices>>,
    pub(super) shares: Published<budget::Settings>,
    pub(super) declaration: Published<Arc<Declaration>>,
    pub(super) snapshot: Published<Snapshot>,
    pub(super) access_log: AccessLog,
    pub(super) logging: Arc<Logging>,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) clock: Clock,
    pub(super) vault: Vault,
}

type Answer = Result<Reloaded, ReloadRefused>;

/// Starts to heed SIGHUP and changes of the files, and gives the way for callers of the API to ask for a reload.
pub(super) fn start(
    reloader: Reloader,
    in_force: InForce,
    tasks: &Tasks,
) -> io::Result<actions::Reload> {
    let watch = Watch::new(reloader.files())?;
    let (calls, called) = mpsc::channel(MOST_CALLERS);
    tasks.spawn_until_cancelled(
        "reload",
        run(reloader, in_force, watch, called, tasks.clone()),
    );
    Ok(Arc::new(move || ask(calls.clone()).boxed()))
}

async fn ask(calls: mpsc::Sender<oneshot::Sender<Answer>>) -> Answer {
    let refused = |why: &str| ReloadRefused {
        mistakes: vec![why.to_owned()],
    };
    let (answer, answered) = oneshot::channel();
    calls
        .try_send(answer)
        .map_err(|_full| refused("too many reloads wait already"))?;
    answered
        .await
        .map_err(|_ended| refused("the process is stopping"))?
}

async fn run(
    mut reloader: Reloader,
    mut in_force: InForce,
    mut watch: Watch,
    mut called: mpsc::Receiver<oneshot::Sender<Answer>>,
    tasks: Tasks,
) {
    loop {
        let (trigger, caller) = tokio::select! {
            trigger = watch.next() => (trigger, None),
            Some(caller) = called.recv() => (Trigger::Signal, Some(caller)),
        };
        // Reading files blocks; the reloader comes back with what it read.
        let read = tasks.blocking("read_configuration", move || {
            let outcome = reloader.reload(trigger);
            (reloader, outcome)
        });
        let Some((back, outcome)) = read.await else {
            tracing::error!(
                "reading the configuration failed; it is not read again before a restart"
            );
            return;
        };
        reloader = back;
        watch.follow(reloader.files());
        let answer = in_force.take(outcome).await;
        if let Some(caller) = caller {
            // A caller who has gone away is not told.
            drop(caller.send(answer));
        }
    }
}

impl InForce {
    async fn take(&mut self, outcome: Reload) -> Answer {
        match outcome {
            Reload::Unchanged => Ok(Reloaded::default()),
            Reload::Refused { mistakes } => {
                tracing::error!("reload refused: the old configuration stays");
                self.metrics.reloaded(Outcome::Failure, self.clock.now());
                let older = Standing::Older {
                    mistakes: &mistakes,
                    serves: "the configuration before it",
                };
                older.tell(&self.readiness, &self.metrics);
                let mistakes = mistakes.iter().map(ToString::to_string).collect();
                Err(ReloadRefused { mistakes })
            }
            Reload::Applied(applied) => Ok(self.apply(*applied).await),
        }
    }

    /// Swaps it in, and ends once new names are served, or after a while: who waits for a reload may visit then.
    async fn apply(&mut self, applied: Applied) -> Reloaded {
        let Applied {
            settings,
            changes,
            warnings,
        } = applied;
        if let Err(error) = self.logging.set_filter(&settings.telemetry.filter) {
            tracing::warn!(%error, "the log filter stays as it was");
        }
        self.access_log
            .show_clients(settings.telemetry.client_address);
        let proxy = settings.proxy.in_place_of(&self.proxy.get());
        self.edge.publish(Edge {
            https_port: proxy.https_port(),
            http_listening: self.edge.get().http_listening.clone(),
            ..settings.edge
        });
        self.certificates.publish(settings.certificates);
        // Limits before the authorities that have them, and these before the tenants that choose them.
        self.shares.publish(settings.budget);
        self.change_authorities(&settings.ca).await;
        let choices = settings.declaration.choices.clone();
        self.choices.publish(Arc::new(choices));
        self.proxy.publish(proxy);
        // Before its domains are known, so that their first keys are wrapped by the right one.
        let keys = self.take_keys(&settings.declaration).await;
        let declaration = Arc::new(settings.declaration);
        self.declaration.publish(Arc::clone(&declaration));
        names::declared(&declaration, &self.snapshot, DECLARED_NAMES).await;
        let (changed, needs_restart) =
            (changes.changed.join(", "), changes.needs_restart.join(", "));
        tracing::info!(changed, needs_restart, "reloaded");
        self.metrics.reloaded(Outcome::Success, self.clock.now());
        Standing::Current(&warnings).tell(&self.readiness, &self.metrics);
        Reloaded {
            warnings: warnings
                .iter()
                .map(ToString::to_string)
                .chain(keys)
                .collect(),
            needs_restart: changes.needs_restart,
        }
    }

    /// Orders go to these from now on; an order in progress ends where it is.
    async fn change_authorities(&mut self, settings: &ca::Settings) {
        let changed = self
            .configured
            .changed_to(settings, &self.tasks, &self.clock);
        match changed {
            Ok(changed) => self.configured = changed,
            Err((ca, error)) => {
                tracing::error!(%ca, %error, "an authority cannot be used: all stay as they were");
                return;
            }
        }
        self.accounts
            .replace_authorities(self.configured.adapters());
        self.roots.write(settings).await;
    }

    /// Takes over which tenants have a key of their own, and gives what is wrong with them.
    async fn take_keys(&self, declaration: &Declaration) -> Vec<String> {
        let taken = self.vault.take_own(&declaration.own_keys).await;
        taken.unwrap_or_else(|error| {
            let what =
                "the tenants' own key-encryption keys stay as they were; a reload tries again";
            tracing::warn!(%error, "{what}");
            vec![format!("{what}: {}", whole(&error))]
        })
    }
}
