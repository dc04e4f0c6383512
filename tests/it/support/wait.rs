//! Waiting for something that must happen: looked at again and again, and given up loudly at a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine with two cores; a story that gets here has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What `look` gives once it gives something.
///
/// # Panics
/// Where it gives nothing within [`PATIENCE`].
#[track_caller]
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// Like [`until`], with another deadline.
#[track_caller]
pub(crate) fn until_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        thread::park_timeout(PAUSE);
    }
}
