//! Families of metrics over closed sets of labels.
//!
//! A family is one flat row of cells, one for each combination of its labels, so that finding a cell is
//! arithmetic and never a look-up. Counters, levels and histograms keep such a row for each of several *stripes*,
//! and a thread writes only its own: workers never contend for a cache line. Writes are relaxed atomic additions; a
//! scrape sums the stripes. Handles are cheap to clone and clones are the same family.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A closed set of label values: `()`, an enum of [`crate::telemetry::labels`], or a tuple of such.
pub trait Labels: Copy + fmt::Debug + Send + Sync + 'static {
    /// How many combinations there are.
    const COUNT: usize;

    /// The place of this combination, below [`Labels::COUNT`].
    fn index(self) -> usize;

    /// Every combination, by place.
    fn all() -> Vec<Self>;

    /// Names and values, as exposed.
    fn words(self) -> Vec<(&'static str, &'static str)>;
}

impl Labels for () {
    const COUNT: usize = 1;

    fn index(self) -> usize {
        0
    }

    fn all() -> Vec<Self> {
        vec![()]
    }

    fn words(self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }
}

impl<A: Labels, B: Labels> Labels for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn all() -> Vec<Self> {
        let firsts = A::all().into_iter();
        firsts
            .flat_map(|a| B::all().into_iter().map(move |b| (a, b)))
            .collect()
    }

    fn words(self) -> Vec<(&'static str, &'static str)> {
        [self.0.words(), self.1.words()].concat()
    }
}

/// Events, counted.
#[derive(Debug)]
pub struct Counters<L>(Arc<Stripes>, PhantomData<L>);

impl<L> Clone for Counters<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<L: Labels> Default for Counters<L> {
    fn default() -> Self {
        Self(Arc::new(Stripes::new(L::COUNT)), PhantomData)
    }
}

impl<L: Labels> Counters<L> {
    /// Counts one.
    pub fn count(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts `n` at once.
    pub fn add(&self, labels: L, n: u64) {
        self.0.add(labels.index(), n);
    }

    /// How many so far, over all threads.
    #[must_use]
    pub fn total(&self, labels: L) -> u64 {
        self.0.sum(labels.index())
    }
}

impl<L: Labels> EncodeMetric for Counters<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for labels in L::all() {
            each(&mut encoder, labels, |one| {
                one.encode_counter::<NoLabelSet, _, f64>(&self.total(labels), None)
            })?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// How many of something there are now: entered and left, on any thread.
#[derive(Debug)]
pub struct Levels<L>(Arc<Stripes>, PhantomData<L>);

impl<L> Clone for Levels<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<L: Labels> Default for Levels<L> {
    fn default() -> Self {
        Self(Arc::new(Stripes::new(L::COUNT)), PhantomData)
    }
}

impl<L: Labels> Levels<L> {
    /// One more, until the guard is dropped.
    pub fn enter(&self, labels: L) -> Entered {
        let index = labels.index();
        self.0.add(index, 1);
        Entered {
            cells: Arc::clone(&self.0),
            index,
        }
    }

    /// How many there are now.
    #[must_use]
    pub fn level(&self, labels: L) -> i64 {
        self.0.sum(labels.index()).cast_signed()
    }
}

/// One that counts in a [`Levels`] family until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Entered {
    cells: Arc<Stripes>,
    index: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Left on another thread than entered, one stripe runs below zero: the wrapping sum is right all the same.
        self.cells.add(self.index, u64::MAX);
    }
}

