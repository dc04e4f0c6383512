//! What callers may do and what it changes; no HTTP, no SQL.
//!
//! Reading order: [`declare`] (what the configuration file says there is).

pub mod declare;
