//! An ACME account: places orders and takes them up again.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use instant_acme::{CertificateIdentifier, Error, Identifier, RevocationReason, RevocationRequest};
use rustls_pki_types::CertificateDer;

use super::chains::Chains;
use super::order::AcmeOrder;
use super::repeat_stale_nonce;
use super::revoke;
use super::transport::{Line, bounded};
use crate::base::clock::Timestamp;
use crate::ca::authority::{
    Acceptance, Account, NewOrder, Order, RenewalInfo, RevokedLeaf, TellsRenewal,
};
use crate::ca::error::{CaError, Step};
use crate::model::revocation;

pub(super) struct AcmeAccount {
    account: instant_acme::Account,
    line: Line,
    /// Where another chain than the default one is preferred.
    chains: Option<Arc<Chains>>,
}

impl AcmeAccount {
    pub(super) fn new(account: instant_acme::Account, line: Line, chains: Option<Chains>) -> Self {
        Self {
            account,
            line,
            chains: chains.map(Arc::new),
        }
    }

    fn taken(&self, order: instant_acme::Order) -> Box<dyn Order> {
        let order = AcmeOrder::new(order, self.line.clone(), self.chains.clone());
        Box::new(order)
    }
}

impl AcmeAccount {
    async fn place(&self, wanted: &instant_acme::NewOrder<'_>) -> Result<Box<dyn Order>, CaError> {
        let order = repeat_stale_nonce!(self.line, Step::NewOrder, self.account.new_order(wanted))?;
        Ok(self.taken(order))
    }

    /// Places an order that says what it replaces, or the plain one where the authority knows nothing of that
    /// (RFC 9773 §5).
    async fn replace(
        &self,
        wanted: &instant_acme::NewOrder<'_>,
        plain: &instant_acme::NewOrder<'_>,
    ) -> Result<Box<dyn Order>, CaError> {
        let mut stale = 0;
        loop {
            let (result, seen) = Box::pin(Line::observe(self.account.new_order(wanted))).await;
            let error = match result {
                Ok(order) => return Ok(self.taken(order)),
                // No renewal information in the directory; nobody was asked.
                Err(Error::Unsupported(_)) => return self.place(plain).await,
                Err(error) => error,
            };
            // The order is there, but the answer does not repeat what it replaces: not worth a second order.
            if let (Some(201), Some(url)) = (seen.status, &seen.location) {
                return self.resume(url).await;
            }
            let error = self.line.explain(Step::NewOrder, error, seen);
            if !error.is_bad_nonce() || stale == super::MOST_STALE {
                return Err(error);
            }
            stale += 1;
        }
    }
}

impl fmt::Debug for AcmeAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeAccount")
            .field("ca", self.line.id())
            .field("url", &self.account.id())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Account for AcmeAccount {
    fn usable_until(&self) -> Timestamp {
        Timestamp::MAX
    }

    fn root(&self) -> Option<&[u8]> {
        None
    }

    fn url(&self) -> Option<&str> {
        Some(self.account.id())
    }

    fn tells_renewal(&self) -> TellsRenewal {
        TellsRenewal::Perhaps
    }

    async fn renewal_info(&self, leaf: &[u8]) -> Result<Option<RenewalInfo>, CaError> {
        let leaf = CertificateDer::from(leaf);
        // Without an authority key identifier there is no name to ask by (RFC 9773 §4.1).
        let Ok(certificate) = CertificateIdentifier::try_from(&leaf) else {
            return Ok(None);
        };
        let call = Box::pin(Line::observe(self.account.renewal_info(&certificate)));
        let told = match call.await {
            (Err(Error::Unsupported(_)), _) => return Ok(None),
            (Ok((info, _)), seen) => (info, seen),
            (Err(error), seen) => {
                return Err(self.line.explain(Step::RenewalInfo, error, seen));
            }
        };
        let (info, seen) = told;
        let window = &info.suggested_window;
        Ok(Some(RenewalInfo {
            window: Some((window.start.into(), window.end.into())),
            explanation: info.explanation_url.map(|url| bounded(&url)),
            retry_after: seen.retry_after,
        }))
    }

    async fn order(&self, wanted: &NewOrder<'_>) -> Result<Box<dyn Order>, CaError> {
        let identifiers: Vec<Identifier> = wanted
            .names
            .iter()
            .map(|name| Identifier::Dns(name.to_string()))
            .collect();
        let plain = || {
            let order = instant_acme::NewOrder::new(&identifiers);
            match wanted.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        let leaf = wanted.replaces.map(CertificateDer::from);
        // A certificate that cannot be named so was not issued by an authority with renewal information.
        let replaces = leaf
            .as_ref()
            .and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
        match replaces {
            Some(replaces) => self.replace(&plain().replaces(replaces), &plain()).await,
            None => self.place(&plain()).await,
        }
    }

    async fn revoke(&self, leaf: RevokedLeaf<'_>) -> Result<Acceptance, CaError> {
        let certificate = CertificateDer::from(leaf.der);
        let request = RevocationRequest {
            certificate: &certificate,
            reason: Some(reason(leaf.reason)),
        };
        let mut stale = 0;
        loop {
            let call = Box::pin(Line::observe(self.account.revoke(&request)));
            let told = match call.await {
                (Ok(()), _) => return Ok(Acceptance::Now),
                // The library's word for a directory without `revokeCert`.
                (Err(Error::Str(_)), _) => {
                    let ca = self.line.id().clone();
                    return Err(CaError::CannotRevoke { ca });
                }
                (Err(error), seen) => self.line.explain(Step::Revocation, error, seen),
            };
            if !told.is_bad_nonce() || stale == super::MOST_STALE {
                return revoke::taken(Err(told));
            }
            stale += 1;
        }
    }

    async fn resume(&self, url: &str) -> Result<Box<dyn Order>, CaError> {
        let order = repeat_stale_nonce!(self.line, Step::Order, self.account.order(url.to_owned()));
        match order {
            Ok(order) => Ok(self.taken(order)),
            Err(error) if is_not_ours(&error) => Err(CaError::NoSuchOrder {
                ca: self.line.id().clone(),
                url: url.to_owned(),
            }),
            Err(error) => Err(error),
        }
    }
}

const fn reason(reason: revocation::RevocationReason) -> RevocationReason {
    use revocation::RevocationReason as Ours;
    match reason {
        Ours::Unspecified => RevocationReason::Unspecified,
        Ours::KeyCompromise => RevocationReason::KeyCompromise,
        Ours::AffiliationChanged => RevocationReason::AffiliationChanged,
        Ours::Superseded => RevocationReason::Superseded,
        Ours::CessationOfOperation => RevocationReason::CessationOfOperation,
        Ours::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    }
}

/// Whether the authority says that there is no such order, or that it is another account's. Authorities disagree
/// about the type (RFC 8555 names none), so everything counts that is not about the account, the rate or an outage.
fn is_not_ours(error: &CaError) -> bool {
    if let CaError::Refused { document, .. } = error {
        return matches!(
            document.kind.as_str(),
            "malformed" | "unauthorized" | "notFound" | "orderNotFound" | "about:blank" | ""
        );
    }
    matches!(
        error,
        CaError::Status {
            status: 403 | 404 | 410,
            ..
        }
    )
}
