//! `[on_demand]`: certificates obtained during a handshake, and who allows them.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::seconds;
use crate::config::reader::{At, Table};
use crate::config::value;

/// How the permission hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum AskMode {
    /// GET with `?domain=`; 2xx allows.
    Simple,
    /// POST of JSON, answered by JSON.
    Rich,
}

const MODES: &[(&str, AskMode)] = &[("simple", AskMode::Simple), ("rich", AskMode::Rich)];

#[derive(Debug, Default)]
pub(in crate::config) struct OnDemand {
    pub(in crate::config) deadline: Option<At<Duration>>,
    pub(in crate::config) waiters: Option<At<u32>>,
    pub(in crate::config) waiters_total: Option<At<u32>>,
    pub(in crate::config) ask: Option<At<Url>>,
    pub(in crate::config) mode: Option<At<AskMode>>,
    pub(in crate::config) ask_root: Option<At<PathBuf>>,
    pub(in crate::config) ask_deadline: Option<At<Duration>>,
    pub(in crate::config) ask_rate: Option<At<u32>>,
    pub(in crate::config) ask_rate_per_domain: Option<At<u32>>,
    pub(in crate::config) allow_ttl: Option<At<Duration>>,
    pub(in crate::config) deny_ttl: Option<At<Duration>>,
}

pub(super) fn read(mut table: Table<'_>) -> OnDemand {
    let day = seconds(86_400);
    let on_demand = OnDemand {
        deadline: table.optional("deadline", value::duration(seconds(1)..=seconds(120))),
        waiters: table.optional("waiters", value::count(1..=100_000)),
        waiters_total: table.optional("waiters_total", value::count(1..=1_000_000)),
        ask: table.optional("ask", |value| {
            value::http_url(value, "http://127.0.0.1:3000/allowed")
        }),
        mode: table.optional("mode", value::word(MODES)),
        ask_root: table.optional("ask_root", value::path),
        ask_deadline: table.optional(
            "ask_deadline",
            value::duration(Duration::from_millis(10)..=seconds(60)),
        ),
        ask_rate: table.optional("ask_rate", value::count(1..=1_000_000)),
        ask_rate_per_domain: table.optional("ask_rate_per_domain", value::count(1..=1_000_000)),
        allow_ttl: table.optional("allow_ttl", value::duration(seconds(0)..=day)),
        deny_ttl: table.optional("deny_ttl", value::duration(seconds(0)..=day)),
    };
    table.finish();
    on_demand
}
