//! The directory's metadata (RFC 8555 §9.7.6), which instant-acme does not show.

use bytes::Bytes;
use http::Request;

use super::transport::Line;
use crate::ca::error::{CaError, Step};

/// What an authority says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Meta {
    /// Whether accounts must be bound to a customer.
    pub external_account_required: bool,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    /// Every ACME directory has it; a web page that happens to be JSON has not.
    #[serde(rename = "newOrder")]
    _new_order: String,
    #[serde(default)]
    meta: Meta,
}

/// Reads the directory at `url`.
pub(super) async fn meta(line: &Line, url: &str) -> Result<Meta, CaError> {
    let garbled = |why: String| CaError::Garbled {
        ca: line.id().clone(),
        step: Step::Directory,
        why,
    };
    let request = Request::get(url)
        .body(Bytes::new())
        .map_err(|error| garbled(error.to_string()))?;
    let answer = line.get(request).await?;
    serde_json::from_slice::<Directory>(&answer)
        .map(|directory| directory.meta)
        .map_err(|error| garbled(format!("{url} is no ACME directory: {error}")))
}
