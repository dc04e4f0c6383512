//! Where the demo lives: its folder, its ports, its configuration file.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::base::file::{self, Access};

/// The tenants of the demo, with their domains.
pub(super) const TENANTS: [(&str, &str); 2] =
    [("acme", "acme.localhost"), ("globex", "globex.localhost")];

/// The folder that holds everything; removed when dropped, unless the user named it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    /// The folder that the user named, made where it is missing, or a fresh temporary one. Its path is absolute.
    pub(super) fn open(named: Option<&Path>) -> io::Result<Self> {
        let (path, temporary) = match named {
            Some(path) => (path.to_owned(), false),
            None => {
                let name = format!("vestibule-demo-{}", uuid::Uuid::new_v4().simple());
                (std::env::temp_dir().join(name), true)
            }
        };
        DirBuilder::new()
            .recursive(!temporary)
            .mode(0o700)
            .create(&path)?;
        Ok(Self {
            path: fs::canonicalize(path)?,
            temporary,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the demo's data");
        }
    }
}

/// The ports of the demo, and the loopback addresses it listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) https: u16,
    pub(super) addresses: Vec<IpAddr>,
}

impl Ports {
    /// 8080 and 8443 where they are free on every loopback address of this machine, else free ones.
    pub(super) fn choose() -> io::Result<Self> {
        let loopback = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let addresses: Vec<_> = loopback
            .into_iter()
            .filter(|ip| TcpListener::bind((*ip, 0)).is_ok())
            .collect();
        let http = free_port(8080, &addresses)?;
        let https = free_port(8443, &addresses)?;
        Ok(Self {
            http,
            https,
            addresses,
        })
    }

    fn list(&self, port: u16) -> String {
        let quoted = |ip: &IpAddr| format!("\"{}\"", SocketAddr::new(*ip, port));
        self.addresses
            .iter()
            .map(quoted)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// How often a port that the system offers for one address may be taken on the other.
const ATTEMPTS: usize = 20;

fn free_port(wished: u16, addresses: &[IpAddr]) -> io::Result<u16> {
    let is_free = |port| {
        addresses
            .iter()
            .all(|ip| TcpListener::bind((*ip, port)).is_ok())
    };
    if is_free(wished) {
        return Ok(wished);
    }
    for _ in 0..ATTEMPTS {
        let offered = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        if is_free(offered) {
            return Ok(offered);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "no port is free on the loopback addresses",
    ))
}

/// The data directory within the demo's folder.
pub(super) fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Writes the configuration that the demo runs with, and gives its path: the same file a user would write.
pub(super) fn write_configuration(
    folder: &Path,
    ports: &Ports,
    application: SocketAddr,
) -> io::Result<PathBuf> {
    let tenants: String = TENANTS
        .iter()
        .map(|(name, domain)| {
            format!("\n[[tenant]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n")
        })
        .collect();
    let text = format!(
        "# Written by `vestibule demo`.\n\
         [listen]\nhttp = [{http}]\nhttps = [{https}]\ndrain_delay = \"0s\"\ndrain_idle = \"1s\"\n\n\
         [edge]\nhttps_port = {https_port}\n\n\
         [telemetry]\naddress = \"127.0.0.1:0\"\naccess_log = \"off\"\nlog_filter = \"warn\"\n\n\
         [store]\ndata = \"data\"\n\n\
         [[ca]]\nname = \"demo\"\nkind = \"private\"\n\n\
         [[upstream]]\nname = \"core\"\naddresses = [\"{application}\"]\n\n\
         [[route]]\nupstream = \"core\"\n{tenants}",
        http = ports.list(ports.http),
        https = ports.list(ports.https),
        https_port = ports.https,
    );
    let path = folder.join("proxy.toml");
    file::replace(&path, text.as_bytes(), Access::Everyone)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_and_a_named_one_stays() {
        let temporary = Folder::open(None).unwrap();
        let path = temporary.path().to_owned();
        assert!(path.is_dir());
        drop(temporary);
        assert!(!path.exists());
        let outer = tempfile::tempdir().unwrap();
        let named = outer.path().join("kept/here");
        drop(Folder::open(Some(&named)).unwrap());
        assert!(named.is_dir());
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let chosen = free_port(port, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]).unwrap();
        assert_ne!(chosen, port);
    }
}
