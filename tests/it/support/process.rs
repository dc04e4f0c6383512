//! A child process: what it says is kept and can be waited for, and it never outlives its story.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait;

/// Lines shown of each process of a story that fails.
const SHOWN_LINES: usize = 60;

/// A command whose process the kernel kills when the story's thread ends, even where that is killed itself.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running child. Dropping it kills it.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `command`, made by [`command`].
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().unwrap(), &lines);
        collect(child.stderr.take().unwrap(), &lines);
        Self { name, child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far, standard output and standard error.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many lines contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// The first line that contains `text`, once there is one.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        let what = format!("{} says {text:?}", self.name);
        wait::until(&what, || {
            let found = self.lines().into_iter().find(|line| line.contains(text));
            if found.is_none()
                && let Some(status) = self.exited()
            {
                panic!("{} ended: {status}\n{}", self.name, self.lines().join("\n"));
            }
            found
        })
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// How it ends, which must be soon.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait::until_within(patience, &what, || self.exited())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let lines = self.lines();
            let shown = lines.len().saturating_sub(SHOWN_LINES);
            eprintln!("---- {}, its last lines", self.name);
            for line in lines.iter().skip(shown) {
                eprintln!("{line}");
            }
        }
    }
}

fn collect(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(String::from_utf8_lossy(&line).into_owned());
        }
    });
}
