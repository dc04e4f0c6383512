//! Whether a chain and a key that somebody brings are worth serving.

use std::fmt;
use std::net::IpAddr;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::certs::chain::{self, ChainError, Leaf};
use crate::model::NamePattern;

/// The most names of one certificate: what public authorities put into one.
const MOST_NAMES: usize = 100;
/// The shortest RSA key (CA/Browser Forum Baseline Requirements §6.1.5).
const SHORTEST_RSA: usize = 2048;
/// Signatures over MD5 or SHA-1, which clients refuse.
const BROKEN_SIGNATURES: [&str; 4] = [
    "1.2.840.113549.1.1.4",
    "1.2.840.113549.1.1.5",
    "1.2.840.10045.4.1",
    "1.2.840.10040.4.3",
];

/// What may be served.
pub struct Checked {
    /// The names that the certificate holds, in its order, each once.
    pub names: Vec<NamePattern>,
    /// Serial number and dates.
    pub leaf: Leaf,
    /// The end-entity certificate, DER.
    pub certificate: Vec<u8>,
    /// Those that sign it, nearest first, without a root.
    pub chain: Vec<Vec<u8>>,
    /// The private key, PKCS #8.
    pub key: Secret,
}

/// Names the certificate, never the key.
impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("names", &self.names)
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

/// Why a chain or a key is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckError {
    /// The chain is none, or not one for servers.
    Chain(ChainError),
    /// The certificate's validity ended at this time.
    Expired(Timestamp),
    /// The certificate's validity begins at this time.
    NotYetValid(Timestamp),
    /// The chain ends before an authority that clients may know.
    Incomplete,
    /// The certificate is signed by its own key.
    SelfSigned,
    /// It is an authority's own, no server's.
    Authority,
    /// It holds no DNS name.
    NoNames,
    /// It holds more names than any real one.
    TooManyNames(usize),
    /// It holds something that is no DNS name, such as an IP address.
    OtherName(String),
    /// The private key belongs to another certificate.
    OtherKey,
    /// The key cannot be served.
    UnusableKey,
    /// The certificate's RSA key has so few bits.
    WeakKey(usize),
    /// The certificate at this place is signed with a broken hash.
    WeakSignature(usize),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(error) => error.fmt(f),
            Self::Expired(at) => write!(f, "the certificate expired at {at}: bring a valid one"),
            Self::NotYetValid(at) => write!(
                f,
                "the certificate is not valid before {at}: bring it then, or look at this machine's clock"
            ),
            Self::Incomplete => f.write_str(
                "the chain holds the certificate alone: append those that sign it, as its authority sent them",
            ),
            Self::SelfSigned => {
                f.write_str("the certificate is signed by its own key: no client trusts it")
            }
            Self::Authority => f.write_str(
                "the first certificate of the chain is a CA's own (basicConstraints CA:TRUE), not a server's: the server's \
                 certificate comes first, then those that sign it",
            ),
            Self::NoNames => f.write_str(
                "the certificate has no subject alternative name: clients have ignored the common name since 2017",
            ),
            Self::TooManyNames(count) => {
                write!(f, "the certificate holds {count} names, more than {MOST_NAMES}")
            }
            Self::OtherName(name) => write!(
                f,
                "the certificate holds {name}, which is no DNS name and so no tenant's domain"
            ),
            Self::OtherKey => f.write_str(
                "the private key does not belong to the first certificate of the chain: the leaf comes first",
            ),
            Self::UnusableKey => f.write_str(
                "the private key cannot be used: needed is RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or \
                 Ed25519",
            ),
            Self::WeakKey(bits) => write!(
                f,
                "the certificate's RSA key has {bits} bits, fewer than {SHORTEST_RSA}: clients refuse it"
            ),
            Self::WeakSignature(at) => write!(
                f,
                "certificate {at} of the chain is signed with MD5 or SHA-1: clients refuse it"
            ),
        }
    }
}

impl std::error::Error for CheckError {}

