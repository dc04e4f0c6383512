//! What is built, in order. Nothing is ordered from a CA and nobody is served before the keys are open.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::api;
use crate::app::ground::Ground;
use crate::app::process::{Phase as ServicePhase, tell_service_manager};
use crate::app::reload;
use crate::app::roots::Roots;
use crate::app::serving::{Addresses, Serving};
use crate::app::standing::Standing;
use crate::app::work::Work;
use crate::base::clock::Clock;
use crate::base::published::Published;
use crate::config::load::{Loaded, Origin};
use crate::config::reload::Reloader;
use crate::config::settings::Settings;
use crate::control::actions::Actions;
use crate::control::drill::{self, Drills};
use crate::control::keys::Keys;
use crate::control::names;
use crate::control::views::{Sources, Views};
use crate::keys;
use crate::model::edge::Edge;
use crate::proxy;
use crate::proxy::listener::{Bound, Inherited, Port};
use crate::proxy::report::Reports;
use crate::proxy::settings::Settings as ProxySettings;
use crate::proxy::worker::{Services, Shared};
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Phase;

/// Why nothing serves.
#[derive(Debug)]
pub struct StartError {
    doing: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    pub(super) fn while_doing<E>(doing: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |error| Self {
            doing,
            source: Box::new(error),
        }
    }
}

