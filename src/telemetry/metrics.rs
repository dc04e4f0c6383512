//! Every metric of the program, by name, with its help.
//!
//! To add one: a line in [`Families`], and a label in [`crate::telemetry::labels`] where it needs a new one.
//! Names are `proxy_<noun>_<unit>`; counters get `_total` when they are written out. What the kernel knows of the
//! process comes under the usual `process_` names.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

use crate::base::clock::{Clock, Timestamp};
use crate::base::task::Tasks;
use crate::model::TenantId;
use crate::model::problem::ProblemCode;
use crate::telemetry::family::{Counters, Gauges, Histograms, Levels};
use crate::telemetry::labels::{
    AdmissionLimit, BudgetFamily, ChallengeAnswer, ChallengeAsked, ConfigState, DataKeyState,
    Direction, End, Expiry, Handshake, IssuanceKind, IssuanceOutcome, JobPriority, JobState,
    LifetimeLeft, Listener, Permission, Protocol, Reload, RequestLimit, RevocationOutcome,
    StatusClass, StoreCall, StoreFailure, UpstreamConnection,
};
use crate::telemetry::process::Process;
use crate::telemetry::readiness::Readiness;
use crate::telemetry::worst::WorstTenants;

pub use crate::telemetry::by_ca::{CountersByCa, GaugesByCa, LabelledGaugesByCa};
pub use crate::telemetry::exposition::Exposition;

