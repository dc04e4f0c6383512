//! Where a running instance is found, from a configuration that need not be whole.
//!
//! The command line must reach an instance whose file has just been broken, and without the secrets in its environment.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::file;
use crate::config::last_good::{data_folder, text_of};
use crate::config::mistake::Mistakes;
use crate::config::settings::SOCKET;
use crate::config::source::Source;
use crate::config::text::{FileText, read_file};
use crate::telemetry::Settings;

/// Where the control API's socket is, and what tells so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The socket.
    pub socket: PathBuf,
    /// How much of the configuration could be gone by.
    pub told_by: ToldBy,
}

/// What tells where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// The configuration.
    File,
    /// What can still be read of one that has mistakes.
    BrokenFile,
    /// Nothing, for there is no such file: it is where a start without `[store]` and `[admin]` would put it.
    NoFile,
    /// Nothing, for the file cannot be read, for this reason.
    UnreadableFile(String),
}

/// The control API's socket of the instance that the configuration at `path` describes.
#[must_use]
pub fn admin_socket(path: &Path) -> Located {
    let main = read_file(path);
    let named = match &main {
        FileText::Read(source) => {
            text_of(source, "admin", "socket").map(|socket| source.resolve(Path::new(&socket)))
        }
        FileText::Unreadable(_) => None,
    };
    Located {
        socket: named.unwrap_or_else(|| data_folder(path, &main).join(SOCKET)),
        told_by: match &main {
            FileText::Read(source) if has_mistakes(source) => ToldBy::BrokenFile,
            FileText::Read(_) => ToldBy::File,
            FileText::Unreadable(_) if is_missing(path) => ToldBy::NoFile,
            FileText::Unreadable(mistake) => ToldBy::UnreadableFile(mistake.what.clone()),
        },
    }
}

/// Where the instance that the configuration at `path` describes tells how it is: `[telemetry] address`, as far as it can be
/// read, else the default; nowhere where that is off.
#[must_use]
pub fn telemetry(path: &Path) -> Option<SocketAddr> {
    let named = match read_file(path) {
        FileText::Read(source) => text_of(&source, "telemetry", "address"),
        FileText::Unreadable(_) => None,
    };
    match named.as_deref() {
        Some("off") => None,
        named => named
            .and_then(|address| address.parse().ok())
            .or_else(|| Settings::default().address),
    }
}

/// Whether the file says by itself that it is broken: what it names elsewhere, secrets and further files, is not read.
fn has_mistakes(source: &Source) -> bool {
    let mistakes = Mistakes::new(source);
    file::read_main(source, &mistakes);
    !mistakes.is_empty()
}

fn is_missing(path: &Path) -> bool {
    let found = path.symlink_metadata();
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};

    #[test]
    fn the_socket_is_found_in_a_broken_file_and_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        let located = |socket: PathBuf, told_by| Located { socket, told_by };
        assert_eq!(
            admin_socket(&path),
            located(folder.path().join("data/admin.sock"), ToldBy::NoFile)
        );
        for (text, expected, told_by) in [
            ("[store]\ndata = \"/d\"\n", "/d/admin.sock", ToldBy::File),
            (
                "[listen\n[admin]\nsocket = \"/run/v.sock\"",
                "/run/v.sock",
                ToldBy::BrokenFile,
            ),
            (
                "[store]\ndata = \"/d\"\n[nobody]\n",
                "/d/admin.sock",
                ToldBy::BrokenFile,
            ),
        ] {
            replace(&path, text.as_bytes(), Access::Everyone).unwrap();
            let found = admin_socket(&path);
            assert_eq!(found, located(expected.into(), told_by), "{text}");
        }
        let folder_instead = admin_socket(folder.path()).told_by;
        assert!(
            matches!(&folder_instead, ToldBy::UnreadableFile(why) if why.contains("directory")),
            "{folder_instead:?}"
        );
    }
    #[test]
    fn telemetry_is_found_in_a_broken_file_and_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        let default = Settings::default().address;
        assert_eq!(telemetry(&path), default);
        let named = Some(SocketAddr::from(([127, 0, 0, 2], 9999)));
        for (text, expected) in [
            ("", default),
            ("[telemetry]\naddress = \"127.0.0.2:9999\"\n", named),
            ("[listen\n[telemetry]\naddress = \"127.0.0.2:9999\"", named),
            ("[telemetry]\naddress = \"off\"\n", None),
            ("[telemetry]\naddress = 9180\n", default),
        ] {
            replace(&path, text.as_bytes(), Access::Everyone).unwrap();
            assert_eq!(telemetry(&path), expected, "{text}");
        }
    }
}
