//! Counters and gauges for each configured CA: not a closed enum, but as bounded, for the configuration names them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::model::certificate::CaId;
use crate::telemetry::family::Labels;

/// The most authorities told apart; what comes after counts as `other`.
const MOST: usize = 16;

/// Events counted by CA and further labels. Takes a lock: for what happens as rarely as an issuance.
#[derive(Debug)]
pub struct CountersByCa<L> {
    counts: Arc<Mutex<BTreeMap<CaId, Vec<u64>>>>,
    labels: PhantomData<L>,
}

impl<L> Clone for CountersByCa<L> {
    fn clone(&self) -> Self {
        Self {
            counts: Arc::clone(&self.counts),
            labels: PhantomData,
        }
    }
}

impl<L> Default for CountersByCa<L> {
    fn default() -> Self {
        Self {
            counts: Arc::default(),
            labels: PhantomData,
        }
    }
}

impl<L: Labels> CountersByCa<L> {
    /// Counts one.
    pub fn count(&self, ca: &CaId, labels: L) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let told_apart = counts.len() < MOST || counts.contains_key(ca);
        let key = told_apart.then(|| ca.clone());
        let row = counts
            .entry(key.unwrap_or_else(|| CaId::new("other")))
            .or_insert_with(|| vec![0; L::COUNT]);
        if let Some(cell) = row.get_mut(labels.index()) {
            *cell = cell.saturating_add(1);
        }
    }

    /// How many so far.
    #[must_use]
    pub fn total(&self, ca: &CaId, labels: L) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let row = counts.get(ca);
        row.and_then(|row| row.get(labels.index()).copied())
            .unwrap_or(0)
    }
}

impl<L: Labels> EncodeMetric for CountersByCa<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (ca, row) in &*counts {
            for (labels, count) in L::all().into_iter().zip(row) {
                let mut words = vec![("ca", ca.as_str())];
                words.extend(labels.words());
                encoder
                    .encode_family(&words)?
                    .encode_counter::<NoLabelSet, _, f64>(count, None)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.is_empty()
    }
}

/// A value by CA, set as a whole; the last one set stands. Takes a lock: for what changes rarely.
#[derive(Clone, Debug, Default)]
pub struct GaugesByCa(Arc<Mutex<BTreeMap<CaId, i64>>>);

impl GaugesByCa {
    /// Sets the value of `ca`; that of a CA beyond the bound is not told.
    pub fn set(&self, ca: &CaId, value: i64) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if values.len() < MOST || values.contains_key(ca) {
            values.insert(ca.clone(), value);
        }
    }

    /// Tells nothing of `ca` any more.
    pub fn forget(&self, ca: &CaId) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.remove(ca);
    }

    /// The value as last set, where one was.
    #[must_use]
    pub fn value(&self, ca: &CaId) -> Option<i64> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(ca).copied()
    }
}

impl EncodeMetric for GaugesByCa {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (ca, value) in &*values {
            encoder
                .encode_family(&[("ca", ca.as_str())])?
                .encode_gauge(value)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.is_empty()
    }
}

/// A value by CA and further labels, set as a whole; the last one set stands. What was never set is not told. Takes a
/// lock: for what changes rarely.
#[derive(Debug)]
pub struct LabelledGaugesByCa<L> {
    values: Arc<Mutex<BTreeMap<CaId, Vec<Option<i64>>>>>,
    labels: PhantomData<L>,
}

impl<L> Clone for LabelledGaugesByCa<L> {
    fn clone(&self) -> Self {
        Self {
            values: Arc::clone(&self.values),
            labels: PhantomData,
        }
    }
}

impl<L> Default for LabelledGaugesByCa<L> {
    fn default() -> Self {
        Self {
            values: Arc::default(),
            labels: PhantomData,
        }
    }
}

impl<L: Labels> LabelledGaugesByCa<L> {
    /// Sets a value of `ca`; that of a CA beyond the bound is not told.
    pub fn set(&self, ca: &CaId, labels: L, value: i64) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if values.len() >= MOST && !values.contains_key(ca) {
            return;
        }
        let row = values
            .entry(ca.clone())
            .or_insert_with(|| vec![None; L::COUNT]);
        if let Some(cell) = row.get_mut(labels.index()) {
            *cell = Some(value);
        }
    }

    /// The value as last set, where one was.
    #[must_use]
    pub fn value(&self, ca: &CaId, labels: L) -> Option<i64> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let row = values.get(ca)?;
        row.get(labels.index()).copied().flatten()
    }
}

impl<L: Labels> EncodeMetric for LabelledGaugesByCa<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for (ca, row) in &*values {
            for (labels, value) in L::all().into_iter().zip(row) {
                let Some(value) = value else { continue };
                let mut words = vec![("ca", ca.as_str())];
                words.extend(labels.words());
                encoder.encode_family(&words)?.encode_gauge(value)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::IssuanceOutcome;

    #[test]
    fn authorities_beyond_the_bound_count_as_other() {
        let counters = CountersByCa::<IssuanceOutcome>::default();
        for n in 0..40 {
            counters.count(&CaId::new(&format!("ca{n:02}")), IssuanceOutcome::Issued);
        }
        counters.count(&CaId::new("ca00"), IssuanceOutcome::Issued);
        assert_eq!(
            counters.total(&CaId::new("ca00"), IssuanceOutcome::Issued),
            2
        );
        assert_eq!(
            counters.total(&CaId::new("other"), IssuanceOutcome::Issued),
            24
        );
    }
}
