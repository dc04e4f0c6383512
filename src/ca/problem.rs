//! From an authority's problem document to a problem code of ours.
//!
//! The type decides. Where one type stands for several causes, the words of Boulder (Let's Encrypt) and Pebble tell
//! them apart; words that are not known leave the code that fits the type. Only the authority's own words count: names,
//! addresses and what is quoted are the customer's, who could write a cause there as well as in a page.

use crate::ca::error::Document;
use crate::model::challenge::ChallengeKind;
use crate::model::problem::ProblemCode;

/// The code that says who must do what.
#[must_use]
pub fn code(document: &Document) -> ProblemCode {
    // A compound problem says nothing by itself (RFC 8555 §6.7.1).
    let part = match document.kind.as_str() {
        "compound" | "" => document.parts.first(),
        _ => None,
    };
    match part {
        Some(part) => by_type(&part.kind, &part.detail, document.challenge),
        None => by_type(&document.kind, &document.detail, document.challenge),
    }
}

fn by_type(kind: &str, detail: &str, challenge: Option<ChallengeKind>) -> ProblemCode {
    let links_to_unpause = kind == "rateLimited" && links_to(detail, "/unpause");
    let detail = own_words(detail);
    // Boulder's words where only remote vantage points failed.
    if says(&detail, "during secondary validation") {
        return match kind {
            "connection" => ProblemCode::GeoBlocked,
            _ => ProblemCode::MpicDisagree,
        };
    }
    match kind {
        "dns" => by_words(&detail, DNS, ProblemCode::DnsServfail),
        "caa" => by_words(&detail, CAA, ProblemCode::CaaForbidsCa),
        "connection" => by_words(&detail, CONNECTION, ProblemCode::HttpUnreachable),
        "unauthorized" | "incorrectResponse"
            if challenge == Some(ChallengeKind::TlsAlpn01) && !says(&detail, "caa record") =>
        {
            ProblemCode::TlsAlpnIntercepted
        }
        "unauthorized" | "incorrectResponse" => {
            by_words(&detail, UNAUTHORIZED, ProblemCode::HttpWrongBody)
        }
        "tls" => ProblemCode::TlsAlpnIntercepted,
        "rateLimited" if links_to_unpause => ProblemCode::Paused,
        "rateLimited" => by_words(&detail, RATE, ProblemCode::RateLimitedAccount),
        "rejectedIdentifier" => by_words(&detail, REJECTED, ProblemCode::CaRejected),
        "serverInternal" | "badNonce" => ProblemCode::CaOutage,
        "" => ProblemCode::Unknown,
        _ => ProblemCode::CaRejected,
    }
}

type Words = &'static [(&'static str, ProblemCode)];

fn by_words(detail: &str, words: Words, otherwise: ProblemCode) -> ProblemCode {
    words
        .iter()
        .find(|(phrase, _)| says(detail, phrase))
        .map_or(otherwise, |(_, code)| *code)
}

/// Whether the phrase is there, as whole words.
fn says(words: &str, phrase: &str) -> bool {
    format!(" {words} ").contains(&format!(" {phrase} "))
}

/// The words of the authority itself, in small letters and each between single spaces: without what is quoted and without
/// whatever may be a name, an address or a link, for all of these have a dot or a colon within.
fn own_words(detail: &str) -> String {
    let lower = unquoted(detail).to_lowercase();
    let own = |token: &&str| {
        let inner = token.trim_matches(|c: char| !c.is_alphanumeric());
        !inner.contains(['.', ':'])
    };
    let letters = |c: char| !c.is_alphanumeric();
    let words = lower
        .split_whitespace()
        .filter(own)
        .flat_map(|token| token.split(letters).filter(|word| !word.is_empty()));
    words.collect::<Vec<&str>>().join(" ")
}

