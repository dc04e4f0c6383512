//! The end of a process without the end of its visitors' requests.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Says once, to everyone who holds a clone, that connections shall wind down.
#[derive(Clone, Debug, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// Not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins; there is no way back.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Ends when it begins.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// [`Drain::begun`] that holds its own clone.
    pub fn wait(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}
