//! What a handshake needs: a chain, its private key, whose they are.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::certs::intermediate;
use crate::model::certificate::CertificateFacts;
use crate::model::{DnsName, NamePattern, TenantId};

/// A certificate ready to be served. Immutable; replaced as a whole.
pub struct Credential {
    /// What is known of it without the key.
    pub facts: CertificateFacts,
    /// The chain and the parsed key, as rustls takes them.
    pub certified: Arc<CertifiedKey>,
}

/// A key that does not fit its certificate, or cannot be read.
#[derive(Debug)]
pub struct CredentialError(rustls::Error);

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the private key cannot be read or does not belong to the certificate")
    }
}

impl std::error::Error for CredentialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// The name under which the private key of a certificate is sealed whose first name this is: the same for the key in a
/// job's row and in the certificate's, and another for every name, so that a blob moved to another row does not open.
#[must_use]
pub fn sealed_as(pattern: &NamePattern) -> String {
    format!("key:{pattern}")
}

/// The name under which the private key of a certificate is sealed, whichever of its names is served.
#[must_use]
pub fn key_sealed_as(facts: &CertificateFacts) -> Option<String> {
    facts.names.first().map(sealed_as)
}

impl Credential {
    /// Parses the certificate and its key (PKCS #8), and checks that they belong together.
    ///
    /// # Errors
    /// [`CredentialError`] where they do not.
    pub fn from_der(
        facts: CertificateFacts,
        leaf: Vec<u8>,
        chain: Vec<Vec<u8>>,
        key: &Secret,
    ) -> Result<Self, CredentialError> {
        let chain = std::iter::once(CertificateDer::from(leaf))
            .chain(chain.into_iter().map(intermediate::intern))
            .collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.expose()));
        let signer = aws_lc_rs::sign::any_supported_type(&key).map_err(CredentialError)?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(CredentialError)?;
        Ok(Self {
            facts,
            certified: Arc::new(certified),
        })
    }

    /// The one tenant whose names it holds.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.facts.tenant
    }

    /// Whether one of its names covers `name`.
    #[must_use]
    pub fn covers(&self, name: &DnsName) -> bool {
        self.facts.names.iter().any(|pattern| pattern.covers(name))
    }

    /// Whether it is valid at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.facts.not_before <= now && now < self.facts.not_after
    }

    /// About how many bytes it keeps in memory, its key included; what it shares with other chains is not its own.
    #[must_use]
    pub fn weight(&self) -> usize {
        let chain = self.certified.cert.iter();
        let own = chain.filter(|der| !intermediate::is_shared(der));
        own.map(|der| der.len()).sum::<usize>() + KEY_AND_BOOKKEEPING
    }
}

/// A parsed P-256 key (704 bytes measured), its structures, the facts and the map entry.
const KEY_AND_BOOKKEEPING: usize = 1500;

/// Names the certificate, never the key.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}
