//! One certificate: from the wish for it to the handshake that it serves.
//!
//! Reading order: [`request`], [`policy`] (the only maker of a permit), [`lifecycle`] over [`renewal`] and [`setback`] (what
//! is due when, pure), [`budget`] (what the authorities bear, and who gets it), [`fleet`] (all of these over simulated years), [`drill`] (what would happen if), [`issuance`] (from a due job to a certificate that serves), [`authorities`] (which of them is
//! asked), [`accounts`] (the authorities, opened), [`challenge`]
//! (what we answer to a CA), [`chain`] (whether what came back is what was ordered), [`import`]
//! (what is brought along), [`client`] (certificates for clients), [`lists`] (of revoked certificates), [`vault`] (seals and opens private keys), [`credential`] (what a handshake needs) over [`intermediate`] (what chains share), [`revocation`] (from the wish to the destroyed key), [`load`] (from the store to a credential), [`resolver`] (memory only,
//! never waits), [`permission`] (whether an unknown name may become a known one), [`on_demand`] (may wait, one deadline
//! for the whole handshake), [`preflight`] (a look at the name that costs no authority's limits), [`problem`] (what repairs
//! what), [`outcome`] (how an attempt ended, for those who wait), [`upkeep`], [`gauges`] (what is counted by looking),
//! [`settings`].

pub mod request;

pub mod policy;

pub mod lifecycle;

pub mod renewal;

pub mod setback;

pub mod budget;

pub mod fleet;

pub mod drill;

pub mod issuance;

pub mod authorities;

pub mod accounts;

pub mod challenge;

pub mod chain;

pub mod import;

pub mod client;

pub mod lists;

pub mod vault;

pub mod credential;

pub mod intermediate;

pub mod revocation;

pub mod load;

pub mod resolver;

pub mod permission;

pub mod on_demand;

pub mod preflight;

pub mod problem;

pub mod outcome;

pub mod upkeep;

pub mod gauges;

pub mod settings;

pub use settings::Settings;
