//! From the workers to the output, without making a worker wait.
//!
//! Each thread puts its records into a bounded buffer of its own stripe; one thread empties the buffers ten times a
//! second, or when one is half full, and writes what it found in one go. A record for which there is no room
//! is dropped and counted: a full pipe or a slow disk costs records, never requests.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::base::task::Tasks;
use crate::telemetry::access::line;
use crate::telemetry::access::record::AccessRecord;
use crate::telemetry::family::{own_stripe, stripes};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::settings::{AccessOutput, ClientAddress, Format, Settings};

/// Records that wait in all buffers together: about 6 MiB.
const MOST_WAITING: usize = 16 * 1024;
/// How long a record waits at most before it is written, where the output keeps up.
const PAUSE: Duration = Duration::from_millis(100);
/// How much is written in one go.
const MOST_AT_ONCE: usize = 64 * 1024;

/// Takes the records of all workers. Cheap to clone; clones are the same log. It ends, all records written, when
/// [`AccessLog::close`] is called or the last clone is dropped.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Closing>>);

/// Why there is no access log.
#[derive(Debug)]
pub enum AccessLogError {
    /// Its file cannot be opened for appending.
    Open(PathBuf, io::Error),
}

impl fmt::Display for AccessLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path, _) => write!(
                f,
                "cannot append to the access log {}: its folder must exist and be writable for this user",
                path.display()
            ),
        }
    }
}

impl std::error::Error for AccessLogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, error) => Some(error),
        }
    }
}

