//! Which process this is, among those that share a data directory.
//!
//! Claims on jobs name their holder. A process proves that it lives by a lock on a file of its own in
//! `DATA/processes`, which the kernel lets go of however the process ends; so whoever starts next knows which holders are
//! dead, and puts their jobs back at once instead of waiting for the ends of their leases. Processes that live, here or
//! on other machines, are left alone.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::store::{Deadline, Store};

/// The folder in the data directory.
const FOLDER: &str = "processes";
/// Names that are tried: one is lost only to a process that starts at the same moment and takes ours for dead.
const MOST_TRIES: u32 = 8;
/// Dead processes that one start buries.
const MOST_DEAD: usize = 64;
/// How long the store may take over one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// This process, as claims name it; known to be alive until it is dropped.
#[derive(Debug)]
pub(super) struct Holder {
    id: Uuid,
    /// Its file, locked. Nothing where none could be made: then its leases end by themselves.
    proof: Option<Locked>,
}

#[derive(Debug)]
struct Locked {
    path: PathBuf,
    _file: File,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Whoever finds it later finds that nobody holds it.
        drop(fs::remove_file(&self.path));
    }
}

impl Holder {
    /// A new one over the data directory `data`.
    pub(super) fn new(data: &Path) -> Self {
        match make(data) {
            Ok((id, locked)) => Self {
                id,
                proof: Some(locked),
            },
            Err(error) => {
                tracing::warn!(%error, "this process cannot mark that it lives; should it be killed, its jobs wait for the ends of their leases");
                Self {
                    id: Uuid::now_v7(),
                    proof: None,
                }
            }
        }
    }

    /// The name.
    pub(super) const fn id(&self) -> Uuid {
        self.id
    }

    /// Puts back the jobs of processes that have died here. What fails is tried again at the next start.
    pub(super) async fn bury_the_dead(&self, store: &dyn Store) {
        let Some(folder) = self.proof.as_ref().and_then(|proof| proof.path.parent()) else {
            return;
        };
        let dead = match dead(folder) {
            Ok(dead) => dead,
            Err(error) => {
                tracing::warn!(%error, "processes that have died cannot be looked for");
                return;
            }
        };
        for Dead { id, path, _lock } in dead {
            match store.release(Deadline::after(PATIENCE), id).await {
                Ok(jobs) => {
                    tracing::info!(holder = %id, jobs, "a process died here: the jobs that it held are due again");
                    drop(fs::remove_file(&path));
                }
                Err(error) => {
                    tracing::warn!(holder = %id, %error, "the jobs of a process that died cannot be put back; their leases will end");
                }
            }
        }
    }
}

fn make(data: &Path) -> io::Result<(Uuid, Locked)> {
    let folder = data.join(FOLDER);
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(&folder)?;
    for _ in 0..MOST_TRIES {
        let id = Uuid::now_v7();
        let path = folder.join(id.to_string());
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        match file.try_lock() {
            // Another process may have locked it first, found nobody, and removed it.
            Ok(()) if file.metadata()?.nlink() > 0 => {
                return Ok((id, Locked { path, _file: file }));
            }
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other(
        "another process takes every new one for dead",
    ))
}

/// A process that died here, whose file is now locked by us, so that nobody else deals with it too.
#[derive(Debug)]
struct Dead {
    id: Uuid,
    path: PathBuf,
    _lock: File,
}

fn dead(folder: &Path) -> io::Result<Vec<Dead>> {
    let mut dead = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(id) = id.filter(|_| dead.len() < MOST_DEAD) else {
            continue;
        };
        let path = entry.path();
        // Where it is gone by now, a process has ended in order.
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if file.try_lock().is_ok() {
            dead.push(Dead {
                id,
                path,
                _lock: file,
            });
        }
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::file::{Access, replace};

    fn found(data: &Path) -> Vec<Uuid> {
        let dead = dead(&data.join(FOLDER)).unwrap();
        dead.iter().map(|dead| dead.id).collect()
    }

    #[test]
    fn the_living_are_left_alone_and_the_dead_are_found_once() {
        let data = tempfile::tempdir().unwrap();
        let (here, there) = (Holder::new(data.path()), Holder::new(data.path()));
        assert_ne!(here.id(), there.id());
        assert!(found(data.path()).is_empty());
        // What a killed process leaves: its file, which nobody locks.
        let killed = Uuid::now_v7();
        let folder = data.path().join(FOLDER);
        replace(&folder.join(killed.to_string()), b"", Access::Owner).unwrap();
        replace(&folder.join("note"), b"", Access::Owner).unwrap();
        assert_eq!(found(data.path()), [killed]);
        // While one process deals with it, another does not.
        let dealing = dead(&folder).unwrap();
        assert!(found(data.path()).is_empty());
        drop(dealing);
        // One that ended in order leaves nothing to find.
        drop(there);
        assert_eq!(found(data.path()), [killed]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_only_the_proof() {
        let data = tempfile::tempdir().unwrap();
        let blocked = data.path().join(FOLDER);
        replace(
            &blocked,
            b"a file where the folder should be",
            Access::Owner,
        )
        .unwrap();
        assert!(Holder::new(data.path()).proof.is_none());
    }
}
