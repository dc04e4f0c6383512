//! Certificates that are brought along with their keys instead of being issued to us.
//!
//! Whatever comes from outside is read and judged here, pure, before anything is stored: [`material`] (PEM to DER, any
//! form of key to PKCS #8), [`check`] (whether it is worth serving), [`placement`] (whose it is and which domains it
//! serves), [`caddy`] (what another server kept). Invariant: what is refused has changed nothing.

pub mod material;

pub mod check;

pub mod placement;

pub mod caddy;