impl AccessLog {
    /// A log that keeps nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens the output and starts the writing thread, which `tasks` wait for.
    ///
    /// # Errors
    /// [`AccessLogError`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        settings: &Settings,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Self, AccessLogError> {
        let output: Box<dyn Write + Send> = match &settings.access {
            AccessOutput::Off => return Ok(Self::off()),
            AccessOutput::Stdout => Box::new(io::stdout()),
            AccessOutput::File(path) => {
                let open = append(path);
                Box::new(open.map_err(|error| AccessLogError::Open(path.clone(), error))?)
            }
        };
        Ok(Self::writing_to(output, settings, metrics, tasks))
    }

    fn writing_to(
        output: Box<dyn Write + Send>,
        settings: &Settings,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Self {
        let client = settings.client_address;
        let buffers = Arc::new(Buffers::new(metrics.clone(), client));
        let writer = Writer {
            buffers: Arc::clone(&buffers),
            output,
            format: settings.format,
            failing: false,
        };
        let own = tasks.clone();
        tasks.spawn("access log", async move {
            own.blocking("access log", move || writer.run()).await;
        });
        Self(Some(Arc::new(Closing(buffers))))
    }

    /// Takes a record over. Never waits; drops and counts it where there is no room.
    pub fn record(&self, record: AccessRecord) {
        if let Some(log) = &self.0 {
            log.0.put(record);
        }
    }

    /// Shows so much of visitors' addresses from now on, in records that wait too.
    pub fn show_clients(&self, how: ClientAddress) {
        if let Some(log) = &self.0 {
            log.0.client.store(Arc::new(how));
        }
    }

    /// Ends the log: what has been recorded is written, what comes later is dropped.
    pub fn close(&self) {
        if let Some(log) = &self.0 {
            log.0.close();
        }
    }
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Closes the buffers when the last log is dropped.
#[derive(Debug)]
struct Closing(Arc<Buffers>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[derive(Debug)]
struct Buffers {
    stripes: Box<[Mutex<Vec<AccessRecord>>]>,
    most: usize,
    closed: AtomicBool,
    writer: OnceLock<Thread>,
    client: ArcSwap<ClientAddress>,
    metrics: Metrics,
}

impl Buffers {
    fn new(metrics: Metrics, client: ClientAddress) -> Self {
        let stripes = stripes();
        Self {
            stripes: (0..stripes).map(|_| Mutex::default()).collect(),
            most: (MOST_WAITING / stripes).max(1),
            closed: AtomicBool::new(false),
            writer: OnceLock::new(),
            client: ArcSwap::from_pointee(client),
            metrics,
        }
    }

    fn put(&self, record: AccessRecord) {
        let Some(stripe) = self.stripes.get(own_stripe(self.stripes.len())) else {
            return;
        };
        let mut waiting = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: whatever is put before the writer's last round is written by it.
        if waiting.len() >= self.most || self.closed.load(Ordering::Acquire) {
            drop(waiting);
            self.metrics.access_records_dropped.count(());
            return;
        }
        waiting.push(record);
        let half_full = waiting.len() == self.most.div_ceil(2);
        drop(waiting);
        if half_full {
            self.wake_writer();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake_writer();
    }

    fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Empties all buffers into `batch`, in order of time.
    fn take(&self, batch: &mut Vec<AccessRecord>) {
        for stripe in &self.stripes {
            batch.append(&mut stripe.lock().unwrap_or_else(PoisonError::into_inner));
        }
        batch.sort_by_key(|record| record.at);
    }
}

struct Writer {
    buffers: Arc<Buffers>,
    output: Box<dyn Write + Send>,
    format: Format,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        self.buffers.writer.get_or_init(thread::current);
        let mut batch = Vec::new();
        loop {
            // Before the buffers are emptied: nothing can be put after it is seen closed.
            let last = self.buffers.closed.load(Ordering::Acquire);
            self.buffers.take(&mut batch);
            self.write(&mut batch);
            if last {
                return;
            }
            thread::park_timeout(PAUSE);
        }
    }

    fn write(&mut self, batch: &mut Vec<AccessRecord>) {
        let client = **self.buffers.client.load();
        let mut text = String::new();
        let mut lines = 0;
        for record in batch.drain(..) {
            line::append(&mut text, &record, self.format, client);
            lines += 1;
            if text.len() >= MOST_AT_ONCE {
                self.write_out(&mut text, &mut lines);
            }
        }
        self.write_out(&mut text, &mut lines);
    }

    fn write_out(&mut self, text: &mut String, lines: &mut u64) {
        if *lines == 0 {
            return;
        }
        let written = self.output.write_all(text.as_bytes());
        let metrics = &self.buffers.metrics;
        match written.and_then(|()| self.output.flush()) {
            Ok(()) => {
                metrics.access_records.add((), *lines);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("access log is written again");
                }
            }
            Err(error) => {
                metrics.access_records_dropped.add((), *lines);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "access log cannot be written, records are dropped");
                }
            }
        }
        text.clear();
        *lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use http::{Method, Uri};
    use uuid::Uuid;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::telemetry::access::record::{RequestId, RequestPath};
    use crate::telemetry::labels::{End, Protocol};

    fn record(second: i64) -> AccessRecord {
        AccessRecord {
            at: Timestamp::from_seconds(second),
            request: RequestId::Made(Uuid::nil()),
            tenant: None,
            domain: None,
            client: [127, 0, 0, 1].into(),
            tls: None,
            protocol: Protocol::Http1,
            method: Method::GET,
            path: RequestPath::of(&Uri::from_static("/")),
            status: 200,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream: None,
            upstream_duration: None,
            end: End::Completed,
        }
    }

    fn to_file(path: &Path) -> Settings {
        Settings {
            access: AccessOutput::File(path.to_owned()),
            format: Format::Json,
            ..Settings::default()
        }
    }

    #[tokio::test]
    async fn every_record_of_every_thread_is_written_before_the_log_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let (metrics, tasks) = (Metrics::default(), Tasks::new());
        let log = AccessLog::start(&to_file(&path), &metrics, &tasks).unwrap();
        thread::scope(|scope| {
            for worker in 0..4 {
                let log = log.clone();
                scope.spawn(move || (0..100).for_each(|n| log.record(record(n * 4 + worker))));
            }
        });
        drop(log);
        assert_eq!(tasks.finish(Duration::from_secs(10)).await, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 400);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        assert_eq!(metrics.access_records.total(()), 400);
        assert_eq!(metrics.access_records_dropped.total(()), 0);
    }

    /// An output that blocks until it is told to go on, as a full pipe does.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // An error says that it is released for good.
            self.0.recv().unwrap_or_default();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_stuck_output_costs_records_and_never_a_worker() {
        let (release, stuck) = mpsc::channel();
        let (metrics, tasks) = (Metrics::default(), Tasks::new());
        let settings = Settings::default();
        let log = AccessLog::writing_to(Box::new(Stuck(stuck)), &settings, &metrics, &tasks);
        // This thread fills its own stripe only; it would hang here if a record could wait.
        let sent = MOST_WAITING as u64 * 3;
        (0..sent).for_each(|_| log.record(record(1)));
        let dropped = metrics.access_records_dropped.total(());
        assert!(dropped > 0, "{dropped}");
        drop(release);
        log.close();
        assert_eq!(tasks.finish(Duration::from_secs(10)).await, 0);
        assert_eq!(metrics.access_records.total(()) + dropped, sent);
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn records_that_cannot_be_written_count_as_dropped() {
        let (metrics, tasks) = (Metrics::default(), Tasks::new());
        let settings = Settings::default();
        let log = AccessLog::writing_to(Box::new(Broken), &settings, &metrics, &tasks);
        log.record(record(1));
        log.close();
        log.record(record(2));
        assert_eq!(tasks.finish(Duration::from_secs(10)).await, 0);
        assert_eq!(metrics.access_records_dropped.total(()), 2);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_named() {
        let path = Path::new("/nowhere/at/all/access.log");
        let error =
            AccessLog::start(&to_file(path), &Metrics::default(), &Tasks::new()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all/access.log"));
    }
}
