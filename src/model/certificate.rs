//! Facts about certificates and the authorities that issue them; the key material itself is in `certs`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::model::label::label;
use crate::model::{NamePattern, TenantId};

/// A certificate's identity in the store, the API and the logs. Sorts by time of creation (UUID version 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateId(Uuid);

impl CertificateId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// From its 16 bytes in the store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl Default for CertificateId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for CertificateId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl serde::Serialize for CertificateId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CertificateId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

label! {
    /// The name that the configuration gives to a certification authority.
    CaId
}

/// What is known of a certificate without its key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CertificateFacts {
    /// Its identity here.
    pub id: CertificateId,
    /// The one tenant whose names it holds.
    pub tenant: TenantId,
    /// Its subject alternative names. They never span tenants.
    pub names: Vec<NamePattern>,
    /// The authority that issued it, as configured.
    pub ca: CaId,
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ends to be valid.
    pub not_after: Timestamp,
}

/// The most octets of a serial number that are looked for; authorities use at most 20 (RFC 5280 §4.1.2.2).
const LONGEST_SERIAL: usize = 32;

/// A serial number, as it is looked for. The one form of it that is stored: the octets of its DER, lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialNumber(String);

/// What was given is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialNumberError;

impl fmt::Display for SerialNumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a serial number is hexadecimal, of at most {LONGEST_SERIAL} octets, with or without colons, as `openssl x509 \
             -noout -serial` prints it"
        )
    }
}

impl std::error::Error for SerialNumberError {}

impl SerialNumber {
    /// From hexadecimal as programs print it: in any case, with colons or spaces between, with `0x` or `serial=` before it.
    ///
    /// # Errors
    /// [`SerialNumberError`].
    pub fn parse(text: &str) -> Result<Self, SerialNumberError> {
        let text = text.trim();
        let text = text.strip_prefix("serial=").unwrap_or(text);
        let text = text.strip_prefix("0x").unwrap_or(text);
        let digits: String = text
            .chars()
            .filter(|c| !matches!(c, ':' | ' '))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        if digits.is_empty()
            || digits.len() > 2 * LONGEST_SERIAL
            || !digits.chars().all(|c| c.is_ascii_hexdigit())
        {
            return Err(SerialNumberError);
        }
        let digits = digits.trim_start_matches('0');
        // Whole octets, and one more where the first bit would make the number negative (X.690 §8.3).
        let is_odd = digits.len() % 2 == 1;
        let is_high = !is_odd && !digits.starts_with(|c: char| c.is_ascii_digit() && c < '8');
        Ok(Self(match (is_odd, is_high) {
            (true, _) => format!("0{digits}"),
            (false, true) => format!("00{digits}"),
            (false, false) => digits.to_owned(),
        }))
    }

    /// Its octets, lower-case hexadecimal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_found_in_every_form_in_which_programs_print_it() {
        let parsed = |text: &str| SerialNumber::parse(text).unwrap().0;
        for text in [
            "A1B",
            "0a1b",
            "0A:1b",
            "00 0a 1b",
            "0x0A1B",
            "serial=0A1B\n",
        ] {
            assert_eq!(parsed(text), "0a1b", "{text}");
        }
        // As in DER, where openssl leaves the first octet out.
        for text in ["8F01", "00:8f:01"] {
            assert_eq!(parsed(text), "008f01", "{text}");
        }
        assert_eq!(
            (parsed("7f"), parsed("0")),
            ("7f".to_owned(), "00".to_owned())
        );
        let long = "1".repeat(65);
        for text in ["", ":", "0x", "0a1g", "a-b", long.as_str()] {
            assert_eq!(SerialNumber::parse(text), Err(SerialNumberError), "{text}");
        }
    }
}
