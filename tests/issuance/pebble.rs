//! Pebble on a loopback address of its own, with the name server that it asks; both end with their test.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use vestibule::base::clock::Timestamp;

/// Longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ACME: u16 = 14_000;
/// Where Pebble tells the root of what it issues.
pub(crate) const ACME_MANAGEMENT: u16 = 15_000;
/// Where its name server listens.
pub(crate) const DNS: u16 = 18_053;
const DNS_MANAGEMENT: u16 = 18_055;
/// Held open while a test uses its address, so that others take another.
const CLAIM: u16 = 17_998;
/// Where challenges are asked for.
pub(crate) const HTTP: u16 = 18_080;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address and a folder that nobody else uses.
pub(crate) struct Place {
    address: Ipv4Addr,
    folder: TempDir,
    _claim: TcpListener,
}

impl Place {
    pub(crate) fn claim() -> Self {
        loop {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = std::process::id().wrapping_mul(251).wrapping_add(step);
            let [_, a, b, c] = number.to_be_bytes();
            let address = Ipv4Addr::new(127, 16 | a, b, c.clamp(1, 254));
            if let Ok(claim) = TcpListener::bind((address, CLAIM)) {
                return Self {
                    address,
                    folder: tempfile::tempdir().unwrap(),
                    _claim: claim,
                };
            }
        }
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, port)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A child whose output is kept; killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Returns once it says `ready`.
    pub(crate) fn start(binary: &Path, args: &[String], ready: &str) -> Self {
        Self::start_in(&[], binary, args, ready)
    }

    fn start_in(environment: &[(&str, &str)], binary: &Path, args: &[String], ready: &str) -> Self {
        // The kernel ends it with this process, even where that is killed.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(binary)
            .args(args)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::default();
        collect(child.stdout.take().unwrap(), &lines);
        collect(child.stderr.take().unwrap(), &lines);
        let process = Self { child, lines };
        let deadline = Instant::now() + PATIENCE;
        while process.count(ready) == 0 {
            assert!(
                Instant::now() < deadline,
                "{} does not say {ready:?}: {:?}",
                binary.display(),
                process.lines.lock()
            );
            thread::park_timeout(Duration::from_millis(5));
        }
        process
    }

    fn count(&self, text: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).count()
    }
}

/// Where `scripts/pebble` puts its programs.
fn installed(program: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pebble/bin");
    let binary = folder.join(program);
    assert!(
        binary.exists(),
        "{} is missing: run scripts/pebble",
        binary.display()
    );
    binary
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn collect(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(line);
        }
    });
}

/// A running Pebble, for which every name resolves to its own address.
pub(crate) struct Pebble {
    pub(crate) process: Process,
    _dns: Process,
    directory: String,
    root: String,
    name_server: SocketAddrV4,
    dns_management: SocketAddrV4,
    management: SocketAddrV4,
}

