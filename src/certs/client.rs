//! Certificates for clients of a tenant, for mutual TLS: by an authority of our own, on a key that is handed out once and
//! not kept.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::ca::CaError;
use crate::certs::accounts::{AccountError, Accounts};
use crate::certs::chain::{self, ChainError, Leaf};
use crate::model::TenantId;
use crate::model::certificate::CaId;

/// The longest name (X.520: ub-common-name).
const LONGEST_NAME: usize = 64;

/// A certificate for a client.
pub struct ClientCertificate {
    /// The authority that issued it.
    pub ca: CaId,
    /// Serial number and dates.
    pub leaf: Leaf,
    /// The chain, DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Its private key, PKCS #8.
    pub key: Secret,
}

/// Names the authority, never the key.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("ca", &self.ca)
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

/// Why there is none.
#[derive(Debug)]
pub enum ClientError {
    /// The name is empty, too long, or holds control characters.
    BadName,
    /// There is no authority of our own, or none of that name.
    NoAuthority(Option<CaId>),
    /// The authority certifies no clients: it is not our own.
    ServersOnly(CaId),
    /// The authority cannot be used.
    Account(Arc<AccountError>),
    /// The authority failed.
    Ca(CaError),
    /// What it made is no certificate.
    Chain(ChainError),
    /// No key or request can be made.
    Key(rcgen::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName => write!(
                f,
                "a client's name is 1 to {LONGEST_NAME} characters without control characters"
            ),
            Self::NoAuthority(None) => f.write_str(
                "only a CA of your own certifies clients: add a [[ca]] of kind \"private\"",
            ),
            Self::NoAuthority(Some(ca)) => write!(f, "no [[ca]] is named {ca}"),
            Self::ServersOnly(ca) => write!(
                f,
                "[[ca]] {ca} certifies no clients: name one of kind \"private\""
            ),
            Self::Account(_) => f.write_str("the authority cannot be used"),
            Self::Ca(_) => f.write_str("the authority failed"),
            Self::Chain(_) => f.write_str("the authority made no certificate"),
            Self::Key(_) => f.write_str("no key can be made"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::BadName | Self::NoAuthority(_) | Self::ServersOnly(_) => None,
            Self::Account(error) => Some(error),
            Self::Ca(error) => Some(error),
            Self::Chain(error) => Some(error),
            Self::Key(error) => Some(error),
        }
    }
}

/// Issues a certificate for a client of `tenant` called `name`, by `ca` or else the first authority of our own; on a new
/// ECDSA P-256 key.
///
/// # Errors
/// [`ClientError`].
pub async fn issue(
    accounts: &Accounts,
    (tenant, name): (&TenantId, &str),
    ca: Option<&CaId>,
    now: Timestamp,
) -> Result<ClientCertificate, ClientError> {
    let length = name.chars().count();
    if !(1..=LONGEST_NAME).contains(&length) || name.chars().any(char::is_control) {
        return Err(ClientError::BadName);
    }
    let authorities = accounts.authorities();
    let authority = match ca {
        Some(ca) => authorities.find(ca),
        None => authorities.own(),
    };
    let ca = match authority {
        Some(authority) => authority.id().clone(),
        None => return Err(ClientError::NoAuthority(ca.cloned())),
    };
    let account = accounts.account_for(tenant, &[], &ca).await;
    let account = account.map_err(ClientError::Account)?;
    let clients = account
        .clients()
        .ok_or_else(|| ClientError::ServersOnly(ca.clone()))?;
    let key = KeyPair::generate().map_err(ClientError::Key)?;
    let request = CertificateParams::new(Vec::new())
        .and_then(|params| params.serialize_request(&key))
        .map_err(ClientError::Key)?;
    let chain = clients
        .certify(tenant, name, request.der())
        .map_err(ClientError::Ca)?;
    let certificates = chain::read_all(&chain).map_err(ClientError::Chain)?;
    chain::check_signers(&certificates, now).map_err(ClientError::Chain)?;
    let leaf = certificates.first().map(chain::facts);
    let leaf = leaf.ok_or(ClientError::Chain(ChainError::Empty))?;
    drop(certificates);
    Ok(ClientCertificate {
        ca,
        leaf,
        chain,
        key: Secret::new(key.serialize_der()),
    })
}
