//! How much is borne and how long is waited. Everything here has a default that is safe to run.

use std::time::Duration;

/// Bounds on what visitors may send, and on what may be held at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all visitors, both ports. Default 10,000.
    pub connections: usize,
    /// Connections of one client address (IPv6: of one /64). Default 1,000.
    pub connections_per_address: usize,
    /// TLS connections of one tenant. Default 5,000.
    pub connections_per_tenant: usize,
    /// Connections between accept and the end of their handshake, not counting those that wait for a
    /// certificate, which have a bound of their own. Default 2,000.
    pub handshakes: usize,
    /// Requests in progress of all visitors, tunnels among them; each may take a connection to an upstream. Default:
    /// what [`Limits::requests`] reckons.
    pub requests: Option<usize>,
    /// Requests in progress of one client address (IPv6: of one /64). Default: a tenth of all.
    pub requests_per_address: Option<usize>,
    /// Requests in progress of one tenant. Default: half of all.
    pub requests_per_tenant: Option<usize>,
    /// Bytes of a request's head; at least 8 KiB. Default 64 KiB.
    pub head_bytes: usize,
    /// Bytes of a request's target, path and query; at most 60 KiB. Default 16 KiB.
    pub target_bytes: usize,
    /// Fields of a request's head. Default 100.
    pub fields: usize,
    /// Requests at once on an HTTP/2 connection. Default 100.
    pub streams: u32,
    /// HTTP/2 frames without a request or data that a connection may send in ten seconds, beyond four for each
    /// request and each piece of data. Default 100.
    pub control_frames: u32,
    /// Requests that an HTTP/2 connection may give up in ten seconds before an answer to them began. Default 100.
    pub given_up_requests: u32,
    /// Connections to one upstream that may wait for a next request, for each worker, over all tenants; the oldest
    /// makes room. Default 256.
    pub upstream_idle_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 1_000,
            connections_per_tenant: 5_000,
            handshakes: 2_000,
            requests: None,
            requests_per_address: None,
            requests_per_tenant: None,
            head_bytes: 64 * 1024,
            target_bytes: 16 * 1024,
            fields: 100,
            streams: 100,
            control_frames: 100,
            given_up_requests: 100,
            upstream_idle_connections: 256,
        }
    }
}

/// The most requests in progress that are borne unless the operator says so.
const MOST_REQUESTS: usize = 20_000;
/// Files that are open beside connections: the store, logs, timers, sockets that listen.
pub const OTHER_FILES: usize = 256;

impl Limits {
    /// Requests in progress that are borne where the process may open so many files: those the operator said; else
    /// 20,000, or fewer where the files would not do for them. Each connection of a visitor takes one file, and each request
    /// one to its upstream. Where there are not enough even for the connections, they share what there is.
    #[must_use]
    pub fn requests(&self, files: Option<usize>) -> usize {
        let fitting = files.map_or(MOST_REQUESTS, |files| {
            let ours = files.saturating_sub(OTHER_FILES);
            ours.saturating_sub(self.connections).max(ours / 2)
        });
        self.requests
            .unwrap_or_else(|| fitting.clamp(1, MOST_REQUESTS))
    }

    /// Above this many open connections idle ones are let go sooner: 80 % of the cap.
    #[must_use]
    pub const fn crowded_at(&self) -> usize {
        self.connections / 5 * 4
    }
}

/// How long each step may take, and how long nothing may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From accept to a whole PROXY protocol header, where one is due. Default 3 s.
    pub proxy_header: Duration,
    /// From accept to a whole ClientHello. Default 5 s.
    pub client_hello: Duration,
    /// From the moment that we hold a certificate to the end of the handshake. Waiting for a certificate has its
    /// own deadline. Default 10 s.
    pub handshake: Duration,
    /// From the first byte of a request's head to its last. Default 10 s.
    pub head: Duration,
    /// How long a connection may be idle before, between and after requests. Default 60 s.
    pub keep_alive: Duration,
    /// The same while open connections are above 80 % of the cap. Default 5 s.
    pub keep_alive_crowded: Duration,
    /// How long an HTTP/1.1 connection is idle before all but its TLS session is let go. Default 5 s.
    pub rest: Duration,
    /// How long a visitor may take to send anything at all of a request's content. Default 30 s.
    pub read_stall: Duration,
    /// How long a visitor may take to read anything at all of what we send. Default 30 s.
    pub write_stall: Duration,
    /// How long nothing may pass through a tunnel, in either direction. Default 600 s.
    pub tunnel_idle: Duration,
    /// How long a connection to an upstream may wait for a next request. Default 60 s.
    pub upstream_idle: Duration,
    /// How often a quiet HTTP/2 connection is pinged. Default 30 s.
    pub ping: Duration,
    /// How long the answer to a ping may take. Default 15 s.
    pub pong: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            proxy_header: seconds(3),
            client_hello: seconds(5),
            handshake: seconds(10),
            head: seconds(10),
            keep_alive: seconds(60),
            keep_alive_crowded: seconds(5),
            rest: seconds(5),
            read_stall: seconds(30),
            write_stall: seconds(30),
            tunnel_idle: seconds(600),
            upstream_idle: seconds(60),
            ping: seconds(30),
            pong: seconds(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fit_into_the_files_that_may_be_open() {
        let check = |files: Option<usize>, said: Option<usize>, expected: usize| {
            let limits = Limits {
                requests: said,
                ..Limits::default()
            };
            assert_eq!(limits.requests(files), expected, "{files:?} {said:?}");
        };
        check(None, None, 20_000);
        check(Some(1 << 20), None, 20_000);
        check(Some(30_256), None, 20_000);
        check(Some(25_256), None, 15_000);
        check(Some(4096), None, 1920);
        check(Some(1024), None, 384);
        check(Some(100), None, 1);
        check(Some(1024), Some(50_000), 50_000);
    }
}
