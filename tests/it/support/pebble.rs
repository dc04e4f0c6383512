//! The CA: Pebble in strict mode, with its default rejection of good nonces and without its random sleeps, and the
//! name server through which it looks up whom to validate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::curl;
use super::place::{Place, port};
use super::process::{Process, command};

/// How this CA differs from the usual one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long its certificates live.
    pub(crate) lifetime: Duration,
    /// Whole seconds that it waits before it validates, at most: each time another number below.
    pub(crate) validation_delay: Duration,
    /// Further variables of its environment.
    pub(crate) environment: &'static [(&'static str, &'static str)],
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(90 * 86_400),
            validation_delay: Duration::ZERO,
            environment: &[],
        }
    }
}

/// A running CA. Every name in the world resolves to the story's own address for it.
pub(crate) struct Pebble {
    process: Process,
    _dns: Process,
    directory: String,
    server_root: PathBuf,
    issuing_root: PathBuf,
}

impl Pebble {
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, Terms::default())
    }

    pub(crate) fn start_with(place: &Place, terms: Terms) -> Self {
        let dns = start_dns(place);
        let identity = ServerIdentity::make(place, "acme");
        let config = place.write("pebble/config.json", &config(place, &identity, terms));
        let mut start = command(binary("pebble"));
        start
            .arg("-strict")
            .arg("-config")
            .arg(config)
            .args(["-dnsserver", &place.at(port::DNS).to_string()]);
        if terms.validation_delay == Duration::ZERO {
            start.env("PEBBLE_VA_NOSLEEP", "1");
        } else {
            let seconds = terms.validation_delay.as_secs().to_string();
            start.env("PEBBLE_VA_SLEEPTIME", seconds);
        }
        start.envs(terms.environment.iter().copied());
        let mut process = Process::start("pebble", &mut start);
        process.wait_for_line("ACME directory available at");

        let management = place.at(port::ACME_MANAGEMENT);
        let root = curl::get(&format!("https://{management}/roots/0"))
            .trusting(&identity.root)
            .until_answered();
        let issuing_root = place.write("pebble/issuing-root.pem", &root.body);
        Self {
            process,
            _dns: dns,
            directory: format!("https://{}/dir", place.at(port::ACME)),
            server_root: identity.root,
            issuing_root,
        }
    }

    /// The URL that clients begin with.
    pub(crate) fn directory(&self) -> &str {
        &self.directory
    }

    /// What to trust when speaking to the CA itself.
    pub(crate) fn server_root(&self) -> &Path {
        &self.server_root
    }

    /// What visitors trust: the root of the certificates that this CA issues.
    pub(crate) fn issuing_root(&self) -> &Path {
        &self.issuing_root
    }

    /// Orders that it was asked for and took.
    pub(crate) fn orders(&self) -> usize {
        self.process.count("Added order")
    }

    /// ACME requests that it heard.
    pub(crate) fn requests(&self) -> usize {
        self.process.count("-> calling handler()")
    }

    /// Accounts that it has made.
    pub(crate) fn accounts(&self) -> usize {
        self.process.count("accounts in memory")
    }

    /// Orders that it took in the place of certificates.
    pub(crate) fn replaced(&self) -> usize {
        self.process.count("is a replacement of")
    }

    /// Certificates that it issued.
    pub(crate) fn issued(&self) -> usize {
        self.process.count("Issued certificate serial")
    }

    /// Ends it; nobody answers at its address from now on.
    pub(crate) fn stop(&mut self) {
        self.process.kill();
    }
}

/// A certificate for the story's address, under a root of its own.
pub(crate) struct ServerIdentity {
    pub(crate) root: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl ServerIdentity {
    pub(crate) fn make(place: &Place, folder: &str) -> Self {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a leaf that is named like its issuer for self-signed.
        let name = format!("root of {folder}");
        root.distinguished_name.push(DnType::CommonName, name);
        let root_key = KeyPair::generate().unwrap();
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let issuer = Issuer::new(root, root_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([place.address().to_string()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        Self {
            root: place.write(&format!("{folder}/root.pem"), &root_pem),
            chain: place.write(&format!("{folder}/chain.pem"), &leaf.pem()),
            key: place.write(&format!("{folder}/key.pem"), &key.serialize_pem()),
        }
    }
}

fn start_dns(place: &Place) -> Process {
    let mut start = command(binary("pebble-challtestsrv"));
    start
        .args(["-defaultIPv4", &place.address().to_string()])
        .args(["-defaultIPv6", ""])
        .args(["-dnsserver", &place.at(port::DNS).to_string()])
        .args(["-management", &place.at(port::DNS_MANAGEMENT).to_string()])
        .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]);
    let mut process = Process::start("pebble-challtestsrv", &mut start);
    process.wait_for_line("Starting management server");
    process
}

fn config(place: &Place, identity: &ServerIdentity, terms: Terms) -> String {
    serde_json::json!({
        "pebble": {
            "listenAddress": place.at(port::ACME),
            "managementListenAddress": place.at(port::ACME_MANAGEMENT),
            "certificate": identity.chain,
            "privateKey": identity.key,
            "httpPort": port::HTTP,
            "tlsPort": port::HTTPS,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": {
                "default": { "description": "the usual", "validityPeriod": terms.lifetime.as_secs() },
            },
        },
    })
    .to_string()
}

fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/pebble/bin")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/pebble",
        path.display()
    );
    path
}
