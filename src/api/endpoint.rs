//! One endpoint: what the router needs and what the OpenAPI document says, in one place.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::response::Json;
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
    /// The content of the request, as JSON of this schema.
    Content(&'static str),
}

/// The content of a request, JSON.
pub(super) struct Content<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Content<T> {
    type Rejection = ApiProblem;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiProblem> {
        let read = Json::<T>::from_request(request, state).await;
        let wrong = |error: JsonRejection| ApiProblem::new(Code::BadParameter, said_of(&error));
        read.map(|Json(content)| Self(content)).map_err(wrong)
    }
}

/// What is wrong with a content. A parser's own words may quote it, and it may hold a key.
fn said_of(error: &JsonRejection) -> String {
    let said = if let JsonRejection::JsonDataError(_) = error {
        "the content lacks a field of its schema, or has one of the wrong form"
    } else if let JsonRejection::JsonSyntaxError(_) = error {
        "the content is not JSON"
    } else if let JsonRejection::MissingJsonContentType(_) = error {
        "the content must be application/json"
    } else {
        "the content cannot be read, or is larger than 2 MiB"
    };
    said.to_owned()
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
