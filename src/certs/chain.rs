//! Whether a chain that an authority sent is the certificate that was ordered. Nothing else is ever activated.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::base::clock::Timestamp;
use crate::ca::LARGEST_CERTIFICATE;
use crate::model::NamePattern;

/// The most certificates in a chain.
const MOST: usize = 8;
/// How far an authority's clock may be ahead of ours.
pub(super) const SKEW: Duration = Duration::from_secs(300);

/// What was ordered.
#[derive(Clone, Copy, Debug)]
pub struct Ordered<'a> {
    /// Exactly these names.
    pub names: &'a [NamePattern],
    /// For this key: its public half as `SubjectPublicKeyInfo`, DER.
    pub public_key: &'a [u8],
}

/// What a good leaf says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ends to be valid.
    pub not_after: Timestamp,
}

/// Why a chain is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// There is nothing in it.
    Empty,
    /// It has more certificates than any real one.
    TooLong(usize),
    /// The certificate at this place is larger than any real one.
    TooLarge(usize),
    /// The certificate at this place, from 0 for the leaf, cannot be read.
    Unreadable(usize),
    /// The leaf holds other names than were ordered.
    OtherNames(Vec<String>),
    /// The leaf holds another key than ours.
    OtherKey,
    /// The leaf may not be used by a server.
    NoServer,
    /// The certificate at this place is not valid now.
    NotValid(usize, Timestamp, Timestamp),
    /// The certificate at this place is not signed by the next.
    BrokenLink(usize),
    /// The certificate at this place signs, but is no authority's.
    NoAuthority(usize),
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the chain is empty"),
            Self::TooLong(count) => {
                write!(f, "the chain has {count} certificates, more than {MOST}")
            }
            Self::TooLarge(at) => write!(
                f,
                "certificate {at} is larger than {LARGEST_CERTIFICATE} bytes"
            ),
            Self::Unreadable(at) => write!(f, "certificate {at} cannot be read"),
            Self::OtherNames(names) => {
                write!(
                    f,
                    "the certificate holds other names than ordered: {}",
                    names.join(", ")
                )
            }
            Self::OtherKey => f.write_str("the certificate holds another key than ours"),
            Self::NoServer => f.write_str("the certificate may not be used by a server"),
            Self::NotValid(at, from, to) => {
                write!(
                    f,
                    "certificate {at} is valid from {from} to {to}, not now; is our clock right?"
                )
            }
            Self::BrokenLink(at) => write!(f, "certificate {at} is not signed by the next one"),
            Self::NoAuthority(at) => write!(f, "certificate {at} signs, but is no authority's"),
        }
    }
}

impl std::error::Error for ChainError {}

/// Checks a chain, DER, leaf first: names, key, use, dates, and every signature in it. Whether its last certificate is
/// one that clients trust is the authority's business.
///
/// # Errors
/// [`ChainError`] says what is wrong.
pub fn check(chain: &[Vec<u8>], ordered: Ordered<'_>, now: Timestamp) -> Result<Leaf, ChainError> {
    let certificates = read_all(chain)?;
    let leaf = certificates.first().ok_or(ChainError::Empty)?;
    check_names(leaf, ordered.names)?;
    if leaf.public_key().raw != ordered.public_key {
        return Err(ChainError::OtherKey);
    }
    check_use(leaf)?;
    check_signers(&certificates, now)?;
    Ok(facts(leaf))
}

/// A chain's certificates, as many and as large as real ones.
pub(super) fn read_all(chain: &[Vec<u8>]) -> Result<Vec<X509Certificate<'_>>, ChainError> {
    if chain.len() > MOST {
        return Err(ChainError::TooLong(chain.len()));
    }
    let certificates = chain.iter().enumerate();
    certificates.map(|(at, der)| read(at, der)).collect()
}

