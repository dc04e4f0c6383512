//! What differs between two configurations, in the words of the file: its sections, its included files, and
//! the keys that count only at the start.

use std::collections::BTreeSet;
use std::fmt;

use toml::{Table, Value};

use crate::config::text::{FileText, Texts};

/// Keys that are read once, at the start: sockets, threads, directories, keys, writers. A reload
/// takes everything else at once.
pub const RESTART_KEYS: &[Key] = &[
    Key::Of("listen", "http"),
    Key::Of("listen", "https"),
    Key::Of("listen", "workers"),
    Key::Of("telemetry", "address"),
    Key::Of("telemetry", "log_format"),
    Key::Of("telemetry", "access_log"),
    Key::Of("telemetry", "worst_tenants"),
    Key::Of("admin", "socket"),
    Key::Of("store", "data"),
    Key::Of("keys", "file"),
    Key::Of("keys", "retired_kept"),
    Key::Of("certificates", "parallel"),
    Key::All("dns"),
    Key::All("on_demand"),
];

/// A key of the main file, or all of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// One key of a section.
    Of(&'static str, &'static str),
    /// The whole section.
    All(&'static str),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(section, key) => write!(f, "{section}.{key}"),
            Self::All(section) => f.write_str(section),
        }
    }
}

/// What a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sections of the main file, as `[listen]`, and paths of included files.
    pub changed: Vec<String>,
    /// Keys that differ from those the process was started with, as `listen.http`: they wait for a restart.
    pub needs_restart: Vec<String>,
}

/// What differs between what runs and `next`; `started` is what the process was started with.
pub(super) fn changes(started: &Texts, running: &Texts, next: &Texts) -> Changes {
    let (first, old, new) = (main(started), main(running), main(next));
    let sections: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let sections = sections
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| match new.get(name).or_else(|| old.get(name)) {
            Some(Value::Array(items)) if items.iter().all(Value::is_table) => {
                format!("[[{name}]]")
            }
            Some(Value::Table(_)) => format!("[{name}]"),
            _ => name.clone(),
        });
    let names: BTreeSet<&str> = [running, next]
        .into_iter()
        .flat_map(|texts| texts.included.iter().map(FileText::name))
        .collect();
    let files = names
        .into_iter()
        .filter(|name| running.included(name) != next.included(name))
        .map(str::to_owned);
    let restart = RESTART_KEYS
        .iter()
        .filter(|key| value(&first, key) != value(&new, key));
    Changes {
        changed: sections.chain(files).collect(),
        needs_restart: restart.map(ToString::to_string).collect(),
    }
}

fn main(texts: &Texts) -> Table {
    let source = texts.main.source();
    source
        .and_then(|source| source.text().parse().ok())
        .unwrap_or_default()
}

fn value<'t>(table: &'t Table, key: &Key) -> Option<&'t Value> {
    match key {
        Key::Of(section, key) => table.get(*section)?.get(*key),
        Key::All(section) => table.get(*section),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Source;

    fn texts(main: &str, included: &[(&str, &str)]) -> Texts {
        let file = |name: &str, text: &str| FileText::Read(Source::new(name, text));
        Texts {
            main: file("proxy.toml", main),
            included: included
                .iter()
                .map(|(name, text)| file(name, text))
                .collect(),
        }
    }

    #[test]
    fn sections_files_and_keys_are_told_and_comments_do_not_count() {
        let start = texts(
            "[listen]\nworkers = 2\n[limits]\nfields = 50\n",
            &[("a", "1"), ("b", "2")],
        );
        let next = texts(
            "# a comment\n[limits]\nfields = 60\n[listen]\nworkers = 4\n[[tenant]]\nname = \"x\"\n",
            &[("a", "1"), ("c", "2")],
        );
        let found = changes(&start, &start, &next);
        assert_eq!(
            found.changed,
            ["[limits]", "[listen]", "[[tenant]]", "b", "c"]
        );
        assert_eq!(found.needs_restart, ["listen.workers"]);
        let quiet = texts(
            "#!\n[listen]\nworkers = 2\n[limits]\nfields = 50\n",
            &[("a", "1"), ("b", "2")],
        );
        assert_eq!(changes(&start, &start, &quiet), Changes::default());
    }

    #[test]
    fn a_key_that_waits_for_a_restart_is_told_again_until_it_is_put_back() {
        let (start, next) = (
            texts("[store]\ndata = \"a\"", &[]),
            texts("[store]\ndata = \"b\"", &[]),
        );
        assert_eq!(changes(&start, &next, &next).needs_restart, ["store.data"]);
        assert!(changes(&start, &next, &start).needs_restart.is_empty());
    }
}
