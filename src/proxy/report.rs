//! How each handshake ended: one closed list of reasons, the alert that each one gets, and reports for those who
//! watch.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::mpsc;

use crate::base::clock::{Instant, monotonic};
use crate::certs::on_demand::{Origin, Refusal};
use crate::model::certificate::CaId;
use crate::model::route::UpstreamName;
use crate::model::{DnsName, TenantId};
use crate::proxy::admission::Full;
use crate::proxy::handshake::Established;
use crate::proxy::proxy_protocol::HeaderFault;
use crate::proxy::worker::Worker;
use crate::telemetry::labels::{AdmissionLimit, CredentialOrigin, Handshake, HandshakeReason};

/// Why a connection came to no handshake; a label of metrics, and a word in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A bound was reached.
    Full(Full),
    /// A trusted proxy did not say who visits.
    ProxyHeader(HeaderFault),
    /// The ClientHello did not come in time.
    HelloDeadline,
    /// The ClientHello was malformed.
    MalformedHello,
    /// Plain HTTP on the TLS port.
    PlainHttp,
    /// The visitor went away before a ClientHello.
    PeerGone,
    /// The ClientHello names no server, or an address.
    NoServerName,
    /// A TLS-ALPN-01 check (RFC 8737), for which no challenge is pending.
    NoChallenge,
    /// A TLS-ALPN-01 check, and it is not known whether a challenge is pending: the CA will ask again.
    ChallengeUnread,
    /// There is no credential.
    Credential(Refusal),
    /// The visitor did not finish the handshake in time.
    HandshakeDeadline,
    /// The visitor broke the rules of TLS after the ClientHello.
    HandshakeFailed,
    /// The visitor speaks no version, cipher, signature or application protocol of ours.
    NothingInCommon,
    /// The visitor refused us by an alert: our certificate, most often.
    PeerAlert,
    /// A fault in the program.
    Internal,
}

impl Reject {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full(full) => full.as_str(),
            Self::ProxyHeader(fault) => fault.as_str(),
            Self::HelloDeadline => "client_hello_deadline",
            Self::MalformedHello => "client_hello_malformed",
            Self::PlainHttp => "plain_http",
            Self::PeerGone => "peer_gone",
            Self::NoServerName => "no_server_name",
            Self::NoChallenge => "no_challenge",
            Self::ChallengeUnread => "challenge_unread",
            Self::Credential(refusal) => refusal.as_str(),
            Self::HandshakeDeadline => "handshake_deadline",
            Self::HandshakeFailed => "handshake_failed",
            Self::NothingInCommon => "nothing_in_common",
            Self::PeerAlert => "client_alert",
            Self::Internal => "internal",
        }
    }

    /// The fatal alert it is told by; nothing where silence, or what rustls says by itself, is the answer.
    #[must_use]
    pub const fn alert(self) -> Option<Alert> {
        match self {
            Self::NoServerName | Self::Credential(Refusal::UnknownName | Refusal::Suspended) => {
                Some(Alert::UnrecognizedName)
            }
            Self::NoChallenge | Self::NothingInCommon => Some(Alert::NoApplicationProtocol),
            Self::Credential(
                Refusal::PermissionUnavailable
                | Refusal::BackingOff
                | Refusal::TooManyWaiters
                | Refusal::Deadline
                | Refusal::IssuanceFailed
                | Refusal::StoreFailed,
            )
            | Self::Full(Full::Tenant)
            | Self::ChallengeUnread
            | Self::Internal => Some(Alert::InternalError),
            Self::Full(Full::Connections | Full::Address | Full::Handshakes)
            | Self::ProxyHeader(_)
            | Self::HelloDeadline
            | Self::MalformedHello
            | Self::PlainHttp
            | Self::PeerGone
            | Self::HandshakeDeadline
            | Self::HandshakeFailed
            | Self::PeerAlert => None,
        }
    }
}