/// Declares the families: field, type, how it is made, name and help, which is also its documentation.
macro_rules! families {
    ($($field:ident: $type:ty = $made:expr, $name:literal, $help:literal;)*) => {
        /// The families by field. Finding a cell is arithmetic; writing is a relaxed addition to the thread's
        /// own stripe, unless a type says otherwise.
        #[derive(Debug)]
        pub struct Families {
            $(#[doc = $help] #[doc = concat!("\n\nExposed as `proxy_", $name, "`.")] pub $field: $type,)*
            /// Errors of the worst tenants. Exposed as `proxy_tenant_errors_total`.
            pub tenant_errors: Arc<WorstTenants>,
            panics: Arc<OnceLock<Tasks>>,
            readiness: Arc<OnceLock<Readiness>>,
            registry: Registry,
        }

        impl Families {
            fn new(worst_tenants: usize) -> Self {
                let mut all = Registry::default();
                let started_at = Clock::system().now();
                let process = all.sub_registry_with_prefix("process");
                process.register_collector(Box::new(Process { started_at }));
                let registry = all.sub_registry_with_prefix("proxy");
                $(let $field: $type = $made; registry.register($name, $help, $field.clone());)*
                let tenant_errors = Arc::new(WorstTenants::new(worst_tenants));
                registry.register_collector(Box::new(TenantErrors(Arc::clone(&tenant_errors))));
                let panics = Arc::default();
                registry.register_collector(Box::new(Panics(Arc::clone(&panics))));
                let readiness = Arc::default();
                registry.register_collector(Box::new(Conditions(Arc::clone(&readiness))));
                registry.register_collector(Box::new(Build));
                Self { $($field,)* tenant_errors, panics, readiness, registry: all }
            }
        }
    };
}

families! {
    // --- connections and handshakes
    connections: Counters<Listener> = Counters::default(),
        "connections", "Connections accepted";
    connections_open: Levels<Listener> = Levels::default(),
        "connections_open", "Connections open now";
    admission_refusals: Counters<AdmissionLimit> = Counters::default(),
        "admission_refusals", "Connections refused, by the limit that was reached";
    handshakes: Counters<Handshake> = Counters::default(),
        "handshakes", "TLS handshakes, by outcome, reason, and where the certificate came from";
    handshake_duration: Histograms<Handshake> = Histograms::new(HANDSHAKE_BOUNDS),
        "handshake_duration_seconds", "Time from the accepted connection to the end of its TLS handshake";
    challenges: Counters<(ChallengeAsked, ChallengeAnswer)> = Counters::default(),
        "challenges", "Questions for a challenge, on port 80 or by acme-tls/1";

    // --- requests
    requests: Histograms<(StatusClass, Protocol)> = Histograms::new(REQUEST_BOUNDS),
        "request_duration_seconds", "Time from a request's head to the end of its response; its count is that of requests";
    requests_ended: Counters<End> = Counters::default(),
        "requests_ended", "Requests, by why they ended";
    requests_open: Levels<Protocol> = Levels::default(),
        "requests_open", "Requests in progress";
    request_refusals: Counters<RequestLimit> = Counters::default(),
        "request_refusals", "Requests refused, by the limit on requests in progress that was reached";
    body_bytes: Counters<Direction> = Counters::default(),
        "body_bytes", "Bytes of bodies and tunnels, from and to visitors";

    // --- upstreams
    upstream_connections: Counters<UpstreamConnection> = Counters::default(),
        "upstream_connections", "Attempts to get a connection to an upstream";
    upstream_connect_duration: Histograms<()> = Histograms::new(REQUEST_BOUNDS),
        "upstream_connect_duration_seconds", "Time to connect to an upstream, its TLS handshake included";
    upstream_response_duration: Histograms<StatusClass> = Histograms::new(REQUEST_BOUNDS),
        "upstream_response_duration_seconds", "Time from a request sent to the head of the upstream's response";
    upstream_idle: Levels<()> = Levels::default(),
        "upstream_connections_idle", "Connections to upstreams that wait in pools";

    // --- certificates
    issuances: CountersByCa<(IssuanceKind, IssuanceOutcome)> = CountersByCa::default(),
        "issuances", "Issuances ended, by CA, kind, outcome and, where they failed, who must act";
    issuance_duration: Histograms<IssuanceKind> = Histograms::new(ISSUANCE_BOUNDS),
        "issuance_duration_seconds", "Time of successful issuances";
    revocations: CountersByCa<RevocationOutcome> = CountersByCa::default(),
        "revocations", "Revocations told to CAs, by CA and outcome";
    budget_denials: CountersByCa<BudgetFamily> = CountersByCa::default(),
        "budget_denials", "Orders held back by our own budget, by CA and bucket";
    budget_left: LabelledGaugesByCa<BudgetFamily> = LabelledGaugesByCa::default(),
        "budget_left", "What is left of the part of a CA's limit that we spend; of the emptiest bucket where there are many";
    budget_frozen: LabelledGaugesByCa<BudgetFamily> = LabelledGaugesByCa::default(),
        "budget_frozen_seconds", "How long a CA still wants a bucket left alone; the longest where there are many";
    issuance_problems: Counters<ProblemCode> = Counters::default(),
        "issuance_problems", "Failed issuances, by problem code";
    jobs: Gauges<JobState> = Gauges::default(),
        "jobs", "Certificate jobs that are due and waiting, and that run here";
    oldest_job: Gauges<JobPriority> = Gauges::default(),
        "job_longest_wait_seconds", "How long the certificate job of a priority has waited that has been due longest, renewals and new names held back by a CA's budget included; 0 where none waits";
    ca_ready: GaugesByCa = GaugesByCa::default(),
        "ca_ready", "Whether a CA is asked for certificates: 1, or 0 while it is away";
    root_expiry: GaugesByCa = GaugesByCa::default(),
        "ca_root_expiry_timestamp_seconds", "When the root of a private CA ends; clients trust nothing of that CA afterwards";
    certificates: Gauges<Expiry> = Gauges::default(),
        "certificates", "Certificates that serve a domain, by time to expiry; each is counted once";
    certificates_left: Gauges<LifetimeLeft> = Gauges::default(),
        "certificates_by_lifetime", "Certificates that serve a domain, by how much of their lifetime is left; each is counted once";
    earliest_expiry: Gauges<()> = Gauges::default(),
        "certificate_earliest_expiry_timestamp_seconds", "When the first of the certificates that serve a domain expires; 0 where there is none";
    credentials: Gauges<()> = Gauges::default(),
        "credentials_cached", "Certificates with their keys in memory";
    credential_bytes: Gauges<()> = Gauges::default(),
        "credentials_cached_bytes", "About how much memory the cached certificates take";
    credential_evictions: Counters<()> = Counters::default(),
        "credentials_evicted", "Certificates dropped from memory to make room for others; they are read again when needed";
    clock_ahead: Gauges<()> = Gauges::default(),
        "clock_ahead_seconds", "How far this machine's clock is ahead of what a CA said last; below zero where it is behind";
    permissions: Counters<Permission> = Counters::default(),
        "permissions", "Questions to the permission hook, by how they were answered";
    permission_duration: Histograms<()> = Histograms::new(REQUEST_BOUNDS),
        "permission_duration_seconds", "Time of calls to the permission hook";

    // --- state and configuration
    domains: Gauges<()> = Gauges::default(),
        "domains", "Registered names that this process knows";
    data_keys: Gauges<DataKeyState> = Gauges::default(),
        "data_keys", "Tenants' data keys, and the platform's, by whether the key-encryption keys at hand open them";
    data_keys_rewrapped: Counters<()> = Counters::default(),
        "data_keys_rewrapped", "Data keys wrapped anew by another key-encryption key";
    blobs_resealed: Counters<()> = Counters::default(),
        "blobs_resealed", "Private keys and accounts sealed anew by a newer data key";
    store_duration: Histograms<StoreCall> = Histograms::new(REQUEST_BOUNDS),
        "store_call_duration_seconds", "Time of calls to the store, failed ones included";
    store_failures: Counters<(StoreCall, StoreFailure)> = Counters::default(),
        "store_failures", "Calls to the store that failed";
    reloads: Counters<Reload> = Counters::default(),
        "reloads", "Times that the configuration was read again";
    reload_at: Gauges<Reload> = Gauges::default(),
        "reload_timestamp_seconds", "When the configuration was last read again, by outcome; 0 where never";
    config_state: Gauges<ConfigState> = Gauges::default(),
        "config_state", "Which configuration is in force: 1 for its state, 0 for the other";

    // --- telemetry itself
    access_records: Counters<()> = Counters::default(),
        "access_records", "Access records written";
    access_records_dropped: Counters<()> = Counters::default(),
        "access_records_dropped", "Access records dropped: the output was too slow or failed";
    log_lines_dropped: Counters<()> = Counters::default(),
        "log_lines_dropped", "Log lines dropped: standard error was too slow";
}

/// 0.5 ms to 60 s, in nanoseconds.
const REQUEST_BOUNDS: &[u64] = &[
    500 * MICRO,
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    1_000 * MILLI,
    2_500 * MILLI,
    5_000 * MILLI,
    10_000 * MILLI,
    30_000 * MILLI,
    60_000 * MILLI,
];

/// 0.25 ms to 10 s: from a resumption nearby to a cold issuance.
const HANDSHAKE_BOUNDS: &[u64] = &[
    250 * MICRO,
    500 * MICRO,
    MILLI,
    2_500 * MICRO,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    1_000 * MILLI,
    2_500 * MILLI,
    5_000 * MILLI,
    10_000 * MILLI,
];

/// 10 ms to 10 minutes.
const ISSUANCE_BOUNDS: &[u64] = &[
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    1_000 * MILLI,
    2_500 * MILLI,
    5_000 * MILLI,
    10_000 * MILLI,
    30_000 * MILLI,
    60_000 * MILLI,
    300_000 * MILLI,
    600_000 * MILLI,
];

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

/// The program's metrics, by field of [`Families`]. Cheap to clone; clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Families>);

impl Metrics {
    /// New ones, all zero; `worst_tenants` have a metric of their own for their errors.
    #[must_use]
    pub fn new(worst_tenants: usize) -> Self {
        let metrics = Self(Arc::new(Families::new(worst_tenants)));
        metrics.set_config_state(ConfigState::Current);
        metrics
    }

    /// Exposes the panics of this group of tasks and its relatives. Only the first call counts.
    pub fn watch_panics(&self, tasks: &Tasks) {
        self.panics.get_or_init(|| tasks.clone());
    }

    /// Exposes which conditions of `readiness` are degraded. Only the first call counts.
    pub fn watch_readiness(&self, readiness: &Readiness) {
        self.readiness.get_or_init(|| readiness.clone());
    }

    /// Counts a handshake and how long it took.
    pub fn handshake_ended(&self, handshake: Handshake, duration: Duration) {
        self.handshakes.count(handshake);
        self.handshake_duration.observe(handshake, duration);
    }

    /// Counts a request, and an error of its tenant where it is one.
    pub fn request_ended(&self, request: &EndedRequest<'_>) {
        let class = StatusClass::of(request.status);
        self.requests
            .observe((class, request.protocol), request.duration);
        self.requests_ended.count(request.end);
        if let Some(tenant) = request.tenant
            && (request.end.is_error() || class == StatusClass::ServerError)
        {
            self.tenant_errors.count(tenant);
        }
    }

    /// Counts a reload.
    pub fn reloaded(&self, outcome: Reload, now: Timestamp) {
        self.reloads.count(outcome);
        self.reload_at.set(outcome, now.as_seconds());
    }

    /// Says which configuration is in force.
    pub fn set_config_state(&self, state: ConfigState) {
        for each in ConfigState::ALL {
            self.config_state.set(*each, i64::from(*each == state));
        }
    }

    /// Replaces what is known of the expiry of the certificates that serve.
    pub fn set_expiries(&self, census: &ExpiryCensus) {
        for (expiry, count) in Expiry::ALL.iter().zip(census.counts) {
            self.certificates.set(*expiry, count);
        }
        for (left, count) in LifetimeLeft::ALL.iter().zip(census.left) {
            self.certificates_left.set(*left, count);
        }
        let earliest = census.earliest.map_or(0, Timestamp::as_seconds);
        self.earliest_expiry.set((), earliest);
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// None that happens: writing to memory does not fail.
    pub fn expose(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(32 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        exposition.of(text)
    }
}

impl Default for Metrics {
    /// With 20 worst tenants.
    fn default() -> Self {
        Self::new(20)
    }
}

impl Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}

/// What the metrics want to know of a request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedRequest<'a> {
    /// Whose request it was, where that is known.
    pub tenant: Option<&'a TenantId>,
    /// The status sent; 0 where none was.
    pub status: u16,
    /// The visitor's HTTP version.
    pub protocol: Protocol,
    /// Why it ended.
    pub end: End,
    /// From its head to the end of its response.
    pub duration: Duration,
}

/// Certificates counted by time to expiry, in one pass over all that serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiryCensus {
    counts: [u64; Expiry::ALL.len()],
    left: [u64; LifetimeLeft::ALL.len()],
    earliest: Option<Timestamp>,
}

