//! Metrics as text, in the form that the scraper asks for.

use std::fmt;

/// The two text forms in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4, which older scrapers and `promtool check metrics` read.
    Prometheus,
}

impl Exposition {
    /// What an `Accept` field asks for.
    #[must_use]
    pub fn asked_by(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            Some(_) | None => Self::Prometheus,
        }
    }

    /// The media type of the text.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// `OpenMetrics` text in this form.
    pub(crate) fn of(self, open_metrics: String) -> Result<String, fmt::Error> {
        match self {
            Self::OpenMetrics => Ok(open_metrics),
            Self::Prometheus => prometheus(&open_metrics),
        }
    }
}

/// A counter's family is named like its samples there, with `_total`; there is no type `info` and no end mark.
fn prometheus(open_metrics: &str) -> Result<String, fmt::Error> {
    use fmt::Write as _;

    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                // Unknown to the older form: a gauge that is always 1.
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(helped, _)| *helped == name) {
                writeln!(text, "# HELP {name}{suffix} {words}")?;
            }
            writeln!(text, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with("# ") {
            writeln!(text, "{line}")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_names_counters_with_their_suffix() {
        let open = "# HELP a Help.\n# TYPE a counter\na_total{x=\"y\"} 1\n# HELP b Help b.\n# TYPE b gauge\n\
                    # UNIT b seconds\nb 2\n# EOF\n";
        let expected = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"y\"} 1\n# HELP b Help b.\n\
                        # TYPE b gauge\nb 2\n";
        assert_eq!(
            Exposition::Prometheus.of(open.to_owned()).unwrap(),
            expected
        );
    }

    #[test]
    fn a_scraper_gets_the_form_it_asks_for() {
        let modern = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        assert_eq!(Exposition::asked_by(Some(modern)), Exposition::OpenMetrics);
        assert_eq!(Exposition::asked_by(Some("*/*")), Exposition::Prometheus);
        assert_eq!(Exposition::asked_by(None), Exposition::Prometheus);
    }
}
