//! An authority that speaks ACME (RFC 8555), through instant-acme and the outbound client of `net`.
//!
//! What instant-acme does not tell (the status and `Retry-After` of an error, an answer that is no problem document)
//! is seen by [`transport`] as it passes. The account is made once; with it go its key and the directory's URL, so
//! that another directory under the same name gets an account of its own.
//!
//! Reading order: [`settings`], [`directory`], [`patience`], [`transport`], [`credentials`], [`open`] (from what is kept to an account),
//! `jws` (requests that are signed here), [`register`], [`rollover`], [`account`], `adopt` (one that another program made), `chains` (which of those
//! that it offers is served), [`order`], `revoke`.

pub mod settings;

mod directory;

mod patience;

mod transport;

mod credentials;

mod open;

mod jws;

mod register;

mod rollover;

mod account;

mod adopt;

mod chains;

mod order;

mod revoke;

use std::fmt;

use crate::base::clock::{Clock, Timestamp};
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::ca::authority::{
    Acceptance, CertificateAuthority, ForeignAccount, Material, Opened, RevokedLeaf,
};
use crate::ca::error::CaError;
use crate::ca::meta::Meta;
use crate::model::NamePattern;
use crate::model::certificate::CaId;
use crate::net::HttpClient;
use crate::net::error::SetupError;
use async_trait::async_trait;

pub use credentials::account_material;
pub use settings::{Binding, Settings};

use directory::Directory;
use transport::Line;

/// The adapter.
pub struct Acme {
    settings: Settings,
    line: Line,
}

impl Acme {
    /// The authority at the settings' directory, under this name. Asks nobody yet.
    ///
    /// # Errors
    /// [`SetupError`] where its roots cannot be read.
    pub fn new(
        id: CaId,
        settings: Settings,
        tasks: &Tasks,
        clock: Clock,
    ) -> Result<Self, SetupError> {
        let http = HttpClient::new(tasks, &settings.client())?;
        Ok(Self {
            line: Line::new(id, http, clock),
            settings,
        })
    }
}

impl Acme {
    fn agreed(&self) -> Result<(), CaError> {
        match self.settings.terms_agreed {
            true => Ok(()),
            false => Err(CaError::TermsNotAgreed {
                ca: self.line.id().clone(),
            }),
        }
    }
}

#[async_trait]
impl CertificateAuthority for Acme {
    fn id(&self) -> &CaId {
        self.line.id()
    }

    fn directory(&self) -> Option<&str> {
        Some(&self.settings.directory)
    }

    fn profile(&self) -> Option<&str> {
        self.settings.profile.as_deref()
    }

    fn slots(&self) -> Vec<String> {
        let url = &self.settings.directory;
        vec![credentials::slot(url), credentials::next_slot(url)]
    }

    /// Only HTTP-01 is spoken here, which proves no wildcard (RFC 8555 §7.1.3).
    fn certifies(&self, pattern: &NamePattern) -> bool {
        !pattern.is_wildcard()
    }

    fn adopt(&self, account: ForeignAccount<'_>) -> Option<Material> {
        adopt::material(&self.settings.directory, account)
    }

    async fn revoke_by_key(
        &self,
        leaf: RevokedLeaf<'_>,
        key: &Secret,
    ) -> Result<Acceptance, CaError> {
        Box::pin(revoke::by_key(
            &self.line,
            &self.settings.directory,
            leaf,
            key,
        ))
        .await
    }

    fn first_key(&self, kept: &[Material]) -> Result<Option<Material>, CaError> {
        self.agreed()?;
        self.make_first(kept)
    }

    async fn register(&self, key: Material, _now: Timestamp) -> Result<Opened, CaError> {
        self.agreed()?;
        Box::pin(self.register_key(&key)).await
    }

    async fn open(&self, kept: Vec<Material>, _now: Timestamp) -> Result<Opened, CaError> {
        self.agreed()?;
        Box::pin(self.open_kept(&kept)).await
    }

    async fn meta(&self) -> Result<Meta, CaError> {
        let directory = Directory::read(&self.line, &self.settings.directory).await?;
        let said = directory.meta();
        if self.settings.caa_identities.is_empty() {
            return Ok(said);
        }
        Ok(Meta {
            caa_identities: self.settings.caa_identities.clone(),
            ..said
        })
    }

    fn next_key(&self, kept: &[Material]) -> Result<Option<Material>, CaError> {
        self.make_next(kept)
    }

    async fn change_key(&self, kept: Vec<Material>) -> Result<Opened, CaError> {
        Box::pin(self.roll_over(&kept)).await
    }
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acme")
            .field("id", self.line.id())
            .field("directory", &self.settings.directory)
            .finish_non_exhaustive()
    }
}

/// Makes a call again while the authority says that only its nonce was stale. instant-acme gives up after three;
/// an authority under load may reject more, and a request with a stale nonce was never looked at (RFC 8555 §6.5).
macro_rules! repeat_stale_nonce {
    ($line:expr, $step:expr, $call:expr) => {{
        let mut attempts = 0;
        loop {
            match $line.call($step, $call).await {
                Err(error) if error.is_bad_nonce() && attempts < $crate::ca::acme::MOST_STALE => {
                    attempts += 1;
                }
                result => break result,
            }
        }
    }};
}
use repeat_stale_nonce;

/// Rounds of three stale nonces that are put up with: even where nine in ten are rejected, one call in 200 fails.
const MOST_STALE: u32 = 15;
