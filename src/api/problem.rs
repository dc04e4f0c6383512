//! Failures as problem details (RFC 9457): `application/problem+json` with a stable code.

use std::error::Error;

use axum::extract::{FromRequestParts, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::endpoint::{Api, Endpoint, Method, Parameter, PathParameter};
use crate::api::schema::{integer, object, string, strings};
use crate::control::actions::ActionError;
use crate::control::caller::{Caller, Grant};
use crate::control::views::ViewError;

macro_rules! codes {
    ($($variant:ident = $word:literal, $status:ident, $title:literal, $meaning:literal;)*) => {
        /// What can go wrong with a request. Codes are added, never changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Code { $(#[doc = $meaning] $variant,)* }

        impl Code {
            /// Every code.
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it.
            pub(super) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    NoSuchPage = "no_such_page", NOT_FOUND, "No such page",
        "The API has no page at this path.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed",
        "The page exists, but not for this method.";
    NotAuthenticated = "not_authenticated", UNAUTHORIZED, "Not authenticated",
        "The request does not say who asks.";
    BadParameter = "bad_parameter", BAD_REQUEST, "Bad parameter",
        "A part of the path or of the query has the wrong form.";
    NotFound = "not_found", NOT_FOUND, "Not found",
        "There is no such thing within reach of the caller.";
    Conflict = "conflict", CONFLICT, "Conflict",
        "The thing was changed by somebody else meanwhile. Trying again helps.";
    NotServed = "not_served", CONFLICT, "Domain not served",
        "The domain is suspended or being removed: nothing is obtained for it.";
    StillInUse = "still_in_use", CONFLICT, "Still in use",
        "Something still needs it; the detail says what, and what to do first.";
    NotPossible = "not_possible", CONFLICT, "Not possible",
        "What is there does not allow it; the detail says what is in the way. Trying again does not help.";
    ConfigurationRefused = "configuration_refused", UNPROCESSABLE_ENTITY, "Configuration refused",
        "The configuration has mistakes. The old one stays in force.";
    NotIssued = "not_issued", UNPROCESSABLE_ENTITY, "Certificate not issued",
        "The certificate that was asked for cannot be issued.";
    ImportRefused = "import_refused", UNPROCESSABLE_ENTITY, "Import refused",
        "The certificate or its key cannot be served here. Nothing has changed.";
    CaFailed = "ca_failed", BAD_GATEWAY, "Certification authority failed",
        "The certification authority did not do what was asked. The detail tells its words.";
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "Store unavailable",
        "The store did not do what was asked. Known names are served all the same.";
    KeysUnavailable = "keys_unavailable", SERVICE_UNAVAILABLE, "Keys unavailable",
        "The key-encryption key or the files beside it do not allow it; the detail names the file and what to do.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error",
        "A bug of ours. The log tells more.";
}

/// A failure on its way to the caller.
#[derive(Debug)]
pub(super) struct ApiProblem {
    code: Code,
    detail: String,
    mistakes: Vec<String>,
}

/// As written.
#[derive(Serialize)]
struct Wire<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mistakes: &'a [String],
}

impl ApiProblem {
    /// With a detail for this occurrence.
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            mistakes: Vec::new(),
        }
    }

    /// A failure of the store, logged.
    pub(super) fn of_store(error: &(dyn Error + 'static)) -> Self {
        tracing::warn!(error, "store failed a call of the control API");
        Self::new(Code::StoreUnavailable, error.to_string())
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let wire = Wire {
            r#type: format!("/v1/problems/{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            mistakes: &self.mistakes,
        };
        let mut response = (self.code.status(), Json(wire)).into_response();
        let fields = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        fields.insert(CONTENT_TYPE, media_type);
        if self.code == Code::StoreUnavailable {
            fields.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ViewError> for ApiProblem {
    fn from(error: ViewError) -> Self {
        match &error {
            ViewError::NotFound(_) => Self::new(Code::NotFound, error.to_string()),
            ViewError::Store(store) => Self::of_store(store),
        }
    }
}

impl From<ActionError> for ApiProblem {
    fn from(error: ActionError) -> Self {
        let detail = error.to_string();
        match error {
            ActionError::NotFound(_) => Self::new(Code::NotFound, detail),
            ActionError::Conflict(_) => Self::new(Code::Conflict, detail),
            ActionError::NotServed(_) => Self::new(Code::NotServed, detail),
            ActionError::Authority(_) => Self::new(Code::CaFailed, detail),
            ActionError::NotPossible(_) => Self::new(Code::NotPossible, detail),
            ActionError::Store(store) => Self::of_store(&store),
            ActionError::Refused(refused) => Self {
                code: Code::ConfigurationRefused,
                detail,
                mistakes: refused.mistakes,
            },
        }
    }
}

/// The grant of whoever asks: the listener says who that is.
pub(super) struct Granted(pub(super) Grant);

impl<S: Sync> FromRequestParts<S> for Granted {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiProblem> {
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.ok_or_else(|| {
            ApiProblem::new(Code::NotAuthenticated, "the listener knows no caller")
        })?;
        std::future::ready(Ok(Self(caller.grant()))).await
    }
}

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::Get,
    path: "/v1/problems/{code}",
    summary: "What a problem's code means; where its `type` leads",
    parameters: &[Parameter::Path("code", "A problem's code")],
    response: "ProblemCode",
    status: 200,
    handler: || get(meaning),
}];

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let mut problem = object(&json!({
        "type": string(),
        "title": string(),
        "status": integer(),
        "code": { "type": "string", "enum": codes },
        "detail": string(),
    }));
    // Only where a configuration was refused.
    if let Some(properties) = problem.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("mistakes".to_owned(), strings());
    }
    let code = object(
        &json!({ "code": string(), "title": string(), "status": integer(), "meaning": string() }),
    );
    vec![("Problem", problem), ("ProblemCode", code)]
}

#[derive(Serialize)]
struct Meaning {
    code: &'static str,
    title: &'static str,
    status: u16,
    meaning: &'static str,
}

async fn meaning(
    State(_): State<Api>,
    PathParameter(word): PathParameter,
) -> Result<Json<Meaning>, ApiProblem> {
    let found = Code::ALL.iter().find(|code| code.as_str() == word);
    let code = found.ok_or_else(|| ApiProblem::new(Code::NotFound, "there is no such code"))?;
    std::future::ready(Ok(Json(Meaning {
        code: code.as_str(),
        title: code.title(),
        status: code.status().as_u16(),
        meaning: code.meaning(),
    })))
    .await
}
