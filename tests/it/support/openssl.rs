//! A judge we did not write: OpenSSL's command line.

use std::process::Command;

/// What it says about something, on either stream, whether it likes it or not.
pub(crate) fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr];
    text.map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat()
}
