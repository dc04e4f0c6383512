//! What everything else stands on: the store and its keys, and what tells operators how things are.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::app::holder::Holder;
use crate::app::serving::Groups;
use crate::app::start::{Basics, StartError};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::certs::vault::Vault;
use crate::config::settings::Settings;
use crate::keys;
use crate::store::Store;
use crate::store::embedded::{self, Embedded};
use crate::store::measured::Measured;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;
use crate::telemetry::server;
use crate::telemetry::trouble::UpstreamTroubles;

/// The ground, opened.
pub(super) struct Ground {
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) troubles: UpstreamTroubles,
    pub(super) readiness: Readiness,
    pub(super) access_log: AccessLog,
    /// Where health and metrics are served.
    pub(super) telemetry: Option<SocketAddr>,
    /// The adapter, to be closed.
    pub(super) embedded: Embedded,
    /// The port, for everyone else.
    pub(super) store: Arc<dyn Store>,
    pub(super) vault: Vault,
    /// This process, to others that share the data directory.
    pub(super) holder: Holder,
    pub(super) groups: Groups,
}

impl Ground {
    /// Opens the access log, the pages for operators, the store and its keys, in this order.
    pub(super) async fn open(settings: &Settings, basics: &Basics) -> Result<Self, StartError> {
        let Basics { clock, metrics, .. } = basics.clone();
        let clock = clock.listening();
        let groups = Groups::default();
        groups.watch(&metrics);
        let readiness = Readiness::default();
        metrics.watch_readiness(&readiness);
        let access_log = AccessLog::start(&settings.telemetry, &metrics, &groups.telemetry)
            .map_err(StartError::while_doing("open the access log"))?;
        let telemetry = match settings.telemetry.address {
            Some(address) => {
                let (metrics, readiness) = (metrics.clone(), readiness.clone());
                let served = server::start(address, metrics, readiness, &groups.telemetry).await;
                Some(served.map_err(StartError::while_doing(
                    "serve health and metrics at the address under [telemetry]",
                ))?)
            }
            None => None,
        };
        let embedded = open_store(settings, &clock, &groups.store).await?;
        let measured = Measured::around(embedded.clone(), metrics.clone(), readiness.clone());
        let store: Arc<dyn Store> = Arc::new(measured);
        let holder = Holder::new(&settings.data);
        holder.bury_the_dead(&*store).await;
        let vault = open_vault(&store, settings).await?;
        Ok(Self {
            clock,
            metrics,
            troubles: UpstreamTroubles::default(),
            readiness,
            access_log,
            telemetry,
            embedded,
            store,
            vault,
            holder,
            groups,
        })
    }
}

async fn open_store(
    settings: &Settings,
    clock: &Clock,
    tasks: &Tasks,
) -> Result<Embedded, StartError> {
    let store = embedded::Settings {
        retired_keys: settings.retired_keys,
        ..embedded::Settings::in_folder(settings.data.clone())
    };
    let opened = Embedded::open(store, clock.clone(), tasks).await;
    opened.map_err(StartError::while_doing("open the data directory"))
}

async fn open_vault(store: &Arc<dyn Store>, settings: &Settings) -> Result<Vault, StartError> {
    let keys = keys::Settings {
        key_file: settings.key_file.clone(),
    };
    let failed = "open the keys";
    let vault = Vault::unlock(Arc::clone(store), &keys)
        .await
        .map_err(StartError::while_doing(failed))?;
    let own = &settings.declaration.own_keys;
    let taken = vault.take_own(own).await;
    // What cannot be used is in the log already.
    drop(taken.map_err(StartError::while_doing(failed))?);
    Ok(vault)
}
