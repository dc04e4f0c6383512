//! One request to an upstream and back: sent again at most once, and only where that can have no second effect.

use std::rc::Rc;

use http::header::HeaderMap;
use http::{Method, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::base::clock::monotonic;
use crate::proxy::access::Account;
use crate::proxy::fault::Fault;
use crate::proxy::upstream::pools::{Freshness, Lease, Pools, Wanted};
use crate::proxy::upstream::upload::Upload;
use crate::proxy::upstream::watch;

/// What an exchange needs besides the request.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Terms<'a> {
    /// The worker's connections.
    pub pools: &'a Pools,
    /// Whose connection, and where to.
    pub wanted: Wanted<'a>,
    /// The request's account.
    pub account: &'a Rc<Account>,
}

/// A request's head as it is sent.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Head {
    /// The method.
    pub method: Method,
    /// The target, in origin-form.
    pub target: Uri,
    /// The fields.
    pub fields: HeaderMap,
}

/// A response whose content is still on the connection.
pub(in crate::proxy) struct Answered {
    /// Its head and content.
    pub response: Response<Incoming>,
    /// The connection it comes over.
    pub lease: Lease,
}

/// An attempt that brought no response.
struct Failed {
    fault: Fault,
    /// The request, where the connection never took any of it.
    unsent: Option<(Head, Option<Incoming>)>,
    /// Whether nothing at all came back over a connection that had been used before: then the upstream most likely
    /// had closed it already.
    was_stale: bool,
}

/// Sends a request and waits for the head of its response.
///
/// It is sent a second time, over a new connection, where the first took none of it; or where it is idempotent (RFC
/// 9110 §9.2.2), has no content, and a connection that had been used before broke without a byte of response.
pub(in crate::proxy) async fn exchange(
    terms: Terms<'_>,
    head: Head,
    content: Incoming,
) -> Result<Answered, Fault> {
    let first = terms.pools.lease(terms.wanted).await?;
    let content = (!content.is_end_stream()).then_some(content);
    let is_repeatable = content.is_none() && first.is_reused() && head.method.is_idempotent();
    let copy = is_repeatable.then(|| head.clone());
    let failed = match attempt(terms, first, head, content).await {
        Ok(answered) => return Ok(answered),
        Err(failed) => failed,
    };
    let (head, content) = match (failed.unsent, copy) {
        (Some(unsent), _) => unsent,
        (None, Some(copy)) if failed.was_stale => (copy, None),
        (None, _) => return Err(failed.fault),
    };
    if !terms.pools.may_retry(&terms.wanted.route.upstream) {
        return Err(failed.fault);
    }
    let wanted = Wanted {
        freshness: Freshness::New,
        ..terms.wanted
    };
    let second = terms.pools.lease(wanted).await?;
    let answered = attempt(terms, second, head, content).await;
    answered.map_err(|failed| failed.fault)
}

async fn attempt(
    terms: Terms<'_>,
    mut lease: Lease,
    head: Head,
    content: Option<Incoming>,
) -> Result<Answered, Failed> {
    let internal = Failed {
        fault: Fault::Internal,
        unsent: None,
        was_stale: false,
    };
    let Some(watch) = lease.watch().map(Rc::clone) else {
        return Err(internal);
    };
    let began = monotonic();
    let upload = match content {
        Some(_) => watch::Upload::Open,
        None => watch::Upload::Ended,
    };
    lease.begin(upload, began);
    let upload = Upload::new(content, watch, Rc::clone(terms.account));
    let Some(sent) = lease.send(head.into_request(upload)) else {
        return Err(internal);
    };
    match sent.await {
        Ok(response) => {
            lease.answered();
            let account = terms.account;
            account.answered_by_upstream(response.status(), began, monotonic());
            Ok(Answered { response, lease })
        }
        Err(mut error) => {
            let unsent = error.take_message();
            let fault = classify(&lease, &error.into_error());
            if fault.is_the_upstreams() {
                lease.broke(monotonic());
            }
            Err(Failed {
                fault,
                unsent: unsent.map(Head::from_request),
                was_stale: fault == Fault::Closed && lease.is_reused() && !lease.has_answered(),
            })
        }
    }
}

fn classify(lease: &Lease, error: &hyper::Error) -> Fault {
    let watch = lease.watch();
    if let Some(cut) = watch.and_then(|watch| watch.cut()) {
        return cut.fault();
    }
    if watch.is_some_and(|watch| watch.upload() == watch::Upload::Failed) {
        return Fault::BadContent;
    }
    if error.is_parse_too_large() {
        Fault::HeadTooLarge
    } else if error.is_parse() {
        Fault::Malformed
    } else {
        Fault::Closed
    }
}

impl Head {
    fn into_request(self, upload: Upload) -> Request<Upload> {
        let mut request = Request::new(upload);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.target;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.fields;
        request
    }

    fn from_request(request: Request<Upload>) -> (Self, Option<Incoming>) {
        let (parts, upload) = request.into_parts();
        let head = Self {
            method: parts.method,
            target: parts.uri,
            fields: parts.headers,
        };
        (head, upload.into_untouched())
    }
}
