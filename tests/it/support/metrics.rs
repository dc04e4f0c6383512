//! What the edge counts, read from its metrics page.

/// One reading of all series.
#[derive(Debug)]
pub(crate) struct Metrics {
    series: Vec<(String, f64)>,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let series = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect();
        Self { series }
    }

    /// The sum over the series of this name that hold all these labels, each as `name="value"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }
}
