//! `[[tenant]]`: a tenant and its domains.

use std::path::PathBuf;

use crate::config::reader::{At, Table};
use crate::config::value;
use crate::model::{NamePattern, TenantId};

/// Domains of one tenant in one file.
const MOST_DOMAINS: usize = 100_000;

/// Authorities that one tenant names.
const MOST_AUTHORITIES: usize = 16;

#[derive(Debug)]
pub(in crate::config) struct Tenant {
    pub(in crate::config) name: At<TenantId>,
    pub(in crate::config) domains: Vec<At<NamePattern>>,
    pub(in crate::config) ca: Vec<At<String>>,
    pub(in crate::config) profile: Option<At<String>>,
    pub(in crate::config) key_file: Option<At<PathBuf>>,
}

pub(super) fn read(mut table: Table<'_>) -> Option<Tenant> {
    let name = table.required("name", "the tenant's name, as in \"acme\"", value::tenant);
    let domains = table.list("domains", MOST_DOMAINS, value::pattern);
    let ca = table.list("ca", MOST_AUTHORITIES, value::label);
    let profile = table.optional("profile", value::label);
    let key_file = table.optional("key_file", value::path);
    table.finish();
    Some(Tenant {
        name: name?,
        domains: domains.unwrap_or_default(),
        ca: ca.unwrap_or_default(),
        profile,
        key_file,
    })
}
