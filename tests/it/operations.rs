//! What an operator does to a running edge: reload it, drain it, and read its health.

use std::fmt::Write as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::edge::{Setup, tenant};
use crate::support::pebble::Pebble;
use crate::support::place::Place;
use crate::support::upstream::{PIECE, PIECES, Upstream};
use crate::support::visitor::Visitor;
use crate::support::wait;

const ISSUED: &[&str] = &["outcome=\"issued\""];
const APPLIED: &[&str] = &["outcome=\"success\""];
const REFUSED: &[&str] = &["outcome=\"failure\""];

#[test]
fn a_reload_adds_a_tenant_and_keeps_connections() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"]);
    let edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    let mut visitor = Visitor::connect(edge.https(), "acme.example.com", edge.trusted()).unwrap();
    assert_eq!(visitor.get("/").unwrap().0.status, 200);

    edge.reload(&setup.clone().tenant("globex", &["globex.example.com"]));
    edge.wait_for_metric("proxy_reloads_total", APPLIED, 1.0);
    let (head, _) = visitor.get("/").unwrap();
    assert_eq!((head.status, head.closes), (200, false));
    let globex = edge.get("https://globex.example.com/").answered();
    assert_eq!(globex.status, 200);

    // And away again: the name is unknown from now on.
    edge.reload(&setup);
    edge.wait_for_metric("proxy_reloads_total", APPLIED, 2.0);
    wait::until("the removed name is refused", || {
        edge.get("https://globex.example.com/").send().err()
    });
    assert_eq!(visitor.get("/").unwrap().0.status, 200);
}

#[test]
fn a_broken_reload_changes_nothing() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"]);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);

    edge.reload(&setup.clone().section("[listn]\nhttp = []"));
    edge.wait_for_metric("proxy_reloads_total", REFUSED, 1.0);
    edge.process.wait_for_line("did you mean");
    assert_eq!(edge.get("https://acme.example.com/").answered().status, 200);
    assert_eq!(edge.health("/readyz"), Some(200));

    edge.reload(&setup);
    edge.wait_for_metric("proxy_reloads_total", APPLIED, 1.0);
    assert_eq!(edge.get("https://acme.example.com/").answered().status, 200);
}

#[test]
fn a_start_with_a_broken_file_serves_the_last_good_one_and_says_so() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"]);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    assert!(edge.stop().success());

    let broken = setup.section("[[tenant]]\nname = \"UPPER CASE\"");
    let edge = broken.launch();
    let answer = edge.get("https://acme.example.com/").until_answered();
    assert_eq!(answer.status, 200);
    let ready = edge.page("/readyz");
    assert!(ready.body.contains("last good"), "{}", ready.body);
    let state = edge
        .metrics()
        .sum("proxy_config_state", &["state=\"last_good\""]);
    assert_eq!(state, 1.0);
}

#[test]
fn one_bad_tenant_file_of_a_hundred_leaves_ninety_nine_serving() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .include("tenants.d/*.toml")
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream);
    for number in 0..100 {
        let domain = format!("t{number}.example.com");
        let mut text = tenant(&format!("tenant-{number}"), &[&domain]);
        if number == 41 {
            writeln!(text, "\ndomans = []").unwrap();
        }
        place.write(&format!("tenants.d/{number}.toml"), &text);
    }
    let mut edge = setup.start();
    edge.process.wait_for_line("41.toml");
    for number in [0, 40, 42, 99] {
        let url = format!("https://t{number}.example.com/");
        let answer = edge.get(&url).answered();
        assert_eq!(answer.status, 200, "{url}");
    }
    let url = "https://t41.example.com/";
    let bad = edge.get(url).send().unwrap_err();
    assert_eq!(bad.exit, 35, "{}", bad.words);
    assert_eq!(edge.metrics().sum("proxy_domains", &[]), 99.0);

    // At a reload the repaired file joins, and the next broken one keeps what it had.
    place.write(
        "tenants.d/41.toml",
        &tenant("tenant-41", &["t41.example.com"]),
    );
    place.write("tenants.d/42.toml", "[[tenant]\n");
    edge.process.signal(Signal::HUP);
    edge.wait_for_metric("proxy_domains", &[], 100.0);
    for number in [41, 42] {
        let url = format!("https://t{number}.example.com/");
        let answer = edge.get(&url).answered();
        assert_eq!(answer.status, 200, "{url}");
    }
}

