//! The line to an authority: every call passes here, and what instant-acme would lose of an answer is kept.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, Problem};

use super::chains;
use super::patience::Patience;
use crate::base::clock::{Clock, monotonic};
use crate::ca::error::{CaError, Document, Part, Step};
use crate::model::certificate::CaId;
use crate::net::{Answer, FetchError, HttpClient};

/// What begins every error type (RFC 8555 §6.7).
const ACME_ERROR: &str = "urn:ietf:params:acme:error:";
/// At most so much of an authority's words is kept, in characters.
const LONGEST_WORDS: usize = 2000;
/// At most so many subproblems are kept.
const MOST_PARTS: usize = 10;

tokio::task_local! {
    /// The last answer within the current call.
    static SEEN: RefCell<Seen>;
}

/// What passed in a call.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The status of the answer.
    pub status: Option<u16>,
    excerpt: String,
    /// How long the authority asks to wait.
    pub retry_after: Option<Duration>,
    /// Where what was made is found.
    pub location: Option<String>,
    /// Where other chains for the same certificate are found.
    pub alternates: Vec<String>,
}

/// The line. Clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Line {
    id: CaId,
    http: HttpClient,
    clock: Clock,
    patience: Patience,
}

impl Line {
    pub(super) fn new(id: CaId, http: HttpClient, clock: Clock) -> Self {
        Self {
            id,
            http,
            clock,
            patience: Patience::default(),
        }
    }

    pub(super) const fn id(&self) -> &CaId {
        &self.id
    }

    /// The line as instant-acme takes it.
    pub(super) fn http(&self) -> Box<dyn instant_acme::HttpClient> {
        Box::new(self.clone())
    }

    /// Makes a call of instant-acme's and puts what was seen of it into the error.
    pub(super) async fn call<T>(
        &self,
        step: Step,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, CaError> {
        self.watch(step, call).await.map(|(value, _seen)| value)
    }

    /// Like [`Line::call`], and gives what was seen of a good answer too.
    pub(super) async fn watch<T>(
        &self,
        step: Step,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<(T, Seen), CaError> {
        match Box::pin(Self::observe(call)).await {
            (Ok(value), seen) => Ok((value, seen)),
            (Err(error), seen) => Err(self.explain(step, error, seen)),
        }
    }

    /// Makes a call of instant-acme's; the result as it is, and what was seen.
    pub(super) async fn observe<T>(
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> (Result<T, Error>, Seen) {
        let watched = async {
            let result = call.await;
            (result, SEEN.with(RefCell::take))
        };
        SEEN.scope(RefCell::default(), watched).await
    }

    /// Sends a request that instant-acme has no call for; gives only an answer that is a success.
    pub(super) async fn send(
        &self,
        step: Step,
        request: Request<Bytes>,
    ) -> Result<Answer, CaError> {
        let answer = self
            .fetch(request)
            .await
            .map_err(|source| CaError::Unreachable {
                ca: self.id.clone(),
                step,
                source: Box::new(source),
            })?;
        self.hear(&answer);
        if answer.status.is_success() {
            return Ok(answer);
        }
        let (ca, retry_after) = (self.id.clone(), answer.retry_after(self.clock.now()));
        match serde_json::from_slice::<Problem>(&answer.body) {
            Ok(problem) if problem.r#type.is_some() => Err(CaError::Refused {
                ca,
                step,
                document: Box::new(document(&problem)),
                retry_after,
            }),
            Ok(_) | Err(_) => Err(CaError::Status {
                ca,
                step,
                status: answer.status.as_u16(),
                excerpt: excerpt(&answer.body),
                retry_after,
            }),
        }
    }

    /// The error, with what was seen of the answer.
    pub(super) fn explain(&self, step: Step, error: Error, seen: Seen) -> CaError {
        let ca = self.id.clone();
        if let Error::Api(problem) = error {
            return CaError::Refused {
                ca,
                step,
                document: Box::new(document(&problem)),
                retry_after: seen.retry_after,
            };
        }
        let error = match fetch_error(error) {
            Ok(source) => return CaError::Unreachable { ca, step, source },
            Err(error) => error,
        };
        match seen.status {
            Some(status) if status >= 400 => CaError::Status {
                ca,
                step,
                status,
                excerpt: seen.excerpt,
                retry_after: seen.retry_after,
            },
            _ => CaError::Garbled {
                ca,
                step,
                why: error.to_string(),
            },
        }
    }
}

impl instant_acme::HttpClient for Line {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let line = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let answer = line
                .fetch(Request::from_parts(parts, body))
                .await
                .map_err(|error| Error::Other(Box::new(error)))?;
            line.note(&answer);
            Ok(BytesResponse {
                parts: head(&answer),
                body: Box::new(answer.body),
            })
        })
    }
}

