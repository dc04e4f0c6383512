//! From what is kept to an account: the one there is, the one of a known key, or a new one.

use std::sync::Arc;

use instant_acme::{Account, AccountCredentials, Key};

use super::account::AcmeAccount;
use super::chains::Chains;
use super::jws::Signer;
use super::{Acme, credentials, register, repeat_stale_nonce, rollover};
use crate::ca::authority::{Material, Opened};
use crate::ca::error::{CaError, Step};

impl Acme {
    /// The account, with whatever of it was kept.
    pub(super) async fn open_kept(&self, kept: &[Material]) -> Result<Opened, CaError> {
        let account = self.of_slot(kept, &credentials::slot(&self.settings.directory));
        let account = match (account, &self.settings.account_key) {
            (Some(account), _) => account,
            (None, Some(key)) => return self.recover(key.expose()).await,
            (None, None) => {
                let slot = credentials::slot(&self.settings.directory);
                return Err(self.unusable(&slot, "no account is kept"));
            }
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
        if credentials::account(account).is_empty() {
            return self.find_or_register(account).await;
        }
        self.of_credentials(self.read(account)?, Vec::new()).await
    }

    /// The account of a key that was kept before the authority was told of it: that may have happened or not.
    async fn find_or_register(&self, kept: &Material) -> Result<Opened, CaError> {
        let key = self.read(kept)?;
        match self.recover(key.private_key().secret_pkcs8_der()).await {
            Err(error) if is_of_no_account(&error) => match &self.settings.account_key {
                Some(key) => self.recover(key.expose()).await,
                None => self.register_key(kept).await,
            },
            result => result,
        }
    }

    async fn of_credentials(
        &self,
        known: AccountCredentials,
        made: Vec<Material>,
    ) -> Result<Opened, CaError> {
        let signer = Signer::of(known.private_key().secret_pkcs8_der());
        let builder = Account::builder_with_http(self.line.http());
        let opened = builder.from_credentials(known);
        let account = self.line.call(Step::Directory, opened).await?;
        Ok(self.opened((account, signer), made))
    }

    /// The key of a new account, where no account is kept or configured.
    pub(super) fn make_first(&self, kept: &[Material]) -> Result<Option<Material>, CaError> {
        let slot = credentials::slot(&self.settings.directory);
        if self.of_slot(kept, &slot).is_some() || self.settings.account_key.is_some() {
            return Ok(None);
        }
        self.make_key(&slot, "").map(Some)
    }

    fn make_key(&self, slot: &str, account: &str) -> Result<Material, CaError> {
        let (_, key) =
            Key::generate_pkcs8().map_err(|error| self.unusable(slot, &error.to_string()))?;
        let key = key.secret_pkcs8_der();
        Ok(credentials::material(
            slot,
            &self.settings.directory,
            (account, key),
        ))
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
        self.make_key(&slot, credentials::account(account))
            .map(Some)
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
                Ok(self.opened((account, Signer::of(pkcs8)), vec![material]))
            }
            Err(error) if error.is_account_gone() => Err(CaError::AccountUnknown {
                ca: self.line.id().clone(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Opens an account for a key that is kept, or finds the one that it has already.
    pub(super) async fn register_key(&self, kept: &Material) -> Result<Opened, CaError> {
        let directory = &self.settings.directory;
        let key = self.read(kept)?;
        let key = key.private_key().secret_pkcs8_der();
        let signer = Signer::of(key)
            .ok_or_else(|| self.unusable(&kept.slot, "no key in PKCS#8 that signs"))?;
        let made = register::register(&self.line, &self.settings, &signer).await;
        let account = made.map_err(|error| self.of_binding(error))?;
        tracing::info!(ca = %self.line.id(), account, "account opened");
        let material = credentials::material(&kept.slot, directory, (&account, key));
        let known = self.read(&material)?;
        self.of_credentials(known, vec![material]).await
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

    fn opened(&self, (account, signer): (Account, Option<Signer>), made: Vec<Material>) -> Opened {
        let preferred = self.settings.preferred_chain.clone().zip(signer);
        let chains = preferred.map(|(preferred, signer)| Chains {
            preferred,
            directory: self.settings.directory.clone(),
            account: account.id().to_owned(),
            signer,
        });
        Opened {
            account: Arc::new(AcmeAccount::new(account, self.line.clone(), chains)),
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

/// Whether the authority has no account for a key. Some that open accounts only for their customers ask for the binding
/// before they look.
fn is_of_no_account(error: &CaError) -> bool {
    if let CaError::Refused { document, .. } = error {
        return document.kind == "externalAccountRequired";
    }
    matches!(error, CaError::AccountUnknown { .. })
}
