//! What only this engine promises; what every engine does is in [`crate::store::conformance`].

mod retirement;
mod unreadable;

use super::*;
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use sqlx::{ConnectOptions as _, query};

use crate::base::clock::Timestamp;
use crate::store::PageRequest;
use crate::store::batch::Operation;
use crate::store::budget::BucketCost;
use crate::store::conformance::conforms_to_the_port;
use crate::store::conformance::support::{
    certificate, name, pattern, put_domain, registration, soon, tenant,
};
use crate::store::embedded::backup::{BackupError, backup, restore};
use crate::store::embedded::folder::DATABASE;
use crate::store::embedded::transaction::Transaction;
use crate::store::embedded::writer::Change;
use crate::store::feed::FeedStatus;

fn factory(folder: &Path, clock: Clock) -> BoxFuture<'static, Arc<dyn Store>> {
    let folder = folder.to_owned();
    async move { Arc::new(open_on(&folder, clock).await) as Arc<dyn Store> }.boxed()
}

conforms_to_the_port!(factory);

async fn open_on(folder: &Path, clock: Clock) -> Embedded {
    let settings = Settings::in_folder(folder.to_owned());
    Embedded::open(settings, clock, &Tasks::new())
        .await
        .unwrap()
}

async fn open(folder: &Path) -> Embedded {
    open_on(folder, Clock::system()).await
}

async fn refused(folder: &Path) -> OpenError {
    let settings = Settings::in_folder(folder.to_owned());
    Embedded::open(settings, Clock::system(), &Tasks::new())
        .await
        .unwrap_err()
}

async fn apply(store: &Embedded, batch: Batch) -> Result<Applied, ApplyError> {
    store.apply(soon(), &TenantScope::operator(), batch).await
}

/// Runs statements on the writing connection, in a transaction like any other change.
struct Statements(&'static str);

impl Change for Statements {
    type Output = ();
    type Error = StoreError;

    async fn run(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        sqlx::raw_sql(self.0)
            .execute(&mut *transaction.connection)
            .await?;
        Ok(())
    }
}

async fn run(store: &Embedded, statements: &'static str) {
    store
        .parts
        .writer
        .change(soon(), Statements(statements))
        .await
        .unwrap();
}

impl Embedded {
    /// Damages what is stored, for tests elsewhere.
    pub(crate) async fn spoil(&self, statements: &'static str) {
        run(self, statements).await;
    }
}

const MANY_DOMAINS: &str = "INSERT INTO tenant VALUES ('acme', 'file', 0); \
    INSERT INTO domain (pattern, tenant_id, source, state, upstream, certificate_id, problem, version, created_at) \
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) \
    SELECT printf('n%06d.example.com', i), 'acme', 'file', 'active', NULL, NULL, NULL, 1, 0 FROM n";

#[tokio::test]
async fn a_start_with_many_domains_reads_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    run(&store, MANY_DOMAINS).await;
    store.close(soon()).await.unwrap();
    // Spoil the pages that hold the rows: whoever reads them fails.
    let file = fs::File::options()
        .write(true)
        .open(folder.path().join(DATABASE))
        .unwrap();
    let length = file.metadata().unwrap().len();
    assert!(length > 5_000_000);
    file.write_all_at(&vec![0xff; 4096 * 1000], length - 4096 * 1000)
        .unwrap();
    let store = open(folder.path()).await;
    let page = PageRequest::first();
    let everyone = TenantScope::operator();
    let mut page_read = store.domains(soon(), &everyone, None, &page).await;
    while let Ok(Page {
        next: Some(next), ..
    }) = page_read
    {
        page_read = store
            .domains(soon(), &everyone, None, &PageRequest::following(next))
            .await;
    }
    assert!(
        matches!(page_read, Err(StoreError::Corrupt(_))),
        "{page_read:?}"
    );
    assert!(
        store.tenants(soon(), &everyone, &page).await.is_ok(),
        "the rest is still read"
    );
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_up_to_date_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let stored = certificate("acme", &["a.test"]);
    let batch = registration("acme", "a.test")
        .then(Operation::PutCertificate(Box::new(stored.clone())))
        .then(Operation::PointDomain {
            pattern: pattern("a.test"),
            certificate: stored.facts.id,
        });
    apply(&store, batch).await.unwrap();
    for back in [
        "DROP INDEX certificate_by_serial",
        "DROP INDEX job_by_turn",
        "DROP INDEX job_by_holder",
        "DROP TABLE certificate_name",
        "DROP INDEX certificate_by_retirement",
        "ALTER TABLE certificate DROP COLUMN retire_at",
        "ALTER TABLE certificate DROP COLUMN standing",
        "ALTER TABLE domain DROP COLUMN memory",
        "PRAGMA user_version = 1",
    ] {
        run(&store, back).await;
    }
    store.close(soon()).await.unwrap();
    let store = open(folder.path()).await;
    let resolved = store.resolve(soon(), &name("a.test")).await.unwrap();
    assert_eq!(resolved.unwrap().certificate, Some(stored.clone()));
    let (scope, name) = (TenantScope::upkeep(), pattern("a.test"));
    let found = store.certificates_of(soon(), &scope, &name, 9);
    assert_eq!(found.await.unwrap(), [stored]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    apply(&store, registration("acme", "a.test")).await.unwrap();
    run(&store, "PRAGMA user_version = 99").await;
    store.close(soon()).await.unwrap();
    let error = refused(folder.path()).await;
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 99,
                known: schema::NEWEST,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("newer"), "{error}");
}

