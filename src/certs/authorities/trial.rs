//! Work with an authority, from its begin on: in a half-open breaker it is the trial, and the only one.

use super::Authorities;
use crate::base::clock::{Instant, monotonic};
use crate::model::certificate::CaId;

/// Work with an authority. Where it ends without a word of the authority's, which may be for reasons of our own, dropping
/// it lets another try at once.
#[derive(Debug)]
#[must_use = "dropped, it lets another try"]
pub struct Trial {
    authorities: Authorities,
    ca: CaId,
    until: Option<Instant>,
}

impl Authorities {
    /// Notes that work with an authority begins.
    pub fn began(&self, ca: &CaId) -> Trial {
        let watched = self.watched(ca);
        let until = watched.and_then(|watched| watched.state().breaker.began(monotonic()));
        Trial {
            authorities: self.clone(),
            ca: ca.clone(),
            until,
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(until) = self.until
            && let Some(watched) = self.authorities.watched(&self.ca)
        {
            watched.state().breaker.gave_up(until);
        }
    }
}
