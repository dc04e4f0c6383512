//! `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderValue, RETRY_AFTER};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::base::clock::Timestamp;

/// The longest wait that is believed: what asks for more is asked again after a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a server asks to wait from `now`, at most a day; nothing where the field is missing or not understood.
#[must_use]
pub fn read(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?;
    let wait = match value.to_str().ok()?.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => date(value)?.since(now),
    };
    Some(wait.min(LONGEST))
}

/// A date as fields have it (RFC 9110 §5.6.7).
pub(super) fn date(value: &HeaderValue) -> Option<Timestamp> {
    let text = value.to_str().ok()?.trim();
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some(Timestamp::from(date))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &'static str, expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        // Fri, 31 Dec 1999 23:59:00 GMT
        let now = Timestamp::from_seconds(946_684_740);
        assert_eq!(
            read(&headers, now),
            expected.map(Duration::from_secs),
            "{text:?}"
        );
    }

    #[test]
    fn reads_seconds_and_dates_and_believes_at_most_a_day() {
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("99999999", Some(86_400));
        check("Fri, 31 Dec 1999 23:59:59 GMT", Some(59));
        check("Fri, 31 Dec 1999 23:58:59 GMT", Some(0));
        check("Fri, 31 Dec 2027 23:58:59 GMT", Some(86_400));
        check("-5", None);
        check("soon", None);
        check("", None);
        check("18446744073709551616", None);
        assert_eq!(read(&HeaderMap::new(), Timestamp::EPOCH), None);
    }
}
