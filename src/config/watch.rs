//! When to look at the configuration again: on SIGHUP, and when a file of it changes on disk.
//!
//! Folders are watched, not files, so that an editor's rename and the swap of a symbolic link (as Kubernetes
//! does for a mounted `ConfigMap`) are seen. Events within a short time are told as one. Whether anything
//! really changed is for [`crate::config::reload`] to tell: a look too many costs a read of the files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// A change is told this long after its last event, so that a file is not read half written.
const QUIET: Duration = Duration::from_millis(200);
/// A change is told after this long even if events go on.
const LONGEST: Duration = Duration::from_secs(2);
/// Folders that are watched.
const MOST_FOLDERS: usize = 256;

/// Why the configuration should be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The operator asked, by SIGHUP: an answer is due in the log even if nothing changed.
    Signal,
    /// Something happened in a watched folder.
    FileChange,
}

/// Waits for reasons to read the configuration again.
#[derive(Debug)]
pub struct Watch {
    hangup: Signal,
    events: mpsc::Receiver<()>,
    look: mpsc::Sender<()>,
    folders: Option<Folders>,
}

#[derive(Debug)]
struct Folders {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    /// Heeds SIGHUP from now on, and changes in the folders of `files`. Where the system cannot watch folders,
    /// only SIGHUP is heeded, and a warning is logged.
    ///
    /// # Errors
    /// Where the signal's handler cannot be installed.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        // One waiting event is as good as many.
        let (look, events) = mpsc::channel(1);
        let sender = look.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let of_interest = match &event {
                Ok(event) => !matches!(event.kind, EventKind::Access(_)),
                Err(_) => true,
            };
            // Full means that a look is due already; closed, that nobody looks any more.
            if of_interest && sender.try_send(()).is_err() {
                tracing::trace!("a change of the configuration is due to be looked at already");
            }
        });
        let folders = match watcher {
            Ok(watcher) => Some(Folders {
                watcher,
                watched: BTreeSet::new(),
            }),
            Err(error) => {
                tracing::warn!(%error, "cannot watch the configuration: only SIGHUP reloads it");
                None
            }
        };
        let mut watch = Self {
            hangup,
            events,
            look,
            folders,
        };
        watch.follow(files);
        while watch.events.try_recv().is_ok() {}
        Ok(watch)
    }

    /// Watches the folders of `files`, and of what they link to, instead of those before. A folder that is new to
    /// it is told as a change, for a file may have come to lie in it before.
    pub fn follow(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let wanted: BTreeSet<PathBuf> = files
            .into_iter()
            .flat_map(|file| {
                let target = file.canonicalize().ok();
                [Some(file), target]
            })
            .flatten()
            .map(|file| folder(&file))
            .take(MOST_FOLDERS)
            .collect();
        let Some(Folders { watcher, watched }) = &mut self.folders else {
            return;
        };
        for gone in watched.difference(&wanted) {
            // A folder that was removed is not watched any more already.
            drop(watcher.unwatch(gone));
        }
        let mut now: BTreeSet<PathBuf> = watched.intersection(&wanted).cloned().collect();
        for folder in wanted {
            // A folder may be made later; the main file's folder, which is there, then tells of it.
            if !now.contains(&folder) && folder.is_dir() {
                let shown = folder.display().to_string();
                match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        now.insert(folder);
                        let due = self.look.try_send(()).is_err();
                        tracing::debug!(folder = %shown, due, "watching a folder of the configuration");
                    }
                    Err(error) => {
                        tracing::warn!(folder = %shown, %error, "cannot watch a folder of the configuration");
                    }
                }
            }
        }
        *watched = now;
    }

    /// The next reason; cancelling the wait loses none.
    pub async fn next(&mut self) -> Trigger {
        tokio::select! {
            _ = self.hangup.recv() => return Trigger::Signal,
            () = received(&mut self.events) => {}
        }
        let settle = async {
            while tokio::time::timeout(QUIET, received(&mut self.events))
                .await
                .is_ok()
            {}
        };
        tokio::select! {
            _ = self.hangup.recv() => Trigger::Signal,
            _ = tokio::time::timeout(LONGEST, settle) => Trigger::FileChange,
        }
    }
}

/// Ends with the next event; never where there will be none.
async fn received(events: &mut mpsc::Receiver<()>) {
    if events.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::base::file::{Access, replace};

    const SOON: Duration = Duration::from_secs(10);

    async fn told(watch: &mut Watch) -> Trigger {
        tokio::time::timeout(SOON, watch.next()).await.unwrap()
    }

    #[tokio::test]
    async fn a_file_replaced_and_a_file_added_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (file, more) = (folder.path().join("proxy.toml"), folder.path().join("d"));
        std::fs::create_dir(&more).unwrap();
        replace(&file, b"a", Access::Everyone).unwrap();
        let mut watch = Watch::new([file.clone(), more.join("*.toml")]).unwrap();
        replace(&file, b"b", Access::Everyone).unwrap();
        assert_eq!(told(&mut watch).await, Trigger::FileChange);
        replace(&more.join("t.toml"), b"b", Access::Everyone).unwrap();
        assert_eq!(told(&mut watch).await, Trigger::FileChange);
    }

    #[tokio::test]
    async fn a_folder_made_later_is_followed_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let (file, more) = (folder.path().join("proxy.toml"), folder.path().join("d"));
        replace(&file, b"a", Access::Everyone).unwrap();
        let files = [file, more.join("*.toml")];
        let mut watch = Watch::new(files.clone()).unwrap();
        std::fs::create_dir(&more).unwrap();
        replace(&more.join("early.toml"), b"b", Access::Everyone).unwrap();
        assert_eq!(told(&mut watch).await, Trigger::FileChange);
        watch.follow(files.clone());
        assert_eq!(told(&mut watch).await, Trigger::FileChange);
        watch.follow(files);
        replace(&more.join("late.toml"), b"b", Access::Everyone).unwrap();
        assert_eq!(told(&mut watch).await, Trigger::FileChange);
    }

    #[tokio::test]
    async fn a_swapped_link_is_told_as_kubernetes_does_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            std::fs::create_dir(at(version)).unwrap();
            replace(&at(version).join("proxy.toml"), b"", Access::Everyone).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/proxy.toml", at("proxy.toml")).unwrap();
        let mut watch = Watch::new([at("proxy.toml")]).unwrap();
        symlink("..2", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        assert_eq!(told(&mut watch).await, Trigger::FileChange);
    }
}
