//! An authority that speaks ACME (RFC 8555), through instant-acme and the outbound client of `net`.
//!
//! What instant-acme does not tell (the status and `Retry-After` of an error, an answer that is no problem document)
//! is seen by [`transport`] as it passes. The account is made once; with it go its key and the directory's URL, so
//! that another directory under the same name gets an account of its own.
//!
//! Reading order: [`settings`], [`directory`], [`transport`], [`account`], [`order`].

pub mod settings;

mod directory;

mod transport;

mod account;

mod order;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use instant_acme::{AccountCredentials, ExternalAccountKey, NewAccount};

use crate::base::clock::{Clock, Timestamp};
use crate::base::secret::Secret;
use crate::base::task::Tasks;
use crate::ca::authority::{CertificateAuthority, Material, Opened};
use crate::ca::error::{CaError, Step};
use crate::model::NamePattern;
use crate::model::certificate::CaId;
use crate::net::HttpClient;
use crate::net::error::SetupError;

pub use settings::{Binding, Settings};

use account::AcmeAccount;
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

    /// The account's slot: another directory is another account, kept beside the first.
    fn slot(&self) -> String {
        format!("account:{}", self.settings.directory)
    }

    async fn reopen(&self, kept: &Material) -> Result<Opened, CaError> {
        let credentials: AccountCredentials = serde_json::from_slice(kept.secret.expose())
            .map_err(|error| CaError::Material {
                ca: self.line.id().clone(),
                slot: kept.slot.clone(),
                why: error.to_string(),
            })?;
        let builder = instant_acme::Account::builder_with_http(self.line.http());
        let account = self
            .line
            .call(Step::Directory, builder.from_credentials(credentials))
            .await?;
        Ok(self.opened(account, Vec::new()))
    }

    async fn register(&self) -> Result<Opened, CaError> {
        let meta = directory::meta(&self.line, &self.settings.directory).await?;
        if meta.external_account_required && self.settings.binding.is_none() {
            return Err(CaError::BindingRequired {
                ca: self.line.id().clone(),
            });
        }
        let contact: Vec<&str> = self.settings.contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let binding = self.settings.binding.as_ref().map(|binding| {
            ExternalAccountKey::new(binding.key_id.clone(), binding.hmac_key.expose())
        });
        let made = repeat_stale_nonce!(self.line, Step::Account, {
            instant_acme::Account::builder_with_http(self.line.http()).create(
                &wanted,
                self.settings.directory.clone(),
                binding.as_ref(),
            )
        });
        let (account, credentials) = made?;
        let secret = serde_json::to_vec(&credentials).map_err(|error| CaError::Garbled {
            ca: self.line.id().clone(),
            step: Step::Account,
            why: error.to_string(),
        })?;
        let material = Material {
            slot: self.slot(),
            public: account.id().as_bytes().to_vec(),
            secret: Secret::new(secret),
        };
        tracing::info!(ca = %self.line.id(), account = account.id(), "account opened");
        Ok(self.opened(account, vec![material]))
    }

    fn opened(&self, account: instant_acme::Account, made: Vec<Material>) -> Opened {
        let account = AcmeAccount::new(account, self.line.clone());
        Opened {
            account: Arc::new(account),
            made,
        }
    }
}

#[async_trait]
impl CertificateAuthority for Acme {
    fn id(&self) -> &CaId {
        self.line.id()
    }

    fn slots(&self) -> Vec<String> {
        vec![self.slot()]
    }

    /// Only HTTP-01 is spoken here, which proves no wildcard (RFC 8555 §7.1.3).
    fn certifies(&self, pattern: &NamePattern) -> bool {
        !pattern.is_wildcard()
    }

    async fn open(&self, kept: Vec<Material>, _now: Timestamp) -> Result<Opened, CaError> {
        if !self.settings.terms_agreed {
            return Err(CaError::TermsNotAgreed {
                ca: self.line.id().clone(),
            });
        }
        let slot = self.slot();
        match kept.iter().find(|material| material.slot == slot) {
            Some(kept) => self.reopen(kept).await,
            None => Box::pin(self.register()).await,
        }
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
