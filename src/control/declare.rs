//! What the configuration file says there is, brought in line with the store.
//!
//! The store stays the truth that everything else reads: what the file declares becomes records of source `file`,
//! and what vanishes from it is retired. Invariants: a name never passes from one tenant to another by accident; a
//! mistake about one name is a warning and the others go on; where a file could not be read, nothing is retired.
//!
//! Reading order: [`Declaration`]; [`plan`] (what is to be done, pure); [`reconcile`] (doing it).

pub mod plan;

pub mod reconcile;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::certs::authorities::Choices;
use crate::certs::settings::Obtain;
use crate::certs::vault::own::OwnKeys;
use crate::model::route::{HeaderEdits, PathPrefix, RouteScope, Upstream, UpstreamName};
use crate::model::{NamePattern, TenantId};

/// What `proxy.toml` and the files it includes declare, checked file by file.
#[derive(Clone, Debug, Default)]
pub struct Declaration {
    /// The tenants with their domains.
    pub tenants: Vec<DeclaredTenant>,
    /// The upstreams.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The routes, in the order of the files.
    pub routes: Vec<DeclaredRoute>,
    /// Whether every file took part.
    pub completeness: Completeness,
    /// What tenants choose among the authorities.
    pub choices: Choices,
    /// When a new name gets its first certificate.
    pub obtain: Obtain,
    /// Which tenants have a key-encryption key of their own.
    pub own_keys: OwnKeys,
}

/// Whether a declaration is all there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completeness {
    /// It is: what the store holds beyond it has been taken out of the files.
    #[default]
    Whole,
    /// A file could not be read and has no last good text: what is missing may only be hidden, and nothing is
    /// retired.
    Partial,
}

/// A tenant as a file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredTenant {
    /// Its slug.
    pub id: TenantId,
    /// Its domains.
    pub domains: Vec<NamePattern>,
    /// The file, for warnings: `tenants.d/acme.toml`.
    pub file: Arc<str>,
}

/// A route as a file declares it: its upstream by name.
#[derive(Clone, Debug)]
pub struct DeclaredRoute {
    /// Whose requests.
    pub scope: RouteScope,
    /// Below which path.
    pub path: PathPrefix,
    /// Where to.
    pub upstream: UpstreamName,
    /// Edits of the request on its way there.
    pub request_headers: HeaderEdits,
    /// Edits of the response on its way back.
    pub response_headers: HeaderEdits,
    /// The only tenants whose requests it may take: those of the included file that it stands in. A name below a wildcard
    /// of theirs may be another tenant's.
    pub tenants: Option<Arc<BTreeSet<TenantId>>>,
    /// The file, for warnings.
    pub file: Arc<str>,
}

/// Something that is not as it should be and does not stop the rest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// What it is about: a domain, a tenant, a file.
    pub subject: String,
    /// What is wrong and what repairs it, as one sentence.
    pub detail: String,
}
