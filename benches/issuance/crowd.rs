//! Many names at once: 1,000 that have no certificate yet, and then all certificates replaced together.
//!
//! The program starts with all names declared (`obtain = "at-once"`), so all their jobs are due at the same moment. For
//! the replacement the certificates are of a kind that is due by then, and all jobs are asked for at once. What is told: orders a second, and the
//! processor time of the program and of Pebble for each order, which shows whose ceiling the rate is. Pebble
//! signs with RSA; a public CA's limits lie far below either.
//!
//! There are [`PEBBLES`] of it with a tenant each, for 2.10 locks itself up for good when an order is looked at in the
//! moment in which its certificate is made (letsencrypt/pebble#554): here once in some hundred to a thousand orders, the
//! sooner the more orders it holds. The others go on; a case ends early where nothing has been issued for
//! [`MOST_SILENCE`], or after [`MOST_TIME`], and tells what was done by then. Certificates replaced first may be due again
//! before the last is, and are counted again.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use vestibule::base::clock::{Clock, monotonic};
use vestibule::base::task::Tasks;
use vestibule::model::{NamePattern, TenantId, TenantScope};
use vestibule::store::batch::{Operation, Urgency};
use vestibule::store::embedded::{self, Embedded};
use vestibule::store::job::{JobKey, Priority};
use vestibule::store::{Batch, Deadline, Store as _};

use super::pebble::{Pebble, Place, Process};
use super::{Authority, TELEMETRY, configuration, declared, tenant};

/// Authorities, and tenants.
const PEBBLES: usize = 16;
/// Names of the burst.
const BURST: usize = 1_000;
/// Certificates replaced at once.
const REPLACED: usize = 10_000;
/// How long certificates live here, and so what a tenth of that is, after which they are due in the second case: give or
/// take a tenth.
const LIFETIME: Duration = Duration::from_secs(900);
const DUE_AFTER: Duration = Duration::from_secs(100);
/// The longest that a case runs.
const MOST_TIME: Duration = Duration::from_secs(300);
/// How long a case goes on while nothing is issued: longer than a call to an authority that has locked itself up takes.
const MOST_SILENCE: Duration = Duration::from_secs(45);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// For the store.
const PATIENCE: Duration = Duration::from_secs(30);

/// The burst, then as many further names as the replacement needs, and then that.
pub(crate) fn measure() {
    let authority = |_| {
        let place = Place::claim();
        let pebble = Pebble::start_issuing(&place, LIFETIME);
        Authority { place, pebble }
    };
    let authorities: Vec<_> = (0..PEBBLES).map(authority).collect();
    let authorities: Vec<_> = authorities.iter().collect();
    let run = |names, kind, share, wanted| {
        let certificates =
            format!("[certificates]\nobtain = \"at-once\"\nrenew_short_after = {share}\n[keys]");
        let text = configuration(&authorities, names).replace("[keys]", &certificates);
        let wanted = Wanted {
            kind,
            count: wanted,
        };
        case(&authorities, &text, &wanted)
    };
    run(BURST, "first", "0.95", BURST);
    let issued = run(REPLACED, "first", "0.95", REPLACED - BURST);
    thread::sleep(DUE_AFTER);
    ask_for_all(&authorities[0].place);
    run(REPLACED, "renewal", "0.1", issued + BURST);
}

/// What a case waits for.
struct Wanted {
    kind: &'static str,
    count: usize,
}

/// Runs the program until it has done what is wanted, or nothing comes any more; gives how much it did.
fn case(authorities: &[&Authority], configuration: &str, wanted: &Wanted) -> usize {
    let place = &authorities[0].place;
    let config = place.write("proxy.toml", configuration);
    let run = ["run", "--config", config.to_str().unwrap()].map(str::to_owned);
    let binary = Path::new(env!("CARGO_BIN_EXE_vestibule"));
    let of_all = || -> Duration {
        let all = authorities.iter();
        all.map(|authority| cpu(&authority.pebble.process)).sum()
    };
    let ca_before = of_all();
    let program = Process::start(binary, &run, "serving");
    let began = monotonic();
    let Wanted { kind, count } = *wanted;
    let series = format!("kind=\"{kind}\",outcome=\"issued\"}}");
    let (mut done, mut taken) = (0, Duration::ZERO);
    while done < count && taken + MOST_SILENCE > began.elapsed() && taken < MOST_TIME {
        thread::park_timeout(PAUSE);
        let now = issued(place, &series);
        if now > done {
            (done, taken) = (now, began.elapsed());
        }
    }
    let (own, ca) = (cpu(&program), of_all() - ca_before);
    let each = |cpu: Duration| cpu.as_secs_f64() * 1_000.0 / done.max(1) as f64;
    println!(
        "{done} of {count} certificates ({kind}) in {:.1} s: {:.0} orders a second; processor time for each: \
         {:.1} ms here, {:.1} ms Pebble's; both together kept {:.2} processors busy",
        taken.as_secs_f64(),
        done as f64 / taken.as_secs_f64(),
        each(own),
        each(ca),
        (own + ca).as_secs_f64() / taken.as_secs_f64(),
    );
    done
}

/// Makes the job of every name due at once, as an operator would whose CA revokes everything.
fn ask_for_all(place: &Place) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let tasks = Tasks::new();
        let folder = embedded::Settings::in_folder(place.folder().join("data"));
        let store = Embedded::open(folder, Clock::system(), &tasks)
            .await
            .unwrap();
        let numbers: Vec<usize> = (0..REPLACED).collect();
        for some in numbers.chunks(500) {
            let request = |number: &usize| Operation::RequestJob {
                key: JobKey::Certificate(NamePattern::parse(&declared(*number)).unwrap()),
                tenant: TenantId::parse(&tenant(number % PEBBLES)).unwrap(),
                priority: Priority::Renewal,
                delay: Duration::ZERO,
                urgency: Urgency::Now,
            };
            let batch = some.iter().map(request).fold(Batch::new(), Batch::then);
            let by = Deadline::after(PATIENCE);
            store
                .apply(by, &TenantScope::operator(), batch)
                .await
                .unwrap();
        }
        store.close(Deadline::after(PATIENCE)).await.unwrap();
    });
}

/// Certificates issued, by the program's own count.
fn issued(place: &Place, series: &str) -> usize {
    let ask = || {
        let mut stream = TcpStream::connect(place.at(TELEMETRY))?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: telemetry\r\nconnection: close\r\n\r\n";
        stream.write_all(request)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = ask().expect("the metrics page");
    answer
        .lines()
        .filter(|line| line.starts_with("proxy_issuances_total{") && line.contains(series))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// Processor time that a process has used (proc(5): user and system time in ticks of 10 ms).
fn cpu(process: &Process) -> Duration {
    let stat = format!("/proc/{}/stat", process.child.id());
    let stat = std::fs::read_to_string(stat).expect("a running process");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = |at: usize| fields.split_whitespace().nth(at)?.parse::<u64>().ok();
    let ticks = ticks(11)
        .zip(ticks(12))
        .map_or(0, |(user, system)| user + system);
    Duration::from_millis(ticks * 10)
}
