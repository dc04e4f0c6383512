//! What the program tells those who run it: metrics, one access record for each request, logs, health.
//!
//! Nothing here decides anything, and nothing here makes a request wait: a metric is a relaxed addition to a
//! cell of the thread's own, an access record is put into a bounded buffer and dropped (counted) where it is full.
//! No secret, token or query string passes through, and no text from outside becomes a metric's label.
//!
//! Reading order: [`metrics`] (every metric by name) over [`family`] (how they are counted), [`labels`] (every
//! label) and [`worst`] (errors by tenant, bounded); [`trouble`] (names whose upstreams fail); [`access`] (the record of a request); [`logging`];
//! [`readiness`], and the pages for it and the metrics in [`server`]; [`settings`].

pub mod metrics;

pub mod family;

pub mod labels;

mod by_ca;
mod exposition;
mod process;
pub mod trouble;
pub mod worst;

pub mod access;

pub mod logging;

pub mod readiness;
pub mod server;

pub mod settings;

pub use settings::Settings;
