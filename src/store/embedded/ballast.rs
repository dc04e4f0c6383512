//! Room kept for a start on a full disk.
//!
//! The last connection to close removes the database's log and shared memory, and a start makes them anew: on a full disk it
//! could not, and nothing that is stored would be served. So a small file lies beside the database, whose room is given up then.

use std::fs;
use std::path::Path;

use crate::base::file::{Access, replace};

/// Its file in the data folder.
const FILE: &str = "ballast";
/// Its size: the shared memory takes 32 KiB, and the log of a few changes fits beside it.
const BYTES: usize = 256 << 10;
/// Bytes that are drawn at once.
const BLOCK: usize = 32;

/// Makes it where there is none and there is room; else it is tried again later.
pub(super) fn keep(folder: &Path) {
    let path = folder.join(FILE);
    let kept = path.metadata().map_or(0, |found| found.len());
    if kept >= BYTES as u64 {
        return;
    }
    // Random, for what a file system compresses takes no room.
    let blocks = (0..BYTES / BLOCK).flat_map(|_| rand::random::<[u8; BLOCK]>());
    let bytes: Vec<u8> = blocks.collect();
    if let Err(error) = replace(&path, &bytes, Access::Owner) {
        tracing::debug!(%error, "no room is kept for a start on a full disk");
    }
}

/// Gives its room up; tells whether there was any.
pub(super) fn release(folder: &Path) -> bool {
    fs::remove_file(folder.join(FILE)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_given_up_and_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let size = || fs::metadata(folder.path().join(FILE)).map(|found| found.len());
        assert!(!release(folder.path()), "there is none yet");
        for _ in 0..2 {
            keep(folder.path());
            keep(folder.path());
            assert_eq!(size().unwrap(), BYTES as u64);
            assert!(release(folder.path()));
            assert!(size().is_err());
        }
    }
}
