//! The program under test: the real `vestibule run`, with a `proxy.toml` of the story's own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use super::curl::{self, Answer, Curl};
use super::metrics::Metrics;
use super::pebble::Pebble;
use super::place::{Place, port};
use super::process::{Process, command};
use super::upstream::Upstream;
use super::wait;
use super::wire::Wire;

/// A `proxy.toml` being written, and what clients of its edge trust.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    folder: PathBuf,
    address: std::net::Ipv4Addr,
    sections: String,
    trusted: Option<PathBuf>,
    file: &'static str,
    disk: Disk,
    environment: Vec<(&'static str, String)>,
}

/// Where the data directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// In the story's folder.
    Usual,
    /// On a file system of its own, of [`SMALL_DISK`].
    Small,
    /// The same, with what the data directory holds already, and without room for more.
    Full,
}

/// A declared name gets its certificate without a visitor.
pub(crate) const AT_ONCE: &str = "obtain = \"at-once\"";

/// Puts back what the data directory held before it was mounted over, and writes until there is no room.
const FILLED: &str =
    r#"cp -a "$0.kept/." "$0" && { cat /dev/zero > "$0/filler" 2> /dev/null; true; } &&"#;

/// Room for the store and a few certificates.
const SMALL_DISK: &str = "8m";

impl Setup {
    /// Listening on the story's address, its data and keys in the story's folder, without a CA, upstream or tenant.
    pub(crate) fn new(place: &Place) -> Self {
        let folder = place.folder().to_owned();
        let mut sections = String::new();
        for (section, lines) in [
            (
                "listen",
                format!(
                    "http = [\"{}\"]\nhttps = [\"{}\"]\nworkers = 2\ndrain_delay = \"0s\"",
                    place.at(port::HTTP),
                    place.at(port::HTTPS)
                ),
            ),
            (
                "edge",
                format!("http_port = {}\nhttps_port = {}", port::HTTP, port::HTTPS),
            ),
            // The names of stories are in no DNS, unless a story says so.
            ("preflight", "enabled = false".to_owned()),
            (
                "telemetry",
                format!(
                    "address = \"{}\"\nlog_format = \"json\"",
                    place.at(port::TELEMETRY)
                ),
            ),
            ("certificates", AT_ONCE.to_owned()),
            ("store", format!("data = {:?}", folder.join("data"))),
            ("keys", format!("file = {:?}", folder.join("keys/edge.key"))),
        ] {
            writeln!(sections, "[{section}]\n{lines}\n").unwrap();
        }
        Self {
            folder,
            address: place.address(),
            sections,
            trusted: None,
            file: "proxy.toml",
            disk: Disk::Usual,
            environment: Vec::new(),
        }
    }

    /// Orders from this CA.
    pub(crate) fn ca(mut self, pebble: &Pebble) -> Self {
        self.trusted = Some(pebble.issuing_root().to_owned());
        self.acme(pebble.directory(), pebble.server_root())
    }

    /// Asks the name server that the CA asks, and checks names before they are ordered.
    pub(crate) fn checking(self, place: &Place) -> Self {
        let resolvers = format!(
            "[dns]\nresolvers = [\"{}\"]\ndeadline = \"2s\"",
            place.at(port::DNS)
        );
        // An edge that does not know itself holds nothing against a name.
        let described = format!("[edge]\nipv4 = [\"{}\"]", place.address());
        self.section(&resolvers)
            .replace("[edge]", &described)
            .replace(
                "[preflight]\nenabled = false",
                "[preflight]\nprivate_addresses = true\nrecheck = \"1s\"",
            )
    }

    /// Orders from this CA by way of a wire.
    pub(crate) fn ca_at(mut self, pebble: &Pebble, wire: &Wire) -> Self {
        self.trusted = Some(pebble.issuing_root().to_owned());
        self.acme(wire.directory(), wire.root())
    }

    /// Orders from an ACME CA that may not be one.
    pub(crate) fn acme(self, directory: &str, root: &Path) -> Self {
        self.section(&format!(
            "[[ca]]\nname = \"test\"\nkind = \"acme\"\ndirectory = \"{directory}\"\n\
             contact = [\"operations@example.com\"]\nterms_agreed = true\nroot = {root:?}"
        ))
    }

    /// Issues by itself, certificates of this lifetime.
    pub(crate) fn private_ca(mut self, lifetime: Duration) -> Self {
        self.trusted = Some(self.data().join("own-root.pem"));
        let seconds = lifetime.as_secs();
        self.section(&format!(
            "[[ca]]\nname = \"own\"\nkind = \"private\"\nlifetime = \"{seconds}s\""
        ))
    }

    /// Every route leads to `upstream`.
    pub(crate) fn upstream(self, upstream: &Upstream) -> Self {
        self.upstream_at(&upstream.address().to_string())
    }

    /// Every route leads to an address that may not answer.
    pub(crate) fn upstream_at(self, address: &str) -> Self {
        self.section(&format!(
            "[[upstream]]\nname = \"core\"\naddresses = [\"{address}\"]\n\n[[route]]\nupstream = \"core\""
        ))
    }

    /// Unknown names are asked about.
    pub(crate) fn asking(self, upstream: &Upstream) -> Self {
        self.section(&format!("[on_demand]\nask = \"{}\"", upstream.ask_url()))
    }

    pub(crate) fn tenant(self, name: &str, domains: &[&str]) -> Self {
        self.section(&tenant(name, domains))
    }

    /// Reads further files.
    pub(crate) fn include(mut self, pattern: &str) -> Self {
        self.sections
            .insert_str(0, &format!("include = [\"{pattern}\"]\n\n"));
        self
    }

