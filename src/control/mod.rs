//! What callers may do and what it changes; no HTTP, no SQL.
//!
//! Reading order: [`declare`] (what the configuration file says there is), [`publish`] (records → what traffic is
//! served from), [`domains`] (names registered and removed); [`caller`] (who asks, and what that lets them reach),
//! [`views`] (what there is to read) over [`state`] (the one state of a domain), [`check`] (a look at a name), [`mod@tenants`] (whether a tenant is there),
//! [`budget`] (what is left of the authorities' limits),
//! [`stuck`] (what nobody works on), [`waiting`] (what waits for a budget), `unreadable` (keys that do not open), [`upstreams`] (what visitors meet behind the edge), [`actions`] (what can be set in motion), [`imports`] (certificates brought along), [`clients`] (certificates for clients), [`keys`] (exchanged and destroyed), [`drill`] (what would happen if); [`names`] (whether every name has
//! been read).

pub mod declare;

pub mod publish;

pub mod domains;

pub mod caller;

pub mod views;

pub mod state;

pub mod check;

mod tenants;

pub mod stuck;

pub mod waiting;

mod upstreams;

mod unreadable;

pub mod authorities;

pub mod budget;

pub mod actions;

pub mod imports;

pub mod clients;

pub mod keys;

pub mod drill;

pub mod names;

#[cfg(test)]
mod fixture;
