//! Writing for people: the only place that writes to standard output and standard error.

use std::fmt;
use std::io::{self, Write as _};

/// Prints a line to standard output. A reader that has gone away is nothing to complain about.
pub fn line(text: impl fmt::Display) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints a line to standard error, after the program's name.
pub fn complain(text: impl fmt::Display) {
    drop(writeln!(io::stderr().lock(), "vestibule: {text}"));
}

/// An error and its causes, on one line: `cannot start: the store is not available: disk full`.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