#[tokio::test]
async fn another_programs_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(DATABASE);
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut other = options.connect().await.unwrap();
    query("CREATE TABLE t (x)")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::Connection::close(other).await.unwrap();
    let before = fs::read(&path).unwrap();
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::Foreign(_)), "{error}");
    // Its journal mode is the one thing that looking at it may change.
    assert_eq!(fs::read(&path).unwrap()[100..], before[100..]);
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close(soon()).await.unwrap();
    let file = fs::File::options()
        .write(true)
        .open(folder.path().join(DATABASE))
        .unwrap();
    file.write_all_at(&[0xff; 3000], 100).unwrap();
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
}

#[tokio::test]
async fn a_full_disk_stops_writes_only_and_they_go_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    apply(&store, registration("acme", "a.test")).await.unwrap();
    run(&store, "PRAGMA max_page_count = 1").await;
    let big = || {
        let mut record = certificate("acme", &["a.test"]);
        record.leaf = vec![7; 100_000];
        Batch::new().then(Operation::PutCertificate(Box::new(record)))
    };
    for _ in 0..3 {
        let refused = apply(&store, big()).await.unwrap_err();
        assert!(
            matches!(refused, ApplyError::Store(StoreError::Full(_))),
            "{refused:?}"
        );
        let found = store.resolve(soon(), &name("a.test")).await.unwrap();
        assert!(found.is_some());
    }
    run(&store, "PRAGMA max_page_count = 1000000").await;
    apply(&store, big()).await.unwrap();
}

struct Falls;

impl Change for Falls {
    type Output = ();
    type Error = StoreError;

