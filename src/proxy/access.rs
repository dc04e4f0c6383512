//! What a request adds up to: one access record and its metrics, at its very end, however it ends.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::{Method, StatusCode, Uri, Version};

use crate::base::clock::{Instant, Timestamp, monotonic};
use crate::model::route::UpstreamName;
use crate::model::{DnsName, TenantId};
use crate::proxy::admission::{Busy, RequestPlaces};
use crate::proxy::facts::{ConnectionFacts, TlsVersion};
use crate::proxy::worker::Worker;
use crate::telemetry::access::{AccessRecord, RequestId, RequestPath, Tls};
use crate::telemetry::family::Entered;
use crate::telemetry::labels::{Direction, End, Protocol, RequestLimit, StatusClass};
use crate::telemetry::trouble::Forwarded;

/// The longest id that is taken over from a trusted proxy.
const MOST_ID: usize = 128;

/// The running account of one request. Shared by its two directions, which are on one thread.
pub(in crate::proxy) struct Account {
    worker: Rc<Worker>,
    connection: Rc<ConnectionFacts>,
    /// When its head had been read.
    pub began: Instant,
    at: Timestamp,
    id: Id,
    method: Method,
    target: Uri,
    protocol: Protocol,
    client: IpAddr,
    owner: OnceCell<(TenantId, DnsName)>,
    status: Cell<u16>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    upstream: OnceCell<UpstreamName>,
    upstream_duration: Cell<Option<Duration>>,
    end: Cell<Option<End>>,
    places: OnceCell<RequestPlaces>,
    _open: Entered,
}

/// A request's id, in the two forms it is needed in.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Id {
    /// As the `X-Request-Id` field.
    pub field: HeaderValue,
    known: RequestId,
}

impl Id {
    /// The one that a believed proxy gave, where it is of a form that is safe to pass on; else a new one, which
    /// sorts by time (UUID version 7).
    pub(in crate::proxy) fn of(given: Option<&HeaderValue>, at: Timestamp) -> Self {
        let given = given.filter(|value| is_safe(value.as_bytes()));
        match given.and_then(|field| Some((field, field.to_str().ok()?))) {
            Some((field, text)) => Self {
                field: field.clone(),
                known: RequestId::Given(Arc::from(text)),
            },
            None => Self::new(at),
        }
    }

    fn new(at: Timestamp) -> Self {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = id.hyphenated().encode_lower(&mut text);
        Self {
            field: HeaderValue::from_str(text).unwrap_or(UNKNOWN),
            known: RequestId::Made(id),
        }
    }
}

/// Never seen: an id is made of hexadecimal digits and hyphens.
const UNKNOWN: HeaderValue = HeaderValue::from_static("-");

fn is_safe(id: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b);
    (1..=MOST_ID).contains(&id.len()) && id.iter().all(plain)
}

/// What is known of a request when its head has been read.
pub(in crate::proxy) struct Opening<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target.
    pub target: &'a Uri,
    /// Its HTTP version.
    pub version: Version,
    /// Its id, as a believed proxy gave it.
    pub id: Option<&'a HeaderValue>,
    /// Who visits.
    pub client: IpAddr,
}

