//! Keeps the sources in shape: a module names only modules of a lower rank (the map in `src/lib.rs`), files and functions
//! stay short enough to read, every file says what it is for, and tests neither sleep nor hide.

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
        // A file of tests may name what it likes, as tests at the end of a file may.
        let Some(own) = top_module(&path).filter(|_| !path.ends_with("tests.rs")) else {
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

/// Longer than the house wants; what is above can only be a file or a function nobody has split.
const MOST_LINES_OF_A_FILE: usize = 600;
const MOST_LINES_OF_A_FUNCTION: usize = 100;

#[test]
fn files_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let lines = before_tests(&text).count();
        if lines > MOST_LINES_OF_A_FILE {
            wrong.push(format!(
                "{}: {lines} lines before its tests, at most {MOST_LINES_OF_A_FILE}: split it by noun",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tests whose functions are tables: cases in a row, which nobody reads as one thought.
fn holds_tables(path: &Path) -> bool {
    let parts = path
        .components()
        .filter_map(|part| part.as_os_str().to_str());
    parts
        .into_iter()
        .any(|part| matches!(part, "tests" | "conformance"))
}

#[test]
fn functions_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    let of_program = |(path, _): &(PathBuf, String)| !holds_tables(path);
    for (path, text) in all_sources().into_iter().filter(of_program) {
        for (line, length) in functions(&text) {
            if length > MOST_LINES_OF_A_FUNCTION {
                wrong.push(format!(
                    "{}:{line}: a function of {length} lines, at most {MOST_LINES_OF_A_FUNCTION}",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = all_sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(
        silent.is_empty(),
        "does not begin with //!: {}",
        silent.join(", ")
    );
}

#[test]
fn tests_neither_sleep_nor_hide() {
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        let first_test_line = if path.starts_with("tests") {
            0
        } else {
            before_tests(&text).count()
        };
        for (index, line) in text.lines().enumerate() {
            let told = |what: &str| format!("{}:{}: {what}", path.display(), index + 1);
            if line.trim_start().starts_with(concat!("#[", "ignore")) {
                wrong.push(told("a test that does not run proves nothing"));
            }
            if index >= first_test_line && waits_for_time(line) {
                wrong.push(told("wait on an event with a deadline, or drive the clock"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What an operator reads shows no Rust: a field of the log from `info` up is told by its `Display`.
#[test]
fn log_lines_are_for_people() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for level in ["info", "warn", "error"] {
            for (at, _) in text.match_indices(&format!("tracing::{level}!(")) {
                let call = text[at..].split(");").next().unwrap();
                if shows_rust(call) {
                    let line = text[..at].lines().count();
                    wrong.push(format!("{}:{line}: a field with ? or :?", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tells_what_shows_rust_in_a_log_line() {
    for (call, expected) in [
        ("tracing::warn!(%error, ?cause, \"x", true),
        (
            "tracing::warn!(\n            evidence = ?problem.evidence, \"x",
            true,
        ),
        ("tracing::warn!(\"told {why:?}", true),
        ("tracing::warn!(%ca, why = answer()?, \"what now?", false),
    ] {
        assert_eq!(shows_rust(call), expected, "{call}");
    }
}

fn shows_rust(call: &str) -> bool {
    let sigil = |(at, _): (usize, &str)| {
        let before = call[..at].trim_end();
        let named = call[at + 1..].starts_with(|c: char| c.is_ascii_lowercase());
        named && before.ends_with(['(', ',', '='])
    };
    call.contains(":?}") || call.match_indices('?').any(sigil)
}

/// A leftover marker, or a folder that exists on one developer's machine only.
#[test]
fn sources_hold_no_leftovers() {
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
    ];
    let mut wrong = Vec::new();
    for (path, text) in all_sources() {
        for (index, line) in text.lines().enumerate() {
            for marker in markers.iter().filter(|marker| line.contains(**marker)) {
                wrong.push(format!("{}:{}: {marker}", path.display(), index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn measures_functions() {
    let text = "impl A {\n    fn short(&self) {}\n    pub(crate) async fn long(\n        a: u8,\n    ) {\n        b();\n    }\n}\nfn declared();\nconst fn last() -> u8 {\n    1\n}\n";
    assert_eq!(functions(text), [(2, 1), (3, 5), (9, 1), (10, 3)]);
}

fn sources() -> Vec<(PathBuf, String)> {
    sources_under("src")
}

/// The library, the tests and the benchmarks.
fn all_sources() -> Vec<(PathBuf, String)> {
    ["src", "tests", "benches"]
        .into_iter()
        .filter(|folder| Path::new(folder).is_dir())
        .flat_map(sources_under)
        .collect()
}

fn sources_under(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
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
    before_tests(text)
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
}

/// Line and length of every function, as rustfmt lays them out: the closing brace is indented like the head.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| heads_function(line))
    {
        let indent = indent_of(line);
        let length = if line.ends_with([';', '}']) {
            1
        } else {
            let body = lines.iter().skip(index + 1);
            let ends = |line: &&&str| indent_of(line) == indent && line.ends_with(['}', ';']);
            1 + body
                .clone()
                .position(|line| ends(&line))
                .unwrap_or_else(|| body.len())
                + 1
        };
        found.push((index + 1, length));
    }
    found
}

fn heads_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words
        .by_ref()
        .find(|word| {
            !matches!(*word, "pub" | "const" | "async" | "unsafe") && !word.starts_with("pub(")
        })
        .is_some_and(|word| word == "fn")
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// `sleep` of std, of tokio or of anyone: a test that waits for time to pass is slow when it is right and flaky
/// when it is wrong.
fn waits_for_time(line: &str) -> bool {
    let code = line.trim_start();
    !code.starts_with("//")
        && [concat!("sleep", "("), concat!("sleep_", "until(")]
            .iter()
            .any(|call| code.contains(call))
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
