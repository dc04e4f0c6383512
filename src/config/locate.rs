//! Where a running instance is found, from a configuration that need not be whole.
//!
//! The command line must reach an instance whose file has just been broken, and without the secrets in its environment.

use std::path::{Path, PathBuf};

use crate::config::last_good::{data_folder, text_of};
use crate::config::settings::SOCKET;
use crate::config::text::{FileText, read_file};

/// The control API's socket of the instance that the configuration at `path` describes.
#[must_use]
pub fn admin_socket(path: &Path) -> PathBuf {
    let main = read_file(path);
    let named = match &main {
        FileText::Read(source) => {
            text_of(source, "admin", "socket").map(|socket| source.resolve(Path::new(&socket)))
        }
        FileText::Unreadable(_) => None,
    };
    named.unwrap_or_else(|| data_folder(path, &main).join(SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};

    #[test]
    fn the_socket_is_found_in_a_broken_file_and_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        let socket = || admin_socket(&path);
        assert_eq!(socket(), folder.path().join("data/admin.sock"));
        for (text, expected) in [
            ("[store]\ndata = \"/d\"\n", "/d/admin.sock"),
            ("[listen\n[admin]\nsocket = \"/run/v.sock\"", "/run/v.sock"),
        ] {
            replace(&path, text.as_bytes(), Access::Everyone).unwrap();
            assert_eq!(socket(), Path::new(expected), "{text}");
        }
    }
}
