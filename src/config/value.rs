//! What a key may hold, each kind read in one place: durations, sizes, addresses, ranges, names, URLs, words.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::base::nearest::nearest;
use crate::config::mistake::quoted_list;
use crate::config::reader::{Value, Wrong};
use crate::model::name::NameError;
use crate::model::{DnsName, NamePattern, TenantId};

/// What durations look like, for messages and for the documentation.
const DURATION: &str = r#"a duration such as "250ms", "10s", "5m", "1h" or "7d""#;
const SIZE: &str = r#"a size such as "512KiB", "64MiB" or "1GiB""#;

/// `true` or `false`.
pub(super) fn flag(value: &Value<'_>) -> Result<bool, Wrong> {
    value.flag().ok_or_else(|| {
        let wrong = Wrong::expected("true or false");
        match value.text() {
            Some(text @ ("true" | "false")) => wrong.fix(format!("write {text} without quotes")),
            _ => wrong,
        }
    })
}

/// A whole number within `range`.
pub(super) fn count(range: RangeInclusive<u32>) -> impl Fn(&Value<'_>) -> Result<u32, Wrong> {
    move |value| {
        let number = value
            .integer()
            .and_then(|number| u32::try_from(number).ok());
        number.filter(|n| range.contains(n)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            Wrong::expected(format!("a whole number from {least} to {most}"))
        })
    }
}

/// A share within `range`.
pub(super) fn fraction(range: RangeInclusive<f64>) -> impl Fn(&Value<'_>) -> Result<f64, Wrong> {
    move |value| {
        let number = value.number().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            Wrong::expected(format!("a share from {least} to {most}"))
        })
    }
}

/// A TCP port.
pub(super) fn port(value: &Value<'_>) -> Result<u16, Wrong> {
    let number = value
        .integer()
        .and_then(|number| u16::try_from(number).ok());
    number
        .filter(|port| *port != 0)
        .ok_or_else(|| Wrong::expected("a port from 1 to 65535"))
}

/// A duration within `range`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Value<'_>) -> Result<Duration, Wrong> {
    move |value| {
        let Some(text) = value.text() else {
            let wrong = Wrong::expected(DURATION);
            return Err(match value.integer() {
                Some(number) if number >= 0 => {
                    wrong.fix(format!("write \"{number}s\" for seconds"))
                }
                _ => wrong,
            });
        };
        let Some(duration) = parse_duration(text) else {
            let wrong = Wrong::expected(DURATION);
            return Err(match nearest_duration(text) {
                Some(near) => wrong.fix(format!("write {near:?}")),
                None => wrong,
            });
        };
        match range.contains(&duration) {
            true => Ok(duration),
            false => {
                let (least, most) = (written(*range.start()), written(*range.end()));
                Err(Wrong::expected(format!("{least} to {most}")))
            }
        }
    }
}

/// What a text that is no duration was most likely meant to be: a number without its unit, or with one of another
/// spelling.
fn nearest_duration(text: &str) -> Option<String> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Some(format!("{text}s"));
    }
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "msec" | "msecs" | "milliseconds" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A duration as the file writes it.
pub(super) fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let fitting = units
        .into_iter()
        .find(|(size, _)| millis != 0 && millis.is_multiple_of(*size));
    match fitting {
        Some((size, unit)) => format!("\"{}{unit}\"", millis / size),
        None if millis == 0 => "\"0s\"".to_owned(),
        None => format!("\"{millis}ms\""),
    }
}

/// A number of bytes within `range`.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Value<'_>) -> Result<u64, Wrong> {
    move |value| {
        let bytes = value.text().and_then(parse_size).ok_or_else(|| {
            let wrong = Wrong::expected(SIZE);
            match nearest_size(value) {
                Some(near) => wrong.fix(format!("write {near:?}")),
                None => wrong,
            }
        })?;
        match range.contains(&bytes) {
            true => Ok(bytes),
            false => {
                let (least, most) = (range.start(), range.end());
                Err(Wrong::expected(format!("{least} to {most} bytes")))
            }
        }
    }
}

/// What a value that is no size was most likely meant to be: a bare number of bytes, or one with a decimal unit.
fn nearest_size(value: &Value<'_>) -> Option<String> {
    if let Some(bytes) = value.integer().filter(|bytes| *bytes >= 0) {
        return Some(format!("{bytes}B"));
    }
    let text = value.text()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Some(format!("{text}B"));
    }
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "b" | "bytes" => "B",
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

/// An address to listen on: `address:port`, IPv6 in brackets.
pub(super) fn socket_address(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    let expected = r#"an IP address and a port, as in "127.0.0.1:8443" or "[::]:8443""#;
    let text = value.text().ok_or_else(|| Wrong::expected(expected))?;
    text.parse().map_err(|_source| {
        let wrong = Wrong::expected(expected);
        match text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
            Some(port) => wrong.fix(format!(
                "write \"[::]:{port}\" for every address of the machine, IPv4 and IPv6"
            )),
            None if text.parse::<u16>().is_ok() => wrong.fix(format!("write \"127.0.0.1:{text}\"")),
            None => match text.strip_prefix("localhost:") {
                Some(port) => wrong.fix(format!("write \"127.0.0.1:{port}\"")),
                None => wrong,
            },
        }
    })
}

/// An IP address without a port.
pub(super) fn ip_address(value: &Value<'_>) -> Result<IpAddr, Wrong> {
    let parsed = value.text().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Wrong::expected("an IP address without a port"))
}

