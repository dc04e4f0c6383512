//! One request, from its head to the head of its answer. The content streams on behind it.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::model::TenantId;
use crate::model::route::Route;
use crate::proxy::access::{Account, Ending, Opening};
use crate::proxy::authority::{self, Authority, Named};
use crate::proxy::download::Download;
use crate::proxy::exchange::{Answered, Head, Terms, exchange};
use crate::proxy::facts::ConnectionFacts;
use crate::proxy::fault::Fault;
use crate::proxy::headers::Author;
use crate::proxy::report::AnsweredBy;
use crate::proxy::response::{self, Body};
use crate::proxy::upgrade::{self, Wish};
use crate::proxy::upstream::pools::{Freshness, Wanted};
use crate::proxy::worker::Worker;
use crate::proxy::{forwarded, guard, headers, route};

/// Answers one request of a connection: always, and never with another tenant's content.
pub async fn serve(
    worker: Rc<Worker>,
    connection: Rc<ConnectionFacts>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (mut head, content) = request.into_parts();
    let account = open_account(&worker, &connection, &head);
    let ending = Ending::of(Rc::clone(&account));
    let planned = plan(&worker, &connection, &mut head, &account);
    let planned = planned.and_then(|place| prepare(&connection, place, head, &content, &account));
    let asked = match planned {
        Ok(asked) => asked,
        Err(fault) => return response::fault(fault, ending),
    };
    let terms = Terms {
        pools: &worker.pools,
        wanted: Wanted {
            tenant: &asked.tenant,
            route: &asked.route,
            freshness: Freshness::Any,
        },
        account: &account,
    };
    let answered = exchange(terms, asked.head, content).await;
    match answered
        .and_then(|answered| pass_back(&worker, &asked.route, asked.wish, answered, &account))
    {
        Ok(Passed::Content(head, download)) => head.map(|()| Body::upstream(download, ending)),
        Ok(Passed::Tunnel(head, granted, upstream)) => {
            // hyper lets the body go with the head, so the tunnel has a hold on its connection of its own.
            let held = connection.pulse.tunnel();
            granted.tunnel(&worker, upstream, ending, held);
            head.map(|()| Body::none(None))
        }
        Err(fault) => {
            note(fault, &asked.route, &asked.tenant, &connection);
            response::fault(fault, ending)
        }
    }
}

fn open_account(
    worker: &Rc<Worker>,
    connection: &Rc<ConnectionFacts>,
    head: &Parts,
) -> Rc<Account> {
    let endpoints = &connection.endpoints;
    let given = head.headers.get(headers::REQUEST_ID);
    let opening = Opening {
        method: &head.method,
        target: &head.uri,
        version: head.version,
        id: given.filter(|_| Author::of(endpoints) == Author::TrustedProxy),
        client: forwarded::visitor(&head.headers, endpoints),
    };
    Account::open(worker, connection, &opening)
}

/// Whom a request is for and where it goes.
struct Place {
    authority: Authority,
    tenant: TenantId,
    route: Arc<Route>,
    /// The path to forward, where it is not the one that came.
    path: Option<String>,
}

/// Checks a request and decides where it goes, on one snapshot and without waiting.
fn plan(
    worker: &Worker,
    connection: &ConnectionFacts,
    head: &mut Parts,
    account: &Account,
) -> Result<Place, Fault> {
    guard::check(head, &worker.shared.settings.load().limits)?;
    let named = Named {
        uri: &head.uri,
        fields: &head.headers,
        version: head.version,
        method: &head.method,
    };
    let authority = Authority::of(named, &connection.tls.server_name)?;
    let snapshot = worker.shared.snapshot.load();
    let policy = |_domain: &_| worker.shared.settings.load().tls.id();
    let domain = authority::carried(&authority.host, &connection.tls, &snapshot, policy)?;
    account.belongs_to(&domain.tenant, &authority.host);
    account.takes_places(&domain.tenant).map_err(Fault::Busy)?;
    let routes = snapshot.routes();
    let chosen = route::choose(routes, &authority.host, &domain, head.uri.path())?;
    account.goes_to(&chosen.route.upstream.name);
    let path = match chosen.path {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path),
    };
    Ok(Place {
        authority,
        tenant: domain.tenant.clone(),
        route: chosen.route,
        path,
    })
}

/// A request ready to be sent.
struct Asked {
    tenant: TenantId,
    route: Arc<Route>,
    head: Head,
    wish: Option<Wish>,
}

