//! DNS names in the one form that the program compares: lower-case A-labels without a trailing dot.

use std::borrow::Borrow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name in text form (RFC 1035 §2.3.4: 255 octets on the wire).
const LONGEST_NAME: usize = 253;
/// The longest label (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;

/// A fully qualified host name: lower case, A-labels (RFC 5890), no trailing dot, at least two labels or
/// `localhost`-like single ones, never an address, never a wildcard. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Arc<str>);

/// Why a text is not a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing, or only a dot.
    Empty,
    /// Longer than 253 octets.
    TooLong,
    /// A label that is empty, longer than 63 octets, begins or ends with a hyphen, or holds other characters
    /// than letters, digits, hyphens and underscores.
    BadLabel(String),
    /// An IPv4 or IPv6 address.
    Address,
    /// An internationalised name that UTS 46 does not allow.
    NotIdna,
    /// A wildcard where a single name is wanted, or one whose `*` is not the whole leftmost label.
    Wildcard,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the name is empty"),
            Self::TooLong => write!(f, "the name is longer than {LONGEST_NAME} octets"),
            Self::BadLabel(label) => write!(
                f,
                "label {label:?} is not 1 to {LONGEST_LABEL} letters, digits, underscores or inner hyphens"
            ),
            Self::Address => f.write_str("an IP address is not a name"),
            Self::NotIdna => f.write_str("the internationalised name is not valid (UTS 46)"),
            Self::Wildcard => f.write_str(
                "a wildcard is only allowed as the whole leftmost label, as in *.example.com",
            ),
        }
    }
}

impl std::error::Error for NameError {}

impl DnsName {
    /// Reads a name as people and clients write it: any case, U-labels, one trailing dot.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.contains('*') {
            return Err(NameError::Wildcard);
        }
        if is_canonical(text) {
            return Self::checked(text);
        }
        if text.is_ascii() {
            return Self::checked(&text.to_ascii_lowercase());
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_source| NameError::NotIdna)?;
        Self::checked(&ascii)
    }

    fn checked(text: &str) -> Result<Self, NameError> {
        if text.len() > LONGEST_NAME {
            return Err(NameError::TooLong);
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(NameError::Address);
        }
        match text.split('.').find(|label| !is_label(label)) {
            Some(label) => Err(NameError::BadLabel(label.chars().take(80).collect())),
            // RFC 1123 §2.1: a numeric last label would read as an IPv4 address.
            None if text.rsplit('.').next().is_some_and(is_numeric) => Err(NameError::Address),
            None => Ok(Self(Arc::from(text))),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its leftmost label: `b.c` for `a.b.c`, nothing for `a`.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_once('.')?;
        Some(Self(Arc::from(parent)))
    }

    /// The leftmost label.
    #[must_use]
    pub fn first_label(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }

    /// Whether this name is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match self.0.strip_suffix(other.as_str()) {
            Some(rest) => rest.is_empty() || rest.ends_with('.'),
            None => false,
        }
    }

    /// The registered domain (eTLD+1) by the public suffix list; the name itself where it is a suffix or
    /// the list does not tell.
    #[must_use]
    pub fn registered_domain(&self) -> Self {
        match psl::domain_str(&self.0) {
            Some(domain) => Self(Arc::from(domain)),
            None => self.clone(),
        }
    }

    /// Whether it lies below a suffix that the public suffix list holds, and so in public DNS: `.test`, `.internal` and
    /// the like do not.
    #[must_use]
    pub fn has_public_suffix(&self) -> bool {
        psl::suffix(self.0.as_bytes()).is_some_and(|suffix| suffix.is_known())
    }
}

/// Whether `text` needs no change to be compared: ASCII without upper case.
fn is_canonical(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii() && !b.is_ascii_uppercase())
}

fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_numeric(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
}

impl FromStr for DnsName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl Borrow<str> for DnsName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for DnsName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for DnsName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A name as a certificate or a domain may hold it: one name, or every name one label below another
/// (RFC 9525 §6.3: the wildcard is the whole leftmost label and matches exactly one).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamePattern {
    /// Exactly this name.
    Exact(DnsName),
    /// `*.` in front of this name.
    Wildcard(DnsName),
}

