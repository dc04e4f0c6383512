//! The Unix socket of the control API: mode 0600 from the first instant, never taken from a living process.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::base::serve::Accept;

/// The longest path that the kernel takes for a socket, the one that it is first made under included (`sun_path` has 108
/// octets with the final NUL).
const LONGEST_PATH: usize = 107 - ".new/s".len();

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

    /// Made aside, in a folder that nobody else may enter, closed to others, and only then put in place: nobody else can
    /// ever connect. A bound socket has the permissions of the process' umask at first.
    fn replace(path: &Path) -> io::Result<Self> {
        let folder = Aside::make(path)?;
        let aside = folder.0.join("s");
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

/// A folder of ours alone beside the socket; removed with what it holds when it is dropped.
struct Aside(PathBuf);

impl Aside {
    fn make(path: &Path) -> io::Result<Self> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let aside = Self(aside.into());
        // What a killed process left.
        aside.remove()?;
        fs::DirBuilder::new().mode(0o700).create(&aside.0)?;
        Ok(aside)
    }

    fn remove(&self) -> io::Result<()> {
        let removed = match fs::symlink_metadata(&self.0) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.0),
            Ok(_) => fs::remove_file(&self.0),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // One that stays is removed by the next start.
        drop(self.remove());
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

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

    /// Watches for a socket that another could reach, while one is made again and again with a generous umask's permissions.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn at_no_instant_may_another_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let (watched, ended) = (folder.path().to_owned(), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&ended);
        let watcher = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !until.load(Ordering::Relaxed) {
                seen.extend(
                    fs::read_dir(&watched)
                        .unwrap()
                        .flatten()
                        .filter_map(|entry| open_to_others(&entry)),
                );
            }
            seen
        });
        for _ in 0..500 {
            drop(AdminSocket::bind(&path).await.unwrap());
        }
        ended.store(true, Ordering::Relaxed);
        assert_eq!(watcher.join().unwrap(), Vec::<PathBuf>::new());
    }

    /// What another user could connect to, or look into for what to connect to.
    fn open_to_others(entry: &fs::DirEntry) -> Option<PathBuf> {
        let mode = entry.metadata().ok()?.permissions().mode();
        (mode & 0o077 != 0).then(|| entry.path())
    }

    #[tokio::test]
    async fn what_a_killed_process_left_beside_it_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let aside = folder.path().join("admin.sock.new");
        fs::create_dir(&aside).unwrap();
        drop(std::os::unix::net::UnixListener::bind(aside.join("s")).unwrap());
        let socket = AdminSocket::bind(&path).await.unwrap();
        assert!(!aside.exists());
        drop(socket);
        drop(std::os::unix::net::UnixListener::bind(&aside).unwrap());
        AdminSocket::bind(&path).await.unwrap();
        assert!(!aside.exists());
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
        assert!(error.to_string().contains("101 octets"), "{error}");
    }
}
