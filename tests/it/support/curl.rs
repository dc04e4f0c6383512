//! A client we did not write: curl.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::wait;

/// Seconds after which curl gives up, unless a story says otherwise.
const LONGEST: u32 = 60;

/// What was asked, and curl's own exit code and words where there was no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: i32,
    pub(crate) words: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) body: String,
    /// As received, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

impl Answer {
    /// The first value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A GET of `url`.
pub(crate) fn get(url: &str) -> Curl {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--include", "--path-as-is"])
        .args(["--noproxy", "*"])
        .args(["--max-time", &LONGEST.to_string()])
        .arg(url);
    Curl { command }
}

/// One call of curl, being described.
#[derive(Debug)]
pub(crate) struct Curl {
    command: Command,
}

impl Curl {
    /// Trusts this root and no other.
    pub(crate) fn trusting(self, root: &Path) -> Self {
        self.with(["--cacert".as_ref(), root.as_os_str()])
    }

    /// Finds every name at this address and port.
    pub(crate) fn connecting_to(self, address: SocketAddrV4) -> Self {
        let everything = format!("::{}:{}", address.ip(), address.port());
        self.with(["--connect-to", &everything])
    }

    /// Further arguments.
    pub(crate) fn with<S: AsRef<std::ffi::OsStr>>(
        mut self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        self.command.args(arguments);
        self
    }

    /// Begins, and does not wait for the answer.
    pub(crate) fn in_background(mut self) -> Running {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(self.command.spawn().unwrap()))
    }

    pub(crate) fn send(mut self) -> Result<Answer, Failure> {
        self.run()
    }

    /// The answer, which must come at the first attempt.
    #[track_caller]
    pub(crate) fn answered(mut self) -> Answer {
        self.run()
            .unwrap_or_else(|failure| panic!("{:?}: {failure:?}", self.command))
    }

    /// The answer of a server that may still be starting.
    #[track_caller]
    pub(crate) fn until_answered(mut self) -> Answer {
        let what = format!("{:?}", self.command);
        wait::until(&what, || self.run().ok())
    }

    fn run(&mut self) -> Result<Answer, Failure> {
        outcome(&self.command.output().unwrap())
    }
}

/// A call that has begun.
pub(crate) struct Running(Option<Child>);

impl Running {
    #[track_caller]
    pub(crate) fn answered(mut self) -> Answer {
        let child = self.0.take().unwrap();
        outcome(&child.wait_with_output().unwrap()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            drop(child.kill());
            child.wait().unwrap();
        }
    }
}

fn outcome(output: &Output) -> Result<Answer, Failure> {
    if output.status.success() {
        return Ok(parsed(&String::from_utf8_lossy(&output.stdout)));
    }
    Err(Failure {
        exit: output.status.code().unwrap(),
        words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The last head (there may be interim ones) and the body.
fn parsed(text: &str) -> Answer {
    let mut rest = text;
    loop {
        let (head, body) = rest.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let mut start = lines.next().unwrap().split(' ');
        let version = start.next().unwrap().to_owned();
        let status: u16 = start.next().unwrap().parse().unwrap();
        if (100..200).contains(&status) && status != 101 {
            rest = body;
            continue;
        }
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        return Answer {
            version,
            status,
            body: body.to_owned(),
            fields,
        };
    }
}
