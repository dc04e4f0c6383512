//! A stored certificate → a credential: its key opened, parsed, and held against the certificate and the domain.

use std::fmt;
use std::sync::Arc;

use crate::certs::credential::{Credential, CredentialError, key_sealed_as};
use crate::certs::import::placement::holds;
use crate::certs::vault::{Vault, VaultError};
use crate::model::NamePattern;
use crate::store::record::{CertificateRecord, DataKeyRecord, DomainRecord, KeyOwner};

/// Loads credentials. Clones are the same.
#[derive(Clone, Debug)]
pub struct Loader {
    vault: Vault,
}

/// Why a stored certificate does not serve. It is never taken for an absent one: nothing is ordered.
#[derive(Debug)]
pub enum LoadError {
    /// Its key cannot be opened.
    Vault(VaultError),
    /// Its key cannot be read, or belongs to another certificate.
    Credential(CredentialError),
    /// It belongs to another tenant, or does not hold the domain's name.
    NotForDomain(NamePattern),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vault(_) => f.write_str("the stored private key cannot be opened"),
            Self::Credential(_) => f.write_str("the stored certificate cannot be used"),
            Self::NotForDomain(pattern) => write!(
                f,
                "the certificate that {pattern} points to is not for it: another tenant's, or without its name"
            ),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Vault(error) => Some(error),
            Self::Credential(error) => Some(error),
            Self::NotForDomain(_) => None,
        }
    }
}

impl Loader {
    /// Opens keys with `vault`.
    #[must_use]
    pub const fn new(vault: Vault) -> Self {
        Self { vault }
    }

    /// The credential of `certificate`, to which `domain` points. With the data key that sealed its key at hand, the
    /// store is not asked again.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn load(
        &self,
        domain: &DomainRecord,
        certificate: CertificateRecord,
        data_key: Option<&DataKeyRecord>,
    ) -> Result<Arc<Credential>, LoadError> {
        let CertificateRecord {
            facts,
            leaf,
            chain,
            sealed_key,
            ..
        } = certificate;
        let serves = |name: &NamePattern| holds(name, &domain.pattern);
        let sealed_as = key_sealed_as(&facts)
            .filter(|_| facts.tenant == domain.tenant && facts.names.iter().any(serves));
        let name = sealed_as.ok_or_else(|| LoadError::NotForDomain(domain.pattern.clone()))?;
        let key = match data_key {
            Some(record) => self.vault.open_with(record, &name, &sealed_key),
            None => {
                let owner = KeyOwner::Tenant(domain.tenant.clone());
                self.vault.open(&owner, &name, &sealed_key).await
            }
        };
        let key = key.map_err(LoadError::Vault)?;
        Credential::from_der(facts, leaf, chain, &key)
            .map(Arc::new)
            .map_err(LoadError::Credential)
    }
}