    async fn run(&mut self, _: &mut Transaction<'_>) -> Result<(), StoreError> {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn calls_fail_and_never_hang_when_the_writing_task_has_died() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    apply(&store, registration("acme", "a.test")).await.unwrap();
    let fallen = store.parts.writer.change(soon(), Falls).await;
    assert!(matches!(fallen, Err(StoreError::Unknown(_))), "{fallen:?}");
    let after = apply(&store, registration("acme", "b.test")).await;
    assert!(
        matches!(after, Err(ApplyError::Store(StoreError::Unavailable(_)))),
        "{after:?}"
    );
    assert!(!store.is_writing());
    assert!(
        store
            .resolve(soon(), &name("a.test"))
            .await
            .unwrap()
            .is_some()
    );
    store.close(soon()).await.unwrap();
}

/// A connection of another process, as far as the store can tell.
async fn stranger(folder: &Path) -> sqlx::SqliteConnection {
    open::writing(&folder.join(DATABASE))
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn deadlines_hold_while_another_process_keeps_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut other = stranger(folder.path()).await;
    query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let by = Deadline::after(Duration::from_millis(50));
    let late = store
        .apply(by, &TenantScope::operator(), registration("acme", "a.test"))
        .await;
    assert!(
        matches!(late, Err(ApplyError::Store(StoreError::Timeout))),
        "{late:?}"
    );
    assert!(
        store
            .resolve(soon(), &name("a.test"))
            .await
            .unwrap()
            .is_none(),
        "reads go on"
    );
    query("ROLLBACK").execute(&mut other).await.unwrap();
    apply(&store, registration("acme", "b.test")).await.unwrap();
    let found = store.resolve(soon(), &name("a.test")).await.unwrap();
    assert!(found.is_none(), "what was given up is not done later");
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut other = stranger(folder.path()).await;
    query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let before = *store.wake().borrow();
    let names: Vec<_> = (0..100).map(|n| format!("n{n}.test")).collect();
    let writes = join_all(
        names
            .iter()
            .map(|host| apply(&store, registration("acme", host))),
    );
    let release = async { query("ROLLBACK").execute(&mut other).await.unwrap() };
    let (results, _) = tokio::join!(writes, release);
    assert!(results.iter().all(Result::is_ok));
    let commits = *store.wake().borrow() - before;
    assert!(commits <= 4, "{commits} commits for 100 batches");
}

#[tokio::test]
async fn a_closed_store_refuses_and_leaves_its_file_and_the_ballast() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    apply(&store, registration("acme", "a.test")).await.unwrap();
    store.close(soon()).await.unwrap();
    let after = apply(&store, registration("acme", "b.test")).await;
    assert!(
        matches!(after, Err(ApplyError::Store(StoreError::Unavailable(_)))),
        "{after:?}"
    );
    let read = store.resolve(soon(), &name("a.test")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_cancelled_group_ends_the_writer_after_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let settings = Settings::in_folder(folder.path().to_owned());
    let store = Embedded::open(settings, Clock::system(), &tasks)
        .await
        .unwrap();
    let write = apply(&store, registration("acme", "a.test"));
    let (written, ()) = tokio::join!(write, async { tasks.cancel() });
    written.unwrap();
    assert_eq!(tasks.finish(Duration::from_secs(10)).await, 0);
    assert!(!store.is_writing());
}

#[tokio::test]
async fn what_nobody_needs_is_swept_and_what_somebody_needs_stays() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
    let store = open_on(folder.path(), clock.clone()).await;
    let (old, serving) = (
        certificate("acme", &["a.test"]),
        certificate("acme", &["a.test"]),
    );
    let batch = registration("acme", "a.test")
        .then(Operation::PutCertificate(Box::new(old.clone())))
        .then(Operation::PutCertificate(Box::new(serving.clone())))
        .then(Operation::PointDomain {
            pattern: pattern("a.test"),
            certificate: serving.facts.id,
        })
        .then(Operation::PutChallenge {
            host: name("a.test"),
            token: "t".to_owned(),
            key_authorization: "t.p".to_owned(),
            lifetime: Duration::from_secs(60),
        });
    let start = apply(&store, batch).await.unwrap().position;
    let cost = BucketCost {
        bucket: "b".to_owned(),
        units: 1,
        refill: Duration::from_secs(1),
        capacity: 1,
        whole: 1,
    };
    store.take(soon(), &[cost]).await.unwrap();
    assert_eq!(sweep::sweep(&store.parts).await.unwrap(), 0);
    // Both certificates end after 81 days.
    clock.advance(Duration::from_hours(24 * 120));
    // The challenge, the bucket, the certificate that serves nothing, and the feed's entries for tenant and domain.
    assert_eq!(sweep::sweep(&store.parts).await.unwrap(), 6);
    let everyone = TenantScope::operator();
    let gone = store
        .certificate(soon(), &everyone, old.facts.id)
        .await
        .unwrap();
    let kept = store
        .certificate(soon(), &everyone, serving.facts.id)
        .await
        .unwrap();
    assert_eq!((gone, kept), (None, Some(serving)));
    let behind = Cursor {
        positions: vec![],
        ..start.clone()
    };
    let read = store.changes(soon(), &behind, 10).await.unwrap();
    assert_eq!(
        read.status,
        FeedStatus::Restart,
        "the reader's place was trimmed away"
    );
    let read = store.changes(soon(), &start, 10).await.unwrap();
    assert_eq!(read.status, FeedStatus::Complete);
}

