//! What issuance needs of an authority, in the words of RFC 8555: account, order, challenge, finalize.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::clock::{Instant, Timestamp};
use crate::base::secret::Secret;
use crate::ca::error::CaError;
use crate::ca::meta::Meta;
use crate::model::certificate::CaId;
use crate::model::challenge::ChallengeKind;
use crate::model::issuer_key::IssuerKey;
use crate::model::revocation::RevocationReason;
use crate::model::{DnsName, NamePattern, TenantId};

/// The largest certificate that is taken from an authority, in bytes: every visitor is sent the chain.
pub const LARGEST_CERTIFICATE: usize = 16 * 1024;

/// Something an authority must have to be used, kept for it from one start to the next.
#[derive(Clone)]
pub struct Material {
    /// Which of its materials: `root`, `account:…`.
    pub slot: String,
    /// What need not be secret: a certificate's DER, an account's URL.
    pub public: Vec<u8>,
    /// What must be: a private key.
    pub secret: Secret,
}

/// Names the slot, never the secret.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

/// An authority opened for use.
#[derive(Debug)]
pub struct Opened {
    /// Places orders.
    pub account: Arc<dyn Account>,
    /// What had to be made, to be kept **before** the account is used.
    pub made: Vec<Material>,
}

/// An account that another program made.
#[derive(Clone, Copy)]
pub struct ForeignAccount<'a> {
    /// Its URL.
    pub url: &'a str,
    /// Its private key, PKCS #8.
    pub key: &'a Secret,
}

/// Whether tenants share an authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// One account or issuing CA serves them all.
    #[default]
    Everyone,
    /// Each has one of its own: see [`CertificateAuthority::confined_to`].
    PerTenant,
}

/// A certification authority as configured.
#[async_trait]
pub trait CertificateAuthority: Send + Sync + fmt::Debug + 'static {
    /// Its name in the configuration.
    fn id(&self) -> &CaId;

    /// The URL of its directory; nothing for an authority of our own, which no CAA record is about.
    fn directory(&self) -> Option<&str> {
        None
    }

    /// The profile that is ordered of it where nobody chooses another.
    fn profile(&self) -> Option<&str> {
        None
    }

    /// The slots of material that [`CertificateAuthority::open`] wants to be given.
    fn slots(&self) -> Vec<String>;

    /// Whether it can certify such a name at all: HTTP-01 proves no wildcard.
    fn certifies(&self, pattern: &NamePattern) -> bool;

    /// Whether tenants share it. Default: they do.
    fn sharing(&self) -> Sharing {
        Sharing::Everyone
    }

    /// The same authority as this tenant has it to itself, able to certify names of these domains and no others; it is
    /// opened like any other. Nothing where no tenant can have it so; whether they do, [`CertificateAuthority::sharing`] says.
    fn confined_to(
        &self,
        _tenant: &TenantId,
        _domains: &[NamePattern],
    ) -> Option<Arc<dyn CertificateAuthority>> {
        None
    }

    /// What signs the lists of revoked certificates of a part that issues no more, since tenants began to share it or ceased
    /// to: with what is kept for it, and nothing is made. Default: it has no lists.
    fn former_lists(&self, _kept: &[Material], _now: Timestamp) -> Option<Arc<dyn ListAuthority>> {
        None
    }

    /// The tenant whose data key seals what a slot holds, so that it dies with the tenant's keys. Default: none, it is
    /// the platform's.
    fn belongs_to(&self, _slot: &str) -> Option<&TenantId> {
        None
    }

    /// What to keep so that [`CertificateAuthority::open`] opens an account that another program made. Nothing where it
    /// cannot use the account's key; by default it has no accounts.
    fn adopt(&self, _account: ForeignAccount<'_>) -> Option<Material> {
        None
    }

    /// The key of an account that is still to be made, to be kept before [`CertificateAuthority::register`] tells the
    /// authority of it: whoever is killed between finds the account again by its key. Nothing where an account is kept
    /// already, or none is needed; by default none is.
    ///
    /// # Errors
    /// [`CaError`].
    fn first_key(&self, _kept: &[Material]) -> Result<Option<Material>, CaError> {
        Ok(None)
    }

    /// Makes an account with the key that [`CertificateAuthority::first_key`] made and that is kept by now, and opens the
    /// authority with it. After a failure [`CertificateAuthority::open`], given the key, finds out whether it has an
    /// account, and makes one otherwise.
    ///
    /// # Errors
    /// [`CaError`].
    async fn register(&self, key: Material, now: Timestamp) -> Result<Opened, CaError> {
        self.open(vec![key], now).await
    }

    /// Opens it with what is kept for it, and makes what is missing but for an account.
    ///
    /// # Errors
    /// [`CaError`].
    async fn open(&self, kept: Vec<Material>, now: Timestamp) -> Result<Opened, CaError>;

    /// What it says about itself now. Asking is also how to find out whether it is there, and what
    /// time it is there, which the clock hears: it costs no order.
    ///
    /// # Errors
    /// [`CaError`].
    async fn meta(&self) -> Result<Meta, CaError>;

    /// A key for its account to change to: to be kept before [`CertificateAuthority::change_key`] is called. One that is
    /// kept already and that the account has not changed to is not made again.
    ///
    /// # Errors
    /// [`CaError::NoKeyChange`] where it has no account.
    fn next_key(&self, kept: &[Material]) -> Result<Option<Material>, CaError>;

    /// Changes the account's key to the one that [`CertificateAuthority::next_key`] made and that is among what is kept;
    /// the account stays, with its orders. After a failure the authority may have either key: opening finds out which.
    ///
    /// # Errors
    /// [`CaError`].
    async fn change_key(&self, kept: Vec<Material>) -> Result<Opened, CaError>;

    /// Revokes a certificate by its own private key, PKCS #8, whoever ordered it (RFC 8555 §7.6). One that is revoked
    /// already is a success; the authority may take a graver reason for it.
    ///
    /// # Errors
    /// [`CaError::CannotRevoke`] where the authority has no such thing; [`CaError`].
    async fn revoke_by_key(
        &self,
        leaf: RevokedLeaf<'_>,
        key: &Secret,
    ) -> Result<Acceptance, CaError>;
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewOrder<'a> {
    /// Exactly these names.
    pub names: &'a [NamePattern],
    /// The end-entity certificate, DER, whose place the new one takes (RFC 9773 §5). An authority without renewal
    /// information is not told.
    pub replaces: Option<&'a [u8]>,
    /// The profile, where the authority has any; its default otherwise.
    pub profile: Option<&'a str>,
}

