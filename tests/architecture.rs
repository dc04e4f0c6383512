//! Keeps the module map in `src/lib.rs` true: a module may name only modules of a lower rank.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::string_slice,
    reason = "a test that cannot read the sources must fail"
)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. Modules on one line are siblings and may not name each other.
const RANKS: &[&[&str]] = &[
    &["base"],
    &["model"],
    &["telemetry"],
    &["net"],
    &["keys", "policy"],
    &["store", "ca", "dns"],
    &["certs"],
    &["control", "proxy", "zone"],
    &["cluster", "notify"],
    &["api"],
    &["dashboard"],
    &["config"],
    &["app"],
    &["cli"],
];

#[test]
fn modules_depend_only_downwards() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(own) = top_module(&path) else {
            continue;
        };
        for (index, line) in code_lines(&text) {
            for other in named_modules(line) {
                if other != own && rank(other) >= rank(&own) {
                    wrong.push(format!(
                        "{}:{index}: {own} must not name {other}",
                        path.display()
                    ));
                }
            }
            if line.contains("crate::{") {
                wrong.push(format!(
                    "{}:{index}: one `use crate::module` per line",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

fn top_module(path: &Path) -> Option<String> {
    let first = path.components().nth(1)?.as_os_str().to_str()?;
    let name = first.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// Numbered lines above the file's test module, comments left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

fn named_modules(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .map(|(at, matched)| &line[at + matched.len()..])
        .map(|rest| {
            rest.split(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                .next()
                .unwrap()
        })
        .filter(|name| ranks().contains_key(name))
        .collect()
}

fn rank(name: &str) -> usize {
    *ranks()
        .get(name)
        .unwrap_or_else(|| panic!("{name} has no rank in tests/architecture.rs"))
}

fn ranks() -> HashMap<&'static str, usize> {
    RANKS
        .iter()
        .enumerate()
        .flat_map(|(rank, row)| row.iter().map(move |name| (*name, rank)))
        .collect()
}
