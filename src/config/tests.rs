//! Stories over whole files: the exact words of mistakes, the documented file, and arbitrary input.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::assemble::{Assembled, assemble};
use super::mistake::{Mistake, Report};
use super::reader::known;
use super::source::Source;
use super::text::{FileText, Texts};

const DOCUMENTED: &str = include_str!("../../proxy.toml");

fn only(text: &str) -> Texts {
    Texts {
        main: FileText::Read(Source::new("proxy.toml", text)),
        included: Vec::new(),
    }
}

fn mistakes(text: &str) -> Vec<Mistake> {
    assemble(&only(text), None).err().unwrap_or_default()
}

/// The whole report for a file of one or more mistakes.
fn told(text: &str) -> String {
    Report(&mistakes(text)).to_string()
}

#[test]
fn the_documented_file_has_no_mistake() {
    assert_eq!(told(DOCUMENTED), "0 mistakes");
}

#[test]
fn the_documented_file_names_every_key_there_is() {
    known::take();
    // Every commented line that is a key or a header counts as one.
    let uncommented: String = DOCUMENTED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let uncommented = uncommented.replace("protocol = \"http\"", "protocol = \"https\"");
    // The files of roots and secrets that the examples name are not there.
    let others = mistakes(&uncommented).into_iter();
    let others: Vec<Mistake> = others
        .filter(|mistake| !mistake.what.contains("cannot read"))
        .filter(|mistake| !mistake.what.contains("is not set"))
        .collect();
    assert!(others.is_empty(), "{}", Report(&others));
    let documented = words_by_section(&uncommented);
    let asked = known::take();
    assert!(asked.len() > 80, "{asked:?}");
    for (title, key) in asked {
        let (_, section) = title.rsplit_once(" of ").unwrap_or(("", title));
        let words = documented.get(section.trim_matches(['[', ']']));
        let stands = match words {
            Some(words) => words.contains(key),
            None => documented.values().any(|words| words.contains(key)),
        };
        // Known only so that its refusal can say why.
        let is_refused = (title, key) == ("[admin]", "address");
        assert!(stands || is_refused, "{key} of {title} is not documented");
    }
}

/// The words under each header, with those of inline tables.
fn words_by_section(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut words: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut section = "";
    for line in text.lines() {
        let code = line.split('#').next().unwrap().trim();
        if code.starts_with('[') {
            section = code.trim_matches(['[', ']']);
            words.entry("").or_default().insert(section);
        }
        let parts = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.entry(section).or_default().extend(parts);
    }
    words
}

#[test]
fn the_containers_file_has_no_mistake() {
    let text = include_str!("../../deploy/container/proxy.toml");
    assert_eq!(told(text), "0 mistakes");
}

#[test]
fn a_misspelt_key_is_told_with_the_nearest_known_one() {
    let text = "[[upstream]]\nname = \"core\"\nadress = \"127.0.0.1:3000\"\n";
    let expected = r#"proxy.toml:1:1: [[upstream]] has no "addresses"
  |
1 | [[upstream]]
  | ^^^^^^^^^^^^
  = expected a list of a host and a port, as in "127.0.0.1:3000" or "core.internal:8080"

proxy.toml:3:1: unknown key "adress" in [[upstream]]
  |
3 | adress …
  | ^^^^^^
  = expected one of "addresses", "connect_timeout", "idle_timeout", "name", "protocol", "response_timeout", "root" or "server_name"
  = fix: did you mean "addresses"?

2 mistakes"#;
    assert_eq!(told(text), expected);
}

