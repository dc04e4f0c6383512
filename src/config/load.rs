//! Reads the configuration for a start: the file, or the last good one where the file is broken.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::assemble::{Assembled, assemble};
use crate::config::last_good::{self, Of};
use crate::config::mistake::Mistake;
use crate::config::settings::Settings;
use crate::config::text::{FileText, Texts};
use crate::model::TenantId;

/// A configuration that can be served.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the modules take.
    pub settings: Settings,
    /// Where it comes from.
    pub origin: Origin,
    /// Mistakes of included files, which go on with their last good text, or without.
    pub warnings: Vec<Mistake>,
    pub(super) path: PathBuf,
    /// The texts that are in force: the main file's and those of the included files that take part.
    pub(super) texts: Texts,
    /// The texts as they were on disk.
    pub(super) seen: Texts,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file.
    File,
    /// The last good configuration, kept in the data directory, for the file is broken: this must show in
    /// `/readyz`, in the log and in the metric.
    LastGood {
        /// What is wrong with the file.
        mistakes: Vec<Mistake>,
    },
}

/// Reads the configuration at `path` for a start. Blocks for as long as the disk does.
///
/// # Errors
/// Every mistake, where the file is broken and there is no last good configuration of it either.
pub fn load(path: &Path) -> Result<Loaded, Vec<Mistake>> {
    let seen = Texts::read(path);
    let data = last_good::data_folder(path, &seen.main);
    let previous = last_good::read(path, &data);
    let before = previous.as_ref().map(|previous| &previous.texts);
    let mistakes = match assemble(&seen, before) {
        Ok(assembled) => {
            let mut loaded = loaded(assembled, Origin::File, path, seen.clone());
            let own = &mut loaded.settings.declaration.own_keys;
            if !own.files.is_empty() {
                own.before = key_files(before);
            }
            return Ok(loaded);
        }
        Err(mistakes) => mistakes,
    };
    // What another file described is not what was asked for, though it keeps its data in the same folder.
    let own = previous.filter(|previous| previous.of == Of::ThisFile);
    let Some(previous) = own else {
        return Err(mistakes);
    };
    match assemble(&previous.texts, None) {
        Ok(assembled) => {
            let origin = Origin::LastGood { mistakes };
            Ok(loaded(assembled, origin, path, seen))
        }
        // What was good is not any more: a file of roots or a secret is gone. The file's own mistakes matter.
        Err(_) => Err(mistakes),
    }
}

/// Where tenants' own keys lay by the configuration before; nothing where that cannot be used any more.
fn key_files(previous: Option<&Texts>) -> BTreeMap<TenantId, PathBuf> {
    let assembled = previous.and_then(|texts| assemble(texts, None).ok());
    assembled.map_or_else(BTreeMap::new, |assembled| {
        assembled.settings.declaration.own_keys.files
    })
}

fn loaded(assembled: Assembled<'_>, origin: Origin, path: &Path, seen: Texts) -> Loaded {
    Loaded {
        texts: in_force(&assembled),
        settings: assembled.settings,
        origin,
        warnings: assembled.warnings,
        path: path.to_owned(),
        seen,
    }
}

/// The texts that take part.
pub(super) fn in_force(assembled: &Assembled<'_>) -> Texts {
    let included = assembled.included.iter();
    Texts {
        main: FileText::Read(assembled.main.clone()),
        included: included
            .map(|file| FileText::Read(file.source.clone()))
            .collect(),
    }
}

impl Loaded {
    /// Keeps it as the last good configuration in its data directory: to be called once it serves.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn keep(&self) -> io::Result<()> {
        last_good::keep(&self.texts, &self.settings.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};

    #[test]
    fn a_broken_file_is_served_by_its_own_last_good_configuration_and_by_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let good = "[[ca]]\nname = \"internal\"\nkind = \"private\"\n";
        let write = |name: &str, text: &str| replace(&at(name), text.as_bytes(), Access::Everyone);
        write("one.toml", good).unwrap();
        std::fs::create_dir(at("data")).unwrap();
        load(&at("one.toml")).unwrap().keep().unwrap();
        for name in ["one.toml", "two.toml"] {
            write(name, "[listn]\n").unwrap();
        }
        let own = load(&at("one.toml")).unwrap();
        assert!(matches!(own.origin, Origin::LastGood { .. }));
        let mistakes = load(&at("two.toml")).unwrap_err();
        assert_eq!(mistakes[0].file, at("two.toml").display().to_string());
    }
}