impl ExpiryCensus {
    /// Counts one that is valid from `not_before` to `not_after`.
    pub fn add(&mut self, not_before: Timestamp, not_after: Timestamp, now: Timestamp) {
        const DAY: Duration = Duration::from_secs(86_400);
        let left = not_after.since(now);
        let expiry = match left {
            Duration::ZERO => Expiry::Expired,
            _ if left <= DAY => Expiry::Day,
            _ if left <= DAY * 3 => Expiry::ThreeDays,
            _ if left <= DAY * 7 => Expiry::Week,
            _ if left <= DAY * 30 => Expiry::Month,
            _ => Expiry::Later,
        };
        if let Some(count) = self.counts.get_mut(expiry as usize) {
            *count += 1;
        }
        let lifetime = not_after.since(not_before);
        let share = match left {
            Duration::ZERO => LifetimeLeft::None,
            _ if left <= lifetime / 4 => LifetimeLeft::Quarter,
            _ if left <= lifetime / 2 => LifetimeLeft::Half,
            _ => LifetimeLeft::More,
        };
        if let Some(count) = self.left.get_mut(share as usize) {
            *count += 1;
        }
        let earliest = self
            .earliest
            .map_or(not_after, |known| known.min(not_after));
        self.earliest = Some(earliest);
    }
}

