//! Bytes that are never printed, compared in constant time and wiped when dropped.

use aws_lc_rs::constant_time;
use zeroize::Zeroizing;

/// Secret bytes: a private key's DER, a token, a password. No `Debug`, no `Serialize`, on purpose.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one call that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether both hold the same bytes, in time that depends only on their length.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, other).is_ok()
    }
}

/// In time that depends only on their length.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose())
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_only_the_same_bytes() {
        let secret = Secret::from("token".to_owned());
        assert!(secret.matches(b"token"));
        assert!(!secret.matches(b"tokem") && !secret.matches(b"toke"));
        assert_eq!(secret.expose_str(), Some("token"));
    }
}
