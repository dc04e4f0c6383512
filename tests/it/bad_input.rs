//! What an operator or a disk gets wrong: refused with a clear error, and nothing is lost by it.

use std::fs;
use std::process::Output;
use std::time::Duration;

use crate::support::edge::{Edge, Setup};
use crate::support::pebble::Pebble;
use crate::support::place::{Place, port};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait;

const ISSUED: &[&str] = &["outcome=\"issued\""];
const NAME: &str = "acme.example.com";

/// An edge that has one name and its certificate.
fn one_name(place: &Place, pebble: &Pebble, upstream: &Upstream) -> Setup {
    Setup::new(place)
        .ca(pebble)
        .upstream(upstream)
        .tenant("acme", &[NAME])
}

fn serves(edge: &Edge) {
    let answer = edge.get(&format!("https://{NAME}/")).answered();
    assert_eq!(answer.status, 200);
}

/// Starts, which must fail soon, and gives the exit code and all that was said.
#[track_caller]
fn refused(setup: &Setup) -> (i32, String) {
    let mut edge = setup.launch();
    let status = edge.process.wait_for_exit(wait::PATIENCE);
    let said = wait::until("it says why", || {
        let said = edge.process.lines().join("\n");
        (!said.is_empty()).then_some(said)
    });
    (status.code().unwrap(), said)
}

fn said(output: &Output) -> String {
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn every_mistake_of_a_file_is_told_at_once_with_its_place() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let broken = Setup::new(&place)
        .upstream(&upstream)
        .section("[telemetri]\naddress = 1")
        .section("[[tenant]]\nname = \"acme\"\ndomains = [\"not a name\"]")
        .section("[[route]]\nupstream = \"nowhere\"");
    broken.write();
    let output = broken.command(&["check", "--config", "proxy.toml"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for part in ["proxy.toml:", "telemetri", "not a name", "nowhere"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (code, text) = refused(&broken);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("telemetri"), "{text}");
    assert!(!broken.data().join("admin.sock").exists());
}

#[test]
fn the_configurations_that_we_ship_are_valid() {
    let place = Place::claim();
    let setup = Setup::new(&place);
    for file in ["proxy.toml", "deploy/container/proxy.toml"] {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let output = setup.command(&["check", "--config", &path]);
        assert!(output.status.success(), "{file}: {}", said(&output));
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    // Nobody makes directories there, not even root.
    let setup = Setup::new(&place)
        .upstream(&upstream)
        .private_ca(Duration::from_secs(86_400))
        .replace(
            &format!("{:?}", place.folder().join("data")),
            "\"/proc/vestibule\"",
        );
    let (code, text) = refused(&setup);
    assert_ne!(code, 0);
    assert!(text.contains("/proc/vestibule"), "{text}");
}

#[test]
fn a_corrupt_store_is_refused_and_left_as_it_is() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = one_name(&place, &pebble, &upstream);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    assert!(edge.stop().success());

    let database = database(&setup);
    let whole = fs::read(&database).unwrap();
    let mut corrupt = whole.clone();
    for byte in corrupt.iter_mut().take(8192).skip(16) {
        *byte ^= 0x5a;
    }
    fs::write(&database, &corrupt).unwrap();
    let (code, text) = refused(&setup);
    assert_ne!(code, 0);
    let name = database.file_name().unwrap().to_string_lossy().into_owned();
    assert!(text.contains(&name), "{text}");
    assert_eq!(fs::read(&database).unwrap(), corrupt, "not written over");

    fs::write(&database, &whole).unwrap();
    serves(&setup.start());
    assert_eq!(pebble.orders(), 1);
}

/// The largest file of the data directory that is an SQLite database.
fn database(setup: &Setup) -> std::path::PathBuf {
    fs::read_dir(setup.data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3")))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

#[test]
fn a_port_that_another_vestibule_holds_is_refused() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let first = one_name(&place, &pebble, &upstream).start();
    first.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);

    // Another edge in all but its address.
    let telemetry = place.at(port::TELEMETRY).to_string();
    let second = one_name(&place, &pebble, &upstream)
        .replace(&telemetry, &place.at(19_181).to_string())
        .replace("/data\"", "/second/data\"")
        .replace("/keys/", "/second/keys/")
        .named("second.toml");
    let (code, text) = refused(&second);
    assert_ne!(code, 0);
    let contested = [port::HTTP, port::HTTPS].map(|port| place.at(port).to_string());
    assert!(
        contested.iter().any(|address| text.contains(address)),
        "{text}"
    );
    for _ in 0..20 {
        serves(&first);
    }
}

#[test]
fn an_expired_certificate_is_replaced_at_the_next_start() {
    let place = Place::claim();
    let pebble = Pebble::start_with(
        &place,
        crate::support::pebble::Terms {
            lifetime: Duration::from_secs(8),
            ..Default::default()
        },
    );
    let upstream = Upstream::start(&place);
    let setup = one_name(&place, &pebble, &upstream);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    let old = Visitor::connect(edge.https(), NAME, edge.trusted())
        .unwrap()
        .certificate();
    edge.process.kill();
    wait::until("the certificate expires", || expired(&old).then_some(()));

    let edge = setup.start();
    let new = wait::until("a valid certificate is served", || {
        let visitor = Visitor::connect(edge.https(), NAME, edge.trusted()).ok()?;
        Some(visitor.certificate())
    });
    assert_ne!(new, old);
}

fn expired(certificate: &[u8]) -> bool {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).unwrap();
    !certificate.validity().is_valid()
}

#[test]
fn a_wrong_or_missing_key_stops_the_start_and_orders_nothing() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = one_name(&place, &pebble, &upstream);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    assert!(edge.stop().success());

    let key = place.folder().join("keys/edge.key");
    let kept = place.folder().join("kept.key");
    fs::rename(&key, &kept).unwrap();
    let (code, text) = refused(&setup);
    assert_ne!(code, 0);
    assert!(text.contains("edge.key"), "{text}");
    assert!(!key.exists(), "no new key is made for a store that has one");

    // The key of another installation.
    let stranger = Place::claim();
    let mut other = Setup::new(&stranger)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .start();
    assert!(other.stop().success());
    fs::copy(stranger.folder().join("keys/edge.key"), &key).unwrap();
    let (code, text) = refused(&setup);
    assert_ne!(code, 0);
    assert!(text.contains("edge.key"), "{text}");

    fs::rename(&kept, &key).unwrap();
    serves(&setup.start());
    assert_eq!(pebble.orders(), 1);
}

