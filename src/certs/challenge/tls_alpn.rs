//! The certificate that answers a TLS-ALPN-01 challenge (RFC 8737 §3).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::model::DnsName;

/// The protocol that the authority asks by (RFC 8737 §6.2). It also stands for the token under which such an answer is
/// kept, for the authority names none: no token of HTTP-01 has a slash (RFC 8555 §8.3), so that port 80 never gives it.
pub const PROTOCOL: &str = "acme-tls/1";

/// Why there is no such certificate: the machine gives no random bytes, or the program has a fault.
#[derive(Debug)]
pub enum AnswerError {
    /// It could not be made.
    Make(rcgen::Error),
    /// It cannot be served.
    Serve(rustls::Error),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Make(_) => "the certificate of a challenge could not be made",
            Self::Serve(_) => "the certificate of a challenge cannot be served",
        })
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Make(source) => Some(source),
            Self::Serve(source) => Some(source),
        }
    }
}

/// A certificate that signs itself, for `host` alone, with the digest of the key authorization in a critical extension,
/// and a key of its own.
///
/// # Errors
/// [`AnswerError`].
pub fn certificate(
    host: &DnsName,
    key_authorization: &str,
) -> Result<Arc<CertifiedKey>, AnswerError> {
    let digest = digest::digest(&digest::SHA256, key_authorization.as_bytes());
    let mut params = CertificateParams::new([host.to_string()]).map_err(AnswerError::Make)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate().map_err(AnswerError::Make)?;
    let certificate = params.self_signed(&key).map_err(AnswerError::Make)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = any_supported_type(&key).map_err(AnswerError::Serve)?;
    let chain = vec![certificate.der().clone()];
    Ok(Arc::new(CertifiedKey::new(chain, signer)))
}

#[cfg(test)]
mod tests {
    use x509_parser::oid_registry::asn1_rs::oid;
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    use super::*;

    #[test]
    fn names_exactly_the_host_and_holds_the_digest_in_a_critical_extension() {
        let host = DnsName::parse("shop.example").unwrap();
        let made = certificate(&host, "token.thumbprint").unwrap();
        let (_, parsed) = X509Certificate::from_der(&made.cert[0]).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(
            names.value.general_names,
            [GeneralName::DNSName("shop.example")]
        );
        // RFC 8737 §6.1: id-pe-acmeIdentifier.
        let extension = parsed
            .get_extension_unique(&oid!(1.3.6.1.5.5.7.1.31))
            .unwrap()
            .unwrap();
        assert!(extension.critical);
        let digest = digest::digest(&digest::SHA256, b"token.thumbprint");
        assert_eq!(extension.value[..2], [0x04, 0x20], "an OCTET STRING of 32");
        assert_eq!(&extension.value[2..], digest.as_ref());
        let key = made.key.public_key().unwrap();
        assert_eq!(parsed.public_key().raw, key.as_ref());
    }
}
