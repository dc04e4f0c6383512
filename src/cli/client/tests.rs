//! The command line against a socket.

use std::path::Path;
use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::api::tests::Running;
use crate::api::tests::stored::Stored;
use crate::base::file::{Access, replace};

#[derive(Debug, Parser)]
struct Typed {
    #[command(subcommand)]
    command: ClientCommand,
}

fn typed(words: &str) -> ClientCommand {
    let words = std::iter::once("vestibule").chain(words.split(' '));
    Typed::try_parse_from(words).unwrap().command
}

fn asked(words: &str) -> Result<String, ClientError> {
    let mut output = Vec::new();
    execute(&typed(words), &mut output)?;
    Ok(String::from_utf8(output).unwrap())
}

#[test]
fn says_what_to_do_when_nothing_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config = written(&folder, "[store]\ndata = \"d\"\n");
    let error = asked(&format!("status --config {}", config.display())).unwrap_err();
    let text = error.to_string();
    let socket = folder.path().join("d/admin.sock");
    assert!(text.contains(&socket.display().to_string()), "{text}");
    assert!(
        text.contains("vestibule run --config") && text.contains("--socket"),
        "{text}"
    );
    assert_eq!(error.exit_code(), 1);
    // A socket that a killed instance left behind is the same.
    let dead = folder.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let error = asked(&format!("domain list --socket {}", dead.display())).unwrap_err();
    assert!(matches!(error, ClientError::NotRunning(path, Meant::Socket) if path == dead));
    // What was never one is told as such.
    let error = asked(&format!("domain list --socket {}", config.display())).unwrap_err();
    assert!(matches!(error, ClientError::NoSocket(path) if path == config));
}

fn written(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("proxy.toml");
    replace(&path, text.as_bytes(), Access::Everyone).unwrap();
    path
}

#[test]
fn a_named_configuration_that_is_not_there_or_not_readable_is_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("other.toml");
    for (config, expected) in [
        (missing.as_path(), "there is no configuration"),
        (folder.path(), "cannot read"),
    ] {
        for command in ["status", "domain list", "drill"] {
            let error = asked(&format!("{command} --config {}", config.display())).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(expected) && text.contains("--socket"),
                "{text}"
            );
            assert!(text.contains(&config.display().to_string()), "{text}");
            assert_eq!(error.exit_code(), 2, "{text}");
        }
    }
}

#[test]
fn a_broken_configuration_is_told_where_nobody_listens_and_used_where_somebody_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = written(&folder, "[listen\n");
    let words = format!("status --config {}", config.display());
    let text = asked(&words).unwrap_err().to_string();
    let check = format!("vestibule check --config {}", config.display());
    assert!(
        text.contains("has mistakes") && text.contains(&check),
        "{text}"
    );

    let instance = Instance::start();
    let socket = instance.api.socket();
    written(
        &folder,
        &format!("[listen\n[admin]\nsocket = \"{}\"\n", socket.display()),
    );
    assert!(asked(&words).unwrap().contains("serving"));
}

#[test]
fn without_a_configuration_it_is_said_where_it_was_looked_for() {
    let (socket, file) = ("/v/data/admin.sock", "/v/proxy.toml");
    let error = ClientError::NotRunning(socket.into(), Meant::NoFile(file.into()));
    let text = error.to_string();
    assert!(text.contains(&format!("there is no {file}")), "{text}");
    assert!(text.contains(socket) && text.contains("--config"), "{text}");
}

#[test]
fn what_is_mistyped_is_told_before_anybody_is_asked() {
    for (words, expected) in [
        ("domain show a..b", "label"),
        ("domain show ../tenants", "label"),
        ("domain check 192.0.2.1", "an IP address is not a name"),
        ("domain retry a.*.test", "wildcard"),
        ("certificate replace 1", "a UUID"),
        ("certificate revoke 1", "a UUID"),
        (
            "certificate revoke 01980000-0000-7000-8000-000000000000 --reason key_compromise",
            "expected one of unspecified, key-compromise",
        ),
        ("domain list --tenant A&limit=1", "lower-case letters"),
        ("drill --rate 0", "a whole number from 1 to 1000000"),
        ("drill --rate abc", "a whole number from 1 to 1000000"),
        (
            "budget forecast --names 0",
            "a whole number from 1 to 1000000000",
        ),
        (
            "budget forecast --names 5 --per-domain 0",
            "a whole number from 1 to",
        ),
    ] {
        let words = std::iter::once("vestibule").chain(words.split(' '));
        let error = Typed::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let empty = Typed::try_parse_from(["vestibule", "domain", "show", ""]).unwrap_err();
    assert!(empty.to_string().contains("the name is empty"), "{empty}");
}

#[test]
fn says_whose_socket_it_is() {
    let error = ClientError::NotAllowed(Path::new("/d/admin.sock").to_owned(), Some(999));
    let text = error.to_string();
    assert!(
        text.contains("user 999") && text.contains("sudo -u '#999'"),
        "{text}"
    );
}

#[test]
fn what_listens_but_does_not_answer_in_http_is_not_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let other = std::thread::spawn(move || {
        use std::io::Write as _;
        listener
            .accept()
            .unwrap()
            .0
            .write_all(b"220 mail ready\r\n")
    });
    let error = asked(&format!("status --socket {}", path.display())).unwrap_err();
    assert!(matches!(error, ClientError::Broken(_)), "{error}");
    other.join().unwrap().unwrap();
}

