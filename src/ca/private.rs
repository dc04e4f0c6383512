//! A private CA of our own, for demonstrations, tests and internal names: a root, an issuing CA below it, short-lived
//! ECDSA P-256 leaves.
//!
//! It keeps no orders: an order's URL holds its names, so that any order can be taken up again at any time.
//!
//! Where each tenant has it to itself, every tenant has an issuing CA of its own below the one root, confined to the
//! tenant's domains (see [`confined`]). Clients are certified too (see [`client`]). Each issuing key signs a list of what
//! it signed and is revoked (see [`lists`]).

pub mod confined;

pub mod client;

pub mod lists;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::{digest, rand};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CrlDistributionPoint,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::base::clock::{Clock, Instant, Timestamp};
use crate::base::secret::Secret;
use crate::ca::authority::{
    Acceptance, Account, CertificateAuthority, Challenge, ClientAuthority, LARGEST_CERTIFICATE,
    ListAuthority, Material, NewOrder, Opened, Order, OrderStatus, RevokedLeaf, Sharing,
};
use crate::ca::error::{CaError, Step};
use crate::ca::meta::Meta;
use crate::model::certificate::CaId;
use crate::model::challenge::ChallengeKind;
use crate::model::{NamePattern, TenantId};

use confined::Confined;
use lists::{Former, Signing};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROOT_LIFETIME: Duration = DAY.saturating_mul(3652);
/// A root that has less than this left is told of: nothing renews it, and its clients must learn of another one first.
pub const ROOT_WARNING: Duration = DAY.saturating_mul(90);
const ISSUING_LIFETIME: Duration = DAY.saturating_mul(730);
/// A certificate begins to be valid a little in the past, for clients whose clock is slow.
const BACKDATE: Duration = Duration::from_secs(60 * 60);
/// An issuing CA is replaced when it has less than this left, or twice a leaf's lifetime.
const ISSUING_RESERVE: Duration = DAY.saturating_mul(60);
const ROOT: &str = "root";
const ISSUING: &str = "issuing";
/// The issuing CA before the present one. One is enough: when the next takes its place, everything that it signed has
/// ended for long.
const EARLIER: &str = "earlier";
/// Begins every order URL.
const ORDER: &str = "private-order:";

/// How a private CA issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a leaf is valid. Default 7 days; seconds will do for tests.
    pub leaf_lifetime: Duration,
    /// Whether tenants share its issuing CA. Default: they do.
    pub sharing: Sharing,
    /// Where clients reach port 80 of this edge, as in `http://edge.example.net`: certificates say by it where the list
    /// of revoked ones is. Default: nobody knows, and they do not say.
    pub list_base: Option<String>,
    /// How long a list of revoked certificates is good. Default 1 day; it is signed anew when half of that is over.
    pub list_lifetime: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            leaf_lifetime: DAY.saturating_mul(7),
            sharing: Sharing::Everyone,
            list_base: None,
            list_lifetime: DAY,
        }
    }
}

/// The adapter.
#[derive(Debug)]
pub struct Private {
    id: CaId,
    settings: Settings,
    clock: Clock,
    confined: Option<Confined>,
}

impl Private {
    /// A private CA under this name.
    #[must_use]
    pub const fn new(id: CaId, settings: Settings, clock: Clock) -> Self {
        Self {
            id,
            settings,
            clock,
            confined: None,
        }
    }

    /// The slot of its issuing CA.
    fn issuing(&self) -> String {
        self.slot(ISSUING)
    }

    fn slot(&self, of: &str) -> String {
        let confined = self.confined.as_ref();
        confined.map_or_else(|| of.to_owned(), |confined| confined.slot(of))
    }

    fn unusable(&self, slot: &str, why: impl fmt::Display) -> CaError {
        CaError::Material {
            ca: self.id.clone(),
            slot: slot.to_owned(),
            why: why.to_string(),
        }
    }

    fn no_key_change(&self) -> CaError {
        CaError::NoKeyChange {
            ca: self.id.clone(),
        }
    }

    fn make_root(&self, now: Timestamp) -> Result<Material, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = authority(&self.id, ("root", &serial()?), now, ROOT_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        let certificate = params.self_signed(&key)?;
        Ok(material(ROOT, certificate.der(), &key))
    }

