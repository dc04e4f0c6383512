//! The one outbound HTTP client: what asks a certification authority or a permission hook goes through here.
//!
//! Every call has a deadline, every answer a size limit, every connection `TCP_NODELAY`; redirects are not
//! followed; the authorities that a peer's certificate must chain to are chosen per client. Traffic to
//! upstreams does not pass here: that has its own pools in `proxy`.
//!
//! Reading order: [`client`], [`error`], [`retry_after`]; [`direct`] (one look at one address, for checks) and
//! [`address`] (which addresses may be looked at).

pub mod client;

pub mod error;

pub mod retry_after;

pub mod direct;

pub mod address;

pub use client::{Answer, HttpClient, Roots, Schemes, Settings};
pub use error::FetchError;

#[cfg(test)]
mod fixture;
