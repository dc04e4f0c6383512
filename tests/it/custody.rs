//! Where private keys are, and where they never are: outside of their sealed form in the store, not in logs, metrics,
//! errors, answers, backups or core files.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use vestibule::base::clock::Clock;
use vestibule::base::task::Tasks;
use vestibule::certs::credential::sealed_as;
use vestibule::certs::vault::Vault;
use vestibule::keys;
use vestibule::model::TenantScope;
use vestibule::model::certificate::CaId;
use vestibule::store::embedded::{Embedded, Settings};
use vestibule::store::record::KeyOwner;
use vestibule::store::{Deadline, PageRequest, Store};

use crate::support::edge::Setup;
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::process::{Process, command};
use crate::support::upstream::Upstream;
use crate::support::wait::{self, PATIENCE};

const NAMES: [&str; 2] = ["shop.example.com", "www.example.com"];
const FILE: [&str; 2] = ["--config", "proxy.toml"];

/// Something that must not be found, in every form that somebody may write it.
struct Canary {
    what: String,
    raw: Vec<u8>,
    texts: Vec<String>,
}

impl Canary {
    /// Of random bytes: a private scalar, a symmetric key.
    fn new(what: impl Into<String>, raw: &[u8]) -> Self {
        assert!(raw.len() >= 32, "too short to be found by chance");
        let hex = raw.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let spaced: Vec<String> = raw.iter().map(|byte| byte.to_string()).collect();
        let mut texts = vec![hex.to_uppercase(), hex, spaced.join(", "), spaced.join(",")];
        // Within other content base64 begins at any of three places; what depends on the neighbours is left out.
        for skip in 0..3 {
            let whole = &raw[skip..];
            let whole = &whole[..whole.len() / 3 * 3];
            texts.push(STANDARD_NO_PAD.encode(whole));
            texts.push(URL_SAFE_NO_PAD.encode(whole));
        }
        Self {
            what: what.into(),
            raw: raw.to_vec(),
            texts,
        }
    }

    /// Of a private key, PKCS #8: its scalar is what matters, and is in every form of the key (RFC 5915 §3: an OCTET STRING
    /// of 32 bytes after the version 1).
    fn of_key(what: impl Into<String>, pkcs8: &[u8]) -> Self {
        let begin = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = find(pkcs8, &begin).unwrap() + begin.len();
        Self::new(what, &pkcs8[at..at + 32])
    }

    fn is_in(&self, content: &[u8]) -> bool {
        if find(content, &self.raw).is_some() {
            return true;
        }
        // PEM is cut into lines.
        let joined: Vec<u8> = content
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\n' | b'\r'))
            .collect();
        self.texts
            .iter()
            .any(|text| find(&joined, text.as_bytes()).is_some())
    }
}

fn find(content: &[u8], part: &[u8]) -> Option<usize> {
    content
        .windows(part.len())
        .position(|window| window == part)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.is_file() => found.push(path),
            false => {}
        }
    }
    found
}

/// The private keys that an ended edge has sealed, opened as only the holder of the key-encryption key can.
fn sealed_keys(setup: &Setup, key_file: &Path) -> Vec<Canary> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks = Tasks::new();
        let by = || Deadline::after(PATIENCE);
        let folder = Settings::in_folder(setup.data());
        let opened = Embedded::open(folder, Clock::system(), &tasks).await;
        let embedded = opened.unwrap();
        let store: Arc<dyn Store> = Arc::new(embedded.clone());
        let settings = keys::Settings {
            key_file: key_file.to_owned(),
        };
        let vault = Vault::unlock(Arc::clone(&store), &settings).await.unwrap();
        let scope = TenantScope::operator();
        let first = PageRequest::first();
        let page = store.certificates(by(), &scope, None, &first);
        let mut canaries = Vec::new();
        for record in page.await.unwrap().items {
            let owner = KeyOwner::Tenant(record.facts.tenant.clone());
            let name = &record.facts.names[0];
            let sealed_as = sealed_as(name);
            let key = vault.open(&owner, &sealed_as, &record.sealed_key).await;
            let key = key.unwrap();
            canaries.push(Canary::of_key(format!("the key of {name}"), key.expose()));
        }
        for (ca, slot) in [("own", "root"), ("own", "issuing")] {
            let id = CaId::new(ca);
            let record = store.material(by(), &id, slot).await.unwrap().unwrap();
            let name = format!("ca:{ca}:{slot}");
            let key = vault.open(&KeyOwner::Platform, &name, &record.sealed);
            let key = key.await.unwrap();
            canaries.push(Canary::of_key(format!("the {slot} of {ca}"), key.expose()));
        }
        embedded.close(by()).await.unwrap();
        tasks.cancel();
        canaries
    })
}

