//! `[certificates]`: how they are obtained and renewed.

use std::time::Duration;

use super::seconds;
use crate::certs::settings::Obtain;
use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;
use crate::model::challenge::{ChallengeKind, ChallengeOrder};

const CHALLENGES: &[(&str, ChallengeKind)] = &[
    ("http-01", ChallengeKind::Http01),
    ("tls-alpn-01", ChallengeKind::TlsAlpn01),
];

const OBTAIN: &[(&str, Obtain)] = &[
    ("at-first-visit", Obtain::AtFirstVisit),
    ("at-once", Obtain::AtOnce),
];

#[derive(Debug, Default)]
pub(in crate::config) struct Certificates {
    pub(in crate::config) obtain: Option<At<Obtain>>,
    pub(in crate::config) challenges: Option<At<ChallengeOrder>>,
    pub(in crate::config) renew_after: Option<At<f64>>,
    pub(in crate::config) renew_short_after: Option<At<f64>>,
    pub(in crate::config) short_lifetime: Option<At<Duration>>,
    pub(in crate::config) first_retry: Option<At<Duration>>,
    pub(in crate::config) parallel: Option<At<u32>>,
    pub(in crate::config) attempt_deadline: Option<At<Duration>>,
    pub(in crate::config) lease: Option<At<Duration>>,
}

pub(super) fn read(mut table: Table<'_>) -> Certificates {
    let day = seconds(86_400);
    let tenth = Duration::from_millis(100);
    let certificates = Certificates {
        obtain: table.optional("obtain", value::word(OBTAIN)),
        challenges: table.optional("challenges", challenges),
        renew_after: table.optional("renew_after", value::fraction(0.1..=0.95)),
        renew_short_after: table.optional("renew_short_after", value::fraction(0.1..=0.95)),
        short_lifetime: table.optional("short_lifetime", value::duration(seconds(0)..=day * 400)),
        first_retry: table.optional("first_retry", value::duration(tenth..=day)),
        parallel: table.optional("parallel", value::count(1..=1000)),
        attempt_deadline: table.optional(
            "attempt_deadline",
            value::duration(seconds(5)..=seconds(3600)),
        ),
        lease: table.optional("lease", value::duration(seconds(1)..=seconds(3600))),
    };
    table.finish();
    certificates
}

fn challenges(value: &Value<'_>) -> Result<ChallengeOrder, Wrong> {
    let wrong = || {
        Wrong::expected(
            r#"kinds of challenge, each at most once, the preferred first, as in ["http-01", "tls-alpn-01"]"#,
        )
    };
    let items = value.list().ok_or_else(wrong)?;
    let kinds: Vec<ChallengeKind> = items
        .iter()
        .map(|item| value::word(CHALLENGES)(item).map_err(|wrong| wrong.found(item)))
        .collect::<Result<_, _>>()?;
    ChallengeOrder::new(&kinds).ok_or_else(wrong)
}