#[derive(Debug)]
struct TenantErrors(Arc<WorstTenants>);

impl Collector for TenantErrors {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let worst = self.0.worst();
        if worst.is_empty() {
            return Ok(());
        }
        let help = "Errors of the tenants that have the most: requests answered 5xx or ended by a fault of the upstream.";
        let mut family =
            encoder.encode_descriptor("tenant_errors", help, None, MetricType::Counter)?;
        for (tenant, errors) in worst {
            family
                .encode_family(&[("tenant", tenant.as_str())])?
                .encode_counter::<NoLabelSet, _, f64>(&errors, None)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Panics(Arc<OnceLock<Tasks>>);

impl Collector for Panics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let panics = self.0.get().map_or(0, Tasks::panics);
        let help = "Tasks that ended by a panic: each is a bug.";
        let family = encoder.encode_descriptor("task_panics", help, None, MetricType::Counter)?;
        ConstCounter::new(panics).encode(family)
    }
}

#[derive(Debug)]
struct Conditions(Arc<OnceLock<Readiness>>);

impl Collector for Conditions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(readiness) = self.0.get() else {
            return Ok(());
        };
        let help = "Whether a condition that /readyz tells of is degraded: 1 where it is, else 0.";
        let name = "condition_degraded";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (condition, degraded) in readiness.degraded() {
            family
                .encode_family(&[("condition", condition.as_str())])?
                .encode_gauge(&i64::from(degraded))?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Build;

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The running version.";
        let mut family = encoder.encode_descriptor("build", help, None, MetricType::Info)?;
        family.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }
}

#[cfg(test)]
mod tests;
