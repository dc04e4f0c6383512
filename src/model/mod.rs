//! Names and facts that every part agrees on. No I/O, no async, no clock.
//!
//! Two words used differently elsewhere: an *upstream* here is always the backend that the proxy forwards to
//! (RFC 9110 §3.7 uses the word for the direction of a message); a *domain* is a DNS name that a tenant has
//! registered, with its state, whereas a *name* ([`DnsName`]) is just the name.
//!
//! Reading order: `label`, [`name`], [`tenant`], [`domain`], [`certificate`], [`issuer_key`], [`challenge`],
//! [`revocation`], [`standing`], [`reach`], [`route`], [`snapshot`], [`edge`], [`problem`].

mod label;

pub mod name;
pub mod tenant;

pub mod domain;

pub mod certificate;

pub mod issuer_key;

pub mod challenge;

pub mod revocation;

pub mod standing;

pub mod reach;

pub mod route;
pub mod snapshot;

pub mod edge;

pub mod problem;

pub use name::{DnsName, NamePattern};
pub use snapshot::Snapshot;
pub use tenant::{TenantId, TenantScope};
