//! A record as a line of plain ASCII: JSON, or `key=value` pairs.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::telemetry::access::record::AccessRecord;
use crate::telemetry::settings::{ClientAddress, Format};

/// The most characters of a method, a foreign id or a similar word that are written.
const MOST_WORD: usize = 128;

/// Appends the record as one line, its end included.
pub(super) fn append(
    line: &mut String,
    record: &AccessRecord,
    format: Format,
    client: ClientAddress,
) {
    let mut fields = Fields {
        line,
        format,
        first: true,
    };
    fields.begin();
    fields.word("record", "access");
    fields.text("time", &record.at.to_string());
    fields.text("request", &record.request.to_string());
    if let Some(tenant) = &record.tenant {
        fields.text("tenant", tenant.as_str());
    }
    if let Some(domain) = &record.domain {
        fields.text("domain", domain.as_str());
    }
    if let Some(address) = shown(record.client, client) {
        fields.text("client", &address);
    }
    if let Some(tls) = record.tls {
        fields.word("tls", tls.version.as_str());
        fields.raw("resumed", if tls.resumed { "true" } else { "false" });
    }
    fields.word("protocol", record.protocol.as_str());
    let method = record.method.as_str();
    fields.text("method", method.get(..MOST_WORD).unwrap_or(method));
    fields.text("path", record.path.as_str());
    fields.number("status", u64::from(record.status));
    fields.number("bytes_in", record.bytes_in);
    fields.number("bytes_out", record.bytes_out);
    fields.seconds("duration_seconds", record.duration);
    if let Some(upstream) = &record.upstream {
        fields.text("upstream", upstream.as_str());
    }
    if let Some(duration) = record.upstream_duration {
        fields.seconds("upstream_seconds", duration);
    }
    fields.word("end", record.end.as_str());
    fields.end();
}

/// The visitor's address as far as it is shown.
fn shown(address: IpAddr, how: ClientAddress) -> Option<String> {
    match (how, address.to_canonical()) {
        (ClientAddress::None, _) => None,
        (ClientAddress::Full, address) => Some(address.to_string()),
        (ClientAddress::Truncated, IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            Some(format!("{}/24", Ipv4Addr::new(a, b, c, 0)))
        }
        (ClientAddress::Truncated, IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            Some(format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)))
        }
    }
}

/// Writes fields one after the other.
struct Fields<'a> {
    line: &'a mut String,
    format: Format,
    first: bool,
}