/// Makes the visitor's head ours.
fn prepare(
    connection: &ConnectionFacts,
    place: Place,
    mut head: Parts,
    content: &Incoming,
    account: &Account,
) -> Result<Asked, Fault> {
    let wish = upgrade::take(&mut head, content)?;
    let target = target(&head.uri, place.path)?;
    let mut fields = head.headers;
    let origin = headers::Origin {
        endpoints: &connection.endpoints,
        authority: &place.authority,
        tenant: &place.tenant,
        request_id: account.id(),
        version: head.version,
    };
    headers::to_upstream(&mut fields, origin);
    headers::edit(&mut fields, &place.route.request_headers);
    match wish.is_some() {
        true => upgrade::ask(&mut fields),
        false => frame(&mut fields, &head.method, content)?,
    }
    Ok(Asked {
        tenant: place.tenant,
        route: place.route,
        head: Head {
            method: head.method,
            target,
            fields,
        },
        wish,
    })
}

/// The target in origin-form (RFC 9112 §3.2.1).
fn target(uri: &Uri, path: Option<String>) -> Result<Uri, Fault> {
    let whole = match (path, uri.query()) {
        (Some(path), Some(query)) => format!("{path}?{query}"),
        (Some(path), None) => path,
        (None, _) if uri.authority().is_none() => return Ok(uri.clone()),
        (None, _) => {
            let target = uri.path_and_query().cloned();
            return target.map(Uri::from).ok_or(Fault::Internal);
        }
    };
    let target = PathAndQuery::try_from(whole);
    target.map(Uri::from).map_err(|_never| Fault::Internal)
}

/// Frames the content anew: by its length where that is known, else chunked. hyper would take a GET's content of
/// unknown length for none.
fn frame(fields: &mut HeaderMap, method: &Method, content: &Incoming) -> Result<(), Fault> {
    let declared = fields.get(header::CONTENT_LENGTH);
    match content.size_hint().exact() {
        None => {
            fields.remove(header::CONTENT_LENGTH);
            fields.insert(
                header::TRANSFER_ENCODING,
                HeaderValue::from_static("chunked"),
            );
        }
        Some(0) => {
            if declared.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0')) {
                return Err(Fault::BadRequest("content_length_wrong"));
            }
            if declared.is_none() && matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
                fields.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
        }
        Some(length) => {
            if declared.is_none_or(|declared| declared.as_bytes().starts_with(b"0")) {
                fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
    }
    Ok(())
}

/// What becomes of a response.
enum Passed {
    /// Its content follows.
    Content(Response<()>, Box<Download>),
    /// A tunnel follows.
    Tunnel(Response<()>, upgrade::Granted, OnUpgrade),
}

/// Makes the upstream's head ours.
fn pass_back(
    worker: &Worker,
    route: &Route,
    wish: Option<Wish>,
    answered: Answered,
    account: &Rc<Account>,
) -> Result<Passed, Fault> {
    let Answered { response, lease } = answered;
    let (mut head, content) = response.into_parts();
    headers::check_framing(&head.headers)?;
    let granted = match (head.status, wish) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(wish)) => Some(wish.grant(&head.headers)?),
        // Nobody asked for it.
        (StatusCode::SWITCHING_PROTOCOLS, None) => return Err(Fault::Upgrade),
        // The visitor would take it for an open tunnel, which there is none behind.
        (status, Some(wish)) if wish.is_granted_by(status) => return Err(Fault::Upgrade),
        _ => None,
    };
    headers::to_visitor(&mut head.headers, head.status, account.id());
    headers::edit(&mut head.headers, &route.response_headers);
    head.version = Version::HTTP_11;
    let upstream = head.extensions.remove::<OnUpgrade>();
    if worker.shared.reports.is_watched() {
        head.extensions
            .insert(AnsweredBy(route.upstream.name.clone()));
    }
    let Some(granted) = granted else {
        account.answers(head.status);
        let head = Response::from_parts(head, ());
        return Ok(Passed::Content(
            head,
            Box::new(Download::new(content, lease, Rc::clone(account))),
        ));
    };
    head.status = granted.answer(&mut head.headers);
    account.answers(head.status);
    let upstream = upstream.ok_or(Fault::Upgrade)?;
    lease.into_tunnel();
    let head = Response::from_parts(head, ());
    Ok(Passed::Tunnel(head, granted, upstream))
}

/// Tells the operator of a fault that is the upstream's.
fn note(fault: Fault, route: &Route, tenant: &TenantId, connection: &ConnectionFacts) {
    if fault.status().is_server_error() {
        tracing::warn!(
            %tenant,
            upstream = %route.upstream.name,
            connection = %connection.id,
            reason = fault.reason(),
            "request failed at its upstream"
        );
    }
}