impl Reject {
    /// What it counts as among handshakes; nothing where it never became one.
    const fn counted(self) -> Option<HandshakeReason> {
        Some(match self {
            Self::Full(Full::Tenant) => HandshakeReason::Limited,
            Self::Full(Full::Connections | Full::Address | Full::Handshakes) => return None,
            Self::ProxyHeader(_) => HandshakeReason::ProxyHeader,
            Self::HelloDeadline | Self::HandshakeDeadline => HandshakeReason::ClientTimeout,
            Self::MalformedHello | Self::PlainHttp | Self::HandshakeFailed => {
                HandshakeReason::Malformed
            }
            Self::PeerGone => HandshakeReason::ClientClosed,
            Self::NoServerName => HandshakeReason::NoServerName,
            Self::NoChallenge | Self::NothingInCommon => HandshakeReason::NothingInCommon,
            Self::PeerAlert => HandshakeReason::ClientAlert,
            Self::ChallengeUnread => HandshakeReason::StoreFailed,
            Self::Internal => HandshakeReason::Internal,
            Self::Credential(refusal) => match refusal {
                Refusal::UnknownName => HandshakeReason::UnknownName,
                Refusal::Suspended => HandshakeReason::Suspended,
                Refusal::PermissionUnavailable => HandshakeReason::PermissionUnavailable,
                Refusal::BackingOff => HandshakeReason::BackingOff,
                Refusal::TooManyWaiters => HandshakeReason::TooManyWaiters,
                Refusal::Deadline => HandshakeReason::IssuanceDeadline,
                Refusal::IssuanceFailed => HandshakeReason::IssuanceFailed,
                Refusal::StoreFailed => HandshakeReason::StoreFailed,
            },
        })
    }

    /// The limit that it met.
    const fn limit(self) -> Option<AdmissionLimit> {
        let Self::Full(full) = self else {
            return None;
        };
        Some(match full {
            Full::Connections => AdmissionLimit::Total,
            Full::Address => AdmissionLimit::Address,
            Full::Tenant => AdmissionLimit::Tenant,
            Full::Handshakes => AdmissionLimit::Handshakes,
        })
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A fatal alert (RFC 8446 §6) that is sent before there is a TLS session to send it: rustls has no call for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// 112 (RFC 6066 §3): we do not serve this name.
    UnrecognizedName,
    /// 120 (RFC 7301 §3.2).
    NoApplicationProtocol,
    /// 80: the name may be ours, but we cannot serve it now.
    InternalError,
}

impl Alert {
    /// The record: type 21, version 3.3, length 2, level fatal, description (RFC 8446 §5.1, §6).
    #[must_use]
    pub const fn record(self) -> [u8; 7] {
        let description = match self {
            Self::UnrecognizedName => 112,
            Self::NoApplicationProtocol => 120,
            Self::InternalError => 80,
        };
        [21, 3, 3, 0, 2, 2, description]
    }
}

/// What became of one handshake, for those who watch: the demo prints a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeReport {
    /// The server name asked for, where there was one.
    pub server_name: Option<DnsName>,
    /// How long it took, from accept.
    pub duration: Duration,
    /// How it ended.
    pub outcome: HandshakeOutcome,
}

/// How a handshake ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// With a connection. Reported once its first answer is known, or it ended without one.
    Served {
        /// Whose domain it is.
        tenant: TenantId,
        /// Where the credential came from.
        origin: Origin,
        /// Who issued it.
        issuer: CaId,
        /// Whether a ticket spared the full handshake.
        resumed: bool,
        /// The first answer on the connection, if there was one.
        first: Option<FirstAnswer>,
    },
    /// Without one.
    Refused(Reject),
}

/// The first answer on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    /// Its status.
    pub status: StatusCode,
    /// The upstream that gave it; nothing where it is our own.
    pub upstream: Option<UpstreamName>,
}

/// An extension of a response: which upstream gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredBy(pub UpstreamName);

/// Where reports go, if anyone watches. Never waited for: a watcher who lags misses some.
#[derive(Clone, Debug, Default)]
pub struct Reports(Option<mpsc::Sender<HandshakeReport>>);

impl Reports {
    /// Nobody watches.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// A watcher, who may lag by `most` reports.
    #[must_use]
    pub fn watched(most: usize) -> (Self, mpsc::Receiver<HandshakeReport>) {
        let (sender, receiver) = mpsc::channel(most);
        (Self(Some(sender)), receiver)
    }

