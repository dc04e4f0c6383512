//! Visitors whose connections a story holds in its hands: a TLS connection that stays open, or a handshake of which
//! only the outcome counts.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A visitor who hears nothing for so long gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open TLS connection that speaks HTTP/1.1.
pub(crate) struct Visitor {
    stream: StreamOwned<ClientConnection, TcpStream>,
    host: String,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) length: Option<usize>,
    pub(crate) closes: bool,
}

impl Visitor {
    /// Connects, and ends the handshake.
    pub(crate) fn connect(address: SocketAddrV4, host: &str, root: &Path) -> io::Result<Self> {
        Self::connect_after(&[], address, host, root)
    }

    /// Like [`Visitor::connect`], behind a proxy that says something first.
    pub(crate) fn connect_after(
        preamble: &[u8],
        address: SocketAddrV4,
        host: &str,
        root: &Path,
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(root).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.write_all(preamble)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self {
            stream,
            host: host.to_owned(),
        })
    }

    /// The server's own certificate.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Sends a GET and reads its whole answer.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<(Head, Vec<u8>)> {
        self.ask(path, "")?;
        let head = self.head()?;
        let body = match head.length {
            Some(length) => self.read(length)?,
            None => Vec::new(),
        };
        Ok((head, body))
    }

    /// Sends a GET with further field lines, each ended by CRLF.
    pub(crate) fn ask(&mut self, path: &str, fields: &str) -> io::Result<()> {
        let host = &self.host;
        write!(
            self.stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
        )?;
        self.stream.flush()
    }

    /// Reads the head of an answer and nothing beyond it.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.extend(self.read(1)?);
        }
        let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        let field = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value)
        };
        Ok(Head {
            status: status.ok_or_else(|| io::Error::other(text.clone()))?,
            length: field("content-length").map(|value| value.parse().unwrap()),
            closes: field("connection") == Some("close"),
        })
    }

    pub(crate) fn read(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Everything until the server closes.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }
}

/// What `openssl s_client` says about a handshake for `host`, its standard output and error.
pub(crate) fn openssl(address: SocketAddrV4, host: Option<&str>, root: &Path) -> String {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &address.to_string()])
        .arg("-CAfile")
        .arg(root)
        .args(["-verify_return_error", "-showcerts"]);
    match host {
        Some(host) => command.args(["-servername", host, "-verify_hostname", host]),
        None => command.arg("-noservername"),
    };
    let output = command.stdin(Stdio::null()).output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    said
}
