//! Where private keys are, and where they never are: outside of their sealed form in the store, not in logs, metrics,
//! errors, answers, backups or core files.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use vestibule::base::clock::Clock;
use vestibule::base::task::Tasks;
use vestibule::certs::credential::sealed_as;
use vestibule::certs::vault::Vault;
use vestibule::keys;
use vestibule::model::TenantScope;
use vestibule::store::embedded::{Embedded, Settings};
use vestibule::store::record::{DataKeyRecord, KeyOwner};
use vestibule::store::{Deadline, PageRequest, Store};

use crate::imported::Elsewhere;
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

    /// Of a private key, PKCS #8 or SEC 1: its scalar is what matters, and is in every form of the key (RFC 5915 §3: an OCTET STRING
    /// of 32 bytes after the version 1).
    fn of_key(what: impl Into<String>, der: &[u8]) -> Self {
        let begin = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = find(der, &begin).unwrap() + begin.len();
        Self::new(what, &der[at..at + 32])
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

/// The key in a key-encryption key's file.
fn key_encryption_key(file: &Path) -> Vec<u8> {
    let text = fs::read_to_string(file).unwrap();
    let key = URL_SAFE_NO_PAD.decode(text.split(':').nth(1).unwrap());
    key.unwrap()
}

/// The private key in a PEM file, whatever else is there.
fn key_in(file: &Path) -> Vec<u8> {
    let pem = fs::read(file).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem).unwrap();
    key.secret_der().to_vec()
}

/// A data key, opened by hand as its documented form says: nothing gives one out.
fn data_key(kek: &[u8], record: &DataKeyRecord) -> Canary {
    let owner = record.owner.as_str();
    let number = record.id.to_be_bytes();
    let mut context = Vec::new();
    for field in [b"vestibule data key", &[1][..], owner.as_bytes(), &number] {
        context.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        context.extend(field);
    }
    let (nonce, sealed) = record.wrapped[9..].split_at(12);
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let kek = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, kek).unwrap());
    let mut key = sealed.to_vec();
    let key = kek.open_in_place(nonce, Aad::from(context), &mut key);
    Canary::new(format!("the data key of {owner:?}"), key.unwrap())
}

/// What is kept for a CA: a key, or an account with its key.
fn material(what: String, secret: &[u8]) -> Canary {
    let account: Result<serde_json::Value, _> = serde_json::from_slice(secret);
    match account {
        Ok(account) => {
            let key = account["key_pkcs8"].as_str().unwrap();
            Canary::of_key(what, &URL_SAFE_NO_PAD.decode(key).unwrap())
        }
        Err(_) => Canary::of_key(what, secret),
    }
}

/// The keys that an ended edge has sealed, opened as only the holder of the key-encryption key can.
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
            // A client's key is not kept.
            let Some(name) = record.facts.names.first() else {
                continue;
            };
            let owner = KeyOwner::Tenant(record.facts.tenant.clone());
            let sealed_as = sealed_as(name);
            let key = vault.open(&owner, &sealed_as, &record.sealed_key).await;
            let what = format!("the {} key of {name}", record.standing.origin.as_str());
            canaries.push(Canary::of_key(what, key.unwrap().expose()));
        }
        let materials = store.materials(by(), &first).await.unwrap().items;
        // Lists of revoked certificates are public.
        for record in materials.iter().filter(|record| !record.sealed.is_empty()) {
            let name = format!("ca:{}:{}", record.ca, record.slot);
            let secret = vault.open(&KeyOwner::Platform, &name, &record.sealed);
            let secret = secret.await.unwrap();
            canaries.push(material(name, secret.expose()));
        }
        let kek = key_encryption_key(key_file);
        let data_keys = store.data_keys(by(), &scope, &first).await.unwrap();
        canaries.extend(data_keys.items.iter().map(|record| data_key(&kek, record)));
        embedded.close(by()).await.unwrap();
        tasks.cancel();
        canaries
    })
}

/// What is brought, refused and given away by commands, and the files that hold it.
struct Carried {
    said: Vec<String>,
    files: Vec<PathBuf>,
    canaries: Vec<Canary>,
}

impl Carried {
    fn through(setup: &Setup, place: &Place) -> Self {
        let elsewhere = Elsewhere::new(place);
        let good = elsewhere.issue(NAMES[1], -5, 86_400);
        let expired = elsewhere.issue(NAMES[1], -20, -10);
        let nobodys = elsewhere.issue("nobody.example.com", -5, 86_400);
        let client = place.folder().join("client.pem");
        let import = ["certificate", "import", "--chain"];
        let out = client.to_str().unwrap();
        let calls = [
            (
                [&import[..], &[&good.chain, "--key", &good.key]].concat(),
                true,
            ),
            (
                [&import[..], &[&expired.chain, "--key", &expired.key]].concat(),
                false,
            ),
            // Taken for each other, and the key of another certificate.
            (
                [&import[..], &[&nobodys.key, "--key", &nobodys.chain]].concat(),
                false,
            ),
            (
                [&import[..], &[&good.chain, "--key", &nobodys.key]].concat(),
                false,
            ),
            (
                vec![
                    "certificate",
                    "issue-client",
                    "--tenant",
                    "acme",
                    "--name",
                    "robot",
                    "--out",
                    out,
                ],
                true,
            ),
        ];
        let mut said = Vec::new();
        for (words, succeeds) in calls {
            let output = setup.command(&words);
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert_eq!(output.status.success(), succeeds, "{words:?}: {text}");
            said.push(text);
        }
        let files = [good.key, expired.key, nobodys.key].map(PathBuf::from);
        let files: Vec<_> = files.into_iter().chain([client]).collect();
        let canaries = files.iter().map(|file| {
            let what = format!("the key in {}", file.display());
            Canary::of_key(what, &key_in(file))
        });
        Self {
            said,
            canaries: canaries.collect(),
            files,
        }
    }
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
    let carried = Carried::through(&setup, &place);
    said.extend(carried.said);
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
    let found: Vec<_> = canaries.iter().map(|canary| canary.what.as_str()).collect();
    for expected in [
        "the issued key of shop.example.com",
        "the imported key of www.example.com",
        ":account",
        "ca:own:root",
        "ca:own:issuing",
        "the data key of \"\"",
        "the data key of \"acme\"",
    ] {
        assert!(
            found.iter().any(|what| what.contains(expected)),
            "{expected}: {found:?}"
        );
    }
    let kek = key_encryption_key(&key_file);
    canaries.push(Canary::new("the key-encryption key", &kek));
    canaries.extend(carried.canaries);
    let kept = [&[key_file][..], &carried.files].concat();

    let mut searched: Vec<(String, Vec<u8>)> = said
        .into_iter()
        .map(|text| ("what was said".to_owned(), text.into_bytes()))
        .collect();
    for path in files(place.folder()) {
        if !kept.contains(&path) {
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
