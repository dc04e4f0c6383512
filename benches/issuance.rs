//! The first visit of a name that has no certificate yet, as its visitor waits for it: from the TCP connection over the
//! handshake, during which the certificate is obtained, to the first byte of the core application's answer.
//!
//! `scripts/pebble` once, then `cargo bench --bench issuance`. The program is the real `vestibule run`, which cargo
//! builds with the benchmark's own profile, on a data directory of its own; the CA is Pebble in strict mode, with its
//! default rejection of good nonces and without its random sleeps, which validates against the program's own ports; the
//! checks before an order ask the CA's name server. Everything runs on this machine over loopback, so a public CA's network and queues come on top.
//!
//! - `declared`: a tenant's domain of `proxy.toml`.
//! - `asked`: a name that nobody declared; the permission hook allows it, it is registered, then issued.
//! - `warm`: a full handshake and request of a name that has its certificate, to subtract.
//!
//! Then crowds, see `crowd`; `cargo bench --bench issuance crowd` for them alone.
//!
//! Criterion tells means; the median of all visits of a case, those of the warm-up too, follows on a line of its own.
//! To hold: at most 150 ms for a first visit. On two cores of an Intel Xeon that others kept busy (load 6), the medians
//! were 34 ms declared, 36 ms asked and 0.7 ms warm; with load 11, 39, 43 and 0.7 ms.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot be set up must fail, and tells what it measured"
)]

#[expect(dead_code, reason = "the tests of issuance ask more of it")]
#[path = "../tests/issuance/pebble.rs"]
mod pebble;

#[path = "issuance/crowd.rs"]
mod crowd;

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use vestibule::base::clock::monotonic;

use pebble::{ACME_MANAGEMENT, DNS, HTTP, Pebble, Place, Process};

const HTTPS: u16 = 18_443;
const TELEMETRY: u16 = 19_180;
const CORE: u16 = 13_000;
/// More than are visited in the time that is measured.
const DECLARED: usize = 4_000;
/// Longer than any visit takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running edge with its CA, and what its visitors trust.
struct Edge {
    authority: Authority,
    _program: Process,
    https: SocketAddrV4,
    trust: Arc<ClientConfig>,
}

impl Edge {
    fn start() -> Self {
        let place = Place::claim();
        let pebble = Pebble::start(&place);
        let authority = Authority { place, pebble };
        let place = &authority.place;
        let core = TcpListener::bind(place.at(CORE)).unwrap();
        thread::spawn(move || serve(&core));
        let config = place.write("proxy.toml", &configuration(&[&authority], DECLARED));
        let run = ["run", "--config", config.to_str().unwrap()].map(str::to_owned);
        let program = Path::new(env!("CARGO_BIN_EXE_vestibule"));
        let program = Process::start(program, &run, "serving");
        let management = place.at(ACME_MANAGEMENT);
        let address = management.ip().to_string();
        let root = visit(
            management,
            &address,
            "/roots/0",
            &trust(authority.pebble.root()),
        );
        let (_, root) = root.split_once("\r\n\r\n").expect("a head and a body");
        Self {
            trust: trust(root),
            https: place.at(HTTPS),
            authority,
            _program: program,
        }
    }

    /// How long one visit took until the first byte of its answer; the rest of it is read, but not measured.
    fn visit(&self, name: &str) -> Duration {
        let began = monotonic();
        let (mut stream, first) = connect_and_ask(self.https, name, "/", &self.trust);
        let taken = monotonic() - began;
        let answer = read_on(&mut stream, first);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
        taken
    }
}

/// An authority, and where it validates.
pub(crate) struct Authority {
    pub(crate) place: Place,
    pub(crate) pebble: Pebble,
}