/// Whether every certificate is valid now, and signed by the next one, which is an authority's.
pub(super) fn check_signers(
    certificates: &[X509Certificate<'_>],
    now: Timestamp,
) -> Result<(), ChainError> {
    for (at, certificate) in certificates.iter().enumerate() {
        let (from, to) = validity(certificate);
        if now.plus(SKEW) < from || to <= now {
            return Err(ChainError::NotValid(at, from, to));
        }
        if at > 0 && !certificate.is_ca() {
            return Err(ChainError::NoAuthority(at));
        }
    }
    for (at, (signed, signer)) in certificates
        .iter()
        .zip(certificates.iter().skip(1))
        .enumerate()
    {
        let named = signed.issuer().as_raw() == signer.subject().as_raw();
        if !named || signed.verify_signature(Some(signer.public_key())).is_err() {
            return Err(ChainError::BrokenLink(at));
        }
    }
    Ok(())
}

/// What a leaf says of itself.
pub(super) fn facts(leaf: &X509Certificate<'_>) -> Leaf {
    let (not_before, not_after) = validity(leaf);
    Leaf {
        serial: hexadecimal(leaf.raw_serial()),
        not_before,
        not_after,
    }
}

/// The name of a certificate's issuer, as people write it; nothing where it cannot be read.
#[must_use]
pub fn issuer(der: &[u8]) -> Option<String> {
    let certificate = read(0, der).ok()?;
    Some(certificate.issuer().to_string())
}

/// The names, DER, of all who sign something in a chain.
pub(super) fn issuers<'a>(chain: impl Iterator<Item = &'a [u8]>) -> BTreeSet<Vec<u8>> {
    let read = chain.filter_map(|der| read(0, der).ok());
    read.map(|certificate| certificate.issuer().as_raw().to_vec())
        .collect()
}

/// A certificate's public key (`SubjectPublicKeyInfo`, DER); nothing where it cannot be read.
#[must_use]
pub fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = read(0, der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

fn read(at: usize, der: &[u8]) -> Result<X509Certificate<'_>, ChainError> {
    if der.len() > LARGEST_CERTIFICATE {
        return Err(ChainError::TooLarge(at));
    }
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(ChainError::Unreadable(at)),
    }
}

fn check_names(leaf: &X509Certificate<'_>, ordered: &[NamePattern]) -> Result<(), ChainError> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return Err(ChainError::OtherNames(Vec::new()));
    };
    let names = &names.value.general_names;
    let held: Option<BTreeSet<NamePattern>> = names.iter().map(pattern).collect();
    match held == Some(ordered.iter().cloned().collect()) {
        true => Ok(()),
        false => Err(ChainError::OtherNames(
            names.iter().take(10).map(ToString::to_string).collect(),
        )),
    }
}

fn pattern(name: &GeneralName<'_>) -> Option<NamePattern> {
    if let GeneralName::DNSName(name) = name {
        NamePattern::parse(name).ok()
    } else {
        None
    }
}

/// Whether a server may use it, and it is no authority's own.
pub(super) fn check_use(leaf: &X509Certificate<'_>) -> Result<(), ChainError> {
    let for_servers = match leaf.extended_key_usage() {
        Ok(Some(uses)) => uses.value.server_auth || uses.value.any,
        Ok(None) => true,
        Err(_) => false,
    };
    match for_servers && !leaf.is_ca() {
        true => Ok(()),
        false => Err(ChainError::NoServer),
    }
}

