//! What the visitor is sent: the upstream's content as it comes, or a short answer of our own.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::{Frame, SizeHint};

use crate::proxy::access::Ending;
use crate::proxy::download::{Broken, Download};
use crate::proxy::fault::Fault;
use crate::proxy::headers::REQUEST_ID;

/// `Proxy-Status` (RFC 9209).
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// In seconds: places come free all the time.
const SOON: HeaderValue = HeaderValue::from_static("1");
/// RFC 9110 §15.5.6: a 405 says what is allowed.
const ALLOWED: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// The content of a response. When it has been sent, or is dropped because nobody wants it, the request's account is
/// closed.
pub struct Body {
    content: Content,
    ending: Option<Ending>,
}

enum Content {
    None,
    Text(Bytes),
    Upstream(Box<Download>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = match &self.content {
            Content::None => "none",
            Content::Text(_) => "text",
            Content::Upstream(_) => "upstream",
        };
        f.debug_tuple("Body").field(&content).finish()
    }
}

/// Why content ends before its end: the visitor must not take what came for the whole.
#[derive(Debug)]
pub struct BodyError(Broken);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream's content broke off")
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl Body {
    /// No content.
    #[must_use]
    pub(in crate::proxy) const fn none(ending: Option<Ending>) -> Self {
        Self {
            content: Content::None,
            ending,
        }
    }

    /// The upstream's.
    #[must_use]
    pub(in crate::proxy) const fn upstream(download: Box<Download>, ending: Ending) -> Self {
        Self {
            content: Content::Upstream(download),
            ending: Some(ending),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match &mut this.content {
            Content::None => Poll::Ready(None),
            Content::Text(_) => {
                let Content::Text(text) = std::mem::replace(&mut this.content, Content::None)
                else {
                    return Poll::Ready(None);
                };
                if let Some(ending) = &this.ending {
                    ending.account().sent(text.len());
                }
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Content::Upstream(download) => {
                Pin::new(&mut **download).poll_frame(cx).map_err(BodyError)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::None => true,
            Content::Text(_) => false,
            Content::Upstream(download) => download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::None => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Upstream(download) => download.size_hint(),
        }
    }
}

/// Our own answer to a request that ends with `fault`: the reason in a word, and the request's id to quote to
/// support. Nothing of upstreams, addresses or configuration.
pub(in crate::proxy) fn fault(fault: Fault, ending: Ending) -> Response<Body> {
    let account = ending.account();
    account.ends(fault.end());
    account.answers(fault.status());
    let status = fault.status();
    let id = account.id().clone();
    let text = format!(
        "{} {}: {}\nrequest {}\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        fault.reason(),
        id.to_str().unwrap_or_default(),
    );
    let length = HeaderValue::from(text.len());
    let content = match *account.method() == Method::HEAD {
        true => Content::None,
        false => Content::Text(Bytes::from(text)),
    };
    let mut response = Response::new(Body {
        content,
        ending: Some(ending),
    });
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, TEXT);
    fields.insert(header::CONTENT_LENGTH, length);
    fields.insert(header::CACHE_CONTROL, NO_STORE);
    fields.insert(REQUEST_ID, id);
    let proxy_status = HeaderValue::from_static(fault.proxy_status());
    fields.insert(PROXY_STATUS, proxy_status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.insert(header::RETRY_AFTER, SOON);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(header::ALLOW, ALLOWED);
    }
    response
}