impl<L: Labels> EncodeMetric for Levels<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for labels in L::all() {
            each(&mut encoder, labels, |one| {
                one.encode_gauge(&self.level(labels))
            })?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Values that are set as a whole, off the hot path; the last one set stands.
#[derive(Debug)]
pub struct Gauges<L>(Arc<[AtomicI64]>, PhantomData<L>);

impl<L> Clone for Gauges<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<L: Labels> Default for Gauges<L> {
    fn default() -> Self {
        let cells = (0..L::COUNT).map(|_| AtomicI64::new(0)).collect();
        Self(cells, PhantomData)
    }
}

impl<L: Labels> Gauges<L> {
    /// Sets the value; what does not fit stands as the largest that does.
    pub fn set(&self, labels: L, value: impl TryInto<i64>) {
        if let Some(cell) = self.0.get(labels.index()) {
            cell.store(value.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// The value as last set; 0 before.
    #[must_use]
    pub fn value(&self, labels: L) -> i64 {
        let cell = self.0.get(labels.index());
        cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl<L: Labels> EncodeMetric for Gauges<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for labels in L::all() {
            each(&mut encoder, labels, |one| {
                one.encode_gauge(&self.value(labels))
            })?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// Durations by bucket. A combination of labels that was never observed is not exposed.
#[derive(Debug)]
pub struct Histograms<L> {
    /// Upper bounds in nanoseconds, ascending, inclusive; one more bucket is for what lies above.
    bounds: &'static [u64],
    /// For each combination: the buckets, then the sum in nanoseconds.
    cells: Arc<Stripes>,
    labels: PhantomData<L>,
}

impl<L> Clone for Histograms<L> {
    fn clone(&self) -> Self {
        Self {
            bounds: self.bounds,
            cells: Arc::clone(&self.cells),
            labels: PhantomData,
        }
    }
}

impl<L: Labels> Histograms<L> {
    /// With these upper bounds in nanoseconds, ascending.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            cells: Arc::new(Stripes::new(L::COUNT * (bounds.len() + 2))),
            labels: PhantomData,
        }
    }

    /// Observes one duration.
    pub fn observe(&self, labels: L, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < nanos);
        let first = self.first_cell(labels);
        self.cells.add(first + bucket, 1);
        self.cells.add(first + self.bounds.len() + 1, nanos);
    }

    /// How many were observed so far.
    #[must_use]
    pub fn observed(&self, labels: L) -> u64 {
        self.buckets(labels).iter().map(|(_, count)| count).sum()
    }

    /// All that was observed so far, together.
    #[must_use]
    pub fn total(&self, labels: L) -> Duration {
        let nanos = self
            .cells
            .sum(self.first_cell(labels) + self.bounds.len() + 1);
        Duration::from_nanos(nanos)
    }

    fn first_cell(&self, labels: L) -> usize {
        labels.index() * (self.bounds.len() + 2)
    }

    fn buckets(&self, labels: L) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().map(|nanos| seconds(*nanos));
        bounds
            .chain([f64::INFINITY])
            .zip(self.first_cell(labels)..)
            .map(|(bound, cell)| (bound, self.cells.sum(cell)))
            .collect()
    }
}

impl<L: Labels> EncodeMetric for Histograms<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for labels in L::all() {
            let buckets = self.buckets(labels);
            // From the buckets just read, so that count and last bucket agree while others write.
            let count = buckets.iter().map(|(_, count)| count).sum();
            if count == 0 {
                continue;
            }
            let sum = self
                .cells
                .sum(self.first_cell(labels) + self.bounds.len() + 1);
            each(&mut encoder, labels, |one| {
                one.encode_histogram::<NoLabelSet>(seconds(sum), count, &buckets, None)
            })?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of more than 104 days loses nanoseconds, which nobody reads"
)]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Encodes one combination of labels; without a pair of empty braces where there are none.
fn each<L: Labels>(
    encoder: &mut MetricEncoder<'_>,
    labels: L,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let words = labels.words();
    if words.is_empty() {
        return encode(encoder);
    }
    encode(&mut encoder.encode_family(&words)?)
}

/// Rows of cells, one row for each stripe, on cache lines of their own.
#[derive(Debug)]
struct Stripes {
    cells: Box<[AtomicU64]>,
    stride: usize,
    stripes: usize,
}

impl Stripes {
    fn new(width: usize) -> Self {
        let stripes = stripes();
        let stride = width.next_multiple_of(CELLS_APART);
        Self {
            cells: (0..stripes * stride).map(|_| AtomicU64::new(0)).collect(),
            stride,
            stripes,
        }
    }

    fn add(&self, index: usize, n: u64) {
        let stripe = own_stripe(self.stripes);
        if let Some(cell) = self.cells.get(stripe * self.stride + index) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn sum(&self, index: usize) -> u64 {
        (0..self.stripes)
            .filter_map(|stripe| self.cells.get(stripe * self.stride + index))
            .fold(0, |sum, cell| {
                sum.wrapping_add(cell.load(Ordering::Relaxed))
            })
    }
}

/// 128 bytes: two cache lines, for the processor fetches them in pairs.
const CELLS_APART: usize = 16;
/// The most rows of a family: beyond so many threads they begin to share.
const MOST_STRIPES: usize = 32;

/// How many stripes things are kept in that every thread writes: one for each processor, and some for the threads
/// of the control plane.
pub(crate) fn stripes() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors * 2).clamp(2, MOST_STRIPES)
}

/// This thread's own among `stripes`.
pub(crate) fn own_stripe(stripes: usize) -> usize {
    THREAD.with(|ordinal| ordinal % stripes)
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's number, in the order in which threads first counted something.
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::{Protocol, StatusClass};

    #[test]
    fn every_combination_has_its_own_cell() {
        type Pair = (StatusClass, Protocol);
        let places: Vec<usize> = Pair::all().into_iter().map(Labels::index).collect();
        assert_eq!(places, (0..Pair::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn counts_of_many_threads_add_up() {
        let counters = Counters::<Protocol>::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.count(Protocol::H2)));
            }
        });
        assert_eq!(counters.total(Protocol::H2), 80_000);
        assert_eq!(counters.total(Protocol::Http1), 0);
    }

    #[test]
    fn a_level_left_on_another_thread_returns_to_zero() {
        let levels = Levels::<()>::default();
        let entered = levels.enter(());
        assert_eq!(levels.level(()), 1);
        std::thread::spawn(move || drop(entered)).join().unwrap();
        assert_eq!(levels.level(()), 0);
    }

    #[test]
    fn an_observation_on_a_bound_lies_within_it() {
        let histogram = Histograms::<()>::new(&[1_000_000, 1_000_000_000]);
        for millis in [1, 2, 1000, 5000] {
            histogram.observe((), Duration::from_millis(millis));
        }
        let counts: Vec<u64> = histogram.buckets(()).iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, [1, 2, 1]);
        assert_eq!(histogram.observed(()), 4);
        assert_eq!(histogram.total(()), Duration::from_millis(6003));
    }
}
