//! Why we answer a request ourselves: one closed list, with the status, the word for visitors, the RFC 9209 error
//! type and the label of each.

use http::StatusCode;

use crate::proxy::admission::Busy;
use crate::telemetry::labels::End;

/// Why a request gets an answer of our own instead of the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request is malformed or ambiguous; the word says how.
    BadRequest(&'static str),
    /// The request's content is not framed as its head says.
    BadContent,
    /// The visitor stopped sending content, or sends it too slowly.
    ContentTimeout,
    /// A method that no upstream is asked: CONNECT, TRACE.
    Method,
    /// A target above 16 KiB.
    TargetTooLong,
    /// More fields, or more of them, than allowed.
    FieldsTooLarge,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
    /// A transfer coding other than `chunked` (RFC 9112 §6.1).
    TransferCoding,
    /// The authority does not belong to this connection (RFC 9110 §7.4).
    Misdirected,
    /// As many requests are in progress as are borne.
    Busy(Busy),
    /// No route leads from here.
    NoRoute,
    /// The upstream that the permission hook chose is not configured.
    NotConfigured,
    /// The upstream's name has no address.
    Unresolved,
    /// The upstream refuses connections.
    Refused,
    /// The upstream cannot be reached.
    Unreachable,
    /// No connection to the upstream came about in time.
    ConnectTimeout,
    /// The upstream does not speak TLS as it should.
    TlsProtocol,
    /// The upstream's certificate is not what it should be.
    TlsCertificate,
    /// How to verify the upstream is not configured unambiguously.
    TlsConfiguration,
    /// The upstream closed the connection before its answer.
    Closed,
    /// The upstream's answer did not begin in time.
    ResponseTimeout,
    /// The upstream does not read the request.
    SendTimeout,
    /// The upstream's answer is malformed.
    Malformed,
    /// The head of the upstream's answer is too large.
    HeadTooLarge,
    /// The upstream switched to a protocol that nobody asked for, or not as asked.
    Upgrade,
    /// The process is shutting down.
    Draining,
    /// A fault in the program.
    Internal,
}

impl Fault {
    /// Whether a connection that failed with it speaks against the upstream's address: nothing that a visitor does wrong
    /// may.
    #[must_use]
    pub const fn is_the_upstreams(self) -> bool {
        match self {
            Self::Unresolved
            | Self::Refused
            | Self::Unreachable
            | Self::ConnectTimeout
            | Self::TlsProtocol
            | Self::TlsCertificate
            | Self::Closed
            | Self::ResponseTimeout
            | Self::SendTimeout
            | Self::Malformed
            | Self::HeadTooLarge
            | Self::Upgrade => true,
            Self::BadRequest(_)
            | Self::BadContent
            | Self::ContentTimeout
            | Self::Method
            | Self::TargetTooLong
            | Self::FieldsTooLarge
            | Self::Expectation
            | Self::TransferCoding
            | Self::Misdirected
            | Self::Busy(_)
            | Self::NoRoute
            | Self::NotConfigured
            | Self::TlsConfiguration
            | Self::Draining
            | Self::Internal => false,
        }
    }

