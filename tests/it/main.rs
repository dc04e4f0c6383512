//! Stories about the whole program: the real binary, a real ACME CA, real upstream servers, and clients that we did
//! not write. One binary, so that it links once; each story owns a loopback address, so that they run side by side.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a story fails loudly, and neither its clock nor its scratch files are the program's"
)]

mod bad_input;
mod ca_faults;
mod ca_trouble;
mod challenges;
mod clock;
mod command_line;
mod crowd;
mod custody;
mod demo;
mod drill;
mod first_handshake;
mod harness;
mod imported;
mod keys;
mod lists;
mod operations;
mod preflight;
mod private_ca;
mod proxying;
mod renewal;
mod restart;
mod revocation;
mod support;
mod takeover;
