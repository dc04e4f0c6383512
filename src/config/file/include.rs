//! `include`: patterns of further files.

use std::path::PathBuf;

use crate::config::reader::{At, Table, Value, Wrong};

/// Patterns that a file may name.
const MOST: usize = 64;

pub(super) fn read(top: &mut Table<'_>) -> Vec<At<PathBuf>> {
    top.list("include", MOST, pattern).unwrap_or_default()
}

/// A path whose last part may hold `*`.
fn pattern(value: &Value<'_>) -> Result<PathBuf, Wrong> {
    let expected = r#"the path of a file, or of a folder's files as in "tenants.d/*.toml""#;
    let text = value.text().ok_or_else(|| Wrong::expected(expected))?;
    let path = PathBuf::from(text);
    let file = path.file_name().and_then(|name| name.to_str());
    let folder_is_plain = path
        .parent()
        .is_none_or(|folder| !folder.to_string_lossy().contains(['*', '?', '[']));
    match file {
        Some(_) if folder_is_plain => Ok(path),
        Some(_) => Err(Wrong::expected("* only in the last part of the path")),
        None => Err(Wrong::expected(expected)),
    }
}
