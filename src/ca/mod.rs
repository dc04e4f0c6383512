//! Certification authorities, behind one trait with two adapters: ACME and a private CA of our own.
//!
//! An authority persists nothing. It is opened with the material that an earlier opening made (an account, a root)
//! and returns what it had to make anew; `certs::accounts` keeps that, sealed. Orders are found again by their URL,
//! so that a job interrupted at any point goes on with its order instead of placing another.
//!
//! Reading order: [`authority`] (the trait), [`meta`] (what an authority says about itself), [`error`] and [`problem`] (how it fails, and whose fault that is),
//! [`private`], [`acme`], [`configured`] (the adapters, through changes of the configuration).

pub mod authority;

pub mod meta;

pub mod error;
pub mod problem;

pub mod private;

pub mod acme;

pub mod configured;

use crate::model::certificate::CaId;

pub use authority::{
    Acceptance, Account, CertificateAuthority, Challenge, ClientAuthority, ForeignAccount,
    LARGEST_CERTIFICATE, ListAuthority, ListKey, Material, NewList, NewOrder, Opened, Order,
    OrderStatus, RenewalInfo, RevokedLeaf, RevokedSerial, Sharing, TellsRenewal,
};
pub use configured::{Configured, authorities};
pub use error::CaError;
pub use meta::Meta;

/// The authorities, in the order in which they are preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Each with its own name.
    pub authorities: Vec<CaSettings>,
}

/// One authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSettings {
    /// Its name in the configuration; accounts and certificates are kept under it.
    pub id: CaId,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One that speaks ACME (RFC 8555).
    Acme(acme::Settings),
    /// Our own.
    Private(private::Settings),
}
