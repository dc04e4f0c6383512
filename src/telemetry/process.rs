//! What the kernel knows of this process, under the names that Prometheus' own clients use, read at each scrape.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

use crate::base::clock::Timestamp;

/// Clock ticks a second in `/proc` (`USER_HZ`, 100 in the kernel's interface on every architecture we build for).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the process at each scrape; what cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process {
    /// When it started.
    pub(super) started_at: Timestamp,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let start = u64::try_from(self.started_at.as_seconds()).ok();
        let gauges = [
            ("open_fds", "Open file descriptors.", open_descriptors()),
            (
                "max_fds",
                "The most file descriptors that may be open.",
                most_descriptors(),
            ),
            ("resident_memory_bytes", "Memory held.", resident_bytes()),
            ("start_time_seconds", "When the process started.", start),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value.and_then(|value| i64::try_from(value).ok()) else {
                continue;
            };
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(family)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let help = "Time of processors used, in user and system mode.";
            let kind = MetricType::Counter;
            let family = encoder.encode_descriptor("cpu_seconds", help, None, kind)?;
            ConstCounter::new(seconds).encode(family)?;
        }
        Ok(())
    }
}

/// Kernels since 6.2 tell the number as the folder's size; on older ones the entries are counted.
fn open_descriptors() -> Option<u64> {
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told);
    }
    // One of them is the folder being read.
    let counted = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    u64::try_from(counted).ok()
}

fn most_descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn cpu_seconds() -> Option<f64> {
    ticks(&fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| ticks / TICKS_PER_SECOND)
}

/// User and system time: fields 14 and 15, counted behind the name, which may hold blanks and brackets.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: f64 = times.next()?.parse().ok()?;
    let system: f64 = times.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let open = open_descriptors().unwrap();
        assert!((3..=most_descriptors().unwrap()).contains(&open), "{open}");
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(cpu_seconds().unwrap() >= 0.0);
    }

    #[test]
    fn a_process_name_with_blanks_and_brackets_moves_no_field() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(ticks(stat), Some(200.0));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
