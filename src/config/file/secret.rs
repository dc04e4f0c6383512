//! Where a secret is read from. It never stands in the file itself.

use std::path::PathBuf;

use crate::config::reader::{Value, Wrong};
use crate::config::value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum SecretPlace {
    /// An environment variable.
    Env(String),
    /// A file, relative to the one that names it.
    File(PathBuf),
}

const EXPECTED: &str = r#"where to read it: { env = "NAME" } or { file = "path" }"#;

pub(super) fn read(value: &Value<'_>) -> Result<SecretPlace, Wrong> {
    let Some(mut table) = value.table("a secret") else {
        let wrong = Wrong::expected(EXPECTED).hidden("a value that is not a table");
        return Err(wrong.fix("put the secret into a file or the environment, and name that here"));
    };
    let env = table.optional("env", variable);
    let file = table.optional("file", value::path);
    let tried = table.has("env") || table.has("file");
    table.finish();
    match (env, file) {
        (Some(name), None) => Ok(SecretPlace::Env(name.value)),
        (None, Some(path)) => Ok(SecretPlace::File(path.value)),
        (Some(_), Some(_)) => Err(Wrong::expected(EXPECTED).hidden("two places for one secret")),
        (None, None) if tried => Err(Wrong::told()),
        (None, None) => Err(Wrong::expected(EXPECTED).hidden("no place for the secret")),
    }
}

fn variable(value: &Value<'_>) -> Result<String, Wrong> {
    let good = |text: &&str| {
        !text.is_empty()
            && text.len() <= 256
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let text = value.text().filter(good).map(str::to_owned);
    text.ok_or_else(|| {
        Wrong::expected("the name of an environment variable").hidden("something else")
    })
}
