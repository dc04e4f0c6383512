//! A credential and a TLS policy become a rustls configuration.
//!
//! Two handshakes share a configuration exactly when they share certificate, tenant and policy; and a ticket
//! made under one opens under no other: tenant, policy and its epoch are authenticated with it
//! ([`crate::proxy::tickets`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::certs::challenge::tls_alpn;
use crate::certs::credential::Credential;
use crate::model::TenantId;
use crate::model::certificate::CertificateId;
use crate::proxy::facts::{HttpProtocol, TlsVersion};
use crate::proxy::tickets::{Binding, TicketKeys, Ticketer};

/// Configurations that a worker keeps ready.
const KEPT: usize = 8192;

const TLS13_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What a tenant demands of TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsPolicy {
    /// The oldest version spoken. Default TLS 1.2.
    pub minimum: TlsVersion,
    /// Raised to make every ticket useless that was made under the same policy before. Default 0.
    pub epoch: u32,
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self {
            minimum: TlsVersion::Tls12,
            epoch: 0,
        }
    }
}

impl TlsPolicy {
    /// Its identity: the same for equal policies, in every process.
    #[must_use]
    pub const fn id(&self) -> PolicyId {
        let minimum = match self.minimum {
            TlsVersion::Tls12 => 0x12,
            TlsVersion::Tls13 => 0x13,
        };
        PolicyId(minimum << 32 | self.epoch as u64)
    }

    const fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.minimum {
            TlsVersion::Tls12 => rustls::ALL_VERSIONS,
            TlsVersion::Tls13 => TLS13_ONLY,
        }
    }
}

/// The identity of a TLS policy by its content. Requests for one name travel on another name's connection only
/// where both names have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId(u64);

impl PolicyId {
    /// The bytes that are authenticated with a ticket.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// Makes configurations and keeps the latest, for one worker.
pub struct Composer {
    provider: Arc<CryptoProvider>,
    keys: TicketKeys,
    kept: RefCell<Generations>,
}

impl fmt::Debug for Composer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Composer").finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    certificate: CertificateId,
    tenant: TenantId,
    policy: PolicyId,
}

impl Composer {
    /// A composer whose configurations resume each other's sessions where all composers share `keys`.
    #[must_use]
    pub fn new(keys: TicketKeys) -> Self {
        Self {
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            keys,
            kept: RefCell::default(),
        }
    }

    /// The configuration that serves `credential` for `tenant` under `policy`.
    ///
    /// # Errors
    /// Only where the provider speaks none of the policy's versions, which would be a fault in the program.
    pub fn compose(
        &self,
        credential: &Credential,
        tenant: &TenantId,
        policy: &TlsPolicy,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let key = Key {
            certificate: credential.facts.id,
            tenant: tenant.clone(),
            policy: policy.id(),
        };
        if let Some(found) = self.kept.borrow_mut().get(&key) {
            return Ok(found);
        }
        let made = Arc::new(self.make(credential, tenant, policy)?);
        self.kept.borrow_mut().put(key, Arc::clone(&made));
        Ok(made)
    }

    /// The configuration that answers a challenge with `certified`, and speaks no HTTP (RFC 8737 §3); used once.
    ///
    /// # Errors
    /// As [`Composer::compose`].
    pub fn compose_challenge(
        &self,
        certified: Arc<CertifiedKey>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        // TLS 1.2 or newer whatever the tenant demands (RFC 8737 §3): the authority is no visitor.
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![tls_alpn::PROTOCOL.as_bytes().to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn make(
        &self,
        credential: &Credential,
        tenant: &TenantId,
        policy: &TlsPolicy,
    ) -> Result<ServerConfig, rustls::Error> {
        let resolver = SingleCertAndKey::from(Arc::clone(&credential.certified));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(policy.versions())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = [HttpProtocol::Http2, HttpProtocol::Http1]
            .map(|protocol| protocol.alpn().to_vec())
            .into();
        // Stateless tickets only; no 0-RTT, for a request in it could be replayed (RFC 8446 §8).
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        let binding = Binding::new(tenant, policy.id());
        config.ticketer = Arc::new(Ticketer::new(self.keys.clone(), binding));
        Ok(config)
    }
}

/// Two halves: what is used moves to the new one; when that is full the old one is forgotten. So at most
/// [`KEPT`] configurations are kept, and a certificate that is no longer served is forgotten in time.
#[derive(Default)]
struct Generations {
    new: HashMap<Key, Arc<ServerConfig>>,
    old: HashMap<Key, Arc<ServerConfig>>,
}

impl Generations {
    fn get(&mut self, key: &Key) -> Option<Arc<ServerConfig>> {
        if let Some(found) = self.new.get(key) {
            return Some(Arc::clone(found));
        }
        let found = self.old.remove(key)?;
        self.put(key.clone(), Arc::clone(&found));
        Some(found)
    }

    fn put(&mut self, key: Key, config: Arc<ServerConfig>) {
        if self.new.len() >= KEPT / 2 {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, config);
    }
}
