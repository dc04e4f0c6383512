//! Certificates for clients of a tenant: issued, recorded, handed out once with their key.

use std::fmt;
use std::time::Duration;

use serde_json::json;

use crate::base::secret::Secret;
use crate::certs::client::{self, ClientError};
use crate::control::caller::Grant;
use crate::control::imports::Imports;
use crate::model::TenantId;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::standing::{CertificateStanding, Purpose};
use crate::store::batch::{AuditEvent, Operation};
use crate::store::record::{CertificateRecord, KeyOwner};
use crate::store::{ApplyError, Batch, Deadline, PageRequest};

/// For one call of the store.
const CALL: Duration = Duration::from_secs(10);

/// A certificate on its way to the client.
pub struct Issued {
    /// What is recorded of it.
    pub facts: CertificateFacts,
    /// The chain, DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Its private key, PKCS #8; nobody has it afterwards but the client.
    pub key: Secret,
}

/// Names the certificate, never the key.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// Why none was issued.
#[derive(Debug)]
pub enum IssueError {
    /// There is no such tenant.
    NoTenant(TenantId),
    /// It cannot be issued.
    Client(ClientError),
    /// It could not be recorded; it was not handed out.
    Store(ApplyError),
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTenant(tenant) => write!(f, "there is no tenant {tenant}"),
            Self::Client(error) => error.fmt(f),
            Self::Store(_) => f.write_str("the certificate could not be recorded"),
        }
    }
}

impl std::error::Error for IssueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoTenant(_) => None,
            Self::Client(error) => error.source(),
            Self::Store(error) => Some(error),
        }
    }
}

impl Imports {
    /// Issues a certificate for a client of the tenant called `name`, by `ca` or else the first authority of our own.
    /// It is recorded before it is handed out.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue_client(
        &self,
        grant: &Grant,
        (tenant, name): (&TenantId, &str),
        ca: Option<&CaId>,
    ) -> Result<Issued, IssueError> {
        let parts = self.parts();
        let failed = |error| IssueError::Store(ApplyError::Store(error));
        let scope = crate::model::TenantScope::certificate_work(tenant.clone());
        let by = Deadline::after(CALL);
        let found = parts.store.tenants(by, &scope, &PageRequest::first()).await;
        if found.map_err(failed)?.items.is_empty() {
            return Err(IssueError::NoTenant(tenant.clone()));
        }
        let now = parts.clock.now();
        let issued = client::issue(&parts.accounts, (tenant, name), ca, now).await;
        let issued = issued.map_err(IssueError::Client)?;
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: tenant.clone(),
            names: Vec::new(),
            ca: issued.ca,
            serial: issued.leaf.serial,
            not_before: issued.leaf.not_before,
            not_after: issued.leaf.not_after,
        };
        let mut chain = issued.chain.iter().cloned();
        let record = CertificateRecord {
            facts: facts.clone(),
            leaf: chain.next().unwrap_or_default(),
            chain: chain.collect(),
            sealed_key: Vec::new(),
            standing: CertificateStanding {
                purpose: Purpose::Client,
                client: Some(name.to_owned()),
                ..CertificateStanding::default()
            },
            created_at: now,
        };
        let batch = Batch::new()
            .then(Operation::PutCertificate(Box::new(record)))
            .audit(AuditEvent {
                owner: KeyOwner::Tenant(tenant.clone()),
                actor: grant.actor().clone(),
                kind: "certificate.client_issued",
                subject: name.to_owned(),
                detail: json!({
                    "certificate": facts.id, "ca": facts.ca, "serial": facts.serial, "not_after": facts.not_after,
                }),
            });
        let by = Deadline::after(CALL);
        let applied = parts.store.apply(by, grant.scope(), batch).await;
        applied.map_err(IssueError::Store)?;
        tracing::info!(%tenant, certificate = %facts.id, ca = %facts.ca, "client certificate issued");
        Ok(Issued {
            facts,
            chain: issued.chain,
            key: issued.key,
        })
    }
}