/// `proxy.toml` with so many names, shared out among the authorities in turn, each of which has a tenant of its own: its
/// defaults, but for what a machine of its own would not need, and the hook's rate. All data lie with the first.
pub(crate) fn configuration(authorities: &[&Authority], names: usize) -> String {
    let place = &authorities[0].place;
    let folder = place.folder();
    let http: Vec<_> = authorities
        .iter()
        .map(|authority| authority.place.at(HTTP).to_string())
        .collect();
    let mut text = format!(
        r#"
[listen]
http = {http:?}
https = ["{https}"]
[edge]
http_port = {HTTP}
https_port = {HTTPS}
[telemetry]
address = "{telemetry}"
[dns]
resolvers = ["{dns}"]
[preflight]
private_addresses = true
[store]
data = {data:?}
[keys]
file = {key:?}
[on_demand]
ask = "http://{core}/allowed"
ask_rate = 1000
ask_rate_per_domain = 1000
[[upstream]]
name = "core"
addresses = ["{core}"]
[[route]]
upstream = "core"
"#,
        https = place.at(HTTPS),
        telemetry = place.at(TELEMETRY),
        dns = place.at(DNS),
        data = folder.join("data"),
        key = folder.join("key-encryption.key"),
        core = place.at(CORE),
    );
    for (number, Authority { place, pebble }) in authorities.iter().enumerate() {
        let root = place.write("acme-root.pem", pebble.root());
        let domains: Vec<_> = (number..names)
            .step_by(authorities.len())
            .map(declared)
            .collect();
        text.push_str(&format!(
            r#"
[[ca]]
name = "pebble{number}"
kind = "acme"
directory = "{directory}"
contact = ["operations@example.com"]
terms_agreed = true
root = {root:?}
[[tenant]]
name = "{tenant}"
ca = ["pebble{number}"]
domains = {domains:?}
"#,
            directory = pebble.directory(),
            tenant = tenant(number),
        ));
    }
    text
}

pub(crate) fn tenant(number: usize) -> String {
    format!("acme{number}")
}

fn declared(number: usize) -> String {
    format!("declared{number}.example.com")
}

fn trust(root: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// Opens a connection, sends a request and waits for the first bytes of its answer.
fn connect_and_ask(
    at: SocketAddrV4,
    name: &str,
    path: &str,
    trust: &Arc<ClientConfig>,
) -> (Connection, Vec<u8>) {
    let socket = TcpStream::connect(at).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let client = ClientConnection::new(Arc::clone(trust), server).unwrap();
    let mut stream = StreamOwned::new(client, socket);
    let request = format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .unwrap_or_else(|error| panic!("no handshake for {name}: {error}"));
    let mut first = vec![0; 16_384];
    let read = stream.read(&mut first).unwrap();
    first.truncate(read);
    (stream, first)
}

fn read_on(stream: &mut Connection, mut answer: Vec<u8>) -> String {
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn visit(at: SocketAddrV4, name: &str, path: &str, trust: &Arc<ClientConfig>) -> String {
    let (mut stream, first) = connect_and_ask(at, name, path, trust);
    read_on(&mut stream, first)
}

/// The core application, and the permission hook that allows every name: 200 to all requests without a body.
fn serve(listener: &TcpListener) {
    for connection in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || answer_requests(connection));
    }
}

fn answer_requests(mut connection: TcpStream) {
    connection.set_nodelay(true).unwrap();
    let mut head = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            if connection.write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// Measures visits of `names`, and tells their median.
fn measure(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    case: &str,
    edge: &Edge,
    mut names: impl Iterator<Item = String>,
) {
    let orders = edge.authority.pebble.orders();
    let mut taken = Vec::new();
    group.bench_function(case, |bencher| {
        bencher.iter_custom(|visits| {
            let round: Vec<_> = (0..visits)
                .map(|_| edge.visit(&names.next().expect("names that nobody visited")))
                .collect();
            taken.extend_from_slice(&round);
            round.iter().sum()
        });
    });
    if taken.is_empty() {
        return;
    }
    taken.sort_unstable();
    let share = |of_100: usize| taken[(taken.len() - 1) * of_100 / 100];
    println!(
        "{case}: {} visits, {} orders; median {:.1?}, 90 % within {:.1?}, longest {:.1?}\n",
        taken.len(),
        edge.authority.pebble.orders() - orders,
        share(50),
        share(90),
        share(100),
    );
}

fn first_visits(criterion: &mut Criterion) {
    let edge = Edge::start();
    println!(
        "the very first, which opens the account: {:.1?}",
        edge.visit(&declared(0))
    );
    let mut group = criterion.benchmark_group("first_visit");
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(30)
        .warm_up_time(Duration::from_secs(2))
        .measurement_time(Duration::from_secs(10));
    measure(&mut group, "declared", &edge, (1..DECLARED).map(declared));
    let asked = (0..).map(|number| format!("asked{number}.example.com"));
    measure(&mut group, "asked", &edge, asked);
    group.measurement_time(Duration::from_secs(3));
    measure(&mut group, "warm", &edge, std::iter::repeat(declared(0)));
    group.finish();
}

fn crowds(_: &mut Criterion) {
    // Minutes each: not for whoever asked for another case, or only whether it runs.
    let mut words = std::env::args().skip(1);
    if words.all(|word| word == "--bench" || word == "crowd") {
        crowd::measure();
    }
}

criterion_group!(benches, first_visits, crowds);
criterion_main!(benches);
