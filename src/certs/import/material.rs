//! PEM files to what we keep: a chain in DER, a private key in PKCS #8.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
};
use rustls_pki_types::pem::{Error as PemError, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::secret::Secret;

/// The most certificates in a file.
pub const MOST_CERTIFICATES: usize = 8;

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaterialError {
    /// There is no certificate in it.
    NoCertificate,
    /// It has more certificates than a chain.
    TooMany,
    /// A part of it is broken PEM.
    Broken,
    /// There is no private key in it.
    NoKey,
    /// The private key is encrypted with a passphrase.
    EncryptedKey,
    /// The private key cannot be read, or is of a kind that is not served.
    UnusableKey,
}

impl fmt::Display for MaterialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => {
                f.write_str("there is no certificate in the chain: expected PEM, the leaf first")
            }
            Self::TooMany => write!(
                f,
                "there are more than {MOST_CERTIFICATES} certificates in the chain: leave only the leaf and those \
                 that sign it"
            ),
            Self::Broken => f.write_str("the chain is broken PEM"),
            Self::NoKey => f.write_str(
                "there is no private key: expected PEM, one of PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY",
            ),
            Self::EncryptedKey => f.write_str(
                "the private key is encrypted with a passphrase: decrypt it first, with `openssl pkey -in KEY -out PLAIN`, \
                 and bring PLAIN",
            ),
            Self::UnusableKey => f.write_str(
                "the private key cannot be used: needed is RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or \
                 Ed25519",
            ),
        }
    }
}

impl std::error::Error for MaterialError {}

/// The certificates of a PEM text in their order, DER; everything else in it is passed over.
///
/// # Errors
/// [`MaterialError`].
pub fn chain(pem: &[u8]) -> Result<Vec<Vec<u8>>, MaterialError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_broken: PemError| MaterialError::Broken)?;
        if chain.len() == MOST_CERTIFICATES {
            return Err(MaterialError::TooMany);
        }
        chain.push(certificate.to_vec());
    }
    match chain.is_empty() {
        true => Err(MaterialError::NoCertificate),
        false => Ok(chain),
    }
}

/// The first private key of a PEM text as PKCS #8, whichever of the three forms it has.
///
/// # Errors
/// [`MaterialError`].
pub fn key(pem: &Secret) -> Result<Secret, MaterialError> {
    let key = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_error| {
        match pem.expose_str().is_some_and(is_encrypted) {
            true => MaterialError::EncryptedKey,
            false => MaterialError::NoKey,
        }
    })?;
    let key = ZeroizedKey(key);
    match &key.0 {
        PrivateKeyDer::Pkcs8(key) => Ok(Secret::new(key.secret_pkcs8_der().to_vec())),
        PrivateKeyDer::Pkcs1(key) => from_pkcs1(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => from_sec1(key.secret_sec1_der()),
        _ => Err(MaterialError::UnusableKey),
    }
}

/// Whether a key of a PEM text is encrypted: PKCS #8 says so in its label (RFC 7468 §11), the older forms in a header
/// (RFC 1421 §4.6.1.1).
fn is_encrypted(text: &str) -> bool {
    text.lines().any(|line| {
        let header = line.strip_prefix("Proc-Type:");
        let header = header.and_then(|value| value.trim().split_once(','));
        line.contains("BEGIN ENCRYPTED PRIVATE KEY")
            || header.is_some_and(|(_version, kind)| kind.trim() == "ENCRYPTED")
    })
}

