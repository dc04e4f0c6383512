//! `vestibule check`: every mistake of a configuration, or what it declares.

use std::net::SocketAddr;
use std::path::Path;

use crate::ca::{CaSettings, Kind};
use crate::config::assemble::{Assembled, assemble};
use crate::config::mistake::{Mistake, Report};
use crate::config::settings::Settings;
use crate::config::text::Texts;

/// What an edge that is not described costs.
pub(in crate::config) const EDGE_UNKNOWN: &str = "names that lead elsewhere are ordered all the same and fail at the CA, tenants are told no exact record, and no \
     domain is called moved";

/// What a check found: the text to print and whether it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The mistakes, or a summary.
    pub text: String,
    /// 0 without a mistake, else 2.
    pub exit_code: u8,
}

/// Checks the configuration at `path` and every file it includes. Whatever is wrong with an included file
/// counts, though a running proxy would go on without it.
#[must_use]
pub fn check(path: &Path) -> Checked {
    let texts = Texts::read(path);
    match assemble(&texts, None) {
        Ok(assembled) if assembled.warnings.is_empty() => Checked {
            text: summary(path, &assembled),
            exit_code: 0,
        },
        Ok(assembled) => refused(&assembled.warnings),
        Err(mistakes) => refused(&mistakes),
    }
}

/// What a configuration without mistakes declares.
fn summary(path: &Path, assembled: &Assembled<'_>) -> String {
    let settings = &assembled.settings;
    let listening = |addresses: &[SocketAddr]| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        match addresses.is_empty() {
            true => "nowhere".to_owned(),
            false => addresses.join(", "),
        }
    };
    let authorities = settings.ca.authorities.iter().map(|ca| match &ca.kind {
        Kind::Acme(acme) => format!("{} ({})", ca.id, acme.directory),
        Kind::Private(_) => format!("{} (private)", ca.id),
    });
    let authorities: Vec<String> = authorities.collect();
    let hook = settings.permission.as_ref();
    let hook = hook.map_or("declared names only", |hook| hook.ask.as_str());
    let [domains, tenants, upstreams, routes] = assembled.claims.counts();
    let counts = [
        (tenants, "tenant"),
        (domains, "domain"),
        (upstreams, "upstream"),
        (routes, "route"),
        (assembled.included.len(), "included file"),
    ];
    let counts: Vec<String> = counts.map(|(count, noun)| counted(count, noun)).into();
    let asks_others = |ca: &CaSettings| matches!(ca.kind, Kind::Acme(_));
    let edge = match settings.edge.is_described()
        || !settings.ca.authorities.iter().any(asks_others)
    {
        true => String::new(),
        false => format!(
            "\n  edge       not described: {EDGE_UNKNOWN} (set cname_target, and ipv4 and ipv6, under [edge])"
        ),
    };
    format!(
        "{path}: no mistakes\n\
         \x20 http       {http}\n\
         \x20 https      {https}\n\
         \x20 data       {data}, opened by {key}\n\
         {own}\
         \x20 ca         {authorities}\n\
         \x20 on demand  {hook}\n\
         \x20 declares   {counts}{edge}",
        path = path.display(),
        http = listening(&settings.proxy.http),
        https = listening(&settings.proxy.https),
        data = settings.data.display(),
        key = settings.key_file.display(),
        own = own_keys(settings),
        authorities = authorities.join(", then "),
        counts = counts.join(", "),
    )
}

/// A line on tenants' own keys, where there are any.
fn own_keys(settings: &Settings) -> String {
    let files = &settings.declaration.own_keys.files;
    let missing = files.values().filter(|file| !file.exists()).count();
    let count = match files.len() {
        0 => return String::new(),
        1 => "1 tenant has a key file of its own".to_owned(),
        count => format!("{count} tenants have a key file of their own"),
    };
    let missing = match missing {
        0 => String::new(),
        missing => format!(
            "; {missing} not there: `vestibule doctor` tells whether the data needs what it held"
        ),
    };
    format!("  own keys   {count}{missing}\n")
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

fn refused(mistakes: &[Mistake]) -> Checked {
    Checked {
        text: Report(mistakes).to_string(),
        exit_code: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};

    #[test]
    fn a_clean_file_is_summed_up_and_an_included_mistake_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            replace(&folder.path().join(name), text.as_bytes(), Access::Everyone).unwrap();
        };
        let at = |name: &str| folder.path().join(name).display().to_string();
        write(
            "more.toml",
            "[[tenant]]\nname = \"a\"\ndomains = [\"a.test\", \"*.a.test\"]\n",
        );
        write(
            "proxy.toml",
            "include = [\"more.toml\"]\n[listen]\nhttp = []\n[[ca]]\nname = \"internal\"\nkind = \"private\"\n",
        );
        let checked = check(&folder.path().join("proxy.toml"));
        let expected = format!(
            "{}: no mistakes\n  http       nowhere\n  https      [::]:8443\n  data       {}, opened by {}\n  \
             ca         internal (private)\n  on demand  declared names only\n  \
             declares   1 tenant, 2 domains, 0 upstreams, 0 routes, 1 included file",
            at("proxy.toml"),
            at("data"),
            at("key-encryption.key"),
        );
        assert_eq!((checked.text, checked.exit_code), (expected, 0));
        write(
            "more.toml",
            "[[tenant]]\nname = \"a\"\nkey_file = \"a.key\"\n",
        );
        let own = "  own keys   1 tenant has a key file of its own; 1 not there: `vestibule doctor` tells";
        let text = check(&folder.path().join("proxy.toml")).text;
        assert!(text.contains(own), "{text}");
        write("a.key", "");
        let text = check(&folder.path().join("proxy.toml")).text;
        assert!(text.contains("key file of its own\n"), "{text}");
        write("more.toml", "[[tenant]]\nnam = \"a\"\n");
        let checked = check(&folder.path().join("proxy.toml"));
        assert!(checked.text.ends_with("2 mistakes"), "{}", checked.text);
        assert_eq!(checked.exit_code, 2);
    }
}
