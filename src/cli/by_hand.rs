//! Commands that an operator runs by hand and that need no running instance.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::runtime::Runtime;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::cli::MISTAKES;
use crate::cli::args::{BackupOptions, ConfigOption, HealthOptions};
use crate::cli::output::{chain, complain, line};
use crate::config;
use crate::config::load::load;
use crate::config::mistake::Report;
use crate::config::settings::Settings;
use crate::keys::KekId;
use crate::keys::ring::{KeyRing, retired_file};
use crate::net::{self, HttpClient, Schemes};
use crate::store::embedded::backup::{self as stored, Summary};

/// For an instance to say that it is alive.
const HEALTH: Duration = Duration::from_secs(3);

pub(super) fn check(options: &ConfigOption) -> ExitCode {
    let checked = config::check::check(&options.config);
    line(checked.text);
    ExitCode::from(checked.exit_code)
}

pub(super) fn doctor(options: &ConfigOption) -> ExitCode {
    let tasks = Tasks::new();
    let clock = Clock::system();
    let examined = on_runtime(|runtime| {
        let examine = config::doctor::examine(&options.config, &tasks, &clock);
        Ok(runtime.block_on(examine))
    });
    match examined {
        Ok(diagnosis) => {
            line(&diagnosis);
            ExitCode::from(diagnosis.exit_code())
        }
        Err(text) => failed(&text),
    }
}

pub(super) fn backup(options: &BackupOptions) -> ExitCode {
    with_settings(&options.config.config, |settings, runtime| {
        let made = runtime.block_on(stored::backup(&settings.data, &options.file));
        let summary = made.map_err(|error| chain(&error))?;
        line(format_args!(
            "{}: {}",
            options.file.display(),
            contents(&summary)
        ));
        line(format_args!(
            "The key-encryption key is not in it: keep a copy of {} elsewhere.",
            settings.key_file.display()
        ));
        Ok(())
    })
}

pub(super) fn restore(options: &BackupOptions) -> ExitCode {
    with_settings(&options.config.config, |settings, runtime| {
        let restored = runtime.block_on(stored::restore(&options.file, &settings.data));
        let summary = restored.map_err(|error| chain(&error))?;
        line(format_args!(
            "{}: {}",
            settings.data.display(),
            contents(&summary)
        ));
        for id in &summary.key_encryption_keys {
            if !is_at_hand(*id, settings) {
                line(format_args!(
                    "Before `vestibule run`, put the file of key-encryption key {id}, which this backup needs, at {}{}.",
                    settings.key_file.display(),
                    if_it_is_taken(*id, &settings.key_file)
                ));
            }
        }
        Ok(())
    })
}

/// Whether one of the configured files, or a retired one beside them, holds this key.
fn is_at_hand(id: KekId, settings: &Settings) -> bool {
    let own = settings.declaration.own_keys.files.values();
    let mut files = std::iter::once(&settings.key_file).chain(own);
    files.any(|file| KeyRing::load_with(file, id).is_ok_and(|ring| ring.find(id).is_some()))
}

fn if_it_is_taken(id: KekId, key_file: &Path) -> String {
    match key_file.exists() {
        true => format!(
            " or, beside the key that lies there, at {}",
            retired_file(key_file, id).display()
        ),
        false => String::new(),
    }
}

pub(super) fn health(options: &HealthOptions) -> ExitCode {
    let tasks = Tasks::new();
    let asked = on_runtime(|runtime| runtime.block_on(status(options, &tasks)));
    match asked {
        Ok(StatusCode::OK) => ExitCode::SUCCESS,
        Ok(status) => failed(&format!("{} answered {status}", options.url)),
        Err(text) => failed(&format!(
            "{text}; --url names another address, as [telemetry] address does in the configuration"
        )),
    }
}

async fn status(options: &HealthOptions, tasks: &Tasks) -> Result<StatusCode, String> {
    let settings = net::Settings {
        schemes: Schemes::HttpsOrHttp,
        deadline: HEALTH,
        ..net::Settings::default()
    };
    let client = HttpClient::new(tasks, &settings).map_err(|error| chain(&error))?;
    let request = Request::get(options.url.as_str()).body(Bytes::new());
    let request = request.map_err(|error| chain(&error))?;
    let answer = client.send(request).await.map_err(|error| chain(&error))?;
    Ok(answer.status)
}

fn contents(summary: &Summary) -> String {
    let Summary {
        bytes,
        tenants,
        domains,
        certificates,
        ..
    } = summary;
    format!("{tenants} tenants, {domains} domains, {certificates} certificates, {bytes} bytes")
}

/// Does `work` with the settings of the file, or of the last good configuration where the file is broken: a backup must
/// be possible then too.
fn with_settings(
    path: &Path,
    work: impl FnOnce(&Settings, &Runtime) -> Result<(), String>,
) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            complain(format_args!(
                "the configuration cannot be used\n\n{}",
                Report(&mistakes)
            ));
            return ExitCode::from(MISTAKES);
        }
    };
    match on_runtime(|runtime| work(&loaded.settings, runtime)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => failed(&text),
    }
}

fn on_runtime<T>(work: impl FnOnce(&Runtime) -> Result<T, String>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    work(&runtime.map_err(|error: io::Error| chain(&error))?)
}

fn failed(text: &str) -> ExitCode {
    complain(text);
    ExitCode::FAILURE
}
