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

/// A certificate's id, with its hyphens: without them it might be a serial number, which is another certificate's or none.
pub(super) fn certificate(text: &str) -> Result<String, String> {
    let id: Option<CertificateId> = text.parse().ok();
    let id = id.map(|id| id.to_string());
    id.filter(|id| id.eq_ignore_ascii_case(text)).ok_or_else(|| {
        "expected a UUID with hyphens, as `vestibule certificate list` shows it; `certificate list --serial HEX` finds it \
         by its serial number"
            .to_owned()
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_no_id_of_a_certificate() {
        let id = "0198c1a2-7b3c-7d4e-8f50-0123456789ab";
        assert_eq!(certificate(id).as_deref(), Ok(id));
        assert_eq!(certificate(&id.to_uppercase()).as_deref(), Ok(id));
        for other in [id.replace('-', ""), format!("{{{id}}}"), "1".to_owned()] {
            let told = certificate(&other).unwrap_err();
            assert!(told.contains("--serial HEX"), "{other}: {told}");
        }
    }
}
