//! Secrets that the configuration points to. The only place that reads the environment.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::base::file::read_capped;
use crate::base::secret::Secret;
use crate::config::file::SecretPlace;
use crate::config::source::Source;

/// The largest secret, in bytes.
const MOST_BYTES: u64 = 64 << 10;

/// Why a secret cannot be read. Never says what it is.
#[derive(Debug)]
pub(super) enum SecretError {
    /// The environment variable is not set, or not UTF-8.
    NotSet(String),
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The variable or the file is there, but holds nothing.
    Empty(String),
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSet(name) => write!(f, "the environment variable {name} is not set"),
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Empty(place) => write!(f, "{place} is empty"),
        }
    }
}

/// Reads the secret at `place`, which `source` names. One line break at its end is not part of it.
pub(super) fn read(place: &SecretPlace, source: &Source) -> Result<Secret, SecretError> {
    let (bytes, shown) = match place {
        SecretPlace::Env(name) => (variable(name)?.into_bytes(), format!("${name}")),
        SecretPlace::File(path) => {
            let path: PathBuf = source.resolve(path);
            let bytes = read_capped(&path, MOST_BYTES).map_err(SecretError::Unreadable)?;
            (bytes, path.display().to_string())
        }
    };
    let mut secret = Secret::new(bytes);
    let trimmed = secret
        .expose()
        .strip_suffix(b"\n")
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec());
    if let Some(line) = trimmed {
        secret = Secret::new(line);
    }
    match secret.expose().is_empty() {
        true => Err(SecretError::Empty(shown)),
        false => Ok(secret),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
fn variable(name: &str) -> Result<String, SecretError> {
    std::env::var(name).map_err(|_absent| SecretError::NotSet(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};

    #[test]
    fn a_secret_file_is_relative_to_the_file_that_names_it_and_loses_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        replace(&folder.path().join("key"), b"s3cret\r\n", Access::Owner).unwrap();
        replace(&folder.path().join("empty"), b"\n", Access::Owner).unwrap();
        let name = folder.path().join("proxy.toml");
        let source = Source::new(name.to_string_lossy(), "");
        let read = |name: &str| read(&SecretPlace::File(name.into()), &source);
        assert!(read("key").unwrap().matches(b"s3cret"));
        let error = read("empty").err().unwrap().to_string();
        assert!(error.ends_with("empty is empty"), "{error}");
        assert!(read("none").err().unwrap().to_string().contains("none"));
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let place = SecretPlace::Env("VESTIBULE_TEST_NO_SUCH_VARIABLE".to_owned());
        let error = read(&place, &Source::new("f", "")).err().unwrap();
        let expected = "the environment variable VESTIBULE_TEST_NO_SUCH_VARIABLE is not set";
        assert_eq!(error.to_string(), expected);
    }
}
