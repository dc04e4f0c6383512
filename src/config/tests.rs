//! Stories over whole files: the exact words of mistakes, the documented file, and arbitrary input.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::assemble::{Assembled, assemble};
use super::change::{Key, RESTART_KEYS};
use super::mistake::{Mistake, Report};
use super::reader::known;
use super::source::Source;
use super::text::{FileText, Texts};
use crate::ca::Kind;

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

fn uncommented(line: &str) -> String {
    line.strip_prefix('#').unwrap_or(line).to_owned()
}

/// The documented file with its marked lines changed as they say.
fn for_production() -> String {
    let (before, after) = DOCUMENTED.split_once("[[ca]]\n").unwrap();
    let (_private, after) = after.split_once("\n\n").unwrap();
    let changed = [before, after].concat();
    let lines = changed.lines().map(|line| {
        let (said, wanted) = line.split_once("# production: ").unwrap_or((line, ""));
        let key = said
            .split('=')
            .next()
            .unwrap()
            .trim()
            .trim_start_matches('#');
        let is_value = format!("x = {wanted}").parse::<toml::Table>().is_ok();
        let acme = [
            "#[[ca]]",
            "#name = \"letsencrypt\"",
            "#kind = \"acme\"",
            "#directory",
            "#contact",
            "#terms_agreed",
        ];
        match (said, wanted) {
            (said, "") if acme.iter().any(|start| said.starts_with(start)) => uncommented(said),
            (said, wanted) if is_value && said.contains('=') => format!("{key} = {wanted}"),
            (said, "your own") => uncommented(said),
            (said, _) => said.to_owned(),
        }
    });
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

#[test]
fn the_documented_file_with_its_marked_lines_changed_has_no_mistake() {
    let text = for_production();
    let texts = only(&text);
    let settings = assemble(&texts, None).map(|assembled| assembled.settings);
    let settings = settings.unwrap_or_else(|mistakes| panic!("{}", Report(&mistakes)));
    assert_eq!(settings.proxy.https, ["[::]:443".parse().unwrap()]);
    assert_eq!(
        (settings.proxy.https_port(), settings.data.to_str()),
        (443, Some("/var/lib/vestibule"))
    );
    assert_eq!(
        settings.edge.cname_target.unwrap().as_str(),
        "edge.example.com"
    );
    let [ca] = settings.ca.authorities.as_slice() else {
        panic!("{:?}", settings.ca);
    };
    let Kind::Acme(acme) = &ca.kind else {
        panic!("{ca:?}");
    };
    assert!(acme.directory.contains("staging") && acme.terms_agreed);
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let settings = |text: &str| assemble(&only(text), None).unwrap().settings;
    let documented = settings(&DOCUMENTED.replace("#ask =", "ask ="));
    let plain = settings(
        "[[ca]]\nname = \"c\"\nkind = \"private\"\n\
         [on_demand]\nask = \"http://127.0.0.1:3000/allowed\"\n",
    );
    assert_eq!(documented.proxy, plain.proxy);
    assert_eq!(documented.telemetry, plain.telemetry);
    assert_eq!(documented.dns, plain.dns);
    assert_eq!(documented.on_demand, plain.on_demand);
    assert_eq!(
        format!("{:?}", documented.permission),
        format!("{:?}", plain.permission)
    );
    assert_eq!(
        (documented.data, documented.key_file),
        (plain.data, plain.key_file)
    );
    let (mut certificates, default) = (documented.certificates, plain.certificates);
    assert!((certificates.renewal.fraction - default.renewal.fraction).abs() < 0.001);
    certificates.renewal.fraction = default.renewal.fraction;
    assert_eq!(certificates, default);
}

#[test]
fn the_documented_file_marks_what_waits_for_a_restart() {
    let lines: Vec<&str> = DOCUMENTED.lines().collect();
    for key in RESTART_KEYS {
        let (section, start) = match key {
            Key::Of(section, key) => (section, format!("{key} =")),
            Key::All(section) => (section, format!("[{section}]")),
        };
        let header = lines
            .iter()
            .position(|line| line.trim_matches(['[', ']']) == *section);
        let header = header.unwrap_or_else(|| panic!("{section}"));
        let first = match key {
            Key::Of(..) => header,
            Key::All(_) => 0,
        };
        let at = (first..lines.len())
            .find(|at| {
                let line = uncommented(lines[*at]);
                line.starts_with(&start) || line.starts_with(&format!("[{start}]"))
            })
            .unwrap_or_else(|| panic!("{key}"));
        // The comment above it, or above the group of keys that it stands in.
        let above = lines[..at]
            .iter()
            .rev()
            .skip_while(|line| !line.starts_with("# "));
        let comment: Vec<&&str> = above.take_while(|line| line.starts_with("# ")).collect();
        assert!(
            comment.iter().any(|line| line.contains("(restart)")),
            "{key}: {comment:?}"
        );
    }
}

#[test]
fn a_list_is_fetched_without_a_certificate_from_the_root_of_a_named_host() {
    for (url, good) in [
        ("http://edge.example.net", true),
        ("http://edge.example.net:8080/", true),
        ("https://edge.example.net", false),
        ("http://edge.example.net/lists", false),
        ("http://edge.example.net/?x", false),
        ("http://192.0.2.1", false),
        ("edge.example.net", false),
    ] {
        let text = DOCUMENTED.replace(
            "#crl_url = \"http://edge.example.net\"",
            &format!("crl_url = {url:?}"),
        );
        assert_ne!(text, DOCUMENTED);
        assert_eq!(mistakes(&text).is_empty(), good, "{url}");
    }
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
  = expected one of "admin", "budget", "ca", "certificates", "dns", "edge", "include", "keys", "limits", "listen", "on_demand", "preflight", "route", "store", "telemetry", "tenant" or "upstream"
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

proxy.toml:7:1: the CA's terms of service are not agreed to
  |
7 | [[ca]]
  | ^^^^^^
  = expected terms_agreed = true, without which nothing is ordered
  = fix: read the CA's terms of service, then write terms_agreed = true

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

13 mistakes"#;
    assert_eq!(told(text), expected);
}

/// What every file needs.
const CA: &str = "[[ca]]\nname = \"internal\"\nkind = \"private\"\n";

#[test]
fn an_https_upstream_of_several_names_must_say_which_its_certificate_holds() {
    let upstream = |addresses: &str, rest: &str| {
        format!(
            "[[upstream]]\nname = \"core\"\nprotocol = \"https\"\naddresses = [{addresses}]\n{rest}"
        )
    };
    let two = r#""a.internal:443", "127.0.0.1:443", "b.internal:443""#;
    let expected = r#"proxy.toml:4:49: an [[upstream]] by HTTPS with several names, a.internal and b.internal, and no "server_name"
  |
4 | addresses = ["a.internal:443", "127.0.0.1:443", "b.internal:443"]
  |                                                 ^^^^^^^^^^^^^^^^
  = expected the one name that the certificate at each address holds
  = fix: add server_name = "a.internal", or make each name an [[upstream]] of its own

1 mistake"#;
    assert_eq!(told(&upstream(two, "")), expected);
    let named = "server_name = \"core.internal\"\n";
    let one = r#""a.internal:443", "A.internal.:444", "127.0.0.1:443""#;
    let plain = upstream(two, "").replace("https", "http");
    for fine in [upstream(two, named), upstream(one, ""), plain] {
        assert_eq!(told(&format!("{fine}{CA}")), "0 mistakes", "{fine}");
    }
}

#[test]
fn edits_of_fields_that_the_proxy_decides_about_are_refused() {
    let upstream = "[[upstream]]\nname = \"core\"\naddresses = [\"127.0.0.1:3000\"]\n";
    for direction in ["request_headers", "response_headers"] {
        for field in [
            "Connection",
            "content-length",
            "Forwarded",
            "Host",
            "HTTP2-Settings",
            "keep-alive",
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Key",
            "te",
            "trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Vestibule-Tenant",
            "X-Forwarded-For",
            "X-Request-Id",
        ] {
            for edit in [
                format!("remove = [\"{field}\"]"),
                format!("set = {{ {field} = \"x\" }}"),
            ] {
                let text = format!(
                    "{upstream}[[route]]\nupstream = \"core\"\n{direction} = {{ {edit} }}\n"
                );
                let report = told(&text);
                assert!(
                    report.starts_with("proxy.toml:6:") && report.ends_with("\n1 mistake"),
                    "{edit}: {report}"
                );
                assert!(
                    report.contains("expected a field that the proxy does not decide about itself"),
                    "{report}"
                );
            }
        }
        let fine = format!(
            "{upstream}[[route]]\nupstream = \"core\"\n\
             {direction} = {{ remove = [\"Cookie\"], set = {{ x-team = \"blue\" }} }}\n{CA}"
        );
        assert_eq!(told(&fine), "0 mistakes");
    }
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
    fn whatever_an_included_file_holds_the_others_are_served(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "[[tenant]]\n", "[[route]]\n", "[[upstream]]\n", "[store]\n", "name = \"b\"\n",
                "name = \"good\"\n", "domains = [\"good.test\"]\n", "domains = [\"b.test\"]\n",
                "tenant = \"good\"\n", "upstream = \"core\"\n", "path = \"/x\"\n", "oops", "\"\"\"", "\0",
            ]),
            0..12,
        )
    ) {
        let mut texts = only(
            "[[ca]]\nname = \"c\"\nkind = \"private\"\n\
             [[upstream]]\nname = \"core\"\naddresses = [\"127.0.0.1:1\"]\n",
        );
        let good = "[[tenant]]\nname = \"good\"\ndomains = [\"good.test\"]\n\
                    [[route]]\ntenant = \"good\"\nupstream = \"core\"\n";
        let included = [("d/a.toml", good.to_owned()), ("d/b.toml", parts.concat())];
        let included = included.map(|(name, text)| FileText::Read(Source::new(name, text)));
        texts.included = included.into();
        let assembled = assemble(&texts, None).unwrap();
        let declaration = &assembled.settings.declaration;
        assert_eq!(declaration.tenants[0].id.as_str(), "good");
        assert_eq!(declaration.routes[0].file.as_ref(), "d/a.toml");
        let others = declaration.tenants.iter().skip(1);
        assert!(others.flat_map(|tenant| &tenant.domains).all(|domain| domain.base().as_str() == "b.test"));
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
