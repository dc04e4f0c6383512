//! One connection to the control API's socket, and what can go wrong on it.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use url::Url;

/// For one request and its answer.
const DEADLINE: Duration = Duration::from_secs(70);
/// The largest answer, in bytes.
const MOST_ANSWER: usize = 64 << 20;

/// What told which instance is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// Its socket.
    Socket,
    /// Its configuration.
    File(PathBuf),
    /// Its configuration, which has mistakes.
    BrokenFile(PathBuf),
    /// Nothing: there is no such configuration.
    NoFile(PathBuf),
}

/// Why there is no answer, and what to do.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens on the socket of the instance that is meant.
    NotRunning(PathBuf, Meant),
    /// What is named as a socket is none.
    NoSocket(PathBuf),
    /// The socket belongs to another user.
    NotAllowed(PathBuf, Option<u32>),
    /// The socket cannot be opened for another reason.
    Open(PathBuf, io::Error),
    /// The instance answered with a problem (RFC 9457).
    Problem {
        /// What kind, in words.
        title: String,
        /// This occurrence.
        detail: String,
        /// Mistakes of the configuration, each with its place.
        mistakes: Vec<String>,
    },
    /// The connection broke, or was closed.
    Broken(Option<hyper::Error>),
    /// No answer came in time.
    Timeout,
    /// The answer is not what this version understands.
    NotUnderstood,
    /// The configuration cannot be used for this; why.
    Configuration(String),
    /// It cannot be undone and was not confirmed; what to do.
    NotConfirmed(String),
    /// A file that was named cannot be read.
    Input(io::Error),
    /// The answer cannot be written out.
    Output(io::Error),
    /// The key of this certificate, which is nowhere else, could not be written.
    KeyLost(io::Error, String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(path, meant) => nobody_listens(f, path, meant),
            Self::NoSocket(path) => write!(
                f,
                "{} is no socket: name that of the instance with --socket, or its configuration with --config",
                path.display()
            ),
            Self::NotAllowed(path, owner) => {
                write!(f, "{} can be opened only by its owner", path.display())?;
                match owner {
                    Some(owner) => write!(f, ": run this as user {owner} (sudo -u '#{owner}' …)"),
                    None => write!(f, ": run this as the user that Vestibule runs as"),
                }
            }
            Self::Open(path, _) => write!(f, "cannot open the socket {}", path.display()),
            Self::Problem {
                title,
                detail,
                mistakes,
            } => {
                write!(f, "{}: {}", printable(title), printable(detail))?;
                mistakes
                    .iter()
                    .try_for_each(|mistake| write!(f, "\n{}", printable_lines(mistake)))
            }
            Self::Broken(_) => f.write_str("the connection to the instance broke: did it end?"),
            Self::Configuration(why) | Self::NotConfirmed(why) => f.write_str(why),
            Self::Timeout => write!(f, "no answer within {} s", DEADLINE.as_secs()),
            Self::NotUnderstood => f.write_str(
                "the answer is not understood: use the `vestibule` of the same version as the one that runs",
            ),
            Self::Input(error) => error.fmt(f),
            Self::Output(_) => f.write_str("cannot write the answer"),
            Self::KeyLost(error, certificate) => write!(
                f,
                "{error}: the key of certificate {certificate} is lost; end it with \
                 `vestibule certificate revoke {certificate}`, and issue another"
            ),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, error) | Self::Output(error) => Some(error),
            Self::Broken(error) => error.as_ref().map(|error| error as _),
            Self::NotRunning(..)
            | Self::NoSocket(_)
            | Self::NotAllowed(..)
            | Self::Problem { .. }
            | Self::Input(_)
            | Self::KeyLost(..)
            | Self::Configuration(_)
            | Self::NotConfirmed(_)
            | Self::Timeout
            | Self::NotUnderstood => None,
        }
    }
}

impl ClientError {
    /// Whether the answer could not be written because nobody reads it any more.
    #[must_use]
    pub fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code: 2 for a mistake of the command line or the configuration, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_) => 2,
            Self::NotRunning(..)
            | Self::NoSocket(_)
            | Self::NotAllowed(..)
            | Self::Open(..)
            | Self::Problem { .. }
            | Self::Broken(_)
            | Self::Timeout
            | Self::NotUnderstood
            | Self::Input(_)
            | Self::Output(_)
            | Self::NotConfirmed(_)
            | Self::KeyLost(..) => 1,
        }
    }
}

fn nobody_listens(f: &mut fmt::Formatter<'_>, socket: &Path, meant: &Meant) -> fmt::Result {
    let socket = socket.display();
    match meant {
        Meant::Socket => write!(
            f,
            "no Vestibule listens on {socket}: start one with `vestibule run`, or name the socket of the one that runs \
             with --socket"
        ),
        Meant::File(file) => write!(
            f,
            "no Vestibule listens on {socket}, the socket that {file} tells: start one with `vestibule run --config {file}`, \
             or name the socket of the one that runs with --socket",
            file = file.display()
        ),
        Meant::BrokenFile(file) => write!(
            f,
            "no Vestibule listens on {socket}, as far as {file} tells: it has mistakes, and `vestibule check --config {file}` \
             lists them; --socket names the socket of one that runs",
            file = file.display()
        ),
        Meant::NoFile(file) => write!(
            f,
            "there is no {file}, and no Vestibule listens on {socket}, which would be its socket: go to the folder of your \
             configuration, name it with --config, or name the socket with --socket; `vestibule run` starts one",
            file = file.display()
        ),
    }
}