    /// Further text of `proxy.toml`.
    pub(crate) fn section(mut self, text: &str) -> Self {
        writeln!(self.sections, "{text}\n").unwrap();
        self
    }

    /// Replaces text that is there.
    #[track_caller]
    pub(crate) fn replace(mut self, old: &str, new: &str) -> Self {
        assert!(
            self.sections.contains(old),
            "no {old:?} in {}",
            self.sections
        );
        self.sections = self.sections.replace(old, new);
        self
    }

    /// Writes the configuration under another name.
    pub(crate) fn named(mut self, file: &'static str) -> Self {
        self.file = file;
        self
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Gives the data directory a small file system of its own, in a mount namespace that ends with the program.
    pub(crate) fn on_small_disk(mut self) -> Self {
        self.disk = Disk::Small;
        self
    }

    /// Gives the data directory, as a run before left it, a small file system of its own that is full.
    pub(crate) fn on_full_disk(mut self) -> Self {
        self.disk = Disk::Full;
        self
    }

    /// What visitors trust.
    pub(crate) fn trusted(&self) -> &Path {
        self.trusted.as_deref().unwrap()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join(self.file)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Writes `proxy.toml`, for the next start or reload.
    pub(crate) fn write(&self) {
        fs::write(self.config(), &self.sections).unwrap();
    }

    /// Starts the program and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&self) -> Edge {
        let mut edge = self.launch();
        edge.wait_until_ready();
        edge
    }

    /// Starts the program and does not wait.
    pub(crate) fn launch(&self) -> Edge {
        self.write();
        let mut start = match self.disk {
            Disk::Usual => command(env!("CARGO_BIN_EXE_vestibule")),
            Disk::Small => self.on_a_mount(""),
            Disk::Full => self.on_a_mount(FILLED),
        };
        start
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder);
        Edge {
            process: Process::start("vestibule", &mut start),
            setup: self.clone(),
        }
    }

    /// The program behind a mount of its own, which needs root or user namespaces.
    fn on_a_mount(&self, then: &str) -> std::process::Command {
        let mut start = command("unshare");
        if !rustix::process::geteuid().is_root() {
            start.args(["--user", "--map-root-user"]);
        }
        let script = format!(
            "mkdir -p \"$0\" && rm -rf \"$0.kept\" && cp -a \"$0\" \"$0.kept\" && \
             mount -t tmpfs -o size={SMALL_DISK},mode=700 none \"$0\" && {then} exec \"$@\""
        );
        start
            .args(["--mount", "--", "sh", "-c", &script])
            .arg(self.data())
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .arg(env!("CARGO_BIN_EXE_vestibule"));
        start
    }

    /// Another command of the program, such as `check`, run to its end.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Output {
        command(env!("CARGO_BIN_EXE_vestibule"))
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .unwrap()
    }

    /// Another command of the program, which must succeed; what it says.
    #[track_caller]
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }
}

/// `[[tenant]]` as `proxy.toml` and its included files have it.
pub(crate) fn tenant(name: &str, domains: &[&str]) -> String {
    format!("[[tenant]]\nname = \"{name}\"\ndomains = {domains:?}")
}

/// A running edge.
pub(crate) struct Edge {
    pub(crate) process: Process,
    setup: Setup,
}

impl Edge {
    /// A request for `https://HOST/PATH` through this edge, by a client that trusts the CA's root.
    pub(crate) fn get(&self, url: &str) -> Curl {
        let request = curl::get(url).connecting_to(self.https());
        match &self.setup.trusted {
            Some(root) => request.trusting(root),
            None => request,
        }
    }

    /// A request for `http://HOST/PATH` on the plain port.
    pub(crate) fn get_plain(&self, url: &str) -> Curl {
        curl::get(url).connecting_to(self.http())
    }

    /// What visitors of this edge trust.
    pub(crate) fn trusted(&self) -> &Path {
        self.setup.trusted()
    }

    pub(crate) fn https(&self) -> std::net::SocketAddrV4 {
        self.at(port::HTTPS)
    }

    pub(crate) fn http(&self) -> std::net::SocketAddrV4 {
        self.at(port::HTTP)
    }

    /// A path as the program sees it.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.process.id());
        Path::new(&root).join(path.strip_prefix("/").unwrap())
    }

    fn at(&self, port: u16) -> std::net::SocketAddrV4 {
        std::net::SocketAddrV4::new(self.setup.address, port)
    }

    /// The status of a telemetry page, or nothing while nobody answers.
    pub(crate) fn health(&self, page: &str) -> Option<u16> {
        let url = format!("http://{}{page}", self.at(port::TELEMETRY));
        curl::get(&url).send().ok().map(|answer| answer.status)
    }

    /// A telemetry page.
    pub(crate) fn page(&self, page: &str) -> Answer {
        curl::get(&format!("http://{}{page}", self.at(port::TELEMETRY))).answered()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.page("/metrics").body)
    }

    /// Waits until a metric, summed over the series that hold all `labels`, is at least `least`.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[&str], least: f64) {
        let what = format!("{name}{labels:?} reaches {least}");
        wait::until(&what, || {
            (self.metrics().sum(name, labels) >= least).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn wait_until_ready(&mut self) {
        wait::until("the edge is ready", || {
            if let Some(status) = self.process.exited() {
                panic!("vestibule ended: {status}");
            }
            (self.health("/readyz") == Some(200)).then_some(())
        });
    }

    /// Replaces `proxy.toml` and asks for a reload.
    pub(crate) fn reload(&self, setup: &Setup) {
        setup.write();
        self.process.signal(Signal::HUP);
    }

    /// Asks it to end and gives how it did.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait_for_exit(wait::PATIENCE)
    }
}