impl Fields<'_> {
    fn begin(&mut self) {
        if self.format == Format::Json {
            self.line.push('{');
        }
    }

    fn end(&mut self) {
        if self.format == Format::Json {
            self.line.push('}');
        }
        self.line.push('\n');
    }

    fn push(&mut self, what: fmt::Arguments<'_>) {
        let written = self.line.write_fmt(what);
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }

    fn key(&mut self, key: &'static str) {
        let first = std::mem::take(&mut self.first);
        match self.format {
            Format::Json => {
                self.line.push_str(if first { "\"" } else { ",\"" });
                self.line.push_str(key);
                self.line.push_str("\":");
            }
            Format::Text => {
                self.line.push_str(if first { "" } else { " " });
                self.line.push_str(key);
                self.line.push('=');
            }
        }
    }

    /// A value that needs neither quotes nor escapes.
    fn raw(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.line.push_str(value);
    }

    /// One of our own words.
    fn word(&mut self, key: &'static str, word: &'static str) {
        self.text(key, word);
    }

    fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        self.push(format_args!("{number}"));
    }

    /// With microseconds.
    fn seconds(&mut self, key: &'static str, duration: Duration) {
        self.key(key);
        self.push(format_args!("{:.6}", duration.as_secs_f64()));
    }

    /// Any text: everything but printable ASCII is escaped.
    fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        match self.format {
            Format::Json => self.json(text),
            Format::Text => self.pair(text),
        }
    }

    fn json(&mut self, text: &str) {
        self.line.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.line.extend(['\\', c]),
                ' '..='~' => self.line.push(c),
                _ => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.push(format_args!("\\u{unit:04x}"));
                    }
                }
            }
        }
        self.line.push('"');
    }

    fn pair(&mut self, text: &str) {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'=');
        if !text.is_empty() && text.bytes().all(plain) {
            self.line.push_str(text);
            return;
        }
        self.line.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.line.extend(['\\', c]),
                ' '..='~' => self.line.push(c),
                _ => self.line.extend(c.escape_unicode()),
            }
        }
        self.line.push('"');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::model::route::UpstreamName;
    use crate::model::{DnsName, TenantId};
    use crate::telemetry::access::record::{RequestId, RequestPath, Tls, TlsVersion};
    use crate::telemetry::labels::{End, Protocol};

    fn record(id: &str, path: &str) -> AccessRecord {
        let target = path.parse::<http::Uri>();
        AccessRecord {
            at: Timestamp::from_seconds(1_800_000_000),
            request: RequestId::Given(Arc::from(id)),
            tenant: Some(TenantId::parse("acme").unwrap()),
            domain: Some(DnsName::parse("shop.acme.test").unwrap()),
            client: "203.0.113.77".parse().unwrap(),
            tls: Some(Tls {
                version: TlsVersion::Tls13,
                resumed: true,
            }),
            protocol: Protocol::H2,
            method: http::Method::GET,
            path: RequestPath::of(&target.unwrap_or_default()),
            status: 200,
            bytes_in: 3,
            bytes_out: 1024,
            duration: Duration::from_micros(1500),
            upstream: Some(UpstreamName::new("core")),
            upstream_duration: Some(Duration::from_micros(900)),
            end: End::Completed,
        }
    }

    fn line(record: &AccessRecord, format: Format) -> String {
        let mut line = String::new();
        append(&mut line, record, format, ClientAddress::Full);
        line
    }

    #[test]
    fn both_forms_say_the_same() {
        let record = record("id-1", "/a b?secret".replace(' ', "%20").as_str());
        assert_eq!(
            line(&record, Format::Text),
            "record=access time=2027-01-15T08:00:00Z request=id-1 tenant=acme domain=shop.acme.test \
             client=203.0.113.77 tls=1.3 resumed=true protocol=h2 method=GET path=/a%20b status=200 bytes_in=3 \
             bytes_out=1024 duration_seconds=0.001500 upstream=core upstream_seconds=0.000900 end=completed\n"
        );
        let json: serde_json::Value = serde_json::from_str(&line(&record, Format::Json)).unwrap();
        assert_eq!(json["resumed"], true);
        assert_eq!(json["path"], "/a%20b");
        assert_eq!(json["duration_seconds"], 0.0015);
        assert_eq!(json["time"], "2027-01-15T08:00:00Z");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut record = record("id", "/");
        (record.tenant, record.upstream, record.tls) = (None, None, None);
        let json: serde_json::Value = serde_json::from_str(&line(&record, Format::Json)).unwrap();
        for key in ["tenant", "upstream", "tls", "resumed"] {
            assert!(json.get(key).is_none(), "{key}");
        }
    }

    #[test]
    fn addresses_are_shown_as_far_as_chosen() {
        for (address, how, expected) in [
            ("203.0.113.77", ClientAddress::Full, Some("203.0.113.77")),
            (
                "203.0.113.77",
                ClientAddress::Truncated,
                Some("203.0.113.0/24"),
            ),
            (
                "::ffff:203.0.113.77",
                ClientAddress::Truncated,
                Some("203.0.113.0/24"),
            ),
            (
                "2001:db8:1:2:3::4",
                ClientAddress::Truncated,
                Some("2001:db8:1::/48"),
            ),
            ("2001:db8::4", ClientAddress::None, None),
        ] {
            assert_eq!(shown(address.parse().unwrap(), how).as_deref(), expected);
        }
    }

    proptest! {
        /// Log injection: whatever a visitor writes stays inside its field of its line.
        #[test]
        fn every_line_is_one_line_of_printable_ascii_that_parses(id in any::<String>(), path in "/.*") {
            let record = record(&id, &path);
            for format in [Format::Json, Format::Text] {
                let line = line(&record, format);
                prop_assert!(line.trim_end_matches('\n').bytes().all(|b| (0x20..0x7f).contains(&b)));
                prop_assert_eq!(line.matches('\n').count(), 1);
            }
            let json: serde_json::Value = serde_json::from_str(&line(&record, Format::Json)).unwrap();
            prop_assert_eq!(&json["request"], &id);
            prop_assert_eq!(&json["end"], "completed");
        }
    }
}
