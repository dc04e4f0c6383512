//! Certification authorities, behind one trait with two adapters: ACME and a private CA of our own.
//!
//! An authority persists nothing. It is opened with the material that an earlier opening made (an account, a root)
//! and returns what it had to make anew; `certs::accounts` keeps that, sealed. Orders are found again by their URL,
//! so that a job interrupted at any point goes on with its order instead of placing another.
//!
//! Reading order: [`authority`] (the trait), [`meta`] (what an authority says about itself), [`error`] and [`problem`] (how it fails, and whose fault that is),
//! [`private`], [`acme`].

pub mod authority;

pub mod meta;

pub mod error;
pub mod problem;

pub mod private;

pub mod acme;

use std::sync::Arc;

use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::model::certificate::CaId;
use crate::net::error::SetupError;

pub use authority::{
    Account, CertificateAuthority, Challenge, ClientAuthority, ForeignAccount, ListAuthority,
    ListKey, Material, NewList, NewOrder, Opened, Order, OrderStatus, RenewalInfo, RevokedLeaf,
    RevokedSerial, Sharing, TellsRenewal,
};
pub use error::CaError;
pub use meta::Meta;

/// The authorities, in the order in which they are preferred.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Each with its own name.
    pub authorities: Vec<CaSettings>,
}

/// One authority.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// Its name in the configuration; accounts and certificates are kept under it.
    pub id: CaId,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of authority.
#[derive(Clone, Debug)]
pub enum Kind {
    /// One that speaks ACME (RFC 8555).
    Acme(acme::Settings),
    /// Our own.
    Private(private::Settings),
}

/// Makes the adapter of every authority in `settings`. Asks nobody yet: an authority that is down stops no start.
///
/// # Errors
/// [`SetupError`] where an authority's roots cannot be read, with its name.
pub fn authorities(
    settings: &Settings,
    tasks: &Tasks,
    clock: &Clock,
) -> Result<Vec<Arc<dyn CertificateAuthority>>, (CaId, SetupError)> {
    settings
        .authorities
        .iter()
        .map(|ca| adapter(ca, tasks, clock).map_err(|error| (ca.id.clone(), error)))
        .collect()
}

fn adapter(
    ca: &CaSettings,
    tasks: &Tasks,
    clock: &Clock,
) -> Result<Arc<dyn CertificateAuthority>, SetupError> {
    Ok(match &ca.kind {
        Kind::Acme(settings) => Arc::new(acme::Acme::new(
            ca.id.clone(),
            settings.clone(),
            tasks,
            clock.clone(),
        )?),
        Kind::Private(settings) => Arc::new(private::Private::new(
            ca.id.clone(),
            settings.clone(),
            clock.corrected(),
        )),
    })
}
