//! What runs, once everything has started.

use std::net::SocketAddr;

use crate::app::holder::Holder;
use crate::base::published::Published;
use crate::base::task::Tasks;
use crate::proxy::running::Running;
use crate::proxy::settings::Settings as ProxySettings;
use crate::store::embedded::Embedded;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::Readiness;

/// A process that serves.
#[derive(Debug)]
pub struct Serving {
    pub(super) proxy: Running,
    pub(super) proxy_settings: Published<ProxySettings>,
    pub(super) store: Embedded,
    pub(super) access_log: AccessLog,
    pub(super) readiness: Readiness,
    /// Dropped when everything has ended.
    pub(super) holder: Holder,
    pub(super) groups: Groups,
    pub(super) addresses: Addresses,
}

/// Where it can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// Health and metrics, where they are served.
    pub telemetry: Option<SocketAddr>,
}

/// The tasks, in the groups that end together; declared in the order in which they end.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// Visitors' connections.
    pub(super) workers: Tasks,
    /// Issuance, the control API, reloads: what changes things.
    pub(super) control: Tasks,
    /// The store's writer.
    pub(super) store: Tasks,
    /// Health, metrics and the access log.
    pub(super) telemetry: Tasks,
}

impl Groups {
    /// Counts the panics of all of them.
    pub(super) fn watch(&self, metrics: &Metrics) {
        for tasks in [&self.workers, &self.control, &self.store, &self.telemetry] {
            metrics.watch_panics(tasks);
        }
    }
}

impl Serving {
    /// Where it can be reached, with the ports that the system chose.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }
}
