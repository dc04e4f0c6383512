//! `[[ca]]`: a certification authority, public or our own.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::ca_limits::{self, CaLimits};
use super::{SecretPlace, seconds, secret};
use crate::base::nearest::nearest;
use crate::config::mistake::quoted_list;
use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;
use crate::model::DnsName;

/// Contacts of one account.
const MOST_CONTACTS: usize = 8;
/// Names of one authority in CAA records.
const MOST_IDENTITIES: usize = 16;
/// What only an ACME authority has.
const ACME_ONLY: [&str; 10] = [
    "directory",
    "contact",
    "terms_agreed",
    "root",
    "eab",
    "account_key",
    "profile",
    "preferred_chain",
    "caa_identities",
    "limits",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum CaKind {
    Acme,
    Private,
}

const KINDS: &[(&str, CaKind)] = &[("acme", CaKind::Acme), ("private", CaKind::Private)];

/// An ACME directory and, where it is a well-known one, what we know of it.
#[derive(Clone, Debug)]
pub(in crate::config) struct Directory {
    pub(in crate::config) url: Url,
    /// Whether the CA takes orders only from accounts bound to one of its own.
    pub(in crate::config) wants_binding: bool,
}

#[derive(Debug)]
pub(in crate::config) struct ExternalAccount {
    pub(in crate::config) kid: At<String>,
    pub(in crate::config) hmac_key: At<SecretPlace>,
}

#[derive(Debug)]
pub(in crate::config) struct Ca {
    pub(in crate::config) place: Range<usize>,
    pub(in crate::config) name: At<String>,
    pub(in crate::config) kind: CaKind,
    pub(in crate::config) directory: Option<At<Directory>>,
    pub(in crate::config) contact: Vec<At<String>>,
    pub(in crate::config) terms_agreed: Option<At<bool>>,
    pub(in crate::config) root: Option<At<PathBuf>>,
    pub(in crate::config) eab: Option<ExternalAccount>,
    pub(in crate::config) account_key: Option<At<SecretPlace>>,
    pub(in crate::config) profile: Option<At<String>>,
    pub(in crate::config) preferred_chain: Option<At<String>>,
    pub(in crate::config) caa_identities: Vec<At<DnsName>>,
    pub(in crate::config) lifetime: Option<At<Duration>>,
    pub(in crate::config) limits: Option<CaLimits>,
    pub(in crate::config) per_tenant: Option<At<bool>>,
    pub(in crate::config) crl_url: Option<At<Url>>,
    pub(in crate::config) crl_lifetime: Option<At<Duration>>,
}

pub(super) fn read(mut table: Table<'_>) -> Option<Ca> {
    let name = table.required(
        "name",
        "a name that certificates and logs will show",
        value::label,
    );
    let kind = table.required("kind", r#""acme" or "private""#, value::word(KINDS));
    // A nameless one is read on, so that everything that it lacks is told at once.
    let name = name.unwrap_or_else(|| At {
        value: String::new(),
        at: table.place(),
    });
    let ca = match kind.map(|kind| kind.value) {
        Some(CaKind::Private) => private(&mut table, name),
        Some(CaKind::Acme) => acme(&mut table, name),
        None => unknown(&mut table),
    };
    table.finish();
    ca
}

/// Reads what either kind takes, so that only keys which neither takes are unknown.
fn unknown(table: &mut Table<'_>) -> Option<Ca> {
    table.optional("directory", directory);
    table.list("contact", MOST_CONTACTS, contact);
    table.optional("terms_agreed", value::flag);
    table.optional("root", value::path);
    let eab = table.table("eab", EAB);
    eab.and_then(external_account);
    table.optional("account_key", secret::read);
    table.optional("profile", value::text);
    table.optional("preferred_chain", value::text);
    table.list("caa_identities", MOST_IDENTITIES, value::host);
    table.optional("lifetime", lifetime);
    let limits = table.table("limits", ca_limits::TITLE);
    limits.map(ca_limits::read);
    table.optional("per_tenant", value::flag);
    table.optional("crl_url", crl_url);
    table.optional("crl_lifetime", crl_lifetime);
    None
}

fn private(table: &mut Table<'_>, name: At<String>) -> Option<Ca> {
    for key in ACME_ONLY {
        table.forbid(key, "is only for a CA of kind \"acme\"");
    }
    let lifetime = table.optional("lifetime", lifetime);
    let per_tenant = table.optional("per_tenant", value::flag);
    let crl_url = table.optional("crl_url", crl_url);
    let crl_lifetime = table.optional("crl_lifetime", crl_lifetime);
    Some(Ca {
        place: table.place(),
        name,
        kind: CaKind::Private,
        directory: None,
        contact: Vec::new(),
        terms_agreed: None,
        root: None,
        eab: None,
        account_key: None,
        profile: None,
        preferred_chain: None,
        caa_identities: Vec::new(),
        lifetime,
        limits: None,
        per_tenant,
        crl_url,
        crl_lifetime,
    })
}

fn lifetime(value: &Value<'_>) -> Result<Duration, Wrong> {
    value::duration(seconds(5)..=seconds(90 * 86_400))(value)
}

fn crl_lifetime(value: &Value<'_>) -> Result<Duration, Wrong> {
    value::duration(seconds(10)..=seconds(30 * 86_400))(value)
}

/// A host and perhaps a port. Never HTTPS: whoever checks a certificate for it would need the list to do so
/// (RFC 5280 §8).
fn crl_url(value: &Value<'_>) -> Result<Url, Wrong> {
    let wrong = || Wrong::expected(r#"http:// and a host, as in "http://edge.example.net""#);
    let url = value::http_url(value, "http://edge.example.net").map_err(|_source| wrong())?;
    match (url.scheme(), url.path(), url.query(), url.domain()) {
        ("http", "/", None, Some(_)) => Ok(url),
        ("https", ..) => Err(wrong()
            .fix("write http://: a list that needs a certificate to be fetched is of no use")),
        _ => Err(wrong().fix("leave the path out: the edge adds its own")),
    }
}

fn acme(table: &mut Table<'_>, name: At<String>) -> Option<Ca> {
    for key in ["crl_url", "crl_lifetime"] {
        table.forbid(
            key,
            "is only for a CA of kind \"private\": an ACME CA publishes its own lists",
        );
    }
    table.forbid(
        "lifetime",
        "is only for a CA of kind \"private\": an ACME CA decides by itself",
    );
    table.forbid(
        "per_tenant",
        "is only for a CA of kind \"private\": an ACME account serves all tenants",
    );
    let directory = table.required("directory", DIRECTORY, directory);
    let contact = table.list("contact", MOST_CONTACTS, contact);
    let terms_agreed = table.optional("terms_agreed", value::flag);
    let root = table.optional("root", value::path);
    let eab = table.table("eab", EAB);
    let eab = eab.and_then(external_account);
    let account_key = table.optional("account_key", secret::read);
    let profile = table.optional("profile", value::text);
    let preferred_chain = table.optional("preferred_chain", value::text);
    let identities = table.list("caa_identities", MOST_IDENTITIES, value::host);
    let limits = table.table("limits", ca_limits::TITLE);
    let limits = limits.map(ca_limits::read);
    Some(Ca {
        place: table.place(),
        name,
        kind: CaKind::Acme,
        directory,
        contact: contact.unwrap_or_default(),
        terms_agreed,
        root,
        eab,
        account_key,
        profile,
        preferred_chain,
        caa_identities: identities.unwrap_or_default(),
        lifetime: None,
        limits,
        per_tenant: None,
        crl_url: None,
        crl_lifetime: None,
    })
}

const EAB: &str = "eab of [[ca]]";

fn external_account(mut table: Table<'_>) -> Option<ExternalAccount> {
    let kid = table.required(
        "kid",
        "the key identifier that the CA gave you",
        value::text,
    );
    let hmac_key = table.required(
        "hmac_key",
        r#"where to read it: { env = "NAME" } or { file = "path" }"#,
        secret::read,
    );
    table.finish();
    Some(ExternalAccount {
        kid: kid?,
        hmac_key: hmac_key?,
    })
}

const DIRECTORY: &str =
    r#"the URL of its ACME directory, or a well-known name such as "letsencrypt-staging""#;

/// Well-known directories: name, URL, and whether an account must be bound to one of the CA's own.
const WELL_KNOWN: &[(&str, &str, bool)] = &[
    (
        "letsencrypt-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        false,
    ),
    (
        "letsencrypt",
        "https://acme-v02.api.letsencrypt.org/directory",
        false,
    ),
    ("zerossl", "https://acme.zerossl.com/v2/DV90", true),
    ("google", "https://dv.acme-v02.api.pki.goog/directory", true),
    (
        "google-staging",
        "https://dv.acme-v02.test-api.pki.goog/directory",
        true,
    ),
    ("sslcom", "https://acme.ssl.com/sslcom-dv-ecc", true),
    (
        "actalis",
        "https://acme-api.actalis.com/acme/directory",
        true,
    ),
];

fn directory(value: &Value<'_>) -> Result<Directory, Wrong> {
    let text = value.text().ok_or_else(|| Wrong::expected(DIRECTORY))?;
    let known = WELL_KNOWN.iter().find(|(name, ..)| *name == text);
    if let Some((_, url, wants_binding)) = known {
        let url = Url::parse(url).map_err(|_source| Wrong::expected(DIRECTORY))?;
        let wants_binding = *wants_binding;
        return Ok(Directory { url, wants_binding });
    }
    if !text.contains("://") {
        let names = || WELL_KNOWN.iter().map(|(name, ..)| *name);
        let wrong = Wrong::expected(format!("a URL, or one of {}", quoted_list(names())));
        return Err(match nearest(text, names()) {
            Some(near) => wrong.fix(format!("did you mean {near:?}?")),
            None => wrong,
        });
    }
    let url = value::http_url(value, "https://ca.example.com/directory")?;
    match url.scheme() {
        // RFC 8555 §6.1: ACME runs over HTTPS.
        "https" => Ok(Directory {
            url,
            wants_binding: false,
        }),
        _ => Err(Wrong::expected("a URL that begins with https://")
            .fix("for a private CA name its root file with `root`")),
    }
}

/// A mail address, with `mailto:` or without.
fn contact(value: &Value<'_>) -> Result<String, Wrong> {
    let text = value.text().unwrap_or_default();
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let good = address.len() <= 254
        && address
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        && address.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    match good {
        true => Ok(format!("mailto:{address}")),
        false => Err(Wrong::expected(
            r#"a mail address, as in "operations@example.com""#,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_well_known_directory_is_an_https_url() {
        for (name, url, _) in WELL_KNOWN {
            assert_eq!(Url::parse(url).unwrap().scheme(), "https", "{name}");
        }
    }
}
