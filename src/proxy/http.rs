//! Port 80: answers to a CA's challenges, and the way to HTTPS for everyone else. HTTP/1.1 only.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::model::{DnsName, Snapshot};
use crate::proxy::connection::http1_builder;
use crate::proxy::counted::Counted;
use crate::proxy::drive;
use crate::proxy::handshake::{self, Arrival};
use crate::proxy::pulse::Pulse;
use crate::proxy::watched::Watched;
use crate::proxy::worker::Worker;

/// Where challenges are answered (RFC 8555 §8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

type Page = Response<Full<Bytes>>;

/// Serves one connection of port 80 from accept to its end.
pub(in crate::proxy) async fn serve(worker: Rc<Worker>, arrival: Arrival) {
    let settings = worker.shared.settings.get();
    let arrived = arrival.at;
    let street = match handshake::arrive(&worker, &settings, arrival).await {
        Ok((street, _endpoints)) => street.into_plain(),
        Err(refused) => {
            worker.note_refused(refused.reject, arrived, None);
            return;
        }
    };
    let pulse = Pulse::new();
    let own = (Rc::clone(&worker), Arc::clone(&pulse));
    let service = service_fn(move |request: Request<Incoming>| {
        let (worker, pulse) = (Rc::clone(&own.0), Arc::clone(&own.1));
        async move {
            let in_request = pulse.request();
            let mut page = answer(&worker, &request).await;
            if worker.drain.has_begun() {
                let close = HeaderValue::from_static("close");
                page.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(page.map(|body| Counted::new(body, in_request)))
        }
    });
    let stream = TokioIo::new(Watched::http1(street, Arc::clone(&pulse)));
    let connection = http1_builder(&settings.limits).serve_connection(stream, service);
    drive::to_end(&worker, &settings, &pulse, connection).await;
}

async fn answer<B>(worker: &Worker, request: &Request<B>) -> Page {
    let Some(host) = host(request) else {
        return page(StatusCode::BAD_REQUEST, "The Host field names no host.\n");
    };
    let path = request.uri().path();
    if let Some(token) = path.strip_prefix(CHALLENGE_PATH)
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && let Some(authorization) = worker.shared.challenges.http01(&host, token).await
    {
        return challenge_page(&authorization);
    }
    let shared = &worker.shared;
    match is_known(&shared.snapshot.load(), &host) {
        true => redirect(&host, shared.settings.load().https_port, request.uri()),
        false => page(StatusCode::NOT_FOUND, "Not found.\n"),
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

fn is_known(snapshot: &Snapshot, host: &DnsName) -> bool {
    snapshot.domain(host).is_some_and(|domain| domain.served)
}

/// The key authorization, as plain text that no browser takes for anything else.
fn challenge_page(authorization: &str) -> Page {
    let mut page = page(StatusCode::OK, "");
    *page.body_mut() = Full::from(authorization.to_owned());
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
