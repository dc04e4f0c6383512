//! The families as they are exposed, and the alert rules that ask for them.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::model::certificate::CaId;
use crate::telemetry::labels::{CredentialOrigin, HandshakeReason};
use crate::telemetry::readiness::{Condition, Health};

fn request(tenant: Option<&TenantId>, status: u16, end: End) -> EndedRequest<'_> {
    EndedRequest {
        tenant,
        status,
        protocol: Protocol::H2,
        end,
        duration: Duration::from_millis(3),
    }
}

fn used() -> Metrics {
    let metrics = Metrics::new(3);
    let tenant = TenantId::parse("acme").unwrap();
    metrics.request_ended(&request(Some(&tenant), 200, End::Completed));
    metrics.request_ended(&request(Some(&tenant), 502, End::UpstreamUnreachable));
    metrics.request_ended(&request(None, 400, End::BadRequest));
    let origin = CredentialOrigin::Issued;
    metrics.handshake_ended(Handshake::full(origin), Duration::from_millis(80));
    metrics.handshake_ended(
        Handshake::without(HandshakeReason::UnknownName),
        Duration::from_micros(90),
    );
    let (kind, outcome) = (IssuanceKind::First, IssuanceOutcome::Issued);
    metrics
        .issuances
        .count(&CaId::new("a\"b\\c\nd"), (kind, outcome));
    metrics
        .revocations
        .count(&CaId::new("ca"), RevocationOutcome::Failed);
    metrics.reloaded(Reload::Failure, Timestamp::from_seconds(1_800_000_000));
    metrics.set_config_state(ConfigState::LastGood);
    metrics
}

#[test]
fn counts_what_the_program_tells() {
    let metrics = used();
    let _guard = metrics.connections_open.enter(Listener::Https);
    let text = metrics.expose(Exposition::Prometheus).unwrap();
    for line in [
        "proxy_request_duration_seconds_count{status=\"2xx\",protocol=\"h2\"} 1",
        "proxy_requests_ended_total{end=\"upstream_unreachable\"} 1",
        "proxy_tenant_errors_total{tenant=\"acme\"} 1",
        "proxy_handshakes_total{outcome=\"served\",reason=\"full\",origin=\"issued\"} 1",
        "proxy_handshakes_total{outcome=\"refused\",reason=\"unknown_name\",origin=\"none\"} 1",
        "proxy_handshake_duration_seconds_bucket{le=\"0.1\",outcome=\"served\",reason=\"full\",origin=\"issued\"} 1",
        "proxy_issuances_total{ca=\"a\\\"b\\\\c\\nd\",kind=\"first\",outcome=\"issued\",actor=\"none\"} 1",
        "proxy_connections_open{listener=\"https\"} 1",
        "proxy_reload_timestamp_seconds{outcome=\"failure\"} 1800000000",
        "proxy_config_state{state=\"last_good\"} 1",
        "proxy_task_panics_total 0",
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE process_resident_memory_bytes gauge",
        "proxy_access_records_dropped_total 0",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line}\nnot in\n{text}"
        );
    }
}

#[test]
fn certificates_of_every_lifetime_are_late_in_their_last_quarter() {
    for days in [6, 45, 90] {
        let lifetime = Duration::from_secs(86_400 * days);
        let (begin, end) = (Timestamp::EPOCH, Timestamp::EPOCH.plus(lifetime));
        let check = |age: Duration, expected: [u64; 4]| {
            let mut census = ExpiryCensus::default();
            census.add(begin, end, begin.plus(age));
            assert_eq!(census.left, expected, "{days} days, after {age:?}");
        };
        check(Duration::ZERO, [0, 0, 0, 1]);
        check(lifetime / 2, [0, 0, 1, 0]);
        check(lifetime * 2 / 3, [0, 0, 1, 0]);
        check(lifetime * 3 / 4, [0, 1, 0, 0]);
        check(lifetime, [1, 0, 0, 0]);
    }
}

#[test]
fn degraded_conditions_are_exposed() {
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    metrics.watch_readiness(&readiness);
    readiness.set(Condition::Store, Health::Degraded("disk full".into()));
    let text = metrics.expose(Exposition::Prometheus).unwrap();
    assert!(text.contains("proxy_condition_degraded{condition=\"store\"} 1\n"));
    assert!(text.contains("proxy_condition_degraded{condition=\"names\"} 0\n"));
    assert!(!text.contains("disk full"));
}

#[test]
fn panics_are_read_from_the_tasks() {
    let (metrics, tasks) = (Metrics::default(), Tasks::new());
    metrics.watch_panics(&tasks);
    assert!(
        metrics
            .expose(Exposition::OpenMetrics)
            .unwrap()
            .contains("proxy_task_panics_total 0")
    );
}

