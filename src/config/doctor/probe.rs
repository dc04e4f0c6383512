//! Looks at the world and reports what is there, without an opinion.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::DATE;
use rustix::process::{Resource, getrlimit};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::base::clock::Timestamp;
use crate::base::file::{Access, replace};
use crate::base::task::Tasks;
use crate::ca::acme;
use crate::ca::private::lifetime_end;
use crate::model::route::UpstreamAddress;
use crate::net;
use crate::store::embedded;

/// The most files that this process may open after raising its own limit; nothing where there is no limit.
pub(super) fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// What a folder is.
#[derive(Debug)]
pub(super) enum Folder {
    /// There, and ours to write.
    Writable,
    /// Not there, but can be made.
    CanBeMade,
    /// Not ours to write, or to make.
    Refused(io::Error),
}

/// Tries to write into a folder; permission bits do not tell of read-only mounts.
pub(super) fn folder(path: &Path) -> Folder {
    let existing = existing(path);
    let trial = existing.join(format!(".vestibule-doctor.{}", std::process::id()));
    let tried = replace(&trial, b"", Access::Owner).and_then(|()| fs::remove_file(&trial));
    match tried {
        Err(error) => Folder::Refused(error),
        Ok(()) if existing == path => Folder::Writable,
        Ok(()) => Folder::CanBeMade,
    }
}

/// The path itself, or the nearest folder above it that is there.
fn existing(path: &Path) -> PathBuf {
    let mut above = path.ancestors().filter(|path| path.is_dir());
    let found = above.next().unwrap_or_else(|| Path::new("."));
    found.to_owned()
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes that this user may still write.
    pub(super) free: u64,
    /// Files that this user may still make; nothing where the file system does not count them.
    pub(super) files: Option<u64>,
}

pub(super) fn disk(path: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(existing(path))?;
    Ok(Room {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        files: (stat.f_files != 0).then_some(stat.f_favail),
    })
}

/// The network file system that a folder lies on, or will lie on, if any.
pub(super) fn remote_file_system(path: &Path) -> io::Result<Option<String>> {
    embedded::remote_file_system(&existing(path))
}

/// What a key file is.
#[derive(Debug)]
pub(super) enum KeyFile {
    /// There, for its owner only.
    Good,
    /// Not there, nor is anything that it would open.
    NotYet,
    /// Not there, but the data is.
    Lost,
    /// Others may read it; its permission bits.
    Exposed(u32),
    /// It cannot be looked at.
    Unreadable(io::Error),
}

/// Looks at the platform's key-encryption key's file without reading it.
pub(super) fn key(file: &Path, data: &Path) -> KeyFile {
    let found = key_file(file);
    match matches!(found, KeyFile::NotYet) && has_database(data) {
        true => KeyFile::Lost,
        false => found,
    }
}

/// Looks at a key-encryption key's file without reading it; whether anything needs it is not looked at.
pub(super) fn key_file(file: &Path) -> KeyFile {
    use std::os::unix::fs::PermissionsExt as _;
    match fs::File::open(file).and_then(|file| file.metadata()) {
        Ok(metadata) => match metadata.permissions().mode() & 0o777 {
            mode if mode & 0o077 != 0 => KeyFile::Exposed(mode),
            _ => KeyFile::Good,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => KeyFile::NotYet,
        Err(error) => KeyFile::Unreadable(error),
    }
}

/// Whether the data directory holds a database already.
fn has_database(data: &Path) -> bool {
    fs::read_dir(data).is_ok_and(|entries| {
        let mut names = entries.filter_map(|entry| Some(entry.ok()?.path()));
        names.any(|path| path.extension().is_some_and(|extension| extension == "db"))
    })
}

/// When the root in a file ends; nothing where there is none that can be read.
pub(super) fn root_end(file: &Path) -> Option<Timestamp> {
    let root = pem::parse(fs::read(file).ok()?).ok()?;
    lifetime_end(root.contents()).ok()
}

/// Whether a proxy with this configuration runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    Runs,
    Rests,
}

/// A proxy that runs answers at its control API's Unix socket.
pub(super) async fn proxy(socket: &Path) -> Proxy {
    match UnixStream::connect(socket).await {
        Ok(_) => Proxy::Runs,
        Err(_) => Proxy::Rests,
    }
}

/// What a port is.
#[derive(Debug)]
pub(super) enum Port {
    /// Free.
    Free,
    /// Taken, while a proxy with this configuration runs.
    Ours,
    /// Not to be had.
    Refused(io::Error),
}

pub(super) async fn port(address: SocketAddr, ours: Proxy) -> Port {
    match TcpListener::bind(address).await {
        Ok(_) => Port::Free,
        Err(error) => match (ours, error.kind()) {
            (Proxy::Runs, io::ErrorKind::AddrInUse) => Port::Ours,
            _ => Port::Refused(error),
        },
    }
}

/// What an ACME directory's URL answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) status: u16,
    /// Whether it names a place for new orders (RFC 8555 §7.1.1).
    pub(super) takes_orders: bool,
    /// What its server takes for the time.
    pub(super) date: Option<Timestamp>,
}

pub(super) async fn directory(
    acme: &acme::Settings,
    tasks: &Tasks,
    deadline: Duration,
) -> Result<Directory, String> {
    let settings = net::Settings {
        roots: acme.roots.clone(),
        deadline,
        ..net::Settings::default()
    };
    let client = net::HttpClient::new(tasks, &settings).map_err(|error| with_causes(&error))?;
    let request = Request::get(&acme.directory).body(Bytes::new());
    let request = request.map_err(|error| with_causes(&error))?;
    let answer = client.send(request).await;
    let answer = answer.map_err(|error| with_causes(&error))?;
    let document: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
    Ok(Directory {
        status: answer.status.as_u16(),
        takes_orders: document.is_some_and(|document| document.get("newOrder").is_some()),
        date: date
            .and_then(|text| OffsetDateTime::parse(text, &Rfc2822).ok())
            .map(Timestamp::from),
    })
}

/// Opens a TCP connection to an upstream, and closes it again.
pub(super) async fn connect(address: &UpstreamAddress, deadline: Duration) -> Result<(), String> {
    let connection = async {
        match address {
            UpstreamAddress::Socket(socket) => TcpStream::connect(socket).await,
            UpstreamAddress::Name(name, port) => TcpStream::connect((name.as_str(), *port)).await,
        }
    };
    match tokio::time::timeout(deadline, connection).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {} ms", deadline.as_millis())),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