impl StartError {
    /// The process cannot heed signals.
    pub(crate) fn of_signals(error: std::io::Error) -> Self {
        Self::while_doing("heed signals")(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.doing)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// What is there before anything is started.
#[derive(Clone, Debug)]
pub struct Basics {
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Who watches handshakes.
    pub reports: Reports,
}

/// What a reload replaces beside what [`Work`] holds.
struct InForce {
    proxy: Published<ProxySettings>,
    edge: Published<Edge>,
}

/// Builds and starts everything. Returns once visitors are served. Must run on the control runtime, which the caller
/// keeps until [`Serving::stop`] has ended.
///
/// # Errors
/// [`StartError`] says what could not be done; what had been started ends with the runtime.
pub async fn start(
    loaded: Loaded,
    logging: Arc<Logging>,
    basics: Basics,
) -> Result<Serving, StartError> {
    let settings = &loaded.settings;
    let bound = bind(settings)?;
    let ground = Ground::open(settings, &basics).await?;
    standing(&loaded).tell(&ground.readiness, &ground.metrics);
    let in_force = InForce {
        proxy: Published::new(settings.proxy.clone()),
        edge: Published::new(settings.edge.clone()),
    };
    let work = Work::start(settings, &ground, &in_force.edge)?;
    start_control(&loaded, logging, (&ground, &work, &in_force)).await?;
    roots(settings, &ground, &work).write(&settings.ca).await;
    let addresses = Addresses {
        https: bound.addresses(Port::Https).collect(),
        http: bound.addresses(Port::Http).collect(),
        telemetry: ground.telemetry,
    };
    let shared = Shared::new(services(&ground, &work, &in_force, basics.reports));
    let proxy = bound
        .start(shared, &ground.groups.workers, &proxy::request::serve)
        .map_err(StartError::while_doing("start the workers"))?;
    if let Err(error) = loaded.keep() {
        tracing::warn!(%error, "the last good configuration cannot be kept");
    }
    names::declared(
        &work.declaration.get(),
        &work.snapshot,
        reload::DECLARED_NAMES,
    )
    .await;
    ground.readiness.enter(Phase::Serving);
    tell_service_manager(ServicePhase::Ready);
    let [https, http] = [&addresses.https, &addresses.http].map(|list| listed(list));
    tracing::info!(https, http, "serving");
    Ok(Serving {
        proxy,
        proxy_settings: in_force.proxy,
        store: ground.embedded,
        access_log: ground.access_log,
        readiness: ground.readiness,
        holder: ground.holder,
        groups: ground.groups,
        addresses,
    })
}

fn bind(settings: &Settings) -> Result<Bound, StartError> {
    let inherited = Inherited::from_environment().map_err(StartError::while_doing(
        "take over the sockets that were handed over",
    ))?;
    Bound::bind(&settings.proxy, inherited).map_err(StartError::while_doing("listen"))
}

/// Reloads, and the control API that asks for them among other things.
fn roots(settings: &Settings, ground: &Ground, work: &Work) -> Roots {
    Roots {
        accounts: work.accounts.clone(),
        data: settings.data.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
        tasks: ground.groups.control.clone(),
    }
}

async fn start_control(
    loaded: &Loaded,
    logging: Arc<Logging>,
    (ground, work, in_force): (&Ground, &Work, &InForce),
) -> Result<(), StartError> {
    let (tasks, settings) = (&ground.groups.control, &loaded.settings);
    let replaced = reload::InForce {
        proxy: in_force.proxy.clone(),
        edge: in_force.edge.clone(),
        accounts: work.accounts.clone(),
        configured: work.configured.clone(),
        roots: roots(settings, ground, work),
        tasks: tasks.clone(),
        certificates: work.certificates.clone(),
        choices: work.choices.clone(),
        shares: work.shares.clone(),
        declaration: work.declaration.clone(),
        snapshot: work.snapshot.clone(),
        access_log: ground.access_log.clone(),
        logging,
        metrics: ground.metrics.clone(),
        readiness: ground.readiness.clone(),
        clock: ground.clock.clone(),
        vault: ground.vault.clone(),
    };
    let reload = reload::start(Reloader::new(loaded), replaced, tasks)
        .map_err(StartError::while_doing("watch the configuration"))?;
    let views = Views::over(Sources {
        store: Arc::clone(&ground.store),
        snapshot: work.snapshot.clone(),
        edge: in_force.edge.clone(),
        preflight: work.preflight.clone(),
        authorities: work.accounts.authorities().clone(),
        budget: work.budget.clone(),
        vault: Some(ground.vault.clone()),
        resolver: work.resolver.clone(),
        troubles: ground.troubles.clone(),
        readiness: ground.readiness.clone(),
        clock: ground.clock.clone(),
        started_at: ground.clock.now(),
    });
    let (issuer, revoker) = (work.issuer.clone(), work.revoker.clone());
    let nudge = Arc::new(move || {
        issuer.nudge();
        revoker.nudge();
    });
    let clock = ground.clock.corrected();
    let actions = Actions::new(Arc::clone(&ground.store), clock, reload, nudge)
        .with_imports(work.imports.clone())
        .with_drills(drills(&loaded.settings, ground, work))
        .with_accounts(work.accounts.clone())
        .with_keys(Keys::new(
            Arc::clone(&ground.store),
            ground.vault.clone(),
            work.accounts.clone(),
            ground.clock.corrected(),
        ));
    api::start(&loaded.settings.admin_socket, views, actions, tasks)
        .await
        .map_err(StartError::while_doing("serve the control API"))
}

fn drills(settings: &Settings, ground: &Ground, work: &Work) -> Drills {
    Drills::new(drill::Parts {
        store: Arc::clone(&ground.store),
        vault: ground.vault.clone(),
        keys: keys::Settings {
            key_file: settings.key_file.clone(),
        },
        declaration: work.declaration.clone(),
        resolver: work.resolver.clone(),
        accounts: work.accounts.clone(),
        budget: work.budget.clone(),
        settings: work.certificates.clone(),
        metrics: ground.metrics.clone(),
        clock: ground.clock.corrected(),
    })
}

fn services(ground: &Ground, work: &Work, in_force: &InForce, reports: Reports) -> Services {
    Services {
        snapshot: work.snapshot.clone(),
        resolver: work.resolver.clone(),
        on_demand: work.on_demand.clone(),
        challenges: work.challenges.clone(),
        lists: work.accounts.lists(),
        settings: in_force.proxy.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
        troubles: ground.troubles.clone(),
        access_log: ground.access_log.clone(),
        reports,
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

/// How the configuration that a start begins with stands.
fn standing(loaded: &Loaded) -> Standing<'_> {
    match &loaded.origin {
        Origin::File => Standing::Current(&loaded.warnings),
        Origin::LastGood { mistakes } => Standing::Older {
            mistakes,
            serves: "the last good configuration",
        },
    }
}
