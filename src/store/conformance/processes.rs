//! The same promises between processes: the test starts its own binary a second time on the same store.
//!
//! Each story runs one half in this process and the same half in the other, at once; what both did is put together
//! and judged. The other process tells what it did line by line on its standard output, behind [`MARK`].

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::feed::{read_in_order, write_domains};
use super::support::{Factory, claim, name, registration, request, soon};
use crate::base::clock::Clock;
use crate::model::TenantScope;
use crate::store::Store;
use crate::store::batch::Batch;
use crate::store::budget::{BucketCost, Taken};

/// Tells the other process which half to run, and where.
const ROLE: &str = "VESTIBULE_TEST_STORE_ROLE";
const FOLDER: &str = "VESTIBULE_TEST_STORE_FOLDER";
/// Begins every line that the other process means for us; the test harness prints lines of its own.
const MARK: &str = "##";

/// What the other process runs; in the ordinary run of the tests it finds no role and is done.
pub(crate) async fn the_other_process(factory: &Factory) {
    let (Some(role), Some(folder)) = (std::env::var_os(ROLE), std::env::var_os(FOLDER)) else {
        return;
    };
    let store = factory(&PathBuf::from(folder), Clock::system()).await;
    let told = match role.to_str().unwrap() {
        "claims" => claim_all(&store).await,
        "takes" => vec![take_many(&store).await.to_string()],
        "feed" => {
            write_domains(&store, 1, 100).await;
            vec!["written".to_owned()]
        }
        "acknowledges" => acknowledge_for_ever(&store).await,
        other => panic!("no role {other}"),
    };
    for line in told {
        println!("\n{MARK}{line}");
    }
}

/// The other process, at work.
struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    /// `test` is the path of the test that calls [`the_other_process`].
    fn start(test: &str, role: &str, folder: &Path) -> Self {
        let test = test.split_once("::").map_or(test, |(_crate, path)| path);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// What it says next; nothing once it has ended.
    async fn next(&mut self) -> Option<String> {
        loop {
            let read = tokio::time::timeout_at(soon().instant(), self.lines.next_line()).await;
            let line = read.expect("the other process says something").unwrap()?;
            if let Some(told) = line.strip_prefix(MARK) {
                return Some(told.to_owned());
            }
        }
    }

    /// All that it says until it ends well.
    async fn told(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        assert!(self.child.wait().await.unwrap().success());
        lines
    }
}

/// A store on the machine's clock, for two processes cannot share a clock that a test moves.
async fn shared(factory: &Factory) -> (tempfile::TempDir, Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = factory(folder.path(), Clock::system()).await;
    apply(&store, registration("acme", "first.test")).await;
    (folder, store)
}

async fn apply(store: &Arc<dyn Store>, batch: Batch) -> crate::store::Applied {
    store
        .apply(soon(), &TenantScope::operator(), batch)
        .await
        .unwrap()
}

/// Claims until nothing is left, with four tasks at once; each claim as a line.
async fn claim_all(store: &Arc<dyn Store>) -> Vec<String> {
    let claimant = || async {
        let mut claimed = Vec::new();
        loop {
            let jobs = claim(&**store, 2).await;
            if jobs.is_empty() {
                return claimed;
            }
            claimed.extend(
                jobs.iter()
                    .map(|job| format!("{} {}", job.claim.key, job.claim.counter)),
            );
        }
    };
    join_all((0..4).map(|_| claimant())).await.concat()
}

pub(crate) async fn two_processes_never_claim_the_same_job(factory: &Factory, other: &str) {
    let (folder, store) = shared(factory).await;
    let mut batch = Batch::new();
    for n in 0..200 {
        let host = format!("n{n}.test");
        batch = batch
            .then(super::support::put_domain("acme", &host))
            .then(request("acme", &host));
    }
    apply(&store, batch).await;
    let other = Other::start(other, "claims", folder.path());
    let ours = claim_all(&store).await;
    let theirs = other.told().await;
    let all: HashSet<&String> = ours.iter().chain(&theirs).collect();
    assert_eq!((ours.len() + theirs.len(), all.len()), (200, 200));
}

/// Tries a hundred times, with four tasks at once; tells how often it was granted.
async fn take_many(store: &Arc<dyn Store>) -> usize {
    let cost = [BucketCost {
        bucket: "orders".to_owned(),
        units: 1,
        refill: Duration::from_secs(3600),
        capacity: 90,
        whole: 90,
    }];
    let taker = || async {
        let mut granted = 0;
        for _ in 0..25 {
            let taken = store.take(soon(), &cost).await.unwrap();
            granted += usize::from(taken == Taken::Granted);
        }
        granted
    };
    join_all((0..4).map(|_| taker())).await.iter().sum()
}

pub(crate) async fn two_processes_share_a_budget_exactly(factory: &Factory, other: &str) {
    let (folder, store) = shared(factory).await;
    let other = Other::start(other, "takes", folder.path());
    let ours = take_many(&store).await;
    let theirs: usize = other.told().await[0].parse().unwrap();
    assert_eq!(ours + theirs, 90, "{ours} and {theirs}");
}

pub(crate) async fn a_reader_sees_the_writes_of_two_processes_in_order(
    factory: &Factory,
    other: &str,
) {
    let (folder, store) = shared(factory).await;
    let start = apply(&store, Batch::new()).await.position;
    let other = Other::start(other, "feed", folder.path());
    let ours = write_domains(&store, 0, 100);
    let (_, seen, told) = tokio::join!(ours, read_in_order(&store, start, 200), other.told());
    assert_eq!((seen, told), (200, vec!["written".to_owned()]));
}

/// Registers names from several tasks, and tells each as soon as it is acknowledged. Ends by being killed.
async fn acknowledge_for_ever(store: &Arc<dyn Store>) -> Vec<String> {
    let writer = |writer: usize| async move {
        for n in 0_u64.. {
            let host = format!("w{writer}-{n}.test");
            let batch = registration("acme", &host)
                .then(request("acme", &host))
                .audit(super::audit::event("acme", 1));
            apply(store, batch).await;
            println!("\n{MARK}{host}");
        }
    };
    join_all((0..4).map(writer)).await;
    Vec::new()
}

pub(crate) async fn what_a_killed_process_acknowledged_is_there(factory: &Factory, other: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, usize> = HashMap::new();
    for (round, lines) in [40, 1, 97].into_iter().enumerate() {
        let mut other = Other::start(other, "acknowledges", folder.path());
        for _ in 0..lines {
            acknowledged.insert(other.next().await.unwrap(), round);
        }
        other.child.start_kill().unwrap();
        // What it still said before it fell counts as well.
        while let Some(line) = other.next().await {
            acknowledged.insert(line, round);
        }
        other.child.wait().await.unwrap();
    }
    let store = factory(folder.path(), Clock::system()).await;
    for host in acknowledged.keys() {
        let found = store.resolve(soon(), &name(host)).await.unwrap();
        assert!(found.is_some(), "{host} was acknowledged");
        let everyone = TenantScope::operator();
        let job = store
            .job(soon(), &everyone, &super::support::job_key(host))
            .await
            .unwrap();
        assert!(job.is_some(), "all of {host}'s batch or nothing");
    }
    assert!(acknowledged.len() >= 97);
    let owner = crate::store::record::KeyOwner::Tenant(super::support::tenant("acme"));
    let page = crate::store::PageRequest::first();
    let events = store
        .events(soon(), &TenantScope::operator(), &owner, &page)
        .await
        .unwrap();
    let start = crate::store::audit::Link::default();
    crate::store::audit::verify_chain(start, &events.items).unwrap();
}