/// The text with its control characters escaped: a CA's or a visitor's words must not drive the terminal.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// The same, for a text of several lines.
fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).collect();
    lines.join("\n")
}

/// The methods in use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    /// Reads.
    Get,
    /// Acts.
    Post,
}

/// A connection to a running instance.
pub(super) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// Carries the requests: polled while an answer is awaited, for this runtime has no other tasks.
    driver: Pin<Box<http1::Connection<TokioIo<UnixStream>, Full<Bytes>>>>,
}

impl Connection {
    /// Connects to the socket at `path`, that of the instance which is `meant`.
    pub(super) async fn open(path: PathBuf, meant: Meant) -> Result<Self, ClientError> {
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error) => return Err(not_opened(path, meant, error)),
        };
        let made = http1::handshake(TokioIo::new(stream)).await;
        let (requests, driver) = made.map_err(broken)?;
        Ok(Self {
            requests,
            driver: Box::pin(driver),
        })
    }

    /// Asks for `/v1/` and these segments, and gives the answer.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, ClientError> {
        self.exchange(method, (path, query), None).await
    }

    /// Hands `content` in at `/v1/` and these segments, and gives the answer.
    pub(super) async fn tell(
        &mut self,
        path: &[&str],
        content: &impl serde::Serialize,
    ) -> Result<Value, ClientError> {
        let content =
            serde_json::to_vec(content).map_err(|_unwritable| ClientError::NotUnderstood)?;
        self.exchange(Method::Post, (path, &[]), Some(Bytes::from(content)))
            .await
    }

    async fn exchange(
        &mut self,
        method: Method,
        (path, query): (&[&str], &[(&str, &str)]),
        content: Option<Bytes>,
    ) -> Result<Value, ClientError> {
        // A URL would take these for steps between folders.
        if let Some(step) = path.iter().find(|segment| matches!(**segment, "." | "..")) {
            return Err(ClientError::Problem {
                title: "Bad parameter".to_owned(),
                detail: format!("{step} is no name"),
                mistakes: Vec::new(),
            });
        }
        let request = request(method, path, query).ok_or(ClientError::NotUnderstood)?;
        let request = with_content(request, content);
        let exchange = exchange(&mut self.requests, request);
        let (status, body) = tokio::select! {
            answer = tokio::time::timeout(DEADLINE, exchange) => match answer {
                Ok(answer) => answer?,
                Err(_elapsed) => return Err(ClientError::Timeout),
            },
            ended = self.driver.as_mut() => {
                return Err(ClientError::Broken(ended.err()));
            }
        };
        let answer: Value =
            serde_json::from_slice(&body).map_err(|_error| ClientError::NotUnderstood)?;
        match status.is_success() {
            true => Ok(answer),
            false => Err(problem(&answer)),
        }
    }
}

const fn broken(error: hyper::Error) -> ClientError {
    ClientError::Broken(Some(error))
}

fn not_opened(path: PathBuf, meant: Meant, error: io::Error) -> ClientError {
    let kind = error.kind();
    if fs::metadata(&path).is_ok_and(|file| !file.file_type().is_socket()) {
        return ClientError::NoSocket(path);
    }
    if matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    ) {
        return ClientError::NotRunning(path, meant);
    }
    if kind == io::ErrorKind::PermissionDenied {
        let owner = fs::metadata(&path).map(|file| file.uid()).ok();
        return ClientError::NotAllowed(path, owner);
    }
    ClientError::Open(path, error)
}

/// Segments and values may hold anything: the URL escapes them.
fn request(method: Method, path: &[&str], query: &[(&str, &str)]) -> Option<Request<()>> {
    let mut url = Url::parse("http://localhost/v1").ok()?;
    url.path_segments_mut().ok()?.extend(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let method = match method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
    };
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "localhost")
        .body(())
        .ok()
}

/// The request with JSON as its content, where there is any.
fn with_content(request: Request<()>, content: Option<Bytes>) -> Request<Full<Bytes>> {
    let (mut head, ()) = request.into_parts();
    if content.is_some() {
        let json = HeaderValue::from_static("application/json");
        head.headers.insert(CONTENT_TYPE, json);
    }
    Request::from_parts(head, Full::new(content.unwrap_or_default()))
}

async fn exchange(
    requests: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), ClientError> {
    requests.ready().await.map_err(broken)?;
    let response = requests.send_request(request).await;
    let response = response.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MOST_ANSWER).collect();
    let body = body
        .await
        .map_err(|_too_large_or_broken| ClientError::NotUnderstood)?;
    Ok((status, body.to_bytes()))
}

fn problem(answer: &Value) -> ClientError {
    let text = |key| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    let Some(title) = text("title") else {
        return ClientError::NotUnderstood;
    };
    let mistakes = answer.get("mistakes").and_then(Value::as_array);
    let mistakes = mistakes.into_iter().flatten().filter_map(Value::as_str);
    ClientError::Problem {
        title,
        detail: text("detail").unwrap_or_default(),
        mistakes: mistakes.map(str::to_owned).collect(),
    }
}
