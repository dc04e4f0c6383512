//! The configuration as text: the main file and the files it includes, read from disk within bounds.
//!
//! Nothing here knows what the text means, but for the list of included files. The same value is what
//! `last_good` keeps and what `assemble` turns into settings.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::file::read_capped;
use crate::config::file;
use crate::config::mistake::{Finding, Mistake, Mistakes, whole_file};
use crate::config::source::Source;

/// The largest configuration file, in bytes.
pub(super) const MOST_BYTES: u64 = 16 << 20;
/// Files that one configuration may include.
const MOST_FILES: usize = 100_000;

/// One file as it was read, or why it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileText {
    /// Its text.
    Read(Source),
    /// It is named, but cannot be read.
    Unreadable(Mistake),
}

impl FileText {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Read(source) => source.name(),
            Self::Unreadable(mistake) => &mistake.file,
        }
    }

    pub(super) const fn source(&self) -> Option<&Source> {
        match self {
            Self::Read(source) => Some(source),
            Self::Unreadable(_) => None,
        }
    }
}

/// The main file and the files it includes, in the order of their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) main: FileText,
    pub(super) included: Vec<FileText>,
}

impl Texts {
    /// Reads the main file at `path` and every file that it includes.
    pub(super) fn read(path: &Path) -> Self {
        let main = read_main_file(path);
        let mut included = Vec::new();
        if let FileText::Read(source) = &main {
            let patterns = file::read_main(source, &Mistakes::new(source)).include;
            let mut paths: Vec<PathBuf> = Vec::new();
            for pattern in patterns {
                match matching(&source.resolve(&pattern.value)) {
                    Ok(found) => paths.extend(found),
                    Err(error) => {
                        let name = source.resolve(&pattern.value);
                        let name = name.to_string_lossy();
                        let finding = Finding::new(format!("cannot be listed: {error}"));
                        included.push(FileText::Unreadable(whole_file(&name, finding)));
                    }
                }
            }
            paths.sort_unstable();
            paths.dedup();
            included.extend(paths.iter().take(MOST_FILES).map(|path| read_file(path)));
        }
        Self { main, included }
    }

    /// The included files whose names fit a pattern with `*`, as it is resolved.
    pub(super) fn fitting(&self, pattern: &Path) -> Vec<&FileText> {
        let files = self.included.iter();
        files
            .filter(|file| fits(pattern, Path::new(file.name())))
            .collect()
    }

    /// The text of an included file by its name.
    pub(super) fn included(&self, name: &str) -> Option<&Source> {
        let found = self.included.iter().find(|file| file.name() == name);
        found.and_then(FileText::source)
    }
}

/// The main file; where it is missing, with what a newcomer does.
fn read_main_file(path: &Path) -> FileText {
    let mut read = read_file(path);
    if let FileText::Unreadable(mistake) = &mut read
        && matches!(path.try_exists(), Ok(false))
    {
        let fix = "create it, or name another with --config; `vestibule demo` works without one";
        mistake.fix = Some(fix.to_owned());
    }
    read
}

pub(super) fn read_file(path: &Path) -> FileText {
    let name = path.to_string_lossy();
    let unreadable = |finding| FileText::Unreadable(whole_file(&name, finding));
    match read_capped(path, MOST_BYTES) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => FileText::Read(Source::new(name, text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                unreadable(Finding::new(format!("not UTF-8 at byte {at}")).fix("save it as UTF-8"))
            }
        },
        Err(error) => {
            let finding = Finding::new(error.to_string());
            let fix = (error.kind() == io::ErrorKind::PermissionDenied)
                .then(|| "let the user that runs the proxy read it".to_owned());
            unreadable(finding.maybe_fix(fix))
        }
    }
}

/// The files that a pattern names: itself, or those of its folder where its last part holds `*`. A folder
/// that is not there holds none (where it held some before, `assemble` goes on with those); hidden files are left out, as in a shell.
fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    if !name.contains('*') {
        return Ok(vec![pattern.to_owned()]);
    }
    let folder = pattern.parent().unwrap_or_else(|| Path::new("."));
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries.take(MOST_FILES) {
        let file = entry?.file_name();
        let file = file.to_string_lossy();
        if !file.starts_with('.') && matches(&name, &file) {
            found.push(folder.join(&*file));
        }
    }
    found.retain(|path| !path.is_dir());
    Ok(found)
}

/// Whether a pattern with `*` names a file, there or not.
fn fits(pattern: &Path, file: &Path) -> bool {
    let (Some(pattern_name), Some(name)) = (pattern.file_name(), file.file_name()) else {
        return false;
    };
    let pattern_name = pattern_name.to_string_lossy();
    pattern != file
        && pattern_name.contains('*')
        && pattern.parent() == file.parent()
        && matches(&pattern_name, &name.to_string_lossy())
}

/// Whether `name` fits `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml~", false),
            ("a*c*.t", "abcd.t", true),
            ("a*c*.t", "abd.t", false),
            ("*", "anything", true),
            ("a.toml", "a.toml", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn included_files_come_in_the_order_of_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(folder.path().join("d"))
                .and_then(|()| {
                    crate::base::file::replace(
                        &folder.path().join(name),
                        text.as_bytes(),
                        crate::base::file::Access::Everyone,
                    )
                })
                .unwrap()
        };
        write(
            "proxy.toml",
            "include = [\"d/*.toml\", \"none.toml\", \"empty.d/*\"]",
        );
        for name in ["d/b.toml", "d/a.toml", "d/.hidden.toml", "d/a.toml.bak"] {
            write(name, "");
        }
        let texts = Texts::read(&folder.path().join("proxy.toml"));
        let names: Vec<_> = texts
            .included
            .iter()
            .map(|file| Path::new(file.name()).file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.toml", "b.toml", "none.toml"]);
        assert!(matches!(texts.included[2], FileText::Unreadable(_)));
    }

    #[test]
    fn a_missing_main_file_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let texts = Texts::read(&folder.path().join("proxy.toml"));
        let FileText::Unreadable(mistake) = texts.main else {
            panic!("read");
        };
        assert!(mistake.fix.unwrap().contains("--config"));
    }

    #[test]
    fn a_file_that_is_not_text_is_a_mistake_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        crate::base::file::replace(&path, b"a\xff", crate::base::file::Access::Everyone).unwrap();
        let FileText::Unreadable(mistake) = read_file(&path) else {
            panic!("read");
        };
        assert!(
            mistake
                .to_string()
                .ends_with("not UTF-8 at byte 1\n  = fix: save it as UTF-8")
        );
    }
}
