//! The rows, as the rest of the program sees them.

use crate::base::clock::Timestamp;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::{DomainState, Source};
use crate::model::problem::Problem;
use crate::model::route::UpstreamName;
use crate::model::standing::{CertificateStanding, DomainMemory};
use crate::model::{NamePattern, TenantId};

/// Whose data key seals something, or whose chain an audit event belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyOwner {
    /// The platform itself: CA accounts, the private CA.
    Platform,
    /// A tenant. Its data key seals its private keys, and dies with it.
    Tenant(TenantId),
}

impl KeyOwner {
    /// The text for it in rows and in associated data: empty for the platform, which no slug is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Platform => "",
            Self::Tenant(tenant) => tenant.as_str(),
        }
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRecord {
    /// Its slug.
    pub id: TenantId,
    /// Where it was declared.
    pub source: Source,
    /// When it was first declared.
    pub created_at: Timestamp,
}

/// A domain of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRecord {
    /// Its name; the key, over all tenants.
    pub pattern: NamePattern,
    /// Its owner.
    pub tenant: TenantId,
    /// Where it was declared.
    pub source: Source,
    /// Its state as last written.
    pub state: DomainState,
    /// The upstream that the permission hook chose for it.
    pub upstream: Option<UpstreamName>,
    /// The certificate that serves it.
    pub certificate: Option<CertificateId>,
    /// What is wrong with it at present.
    pub problem: Option<Problem>,
    /// What was learnt about it.
    pub memory: DomainMemory,
    /// Grows by one with every change; guards compare it.
    pub version: u64,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A certificate with its sealed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// What is known of it without the key.
    pub facts: CertificateFacts,
    /// The end-entity certificate, DER.
    pub leaf: Vec<u8>,
    /// The certificates that sign it, DER, nearest first; without the root, as the CA sent them.
    pub chain: Vec<Vec<u8>>,
    /// The private key, PKCS #8, sealed with the tenant's data key.
    pub sealed_key: Vec<u8>,
    /// What has become of it.
    pub standing: CertificateStanding,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// What one look-up by name gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The domain.
    pub domain: DomainRecord,
    /// The certificate it points to.
    pub certificate: Option<CertificateRecord>,
    /// The tenant's wrapped data key that sealed the certificate's key.
    pub data_key: Option<DataKeyRecord>,
}

/// A data key, wrapped by the key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRecord {
    /// Whose it is.
    pub owner: KeyOwner,
    /// Its number among the owner's, from 1; sealed blobs name it.
    pub id: u32,
    /// The wrapped key, which names the key-encryption key that wrapped it.
    pub wrapped: Vec<u8>,
}

/// What a CA needs to be used: an ACME account, a private CA's certificate and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaterialRecord {
    /// The CA, as configured.
    pub ca: CaId,
    /// Which of its materials: `account`, `root`, `issuing`.
    pub slot: String,
    /// What need not be secret: the account's URL, a certificate's DER.
    pub public: Vec<u8>,
    /// What must be: sealed with the data key of the platform or of the tenant it belongs to. Empty where nothing is secret.
    pub sealed: Vec<u8>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditActor {
    /// The program by itself.
    System,
    /// The operator, over the Unix socket or a signal.
    Operator,
    /// The configuration file.
    Configuration,
    /// The permission hook.
    Hook,
}

impl AuditActor {
    /// The word for it in rows and in the API.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Operator => "operator",
            Self::Configuration => "configuration",
            Self::Hook => "hook",
        }
    }

    /// The actor that a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::System,
            Self::Operator,
            Self::Configuration,
            Self::Hook,
        ]
        .into_iter()
        .find(|actor| actor.as_str() == word)
    }
}

/// An audit event as stored: a link of its owner's hash chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Whose chain.
    pub owner: KeyOwner,
    /// Its place in the chain, from 1, without gaps.
    pub sequence: u64,
    /// When it was committed, by the store's clock.
    pub at: Timestamp,
    /// Who.
    pub actor: AuditActor,
    /// What, as a stable word: `domain.registered`, `certificate.issued`.
    pub kind: String,
    /// The name or thing concerned.
    pub subject: String,
    /// More, as a JSON object; never a secret.
    pub detail: serde_json::Value,
    /// SHA-256 over the previous link's hash and this event's canonical form.
    pub hash: [u8; 32],
}