impl<'a> NewOrder<'a> {
    /// These names, replacing nothing, of the authority's default profile.
    #[must_use]
    pub const fn of(names: &'a [NamePattern]) -> Self {
        Self {
            names,
            replaces: None,
            profile: None,
        }
    }
}

/// When an authority wants a certificate renewed (RFC 9773 §4.2). By default it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenewalInfo {
    /// Between these two times, as told: neither need make sense.
    pub window: Option<(Timestamp, Timestamp)>,
    /// A page that says why.
    pub explanation: Option<String>,
    /// How long the answer is good.
    pub retry_after: Option<Duration>,
}

/// Whether an authority tells when it wants certificates renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TellsRenewal {
    /// Perhaps: it may be asked.
    Perhaps,
    /// It does not.
    No,
}

/// A certificate that is to be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedLeaf<'a> {
    /// The end-entity certificate, DER.
    pub der: &'a [u8],
    /// Why.
    pub reason: RevocationReason,
}

/// How an authority took a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The certificate is revoked, for the reason that was told.
    Now,
    /// It was revoked before, and stays as it was.
    Before,
}

/// The right to place orders with an authority.
#[async_trait]
pub trait Account: Send + Sync + fmt::Debug + 'static {
    /// Until when it may be used before the authority must be opened again.
    fn usable_until(&self) -> Timestamp;

    /// Its URL, where the authority gives accounts URLs: CAA records name it (RFC 8657).
    fn url(&self) -> Option<&str>;

    /// Whether it may certify all of these names as it was opened; opened again, it may know more. Default: yes.
    fn may_certify(&self, _names: &[NamePattern]) -> bool {
        true
    }

    /// Certifies clients, where it does.
    fn clients(&self) -> Option<&dyn ClientAuthority> {
        None
    }

    /// Signs lists of revoked certificates, where it does: an authority of our own.
    fn lists(&self) -> Option<&dyn ListAuthority> {
        None
    }

    /// The root certificate, DER, where the authority is our own: what clients must trust.
    fn root(&self) -> Option<&[u8]>;

    /// Whether [`Account::renewal_info`] is worth a question. Default: no.
    fn tells_renewal(&self) -> TellsRenewal {
        TellsRenewal::No
    }

    /// When the authority wants the certificate `leaf`, DER, renewed (RFC 9773 §4.1); nothing where it does not tell.
    ///
    /// # Errors
    /// [`CaError`], with how long to wait where the authority says so.
    async fn renewal_info(&self, _leaf: &[u8]) -> Result<Option<RenewalInfo>, CaError> {
        Ok(None)
    }

    /// Places an order (RFC 8555 §7.4).
    ///
    /// # Errors
    /// [`CaError`].
    async fn order(&self, wanted: &NewOrder<'_>) -> Result<Box<dyn Order>, CaError>;

    /// Takes up the order at `url` in whatever state it is.
    ///
    /// # Errors
    /// [`CaError::NoSuchOrder`] where the authority no longer knows it, or not for this account.
    async fn resume(&self, url: &str) -> Result<Box<dyn Order>, CaError>;

    /// Revokes a certificate that this account ordered (RFC 8555 §7.6). One that is revoked already is a success.
    ///
    /// # Errors
    /// [`CaError::CannotRevoke`] where the authority has no such thing; [`CaError::Refused`] where the certificate is
    /// another account's, among others.
    async fn revoke(&self, leaf: RevokedLeaf<'_>) -> Result<Acceptance, CaError>;
}

/// Certifies clients, for mutual TLS.
pub trait ClientAuthority: Send + Sync {
    /// A certificate for a client of the tenant, called `name`, on the key of a certificate request (DER): the chain in
    /// DER, leaf first, without the root.
    ///
    /// # Errors
    /// [`CaError`].
    fn certify(
        &self,
        tenant: &TenantId,
        name: &str,
        request: &[u8],
    ) -> Result<Vec<Vec<u8>>, CaError>;
}

/// Signs lists of revoked certificates (RFC 5280 §5), one for each key that signs certificates.
pub trait ListAuthority: Send + Sync {
    /// The keys: the one that signs certificates now, and any before it whose certificates have not all ended.
    fn list_keys(&self) -> Vec<ListKey>;

    /// How long a list is good.
    fn list_lifetime(&self) -> Duration;

    /// Signs the list of one of the keys, complete: DER.
    ///
    /// # Errors
    /// [`CaError::Material`] where there is no such key among [`ListAuthority::list_keys`]; [`CaError`].
    fn sign_list(&self, key: &IssuerKey, list: &NewList<'_>) -> Result<Vec<u8>, CaError>;
}

/// A key that signs a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListKey {
    /// Which.
    pub key: IssuerKey,
    /// When every certificate that it signed has ended.
    pub until: Timestamp,
}

/// What a list is to say.
#[derive(Clone, Copy, Debug)]
pub struct NewList<'a> {
    /// Greater than that of every earlier list of the key.
    pub number: u64,
    /// From when on it is good.
    pub this_update: Timestamp,
    /// When the next one is there, at the latest.
    pub next_update: Timestamp,
    /// All that are revoked.
    pub revoked: &'a [RevokedSerial],
}

