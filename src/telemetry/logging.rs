//! The program's own log: to standard error, JSON or text, with a filter that can be changed while running.
//!
//! Messages are constant; what varies is a field. A line is written by a thread of its own from a bounded queue, so
//! that a full pipe never stops a worker (a dropped line is counted), and every control character but the line's end
//! is escaped on its way out, whatever a field holds.

use std::fmt;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::settings::{Format, Settings};

/// Lines that wait to be written; further ones are dropped.
const MOST_WAITING: usize = 8192;
/// For the last lines to be written when the program ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The installed log. Dropping it writes the lines that wait, for at most two seconds: keep it until the end of
/// `main`.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: SyncSender<Message>,
}

/// Why there is no log, or its filter stays as it was.
#[derive(Debug)]
pub enum LoggingError {
    /// The filter cannot be read.
    Filter(String, tracing_subscriber::filter::ParseError),
    /// Another log is installed in this process.
    Installed,
    /// No thread can be started.
    Thread(io::Error),
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(filter, _) => write!(
                f,
                "log filter {filter:?} is not a level (error, warn, info, debug, trace) or a list \
                 like info,vestibule::certs=debug"
            ),
            Self::Installed => f.write_str("a log is installed already"),
            Self::Thread(_) => f.write_str("cannot start the thread that writes the log"),
        }
    }
}

impl std::error::Error for LoggingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Filter(_, error) => Some(error),
            Self::Installed => None,
            Self::Thread(error) => Some(error),
        }
    }
}

impl Logging {
    /// Installs the log for the whole process: call it once, before the first runtime.
    ///
    /// # Errors
    /// [`LoggingError`].
    pub fn install(settings: &Settings, metrics: &Metrics) -> Result<Self, LoggingError> {
        let (filter, handle) = reload::Layer::new(parse(&settings.filter)?);
        let (lines, waiting) = mpsc::sync_channel(MOST_WAITING);
        // A thread and not a task: the log begins before the first runtime and ends after the last.
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_out(&waiting, io::stderr()))
            .map_err(LoggingError::Thread)?;
        let queue = Queue {
            lines: lines.clone(),
            format: settings.format,
            metrics: metrics.clone(),
        };
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(queue);
        let layer = match settings.format {
            Format::Json => layer.json().flatten_event(true).boxed(),
            Format::Text => layer.boxed(),
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(layer)
            .try_init()
            .map_err(|_installed| LoggingError::Installed)?;
        Ok(Self {
            filter: handle,
            lines,
        })
    }

    /// Changes the filter while running.
    ///
    /// # Errors
    /// [`LoggingError::Filter`]; the old filter stays then.
    pub fn set_filter(&self, filter: &str) -> Result<(), LoggingError> {
        let filter = parse(filter)?;
        self.filter
            .reload(filter)
            .map_err(|_gone| LoggingError::Installed)
    }
}

/// Whether `filter` can be used, for the check of a configuration.
///
/// # Errors
/// [`LoggingError::Filter`].
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse(filter).map(drop)
}

/// What libraries say below an error is not for operators: the resolver prints a stranger's whole answer, and what it
/// means for a domain is told by its problem. A filter that names the library has it all the same.
const LIBRARIES: &str = "hickory_net=error,hickory_proto=error,hickory_resolver=error";

fn parse(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(format!("{LIBRARIES},{filter}"))
        .map_err(|error| LoggingError::Filter(filter.to_owned(), error))
}

impl Drop for Logging {
    fn drop(&mut self) {
        let (written, all_written) = mpsc::sync_channel(1);
        if self.lines.try_send(Message::Flush(written)).is_ok() {
            // An error is the deadline: the output is stuck, and we do not wait for it.
            all_written.recv_timeout(LAST_LINES).unwrap_or_default();
        }
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

fn write_out(waiting: &Receiver<Message>, mut output: impl Write) {
    while let Ok(message) = waiting.recv() {
        match message {
            // Nobody can be told that standard error is gone.
            Message::Line(line) => drop(output.write_all(&line)),
            Message::Flush(written) => drop(written.try_send(())),
        }
    }
}

/// Where events are written to: a line each, escaped, into the queue.
#[derive(Clone, Debug)]
struct Queue {
    lines: SyncSender<Message>,
    format: Format,
    metrics: Metrics,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Queue {
    /// Takes one whole event: that is how the subscriber writes them.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = escaped(event, self.format);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(Message::Line(line))
        {
            self.metrics.log_lines_dropped.count(());
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The event as one line: control characters inside it become escapes of the line's format. JSON has no control
/// characters outside of strings, so their escapes stay valid there.
fn escaped(event: &[u8], format: Format) -> Vec<u8> {
    let body = event.strip_suffix(b"\n").unwrap_or(event);
    let plain = |byte: &u8| (0x20..0x7f).contains(byte);
    let mut line = if body.iter().all(plain) {
        body.to_vec()
    } else {
        let mut text = String::with_capacity(body.len() + 32);
        for c in String::from_utf8_lossy(body).chars() {
            match (c.is_control(), format) {
                (false, _) => text.push(c),
                (true, Format::Json) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
                (true, Format::Text) => text.extend(c.escape_default()),
            }
        }
        text.into_bytes()
    };
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;

    use super::*;

    /// What an event with a hostile field becomes.
    fn written(format: Format, hostile: &str) -> String {
        let (lines, waiting) = mpsc::sync_channel(8);
        let queue = Queue {
            lines,
            format,
            metrics: Metrics::default(),
        };
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(queue);
        let layer = match format {
            Format::Json => layer.json().flatten_event(true).boxed(),
            Format::Text => layer.boxed(),
        };
        with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(domain = %hostile, "name refused");
        });
        let mut output = Vec::new();
        write_out(&waiting, &mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_strangers_dns_answer_is_printed_only_where_it_is_asked_for() {
        let enabled = |filter: &str| {
            let layer = tracing_subscriber::fmt::layer().with_writer(io::sink);
            let subscriber = Registry::default().with(layer.with_filter(parse(filter).unwrap()));
            with_default(
                subscriber,
                || tracing::enabled!(target: "hickory_net::dnssec", tracing::Level::WARN),
            )
        };
        for (filter, expected) in [
            ("info", false),
            ("debug", false),
            ("info,hickory_net=debug", true),
        ] {
            assert_eq!(enabled(filter), expected, "{filter}");
        }
    }

    const HOSTILE: &str = "a\nERROR forged\r\t\u{1b}[31m\u{7f}\u{9b}\0b";

    #[test]
    fn no_field_can_forge_a_line_or_a_terminal_escape() {
        for format in [Format::Json, Format::Text] {
            let text = written(format, HOSTILE);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn json_lines_parse_and_give_the_field_back() {
        let json: serde_json::Value =
            serde_json::from_str(&written(Format::Json, HOSTILE)).unwrap();
        assert_eq!(json["domain"], HOSTILE);
        assert_eq!(json["message"], "name refused");
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let (lines, _waiting) = mpsc::sync_channel(1);
        let metrics = Metrics::default();
        let queue = Queue {
            lines,
            format: Format::Text,
            metrics: metrics.clone(),
        };
        (0..3).for_each(|_| (&queue).write_all(b"line\n").unwrap());
        assert_eq!(metrics.log_lines_dropped.total(()), 2);
    }

    #[test]
    fn a_wrong_filter_is_quoted_with_an_example() {
        let text = check_filter("vestibule=loud").unwrap_err().to_string();
        assert!(text.contains("\"vestibule=loud\"") && text.contains("certs=debug"));
        check_filter("info,vestibule::certs=debug").unwrap();
    }
}
