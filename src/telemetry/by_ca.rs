//! Counters for each configured CA: not a closed enum, but as bounded, for the configuration names them.

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
