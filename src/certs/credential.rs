//! What a handshake needs: a chain, its private key, whose they are.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::base::clock::Timestamp;
use crate::model::certificate::CertificateFacts;
use crate::model::{DnsName, TenantId};

/// A certificate ready to be served. Immutable; replaced as a whole.
pub struct Credential {
    /// What is known of it without the key.
    pub facts: CertificateFacts,
    /// The chain and the parsed key, as rustls takes them.
    pub certified: Arc<CertifiedKey>,
}

impl Credential {
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

    /// About how many bytes it keeps in memory, its key included.
    #[must_use]
    pub fn weight(&self) -> usize {
        let chain: usize = self.certified.cert.iter().map(|der| der.len()).sum();
        chain + KEY_AND_BOOKKEEPING
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
