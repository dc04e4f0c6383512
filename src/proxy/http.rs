//! Port 80: answers to a CA's challenges, lists of revoked certificates, and the way to HTTPS for everyone else.
//! HTTP/1.1 only.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH,
    LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use uuid::Uuid;

use crate::base::clock::{Timestamp, monotonic};
use crate::certs::lists::PublishedList;
use crate::model::issuer_key::IssuerKey;
use crate::model::{DnsName, TenantId};
use crate::proxy::connection::http1_builder;
use crate::proxy::counted::Counted;
use crate::proxy::drive::{Driver, Rest};
use crate::proxy::handshake::{self, Arrival};
use crate::proxy::pulse::Pulse;
use crate::proxy::watched::Watched;
use crate::proxy::worker::Worker;
use crate::telemetry::access::{AccessRecord, RequestId, RequestPath};
use crate::telemetry::labels::{ChallengeAnswer, ChallengeAsked, End, Protocol};

/// Where challenges are answered (RFC 8555 §8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
/// How long others may keep a list of revoked certificates before they ask whether there is a newer one.
const LIST_KEPT: Duration = Duration::from_secs(60 * 60);

type Page = Response<Full<Bytes>>;

/// Serves one connection of port 80 from accept to its end.
pub(in crate::proxy) async fn serve(worker: Rc<Worker>, arrival: Arrival) {
    let settings = worker.shared.settings.get();
    let arrived = arrival.at;
    let (street, endpoints) = match handshake::arrive(&worker, &settings, arrival).await {
        Ok((street, endpoints)) => (street.into_plain(), endpoints),
        Err(refused) => {
            worker.note_refused(refused.reject, arrived, None);
            return;
        }
    };
    let pulse = Pulse::new();
    let own = (Rc::clone(&worker), Arc::clone(&pulse));
    let service = service_fn(move |request: Request<Incoming>| {
        let (worker, in_request) = (Rc::clone(&own.0), own.1.request());
        async move {
            let page = respond(&worker, endpoints.visitor.ip(), &request).await;
            Ok::<_, Infallible>(page.map(|body| Counted::new(body, in_request)))
        }
    });
    let stream = TokioIo::new(Watched::http1(street, Arc::clone(&pulse)));
    let mut connection = http1_builder(&settings.limits).serve_connection(stream, service);
    let mut driver = Driver::new(worker, settings, pulse);
    driver.run(&mut connection, Rest::Never).await;
}

/// Answers one request and records it.
async fn respond<B>(worker: &Worker, visitor: IpAddr, request: &Request<B>) -> Page {
    let shared = &worker.shared;
    let (at, began) = (shared.clock.now(), monotonic());
    let open = shared.metrics.requests_open.enter(Protocol::Http1);
    let Answered { mut page, end, of } = answer(worker, request).await;
    drop(open);
    if worker.drain.has_begun() {
        let close = HeaderValue::from_static("close");
        page.headers_mut().insert(CONNECTION, close);
    }
    let (domain, tenant) = of.unzip();
    let record = AccessRecord {
        at,
        request: RequestId::Made(Uuid::now_v7()),
        tenant: tenant.flatten(),
        domain,
        client: visitor,
        tls: None,
        protocol: Protocol::Http1,
        method: request.method().clone(),
        path: RequestPath::of(request.uri()),
        status: page.status().as_u16(),
        bytes_in: 0,
        bytes_out: page.body().size_hint().lower(),
        duration: monotonic().saturating_duration_since(began),
        upstream: None,
        upstream_duration: None,
        end,
    };
    shared.metrics.request_ended(&record.for_metrics());
    shared.access_log.record(record);
    page
}

/// An answer, why it is that one, and whose host it is for, as far as we know it.
struct Answered {
    page: Page,
    end: End,
    of: Option<(DnsName, Option<TenantId>)>,
}

async fn answer<B>(worker: &Worker, request: &Request<B>) -> Answered {
    let Some(host) = host(request) else {
        return Answered {
            page: page(StatusCode::BAD_REQUEST, "The Host field names no host.\n"),
            end: End::BadRequest,
            of: None,
        };
    };
    let known = {
        let snapshot = worker.shared.snapshot.load();
        let domain = snapshot.domain(&host);
        domain.map(|domain| (domain.tenant.clone(), domain.served))
    };
    let (page, end) = if let Some(list) = list(worker, request) {
        let now = worker.shared.clock.now();
        let page = list_page(&list, request.headers(), now);
        (page, End::RevocationList)
    } else {
        match (challenge(worker, request, &host).await, &known) {
            (Some(authorization), _) => (challenge_page(&authorization), End::Challenge),
            (None, Some((_, true))) => {
                let port = worker.shared.settings.load().https_port();
                (redirect(&host, port, request.uri()), End::Redirected)
            }
            (None, _) => (
                page(StatusCode::NOT_FOUND, "Not found.\n"),
                End::UnknownHost,
            ),
        }
    };
    Answered {
        page,
        end,
        of: Some((host, known.map(|(tenant, _)| tenant))),
    }
}

