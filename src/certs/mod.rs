//! One certificate: from the wish for it to the handshake that it serves.
//!
//! Reading order: [`credential`] (what a handshake needs), [`resolver`] (memory only, never waits),
//! [`permission`] (whether an unknown name may become a known one), [`on_demand`] (may wait, one deadline for
//! the whole handshake), [`outcome`] (how an attempt ended, for those who wait), [`challenge`] (what we answer to a
//! CA).

pub mod credential;

pub mod resolver;

pub mod permission;

pub mod on_demand;

pub mod outcome;

pub mod challenge;
