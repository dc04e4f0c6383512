//! Whether a tenant that a list is asked for is there: an empty list of a misspelt one would read as "it has none".

use crate::base::nearest::nearest;
use crate::control::caller::Grant;
use crate::control::views::{Page, PageRequest, READ, ViewError, Views};
use crate::model::TenantId;
use crate::store::Deadline;

/// Pages of tenants that are searched for the one that was meant.
const MOST_PAGES: usize = 10;

impl Views {
    /// The page as it was found; an error where it is the first one, empty, and nobody knows the tenant that it is of. What
    /// is left of a tenant that is gone shows all the same.
    pub(in crate::control) async fn of_known_tenant<T>(
        &self,
        grant: &Grant,
        tenant: Option<&TenantId>,
        request: &PageRequest,
        found: Page<T>,
    ) -> Result<Page<T>, ViewError> {
        let doubtful = tenant.filter(|_| found.items.is_empty() && request.after.is_none());
        match doubtful {
            Some(tenant) if !self.knows(grant, tenant).await? => {
                Err(self.unknown(grant, tenant).await?)
            }
            _ => Ok(found),
        }
    }

    async fn knows(&self, grant: &Grant, tenant: &TenantId) -> Result<bool, ViewError> {
        let Some(scope) = grant.scope().narrowed_to(tenant) else {
            return Ok(false);
        };
        let first = PageRequest {
            after: None,
            most: 1,
        };
        let by = Deadline::after(READ);
        let found = self.sources().store.tenants(by, &scope, &first).await?;
        Ok(!found.items.is_empty())
    }

    /// That there is no such tenant, and which one was most likely meant.
    async fn unknown(&self, grant: &Grant, tenant: &TenantId) -> Result<ViewError, ViewError> {
        let mut near: Option<TenantId> = None;
        let mut after = None;
        for _ in 0..MOST_PAGES {
            let request = PageRequest {
                after,
                most: PageRequest::MOST,
            };
            let page = self.tenants(grant, &request).await?;
            let known = page.items.iter().map(|record| record.id.as_str());
            let known = known.chain(near.iter().map(TenantId::as_str));
            near = nearest(tenant.as_str(), known).and_then(|id| TenantId::parse(id).ok());
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(ViewError::NotFound(match near {
            Some(near) => format!("tenant {tenant}; did you mean {near}?"),
            None => format!("tenant {tenant}; `vestibule tenant list` shows those there are"),
        }))
    }
}
