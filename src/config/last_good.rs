//! The last good configuration, kept verbatim in the data directory: what a start with a broken `proxy.toml`
//! serves, and what a broken included file falls back to. Holds no secret, for the files themselves hold none.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::base::file::{Access, read_capped, replace};
use crate::config::source::Source;
use crate::config::text::{FileText, Texts};

/// Its name in the data directory.
const FILE_NAME: &str = "last-good-configuration.json";
/// The largest one that is kept or read, in bytes.
const MOST_BYTES: u64 = 256 << 20;
const FORMAT: u32 = 1;
/// The data directory where `[store] data` names none, relative to the main file.
pub(super) const DEFAULT_DATA: &str = "data";

#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// Of the main file, absolute; absent in one that an older version kept.
    #[serde(default)]
    path: Option<PathBuf>,
    main: String,
    included: Vec<KeptFile>,
}

#[derive(Serialize, Deserialize)]
struct KeptFile {
    /// Relative to the main file's folder where it lies below it.
    path: PathBuf,
    text: String,
}

/// The last good configuration of a data directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LastGood {
    pub(super) texts: Texts,
    pub(super) of: Of,
}

/// Which main file a last good configuration was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The one that is read.
    ThisFile,
    /// One elsewhere: it is not served in place of this one.
    Another,
}

/// Keeps `texts` in the data directory, unless they are kept already.
///
/// # Errors
/// Names the file that cannot be written.
pub(super) fn keep(texts: &Texts, data: &Path) -> io::Result<()> {
    let FileText::Read(main) = &texts.main else {
        return Ok(());
    };
    let included = texts.included.iter().filter_map(FileText::source);
    let kept = Kept {
        format: FORMAT,
        path: Some(absolute(Path::new(main.name()))),
        main: main.text().to_owned(),
        included: included.map(|source| kept_file(source, main)).collect(),
    };
    let bytes = serde_json::to_vec(&kept)?;
    let path = data.join(FILE_NAME);
    if bytes.len() as u64 > MOST_BYTES {
        let text =
            format!("the configuration is larger than {MOST_BYTES} bytes: no last good one kept");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    match read_capped(&path, MOST_BYTES) {
        Ok(old) if old == bytes => Ok(()),
        _ => replace(&path, &bytes, Access::Owner),
    }
}

fn kept_file(source: &Source, main: &Source) -> KeptFile {
    let name = Path::new(source.name());
    KeptFile {
        path: name.strip_prefix(main.folder()).unwrap_or(name).to_owned(),
        text: source.text().to_owned(),
    }
}

/// The last good configuration in the data directory, as if its main file were `main`; nothing where there is
/// none that can be read.
pub(super) fn read(main: &Path, data: &Path) -> Option<LastGood> {
    let bytes = read_capped(&data.join(FILE_NAME), MOST_BYTES).ok()?;
    let kept: Kept = serde_json::from_slice(&bytes).ok()?;
    if kept.format != FORMAT {
        return None;
    }
    let main = Source::new(main.to_string_lossy(), kept.main);
    let is_same = |path: PathBuf| path == absolute(Path::new(main.name()));
    let of = match kept.path.is_none_or(is_same) {
        true => Of::ThisFile,
        false => Of::Another,
    };
    let included = kept.included.into_iter().map(|file| {
        let name = main.resolve(&file.path);
        FileText::Read(Source::new(name.to_string_lossy(), file.text))
    });
    let texts = Texts {
        included: included.collect(),
        main: FileText::Read(main),
    };
    Some(LastGood { texts, of })
}

/// Where a file lies, whatever folder a start is made in; links are not followed, for they are what a new version moves.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_no_folder| path.to_owned())
}

/// Where the data directory of a main file lies, even if the file is broken: what its `[store] data` still
/// says, else the default.
pub(super) fn data_folder(path: &Path, main: &FileText) -> PathBuf {
    match main {
        FileText::Read(source) => {
            let named = text_of(source, "store", "data");
            source.resolve(Path::new(named.as_deref().unwrap_or(DEFAULT_DATA)))
        }
        FileText::Unreadable(_) => {
            Source::new(path.to_string_lossy(), "").resolve(Path::new(DEFAULT_DATA))
        }
    }
}

/// A key of a section, from a text that need not be whole: from the first of its blocks that says so, else from
/// a line of the section's own block.
pub(super) fn text_of(source: &Source, section: &str, key: &str) -> Option<String> {
    let head = format!("[{section}]");
    let blocks = source.blocks().into_iter();
    let mut texts = blocks.filter_map(|block| source.text().get(block));
    texts.find_map(|text| match DeTable::parse(text) {
        Ok(table) => {
            let table = table.get_ref().get(section)?.get_ref();
            Some(table.get(key)?.get_ref().as_str()?.to_owned())
        }
        Err(_) => {
            let lines = text.lines().skip_while(|line| line.trim() != head);
            let mut tables = lines.filter_map(|line| DeTable::parse(line).ok());
            tables.find_map(|table| Some(table.get_ref().get(key)?.get_ref().as_str()?.to_owned()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> FileText {
        FileText::Read(Source::new(name, text))
    }

    #[test]
    fn comes_back_verbatim_even_when_the_folder_is_named_differently() {
        let folder = tempfile::tempdir().unwrap();
        let texts = Texts {
            main: file("etc/proxy.toml", "# é\n"),
            included: vec![file("etc/d/a.toml", "x"), file("/srv/b.toml", "y")],
        };
        keep(&texts, folder.path()).unwrap();
        for same in ["etc/proxy.toml", "./etc/proxy.toml"] {
            let kept = read(Path::new(same), folder.path()).unwrap();
            assert_eq!(
                (kept.of, kept.texts.main.source().unwrap().text()),
                (Of::ThisFile, "# é\n")
            );
        }
        let kept = read(Path::new("etc/proxy.toml"), folder.path()).unwrap();
        assert_eq!(kept.texts, texts);
        let moved = read(Path::new("/etc/proxy.toml"), folder.path()).unwrap();
        assert_eq!(moved.of, Of::Another);
        let names: Vec<_> = moved.texts.included.iter().map(FileText::name).collect();
        assert_eq!(names, ["/etc/d/a.toml", "/srv/b.toml"]);
    }

    #[test]
    fn garbage_is_no_last_good_configuration() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(Path::new("p"), folder.path()), None);
        for garbage in ["", "{", "{\"format\":2,\"main\":\"\",\"included\":[]}"] {
            replace(
                &folder.path().join(FILE_NAME),
                garbage.as_bytes(),
                Access::Owner,
            )
            .unwrap();
            assert_eq!(read(Path::new("p"), folder.path()), None);
        }
    }

    #[test]
    fn the_data_folder_is_found_in_a_broken_file_too() {
        for (text, expected) in [
            ("", "/e/data"),
            ("[store]\ndata = \"/var/lib/v\"\n", "/var/lib/v"),
            ("[store]\ndata = \"./d\"\n[listen\nhttp = ", "/e/d"),
            ("[listen\nhttp = ]]\n[store]\ndata = \"/x\"", "/x"),
            ("a = \"\n[store] \ndata = \"/x\" # here", "/x"),
            ("[store]\ndata = 5", "/e/data"),
            ("[store]\ndata = \"/x\"\nmore =", "/x"),
        ] {
            let main = file("/e/proxy.toml", text);
            assert_eq!(
                data_folder(Path::new("/e/proxy.toml"), &main),
                Path::new(expected),
                "{text}"
            );
        }
    }
}