impl NamePattern {
    /// Reads `name` or `*.name`.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(parent) => DnsName::parse(parent).map(Self::Wildcard),
            None => DnsName::parse(text).map(Self::Exact),
        }
    }

    /// Whether the pattern covers `name`.
    #[must_use]
    pub fn covers(&self, name: &DnsName) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Wildcard(parent) => name
                .as_str()
                .split_once('.')
                .is_some_and(|(_, rest)| rest == parent.as_str()),
        }
    }

    /// The pattern that would cover `name` by its parent, if it has one.
    #[must_use]
    pub fn wildcard_over(name: &DnsName) -> Option<Self> {
        name.parent().map(Self::Wildcard)
    }

    /// The name without `*.`.
    #[must_use]
    pub const fn base(&self) -> &DnsName {
        match self {
            Self::Exact(name) | Self::Wildcard(name) => name,
        }
    }

    /// Whether it begins with `*.`.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        matches!(self, Self::Wildcard(_))
    }
}

impl From<DnsName> for NamePattern {
    fn from(name: DnsName) -> Self {
        Self::Exact(name)
    }
}

impl FromStr for NamePattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl serde::Serialize for NamePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str, expected: &str) {
        assert_eq!(
            DnsName::parse(text).as_ref().map(DnsName::as_str),
            Ok(expected),
            "{text:?}"
        );
    }

    fn refuses(text: &str, expected: &NameError) {
        assert_eq!(DnsName::parse(text).as_ref(), Err(expected), "{text:?}");
    }

    #[test]
    fn reads_every_spelling_to_one_form() {
        reads("shop.example.com", "shop.example.com");
        reads("SHOP.Example.COM.", "shop.example.com");
        reads("bücher.example", "xn--bcher-kva.example");
        reads("localhost", "localhost");
        reads("_acme-challenge.a.test", "_acme-challenge.a.test");
        let longest = format!("{}a", "a.".repeat(126));
        reads(&longest, &longest);
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        let bad = |label: &str| NameError::BadLabel(label.to_owned());
        refuses("", &NameError::Empty);
        refuses(".", &NameError::Empty);
        refuses("a..b", &bad(""));
        refuses("a.b..", &bad(""));
        refuses("-a.test", &bad("-a"));
        refuses("a b.test", &bad("a b"));
        refuses("a/b.test", &bad("a/b"));
        refuses("nul\0.test", &bad("nul\0"));
        refuses("127.0.0.1", &NameError::Address);
        refuses("::1", &NameError::Address);
        refuses("1.2.3", &NameError::Address);
        refuses("*.example.com", &NameError::Wildcard);
        refuses(&format!("{}.test", "a".repeat(64)), &bad(&"a".repeat(64)));
        refuses(&format!("{}ab", "a.".repeat(126)), &NameError::TooLong);
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let name = |text| DnsName::parse(text).unwrap();
        let wildcard = NamePattern::parse("*.Example.com").unwrap();
        assert!(wildcard.covers(&name("a.example.com")));
        assert!(!wildcard.covers(&name("example.com")));
        assert!(!wildcard.covers(&name("a.b.example.com")));
        assert_eq!(wildcard.to_string(), "*.example.com");
        assert!(NamePattern::parse("*.*.example.com").is_err());
        assert!(NamePattern::parse("a*.example.com").is_err());
        assert_eq!(
            NamePattern::wildcard_over(&name("a.example.com")),
            Some(wildcard)
        );
    }

    #[test]
    fn knows_registered_domains_and_ancestry() {
        let name = |text| DnsName::parse(text).unwrap();
        assert_eq!(
            name("a.b.example.co.uk").registered_domain(),
            name("example.co.uk")
        );
        assert_eq!(name("co.uk").registered_domain(), name("co.uk"));
        assert!(name("a.example.com").is_within(&name("example.com")));
        assert!(!name("badexample.com").is_within(&name("example.com")));
        assert!(name("a.example.co.uk").has_public_suffix());
        assert!(!name("a.example.test").has_public_suffix());
        assert!(!name("localhost").has_public_suffix());
    }
}
