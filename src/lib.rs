//! Vestibule: a TLS-terminating reverse proxy that gives every tenant of a SaaS application HTTPS on the
//! tenant's own domain.
//!
//! # The map
//!
//! Two life stories give the folders their order. **One connection** is [`proxy`]: listener, ClientHello, handshake,
//! connection, request, route, upstream, exchange, response. **One certificate** is [`certs`]: request,
//! policy, issuance, challenge, resolver, renewal. They meet in two places, both one way: a
//! [`model::Snapshot`] of every known name and route flows from [`control`] to the workers, and a worker asks
//! [`certs::resolver`] (memory only) and [`certs::on_demand`] (may wait) for a credential.
//!
//! # Ranks
//!
//! A module names only modules of a lower rank; `tests/architecture.rs` keeps it so. From low to high: [`base`];
//! [`model`]; [`telemetry`]; [`net`]; [`keys`]; [`store`], [`ca`], [`dns`]; [`certs`]; [`control`], [`proxy`];
//! [`api`]; [`config`]; [`app`]; [`cli`].

pub mod base;

pub mod model;

pub mod telemetry;

pub mod net;

pub mod keys;

pub mod store;

pub mod ca;

pub mod dns;

pub mod certs;

pub mod control;

pub mod proxy;

pub mod api;

pub mod config;

pub mod app;

pub mod cli;