/// The list that the request asks for. It is signed and for everyone, so that the host does not matter.
fn list<B>(worker: &Worker, request: &Request<B>) -> Option<Arc<PublishedList>> {
    let key = IssuerKey::in_list_path(request.uri().path())?;
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    is_read.then(|| worker.shared.lists.find(key)).flatten()
}

/// The key authorization, where the request asks for exactly a challenge that is published.
async fn challenge<B>(worker: &Worker, request: &Request<B>, host: &DnsName) -> Option<Arc<str>> {
    let token = request.uri().path().strip_prefix(CHALLENGE_PATH)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let (challenges, counted) = (&worker.shared.challenges, &worker.shared.metrics.challenges);
    if let Some(found) = challenges.published_here(host, token) {
        counted.count((ChallengeAsked::Http01, ChallengeAnswer::Memory));
        return Some(found);
    }
    let found = challenges.http01(host, token).await;
    let outcome = match found {
        Ok(Some(_)) => ChallengeAnswer::Store,
        Ok(None) => ChallengeAnswer::Unknown,
        Err(_) => ChallengeAnswer::Failed,
    };
    counted.count((ChallengeAsked::Http01, outcome));
    match found {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(domain = %host, %error, "challenge not looked up");
            None
        }
    }
}

/// The host that the request is for: from its target where that is absolute, else from its one Host field
/// (RFC 9112 §3.2.2).
fn host<B>(request: &Request<B>) -> Option<DnsName> {
    let mut fields = request.headers().get_all(HOST).iter();
    let (field, further) = (fields.next()?, fields.next());
    if further.is_some() {
        return None;
    }
    let text = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => field.to_str().ok()?,
    };
    let name = match text.split_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) => return None,
        None => text,
    };
    DnsName::parse(name).ok()
}

/// The key authorization, as plain text that no browser takes for anything else.
fn challenge_page(authorization: &str) -> Page {
    let mut page = page(StatusCode::OK, "");
    *page.body_mut() = Full::from(authorization.to_owned());
    page
}

/// A list (RFC 5280 §4.2.1.13, RFC 2585 §4.2), or that the one that the client has is the newest. It may be kept for an
/// hour, and not beyond the time when the next one is there.
fn list_page(list: &PublishedList, fields: &HeaderMap, now: Timestamp) -> Page {
    let has_it = fields.get_all(IF_NONE_MATCH).iter().any(|field| {
        let tags = field.to_str().unwrap_or_default().split(',');
        tags.map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == list.tag)
    });
    let mut page = match has_it {
        true => page(StatusCode::NOT_MODIFIED, ""),
        false => page(StatusCode::OK, ""),
    };
    let kept = list.next_update.since(now).min(LIST_KEPT).as_secs();
    let headers = page.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/pkix-crl"),
    );
    if let Ok(age) = HeaderValue::try_from(format!("public, max-age={kept}")) {
        headers.insert(CACHE_CONTROL, age);
    }
    if let Ok(tag) = HeaderValue::try_from(&list.tag) {
        headers.insert(ETAG, tag);
    }
    match has_it {
        true => _ = headers.remove(CONTENT_TYPE),
        false => *page.body_mut() = Full::new(list.der.clone()),
    }
    page
}

/// RFC 9110 §15.4.9: the method stays.
fn redirect(host: &DnsName, port: u16, target: &Uri) -> Page {
    let rest = target.path_and_query().map_or("/", |path| path.as_str());
    let location = match port {
        443 => format!("https://{host}{rest}"),
        port => format!("https://{host}:{port}{rest}"),
    };
    match HeaderValue::try_from(location) {
        Ok(location) => {
            let mut page = page(StatusCode::PERMANENT_REDIRECT, "");
            page.headers_mut().insert(LOCATION, location);
            page
        }
        Err(_unprintable) => page(StatusCode::BAD_REQUEST, "The target is not valid.\n"),
    }
}

fn page(status: StatusCode, text: &'static str) -> Page {
    let mut page = Response::new(Full::from(text));
    *page.status_mut() = status;
    let headers = page.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}
