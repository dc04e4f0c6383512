//! What is typed, checked before anybody is asked: a mistake of the command line is told as one, with exit code 2.

use std::ops::RangeInclusive;

use super::show::hyphenated;
use crate::control::drill::RATES;
use crate::model::certificate::CertificateId;
use crate::model::revocation::RevocationReason;
use crate::model::{NamePattern, TenantId};

/// Names that may be reckoned with.
const NAMES: RangeInclusive<u64> = 1..=1_000_000_000;

/// A name or a wildcard, in the form in which it is registered.
pub(super) fn name(text: &str) -> Result<String, String> {
    let pattern = NamePattern::parse(text).map_err(|error| error.to_string())?;
    Ok(pattern.to_string())
}

/// A tenant's id.
pub(super) fn tenant(text: &str) -> Result<String, String> {
    let tenant = TenantId::parse(text).map_err(|error| error.to_string())?;
    Ok(tenant.as_str().to_owned())
}

/// A certificate's id.
pub(super) fn certificate(text: &str) -> Result<String, String> {
    let id: Result<CertificateId, _> = text.parse();
    let id = id.map_err(|_not_one| "expected a UUID, as `vestibule certificate list` shows it")?;
    Ok(id.to_string())
}

/// Orders a second.
pub(super) fn rate(text: &str) -> Result<u32, String> {
    let rate = text.parse().ok().filter(|rate| RATES.contains(rate));
    rate.ok_or_else(|| whole_number(&RATES))
}

/// A number of names.
pub(super) fn names(text: &str) -> Result<u64, String> {
    let names = text.parse().ok().filter(|names| NAMES.contains(names));
    names.ok_or_else(|| whole_number(&NAMES))
}

fn whole_number<N: ToString>(range: &RangeInclusive<N>) -> String {
    let [least, most] = [range.start(), range.end()].map(ToString::to_string);
    format!("expected a whole number from {least} to {most}")
}

/// A reason as typed: with `-`, as the help and every answer write it.
pub(super) fn reason(text: &str) -> Result<RevocationReason, String> {
    let words = RevocationReason::ALL.map(|reason| hyphenated(reason.as_str()));
    let mut known = RevocationReason::ALL.into_iter().zip(&words);
    let found = known.find(|(_, word)| word.as_str() == text);
    found
        .map(|(reason, _)| reason)
        .ok_or_else(|| format!("expected one of {}", words.join(", ")))
}
