//! What is built, in order. Nothing is ordered from a CA and nobody is served before the keys are open.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::api;
use crate::app::process::{Phase as ServicePhase, tell_service_manager};
use crate::app::reload;
use crate::app::roots;
use crate::app::serving::{Addresses, Groups, Serving};
use crate::base::clock::Clock;
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::ca;
use crate::certs::accounts::{self, Accounts};
use crate::certs::challenge::Challenges;
use crate::certs::issuance::{self, Issuer};
use crate::certs::load::Loader;
use crate::certs::on_demand::OnDemand;
use crate::certs::on_demand::answer;
use crate::certs::outcome::Outcomes;
use crate::certs::permission::Permission;
use crate::certs::resolver::Resolver;
use crate::certs::upkeep::Upkeep;
use crate::certs::vault::Vault;
use crate::config::load::{Loaded, Origin};
use crate::config::reload::Reloader;
use crate::config::settings::Settings;
use crate::control::actions::Actions;
use crate::control::declare::Declaration;
use crate::control::declare::reconcile;
use crate::control::domains::Domains;
use crate::control::names;
use crate::control::publish::{self, Publisher};
use crate::control::views::{Sources, Views};
use crate::dns::{self, Dns};
use crate::keys;
use crate::model::Snapshot;
use crate::proxy;
use crate::proxy::listener::{Bound, Inherited, Port};
use crate::proxy::report::Reports;
use crate::proxy::worker::{Services, Shared};
use crate::store::Store;
use crate::store::embedded::{self, Embedded};
use crate::store::measured::Measured;
use crate::telemetry::access::AccessLog;
use crate::telemetry::labels::ConfigState;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Condition, Health, Phase, Readiness};
use crate::telemetry::server;

/// How long readiness waits for the names that the files declare. Visitors are served meanwhile.
const DECLARED_NAMES: Duration = Duration::from_secs(5);

/// Bytes of credentials kept in memory: about 100,000 of them.
const CREDENTIALS: usize = 256 * 1024 * 1024;

