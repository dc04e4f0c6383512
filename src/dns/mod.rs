//! Look-ups with the configured resolvers, or the system's.
//!
//! Nothing here waits on a visitor's behalf: the addresses of upstreams are kept up to date in the background, and
//! workers read what is there. What was true last stays true while no resolver answers.
//!
//! Reading order: [`lookup`] (one name), [`caa`] (who may certify it), [`upstreams`] (all names of upstreams, again and
//! again); [`examine`] (what is wrong with a name, for checks).

pub mod lookup;

pub mod caa;

pub mod upstreams;

pub mod examine;

#[cfg(test)]
pub(crate) mod fixture;

use std::net::SocketAddr;
use std::time::Duration;

pub use lookup::{Addresses, Dns, LookupError, SetupError};

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
