//! Whom an upstream's TLS must prove, and the client configuration that demands it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::model::route::{Upstream, UpstreamAddress, UpstreamTls};

/// Why there is no client configuration for an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IdentityError {
    /// Its roots hold no certificate, or a broken one.
    Roots(String),
    /// Several names are dialled and none is said to be the one that certificates must hold.
    Ambiguous,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roots(why) => write!(f, "the roots of the upstream cannot be read: {why}"),
            Self::Ambiguous => f.write_str(
                "the upstream has addresses of several names: say which its certificate must hold",
            ),
        }
    }
}

/// The client configuration for an upstream: its own roots or Mozilla's, and its own session cache, so that no
/// session is resumed that another identity began.
pub(super) fn client_config(roots: Option<&[u8]>) -> Result<Arc<ClientConfig>, IdentityError> {
    let store = match roots {
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
        Some(pem) => read_roots(pem)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| IdentityError::Roots(error.to_string()))?;
    let mut config = config.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_roots(pem: &[u8]) -> Result<RootCertStore, IdentityError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| IdentityError::Roots(error.to_string()))?;
        let added = store.add(certificate);
        added.map_err(|error| IdentityError::Roots(error.to_string()))?;
    }
    match store.is_empty() {
        true => Err(IdentityError::Roots("they hold no certificate".to_owned())),
        false => Ok(store),
    }
}

/// The name that the certificate at `address` must hold: the configured one; else the address itself where it is
/// configured as such; else the one name that is dialled.
pub(super) fn server_name(
    upstream: &Upstream,
    address: SocketAddr,
) -> Result<ServerName<'static>, IdentityError> {
    if let UpstreamTls::Verified {
        server_name: Some(name),
        ..
    } = &upstream.tls
    {
        return named(name.as_str());
    }
    if upstream
        .addresses
        .contains(&UpstreamAddress::Socket(address))
    {
        return Ok(ServerName::IpAddress(address.ip().into()));
    }
    let mut names = upstream.addresses.iter().filter_map(|each| match each {
        UpstreamAddress::Name(name, _) => Some(name),
        UpstreamAddress::Socket(_) => None,
    });
    let first = names.next().ok_or(IdentityError::Ambiguous)?;
    match names.all(|other| other == first) {
        true => named(first.as_str()),
        false => Err(IdentityError::Ambiguous),
    }
}

fn named(name: &str) -> Result<ServerName<'static>, IdentityError> {
    let name = ServerName::try_from(name.to_owned());
    // Only a name with an underscore is no server name; nothing could be verified against it.
    name.map_err(|_not_a_name| IdentityError::Ambiguous)
}