    /// A new certificate for the issuing CA, on `key` or a new one. The same key keeps its name, so that what it signed
    /// before verifies with either certificate.
    fn make_issuing(
        &self,
        root: &Material,
        key: Option<KeyPair>,
        now: Timestamp,
    ) -> Result<Material, rcgen::Error> {
        let root = issuer(root)?;
        let key = key.map_or_else(KeyPair::generate, Ok)?;
        let mark = digest::digest(&digest::SHA256, &key.subject_public_key_info());
        let mut params = authority(&self.id, ("issuing", mark.as_ref()), now, ISSUING_LIFETIME)?;
        params.name_constraints = self.confined.as_ref().map(Confined::constraints);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &root)?;
        Ok(material(&self.issuing(), certificate.der(), &key))
    }

    fn reserve(&self) -> Duration {
        ISSUING_RESERVE.max(self.settings.leaf_lifetime.saturating_mul(2))
    }
}

#[async_trait]
impl CertificateAuthority for Private {
    fn id(&self) -> &CaId {
        &self.id
    }

    fn slots(&self) -> Vec<String> {
        vec![ROOT.to_owned(), self.issuing(), self.slot(EARLIER)]
    }

    fn belongs_to(&self, slot: &str) -> Option<&TenantId> {
        let confined = self.confined.as_ref()?;
        let own = [ISSUING, EARLIER].map(|of| confined.slot(of));
        own.iter()
            .any(|own| own == slot)
            .then_some(&confined.tenant)
    }

    fn sharing(&self) -> Sharing {
        self.settings.sharing
    }

    fn confined_to(
        &self,
        tenant: &TenantId,
        domains: &[NamePattern],
    ) -> Option<Arc<dyn CertificateAuthority>> {
        let own = Self {
            id: self.id.clone(),
            settings: self.settings.clone(),
            clock: self.clock.clone(),
            confined: Some(Confined::to(tenant, domains)),
        };
        Some(Arc::new(own))
    }

    fn former_lists(&self, kept: &[Material], now: Timestamp) -> Option<Arc<dyn ListAuthority>> {
        let slots = [self.issuing(), self.slot(EARLIER)];
        let kept = slots
            .iter()
            .filter_map(|slot| kept.iter().find(|material| material.slot == *slot));
        // What cannot be read signs no list.
        let keys = kept.filter_map(|kept| Signing::of(kept).ok());
        Some(Arc::new(Former {
            id: self.id.clone(),
            keys: keys.filter(|signing| now < signing.end).collect(),
            lifetime: self.settings.list_lifetime,
        }))
    }

    fn certifies(&self, _pattern: &NamePattern) -> bool {
        true
    }

    async fn revoke_by_key(
        &self,
        _leaf: RevokedLeaf<'_>,
        _key: &Secret,
    ) -> Result<Acceptance, CaError> {
        Err(CaError::CannotRevoke {
            ca: self.id.clone(),
        })
    }

    async fn open(&self, kept: Vec<Material>, now: Timestamp) -> Result<Opened, CaError> {
        let mut made = Vec::new();
        let find = |slot| kept.iter().find(|material| material.slot == slot).cloned();
        let root = match find(ROOT) {
            Some(root) => root,
            None => {
                let root = self.make_root(now).map_err(|e| self.unusable(ROOT, e))?;
                made.push(root.clone());
                root
            }
        };
        // An issuing CA of another root is of no use, and one near its end no longer.
        let usable = |issuing: &Material| match lifetime_end(&issuing.public) {
            Ok(end) => made.is_empty() && now.plus(self.reserve()) < end,
            Err(_) => false,
        };
        let slot = self.issuing();
        let failed = |error: rcgen::Error| self.unusable(&slot, error);
        let confined = self.confined.as_ref();
        let held = find(&slot);
        let mut earlier = find(&self.slot(EARLIER));
        let issuing = match held.clone().filter(usable) {
            Some(issuing) if confined.is_none_or(|names| names.confines(&issuing.public)) => {
                issuing
            }
            // Of another root or near its end: a new key. With other domains: the same one.
            kept => {
                if let (None, Some(held)) = (&kept, held) {
                    let slot = self.slot(EARLIER);
                    earlier = Some(Material { slot, ..held });
                    made.extend(earlier.clone());
                }
                let key = kept.as_ref().map(key_of).transpose().map_err(failed)?;
                let issuing = self.make_issuing(&root, key, now).map_err(failed)?;
                made.push(issuing.clone());
                issuing
            }
        };
        let current = Signing::of(&issuing).map_err(|why| self.unusable(&slot, why))?;
        // What cannot be read signs no list, and stops no issuing.
        let earlier = earlier.and_then(|earlier| Signing::of(&earlier).ok());
        let list = |base: &String| format!("{base}{}", current.key.list_path());
        let looked_at = confined.map_or(Timestamp::MAX, |_| now.plus(confined::LOOKED_AT));
        let account = PrivateAccount(Arc::new(Signer {
            id: self.id.clone(),
            root: root.public,
            usable_until: current.end.minus(self.reserve()).min(looked_at),
            list_url: self.settings.list_base.as_ref().map(list),
            current,
            earlier: earlier.filter(|earlier| now < earlier.end),
            confined: self.confined.clone(),
            settings: self.settings.clone(),
            clock: self.clock.clone(),
        }));
        Ok(Opened {
            account: Arc::new(account),
            made,
        })
    }

