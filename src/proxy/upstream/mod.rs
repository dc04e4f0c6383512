//! Connections to upstreams, one set per worker.
//!
//! Invariants: a connection is used for one tenant, route, address and TLS identity only, for ever; it comes back
//! only after request and response have both ended cleanly and in order; nothing here is shared between
//! threads, and nothing is spawned per request.
//!
//! Reading order: [`pools`] (get a connection, give it back), [`balance`] (which address), [`idle`] (those that wait), [`connect`] (a new
//! connection: TCP, TLS, HTTP/1.1), [`identity`] (whom TLS must prove), [`watch`] (what a connection waits for,
//! and until when), [`driver`] (runs it), [`stream`] (its bytes), [`upload`] (the request's content).

pub mod pools;

mod balance;

mod idle;

mod connect;
mod identity;

pub(in crate::proxy) mod watch;

mod driver;
mod stream;

pub(in crate::proxy) mod upload;

pub use pools::Pools;
