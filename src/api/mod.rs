//! The control API over HTTP, on a Unix socket that only its owner can open.
//!
//! Who may open the socket is the operator; there is no token to lose. Everything goes through [`crate::control`] with
//! the caller's grant: no handler knows the store. Failures are problems (RFC 9457) with a stable `code`; lists come
//! in pages. Wire types live here and nowhere else, one file for each resource, each with its endpoints: the router
//! and the OpenAPI document are made from the same list.
//!
//! Reading order: [`socket`], `endpoint` (one list for router and document), `problem`, `paging`, then
//! the resources: `status`, `tenants`, `authorities`, `domains`, `certificates`, `imports`, `clients`, `takeover`,
//! `budget`, `drill`, `jobs`, `events`, `reload`.

pub mod socket;

mod endpoint;
mod openapi;
mod schema;

mod paging;
mod problem;

mod authorities;
mod budget;
mod certificates;
mod clients;

mod domains;
mod drill;
mod events;
mod imports;
mod jobs;
mod keys;
mod reload;
mod revocations;
mod status;
mod takeover;
mod tenants;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use axum::{Extension, Router};

use crate::base::serve::serve;
use crate::base::task::Tasks;
use crate::control::actions::Actions;
use crate::control::caller::Caller;
use crate::control::views::Views;

use endpoint::{Api, Endpoint};
use problem::{ApiProblem, Code};
use socket::{AdminSocket, SocketError};

/// Opens the Unix socket at this path and serves the API on it until `tasks` are cancelled. On TCP it is not served: the
/// configuration refuses such an address, for there are no tokens yet.
///
/// # Errors
/// [`SocketError`]: another process serves there, or the file cannot be made.
pub async fn start(
    socket: &Path,
    views: Views,
    actions: Actions,
    tasks: &Tasks,
) -> Result<(), SocketError> {
    let socket = AdminSocket::bind(socket).await?;
    let api = Api { views, actions };
    // Whoever can open the socket is the operator.
    let pages = router(api).layer(Extension(Caller::Operator));
    serve(tasks, "control api", socket, pages);
    Ok(())
}

fn router(api: Api) -> Router {
    let routes = endpoints().fold(Router::new(), |router, endpoint| {
        router.route(endpoint.path, (endpoint.handler)())
    });
    routes
        .fallback(async || ApiProblem::new(Code::NoSuchPage, "see /v1/openapi.json for all pages"))
        .method_not_allowed_fallback(async || {
            ApiProblem::new(
                Code::MethodNotAllowed,
                "see /v1/openapi.json for all methods",
            )
        })
        .with_state(api)
}

/// Every endpoint there is.
fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    [
        status::ENDPOINTS,
        tenants::ENDPOINTS,
        authorities::ENDPOINTS,
        domains::ENDPOINTS,
        certificates::ENDPOINTS,
        imports::ENDPOINTS,
        clients::ENDPOINTS,
        budget::ENDPOINTS,
        drill::ENDPOINTS,
        takeover::ENDPOINTS,
        keys::ENDPOINTS,
        revocations::ENDPOINTS,
        jobs::ENDPOINTS,
        events::ENDPOINTS,
        reload::ENDPOINTS,
        problem::ENDPOINTS,
        openapi::ENDPOINTS,
    ]
    .into_iter()
    .flatten()
}