impl Pebble {
    /// In strict mode, with its default rejection of good nonces; its certificates live for 90 days.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_issuing(place, Duration::from_secs(90 * 86_400))
    }

    /// The same, with certificates of this lifetime.
    pub(crate) fn start_issuing(place: &Place, lifetime: Duration) -> Self {
        let profiles = serde_json::json!({
            "default": { "description": "the usual", "validityPeriod": lifetime.as_secs() },
        });
        Self::start_with(place, &serde_json::json!({ "profiles": profiles }), &[])
    }

    /// One whose configuration and environment differ so from the usual; its server's identity is that of an earlier one
    /// in the same place.
    pub(crate) fn start_with(
        place: &Place,
        config: &serde_json::Value,
        environment: &[(&str, &str)],
    ) -> Self {
        let dns = [
            ("-defaultIPv4", place.address.to_string()),
            ("-defaultIPv6", String::new()),
            ("-dnsserver", place.at(DNS).to_string()),
            ("-management", place.at(DNS_MANAGEMENT).to_string()),
            ("-http01", String::new()),
            ("-https01", String::new()),
            ("-tlsalpn01", String::new()),
            ("-doh", String::new()),
        ];
        let dns: Vec<_> = dns
            .into_iter()
            .flat_map(|(a, b)| [a.to_owned(), b])
            .collect();
        let program = installed("pebble-challtestsrv");
        let dns = Process::start(&program, &dns, "Starting management server");
        let root = write_identity(place);
        let mut usual = serde_json::json!({
            "listenAddress": place.at(ACME),
            "managementListenAddress": place.at(ACME_MANAGEMENT),
            "certificate": place.folder().join("chain.pem"),
            "privateKey": place.folder().join("key.pem"),
            "httpPort": HTTP,
            "tlsPort": 18_443,
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": { "description": "the usual", "validityPeriod": 7_776_000 } },
        });
        for (key, value) in config.as_object().into_iter().flatten() {
            usual[key] = value.clone();
        }
        let config = serde_json::json!({ "pebble": usual });
        let config = place.write("pebble.json", &config.to_string());
        let args = [
            "-strict".to_owned(),
            "-config".to_owned(),
            config.display().to_string(),
            "-dnsserver".to_owned(),
            place.at(DNS).to_string(),
        ];
        let process = Process::start_in(
            environment,
            &installed("pebble"),
            &args,
            "ACME directory available at",
        );
        // It says so a moment before it listens.
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(place.at(ACME)).is_err() {
            assert!(Instant::now() < deadline, "Pebble does not listen");
            thread::park_timeout(Duration::from_millis(5));
        }
        Self {
            process,
            name_server: place.at(DNS),
            dns_management: place.at(DNS_MANAGEMENT),
            management: place.at(ACME_MANAGEMENT),
            _dns: dns,
            directory: format!("https://{}/dir", place.at(ACME)),
            root,
        }
    }

    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// What its own server's certificate chains to, PEM.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// The name server that it asks.
    pub(crate) const fn name_server(&self) -> SocketAddrV4 {
        self.name_server
    }

    /// Tells the name server something about a name: `add-caa`, `set-servfail`.
    pub(crate) fn tell_dns(&self, what: &str, body: &serde_json::Value) {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.dns_management).unwrap();
        let request = format!(
            "POST /{what} HTTP/1.1\r\nhost: dns\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Has it answer from now on that the certificate, DER, is to be renewed within this window (RFC 9773 §4.2).
    pub(crate) fn tell_window(&self, leaf: &[u8], (start, end): (Timestamp, Timestamp)) {
        let window = serde_json::json!({ "start": start.to_string(), "end": end.to_string() });
        let told = serde_json::json!({ "suggestedWindow": window });
        let body = serde_json::json!({
            "Certificate": pem::encode(&pem::Pem::new("CERTIFICATE", leaf)),
            "ARIResponse": told.to_string(),
        });
        self.manage("set-renewal-info/", &["--data", &body.to_string()]);
    }

    /// The root of what it issues, DER: of its default chain, or of the further ones that it offers.
    pub(crate) fn issuing_root(&self, number: usize) -> Vec<u8> {
        let page = self.manage(&format!("roots/{number}"), &[]);
        pem::parse(page).unwrap().into_contents()
    }

    /// Asks for a page of its management, with these arguments of curl; gives what it says.
    fn manage(&self, page: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body"])
            .args(["--noproxy", "*", "--max-time", "30", "--insecure"])
            .args(arguments)
            .arg(format!("https://{}/{page}", self.management))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}: {said}");
        output.stdout
    }

    /// Orders that it took in the place of certificates.
    pub(crate) fn replaced(&self) -> usize {
        self.process.count("is a replacement of")
    }

    pub(crate) fn orders(&self) -> usize {
        self.process.count("Added order")
    }

    pub(crate) fn issued(&self) -> usize {
        self.process.count("Issued certificate serial")
    }

    pub(crate) fn accounts(&self) -> usize {
        self.process.count("accounts in memory")
    }
}

/// Writes the key and chain of Pebble's own server; gives their root.
fn write_identity(place: &Place) -> String {
    if let Ok(root) = std::fs::read_to_string(place.folder().join("root.pem")) {
        return root;
    }
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name
        .push(DnType::CommonName, "root of the test");
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([place.address.to_string()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    place.write("chain.pem", &leaf.pem());
    place.write("key.pem", &key.serialize_pem());
    place.write("root.pem", &root_pem);
    root_pem
}
