//! The command line: `run`, `demo`, `check`, and the client of the control API.

pub mod client;
