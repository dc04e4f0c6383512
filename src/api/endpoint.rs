//! One endpoint: what the router needs and what the OpenAPI document says, in one place.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::routing::MethodRouter;
use serde::de::DeserializeOwned;

use crate::api::problem::{ApiProblem, Code};
use crate::control::actions::Actions;
use crate::control::views::Views;

/// What every handler may use.
#[derive(Clone, Debug)]
pub(super) struct Api {
    /// To read.
    pub(super) views: Views,
    /// To act.
    pub(super) actions: Actions,
}

/// An endpoint.
pub(super) struct Endpoint {
    /// Its method.
    pub(super) method: Method,
    /// Its path, with parameters in braces.
    pub(super) path: &'static str,
    /// What it is for, in a line.
    pub(super) summary: &'static str,
    /// What it takes.
    pub(super) parameters: &'static [Parameter],
    /// The schema of what it answers with.
    pub(super) response: &'static str,
    /// The status of a success.
    pub(super) status: u16,
    /// Its method and handler, for the router.
    pub(super) handler: fn() -> MethodRouter<Api>,
}

/// The methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Reads.
    Get,
    /// Acts.
    Post,
}

/// A parameter of an endpoint: its name, and what it says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter {
    /// A segment of the path.
    Path(&'static str, &'static str),
    /// A text in the query, which may be absent.
    Query(&'static str, &'static str),
    /// A number in the query, which may be absent.
    Number(&'static str, &'static str),
}

/// The one parameter in the path.
pub(super) struct PathParameter(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParameter {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiProblem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let wrong = |error: PathRejection| ApiProblem::new(Code::BadParameter, error.body_text());
        path.map(|Path(text)| Self(text)).map_err(wrong)
    }
}

/// The parameters in the query.
pub(super) struct QueryParameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParameters<T> {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiProblem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let wrong = |error: QueryRejection| ApiProblem::new(Code::BadParameter, error.body_text());
        query
            .map(|Query(parameters)| Self(parameters))
            .map_err(wrong)
    }
}