/// A running API over a filled store, served by threads of its own while a test types.
struct Instance {
    _runtime: tokio::runtime::Runtime,
    stored: Stored,
    api: Running,
}

impl Instance {
    fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let (stored, api) = runtime.block_on(async {
            let stored = Stored::open().await;
            let api = Running::start(Arc::clone(&stored.store) as _).await;
            (stored, api)
        });
        Self {
            _runtime: runtime,
            stored,
            api,
        }
    }

    fn asked(&self, words: &str) -> Result<String, ClientError> {
        asked(&format!("{words} --socket {}", self.api.socket().display()))
    }
}

#[test]
fn every_command_is_answered_by_a_running_instance() {
    let instance = Instance::start();
    let certificate = instance.stored.certificate;
    for (words, expected) in [
        ("status", "phase        serving"),
        ("tenant list", "acme    file"),
        ("ca list", "own  ready"),
        (
            "domain list",
            "fails.acme.test    acme    issuing      failed   wrong_a",
        ),
        ("domain list --tenant globex", "off.globex.test"),
        ("domain show works.acme.test", "state        active"),
        (
            "domain show *.wild.acme.test",
            "domain       *.wild.acme.test",
        ),
        (
            "domain show fails.acme.test",
            "problem      wrong_a (customer must act)",
        ),
        (
            "domain retry fails.acme.test",
            "job          queued, starts at once",
        ),
        (
            "certificate list",
            "works.acme.test  0a1b    acme    demo  issued  serves  valid",
        ),
        ("certificate list --serial 0A:1B", "works.acme.test"),
        ("certificate list --serial 0a1c", "EXPIRES\n"),
        ("certificate show A1B", "serial       0a1b"),
        (
            &format!("certificate show {certificate}"),
            "-----BEGIN CERTIFICATE-----",
        ),
        ("job list", "certificate:fails.acme.test"),
        ("event list --tenant acme", "domain.retry_requested"),
        ("event list", "NUMBER"),
        ("reload", "the configuration is in force"),
    ] {
        let text = instance.asked(words).unwrap();
        assert!(
            text.contains(expected),
            "{words}: {expected:?} not in\n{text}"
        );
    }
}

#[test]
fn machines_get_json() {
    let instance = Instance::start();
    let lines = instance.asked("domain list --json").unwrap();
    assert_eq!(lines.lines().count(), 5);
    for line in lines.lines() {
        let domain: Value = serde_json::from_str(line).unwrap();
        assert!(domain["name"].is_string() && domain["state"].is_string());
    }
    let one = instance
        .asked("domain show works.acme.test --json")
        .unwrap();
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["certificate"]["ca"], "demo");
}

#[test]
fn a_refusal_says_why_whatever_was_typed() {
    let instance = Instance::start();
    for (words, expected) in [
        (
            "domain show unknown.test",
            "Not found: there is no domain unknown.test",
        ),
        (
            "domain show shop.wild.acme.test",
            "there is no domain shop.wild.acme.test; it is served by *.wild.acme.test: \
             `vestibule domain show '*.wild.acme.test'`",
        ),
        ("domain retry off.globex.test", "is suspended"),
        (
            "certificate show 1",
            "there is no certificate with the id or serial number 1",
        ),
        ("certificate show a-b", "a serial number is hexadecimal"),
        (
            "certificate list --serial xyz",
            "Bad parameter: a serial number is",
        ),
        ("ca rollover a?b#c", "there is no [[ca]] named a?b#c"),
        ("ca rollover ..", "Bad parameter: .. is no name"),
        (
            "domain list --tenant acmee",
            "there is no tenant acmee; did you mean acme?",
        ),
        (
            "certificate list --tenant zzz",
            "there is no tenant zzz; `vestibule tenant list`",
        ),
        ("job list --tenant glob", "did you mean globex?"),
        ("event list --tenant nope", "there is no tenant nope"),
    ] {
        let error = instance.asked(words).unwrap_err().to_string();
        assert!(error.contains(expected), "{words}: {error}");
    }
}

#[test]
fn a_reader_that_has_read_enough_is_told_from_an_answer_that_cannot_be_written() {
    let failed = |kind: std::io::ErrorKind| ClientError::Output(kind.into()).is_reader_gone();
    assert!(failed(std::io::ErrorKind::BrokenPipe));
    assert!(!failed(std::io::ErrorKind::StorageFull));
}
