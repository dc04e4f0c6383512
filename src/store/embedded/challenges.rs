//! Answers to HTTP-01 challenges.

use std::time::Duration;

use sqlx::{SqliteConnection, query, query_scalar};

use crate::base::clock::Timestamp;
use crate::model::{DnsName, NamePattern, TenantScope};
use crate::store::batch::ApplyError;
use crate::store::embedded::domains;
use crate::store::embedded::transaction::{Transaction, check_scope};
use crate::store::error::StoreError;
use crate::store::record::DomainRecord;

/// The key authorization for exactly this host and token, while it stays.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    host: &DnsName,
    token: &str,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let found = query_scalar(
        "SELECT key_authorization FROM challenge WHERE host = ? AND token = ? AND expires_at > ?",
    )
    .bind(host.as_str().to_owned())
    .bind(token.to_owned())
    .bind(now.as_millis())
    .fetch_optional(connection)
    .await?;
    Ok(found)
}

/// A challenge to publish.
pub(super) struct Answer<'a> {
    pub(super) host: &'a DnsName,
    pub(super) token: &'a str,
    pub(super) key_authorization: &'a str,
    pub(super) lifetime: Duration,
}

/// Publishes an answer.
pub(super) async fn put(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    answer: &Answer<'_>,
) -> Result<(), ApplyError> {
    let domain = owner(transaction.connection, answer.host).await?;
    let domain = domain.ok_or_else(|| ApplyError::Missing(format!("domain {}", answer.host)))?;
    check_scope(scope, &domain.tenant)?;
    query(
        "INSERT INTO challenge (host, token, tenant_id, key_authorization, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (host, token) DO UPDATE \
         SET tenant_id = ?3, key_authorization = ?4, expires_at = ?5",
    )
    .bind(answer.host.as_str().to_owned())
    .bind(answer.token.to_owned())
    .bind(domain.tenant.as_str().to_owned())
    .bind(answer.key_authorization.to_owned())
    .bind(transaction.now.plus(answer.lifetime).as_millis())
    .execute(&mut *transaction.connection)
    .await?;
    Ok(())
}

/// Withdraws every answer of a host.
pub(super) async fn drop_all(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    host: &DnsName,
) -> Result<(), ApplyError> {
    if let Some(domain) = owner(transaction.connection, host).await? {
        check_scope(scope, &domain.tenant)?;
    }
    query("DELETE FROM challenge WHERE host = ?")
        .bind(host.as_str().to_owned())
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// The domain that a host belongs to: its own, or that of the wildcard over it.
async fn owner(
    connection: &mut SqliteConnection,
    host: &DnsName,
) -> Result<Option<DomainRecord>, StoreError> {
    let exact = domains::find(connection, &NamePattern::Exact(host.clone())).await?;
    match (exact, NamePattern::wildcard_over(host)) {
        (None, Some(wildcard)) => domains::find(connection, &wildcard).await,
        (found, _) => Ok(found),
    }
}
