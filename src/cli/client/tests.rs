//! The command line against a socket.

use std::path::Path;
use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::api::tests::Running;
use crate::api::tests::stored::Stored;

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
    let config = folder.path().join("proxy.toml");
    let error = asked(&format!("status --config {}", config.display())).unwrap_err();
    let text = error.to_string();
    let socket = folder.path().join("data/admin.sock");
    assert!(text.contains(&socket.display().to_string()), "{text}");
    assert!(
        text.contains("vestibule run") && text.contains("--socket"),
        "{text}"
    );
    // A socket that a killed instance left behind is the same.
    let dead = folder.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let error = asked(&format!("domain list --socket {}", dead.display())).unwrap_err();
    assert!(matches!(error, ClientError::NotRunning(path) if path == dead));
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
        ("domain retry off.globex.test", "is suspended"),
        ("domain show a..b", "Bad parameter"),
        ("domain show ../tenants", "Bad parameter"),
        ("domain show a?b#c", "Bad parameter"),
        ("domain show ..", "Bad parameter: .. is no name"),
        (
            "certificate show 1",
            "there is no certificate with the id or serial number 1",
        ),
        ("certificate show a-b", "a serial number is hexadecimal"),
        (
            "certificate list --serial xyz",
            "Bad parameter: a serial number is",
        ),
        (
            "domain list --tenant A&limit=1",
            "tenant \"A&limit=1\" is not",
        ),
    ] {
        let error = instance.asked(words).unwrap_err().to_string();
        assert!(error.contains(expected), "{words}: {error}");
    }
}
