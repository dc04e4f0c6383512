//! Look-ups with the configured resolvers.

use std::net::SocketAddr;
use std::time::Duration;

/// Who is asked, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Resolvers, asked in turn; the system's where there are none.
    pub resolvers: Vec<SocketAddr>,
    /// How long one look-up may take, all attempts included. Default 5 s.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            deadline: Duration::from_secs(5),
        }
    }
}