#[tokio::test]
async fn a_backup_of_a_store_in_use_restores_elsewhere_whole() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(from.path()).await;
    apply(&store, registration("acme", "a.test")).await.unwrap();
    let position = apply(&store, Batch::new()).await.unwrap().position;
    let file = to.path().join("backup");
    let write = async {
        for n in 0..50 {
            let batch = registration("acme", &format!("n{n}.test"))
                .then(put_domain("acme", &format!("m{n}.test")));
            apply(&store, batch).await.unwrap();
        }
    };
    let (summary, ()) = tokio::join!(store.backup_to(&file), write);
    let summary = summary.unwrap();
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        fs::read_dir(to.path()).unwrap().count(),
        1,
        "nothing is left aside"
    );
    let folder = to.path().join("data");
    assert_eq!(restore(&file, &folder).await.unwrap(), summary);
    let restored = open(&folder).await;
    let everyone = TenantScope::operator();
    let domains = restored
        .domains(soon(), &everyone, None, &PageRequest::first())
        .await
        .unwrap();
    assert_eq!(domains.items.len() as u64, summary.domains);
    assert_eq!(summary.domains % 2, 1, "batches are whole in it");
    let read = restored.changes(soon(), &position, 10).await.unwrap();
    assert_eq!(read.status, FeedStatus::Restart, "a new epoch");
    assert_eq!(restored.parts.settings.folder, folder);
    let other = TenantScope::certificate_work(tenant("globex"));
    assert_eq!(
        restored
            .domain(soon(), &other, &pattern("a.test"))
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn nothing_is_overwritten_by_backup_or_restore() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("backup"));
    let none = backup(&data, &file).await.unwrap_err();
    assert!(matches!(none, BackupError::NoStore(_)), "{none}");
    let store = open(&data).await;
    apply(&store, registration("acme", "a.test")).await.unwrap();
    backup(&data, &file).await.unwrap();
    let twice = backup(&data, &file).await.unwrap_err();
    assert!(matches!(twice, BackupError::FileExists(_)), "{twice}");
    let nowhere = folder.path().join("no/such/backup");
    let error = backup(&data, &nowhere).await.unwrap_err().to_string();
    let made = format!("mkdir -p {}", folder.path().join("no/such").display());
    assert!(error.contains(&made), "{error}");
    let over = restore(&file, &data).await.unwrap_err();
    assert!(matches!(over, BackupError::FolderInUse(_)), "{over}");
    assert!(
        store
            .resolve(soon(), &name("a.test"))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_backup_that_is_none_or_damaged_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("backup"));
    let store = open(&data).await;
    run(&store, MANY_DOMAINS).await;
    backup(&data, &file).await.unwrap();
    let whole = fs::read(&file).unwrap();
    let spoil = |from: usize, to: usize| {
        let mut bytes = whole.clone();
        bytes[from..to].fill(0xff);
        bytes
    };
    let middle = whole.len() / 2;
    let cut = whole[..middle].to_vec();
    for bytes in [
        b"no backup".to_vec(),
        vec![],
        spoil(0, 16),
        spoil(middle, middle + 5000),
        cut,
    ] {
        let bad = folder.path().join("bad");
        crate::base::file::replace(&bad, &bytes, crate::base::file::Access::Owner).unwrap();
        let target = folder.path().join("restored");
        let error = restore(&bad, &target).await.unwrap_err();
        assert!(
            matches!(
                error,
                BackupError::Unusable(_) | BackupError::Damaged(_) | BackupError::Database(_)
            ),
            "{error:?}"
        );
        assert!(!target.exists());
    }
}

/// What the files of a store hold, its log folded into the database.
async fn on_the_disk(folder: &Path) -> Vec<u8> {
    let mut other = stranger(folder).await;
    query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut other)
        .await
        .unwrap();
    let files = fs::read_dir(folder).unwrap();
    files
        .flat_map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect()
}

#[tokio::test]
async fn nothing_stays_on_the_disk_of_keys_that_were_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let owner = KeyOwner::Tenant(tenant("acme"));
    let keys = (1..=200).map(|id| DataKeyRecord {
        owner: owner.clone(),
        id,
        wrapped: format!("wrapped data key {id:03}").into_bytes(),
    });
    let mut certified = certificate("acme", &["a.test"]);
    certified.sealed_key.extend(b"sealed private key");
    let batch = keys
        .fold(registration("acme", "a.test"), |batch, key| {
            batch.then(Operation::PutDataKey(key))
        })
        .then(Operation::PutCertificate(Box::new(certified)));
    apply(&store, batch).await.unwrap();
    let holds =
        |disk: &[u8], text: &str| disk.windows(text.len()).any(|part| part == text.as_bytes());
    let before = on_the_disk(folder.path()).await;
    assert!(holds(&before, "wrapped data key") && holds(&before, "sealed private key"));

    let destroy = Batch::new().then(Operation::DestroyDataKeys {
        tenant: tenant("acme"),
        through: 200,
    });
    apply(&store, destroy).await.unwrap();
    let after = on_the_disk(folder.path()).await;
    assert!(!holds(&after, "wrapped data key") && !holds(&after, "sealed private key"));
    store.close(soon()).await.unwrap();
}
