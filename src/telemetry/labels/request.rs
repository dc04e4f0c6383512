//! Labels of requests and of upstreams.

use crate::telemetry::family::Labels;

label! {
    /// The HTTP version of a visitor's connection.
    Protocol = "protocol" {
        /// HTTP/1.0 and HTTP/1.1.
        Http1 = "http/1",
        /// HTTP/2.
        H2 = "h2",
    }
}

label! {
    /// The first digit of a response's status.
    StatusClass = "status" {
        /// No response was sent: the visitor was gone.
        None = "none",
        /// Informational, which ends a request only as 101.
        Informational = "1xx",
        /// Success.
        Success = "2xx",
        /// Redirection.
        Redirection = "3xx",
        /// The visitor's fault.
        ClientError = "4xx",
        /// The server's fault.
        ServerError = "5xx",
    }
}

impl StatusClass {
    /// The class of a status; [`StatusClass::None`] where it is none.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::None,
        }
    }
}

label! {
    /// Why a request ended.
    End = "end" {
        /// Request and response were carried to their ends.
        Completed = "completed",
        /// A challenge of a CA was answered.
        Challenge = "challenge",
        /// A list of revoked certificates was given.
        RevocationList = "revocation_list",
        /// Port 80 sent the visitor to HTTPS.
        Redirected = "redirected",
        /// A tunnel after an upgrade ended.
        Upgraded = "upgraded",
        /// The visitor left before the end.
        ClientClosed = "client_closed",
        /// The visitor was too slow.
        ClientTimeout = "client_timeout",
        /// The request is malformed or ambiguous: 400.
        BadRequest = "bad_request",
        /// A limit on size was passed: 413, 414 or 431.
        TooLarge = "too_large",
        /// A limit on rate or number was passed: 429 or 503.
        Limited = "limited",
        /// The authority does not belong to this connection: 421.
        Misdirected = "misdirected",
        /// Nobody registered the host: 404 on port 80.
        UnknownHost = "unknown_host",
        /// No route leads from there: 404.
        NoRoute = "no_route",
        /// The upstream that the permission hook chose is not configured.
        UpstreamNotConfigured = "upstream_not_configured",
        /// The upstream's name has no address yet.
        UpstreamUnresolved = "upstream_unresolved",
        /// The upstream refuses connections or cannot be reached.
        UpstreamUnreachable = "upstream_unreachable",
        /// The connection to the upstream was not made in time.
        UpstreamConnectTimeout = "upstream_connect_timeout",
        /// The upstream's TLS failed.
        UpstreamTls = "upstream_tls",
        /// The upstream closed before its answer was whole.
        UpstreamClosed = "upstream_closed",
        /// The upstream's answer did not come in time.
        UpstreamTimeout = "upstream_timeout",
        /// The upstream's answer is malformed.
        UpstreamMalformed = "upstream_malformed",
        /// The process is shutting down.
        Draining = "draining",
        /// A bug of ours.
        Internal = "internal",
    }
}

impl End {
    /// Whether it counts among the tenant's errors: what an operator or the tenant's upstream must look at.
    #[must_use]
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::NoRoute
                | Self::UpstreamNotConfigured
                | Self::UpstreamUnresolved
                | Self::UpstreamUnreachable
                | Self::UpstreamConnectTimeout
                | Self::UpstreamTls
                | Self::UpstreamClosed
                | Self::UpstreamTimeout
                | Self::UpstreamMalformed
                | Self::Internal
        )
    }
}

label! {
    /// Which limit on requests in progress a request met.
    RequestLimit = "reason" {
        /// Those in all.
        Total = "total",
        /// Those of one address.
        Address = "address",
        /// Those of one tenant.
        Tenant = "tenant",
    }
}

label! {
    /// How an attempt to get a connection to an upstream ended.
    UpstreamConnection = "outcome" {
        /// A connection from the pool was used.
        Reused = "reused",
        /// A new one was made.
        Connected = "connected",
        /// Its address has not been resolved.
        Unresolved = "unresolved",
        /// It was refused, or there is no way there.
        Unreachable = "unreachable",
        /// It did not come in time.
        Timeout = "timeout",
        /// Its TLS failed.
        Tls = "tls",
    }
}

label! {
    /// Which way bytes went, seen from here.
    Direction = "direction" {
        /// From visitors.
        In = "in",
        /// To visitors.
        Out = "out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_classes_cover_every_number() {
        for (status, class) in [
            (0, StatusClass::None),
            (101, StatusClass::Informational),
            (204, StatusClass::Success),
            (308, StatusClass::Redirection),
            (499, StatusClass::ClientError),
            (502, StatusClass::ServerError),
            (u16::MAX, StatusClass::None),
        ] {
            assert_eq!(StatusClass::of(status), class, "{status}");
        }
    }
}