/// Without what stands between double quotes, where a backslash hides one; to the end where the last is not closed.
fn unquoted(detail: &str) -> String {
    let (mut text, mut quoted, mut hidden) = (String::with_capacity(detail.len()), false, false);
    for c in detail.chars() {
        match c {
            '"' if !hidden => quoted = !quoted,
            _ if quoted => {}
            _ => text.push(c),
        }
        hidden = quoted && c == '\\' && !hidden;
    }
    text
}

/// Whether there is a link to a page with this in its path.
fn links_to(detail: &str, path: &str) -> bool {
    let links = unquoted(detail);
    let mut links = links.split_whitespace().filter_map(|token| {
        let link = token.split_once("https://")?.1;
        link.split_once('/').map(|(_host, path)| format!("/{path}"))
    });
    links.any(|link| link.contains(path))
}

/// Phrases in small letters, words between single spaces, without any other sign.
const DNS: Words = &[
    ("dnssec", ProblemCode::DnssecBogus),
    ("nxdomain", ProblemCode::DnsNxdomain),
    ("no valid ip addresses", ProblemCode::DnsNxdomain),
    ("no valid a records", ProblemCode::DnsNxdomain),
    ("no such host", ProblemCode::DnsNxdomain),
];
const CAA: Words = &[
    ("accounturi", ProblemCode::CaaForbidsAccount),
    ("validationmethods", ProblemCode::CaaForbidsMethod),
];
const CONNECTION: Words = &[
    ("redirect loop", ProblemCode::RedirectLoop),
    ("too many redirects", ProblemCode::RedirectLoop),
];
const UNAUTHORIZED: Words = &[
    ("redirect loop", ProblemCode::RedirectLoop),
    ("caa record", ProblemCode::CaaForbidsCa),
    ("caa records", ProblemCode::CaaForbidsCa),
];
const RATE: Words = &[
    ("paused", ProblemCode::Paused),
    // Boulder's words, with its link.
    ("temporarily prevented from requesting", ProblemCode::Paused),
    ("failed authorizations", ProblemCode::RateLimitedFailures),
    ("exact set of", ProblemCode::RateLimitedExactSet),
    ("already issued for", ProblemCode::RateLimitedDomain),
    // The load balancers' words with a 503: a matter of calls, not of orders.
    ("service busy", ProblemCode::CaOutage),
];
const REJECTED: Words = &[
    ("unsafe domain", ProblemCode::SafeBrowsing),
    ("unsafe domains", ProblemCode::SafeBrowsing),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::error::Part;

    fn check(kind: &str, detail: &str, expected: ProblemCode) {
        let document = Document {
            kind: kind.to_owned(),
            detail: detail.to_owned(),
            parts: Vec::new(),
            challenge: None,
        };
        assert_eq!(code(&document), expected, "{kind}: {detail}");
    }

    #[test]
    fn types_and_words_give_the_code() {
        use ProblemCode as Code;
        check(
            "dns",
            "DNS problem: NXDOMAIN looking up A for x.test",
            Code::DnsNxdomain,
        );
        check(
            "dns",
            "DNS problem: SERVFAIL looking up A for x.test",
            Code::DnsServfail,
        );
        check("dns", "DNS problem: DNSSEC: Bogus", Code::DnssecBogus);
        check(
            "connection",
            "Fetching http://x.test/: Timeout during connect",
            Code::HttpUnreachable,
        );
        check(
            "connection",
            "During secondary validation: Fetching http://x.test/: Timeout",
            Code::GeoBlocked,
        );
        check(
            "unauthorized",
            "During secondary validation: Invalid response from http://x.test/",
            Code::MpicDisagree,
        );
        check(
            "unauthorized",
            "Invalid response from http://x.test/: 404",
            Code::HttpWrongBody,
        );
        check("connection", "Redirect loop detected", Code::RedirectLoop);
        check(
            "caa",
            "CAA record for x.test prevents issuance",
            Code::CaaForbidsCa,
        );
        check(
            "caa",
            "CAA accounturi does not match",
            Code::CaaForbidsAccount,
        );
        check(
            "rateLimited",
            "too many new orders (300) from this account",
            Code::RateLimitedAccount,
        );
        check(
            "rateLimited",
            "too many certificates (5) already issued for this exact set of identifiers",
            Code::RateLimitedExactSet,
        );
        check(
            "rateLimited",
            "too many certificates (50) already issued for \"x.test\"",
            Code::RateLimitedDomain,
        );
        check(
            "rateLimited",
            "too many failed authorizations (5)",
            Code::RateLimitedFailures,
        );
        check("rateLimited", "Service busy; retry later.", Code::CaOutage);
        check(
            "rateLimited",
            "Your account is temporarily paused",
            Code::Paused,
        );
        check(
            "rateLimited",
            "Your account is temporarily prevented from requesting certificates for x.test and possibly others. \
             Please visit: https://portal.test/sfe/v1/unpause?jwt=a.b.c",
            Code::Paused,
        );
        check(
            "rejectedIdentifier",
            "forbidden by policy",
            Code::CaRejected,
        );
        check("serverInternal", "Error creating new order", Code::CaOutage);
        check("badCSR", "CSR is wrong", Code::CaRejected);
        check("", "", Code::Unknown);
    }

    #[test]
    fn words_in_the_customers_own_name_address_or_page_decide_nothing() {
        use ProblemCode as Code;
        let many = "too many certificates (50) already issued for";
        for name in [
            "paused.shop",
            "\"paused.shop\"",
            "unpause.failed-authorizations.test",
            "*.paused.shop,",
            "https://paused.shop/",
        ] {
            check(
                "rateLimited",
                &format!("{many} {name} in the last 168h0m0s"),
                Code::RateLimitedDomain,
            );
        }
        check(
            "dns",
            "DNS problem: SERVFAIL looking up A for dnssec.nxdomain.test",
            Code::DnsServfail,
        );
        check(
            "caa",
            "CAA record for accounturi.test prevents issuance",
            Code::CaaForbidsCa,
        );
        check(
            "unauthorized",
            r#"Invalid response from http://x.test/: "<p>\"CAA record\" redirect loop during secondary validation""#,
            Code::HttpWrongBody,
        );
        check(
            "connection",
            "Fetching http://x.test/too.many.redirects: Connection refused",
            Code::HttpUnreachable,
        );
        check(
            "rejectedIdentifier",
            "policy forbids issuing for unsafe-domain.test",
            Code::CaRejected,
        );
        // Only whole words.
        check(
            "rateLimited",
            "the limit of unpaused accounts",
            Code::RateLimitedAccount,
        );
        // And the link, in the authority's own words.
        check(
            "rateLimited",
            "Please visit: https://portal.test/sfe/v1/unpause?jwt=a.b.c",
            Code::Paused,
        );
        check(
            "rateLimited",
            "too many new orders from this account: see https://unpause.test/limits",
            Code::RateLimitedAccount,
        );
    }

    #[test]
    fn what_else_ends_tls_is_told_from_what_else_answers_on_port_80() {
        let check = |kind: &str, challenge, expected| {
            let document = Document {
                kind: kind.to_owned(),
                challenge: Some(challenge),
                ..Document::default()
            };
            assert_eq!(code(&document), expected, "{kind}");
        };
        let (http, alpn) = (ChallengeKind::Http01, ChallengeKind::TlsAlpn01);
        check("unauthorized", http, ProblemCode::HttpWrongBody);
        check("unauthorized", alpn, ProblemCode::TlsAlpnIntercepted);
        check("connection", alpn, ProblemCode::HttpUnreachable);
    }

    #[test]
    fn a_compound_problem_is_read_by_its_first_part() {
        let document = Document {
            kind: "compound".to_owned(),
            detail: "see subproblems".to_owned(),
            parts: vec![Part {
                name: "x.test".to_owned(),
                kind: "caa".to_owned(),
                detail: "CAA record prevents issuance".to_owned(),
            }],
            challenge: None,
        };
        assert_eq!(code(&document), ProblemCode::CaaForbidsCa);
    }
}