/// Why nothing serves.
#[derive(Debug)]
pub struct StartError {
    doing: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StartError {
    fn while_doing<E>(doing: &'static str) -> impl FnOnce(E) -> Self
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
    let Basics {
        clock,
        metrics,
        reports,
    } = basics;
    let settings = &loaded.settings;
    let groups = Groups::default();
    for tasks in [
        &groups.workers,
        &groups.control,
        &groups.store,
        &groups.telemetry,
    ] {
        metrics.watch_panics(tasks);
    }
    let bound = bind(settings)?;
    let readiness = Readiness::default();
    let access_log = AccessLog::start(&settings.telemetry, &metrics, &groups.telemetry)
        .map_err(StartError::while_doing("open the access log"))?;
    let telemetry = match settings.telemetry.address {
        Some(address) => Some(
            server::start(
                address,
                metrics.clone(),
                readiness.clone(),
                &groups.telemetry,
            )
            .await
            .map_err(StartError::while_doing("serve health and metrics"))?,
        ),
        None => None,
    };
    let embedded = open_store(settings, &clock, &groups.store).await?;
    let measured = Measured::around(embedded.clone(), metrics.clone(), readiness.clone());
    let store: Arc<dyn Store> = Arc::new(measured);
    let vault = open_vault(&store, &settings.key_file).await?;
    note_origin(&loaded, &readiness, &metrics);

    let ground = Ground {
        store,
        vault,
        clock: clock.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        tasks: groups.control.clone(),
    };
    let control = Control::start(settings, ground)?;
    let proxy_settings = Published::new(settings.proxy.clone());
    let addresses = Addresses {
        https: bound.addresses(Port::Https).collect(),
        http: bound.addresses(Port::Http).collect(),
        telemetry,
    };
    let services = Services {
        snapshot: control.snapshot.clone(),
        resolver: control.resolver.clone(),
        on_demand: control.on_demand.clone(),
        challenges: control.challenges.clone(),
        settings: proxy_settings.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        access_log: access_log.clone(),
        reports,
    };
    let edge = Published::new(settings.edge.clone());
    let in_force = reload::InForce {
        proxy: proxy_settings.clone(),
        edge: edge.clone(),
        certificates: control.certificates.clone(),
        declaration: control.declaration.clone(),
        access_log: access_log.clone(),
        logging,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        clock: clock.clone(),
    };
    let reload = reload::start(Reloader::new(&loaded), in_force, &groups.control)
        .map_err(StartError::while_doing("watch the configuration"))?;
    let views = Views::over(Sources {
        store: Arc::clone(&control.store),
        snapshot: control.snapshot.clone(),
        edge,
        readiness: readiness.clone(),
        clock: clock.clone(),
        started_at: clock.now(),
    });
    let issuer = control.issuer.clone();
    let nudge = Arc::new(move || issuer.nudge());
    let actions = Actions::new(Arc::clone(&control.store), reload, nudge);
    api::start(&settings.admin_socket, views, actions, &groups.control)
        .await
        .map_err(StartError::while_doing("serve the control API"))?;
    roots::write(
        &settings.ca,
        &control.accounts,
        &settings.data,
        &groups.control,
    )
    .await;
    let proxy = bound
        .start(
            Shared::new(services),
            &groups.workers,
            &proxy::request::serve,
        )
        .map_err(StartError::while_doing("start the workers"))?;
    if let Err(error) = loaded.keep() {
        tracing::warn!(%error, "the last good configuration cannot be kept");
    }
    names::declared(
        &control.declaration.get(),
        &control.snapshot,
        DECLARED_NAMES,
    )
    .await;
    readiness.enter(Phase::Serving);
    tell_service_manager(ServicePhase::Ready);
    tracing::info!(https = ?addresses.https, http = ?addresses.http, "serving");
    Ok(Serving {
        proxy,
        proxy_settings,
        store: embedded,
        access_log,
        readiness,
        groups,
        addresses,
    })
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

fn bind(settings: &Settings) -> Result<Bound, StartError> {
    let inherited = Inherited::from_environment().map_err(StartError::while_doing(
        "take over the sockets that were handed over",
    ))?;
    Bound::bind(&settings.proxy, inherited).map_err(StartError::while_doing("listen"))
}

async fn open_store(
    settings: &Settings,
    clock: &Clock,
    tasks: &Tasks,
) -> Result<Embedded, StartError> {
    let store = embedded::Settings::in_folder(settings.data.clone());
    let opened = Embedded::open(store, clock.clone(), tasks).await;
    opened.map_err(StartError::while_doing("open the data directory"))
}

async fn open_vault(store: &Arc<dyn Store>, key_file: &Path) -> Result<Vault, StartError> {
    let keys = keys::Settings {
        key_file: key_file.to_owned(),
    };
    let unlocked = Vault::unlock(Arc::clone(store), &keys).await;
    unlocked.map_err(StartError::while_doing("open the keys"))
}

/// Says where a configuration that is not the file's came from, wherever an operator looks.
fn note_origin(loaded: &Loaded, readiness: &Readiness, metrics: &Metrics) {
    match &loaded.origin {
        Origin::File => {
            readiness.set(Condition::Configuration, Health::Well);
            metrics.set_config_state(ConfigState::Current);
        }
        Origin::LastGood { mistakes } => {
            let count = mistakes.len();
            tracing::error!(
                mistakes = count,
                "the configuration file is broken: serving the last good one"
            );
            for mistake in mistakes {
                tracing::error!(%mistake, "mistake");
            }
            let told =
                format!("the file has {count} mistakes; the last good configuration is served");
            readiness.set(Condition::Configuration, Health::Degraded(told.into()));
            metrics.set_config_state(ConfigState::LastGood);
        }
    }
    for warning in &loaded.warnings {
        tracing::warn!(mistake = %warning, "an included file was left out, or goes on with its last good text");
    }
}

/// What certificate work and control stand on.
struct Ground {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    tasks: Tasks,
}

/// The halves of certificate work and control that the rest is wired to.
struct Control {
    store: Arc<dyn Store>,
    snapshot: Published<Snapshot>,
    resolver: Resolver,
    challenges: Challenges,
    on_demand: OnDemand,
    issuer: Issuer,
    accounts: Accounts,
    certificates: Published<crate::certs::Settings>,
    declaration: Published<Arc<Declaration>>,
}

impl Control {
    fn start(settings: &Settings, ground: Ground) -> Result<Self, StartError> {
        let Ground {
            store,
            vault,
            clock,
            metrics,
            readiness,
            tasks,
        } = ground;
        let snapshot = Published::new(Snapshot::empty());
        names::tell(snapshot.clone(), readiness.clone(), &tasks);
        let resolver = Resolver::new(CREDENTIALS);
        let outcomes = Outcomes::new();
        let (challenges, questions) = Challenges::channel(snapshot.clone());
        let own = tasks.clone();
        tasks.spawn("challenges", questions.answer(Arc::clone(&store), own));

        let publisher = Publisher::start(
            publish::Parts {
                store: Arc::clone(&store),
                snapshot: snapshot.clone(),
                resolver: resolver.clone(),
                loader: Loader::new(vault.clone()),
                metrics: metrics.clone(),
            },
            &tasks,
        );
        let declaration = Published::new(Arc::new(settings.declaration.clone()));
        let _warnings =
            reconcile::start(Arc::clone(&store), publisher.clone(), &declaration, &tasks);
        let dns = Dns::new(&settings.dns).map_err(StartError::while_doing("use the resolvers"))?;
        dns::upstreams::start(dns, publisher.upstreams().clone(), &tasks);

        let authorities = ca::authorities(&settings.ca, &tasks, &clock)
            .map_err(|(_, error)| error)
            .map_err(StartError::while_doing(
                "use the configured certification authorities",
            ))?;
        let accounts = Accounts::new(accounts::Parts {
            authorities,
            store: Arc::clone(&store),
            vault: vault.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
        });
        let domains = Domains::new(Arc::clone(&store), publisher, resolver.clone());
        let permission = settings
            .permission
            .clone()
            .map(|hook| Permission::new(hook, domains.registrar(), metrics.clone(), &tasks))
            .transpose()
            .map_err(StartError::while_doing("use the permission hook"))?;
        let certificates = Published::new(settings.certificates);
        let issuer = Issuer::new(issuance::Parts {
            store: Arc::clone(&store),
            vault: vault.clone(),
            accounts: accounts.clone(),
            permission: permission.clone(),
            challenges: challenges.clone(),
            resolver: resolver.clone(),
            outcomes: outcomes.clone(),
            metrics: metrics.clone(),
            readiness,
            clock: clock.clone(),
            settings: certificates.clone(),
        });
        tasks.spawn("issuer", issuer.clone().run(tasks.clone()));
        let upkeep = Upkeep {
            store: Arc::clone(&store),
            accounts: accounts.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            settings: certificates.clone(),
        };
        tasks.spawn("upkeep", upkeep.run(tasks.clone()));

        let verdicts = permission.as_ref().map(Permission::verdicts);
        let (on_demand, wanted) =
            OnDemand::channel(&settings.on_demand, snapshot.clone(), verdicts);
        let nudged = issuer.clone();
        let parts = answer::Parts {
            store: Arc::clone(&store),
            snapshot: snapshot.clone(),
            resolver: resolver.clone(),
            loader: Loader::new(vault.clone()),
            permission,
            outcomes,
            nudge: Arc::new(move || nudged.nudge()),
            clock: clock.clone(),
        };
        answer::start(parts, settings.on_demand.clone(), wanted, &tasks);
        Ok(Self {
            store,
            snapshot,
            resolver,
            challenges,
            on_demand,
            issuer,
            accounts,
            certificates,
            declaration,
        })
    }
}
