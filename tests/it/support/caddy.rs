//! Caddy, as Debian ships it: issues on demand, in the place that the edge takes over afterwards.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::curl;
use super::pebble::Pebble;
use super::place::{Place, port};
use super::process::{Process, command};
use super::upstream::Upstream;
use super::wait;

/// A running Caddy, on the ports that the edge will have.
pub(crate) struct Caddy {
    process: Process,
    folder: PathBuf,
    https: std::net::SocketAddrV4,
    trusted: PathBuf,
}

impl Caddy {
    /// Issues for every name that `upstream` allows.
    pub(crate) fn start(place: &Place, pebble: &Pebble, upstream: &Upstream) -> Self {
        let folder = place.folder().join("caddy");
        let config = format!(
            "{{\n admin off\n storage file_system {folder:?}\n acme_ca {directory}\n acme_ca_root {root:?}\n\
             email ops@example.com\n http_port {http}\n https_port {https}\n default_bind {address}\n\
             on_demand_tls {{\n ask http://{upstream}/allow\n }}\n}}\n\
             https:// {{\n tls {{\n on_demand\n }}\n respond \"caddy\"\n}}\n",
            directory = pebble.directory(),
            root = pebble.server_root(),
            http = port::HTTP,
            https = port::HTTPS,
            address = place.address(),
            upstream = upstream.address(),
        );
        place.write("caddy/Caddyfile", &config);
        let mut start = command(binary());
        start
            .args(["run", "--config"])
            .arg(folder.join("Caddyfile"))
            .env("HOME", &folder)
            .env("XDG_DATA_HOME", &folder);
        let mut process = Process::start("caddy", &mut start);
        process.wait_for_line("serving initial configuration");
        Self {
            process,
            folder,
            https: place.at(port::HTTPS),
            trusted: pebble.issuing_root().to_owned(),
        }
    }

    /// Visits a name, which has Caddy obtain its certificate.
    pub(crate) fn visit(&self, name: &str) {
        let url = format!("https://{name}/");
        let answer = wait::until("caddy has a certificate", || {
            let request = curl::get(&url).connecting_to(self.https);
            request.trusting(&self.trusted).send().ok()
        });
        assert_eq!(answer.body, "caddy");
    }

    /// Ends it, and gives the file of `caddy storage export`.
    pub(crate) fn export(mut self) -> PathBuf {
        self.process.kill();
        let file = self.folder.join("export.tar");
        let exported = command(binary())
            .args(["storage", "export", "--config"])
            .arg(self.folder.join("Caddyfile"))
            .arg("--output")
            .arg(&file)
            .env("HOME", &self.folder)
            .env("XDG_DATA_HOME", &self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(exported.status.success(), "{exported:?}");
        file
    }
}

fn binary() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/caddy/bin/caddy");
    assert!(
        path.exists(),
        "{} is missing: run scripts/caddy",
        path.display()
    );
    path
}
