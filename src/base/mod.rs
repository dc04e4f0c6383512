//! What every other module stands on: the one clock, the one way to spawn, bounds, secrets, files.
//!
//! Nothing here knows what a certificate, a tenant or a request is. Each file is one idea:
//!
//! 1. [`clock`]: the only place that reads time.
//! 2. [`task`]: the only place that spawns; every task has a name and an owner.
//! 3. [`backoff`]: when to try again, as a pure function.
//! 4. [`single_flight`]: one piece of work for any number of waiters, with a bound on them.
//! 5. [`published`]: a value that readers see whole, swapped by one writer.
//! 6. [`secret`]: bytes that are never printed and are wiped.
//! 7. [`mod@file`]: writes that survive a crash.
//! 8. [`bind`]: why an address cannot be listened on, and what to do about it.
//! 9. [`serve`]: pages for operators over HTTP, bounded; never the traffic.
//! 10. [`mod@nearest`]: what a misspelt word was meant to be.

pub mod clock;
pub mod task;

pub mod backoff;
pub mod single_flight;

pub mod published;

pub mod secret;

pub mod file;

pub mod bind;

pub mod serve;

pub mod nearest;
