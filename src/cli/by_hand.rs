//! Commands that an operator runs by hand and that need no running instance.

use std::io;
use std::net::Ipv4Addr;
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
use crate::config::key_files::{KeyFile, KeyFiles};
use crate::config::load::load;
use crate::config::mistake::Report;
use crate::config::settings::Settings;
use crate::net::{self, HttpClient, Schemes};
use crate::store::embedded::backup::{self as stored, Summary};

/// For an instance to say that it is alive.
const HEALTH: Duration = Duration::from_secs(3);
/// Where it says so.
const HEALTH_PATH: &str = "/healthz";
/// Key files that are named one by one.
const MOST_FILES: usize = 50;

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
        keep_apart(&summary, settings);
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
        put_back(&summary, settings)
    })
}

/// Says which files open a backup that was made; that one of them cannot be read does not undo it.
fn keep_apart(summary: &Summary, settings: &Settings) {
    let keys = match KeyFiles::of(settings) {
        Ok(keys) => keys,
        Err(error) => {
            complain(format_args!("the key files are not looked at: {error}"));
            return;
        }
    };
    let mut files = keys.needed(&summary.wrapped);
    files.extend(Some(destroyed(&keys)).filter(|list| list.file.exists()));
    key_files(
        "No key-encryption key is in it. Keep copies elsewhere, apart from it, of",
        &files,
    );
    key_files(
        "NOT AT HAND, and needed to open it, as by the next start",
        &keys.missing(&summary.wrapped),
    );
}

/// Says which files have to be put back before a restored store is of use.
fn put_back(summary: &Summary, settings: &Settings) -> Result<(), String> {
    let keys = KeyFiles::of(settings).map_err(|error| chain(&error))?;
    key_files(
        "Before `vestibule run`, put back, mode 0600",
        &keys.missing(&summary.wrapped),
    );
    let list = Some(destroyed(&keys)).filter(|list| !list.file.exists());
    key_files(
        "Where you have a copy of it, put back too, or keys that were destroyed open again",
        list.as_slice(),
    );
    Ok(())
}

/// The list of destroyed keys.
fn destroyed(keys: &KeyFiles) -> KeyFile {
    KeyFile {
        file: keys.destroyed(),
        what: "which tenants' data keys were destroyed for good; no secret".to_owned(),
    }
}

/// Files, one a line, below what is to be done with them; nothing where there are none.
fn key_files(what: &str, files: &[KeyFile]) {
    if files.is_empty() {
        return;
    }
    line(format_args!("{what}:"));
    for KeyFile { file, what } in files.iter().take(MOST_FILES) {
        line(format_args!("  {}  ({what})", file.display()));
    }
    if let more @ 1.. = files.len().saturating_sub(MOST_FILES) {
        line(format_args!(
            "  and {more} more: each key_file of a [[tenant]]"
        ));
    }
}

pub(super) fn health(options: &HealthOptions) -> ExitCode {
    let Some(url) = health_url(options) else {
        return failed(&format!(
            "[telemetry] address is \"off\" in {}: nothing tells whether it is alive; set an address, or --url",
            options.config.config.display()
        ));
    };
    let tasks = Tasks::new();
    let asked = on_runtime(|runtime| runtime.block_on(status(&url, &tasks)));
    match asked {
        Ok(StatusCode::OK) => ExitCode::SUCCESS,
        Ok(status) => failed(&format!("{url} answered {status}")),
        Err(text) => failed(&format!(
            "{text}; --url names another address, as [telemetry] address does in the configuration"
        )),
    }
}

/// What is asked; nothing where nobody would answer.
fn health_url(options: &HealthOptions) -> Option<String> {
    if let Some(url) = &options.url {
        let mut url = url.clone();
        if url.path() == "/" {
            url.set_path(HEALTH_PATH);
        }
        return Some(url.into());
    }
    let mut address = config::locate::telemetry(&options.config.config)?;
    // Of an instance that listens everywhere, this machine reaches all.
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Some(format!("http://{address}{HEALTH_PATH}"))
}

async fn status(url: &str, tasks: &Tasks) -> Result<StatusCode, String> {
    let settings = net::Settings {
        schemes: Schemes::HttpsOrHttp,
        deadline: HEALTH,
        ..net::Settings::default()
    };
    let client = HttpClient::new(tasks, &settings).map_err(|error| chain(&error))?;
    let request = Request::get(url).body(Bytes::new());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};

    #[test]
    fn health_is_asked_where_the_configuration_or_the_url_says() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("proxy.toml");
        let asked = |url: Option<&str>| {
            let config = config.clone();
            health_url(&HealthOptions {
                url: url.map(|url| url.parse().unwrap()),
                config: ConfigOption { config },
            })
        };
        let url = |text: &str| Some(text.to_owned());
        assert_eq!(asked(None), url("http://127.0.0.1:9180/healthz"));
        for (address, expected) in [
            ("127.0.0.2:99", url("http://127.0.0.2:99/healthz")),
            ("0.0.0.0:99", url("http://127.0.0.1:99/healthz")),
            ("[::]:99", url("http://127.0.0.1:99/healthz")),
            ("[::1]:99", url("http://[::1]:99/healthz")),
            ("off", None),
        ] {
            let text = format!("[telemetry]\naddress = {address:?}\n");
            replace(&config, text.as_bytes(), Access::Owner).unwrap();
            assert_eq!(asked(None), expected, "{address}");
        }
        assert_eq!(asked(Some("http://a:1")), url("http://a:1/healthz"));
        assert_eq!(asked(Some("http://a:1/x")), url("http://a:1/x"));
    }
}