#[test]
fn private_keys_are_nowhere_but_sealed_in_the_store() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .section("[[ca]]\nname = \"own\"\nkind = \"private\"")
        .upstream(&upstream)
        .tenant("acme", &NAMES)
        .replace("[telemetry]", "[telemetry]\nlog_filter = \"trace\"");
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", &["outcome=\"issued\""], 2.0);
    let mut said = Vec::new();
    for url in ["https://shop.example.com/", "https://nobody.example.com/"] {
        // One is served and one refused; what is said of either is looked at.
        said.push(format!("{:?}", edge.get(url).send()));
    }
    for page in ["/metrics", "/readyz", "/healthz"] {
        said.push(edge.page(page).body);
    }
    for words in [
        &["status"][..],
        &["domain", "list", "--json"],
        &["domain", "show", NAMES[0]],
        &["certificate", "list", "--json"],
        &["job", "list", "--json"],
        &["event", "list", "--json"],
        &["event", "list", "--tenant", "acme", "--json"],
        &["doctor"],
        &["backup", "backup.db"],
    ] {
        let words: Vec<&str> = words.iter().copied().chain(FILE).collect();
        let output = setup.command(&words);
        said.push(String::from_utf8_lossy(&output.stdout).into_owned());
        said.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    assert!(edge.stop().success());
    said.push(edge.process.lines().join("\n"));

    let key_file = place.folder().join("keys/edge.key");
    let mut canaries = sealed_keys(&setup, &key_file);
    assert_eq!(canaries.len(), 4, "two leaves, a root and an issuing CA");
    let text = fs::read_to_string(&key_file).unwrap();
    let key = URL_SAFE_NO_PAD.decode(text.split(':').nth(1).unwrap());
    canaries.push(Canary::new("the key-encryption key", &key.unwrap()));

    let mut searched: Vec<(String, Vec<u8>)> = said
        .into_iter()
        .map(|text| ("what was said".to_owned(), text.into_bytes()))
        .collect();
    for path in files(place.folder()) {
        if path != key_file {
            let content = fs::read(&path).unwrap();
            searched.push((path.display().to_string(), content));
        }
    }
    let names: Vec<&str> = searched.iter().map(|(name, _)| name.as_str()).collect();
    for expected in ["backup.db", "data/vestibule.db"] {
        assert!(
            names.iter().any(|name| name.ends_with(expected)),
            "{names:?}"
        );
    }
    for canary in &canaries {
        for (place, content) in &searched {
            assert!(!canary.is_in(content), "{} is in {place}", canary.what);
        }
    }
}

#[test]
fn a_canary_is_found_in_whatever_form_it_is_written() {
    let key = rcgen::KeyPair::generate().unwrap();
    let canary = Canary::of_key("a key", &key.serialize_der());
    let der = key.serialize_der();
    let scalar = canary.raw.clone();
    for shift in ["", "x", "xy"] {
        let text = format!("{shift}{}", String::from_utf8_lossy(&scalar));
        assert!(!text.is_empty());
        let shifted = [shift.as_bytes(), &der].concat();
        assert!(canary.is_in(&shifted), "raw");
        assert!(canary.is_in(STANDARD_NO_PAD.encode(&shifted).as_bytes()));
        assert!(canary.is_in(URL_SAFE_NO_PAD.encode(&shifted).as_bytes()));
    }
    assert!(canary.is_in(key.serialize_pem().as_bytes()), "PEM");
    assert!(canary.is_in(format!("{scalar:?}").as_bytes()), "Debug");
    assert!(canary.is_in(format!("{scalar:02x?}").replace(", ", "").as_bytes()));
    let other = rcgen::KeyPair::generate().unwrap();
    assert!(!canary.is_in(other.serialize_pem().as_bytes()));
}

#[test]
fn a_crash_writes_no_core_file_even_where_the_machine_would() {
    let most = Rlimit {
        current: getrlimit(Resource::Core).maximum,
        maximum: getrlimit(Resource::Core).maximum,
    };
    // Children inherit it: what keeps the program from writing one is the program.
    setrlimit(Resource::Core, most).unwrap();
    let place = Place::claim();
    let mut other = command("sleep");
    other.arg("60").current_dir(place.folder());
    let mut other = Process::start("sleep", &mut other);
    let mut edge = Setup::new(&place)
        .private_ca(Duration::from_secs(3600))
        .start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", edge.process.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file"));
    let words: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "soft and hard: {core:?}");

    // The first one ends at std's own handler, which takes itself away and waits for the fault to come again.
    let ended = wait::until("it crashes", || {
        edge.process.signal(Signal::SEGV);
        edge.process.exited()
    });
    assert_eq!(ended.signal(), Some(Signal::SEGV.as_raw()));
    assert!(!ended.core_dumped());
    let cores: Vec<PathBuf> = files(place.folder())
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains("core"))
        .collect();
    assert!(cores.is_empty(), "{cores:?}");

    other.signal(Signal::SEGV);
    let dumped = other.wait_for_exit(PATIENCE).core_dumped();
    eprintln!("another program with the same limits dumped its memory here: {dumped}");
}
