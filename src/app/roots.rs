//! The root of each private CA as a file, for clients that shall trust it.

use std::path::{Path, PathBuf};

use pem::Pem;

use crate::base::file::{self, Access};
use crate::base::task::Tasks;
use crate::ca::{Kind, Settings};
use crate::certs::accounts::Accounts;
use crate::model::certificate::CaId;

/// Where the root of the private CA `ca` lies: `<data>/<ca>-root.pem`.
#[must_use]
pub fn root_file(data: &Path, ca: &CaId) -> PathBuf {
    data.join(format!("{ca}-root.pem"))
}

/// Writes the roots of all private CAs, made where they are missing. What cannot be written is told, and stops
/// nothing: the CA issues all the same.
pub(super) async fn write(settings: &Settings, accounts: &Accounts, data: &Path, tasks: &Tasks) {
    for ca in &settings.authorities {
        if !matches!(ca.kind, Kind::Private(_)) {
            continue;
        }
        match accounts.root(&ca.id).await {
            Ok(Some(der)) => write_one(der, root_file(data, &ca.id), tasks).await,
            Ok(None) => {}
            Err(error) => tracing::error!(ca = %ca.id, %error, "the private CA cannot be opened"),
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
