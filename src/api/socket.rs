//! The Unix socket of the control API: mode 0600 from the first instant, never taken from a living process.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::base::serve::Accept;

/// The longest path that the kernel takes for a socket, the one that it is first made under included (`sun_path` has 108
/// octets with the final NUL).
const LONGEST_PATH: usize = 107 - ".new".len();

/// A listening socket; its file is removed when it is dropped, unless another process has replaced it.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum SocketError {
    /// A process listens there.
    InUse(PathBuf),
    /// Something that is no socket lies there.
    NotASocket(PathBuf),
    /// The kernel does not take paths of this length.
    TooLong(PathBuf),
    /// It cannot be made.
    Io(PathBuf, io::Error),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "another Vestibule serves the control API on {}: stop it, or choose another data directory",
                path.display()
            ),
            Self::NotASocket(path) => write!(
                f,
                "{} is not a socket: move it away, or choose another path in [admin]",
                path.display()
            ),
            Self::TooLong(path) => write!(
                f,
                "the path of the control API's socket is longer than {LONGEST_PATH} octets: choose a shorter one in \
                 [admin] than {}",
                path.display()
            ),
            Self::Io(path, _) => write!(f, "cannot make the socket {}", path.display()),
        }
    }
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InUse(_) | Self::NotASocket(_) | Self::TooLong(_) => None,
            Self::Io(_, error) => Some(error),
        }
    }
}

impl AdminSocket {
    /// Listens at `path`. A socket that a dead process left is replaced; a living one's is not.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        refuse_if_taken(path).await?;
        Self::replace(path).map_err(|error| SocketError::Io(path.to_owned(), error))
    }

    /// Made aside, closed to others, and only then put in place: nobody else can ever connect.
    fn replace(path: &Path) -> io::Result<Self> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let aside = PathBuf::from(aside);
        remove_if_there(&aside)?;
        let listener = UnixListener::bind(&aside)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&aside)?.ino();
        fs::rename(&aside, path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        // A file that stays is found to be dead by the next start.
        if ours {
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Accept for AdminSocket {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.listener.next().await
    }
}

async fn refuse_if_taken(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketError::Io(path.to_owned(), error)),
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A full queue is a living process' too.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::InUse(path.to_owned()))
        }
        Err(error) => Err(SocketError::Io(path.to_owned(), error)),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_open_it_and_it_goes_with_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_living_process_keeps_its_socket_and_a_dead_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let living = AdminSocket::bind(&path).await.unwrap();
        let error = AdminSocket::bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        // As a killed process leaves it: the file is there, nobody listens.
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("dead")).unwrap());
        fs::rename(folder.path().join("dead"), &path).unwrap();
        let successor = AdminSocket::bind(&path).await.unwrap();
        // The predecessor must not take the successor's file with it.
        drop(living);
        UnixStream::connect(&path).await.unwrap();
        drop(successor);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn refuses_what_is_no_socket_and_paths_that_are_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        crate::base::file::replace(&path, b"mine", crate::base::file::Access::Owner).unwrap();
        let error = AdminSocket::bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let long = folder.path().join("a".repeat(200));
        let error = AdminSocket::bind(&long).await.unwrap_err();
        assert!(error.to_string().contains("103 octets"), "{error}");
    }
}