/// A revoked certificate, as a list names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedSerial {
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
}

/// The states of an order (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderStatus {
    /// Names are still to be proved.
    Pending,
    /// Every name is proved; it waits for the certificate request.
    Ready,
    /// The certificate is being made.
    Processing,
    /// The certificate can be fetched.
    Valid,
    /// It failed; nothing can be done with it.
    Invalid,
}

impl OrderStatus {
    /// The word for it (RFC 8555 §7.1.6).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Processing => "processing",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }
}

/// What must be answered for `host`.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// How it is asked.
    pub kind: ChallengeKind,
    /// The name to be proved.
    pub host: DnsName,
    /// The authority's random part of the answer.
    pub token: String,
    /// The answer (RFC 8555 §8.1).
    pub key_authorization: String,
}

/// Names the host; whoever reads a log need not know the token.
impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// An order in progress. A call that fails leaves it as it was: it can be called again, or taken up again by its URL.
#[async_trait]
pub trait Order: Send {
    /// Where it is found again.
    fn url(&self) -> &str;

    /// Its state as last seen.
    fn status(&self) -> OrderStatus;

    /// What must be answered before [`Order::begin`]; nothing where every name is proved already. Of `kinds`, the
    /// preferred first, each name gets the first that the authority offers for it, unless it works on another already.
    ///
    /// # Errors
    /// [`CaError::NotOffered`] where a name can be proved by none of them.
    async fn challenges(&mut self, kinds: &[ChallengeKind]) -> Result<Vec<Challenge>, CaError>;

    /// Tells the authority that every challenge that [`Order::challenges`] gave is answered now. They must be, everywhere.
    ///
    /// # Errors
    /// [`CaError`].
    async fn begin(&mut self) -> Result<(), CaError>;

    /// Waits until the order is no longer pending, at most until `by`.
    ///
    /// # Errors
    /// [`CaError::Refused`] says why a name was not proved.
    async fn settle(&mut self, by: Instant) -> Result<OrderStatus, CaError>;

    /// Hands in the certificate request, DER (RFC 2986), for exactly the order's names.
    ///
    /// # Errors
    /// [`CaError`].
    async fn finalize(&mut self, request: &[u8]) -> Result<(), CaError>;

    /// Waits for the certificate, at most until `by`: the chain in DER, leaf first, unchecked.
    ///
    /// # Errors
    /// [`CaError`].
    async fn certificate(&mut self, by: Instant) -> Result<Vec<Vec<u8>>, CaError>;
}