#[test]
fn a_full_disk_stops_new_names_and_nothing_else() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = one_name(&place, &pebble, &upstream)
        .asking(&upstream)
        .on_small_disk();
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);

    let filler = edge.inside(&setup.data().join("filler"));
    fill(&filler);
    upstream.allow("late.example.com");
    let late = || edge.get("https://late.example.com/").send();
    let refused = late().unwrap_err();
    assert_eq!(refused.exit, 35, "{}", refused.words);
    serves(&edge);
    assert_eq!(edge.health("/healthz"), Some(200));
    edge.wait_for_metric("proxy_store_failures_total", &["reason=\"full\""], 1.0);

    fs::remove_file(&filler).unwrap();
    let answer = wait::until("a new name works once there is room", || late().ok());
    assert_eq!(answer.status, 200);
}

#[test]
fn a_known_name_is_served_after_a_stop_and_a_start_on_a_full_disk() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = one_name(&place, &pebble, &upstream);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    assert!(edge.stop().success());
    // Whether the last connection took them along or not; a restored folder has none either.
    for made_anew in ["vestibule.db-shm", "vestibule.db-wal"] {
        let file = setup.data().join(made_anew);
        if file.exists() {
            fs::remove_file(file).unwrap();
        }
    }

    let full = setup.on_full_disk();
    let edge = full.start();
    serves(&edge);
    drop(edge);

    fs::remove_file(full.data().join("ballast")).unwrap();
    let (code, text) = refused(&full);
    assert_ne!(code, 0);
    assert!(text.contains("no room left on the disk"), "{text}");
}

/// Writes until there is no room.
fn fill(path: &std::path::Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
}

#[test]
fn a_directory_that_is_none_is_told_and_stops_nobody_who_is_known() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let mut edge = one_name(&place, &pebble, &upstream).start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    assert!(edge.stop().success());

    let nowhere = format!("{}ectory", pebble.directory());
    let wrong = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .replace(pebble.directory(), &nowhere)
        .tenant("acme", &[NAME, "new.example.com"]);
    let edge = wrong.start();
    serves(&edge);
    edge.wait_for_metric(
        "proxy_issuances_total",
        &["kind=\"first\"", "outcome=\"failed\""],
        1.0,
    );
    let show = [
        "domain",
        "show",
        "new.example.com",
        "--config",
        "proxy.toml",
    ];
    let shown = wrong.succeed(&show);
    assert!(
        shown.contains("status 404") && shown.contains("ca_"),
        "{shown}"
    );
    assert_eq!(pebble.orders(), 1);
}
