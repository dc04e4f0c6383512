//! Whether a name that nobody registered may become a known one: the operator's permission hook decides.
//!
//! The hook is never trusted to be there, to be quick or to make sense. Invariants: no answer is ever made up
//! (unknown is not allowed, and a hook that cannot be asked has denied nothing); each name is asked about once
//! however many wait; nothing is asked more often than the caps say.
//!
//! Reading order: [`ask`] (one question from the caps to the verdict), [`wire`] (the two protocols), [`verdicts`]
//! (what has been answered, and what refuses without asking), [`rate`] and [`breaker`] (when not to ask), `trouble` (what the operator is told).

pub mod ask;
pub mod wire;

pub mod verdicts;

pub mod breaker;
pub mod rate;

mod trouble;

use std::time::Duration;

use url::Url;

use crate::net::Roots;

pub use ask::{Permission, Register, RegisterError, Registration};
pub use verdicts::{Verdict, Verdicts};

/// How the hook is asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens, `http` or `https`.
    pub ask: Url,
    /// Which protocol it speaks. Default [`Mode::Simple`].
    pub mode: Mode,
    /// Whom its certificate must chain to, where it is asked by `https`. Default: the public authorities.
    pub roots: Roots,
    /// How long it has for an answer. Default 2 s.
    pub deadline: Duration,
    /// How long an allowing answer holds that does not say so itself. Default 1 h.
    pub allow_ttl: Duration,
    /// How long a denying answer holds that does not say so itself. Default 15 s.
    pub deny_ttl: Duration,
    /// Calls per second in all; above it names are refused. Default 20.
    pub rate: u32,
    /// Calls per second for the names below one registered domain. Default 5.
    pub rate_per_domain: u32,
}

impl Settings {
    /// The defaults for a hook at `ask`.
    #[must_use]
    pub const fn new(ask: Url) -> Self {
        Self {
            ask,
            mode: Mode::Simple,
            roots: Roots::Public,
            deadline: Duration::from_secs(2),
            allow_ttl: Duration::from_secs(3600),
            deny_ttl: Duration::from_secs(15),
            rate: 20,
            rate_per_domain: 5,
        }
    }
}

/// The protocol that the hook speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Caddy's: GET with `?domain=`; 2xx allows.
    Simple,
    /// POST of JSON, answered by JSON that may name tenant, upstream and how long it holds.
    Rich,
}
