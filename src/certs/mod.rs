//! One certificate: from the wish for it to the handshake that it serves.
//!
//! Reading order: [`credential`] (what a handshake needs), [`resolver`] (memory only, never waits),
//! [`on_demand`] (may wait, one deadline for the whole handshake), [`challenge`] (what we answer to a CA).

pub mod credential;

pub mod resolver;

pub mod on_demand;

pub mod challenge;
