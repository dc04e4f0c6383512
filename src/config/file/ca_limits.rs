//! `limits` of a `[[ca]]`: how much the authority bears.

use std::time::Duration;

use super::seconds;
use crate::certs::budget::{Limit, Renewals};
use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;

/// Whose numbers are taken where the table does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum KnownLimits {
    LetsEncrypt,
    LetsEncryptStaging,
    None,
}

const KNOWN: &[(&str, KnownLimits)] = &[
    ("letsencrypt", KnownLimits::LetsEncrypt),
    ("letsencrypt-staging", KnownLimits::LetsEncryptStaging),
    ("none", KnownLimits::None),
];

const RENEWALS: &[(&str, Renewals)] =
    &[("exempt", Renewals::Exempt), ("charged", Renewals::Charged)];

/// What is said of one limit: so much in so long, or that there is none.
pub(in crate::config) type Said = Option<At<Option<Limit>>>;

#[derive(Debug, Default)]
pub(in crate::config) struct CaLimits {
    pub(in crate::config) base: Option<At<KnownLimits>>,
    pub(in crate::config) orders: Said,
    pub(in crate::config) certificates_per_domain: Said,
    pub(in crate::config) exact_set: Said,
    pub(in crate::config) failures: Said,
    pub(in crate::config) consecutive_failures: Said,
    pub(in crate::config) renewals: Option<At<Renewals>>,
}

pub(super) const TITLE: &str = "limits of [[ca]]";

pub(super) fn read(mut table: Table<'_>) -> CaLimits {
    let limits = CaLimits {
        base: table.optional("base", value::word(KNOWN)),
        orders: table.optional("orders", limit),
        certificates_per_domain: table.optional("certificates_per_domain", limit),
        exact_set: table.optional("exact_set", limit),
        failures: table.optional("failures", limit),
        consecutive_failures: table.optional("consecutive_failures", limit),
        renewals: table.optional("renewals", value::word(RENEWALS)),
    };
    table.finish();
    limits
}

const LIMIT: &str = r#"a limit such as "300/3h", filled once in that time, or "none""#;

/// `"300/3h"` or `"none"`.
fn limit(value: &Value<'_>) -> Result<Option<Limit>, Wrong> {
    let text = value.text().ok_or_else(|| Wrong::expected(LIMIT))?;
    if text == "none" {
        return Ok(None);
    }
    let read = text.split_once('/').and_then(|(amount, period)| {
        let amount = amount.trim().parse::<u32>().ok().filter(|n| *n > 0)?;
        let period = value::parse_duration(period.trim())?;
        let bearable = seconds(1)..=seconds(86_400) * 4000;
        bearable
            .contains::<Duration>(&period)
            .then(|| Limit::new(amount, period))
    });
    read.map(Some).ok_or_else(|| Wrong::expected(LIMIT))
}
