//! From what is kept to an account: the one there is, the one of a known key, or a new one.

use std::sync::Arc;

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, Key, NewAccount};

use super::account::AcmeAccount;
use super::directory::Directory;
use super::{Acme, credentials, repeat_stale_nonce, rollover};
use crate::base::secret::Secret;
use crate::ca::authority::{Material, Opened};
use crate::ca::error::{CaError, Step};

impl Acme {
    /// The account, with whatever of it was kept.
    pub(super) async fn open_kept(&self, kept: &[Material]) -> Result<Opened, CaError> {
        let Some(account) = self.of_slot(kept, &credentials::slot(&self.settings.directory)) else {
            return match &self.settings.account_key {
                Some(key) => self.recover(key.expose()).await,
                None => self.register().await,
            };
        };
        // A change of the key was begun and not seen through: the authority knows which key it has.
        if let Some(next) = self.pending_next(kept)? {
            let changed = self
                .recover(self.read(next)?.private_key().secret_pkcs8_der())
                .await;
            match changed {
                Err(CaError::AccountUnknown { .. }) => {}
                result => return result,
            }
        }
        let known = self.read(account)?;
        if credentials::account(account).is_empty() {
            return self.recover(known.private_key().secret_pkcs8_der()).await;
        }
        let builder = Account::builder_with_http(self.line.http());
        let opened = builder.from_credentials(known);
        let account = self.line.call(Step::Directory, opened).await?;
        Ok(self.opened(account, Vec::new()))
    }

    /// The key to change to, where none is kept that the account has not changed to yet.
    pub(super) fn make_next(&self, kept: &[Material]) -> Result<Option<Material>, CaError> {
        let directory = &self.settings.directory;
        let Some(account) = self.of_slot(kept, &credentials::slot(directory)) else {
            return Err(self.unusable(&credentials::slot(directory), "no account is kept"));
        };
        if self.pending_next(kept)?.is_some() {
            return Ok(None);
        }
        let slot = credentials::next_slot(directory);
        let (_, key) =
            Key::generate_pkcs8().map_err(|error| self.unusable(&slot, &error.to_string()))?;
        let url = credentials::account(account);
        let material = credentials::material(&slot, directory, (url, key.secret_pkcs8_der()));
        Ok(Some(material))
    }

    /// Changes the account's key to the next one.
    pub(super) async fn roll_over(&self, kept: &[Material]) -> Result<Opened, CaError> {
        let directory = &self.settings.directory;
        let slot = credentials::slot(directory);
        let (Some(account), Some(next)) = (self.of_slot(kept, &slot), self.pending_next(kept)?)
        else {
            return Err(self.unusable(&credentials::next_slot(directory), "no next key is kept"));
        };
        let next_key = self.read(next)?;
        let next_key = next_key.private_key().secret_pkcs8_der();
        // An earlier try may have come as far as the authority.
        match self.recover(next_key).await {
            Err(CaError::AccountUnknown { .. }) => {}
            result => return result,
        }
        rollover::change(&self.line, directory, (account, next)).await?;
        tracing::info!(ca = %self.line.id(), account = credentials::account(account), "account key changed");
        self.recover(next_key).await
    }

    /// The account of a key: the authority tells its URL (RFC 8555 §7.3.1).
    async fn recover(&self, pkcs8: &[u8]) -> Result<Opened, CaError> {
        let slot = credentials::slot(&self.settings.directory);
        let found = repeat_stale_nonce!(self.line, Step::Account, async {
            let builder = Account::builder_with_http(self.line.http());
            let key = credentials::key(pkcs8)?;
            builder.from_key(key, self.settings.directory.clone()).await
        });
        match found {
            Ok((account, _credentials)) => {
                let directory = &self.settings.directory;
                let material = credentials::material(&slot, directory, (account.id(), pkcs8));
                tracing::info!(ca = %self.line.id(), account = account.id(), "account found by its key");
                Ok(self.opened(account, vec![material]))
            }
            Err(error) if error.is_account_gone() => Err(CaError::AccountUnknown {
                ca: self.line.id().clone(),
            }),
            Err(error) => Err(error),
        }
    }

    async fn register(&self) -> Result<Opened, CaError> {
        let directory = &self.settings.directory;
        let meta = Directory::read(&self.line, directory).await?.meta();
        let binding = self.settings.binding.as_ref();
        if meta.external_account_required && binding.is_none() {
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
        let bound = binding.map(|binding| {
            ExternalAccountKey::new(binding.key_id.clone(), binding.hmac_key.expose())
        });
        let made = repeat_stale_nonce!(self.line, Step::Account, {
            Account::builder_with_http(self.line.http()).create(
                &wanted,
                directory.clone(),
                bound.as_ref(),
            )
        });
        let (account, credentials) = made.map_err(|error| self.of_binding(error))?;
        let secret = serde_json::to_vec(&credentials).map_err(|error| CaError::Garbled {
            ca: self.line.id().clone(),
            step: Step::Account,
            why: error.to_string(),
        })?;
        let material = Material {
            slot: credentials::slot(directory),
            public: account.id().as_bytes().to_vec(),
            secret: Secret::new(secret),
        };
        tracing::info!(ca = %self.line.id(), account = account.id(), "account opened");
        Ok(self.opened(account, vec![material]))
    }

    /// A refusal of a new account, told as what it most likely is where the account was to be bound: authorities
    /// disagree about the type.
    fn of_binding(&self, error: CaError) -> CaError {
        match (error, &self.settings.binding) {
            (CaError::Refused { ca, document, .. }, Some(binding))
                if matches!(
                    document.kind.as_str(),
                    "unauthorized" | "malformed" | "externalAccountRequired" | "badPublicKey"
                ) =>
            {
                CaError::BindingRefused {
                    ca,
                    key_id: binding.key_id.clone(),
                    document,
                }
            }
            (error, _) => error,
        }
    }

    fn opened(&self, account: Account, made: Vec<Material>) -> Opened {
        let account = AcmeAccount::new(account, self.line.clone());
        Opened {
            account: Arc::new(account),
            made,
        }
    }

    fn of_slot<'k>(&self, kept: &'k [Material], slot: &str) -> Option<&'k Material> {
        kept.iter().find(|material| material.slot == slot)
    }

    /// The kept next key, unless it is the account's key by now.
    fn pending_next<'k>(&self, kept: &'k [Material]) -> Result<Option<&'k Material>, CaError> {
        let directory = &self.settings.directory;
        let account = self.of_slot(kept, &credentials::slot(directory));
        let next = self.of_slot(kept, &credentials::next_slot(directory));
        let (Some(account), Some(next)) = (account, next) else {
            return Ok(None);
        };
        let (current, waiting) = (self.read(account)?, self.read(next)?);
        let same =
            current.private_key().secret_pkcs8_der() == waiting.private_key().secret_pkcs8_der();
        // The next key of an account that has been replaced since is nobody's.
        let elsewhere = credentials::account(account) != credentials::account(next);
        Ok((!same && !elsewhere).then_some(next))
    }

    fn read(&self, material: &Material) -> Result<AccountCredentials, CaError> {
        credentials::read(material)
            .map_err(|error| self.unusable(&material.slot, &error.to_string()))
    }

    fn unusable(&self, slot: &str, why: &str) -> CaError {
        CaError::Material {
            ca: self.line.id().clone(),
            slot: slot.to_owned(),
            why: why.to_owned(),
        }
    }
}