/// Wiped when dropped, as far as its type allows.
struct ZeroizedKey(PrivateKeyDer<'static>);

impl Drop for ZeroizedKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// RFC 8017 appendix A.1.2.
fn from_pkcs1(der: &[u8]) -> Result<Secret, MaterialError> {
    let unusable = |_rejected| MaterialError::UnusableKey;
    let key = rsa::KeyPair::from_der(der).map_err(unusable)?;
    let pkcs8 = key.as_der();
    let pkcs8 = pkcs8.map_err(|_unspecified| MaterialError::UnusableKey)?;
    Ok(Secret::new(pkcs8.as_ref().to_vec()))
}

/// RFC 5915. The curve is part of the key or not, so each is tried.
fn from_sec1(der: &[u8]) -> Result<Secret, MaterialError> {
    let curves = [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
    ];
    let read = |curve| EcdsaKeyPair::from_private_key_der(curve, der).ok();
    let key = curves.into_iter().find_map(read);
    let key = key.ok_or(MaterialError::UnusableKey)?;
    let pkcs8 = key.to_pkcs8v1();
    let pkcs8 = pkcs8.map_err(|_unspecified| MaterialError::UnusableKey)?;
    Ok(Secret::new(pkcs8.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Keys as another program writes them.
    fn openssl(arguments: &str, input: &[u8]) -> Vec<u8> {
        use std::io::Write as _;

        let mut child = Command::new("openssl")
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {arguments}");
        output.stdout
    }

    fn public_half(pem: &[u8]) -> Vec<u8> {
        openssl("pkey -pubout", pem)
    }

    #[test]
    fn every_form_of_every_kind_of_key_becomes_the_same_pkcs8() {
        for made in [
            "genrsa -traditional 2048",
            "genrsa 2048",
            "ecparam -name prime256v1 -genkey",
            "ecparam -name secp384r1 -genkey -noout",
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            "genpkey -algorithm ed25519",
        ] {
            let pem = openssl(made, b"");
            let pkcs8 = key(&Secret::new(pem.clone())).unwrap_or_else(|e| panic!("{made}: {e}"));
            let again = pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.expose().to_vec()));
            assert_eq!(
                public_half(again.as_bytes()),
                public_half(&pem),
                "{made}: another key came out"
            );
        }
    }

    #[test]
    fn what_is_no_usable_key_is_refused_with_its_reason() {
        let refused = |pem: Vec<u8>| key(&Secret::new(pem)).err().unwrap();
        assert_eq!(refused(b"nothing".to_vec()), MaterialError::NoKey);
        let other_curve = openssl("ecparam -name secp256k1 -genkey -noout", b"");
        assert_eq!(refused(other_curve), MaterialError::UnusableKey);
        let short = openssl("genrsa -traditional 1024", b"");
        assert_eq!(refused(short), MaterialError::UnusableKey);
    }

    #[test]
    fn a_key_with_a_passphrase_is_called_so_in_every_form_with_the_command_that_decrypts_it() {
        let rsa = openssl("genrsa 2048", b"");
        let ec = openssl("ecparam -name prime256v1 -genkey -noout", b"");
        for (arguments, clear) in [
            ("pkcs8 -topk8 -passout pass:word", &rsa),
            ("pkcs8 -topk8 -passout pass:word", &ec),
            ("rsa -traditional -aes256 -passout pass:word", &rsa),
            ("ec -aes256 -passout pass:word", &ec),
        ] {
            let encrypted = openssl(arguments, clear);
            let refused = key(&Secret::new(encrypted)).err();
            assert_eq!(refused, Some(MaterialError::EncryptedKey), "{arguments}");
        }
        let text = MaterialError::EncryptedKey.to_string();
        assert!(text.contains("openssl pkey -in KEY -out PLAIN"), "{text}");
    }

    #[test]
    fn chains_are_read_in_order_and_bounded() {
        let pem = |bytes: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", bytes.to_vec()));
        let two = format!("{}text between\n{}", pem(b"one"), pem(b"two"));
        assert_eq!(
            chain(two.as_bytes()).unwrap(),
            [b"one".to_vec(), b"two".to_vec()]
        );
        assert_eq!(chain(b"none"), Err(MaterialError::NoCertificate));
        let many = pem(b"one").repeat(MOST_CERTIFICATES + 1);
        assert_eq!(chain(many.as_bytes()), Err(MaterialError::TooMany));
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA";
        assert_eq!(chain(cut), Err(MaterialError::Broken));
    }
}
