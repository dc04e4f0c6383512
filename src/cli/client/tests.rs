//! The command line against a socket.

use std::path::Path;

use clap::Parser;

use super::*;

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