    /// The status it is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BadContent => StatusCode::BAD_REQUEST,
            Self::ContentTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::FieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NotConfigured
            | Self::Unresolved
            | Self::Refused
            | Self::Unreachable
            | Self::TlsProtocol
            | Self::TlsCertificate
            | Self::TlsConfiguration
            | Self::Closed
            | Self::Malformed
            | Self::HeadTooLarge
            | Self::Upgrade => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::ResponseTimeout | Self::SendTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Busy(_) | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word that visitors, records and support see. Stable; names no address.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest(word) => word,
            Self::BadContent => "bad_content",
            Self::ContentTimeout => "content_timeout",
            Self::Method => "method_not_allowed",
            Self::TargetTooLong => "target_too_long",
            Self::FieldsTooLarge => "fields_too_large",
            Self::Expectation => "unknown_expectation",
            Self::TransferCoding => "unknown_transfer_coding",
            Self::Misdirected => "misdirected",
            Self::Busy(Busy::All) => "requests_full",
            Self::Busy(Busy::Address) => "requests_of_address_full",
            Self::Busy(Busy::Tenant) => "requests_of_tenant_full",
            Self::NoRoute => "no_route",
            Self::NotConfigured => "upstream_not_configured",
            Self::Unresolved => "upstream_unresolved",
            Self::Refused => "upstream_refused",
            Self::Unreachable => "upstream_unreachable",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::TlsProtocol => "upstream_tls_failed",
            Self::TlsCertificate => "upstream_certificate_invalid",
            Self::TlsConfiguration => "upstream_tls_not_configured",
            Self::Closed => "upstream_closed",
            Self::ResponseTimeout => "upstream_timeout",
            Self::SendTimeout => "upstream_not_reading",
            Self::Malformed => "upstream_malformed",
            Self::HeadTooLarge => "upstream_head_too_large",
            Self::Upgrade => "upstream_upgrade_failed",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }

    /// The whole `Proxy-Status` field (RFC 9209 §2): error types of its registry, no addresses.
    #[must_use]
    pub const fn proxy_status(self) -> &'static str {
        match self {
            Self::BadRequest(_)
            | Self::BadContent
            | Self::ContentTimeout
            | Self::Method
            | Self::TargetTooLong
            | Self::FieldsTooLarge
            | Self::Expectation
            | Self::TransferCoding => "vestibule; error=http_request_error",
            Self::Misdirected => "vestibule; error=http_request_denied",
            Self::Busy(_) => "vestibule; error=connection_limit_reached",
            Self::NoRoute => "vestibule; error=destination_not_found",
            Self::Unresolved => "vestibule; error=dns_error",
            Self::Refused => "vestibule; error=connection_refused",
            Self::Unreachable => "vestibule; error=destination_unavailable",
            Self::ConnectTimeout => "vestibule; error=connection_timeout",
            Self::TlsProtocol => "vestibule; error=tls_protocol_error",
            Self::TlsCertificate => "vestibule; error=tls_certificate_error",
            Self::NotConfigured | Self::TlsConfiguration => {
                "vestibule; error=proxy_configuration_error"
            }
            Self::Closed => "vestibule; error=connection_terminated",
            Self::ResponseTimeout => "vestibule; error=http_response_timeout",
            Self::SendTimeout => "vestibule; error=connection_write_timeout",
            Self::Malformed => "vestibule; error=http_protocol_error",
            Self::HeadTooLarge => "vestibule; error=http_response_header_section_size",
            Self::Upgrade => "vestibule; error=http_upgrade_failed",
            Self::Draining => "vestibule; error=proxy_internal_response",
            Self::Internal => "vestibule; error=proxy_internal_error",
        }
    }

    /// The label it is counted under.
    #[must_use]
    pub const fn end(self) -> End {
        match self {
            Self::BadRequest(_)
            | Self::BadContent
            | Self::Method
            | Self::Expectation
            | Self::TransferCoding => End::BadRequest,
            Self::ContentTimeout => End::ClientTimeout,
            Self::TargetTooLong | Self::FieldsTooLarge => End::TooLarge,
            Self::Misdirected => End::Misdirected,
            Self::Busy(_) => End::Limited,
            Self::NoRoute => End::NoRoute,
            Self::NotConfigured => End::UpstreamNotConfigured,
            Self::Unresolved => End::UpstreamUnresolved,
            Self::Refused | Self::Unreachable => End::UpstreamUnreachable,
            Self::ConnectTimeout => End::UpstreamConnectTimeout,
            Self::TlsProtocol | Self::TlsCertificate | Self::TlsConfiguration => End::UpstreamTls,
            Self::Closed => End::UpstreamClosed,
            Self::ResponseTimeout | Self::SendTimeout => End::UpstreamTimeout,
            Self::Malformed | Self::HeadTooLarge | Self::Upgrade => End::UpstreamMalformed,
            Self::Draining => End::Draining,
            Self::Internal => End::Internal,
        }
    }
}
