//! Reads the configuration again while the program runs: applied as a whole, or refused with its mistakes while
//! the old one stays.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::assemble::{Assembled, assemble};
use crate::config::change::{Changes, changes};
use crate::config::file;
use crate::config::last_good;
use crate::config::load::{Loaded, in_force};
use crate::config::mistake::{Mistake, Mistakes};
use crate::config::settings::Settings;
use crate::config::text::{FileText, Texts};
use crate::config::watch::Trigger;
use crate::model::route::Upstream;

/// The configuration in force, and the way to the next one.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    data: PathBuf,
    started: Texts,
    running: Texts,
    seen: Texts,
    upstreams: Vec<Arc<Upstream>>,
}

/// What came of reading the configuration again.
#[derive(Debug)]
pub enum Reload {
    /// The files are as they were: nothing is to be done.
    Unchanged,
    /// A new configuration is in force.
    Applied(Box<Applied>),
    /// The main file has mistakes: the old configuration stays.
    Refused {
        /// All of them.
        mistakes: Vec<Mistake>,
    },
}

/// A new configuration.
#[derive(Debug)]
pub struct Applied {
    /// What the modules take now. Keys that wait for a restart hold their new values: do not act on them.
    pub settings: Settings,
    /// What differs, for the log.
    pub changes: Changes,
    /// Mistakes of included files, which go on with their last good text, or without.
    pub warnings: Vec<Mistake>,
}

impl Reloader {
    /// Goes on from what the program was started with.
    #[must_use]
    pub fn new(loaded: &Loaded) -> Self {
        Self {
            path: loaded.path.clone(),
            data: loaded.settings.data.clone(),
            started: loaded.texts.clone(),
            running: loaded.texts.clone(),
            seen: loaded.seen.clone(),
            upstreams: loaded.settings.declaration.upstreams.clone(),
        }
    }

    /// Reads the files and, where they are good, makes them the configuration in force and the last good one.
    /// Blocks for as long as the disk does. Where only a file's change asks, unchanged texts end it early; a
    /// signal has everything read again, the files of roots and secrets too.
    pub fn reload(&mut self, trigger: Trigger) -> Reload {
        let texts = Texts::read(&self.path);
        if trigger == Trigger::FileChange && texts == self.seen {
            return Reload::Unchanged;
        }
        self.seen = texts;
        let assembled = match assemble(&self.seen, Some(&self.running)) {
            Ok(assembled) => assembled,
            Err(mistakes) => return Reload::Refused { mistakes },
        };
        let next = in_force(&assembled);
        let Assembled {
            mut settings,
            warnings,
            ..
        } = assembled;
        for upstream in &mut settings.declaration.upstreams {
            carry_over(upstream, &self.upstreams);
        }
        let changes = changes(&self.started, &self.running, &next);
        self.running = next;
        self.upstreams.clone_from(&settings.declaration.upstreams);
        if let Err(error) = last_good::keep(&self.running, &self.data) {
            tracing::warn!(%error, "the last good configuration cannot be kept");
        }
        Reload::Applied(Box::new(Applied {
            settings,
            changes,
            warnings,
        }))
    }

    /// Paths whose folders [`crate::config::watch::Watch`] should follow: the main file, the included ones,
    /// and the patterns that further ones may come to match.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        if let FileText::Read(source) = &self.seen.main {
            let main = file::read_main(source, &Mistakes::new(source));
            let patterns = main.include.iter();
            files.extend(patterns.map(|pattern| source.resolve(&pattern.value)));
        }
        let included = self.seen.included.iter();
        files.extend(included.map(|file| PathBuf::from(file.name())));
        files
    }
}

