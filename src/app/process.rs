//! The process and its surroundings: file descriptors, signals, the service manager.

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Raises the soft limit of open files to the hard one, for every connection takes two. Gives the limit that holds
/// now.
pub fn raise_open_files() -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => now.maximum,
        Err(error) => {
            tracing::warn!(%error, limit = now.current, "cannot raise the limit of open files");
            now.current
        }
    }
}

/// Keeps the memory of this process, which holds private keys, from every other user and from the disk: no core file is
/// written however the process ends, whatever the machine does with core files, and only a debugger with `CAP_SYS_PTRACE`
/// attaches.
///
/// # Errors
/// Where the system refuses either: nothing that opens keys should go on then.
pub fn keep_memory_private() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // For children too, which are not bound by the first.
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    Ok(())
}

/// What the service manager is told (systemd's `sd_notify`); nothing happens where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serving.
    Ready,
    /// Draining.
    Stopping,
}

/// Tells the service manager.
pub fn tell_service_manager(phase: Phase) {
    let state = match phase {
        Phase::Ready => NotifyState::Ready,
        Phase::Stopping => NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// The signals that the program heeds.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Heeds them from now on, instead of dying by them.
    ///
    /// # Errors
    /// Where a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Ends when the program is asked to stop, by SIGTERM or SIGINT; each further call waits for a further signal.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn memory_is_neither_dumped_nor_open_to_other_processes() {
        keep_memory_private().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let core = getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    }
}