    /// Whether anyone watches.
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    /// Tells the watcher.
    pub fn send(&self, report: HandshakeReport) {
        if let Some(watcher) = &self.0 {
            // A watcher who lags or has gone misses this one.
            drop(watcher.try_send(report));
        }
    }
}

/// A served handshake that is reported with the first answer, or when the connection ends without one.
#[derive(Debug)]
pub struct PendingReport {
    report: Option<HandshakeReport>,
    reports: Reports,
}

impl PendingReport {
    /// A report that waits.
    #[must_use]
    pub const fn new(report: HandshakeReport, reports: Reports) -> Self {
        Self {
            report: Some(report),
            reports,
        }
    }

    /// Reports with the first answer.
    pub fn answered(mut self, answer: FirstAnswer) {
        if let Some(mut report) = self.report.take() {
            if let HandshakeOutcome::Served { first, .. } = &mut report.outcome {
                *first = Some(answer);
            }
            self.reports.send(report);
        }
    }
}

impl Drop for PendingReport {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            self.reports.send(report);
        }
    }
}

impl Worker {
    /// Notes that a connection was not let in.
    pub(in crate::proxy) fn note_refused(
        &self,
        reject: Reject,
        arrived: Instant,
        name: Option<&DnsName>,
    ) {
        let duration = monotonic().saturating_duration_since(arrived);
        let metrics = &self.shared.metrics;
        if let Some(limit) = reject.limit() {
            metrics.admission_refusals.count(limit);
        }
        if let Some(reason) = reject.counted() {
            metrics.handshake_ended(Handshake::without(reason), duration);
        }
        tracing::debug!(
            target: "vestibule::handshake",
            domain = name.map(DnsName::as_str),
            reason = reject.as_str(),
            ?duration,
            "handshake refused"
        );
        if self.shared.reports.is_watched() {
            self.shared.reports.send(HandshakeReport {
                server_name: name.cloned(),
                duration,
                outcome: HandshakeOutcome::Refused(reject),
            });
        }
    }

    /// Notes a handshake that ended well; where someone watches, what is given back reports it.
    pub(in crate::proxy) fn note_established(
        &self,
        established: &Established,
    ) -> Option<PendingReport> {
        let Established { facts, took, .. } = established;
        let tls = &facts.tls;
        let handshake = match (tls.resumed, tls.origin) {
            (true, _) => Handshake::resumed(),
            (false, Origin::Memory) => Handshake::full(CredentialOrigin::Memory),
            (false, Origin::Store) => Handshake::full(CredentialOrigin::Store),
            (false, Origin::Issued) => Handshake::full(CredentialOrigin::Issued),
        };
        self.shared.metrics.handshake_ended(handshake, *took);
        tracing::debug!(
            target: "vestibule::handshake",
            connection = %facts.id,
            domain = tls.server_name.as_str(),
            tenant = tls.tenant.as_str(),
            origin = ?tls.origin,
            resumed = tls.resumed,
            duration = ?took,
            "handshake done"
        );
        let reports = &self.shared.reports;
        reports.is_watched().then(|| {
            let report = HandshakeReport {
                server_name: Some(tls.server_name.clone()),
                duration: *took,
                outcome: HandshakeOutcome::Served {
                    tenant: tls.tenant.clone(),
                    origin: tls.origin,
                    issuer: tls.credential.facts.ca.clone(),
                    resumed: tls.resumed,
                    first: None,
                },
            };
            PendingReport::new(report, reports.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_suspended_names_are_unrecognized_and_failures_of_ours_are_not() {
        let check = |reject: Reject, alert| assert_eq!(reject.alert(), alert, "{reject}");
        check(Reject::NoServerName, Some(Alert::UnrecognizedName));
        let of = Reject::Credential;
        check(of(Refusal::UnknownName), Some(Alert::UnrecognizedName));
        check(of(Refusal::Suspended), Some(Alert::UnrecognizedName));
        check(of(Refusal::Deadline), Some(Alert::InternalError));
        check(of(Refusal::StoreFailed), Some(Alert::InternalError));
        check(Reject::HelloDeadline, None);
        assert_eq!(
            Alert::UnrecognizedName.record(),
            [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70]
        );
    }
}