#[test]
fn every_mistake_of_a_file_is_told_at_once_in_the_order_of_the_file() {
    let text = r#"[listn]
[listen]
http = "8080"
workers = 0
trusted_proxies = ["10.0.0.1/8", "10.0.0.0/8", "nonsense"]
drain_delay = 5
[[ca]]
name = "le"
kind = "acme"
directory = "letsencript"
[[route]]
upstream = "cor"
[[upstream]]
name = "core"
addresses = ["http://127.0.0.1:3000/x"]
[[tenant]]
name = "Acme"
domains = ["https://shop.test/", "192.0.2.1"]
"#;
    let expected = r#"proxy.toml:1:2: unknown section or key "listn"
  |
1 | [listn …
  |  ^^^^^
  = expected one of "admin", "ca", "certificates", "dns", "edge", "include", "keys", "limits", "listen", "on_demand", "route", "store", "telemetry", "tenant" or "upstream"
  = fix: did you mean "listen"?

proxy.toml:3:8: http in [listen]: found "8080"
  |
3 | http = "8080"
  |        ^^^^^^
  = expected a list, as in ["…"]
  = fix: write ["8080"]

proxy.toml:4:11: workers in [listen]: found the integer 0
  |
4 | workers = 0
  |           ^
  = expected a whole number from 1 to 1024

proxy.toml:5:20: trusted_proxies in [listen]: found "10.0.0.1/8"
  |
5 | trusted_proxies = ["10.0.0.1/8", "10.0.0.0/8", "nonsense"]
  |                    ^^^^^^^^^^^^
  = expected a range without bits set behind its prefix
  = fix: write "10.0.0.0/8", or a longer prefix

proxy.toml:5:48: trusted_proxies in [listen]: found "nonsense"
  |
5 | trusted_proxies = ["10.0.0.1/8", "10.0.0.0/8", "nonsense"]
  |                                                ^^^^^^^^^^
  = expected a range of addresses (CIDR), as in "10.0.0.0/8" or "2001:db8::/32"

proxy.toml:6:15: drain_delay in [listen]: found the integer 5
  |
6 | drain_delay = 5
  |               ^
  = expected a duration such as "250ms", "10s", "5m", "1h" or "7d"
  = fix: write "5s" for seconds

proxy.toml:10:13: directory in [[ca]]: found "letsencript"
   |
10 | directory = "letsencript"
   |             ^^^^^^^^^^^^^
   = expected a URL, or one of "letsencrypt-staging", "letsencrypt", "zerossl", "google", "google-staging", "sslcom" or "actalis"
   = fix: did you mean "letsencrypt"?

proxy.toml:12:12: unknown upstream "cor"
   |
12 | upstream = "cor"
   |            ^^^^^
   = expected "core"
   = fix: did you mean "core"?

proxy.toml:15:14: addresses in [[upstream]]: found "http://127.0.0.1:3000/x"
   |
15 | addresses = ["http://127.0.0.1:3000/x"]
   |              ^^^^^^^^^^^^^^^^^^^^^^^^^
   = expected a host and a port, as in "127.0.0.1:3000" or "core.internal:8080"
   = fix: write "127.0.0.1:3000", and protocol = "http" beside it

proxy.toml:17:8: name in [[tenant]]: found "Acme"
   |
17 | name = "Acme"
   |        ^^^^^^
   = expected a tenant's name: 1 to 63 lower-case letters, digits, hyphens or underscores, beginning with a letter or digit
   = fix: write "acme"

proxy.toml:18:12: domains in [[tenant]]: found "https://shop.test/"
   |
18 | domains = ["https://shop.test/", "192.0.2.1"]
   |            ^^^^^^^^^^^^^^^^^^^^
   = expected a host name, as in "shop.example.com" or "*.example.com": label "https://shop" is not 1 to 63 letters, digits, underscores or inner hyphens
   = fix: write the name alone: "shop.test"

proxy.toml:18:34: domains in [[tenant]]: found "192.0.2.1"
   |
18 | domains = ["https://shop.test/", "192.0.2.1"]
   |                                  ^^^^^^^^^^^
   = expected a host name, as in "shop.example.com" or "*.example.com": an IP address is not a name

12 mistakes"#;
    assert_eq!(told(text), expected);
}

#[test]
fn a_domain_of_two_tenants_is_told_with_both_places() {
    let text = "[[tenant]]\nname = \"a\"\ndomains = [\"shop.test\"]\n\
                [[tenant]]\nname = \"b\"\ndomains = [\"SHOP.test.\"]\n";
    let expected = r#"proxy.toml:6:12: domain shop.test is declared twice
  |
6 | domains = ["SHOP.test."]
  |            ^^^^^^^^^^^^
  = fix: remove one of them
  = see proxy.toml:3:12: the first one

1 mistake"#;
    assert_eq!(told(text), expected);
}

#[test]
fn text_that_is_no_toml_is_told_with_its_place() {
    let expected = r#"proxy.toml:2:5: not valid TOML: duplicate key
  |
2 |     a = 2
  |     ^
  = fix: keep one of them

1 mistake"#;
    assert_eq!(told("    a = 1\n    a = 2\n"), expected);
    let all = told("[listen\nhttp = [\n\n[dns]\nx = = 3\n");
    assert!(all.starts_with("proxy.toml:1:8: not valid TOML: "), "{all}");
}

#[test]
fn what_else_is_wrong_is_told_beside_what_is_no_toml() {
    let text = "[listen]\nworkers = 0\nhttp = [\"x\"\nhttps = 3\n\n[dns]\ndeadline = 5\n\
                [[tenant]]\nname = \"A\"\n[[upstream]]\nname = \"core\"\n";
    let places: Vec<(usize, String)> = mistakes(text)
        .into_iter()
        .map(|mistake| (mistake.line, mistake.what))
        .collect();
    let expected = [
        (4, "not valid TOML: missing comma between array elements"),
        (7, "deadline in [dns]: found the integer 5"),
        (9, "name in [[tenant]]: found \"A\""),
    ]
    .map(|(line, what)| (line, what.to_owned()));
    assert_eq!(places, expected);
}

#[test]
fn a_secret_written_into_the_file_is_refused_without_being_shown() {
    for eab in [
        r#"eab = { kid = "k", hmac_key = "hunter2" }"#,
        r#"eab = { kid = "k", hmac_key = { env = "hunter2 x" } }"#,
        r#"eab = { kid = "k", hmac_key = { env = "A", file = "hunter2" } }"#,
    ] {
        let text = format!(
            "[[ca]]\nname = \"z\"\nkind = \"acme\"\ndirectory = \"zerossl\"\nterms_agreed = true\n{eab}\n"
        );
        let report = told(&text);
        assert!(report.contains("proxy.toml:6:"), "{report}");
        assert!(!report.contains("hunter2"), "{report}");
    }
    let report = told("[on_demand]\nask = \"https://user:hunter2@core.test/\"\n");
    assert!(
        report.ends_with("1 mistake") && !report.contains("hunter2"),
        "{report}"
    );
}

/// What every input must come to: settings, or at least one mistake, which can be printed.
fn is_answered(text: &str) {
    match assemble(&only(text), None) {
        Ok(Assembled { warnings, .. }) => assert!(warnings.is_empty()),
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            assert!(!Report(&mistakes).to_string().contains('\u{1b}'));
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_text_is_answered(text in "\\PC{0,400}") {
        is_answered(&text);
    }

    #[test]
    fn text_like_toml_is_answered(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\"", "'", "\n", "#", " ", "listen", "http",
                "tenant", "name", "domains", "ca", "kind", "\"acme\"", "store", "data", "1", "-0", "1e9",
                "true", "\u{1b}", "\0", "é", "\u{feff}", "\r", "1979-05-27", "inf", "0x", "include",
            ]),
            0..60,
        )
    ) {
        is_answered(&parts.concat());
    }

    #[test]
    fn the_documented_file_with_a_piece_replaced_is_answered(
        at in any::<prop::sample::Index>(),
        length in 0usize..40,
        piece in "[\\PC\n]{0,12}",
    ) {
        let characters: Vec<char> = DOCUMENTED.chars().collect();
        let start = at.index(characters.len());
        let end = (start + length).min(characters.len());
        let text: String = characters[..start]
            .iter()
            .copied()
            .chain(piece.chars())
            .chain(characters[end..].iter().copied())
            .collect();
        is_answered(&text);
    }
}