/// A range of addresses.
pub(super) fn range(value: &Value<'_>) -> Result<IpNet, Wrong> {
    let expected = r#"a range of addresses (CIDR), as in "10.0.0.0/8" or "2001:db8::/32""#;
    let text = value.text().ok_or_else(|| Wrong::expected(expected))?;
    if let Ok(range) = text.parse::<IpNet>() {
        let exact = range.trunc();
        return match range == exact {
            true => Ok(range),
            // The bits behind the prefix are most often a slip of the prefix's length.
            false => Err(
                Wrong::expected("a range without bits set behind its prefix")
                    .fix(format!("write \"{exact}\", or a longer prefix")),
            ),
        };
    }
    let wrong = Wrong::expected(expected);
    Err(match text.parse::<IpAddr>() {
        Ok(address) => wrong.fix(format!("write \"{}\"", IpNet::from(address))),
        Err(_) => wrong,
    })
}

/// A host name.
pub(super) fn host(value: &Value<'_>) -> Result<DnsName, Wrong> {
    let expected = r#"a host name, as in "edge.example.com""#;
    let text = value.text().ok_or_else(|| Wrong::expected(expected))?;
    DnsName::parse(text).map_err(|error| wrong_name(text, expected, &error))
}

/// A host name or a wildcard over the names one label below another.
pub(super) fn pattern(value: &Value<'_>) -> Result<NamePattern, Wrong> {
    let expected = r#"a host name, as in "shop.example.com" or "*.example.com""#;
    let text = value.text().ok_or_else(|| Wrong::expected(expected))?;
    NamePattern::parse(text).map_err(|error| wrong_name(text, expected, &error))
}

fn wrong_name(text: &str, expected: &str, error: &NameError) -> Wrong {
    let wrong = Wrong::expected(format!("{expected}: {error}"));
    let bare = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match bare.and_then(|rest| rest.split(['/', ':']).next()) {
        Some(host) => wrong.fix(format!("write the name alone: {host:?}")),
        None => wrong,
    }
}

/// A tenant's slug. Those that the permission hook makes are not for the file.
pub(super) fn tenant(value: &Value<'_>) -> Result<TenantId, Wrong> {
    let expected = "a tenant's name: 1 to 63 lower-case letters, digits, hyphens or underscores, \
                    beginning with a letter or digit";
    let text = value.text().ok_or_else(|| Wrong::expected(expected))?;
    TenantId::parse(text)
        .ok()
        .filter(|_| !text.contains(':'))
        .ok_or_else(|| {
            let lower = text.to_ascii_lowercase();
            let wrong = Wrong::expected(expected);
            match lower != text && TenantId::parse(&lower).is_ok() {
                true => wrong.fix(format!("write {lower:?}")),
                false => wrong,
            }
        })
}

/// The name that the file gives to a thing of its own: a CA, an upstream.
pub(super) fn label(value: &Value<'_>) -> Result<String, Wrong> {
    let good = |text: &&str| {
        let body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (1..=63).contains(&text.len()) && text.bytes().all(body)
    };
    let text = value.text().filter(good).map(str::to_owned);
    text.ok_or_else(|| {
        Wrong::expected("a name of 1 to 63 letters, digits, hyphens, underscores or dots")
    })
}

/// An http or https URL without credentials in it, like `example`.
pub(super) fn http_url(value: &Value<'_>, example: &str) -> Result<Url, Wrong> {
    let expected = format!("an http or https URL, as in {example:?}");
    let text = value
        .text()
        .ok_or_else(|| Wrong::expected(expected.as_str()))?;
    let url = Url::parse(text).map_err(|error| Wrong::expected(format!("{expected}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(Wrong::expected(expected));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::expected("a URL without a user and password").hidden("credentials"));
    }
    Ok(url)
}

/// A path in the file system, not empty.
pub(super) fn path(value: &Value<'_>) -> Result<PathBuf, Wrong> {
    let text = value
        .text()
        .filter(|text| !text.is_empty() && !text.contains('\0'));
    text.map(PathBuf::from)
        .ok_or_else(|| Wrong::expected(r#"a path, as in "./data""#))
}

/// Some text, not empty, without control characters.
pub(super) fn text(value: &Value<'_>) -> Result<String, Wrong> {
    let text = value
        .text()
        .filter(|text| !text.is_empty() && text.len() <= 1024 && !text.contains(char::is_control));
    text.map(str::to_owned)
        .ok_or_else(|| Wrong::expected("a text of 1 to 1024 bytes without control characters"))
}

/// One of a few words, each with its meaning.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Value<'_>) -> Result<T, Wrong> {
    move |value| {
        let names = || words.iter().map(|(word, _)| *word);
        let text = value.text().unwrap_or_default();
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let wrong = Wrong::expected(quoted_list(names()));
            match nearest(text, names()) {
                Some(near) => wrong.fix(format!("did you mean {near:?}?")),
                None => wrong,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        let seconds = Duration::from_secs;
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("0s", Some(Duration::ZERO)),
            ("10s", Some(seconds(10))),
            ("5m", Some(seconds(300))),
            ("1h", Some(seconds(3600))),
            ("7d", Some(seconds(604_800))),
            ("10", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1.5h", None),
            ("5 m", Some(seconds(300))),
            ("18446744073709551615d", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("64MB"), None);
        assert_eq!(parse_size("18446744073709551615GiB"), None);
    }

    #[test]
    fn the_most_likely_meaning_of_a_wrong_duration_is_told() {
        for (text, expected) in [
            ("60", Some("60s")),
            ("5min", Some("5m")),
            ("2 Hours", Some("2h")),
            ("1day", Some("1d")),
            ("10x", None),
            ("", None),
            ("-5", None),
        ] {
            assert_eq!(nearest_duration(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["250ms", "10s", "5m", "1h", "7d", "90s", "0s"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(written(duration), format!("{text:?}"));
        }
    }
}
