//! What a change works in: the connection inside of a transaction, the time, the feed's heads.

use std::time::Duration;

use sqlx::SqliteConnection;

use crate::base::clock::Timestamp;
use crate::model::{TenantId, TenantScope};
use crate::store::batch::ApplyError;
use crate::store::embedded::feed::Heads;
use crate::store::record::KeyOwner;

/// An open write transaction.
pub(super) struct Transaction<'c> {
    /// The writing connection, its transaction begun.
    pub(super) connection: &'c mut SqliteConnection,
    /// The store's time; one for all that is committed together.
    pub(super) now: Timestamp,
    /// How long the key of a certificate that serves nothing any more is kept.
    pub(super) retired_keys: Duration,
    /// The feed's heads, kept here until just before the commit.
    pub(super) heads: Heads,
}

/// Whether `scope` reaches the rows of `owner`; the platform's own need one that reaches all.
pub(super) fn reaches(scope: &TenantScope, owner: &KeyOwner) -> bool {
    match owner {
        KeyOwner::Platform => scope.only().is_none(),
        KeyOwner::Tenant(tenant) => scope.reaches(tenant),
    }
}

/// Refuses a tenant outside of `scope`.
pub(super) fn check_scope(scope: &TenantScope, tenant: &TenantId) -> Result<(), ApplyError> {
    check_owner(scope, &KeyOwner::Tenant(tenant.clone()))
}

/// Refuses an owner outside of `scope`.
pub(super) fn check_owner(scope: &TenantScope, owner: &KeyOwner) -> Result<(), ApplyError> {
    match reaches(scope, owner) {
        true => Ok(()),
        false => Err(ApplyError::OutOfScope(owner.clone())),
    }
}