/// Checks a chain, DER, leaf first, and a private key, PKCS #8: that they belong together, names, dates, use, strength,
/// and every signature. A root at the end is left out. Whether clients trust that root is the bringer's business.
///
/// # Errors
/// [`CheckError`] says what is wrong and what to bring instead.
pub fn check(chain: &[Vec<u8>], key: Secret, now: Timestamp) -> Result<Checked, CheckError> {
    let certificates = chain::read_all(chain).map_err(CheckError::Chain)?;
    let (leaf, signers) = certificates
        .split_first()
        .ok_or(CheckError::Chain(ChainError::Empty))?;
    if leaf.is_ca() {
        return Err(CheckError::Authority);
    }
    let names = names(leaf)?;
    check_key(leaf, &key)?;
    check_strength(&certificates)?;
    chain::check_use(leaf).map_err(CheckError::Chain)?;
    let (from, to) = chain::validity(leaf);
    if to <= now {
        return Err(CheckError::Expired(to));
    }
    if now.plus(chain::SKEW) < from {
        return Err(CheckError::NotYetValid(from));
    }
    chain::check_signers(&certificates, now).map_err(CheckError::Chain)?;
    if signers.is_empty() {
        return Err(match is_self_issued(leaf) {
            true => CheckError::SelfSigned,
            false => CheckError::Incomplete,
        });
    }
    let kept = match signers.last() {
        Some(last) if is_self_issued(last) => chain.len() - 1,
        _ => chain.len(),
    };
    let mut kept = chain.iter().take(kept).cloned();
    Ok(Checked {
        names,
        leaf: chain::facts(leaf),
        certificate: kept.next().unwrap_or_default(),
        chain: kept.collect(),
        key,
    })
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == certificate.subject().as_raw()
}

fn names(leaf: &X509Certificate<'_>) -> Result<Vec<NamePattern>, CheckError> {
    let Ok(Some(held)) = leaf.subject_alternative_name() else {
        return Err(CheckError::NoNames);
    };
    let held = &held.value.general_names;
    if held.len() > MOST_NAMES {
        return Err(CheckError::TooManyNames(held.len()));
    }
    let mut names = Vec::with_capacity(held.len());
    for name in held {
        let pattern = if let GeneralName::DNSName(text) = name {
            NamePattern::parse(text).ok()
        } else {
            None
        };
        let pattern = pattern.ok_or_else(|| CheckError::OtherName(shown(name)))?;
        if !names.contains(&pattern) {
            names.push(pattern);
        }
    }
    match names.is_empty() {
        true => Err(CheckError::NoNames),
        false => Ok(names),
    }
}

/// A name as people write it.
fn shown(name: &GeneralName<'_>) -> String {
    let address = if let GeneralName::IPAddress(bytes) = name {
        let short = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
        short
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
    } else {
        None
    };
    address.map_or_else(|| name.to_string(), |address| address.to_string())
}

fn check_key(leaf: &X509Certificate<'_>, key: &Secret) -> Result<(), CheckError> {
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.expose()));
    let signer = any_supported_type(&der).map_err(|_error| CheckError::UnusableKey)?;
    let public = signer.public_key().ok_or(CheckError::UnusableKey)?;
    match *public == *leaf.public_key().raw {
        true => Ok(()),
        false => Err(CheckError::OtherKey),
    }
}

fn check_strength(chain: &[X509Certificate<'_>]) -> Result<(), CheckError> {
    for (at, certificate) in chain.iter().enumerate() {
        match certificate.public_key().parsed() {
            Ok(PublicKey::RSA(key)) if key.key_size() < SHORTEST_RSA => {
                return Err(CheckError::WeakKey(key.key_size()));
            }
            // P-521 is more than strong enough, but browsers do not know it.
            Ok(PublicKey::EC(point)) if at == 0 && point.key_size() > 384 => {
                return Err(CheckError::UnusableKey);
            }
            Ok(_) | Err(_) => {}
        }
        let signature = certificate.signature_algorithm.algorithm.to_id_string();
        // Nobody verifies what a root signs of itself.
        if !is_self_issued(certificate) && BROKEN_SIGNATURES.contains(&signature.as_str()) {
            return Err(CheckError::WeakSignature(at));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