impl Line {
    /// Sends a request, unless it is for a page that the authority asked to leave alone: then its last answer stands.
    async fn fetch(&self, request: Request<Bytes>) -> Result<Answer, FetchError> {
        let page = request.method().is_safe().then(|| request.uri().clone());
        if let Some(page) = &page
            && let Some(answer) = self.patience.answer(page, monotonic())
        {
            return Ok(answer);
        }
        let answer = self.http.send(request).await?;
        if let Some(page) = &page {
            let now = (monotonic(), self.clock.now());
            self.patience.note(page, &answer, now);
        }
        Ok(answer)
    }

    /// Every answer tells the authority's time (RFC 9110 §6.6.1), by which its certificates are valid.
    fn hear(&self, answer: &Answer) {
        if let Some(date) = answer.date() {
            self.clock.hear(date);
        }
    }

    fn note(&self, answer: &Answer) {
        self.hear(answer);
        let seen = Seen {
            status: Some(answer.status.as_u16()),
            excerpt: match answer.status.is_success() {
                true => String::new(),
                false => excerpt(&answer.body),
            },
            retry_after: answer.retry_after(self.clock.now()),
            location: answer
                .headers
                .get(http::header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            alternates: chains::alternates(&answer.headers),
        };
        // Outside of a call nobody wants to know.
        SEEN.try_with(|slot| slot.replace(seen)).ok();
    }
}

/// The error of our own client, where instant-acme passes one on.
fn fetch_error(error: Error) -> Result<Box<FetchError>, Error> {
    if let Error::Other(other) = error {
        other.downcast::<FetchError>().map_err(Error::Other)
    } else {
        Err(error)
    }
}

fn head(answer: &Answer) -> Parts {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = answer.status;
    parts.headers = answer.headers.clone();
    // instant-acme takes renewal information without this for an error, and hides the real one where there is one. What
    // the authority asks for is in [`Seen`].
    parts
        .headers
        .entry(http::header::RETRY_AFTER)
        .or_insert(http::HeaderValue::from_static("0"));
    parts
}

/// How an answer begins, as text on one line.
fn excerpt(body: &[u8]) -> String {
    let begin = body.get(..LONGEST_WORDS).unwrap_or(body);
    bounded(&String::from_utf8_lossy(begin))
}

/// An authority's words without control characters, bounded.
pub(super) fn bounded(words: &str) -> String {
    words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_WORDS)
        .collect()
}

/// A problem document in our words for it.
pub(super) fn document(problem: &Problem) -> Document {
    let kind = |kind: &Option<String>| {
        let kind = kind.as_deref().unwrap_or_default();
        bounded(kind.strip_prefix(ACME_ERROR).unwrap_or(kind))
    };
    let words = |words: &Option<String>| bounded(words.as_deref().unwrap_or_default());
    Document {
        challenge: None,
        kind: kind(&problem.r#type),
        detail: words(&problem.detail),
        parts: problem
            .subproblems
            .iter()
            .take(MOST_PARTS)
            .map(|part| Part {
                name: part.identifier.as_ref().map_or_else(String::new, |name| {
                    bounded(&name.authorized(false).to_string())
                }),
                kind: kind(&part.r#type),
                detail: words(&part.detail),
            })
            .collect(),
    }
}
