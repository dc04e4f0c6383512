//! Lists, page by page: `?limit=` items after the cursor `?after=`.

use serde::{Deserialize, Serialize};

use crate::api::endpoint::Parameter;
use crate::api::problem::{ApiProblem, Code};
use crate::control::views::{Page, PageRequest};
use crate::model::TenantId;

/// Items on a page where the caller does not say.
const DEFAULT_LIMIT: usize = 100;
/// The longest cursor; ours are shorter.
const LONGEST_CURSOR: usize = 512;

pub(super) const AFTER: Parameter = Parameter::Query(
    "after",
    "The `next` of the page before; absent for the first page",
);
pub(super) const LIMIT: Parameter = Parameter::Number(
    "limit",
    "The most items on the page: 1 to 1000, 100 where absent",
);
pub(super) const TENANT: Parameter = Parameter::Query("tenant", "Only what belongs to this tenant");

/// Which page of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    after: Option<String>,
    limit: Option<usize>,
}

/// Which page of a list, and whose items.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantPaging {
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) tenant: Option<String>,
}

impl Paging {
    pub(super) fn request(self) -> Result<PageRequest, ApiProblem> {
        let most = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=PageRequest::MOST).contains(&most) {
            let detail = format!("limit {most} is not 1 to {}", PageRequest::MOST);
            return Err(ApiProblem::new(Code::BadParameter, detail));
        }
        if self
            .after
            .as_ref()
            .is_some_and(|after| after.len() > LONGEST_CURSOR)
        {
            let detail = "after is not the next of a page";
            return Err(ApiProblem::new(Code::BadParameter, detail));
        }
        Ok(PageRequest {
            after: self.after,
            most,
        })
    }
}

impl TenantPaging {
    pub(super) fn request(self) -> Result<(Option<TenantId>, PageRequest), ApiProblem> {
        let wrong = |error: crate::model::tenant::TenantIdError| {
            ApiProblem::new(Code::BadParameter, error.to_string())
        };
        let tenant = self
            .tenant
            .map(|slug| TenantId::parse(&slug).map_err(wrong));
        let paging = Paging {
            after: self.after,
            limit: self.limit,
        };
        Ok((tenant.transpose()?, paging.request()?))
    }
}

/// A page as written.
#[derive(Debug, Serialize)]
pub(super) struct Listing<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Listing<T> {
    /// The page, each item as its wire type.
    pub(super) fn of<V>(page: Page<V>, wire: impl FnMut(V) -> T) -> Self {
        Self {
            items: page.items.into_iter().map(wire).collect(),
            next: page.next,
        }
    }
}
