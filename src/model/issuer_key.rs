//! The keys that sign certificates of an authority of our own, and where their lists of revoked certificates are served.

use std::borrow::Borrow;
use std::fmt;

/// Where port 80 serves the lists: before the key's identifier …
const FOLDER: &str = "/.well-known/vestibule/crl/";
/// … and after it.
const ENDING: &str = ".crl";

/// A key by its identifier (RFC 5280 §4.2.1.2), lower-case hexadecimal. A certificate names by it the key that signed it
/// (§4.2.1.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct IssuerKey(String);

impl IssuerKey {
    /// The key with this identifier.
    #[must_use]
    pub fn from_bytes(identifier: &[u8]) -> Self {
        Self(identifier.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The identifier.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where port 80 serves its list, on every host. It stays as long as the key does, whatever certificate the key has.
    #[must_use]
    pub fn list_path(&self) -> String {
        format!("{FOLDER}{}{ENDING}", self.0)
    }

    /// The identifier of the key whose list would be at `path`.
    #[must_use]
    pub fn in_list_path(path: &str) -> Option<&str> {
        path.strip_prefix(FOLDER)?.strip_suffix(ENDING)
    }
}

impl Borrow<str> for IssuerKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_found_again_by_its_path() {
        let key = IssuerKey::from_bytes(&[0x0a, 0xff]);
        assert_eq!(key.list_path(), "/.well-known/vestibule/crl/0aff.crl");
        assert_eq!(IssuerKey::in_list_path(&key.list_path()), Some("0aff"));
        for other in ["/", "/.well-known/vestibule/crl/0aff", "/x/0aff.crl"] {
            assert_eq!(IssuerKey::in_list_path(other), None, "{other}");
        }
    }
}