/// The rules of both text forms: each family has help and type before its samples and appears once, every sample
/// belongs to it, no series appears twice, buckets grow and end with the count.
fn check_exposition(text: &str, form: Exposition) {
    let (mut helped, mut kind) = (HashSet::new(), HashMap::new());
    let mut series = HashSet::new();
    let mut current = String::new();
    let mut growing: HashMap<String, u64> = HashMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()), "{name} twice");
            assert!(help.ends_with('.') && !help.ends_with(".."), "{help}");
            let own = name.starts_with("proxy_") || name.starts_with("process_");
            assert!(own, "{name}");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, is) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "a type without help before it");
            kind.insert(name.to_owned(), is.to_owned());
        } else if line.starts_with('#') {
            assert_eq!((line, form), ("# EOF", Exposition::OpenMetrics));
        } else {
            let (name_and_labels, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite());
            assert!(series.insert(name_and_labels.to_owned()), "{line} twice");
            let name = name_and_labels.split('{').next().unwrap();
            let suffix = name
                .strip_prefix(&current)
                .unwrap_or_else(|| panic!("{line} is not of {current}"));
            let allowed: &[&str] = match (kind[&current].as_str(), form) {
                ("counter", Exposition::OpenMetrics) => &["_total"],
                ("counter" | "gauge", _) => &[""],
                ("info", Exposition::OpenMetrics) => &["_info"],
                ("histogram", _) => &["_sum", "_count", "_bucket"],
                (other, _) => panic!("{other}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            if suffix == "_bucket" {
                let labels = name_and_labels.split_once(',').map_or("", |(_, rest)| rest);
                let last = growing.entry(format!("{name}{labels}")).or_default();
                let cumulative: u64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
                assert!(cumulative >= *last, "{line}");
                *last = cumulative;
            }
        }
    }
    assert_eq!(text.ends_with("# EOF\n"), form == Exposition::OpenMetrics);
    assert!(helped.len() > 30, "{}", helped.len());
}

#[test]
fn both_text_forms_keep_their_rules() {
    for form in [Exposition::OpenMetrics, Exposition::Prometheus] {
        for metrics in [Metrics::new(0), used()] {
            check_exposition(&metrics.expose(form).unwrap(), form);
        }
    }
}

#[test]
fn a_census_sorts_by_time_left_and_finds_the_earliest() {
    let now = Timestamp::from_seconds(1_000_000);
    let mut census = ExpiryCensus::default();
    for hours in [0, 1, 24, 25, 72, 100, 24 * 20, 24 * 80] {
        let end = now.plus(Duration::from_secs(3600 * hours));
        census.add(end.minus(Duration::from_secs(86_400 * 90)), end, now);
    }
    let metrics = Metrics::default();
    metrics.set_expiries(&census);
    let counts: Vec<i64> = Expiry::ALL
        .iter()
        .map(|expiry| metrics.certificates.value(*expiry))
        .collect();
    assert_eq!(counts, [1, 2, 2, 1, 1, 1]);
    assert_eq!(metrics.earliest_expiry.value(()), 1_000_000);
    let left: Vec<i64> = LifetimeLeft::ALL
        .iter()
        .map(|left| metrics.certificates_left.value(*left))
        .collect();
    assert_eq!(left, [1, 6, 0, 1]);
    metrics.set_expiries(&ExpiryCensus::default());
    assert_eq!(metrics.earliest_expiry.value(()), 0);
}

/// `deploy/prometheus/rules.yml` asks only for what is exposed, by name and by label.
#[test]
fn every_metric_of_the_alert_rules_is_exposed_with_the_labels_asked_for() {
    let (metrics, readiness) = (used(), Readiness::default());
    metrics.watch_readiness(&readiness);
    metrics.ca_ready.set(&CaId::new("ca"), 1);
    metrics.root_expiry.set(&CaId::new("ca"), 1);
    let text = metrics.expose(Exposition::Prometheus).unwrap();
    let rules = include_str!("../../../deploy/prometheus/rules.yml");
    let mut asked = 0;
    for rest in rules.split("proxy_").skip(1) {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap());
        let name = format!("proxy_{name}");
        let series: Vec<&str> = text
            .lines()
            .filter(|line| line.split([' ', '{']).next() == Some(&*name))
            .collect();
        let histogram = format!("# TYPE {name} histogram");
        assert!(
            !series.is_empty() || text.contains(&histogram),
            "{name} is not exposed"
        );
        asked += 1;
        let Some((matchers, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
        else {
            continue;
        };
        for matcher in matchers.split(',').map(str::trim) {
            let (label, values) = matcher.split_once('=').unwrap();
            for value in values.trim_matches(['~', '"']).split('|') {
                let wanted = format!("{label}=\"{value}\"");
                let found = series.iter().any(|line| line.contains(&wanted));
                assert!(found, "{name} is never exposed with {wanted}");
            }
        }
    }
    assert!(asked >= 15, "only {asked} metrics found in the rules");
}