impl Account {
    /// Opens the account of a request whose head has just been read.
    pub(in crate::proxy) fn open(
        worker: &Rc<Worker>,
        connection: &Rc<ConnectionFacts>,
        opening: &Opening<'_>,
    ) -> Rc<Self> {
        let at = worker.shared.clock.now();
        let protocol = match opening.version {
            Version::HTTP_2 => Protocol::H2,
            _ => Protocol::Http1,
        };
        Rc::new(Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            began: monotonic(),
            at,
            id: Id::of(opening.id, at),
            method: opening.method.clone(),
            target: opening.target.clone(),
            protocol,
            client: opening.client,
            owner: OnceCell::new(),
            status: Cell::new(0),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            upstream: OnceCell::new(),
            upstream_duration: Cell::new(None),
            end: Cell::new(None),
            places: OnceCell::new(),
            _open: worker.shared.metrics.requests_open.enter(protocol),
        })
    }

    /// The `X-Request-Id` field.
    pub(in crate::proxy) const fn id(&self) -> &HeaderValue {
        &self.id.field
    }

    /// The method it came with.
    pub(in crate::proxy) const fn method(&self) -> &Method {
        &self.method
    }

    /// Notes whose it is.
    pub(in crate::proxy) fn belongs_to(&self, tenant: &TenantId, host: &DnsName) {
        self.owner.get_or_init(|| (tenant.clone(), host.clone()));
    }

    /// Takes its places among the requests in progress, which it holds until its end.
    pub(in crate::proxy) fn takes_places(&self, tenant: &TenantId) -> Result<(), Busy> {
        let shared = &self.worker.shared;
        let limits = &shared.settings.load().limits;
        match shared.admission.request(limits, self.client, tenant) {
            Ok(places) => {
                self.places.get_or_init(|| places);
                Ok(())
            }
            Err(busy) => {
                shared.metrics.request_refusals.count(match busy {
                    Busy::All => RequestLimit::Total,
                    Busy::Address => RequestLimit::Address,
                    Busy::Tenant => RequestLimit::Tenant,
                });
                Err(busy)
            }
        }
    }

    /// Notes where it goes.
    pub(in crate::proxy) fn goes_to(&self, upstream: &UpstreamName) {
        self.upstream.get_or_init(|| upstream.clone());
    }

    /// Notes the head of the upstream's response to a request sent at `sent`.
    pub(in crate::proxy) fn answered_by_upstream(
        &self,
        status: StatusCode,
        sent: Instant,
        now: Instant,
    ) {
        let took = now.saturating_duration_since(sent);
        self.upstream_duration.set(Some(took));
        let class = StatusClass::of(status.as_u16());
        let metrics = &self.worker.shared.metrics;
        metrics.upstream_response_duration.observe(class, took);
    }

    /// Notes the status that the visitor is sent.
    pub(in crate::proxy) fn answers(&self, status: StatusCode) {
        self.status.set(status.as_u16());
    }

    /// Counts content from the visitor.
    pub(in crate::proxy) fn received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
    }

    /// Counts content to the visitor.
    pub(in crate::proxy) fn sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
    }

    /// Notes why it ends; the first reason stays.
    pub(in crate::proxy) fn ends(&self, end: End) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
        }
    }

    /// Tells how the upstream did, for whoever asks about the name.
    fn note_upstream(&self, record: &AccessRecord, now: Timestamp) {
        let (Some((tenant, domain)), Some(upstream)) = (self.owner.get(), self.upstream.get())
        else {
            return;
        };
        let request = Forwarded {
            tenant,
            domain,
            upstream,
            answered: record.upstream_duration.is_some(),
            end: record.end,
        };
        self.worker.shared.troubles.note(request, now);
    }

    /// Whoever drops a request without a reason is the visitor's side: it went away, or reads nothing.
    fn end_of_visitor(&self) -> End {
        match self.connection.pulse.is_stalled() {
            true => End::ClientTimeout,
            false => End::ClientClosed,
        }
    }

    fn close(&self) {
        let duration = monotonic().saturating_duration_since(self.began);
        let owner = self.owner.get();
        let tls = &self.connection.tls;
        let record = AccessRecord {
            at: self.at,
            request: self.id.known.clone(),
            tenant: owner.map(|(tenant, _)| tenant.clone()),
            domain: owner.map(|(_, domain)| domain.clone()),
            client: self.client,
            tls: Some(Tls {
                version: match tls.version {
                    TlsVersion::Tls12 => crate::telemetry::access::TlsVersion::Tls12,
                    TlsVersion::Tls13 => crate::telemetry::access::TlsVersion::Tls13,
                },
                resumed: tls.resumed,
            }),
            protocol: self.protocol,
            method: self.method.clone(),
            path: RequestPath::of(&self.target),
            status: self.status.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            duration,
            upstream: self.upstream.get().cloned(),
            upstream_duration: self.upstream_duration.get(),
            end: self.end.get().unwrap_or_else(|| self.end_of_visitor()),
        };
        let shared = &self.worker.shared;
        self.note_upstream(&record, shared.clock.now());
        shared.metrics.request_ended(&record.for_metrics());
        shared
            .metrics
            .body_bytes
            .add(Direction::In, record.bytes_in);
        shared
            .metrics
            .body_bytes
            .add(Direction::Out, record.bytes_out);
        shared.access_log.record(record);
    }
}

/// Closes the account when dropped: held by whatever the request's end depends on, from its head to the last byte
/// of the response or of the tunnel.
pub(in crate::proxy) struct Ending(Rc<Account>);

impl Ending {
    /// The end of this account.
    pub(in crate::proxy) const fn of(account: Rc<Account>) -> Self {
        Self(account)
    }

    /// The account.
    pub(in crate::proxy) const fn account(&self) -> &Rc<Account> {
        &self.0
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.close();
    }
}
