//! An ACME account: places orders and takes them up again.

use std::fmt;

use async_trait::async_trait;
use instant_acme::{CertificateIdentifier, Identifier};
use rustls_pki_types::CertificateDer;

use super::order::AcmeOrder;
use super::repeat_stale_nonce;
use super::transport::Line;
use crate::base::clock::Timestamp;
use crate::ca::authority::{Account, NewOrder, Order};
use crate::ca::error::{CaError, Step};

pub(super) struct AcmeAccount {
    account: instant_acme::Account,
    line: Line,
}

impl AcmeAccount {
    pub(super) const fn new(account: instant_acme::Account, line: Line) -> Self {
        Self { account, line }
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

    async fn order(&self, wanted: &NewOrder<'_>) -> Result<Box<dyn Order>, CaError> {
        let identifiers: Vec<Identifier> = wanted
            .names
            .iter()
            .map(|name| Identifier::Dns(name.to_string()))
            .collect();
        let leaf = wanted.replaces.map(CertificateDer::from);
        // A certificate that cannot be named so was not issued by an authority with renewal information.
        let replaces = leaf
            .as_ref()
            .and_then(|leaf| CertificateIdentifier::try_from(leaf).ok());
        let mut wanted_order = instant_acme::NewOrder::new(&identifiers);
        if let Some(replaces) = replaces {
            wanted_order = wanted_order.replaces(replaces);
        }
        if let Some(profile) = wanted.profile {
            wanted_order = wanted_order.profile(profile);
        }
        let order = repeat_stale_nonce!(
            self.line,
            Step::NewOrder,
            self.account.new_order(&wanted_order)
        );
        Ok(Box::new(AcmeOrder::new(order?, self.line.clone())))
    }

    async fn resume(&self, url: &str) -> Result<Box<dyn Order>, CaError> {
        let order = repeat_stale_nonce!(self.line, Step::Order, self.account.order(url.to_owned()));
        match order {
            Ok(order) => Ok(Box::new(AcmeOrder::new(order, self.line.clone()))),
            Err(error) if is_not_ours(&error) => Err(CaError::NoSuchOrder {
                ca: self.line.id().clone(),
                url: url.to_owned(),
            }),
            Err(error) => Err(error),
        }
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
