//! Who is told of a revocation, and how: the authority that the certificate is noted under, by its list, our account or the
//! certificate's own key; else those of the configured ones that may well have issued it, by that key; else nobody.
//!
//! By the key an authority revokes what it issued, whoever ordered it, and refuses the rest (RFC 8555 §7.6): asking one
//! that did not issue it does no harm.

use std::collections::BTreeSet;
use std::sync::Arc;

use url::Url;

use super::steps::{Failure, Run};
use super::work::PATIENCE;
use crate::ca::{Acceptance, CaError, CertificateAuthority, RevokedLeaf};
use crate::certs::accounts::AccountError;
use crate::certs::chain;
use crate::certs::credential::key_sealed_as;
use crate::model::certificate::CaId;
use crate::model::revocation::Revocation;
use crate::store::record::{CertificateRecord, KeyOwner};
use crate::store::{Deadline, StoreError};
use crate::telemetry::labels::RevocationOutcome;

/// Certificates of the same name that are looked through for who else may have issued this one.
const MOST_ALIKE: usize = 100;

/// Who was told.
pub(super) enum Told {
    /// An authority, which took it.
    By(How),
    /// Nobody: no configured authority issued it, or the one that did revokes nothing.
    Nobody,
}

/// How an authority was told.
pub(super) struct How {
    pub ca: CaId,
    /// The word for it: `list`, `account`, `key`.
    pub by: &'static str,
    pub taken: Acceptance,
}

/// The word for how, and how it was taken.
type Answer = Result<(&'static str, Acceptance), Failure>;

impl Run<'_> {
    /// Tells whoever can revoke it.
    pub(super) async fn tell(
        &self,
        record: &CertificateRecord,
        revocation: &Revocation,
    ) -> Result<Told, Failure> {
        let leaf = RevokedLeaf {
            der: &record.leaf,
            reason: revocation.reason,
        };
        let ca = &record.facts.ca;
        let Some(authority) = self.parts.accounts.authorities().find(ca) else {
            return self.tell_suspects(record, leaf).await;
        };
        // To a graver reason authorities change only for who holds the key.
        let is_raised = revocation.revoked_at.is_some() && authority.directory().is_some();
        let answer = match is_raised {
            true => self.by_key_or_account(ca, record, leaf).await,
            false => self.by_account_or_key(ca, record, leaf).await,
        };
        match answer {
            Err(failure) if matches!(failure.ca_error(), Some(CaError::CannotRevoke { .. })) => {
                Ok(Told::Nobody)
            }
            answer => self.counted(ca, answer),
        }
    }

    async fn tell_suspects(
        &self,
        record: &CertificateRecord,
        leaf: RevokedLeaf<'_>,
    ) -> Result<Told, Failure> {
        for ca in self.suspects(record).await? {
            match self.by_key_or_account(&ca, record, leaf).await {
                Err(failure) if failure.ca_error().is_some_and(is_no_issuers) => {
                    let detail = failure.detail();
                    tracing::info!(certificate = %self.id, %ca, detail, "it is not this authority that issued it");
                }
                answer => return self.counted(&ca, answer),
            }
        }
        Ok(Told::Nobody)
    }

    fn counted(&self, ca: &CaId, answer: Answer) -> Result<Told, Failure> {
        let outcome = match answer {
            Ok(_) => RevocationOutcome::Revoked,
            Err(_) => RevocationOutcome::Failed,
        };
        self.parts.metrics.revocations.count(ca, outcome);
        let (by, taken) = answer?;
        let ca = ca.clone();
        Ok(Told::By(How { ca, by, taken }))
    }

    /// The configured authorities that may have issued a certificate that is noted under none of them, in the order of the
    /// configuration: those at the server that has the account which ordered it, and those of which a certificate of the
    /// same name is signed, at whatever remove, under a name that signs this one.
    async fn suspects(&self, record: &CertificateRecord) -> Result<Vec<CaId>, StoreError> {
        let Some(name) = record.facts.names.first() else {
            return Ok(Vec::new());
        };
        let by = Deadline::after(PATIENCE);
        let (store, scope) = (&self.parts.store, &self.scope);
        let alike = store.certificates_of(by, scope, name, MOST_ALIKE).await?;
        let signers = issuers(record);
        let account = record.standing.account.as_deref();
        let is_suspect = |authority: &Arc<dyn CertificateAuthority>| {
            let signs = |other: &CertificateRecord| {
                other.facts.ca == *authority.id() && !issuers(other).is_disjoint(&signers)
            };
            authority.directory().is_some_and(|directory| {
                account.is_some_and(|account| is_same_server(account, directory))
                    || alike.iter().any(signs)
            })
        };
        let mut suspects = self.parts.accounts.authorities().all();
        suspects.retain(is_suspect);
        let ids = suspects.iter().map(|authority| authority.id().clone());
        Ok(ids.collect())
    }

    /// On the list of an authority of our own, or by the account that ordered, where that is ours; by the certificate's own
    /// key otherwise.
    async fn by_account_or_key(
        &self,
        ca: &CaId,
        record: &CertificateRecord,
        leaf: RevokedLeaf<'_>,
    ) -> Answer {
        match self.by_account(ca, leaf).await {
            Err(Failure::Account(refused)) if is_another_accounts(&refused) => {
                let told = self.by_key(ca, record, leaf).await?;
                told.map(|taken| ("key", taken))
                    .ok_or(Failure::Account(refused))
            }
            answer => answer,
        }
    }

    /// By the certificate's own key; by our account where that is not here.
    async fn by_key_or_account(
        &self,
        ca: &CaId,
        record: &CertificateRecord,
        leaf: RevokedLeaf<'_>,
    ) -> Answer {
        match self.by_key(ca, record, leaf).await? {
            Some(taken) => Ok(("key", taken)),
            None => self.by_account(ca, leaf).await,
        }
    }

    async fn by_account(&self, ca: &CaId, leaf: RevokedLeaf<'_>) -> Answer {
        let told = self.parts.accounts.revoke((self.tenant, ca), leaf).await;
        told.map_err(Failure::Account)
    }

    /// Nothing where the key is not here.
    async fn by_key(
        &self,
        ca: &CaId,
        record: &CertificateRecord,
        leaf: RevokedLeaf<'_>,
    ) -> Result<Option<Acceptance>, Failure> {
        // A client's key was never here.
        let name = key_sealed_as(&record.facts).filter(|_| !record.sealed_key.is_empty());
        let Some(name) = name else {
            return Ok(None);
        };
        let owner = KeyOwner::Tenant(record.facts.tenant.clone());
        let vault = &self.parts.vault;
        let key = vault.open(&owner, &name, &record.sealed_key).await;
        let key = key.map_err(Failure::Vault)?;
        let told = self.parts.accounts.revoke_by_key(ca, leaf, &key).await;
        told.map(Some).map_err(Failure::Account)
    }
}