#[test]
fn a_drain_finishes_a_running_download_and_exits_0() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"]);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);

    let mut download = Visitor::connect(edge.https(), "acme.example.com", edge.trusted()).unwrap();
    download.ask("/download", "").unwrap();
    assert_eq!(download.head().unwrap().status, 200);
    upstream.wait_for_held(1);
    let mut idle = Visitor::connect(edge.https(), "acme.example.com", edge.trusted()).unwrap();
    assert_eq!(idle.get("/").unwrap().0.status, 200);

    edge.process.signal(Signal::TERM);
    wait::until("a draining edge takes no new connections", || {
        edge.get("https://acme.example.com/").send().err()
    });
    // A client that sends its next request just now loses no race: it is answered, and told to go.
    let (head, _) = idle.get("/").unwrap();
    assert_eq!((head.status, head.closes), (200, true));
    assert!(edge.process.exited().is_none(), "a download is running");

    upstream.release();
    let bytes = download.read_to_end().unwrap();
    let received = bytes.iter().filter(|byte| **byte == b'v').count();
    assert_eq!(received, PIECE * PIECES);
    assert!(edge.process.wait_for_exit(wait::PATIENCE).success());
}

#[test]
fn a_draining_edge_says_so_before_it_refuses_anyone() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"])
        .replace("drain_delay = \"0s\"", "drain_delay = \"3s\"");
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    edge.process.signal(Signal::TERM);
    wait::until("/readyz answers 503", || {
        (edge.health("/readyz") == Some(503)).then_some(())
    });
    let answer = edge.get("https://acme.example.com/").answered();
    assert_eq!(answer.status, 200, "new connections are still served");
    assert_eq!(edge.health("/healthz"), Some(200));
    assert!(edge.process.wait_for_exit(wait::PATIENCE).success());
}

#[test]
fn a_drain_finishes_an_http_2_download_too() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let upstream = Upstream::start(&place);
    let setup = Setup::new(&place)
        .ca(&pebble)
        .upstream(&upstream)
        .tenant("acme", &["acme.example.com"]);
    let mut edge = setup.start();
    edge.wait_for_metric("proxy_issuances_total", ISSUED, 1.0);
    let download = edge
        .get("https://acme.example.com/download")
        .with(["--http2", "--fail"])
        .in_background();
    upstream.wait_for_held(1);
    edge.process.signal(Signal::TERM);
    wait::until("a draining edge takes no new connections", || {
        edge.get("https://acme.example.com/").send().err()
    });
    upstream.release();
    let answer = download.answered();
    assert_eq!(answer.version, "HTTP/2");
    assert_eq!(answer.body.len(), PIECE * PIECES);
    assert!(edge.process.wait_for_exit(wait::PATIENCE).success());
}

#[test]
fn the_service_manager_learns_when_the_edge_is_ready_and_when_it_stops() {
    let place = Place::claim();
    let upstream = Upstream::start(&place);
    let path = place.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut edge = Setup::new(&place)
        .private_ca(Duration::from_secs(86_400))
        .upstream(&upstream)
        .environment("NOTIFY_SOCKET", path.to_str().unwrap())
        .launch();
    let ready = told();
    assert!(ready.contains("READY=1"), "{ready}");
    assert_eq!(edge.health("/readyz"), Some(200), "ready means serving");
    edge.process.signal(Signal::TERM);
    let stopping = told();
    assert!(stopping.contains("STOPPING=1"), "{stopping}");
    assert!(edge.process.wait_for_exit(wait::PATIENCE).success());
}
