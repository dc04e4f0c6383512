//! What the authorities bear, and who gets it: a mirror of their limits as buckets that we own.
//!
//! An authority's limits are spent by many tenants, and who exhausts them stops all of them. So each order is taken
//! from buckets of ours first, charged as the authority charges, and held back before the authority would refuse it:
//!
//! - We spend a part of each limit only ([`Shares::spend`]); the rest covers orders that we do not know of, and those in
//!   progress, which an authority charges to registered domains and name sets only when they end. What comes back to our
//!   bucket between is spent twice: with the whole limit spent, an order that takes as long as one unit takes to come back
//!   (3.4 hours of 50 in a week) may be one too many, and is refused until the authority says. With a part `s` spent, none
//!   is while orders take less than `(1 - s) / s` of the limit's period: a quarter by default.
//! - Renewals come before visitors of new names, and those before bulk work: each [`Class`] leaves in the bucket what
//!   is reserved for the classes before it, and emergencies alone may empty it.
//! - A tenant that has used its share takes only what is left over while the bucket is full enough for the others.
//! - An authority that asks to wait freezes the bucket that it means, over restarts.
//!
//! Everything here is pure but [`keeper`] and [`survey`]: [`Book`] says what an order costs, a store (or [`Ledger`], in memory) gives
//! it or not.
//!
//! Reading order: [`limits`], [`shares`], [`bucket`] (names of buckets), [`book`] (what an order costs), [`ledger`] (a
//! store of buckets in memory), [`forecast`], [`scarcity`] (which jobs are worth a try), [`keeper`] (the store's buckets, asked),
//! [`survey`] (what is left).

pub mod limits;

pub mod shares;

pub mod bucket;

pub mod book;

pub mod ledger;

pub mod forecast;

pub mod scarcity;

pub mod keeper;

pub mod survey;

pub use book::{Book, Charge, Denied, History, Order};
pub use bucket::BucketName;
pub use keeper::{Keeper, Settings, TakeError};
pub use ledger::Ledger;
pub use limits::{Limit, Limits, Renewals};
pub use shares::{Class, Shares};

#[cfg(test)]
mod tests;
