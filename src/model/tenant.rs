//! Who owns what: tenants by their slug, and the scope that store calls for a tenant take.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::DnsName;

/// The longest slug: room for `ask:` and the longest name.
const LONGEST: usize = 257;
/// Begins the slugs of tenants that the permission hook made by allowing a name without naming a tenant.
const ASKED: &str = "ask:";

/// A tenant's immutable slug, the same in files, rows and paths: 1 to 63 lower-case letters, digits, hyphens
/// and underscores, beginning with a letter or digit; or `ask:` and a name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// A text that is no tenant slug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantIdError(String);

impl fmt::Display for TenantIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tenant {:?} is not 1 to 63 lower-case letters, digits, hyphens or underscores, \
             beginning with a letter or digit",
            self.0
        )
    }
}

impl std::error::Error for TenantIdError {}

impl TenantId {
    /// Reads a slug.
    ///
    /// # Errors
    /// [`TenantIdError`] quotes the text.
    pub fn parse(text: &str) -> Result<Self, TenantIdError> {
        let valid = match text.strip_prefix(ASKED) {
            Some(name) => DnsName::parse(name).is_ok_and(|parsed| parsed.as_str() == name),
            None => is_slug(text),
        };
        match valid {
            true => Ok(Self(Arc::from(text))),
            false => Err(TenantIdError(text.chars().take(LONGEST).collect())),
        }
    }

    /// The tenant that a name becomes when the permission hook allows it without naming one: nothing is
    /// shared between two such names.
    #[must_use]
    pub fn asked(name: &DnsName) -> Self {
        Self(Arc::from(format!("{ASKED}{name}")))
    }

    /// The slug.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_slug(text: &str) -> bool {
    let body = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=63).contains(&text.len()) && text.bytes().all(body) && !text.starts_with(['-', '_'])
}

impl FromStr for TenantId {
    type Err = TenantIdError;

    fn from_str(text: &str) -> Result<Self, TenantIdError> {
        Self::parse(text)
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for TenantId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Leave to touch one tenant's rows, or all of them. Store calls take this and never a bare id, so that a
/// call without a reason cannot be written by accident. Made only by the constructors below, each of which
/// names its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantScope(Reach);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    One(TenantId),
    All,
}

impl TenantScope {
    /// The issuance, renewal or serving of a certificate works for the tenant that owns it.
    #[must_use]
    pub const fn certificate_work(tenant: TenantId) -> Self {
        Self(Reach::One(tenant))
    }

    /// The operator's configuration file declares tenants and domains.
    #[must_use]
    pub const fn configuration() -> Self {
        Self(Reach::All)
    }

    /// The operator, who owns the machine and its Unix socket.
    #[must_use]
    pub const fn operator() -> Self {
        Self(Reach::All)
    }

    /// The program's own upkeep: the index of names, schedules, clean-up.
    #[must_use]
    pub const fn upkeep() -> Self {
        Self(Reach::All)
    }

    /// The same leave for one tenant alone, where it reaches that one.
    #[must_use]
    pub fn narrowed_to(&self, tenant: &TenantId) -> Option<Self> {
        self.reaches(tenant)
            .then(|| Self(Reach::One(tenant.clone())))
    }

    /// Whether the scope reaches `tenant`.
    #[must_use]
    pub fn reaches(&self, tenant: &TenantId) -> bool {
        match &self.0 {
            Reach::One(own) => own == tenant,
            Reach::All => true,
        }
    }

    /// The single tenant it is limited to, or nothing where it reaches all.
    #[must_use]
    pub const fn only(&self) -> Option<&TenantId> {
        match &self.0 {
            Reach::One(tenant) => Some(tenant),
            Reach::All => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_checked() {
        for good in ["acme", "a", "0", "big-corp_2", "ask:shop.example.com"] {
            assert_eq!(TenantId::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "Acme",
            "-a",
            "a b",
            "a/b",
            "..",
            "ask:",
            "ask:SHOP.test",
            "ask:../x",
            "é",
        ] {
            assert!(TenantId::parse(bad).is_err(), "{bad}");
        }
        assert!(TenantId::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_scope_reaches_only_what_it_was_made_for() {
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let scope = TenantScope::certificate_work(a.clone());
        assert!(scope.reaches(&a) && !scope.reaches(&b));
        assert_eq!(TenantScope::operator().narrowed_to(&a), Some(scope.clone()));
        assert_eq!(scope.narrowed_to(&b), None);
        assert!(TenantScope::operator().reaches(&b));
    }
}
