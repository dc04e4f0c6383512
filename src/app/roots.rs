//! The root of each private CA as a file, for clients that shall trust it.

use std::path::PathBuf;

use pem::Pem;

use crate::base::clock::Clock;
use crate::base::file::{self, Access};
use crate::base::task::Tasks;
use crate::ca::private::{ROOT_WARNING, lifetime_end};
use crate::ca::{Kind, Settings};
use crate::certs::accounts::Accounts;
use crate::config::settings::root_file;
use crate::model::certificate::CaId;
use crate::telemetry::metrics::Metrics;

/// Where roots come from, where they lie, and where their ends are told.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    pub(super) accounts: Accounts,
    pub(super) data: PathBuf,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) tasks: Tasks,
}

impl Roots {
    /// Writes the roots of all private CAs, made where they are missing. What cannot be written is told, and stops
    /// nothing: the CA issues all the same.
    pub(super) async fn write(&self, settings: &Settings) {
        for ca in &settings.authorities {
            if !matches!(ca.kind, Kind::Private(_)) {
                continue;
            }
            match self.accounts.root(&ca.id).await {
                Ok(Some(der)) => {
                    self.note_end(&ca.id, &der);
                    write_one(der, root_file(&self.data, &ca.id), &self.tasks).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(ca = %ca.id, %error, "the private CA cannot be opened");
                }
            }
        }
    }

    /// Nothing renews a root, so its end is told from the start.
    fn note_end(&self, ca: &CaId, der: &[u8]) {
        let Ok(end) = lifetime_end(der) else {
            return;
        };
        self.metrics.root_expiry.set(ca, end.as_seconds());
        if end.since(self.clock.now()) < ROOT_WARNING {
            tracing::warn!(
                %ca, %end, "the private CA's root ends soon, and clients trust nothing of that CA afterwards"
            );
        }
    }
}

async fn write_one(der: Vec<u8>, path: PathBuf, tasks: &Tasks) {
    let shown = path.display().to_string();
    let text = pem::encode(&Pem::new("CERTIFICATE", der));
    let written = tasks.blocking("write_root", move || {
        file::replace(&path, text.as_bytes(), Access::Everyone)
    });
    match written.await {
        Some(Ok(())) => tracing::info!(file = shown, "clients trust the private CA by this root"),
        Some(Err(error)) => tracing::warn!(%error, "the private CA's root cannot be written"),
        None => {}
    }
}