/// The names of all who sign something in a certificate's chain.
fn issuers(record: &CertificateRecord) -> BTreeSet<Vec<u8>> {
    let whole = std::iter::once(&record.leaf).chain(&record.chain);
    chain::issuers(whole.map(Vec::as_slice))
}

fn is_same_server(one: &str, other: &str) -> bool {
    let origin = |url: &str| Url::parse(url).ok().map(|url| url.origin());
    origin(one).is_some_and(|one| Some(one) == origin(other))
}

/// Whether an authority that was told says that it did not issue the certificate, or will never be able to revoke it.
fn is_no_issuers(error: &CaError) -> bool {
    match error {
        CaError::Refused { document, .. } => !matches!(
            document.kind.as_str(),
            "rateLimited" | "serverInternal" | "badNonce"
        ),
        CaError::Status { status, .. } => (400..500).contains(status) && *status != 429,
        CaError::CannotRevoke { .. }
        | CaError::Material { .. }
        | CaError::TermsNotAgreed { .. }
        | CaError::BindingRequired { .. }
        | CaError::BindingRefused { .. }
        | CaError::AccountUnknown { .. } => true,
        CaError::Unreachable { .. }
        | CaError::Garbled { .. }
        | CaError::Deadline { .. }
        | CaError::NoKeyChange { .. }
        | CaError::NoSuchOrder { .. }
        | CaError::NotOffered { .. }
        | CaError::NotCertified { .. }
        | CaError::TooManyDomains { .. } => false,
    }
}

/// Whether the certificate is to be revoked by its own key: its account is another's, is gone, or cannot be opened, for
/// instance because the authority's account belongs to another installation now.
fn is_another_accounts(error: &AccountError) -> bool {
    let Some(error) = error.ca_error() else {
        return false;
    };
    if let CaError::Refused { document, .. } = error {
        let kind = document.kind.as_str();
        return matches!(kind, "unauthorized" | "malformed" | "accountDoesNotExist");
    }
    matches!(
        error,
        CaError::AccountUnknown { .. }
            | CaError::BindingRefused { .. }
            | CaError::Status {
                status: 401 | 403,
                ..
            }
    )
}