/// From when to when it is valid.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let validity = certificate.validity();
    (
        Timestamp::from_seconds(validity.not_before.timestamp()),
        Timestamp::from_seconds(validity.not_after.timestamp()),
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        PublicKeyData as _,
    };
    use time::OffsetDateTime;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn dates(params: &mut CertificateParams, from: i64, to: i64) {
        params.not_before = OffsetDateTime::from_unix_timestamp(NOW + from).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(NOW + to).unwrap();
    }

    struct World {
        issuer: Issuer<'static, KeyPair>,
        issuing: Vec<u8>,
        key: KeyPair,
    }

    fn world(constraints: IsCa) -> World {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = constraints;
        dates(&mut params, -100, 100);
        let issuing = params.self_signed(&key).unwrap().der().to_vec();
        World {
            issuer: Issuer::new(params, key),
            issuing,
            key: KeyPair::generate().unwrap(),
        }
    }

    fn ca() -> World {
        world(IsCa::Ca(BasicConstraints::Unconstrained))
    }

    fn leaf(world: &World, change: impl FnOnce(&mut CertificateParams)) -> Vec<Vec<u8>> {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        dates(&mut params, -10, 10);
        change(&mut params);
        let leaf = params.signed_by(&world.key, &world.issuer).unwrap();
        vec![leaf.der().to_vec(), world.issuing.clone()]
    }

    fn checked(world: &World, chain: &[Vec<u8>]) -> Result<Leaf, ChainError> {
        let names = [NamePattern::parse("a.test").unwrap()];
        let ordered = Ordered {
            names: &names,
            public_key: &world.key.subject_public_key_info(),
        };
        check(chain, ordered, Timestamp::from_seconds(NOW))
    }

    #[test]
    fn what_was_ordered_is_accepted() {
        let world = ca();
        let leaf = checked(&world, &leaf(&world, |_| {})).unwrap();
        assert_eq!(leaf.not_before, Timestamp::from_seconds(NOW - 10));
        assert_eq!(leaf.not_after, Timestamp::from_seconds(NOW + 10));
        assert!(!leaf.serial.is_empty());
    }

    #[test]
    fn every_other_chain_is_refused() {
        let world = ca();
        let good = || leaf(&world, |_| {});
        let refuses = |chain: &[Vec<u8>], expected: ChainError| {
            assert_eq!(checked(&world, chain), Err(expected));
        };
        refuses(&[], ChainError::Empty);
        refuses(&vec![good()[1].clone(); 9], ChainError::TooLong(9));
        refuses(&[vec![0; LARGEST_CERTIFICATE + 1]], ChainError::TooLarge(0));
        refuses(&[b"no certificate".to_vec()], ChainError::Unreadable(0));
        let mut trailing = good();
        trailing[0].push(0);
        refuses(&trailing, ChainError::Unreadable(0));

        let names = ["DNSName(a.test)", "DNSName(b.test)"].map(str::to_owned);
        let more = leaf(&world, |params| {
            params.subject_alt_names =
                CertificateParams::new(vec!["a.test".to_owned(), "b.test".to_owned()])
                    .unwrap()
                    .subject_alt_names;
        });
        refuses(&more, ChainError::OtherNames(names.into()));
        let none = leaf(&world, |params| params.subject_alt_names.clear());
        refuses(&none, ChainError::OtherNames(Vec::new()));

        let other = World {
            key: KeyPair::generate().unwrap(),
            ..ca()
        };
        refuses(&leaf(&other, |_| {}), ChainError::OtherKey);

        let client = leaf(&world, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        refuses(&client, ChainError::NoServer);
        let authority = leaf(&world, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        });
        refuses(&authority, ChainError::NoServer);

        let at = |seconds| Timestamp::from_seconds(NOW + seconds);
        let expired = leaf(&world, |params| dates(params, -10, 0));
        refuses(&expired, ChainError::NotValid(0, at(-10), at(0)));
        let future = leaf(&world, |params| dates(params, 301, 400));
        refuses(&future, ChainError::NotValid(0, at(301), at(400)));
        assert!(checked(&world, &leaf(&world, |params| dates(params, 300, 400))).is_ok());

        let mut foreign = good();
        foreign[1] = ca().issuing;
        refuses(&foreign, ChainError::BrokenLink(0));
        let mut tampered = good();
        let last = tampered[0].len() - 1;
        tampered[0][last] ^= 1;
        assert!(checked(&world, &tampered).is_err());
    }

    #[test]
    fn a_signer_that_is_no_authority_is_refused() {
        let world = world(IsCa::NoCa);
        assert_eq!(
            checked(&world, &leaf(&world, |_| {})),
            Err(ChainError::NoAuthority(1))
        );
    }
}
