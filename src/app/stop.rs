//! How it ends: visitors are let go first, the store is closed last, and nothing acknowledged is lost.

use std::time::Duration;

use crate::app::process::{Phase as ServicePhase, Signals, tell_service_manager};
use crate::app::serving::Serving;
use crate::base::task::Tasks;
use crate::store::Deadline;
use crate::telemetry::readiness::Phase;

/// For the tasks of one group to end by themselves once they are asked to.
const GROUP: Duration = Duration::from_secs(10);
/// For the store to write what it has taken.
const STORE: Duration = Duration::from_secs(10);

impl Serving {
    /// Drains and ends: `/readyz` answers 503 at once, connections are still accepted for the drain's delay, then the
    /// sockets close, running requests end within the deadline, and everything is put away. A further signal cuts the
    /// waiting short, never the putting away.
    pub async fn stop(self, signals: &mut Signals) {
        let drain = self.proxy_settings.load().drain;
        tracing::info!(
            delay_seconds = drain.delay.as_secs_f64(),
            deadline_seconds = drain.deadline.as_secs_f64(),
            "draining"
        );
        self.readiness.enter(Phase::Draining);
        tell_service_manager(ServicePhase::Stopping);
        tokio::select! {
            () = tokio::time::sleep(drain.delay) => {}
            () = signals.stop() => tracing::warn!("asked again to stop: not waiting for the drain's delay"),
        }
        let cut = tokio::select! {
            cut = self.proxy.drain(drain.deadline) => cut,
            () = signals.stop() => {
                tracing::warn!("asked again to stop: cutting what is left");
                0
            }
        };
        end("workers", &self.groups.workers).await;
        end("control", &self.groups.control).await;
        if let Err(error) = self.store.close(Deadline::after(STORE)).await {
            tracing::error!(%error, "the store was not closed in order; it recovers at the next start");
        }
        end("store", &self.groups.store).await;
        drop(self.holder);
        self.access_log.close();
        end("telemetry", &self.groups.telemetry).await;
        tracing::info!(connections_cut = cut, "stopped");
    }
}

async fn end(group: &'static str, tasks: &Tasks) {
    tasks.cancel();
    let left = tasks.finish(GROUP).await;
    if left > 0 {
        tracing::error!(group, left, "tasks did not end");
    }
}