    async fn meta(&self) -> Result<Meta, CaError> {
        std::future::ready(Ok(Meta::default())).await
    }

    fn next_key(&self, _kept: &[Material]) -> Result<Option<Material>, CaError> {
        Err(self.no_key_change())
    }

    async fn change_key(&self, _kept: Vec<Material>) -> Result<Opened, CaError> {
        std::future::ready(Err(self.no_key_change())).await
    }
}

fn authority(
    ca: &CaId,
    (role, mark): (&str, &[u8]),
    now: Timestamp,
    lifetime: Duration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let serial = serial()?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Vestibule");
    // A mark in the name tells the roots of two installations apart in a trust store, and issuing CAs by their key.
    let mark: String = mark.iter().take(4).map(|b| format!("{b:02x}")).collect();
    subject.push(DnType::CommonName, format!("{ca} {role} {mark}"));
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from(serial));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = whole_seconds(now.minus(BACKDATE));
    params.not_after = whole_seconds(now.plus(lifetime));
    Ok(params)
}

/// A random positive serial number (RFC 5280 §4.1.2.2: at most 20 octets).
fn serial() -> Result<Vec<u8>, rcgen::Error> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_unspecified| rcgen::Error::RingUnspecified)?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    Ok(bytes.to_vec())
}

fn material(slot: &str, certificate: &CertificateDer<'_>, key: &KeyPair) -> Material {
    Material {
        slot: slot.to_owned(),
        public: certificate.to_vec(),
        secret: Secret::new(key.serialize_der()),
    }
}

fn key_of(material: &Material) -> Result<KeyPair, rcgen::Error> {
    let key = PrivatePkcs8KeyDer::from(material.secret.expose());
    KeyPair::try_from(&key)
}

fn issuer(material: &Material) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
    let key = key_of(material)?;
    let certificate = CertificateDer::from(material.public.clone());
    Issuer::from_ca_cert_der(&certificate, key)
}

/// When a certificate ends, DER, or why that cannot be read.
///
/// # Errors
/// The parser's words.
pub fn lifetime_end(der: &[u8]) -> Result<Timestamp, String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
    Ok(Timestamp::from_seconds(
        certificate.validity().not_after.timestamp(),
    ))
}

/// Certificates count in seconds; a fraction would be cut off on writing and differ on reading.
fn whole_seconds(at: Timestamp) -> OffsetDateTime {
    Timestamp::from_seconds(at.as_seconds()).to_offset()
}

struct Signer {
    id: CaId,
    root: Vec<u8>,
    current: Signing,
    earlier: Option<Signing>,
    /// Where the list of the current key is.
    list_url: Option<String>,
    usable_until: Timestamp,
    confined: Option<Confined>,
    settings: Settings,
    clock: Clock,
}

impl Signer {
    fn sign(&self, names: &[NamePattern], request: &[u8]) -> Result<Vec<u8>, CaError> {
        let leaf = self.leaf(names).map_err(|error| self.refused(&error))?;
        self.signed(&leaf, request)
    }

