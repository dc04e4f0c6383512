//! `proxy.toml` to the settings of each module; all mistakes at once.
//!
//! Invariants: a configuration is read to its end before it is refused; nothing takes effect before the whole
//! is right; what an included file gets wrong concerns that file alone; no secret stands in a file or in a
//! message. Only `app` and `cli` name this module.
//!
//! Reading order: [`mistake`] is what a user sees; `source`, `reader` and `value` read a file key by key;
//! `file` mirrors it section by section; `text` finds the files, `claims` and `assemble` put them together;
//! `settings` makes of them what each module takes; [`load`](mod@load) and [`reload`] bring it into force,
//! [`change`] and [`watch`] tell what differs and when to look, `last_good` remembers; [`key_files`] tells which keys a
//! store needs and where they belong, [`check`](mod@check) what is wrong with the files, [`doctor`] what is wrong with the world.

pub mod mistake;
mod source;

mod reader;
mod value;

mod file;
mod secrets;

mod text;

mod claims;
pub mod settings;

mod assemble;

mod last_good;

pub mod locate;

pub mod load;

pub mod change;
pub mod watch;

pub mod reload;

pub mod key_files;

pub mod check;
pub mod doctor;

#[cfg(test)]
mod tests;