/// An upstream whose addresses did not change keeps where they were resolved to, so that a reload leaves no
/// moment without an address.
fn carry_over(upstream: &mut Arc<Upstream>, old: &[Arc<Upstream>]) {
    let same = old
        .iter()
        .find(|old| old.name == upstream.name && old.addresses == upstream.addresses);
    if let Some(old) = same {
        match old.tls == upstream.tls && old.timeouts == upstream.timeouts {
            true => *upstream = Arc::clone(old),
            false => {
                *upstream = Arc::new(Upstream {
                    resolved: old.resolved.clone(),
                    ..Upstream::clone(upstream)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::file::{Access, replace};
    use crate::config::load::{Origin, load};
    use crate::control::declare::Completeness;

    const GOOD: &str = "include = [\"d/*.toml\"]\n[[ca]]\nname = \"internal\"\nkind = \"private\"\n\
        [[upstream]]\nname = \"core\"\naddresses = [\"core.test:80\"]\n";

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        replace(&path, text.as_bytes(), Access::Everyone).unwrap();
    }

    fn tenant(name: &str) -> String {
        format!("[[tenant]]\nname = \"{name}\"\ndomains = [\"{name}.test\"]\n")
    }

    fn tenants(settings: &Settings) -> Vec<&str> {
        let tenants = settings.declaration.tenants.iter();
        tenants.map(|tenant| tenant.id.as_str()).collect()
    }

    /// A folder with a good configuration that has been served once.
    fn served() -> (tempfile::TempDir, PathBuf, Loaded) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        write(folder.path(), "proxy.toml", GOOD);
        write(folder.path(), "d/a.toml", &tenant("a"));
        write(folder.path(), "d/b.toml", &tenant("b"));
        let path = folder.path().join("proxy.toml");
        let loaded = load(&path).unwrap();
        loaded.keep().unwrap();
        (folder, path, loaded)
    }

    #[test]
    fn a_start_with_a_broken_file_serves_the_last_good_one_and_says_so() {
        let (folder, path, _) = served();
        write(folder.path(), "proxy.toml", "[[ca");
        write(folder.path(), "d/b.toml", "oops");
        let loaded = load(&path).unwrap();
        let Origin::LastGood { mistakes } = &loaded.origin else {
            panic!("{:?}", loaded.origin);
        };
        assert!(mistakes[0].what.starts_with("not valid TOML"));
        assert_eq!(tenants(&loaded.settings), ["a", "b"]);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            load(&path).unwrap().origin,
            Origin::LastGood { .. }
        ));
        std::fs::remove_dir_all(folder.path().join("data")).unwrap();
        assert_eq!(load(&path).unwrap_err().len(), 1);
    }

    #[test]
    fn a_broken_included_file_falls_back_alone_at_a_cold_start_too() {
        let (folder, path, _) = served();
        write(folder.path(), "d/a.toml", "oops");
        write(folder.path(), "d/c.toml", &tenant("c"));
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.origin, Origin::File);
        assert_eq!(tenants(&loaded.settings), ["a", "b", "c"]);
        assert_eq!(loaded.warnings.len(), 1);
        assert_eq!(
            loaded.settings.declaration.completeness,
            Completeness::Whole
        );
        write(folder.path(), "d/new.toml", "oops");
        let loaded = load(&path).unwrap();
        assert_eq!(tenants(&loaded.settings), ["a", "b", "c"]);
        assert_eq!(
            loaded.settings.declaration.completeness,
            Completeness::Partial
        );
    }

    #[test]
    fn a_broken_reload_is_refused_once_and_changes_nothing() {
        let (folder, path, loaded) = served();
        let mut reloader = Reloader::new(&loaded);
        assert!(matches!(
            reloader.reload(Trigger::FileChange),
            Reload::Unchanged
        ));
        write(
            folder.path(),
            "proxy.toml",
            &GOOD.replace("core.test", "core test"),
        );
        let Reload::Refused { mistakes } = reloader.reload(Trigger::FileChange) else {
            panic!("not refused");
        };
        assert_eq!(mistakes.len(), 1);
        assert!(matches!(
            reloader.reload(Trigger::FileChange),
            Reload::Unchanged
        ));
        assert!(matches!(
            reloader.reload(Trigger::Signal),
            Reload::Refused { .. }
        ));
        assert!(matches!(
            load(&path).unwrap().origin,
            Origin::LastGood { .. }
        ));
    }

    #[test]
    fn a_good_reload_tells_what_changed_and_is_the_next_last_good_one() {
        let (folder, path, loaded) = served();
        let mut reloader = Reloader::new(&loaded);
        loaded.settings.declaration.upstreams[0]
            .resolved
            .publish(vec!["127.0.0.1:80".parse().unwrap()]);
        let next = format!("{GOOD}connect_timeout = \"1s\"\n[listen]\nworkers = 3\n");
        write(folder.path(), "proxy.toml", &next);
        write(folder.path(), "d/b.toml", &tenant("b2"));
        let Reload::Applied(applied) = reloader.reload(Trigger::FileChange) else {
            panic!("not applied");
        };
        let changed: Vec<&str> = applied.changes.changed.iter().map(String::as_str).collect();
        let file = folder.path().join("d/b.toml").display().to_string();
        assert_eq!(changed, ["[listen]", "[[upstream]]", &file]);
        assert_eq!(applied.changes.needs_restart, ["listen.workers"]);
        assert_eq!(tenants(&applied.settings), ["a", "b2"]);
        let upstream = &applied.settings.declaration.upstreams[0];
        assert_eq!(upstream.resolved.get().len(), 1);
        write(folder.path(), "proxy.toml", "");
        assert_eq!(tenants(&load(&path).unwrap().settings), ["a", "b2"]);
    }

    #[test]
    fn a_folder_that_is_not_there_retires_nothing_until_that_is_meant() {
        let (folder, path, loaded) = served();
        let mut reloader = Reloader::new(&loaded);
        let mut reloaded = || {
            let Reload::Applied(applied) = reloader.reload(Trigger::FileChange) else {
                panic!("not applied");
            };
            let whole = applied.settings.declaration.completeness;
            let names = tenants(&applied.settings).join(" ");
            (names, whole, applied.warnings)
        };
        let files = folder.path().join("d");
        std::fs::rename(&files, folder.path().join("away")).unwrap();
        for _ in ["not there", "empty"] {
            let (names, whole, warnings) = reloaded();
            assert_eq!((&*names, whole), ("a b", Completeness::Whole));
            assert_eq!(warnings.len(), 1);
            assert_eq!(warnings[0].file, path.display().to_string());
            assert!(
                warnings[0].to_string().contains("and 2 did"),
                "{}",
                warnings[0]
            );
            assert!(warnings[0].fix.as_ref().unwrap().contains("on purpose"));
            let started = load(&path).unwrap();
            assert_eq!(tenants(&started.settings), ["a", "b"]);
            std::fs::create_dir_all(&files).unwrap();
            write(
                folder.path(),
                "proxy.toml",
                &format!("{GOOD}connect_timeout = \"1s\"\n"),
            );
        }
        write(folder.path(), "d/b.toml", &tenant("b"));
        let (names, whole, warnings) = reloaded();
        assert_eq!(
            (&*names, whole, warnings.len()),
            ("b", Completeness::Whole, 0)
        );
        std::fs::remove_file(files.join("b.toml")).unwrap();
        write(folder.path(), "d/none.toml", "");
        let (names, whole, warnings) = reloaded();
        assert_eq!(
            (&*names, whole, warnings.len()),
            ("", Completeness::Whole, 0)
        );
    }

    #[test]
    fn the_folders_of_patterns_are_followed_before_a_file_is_in_them() {
        let (folder, _, loaded) = served();
        let files = Reloader::new(&loaded).files();
        assert!(files.contains(&folder.path().join("d/*.toml")), "{files:?}");
    }
}
