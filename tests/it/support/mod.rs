//! What the stories are made of: a place of their own, the real program, a real CA, real servers, and clients that
//! we did not write. Whatever a story starts is ended with it, by process id.
//!
//! Read `place` first, then `edge` and `pebble`.

pub(crate) mod caddy;
pub(crate) mod curl;
pub(crate) mod dns;
pub(crate) mod edge;
pub(crate) mod fault;
pub(crate) mod metrics;
pub(crate) mod openssl;
pub(crate) mod pebble;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod signed_zone;
pub(crate) mod upstream;
pub(crate) mod visitor;
pub(crate) mod wait;
pub(crate) mod wire;

/// How often a story does what it repeats: as often as `usual`, or as the environment's `VESTIBULE_ROUNDS` says.
pub(crate) fn rounds(usual: usize) -> usize {
    match std::env::var("VESTIBULE_ROUNDS") {
        Ok(rounds) => rounds.parse().unwrap(),
        Err(_) => usual,
    }
}