    /// Signs `leaf` for the key of a certificate request, DER.
    fn signed(&self, leaf: &CertificateParams, request: &[u8]) -> Result<Vec<u8>, CaError> {
        self.check_size()?;
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|error| self.refused(&error))?;
        let certificate = leaf
            .signed_by(&request.public_key, &self.current.issuer)
            .map_err(|error| self.refused(&error))?;
        Ok(certificate.der().to_vec())
    }

    /// Whether anybody takes a chain with its certificate: the names that it is confined to stand in it.
    fn check_size(&self) -> Result<(), CaError> {
        let confined = self.confined.as_ref();
        match confined.filter(|_| self.current.chain.len() > LARGEST_CERTIFICATE) {
            Some(confined) => Err(CaError::TooManyDomains {
                ca: self.id.clone(),
                tenant: confined.tenant.clone(),
                names: confined.count(),
            }),
            None => Ok(()),
        }
    }

    fn leaf(&self, names: &[NamePattern]) -> Result<CertificateParams, rcgen::Error> {
        let now = self.clock.now();
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names
            .iter()
            .map(|name| Ok(SanType::DnsName(name.to_string().try_into()?)))
            .collect::<Result<_, rcgen::Error>>()?;
        params.serial_number = Some(SerialNumber::from(serial()?));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // RFC 5280 §4.2.1.13.
        let list = self.list_url.iter().cloned();
        params.crl_distribution_points = list
            .map(|url| CrlDistributionPoint { uris: vec![url] })
            .collect();
        // A tenth at most, so that a lifetime of seconds is still spent in the future.
        let lifetime = self.settings.leaf_lifetime;
        let backdate = BACKDATE.min(lifetime / 10);
        params.not_before = whole_seconds(now.minus(backdate));
        params.not_after = whole_seconds(now.plus(lifetime).min(self.current.end));
        Ok(params)
    }

    fn refused(&self, error: &rcgen::Error) -> CaError {
        CaError::Garbled {
            ca: self.id.clone(),
            step: Step::Finalize,
            why: error.to_string(),
        }
    }
}

struct PrivateAccount(Arc<Signer>);

impl fmt::Debug for PrivateAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateAccount").field(&self.0.id).finish()
    }
}

impl PrivateAccount {
    fn place(&self, names: &[NamePattern]) -> Box<dyn Order> {
        let url = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Box::new(PrivateOrder {
            signer: Arc::clone(&self.0),
            url: format!("{ORDER}{}", url.join(",")),
            names: names.to_vec(),
            leaf: None,
        })
    }
}

#[async_trait]
impl Account for PrivateAccount {
    fn usable_until(&self) -> Timestamp {
        self.0.usable_until
    }

    fn url(&self) -> Option<&str> {
        None
    }

    fn root(&self) -> Option<&[u8]> {
        Some(&self.0.root)
    }

    fn may_certify(&self, names: &[NamePattern]) -> bool {
        let permits = |confined: &Confined| names.iter().all(|name| confined.permits(name));
        self.0.confined.as_ref().is_none_or(permits)
    }

    fn clients(&self) -> Option<&dyn ClientAuthority> {
        Some(&*self.0)
    }

    fn lists(&self) -> Option<&dyn ListAuthority> {
        Some(&*self.0)
    }

    async fn order(&self, wanted: &NewOrder<'_>) -> Result<Box<dyn Order>, CaError> {
        Ok(self.place(wanted.names))
    }

    async fn revoke(&self, _leaf: RevokedLeaf<'_>) -> Result<Acceptance, CaError> {
        Err(CaError::CannotRevoke {
            ca: self.0.id.clone(),
        })
    }

    async fn resume(&self, url: &str) -> Result<Box<dyn Order>, CaError> {
        let names: Option<Vec<NamePattern>> = url.strip_prefix(ORDER).and_then(|names| {
            names
                .split(',')
                .map(|name| NamePattern::parse(name).ok())
                .collect()
        });
        match names {
            Some(names) => Ok(self.place(&names)),
            None => Err(CaError::NoSuchOrder {
                ca: self.0.id.clone(),
                url: url.to_owned(),
            }),
        }
    }
}

/// An order of which nothing but the URL outlives the process.
struct PrivateOrder {
    signer: Arc<Signer>,
    url: String,
    names: Vec<NamePattern>,
    leaf: Option<Vec<u8>>,
}

#[async_trait]
impl Order for PrivateOrder {
    fn url(&self) -> &str {
        &self.url
    }

    fn status(&self) -> OrderStatus {
        match self.leaf {
            Some(_) => OrderStatus::Valid,
            None => OrderStatus::Ready,
        }
    }

    async fn challenges(&mut self, _kinds: &[ChallengeKind]) -> Result<Vec<Challenge>, CaError> {
        Ok(Vec::new())
    }

    async fn begin(&mut self) -> Result<(), CaError> {
        Ok(())
    }

    async fn settle(&mut self, _by: Instant) -> Result<OrderStatus, CaError> {
        Ok(self.status())
    }

    async fn finalize(&mut self, request: &[u8]) -> Result<(), CaError> {
        self.leaf = Some(self.signer.sign(&self.names, request)?);
        Ok(())
    }

    async fn certificate(&mut self, _by: Instant) -> Result<Vec<Vec<u8>>, CaError> {
        match &self.leaf {
            Some(leaf) => Ok(vec![leaf.clone(), self.signer.current.chain.clone()]),
            None => Err(CaError::NoSuchOrder {
                ca: self.signer.id.clone(),
                url: self.url.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
