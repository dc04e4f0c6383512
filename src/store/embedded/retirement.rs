//! Certificates that serve nothing any more, and the end of their private keys.
//!
//! Whether a domain points to a certificate is known here alone, in the transaction that changes it; so it is here that a
//! certificate gets the time of its key's end, and loses it when it is chosen again.

use std::time::Duration;

use serde_json::json;
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use crate::base::clock::Timestamp;
use crate::model::certificate::CertificateId;
use crate::model::standing::CertificateStanding;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{ApplyError, AuditEvent};
use crate::store::embedded::rows::{
    certificate_id, column, json_text, of_row, parsed, parsed_json, tenant,
};
use crate::store::embedded::transaction::{Transaction, check_scope};
use crate::store::embedded::{domains, events, secrets};
use crate::store::error::StoreError;
use crate::store::record::{AuditActor, KeyOwner};

/// For how long a certificate is put off that cannot be read.
const UNREADABLE: Duration = Duration::from_hours(24);
/// Keys that one transaction destroys at most.
const PAGE: i64 = 100;

/// What is read of a certificate here.
struct Retired {
    tenant: TenantId,
    /// The first of its names; a client's certificate has none.
    name: Option<String>,
    standing: CertificateStanding,
    has_key: bool,
    serves: bool,
}

async fn find(
    transaction: &mut Transaction<'_>,
    id: CertificateId,
) -> Result<Option<Retired>, StoreError> {
    let found = query(
        "SELECT tenant_id, names, standing, LENGTH(sealed_key) > 0 AS has_key, \
         EXISTS (SELECT 1 FROM domain d WHERE d.certificate_id = c.certificate_id) AS serves \
         FROM certificate c WHERE certificate_id = ?",
    )
    .bind(id.as_bytes().to_vec())
    .fetch_optional(&mut *transaction.connection)
    .await?;
    let read = |row: &SqliteRow| {
        Ok(Retired {
            tenant: tenant(row, "tenant_id")?,
            name: column::<String, _>(row, "names")?
                .lines()
                .next()
                .map(str::to_owned),
            standing: parsed_json(row, "standing")?,
            has_key: column(row, "has_key")?,
            serves: column(row, "serves")?,
        })
    };
    let read = found.as_ref().map(read).transpose();
    of_row(format_args!("certificate {id}"), read)
}

async fn write(
    transaction: &mut Transaction<'_>,
    id: CertificateId,
    standing: &CertificateStanding,
) -> Result<(), StoreError> {
    query("UPDATE certificate SET standing = ?, retire_at = ? WHERE certificate_id = ?")
        .bind(json_text(standing)?)
        .bind(standing.retire_at.map(Timestamp::as_millis))
        .bind(id.as_bytes().to_vec())
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// Whether a certificate may be made to serve: with its key, and without a revocation.
pub(super) async fn may_serve(
    transaction: &mut Transaction<'_>,
    id: CertificateId,
) -> Result<bool, StoreError> {
    let found = find(transaction, id).await?;
    Ok(found.is_some_and(|found| found.has_key && found.standing.may_serve()))
}

/// Notes that a domain points to `id` from now on: it is not superseded any more, and its key stays.
pub(super) async fn chosen(
    transaction: &mut Transaction<'_>,
    id: CertificateId,
) -> Result<(), StoreError> {
    let Some(Retired { standing, .. }) = find(transaction, id).await? else {
        return Ok(());
    };
    let chosen = CertificateStanding {
        superseded_by: None,
        superseded_at: None,
        retire_at: None,
        ..standing.clone()
    };
    match chosen == standing {
        true => Ok(()),
        false => write(transaction, id, &chosen).await,
    }
}

/// Notes that a domain does not point to `id` any more, but to `by` where there is one. When none points to it, the time
/// of its key's end is set.
pub(super) async fn left(
    transaction: &mut Transaction<'_>,
    id: CertificateId,
    by: Option<CertificateId>,
) -> Result<(), StoreError> {
    let Some(found) = find(transaction, id).await? else {
        return Ok(());
    };
    if found.serves {
        return Ok(());
    }
    let now = transaction.now;
    let end = now.plus(transaction.retired_keys);
    let standing = CertificateStanding {
        superseded_by: by,
        superseded_at: by.map(|_| now),
        retire_at: found.has_key.then_some(end),
        ..found.standing
    };
    write(transaction, id, &standing).await
}

/// See [`crate::store::batch::Operation::SetCertificateStanding`].
pub(super) async fn amend(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    id: CertificateId,
    standing: &CertificateStanding,
) -> Result<(), ApplyError> {
    let found = require(transaction, scope, id).await?;
    let amended = found.standing.amended_by(standing.clone());
    Ok(write(transaction, id, &amended).await?)
}

/// See [`crate::store::batch::Operation::CancelRevocation`].
pub(super) async fn cancel(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    id: CertificateId,
) -> Result<(), ApplyError> {
    let found = require(transaction, scope, id).await?;
    let Some(revocation) = &found.standing.revocation else {
        return Ok(());
    };
    if !revocation.is_untold() {
        return Err(ApplyError::NotUsable(id));
    }
    let standing = CertificateStanding {
        revocation: None,
        replace: None,
        ..found.standing
    };
    Ok(write(transaction, id, &standing).await?)
}

/// See [`crate::store::batch::Operation::DestroyKey`].
pub(super) async fn destroy_key(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    id: CertificateId,
) -> Result<(), ApplyError> {
    let found = require(transaction, scope, id).await?;
    if found.serves {
        return Err(ApplyError::NotUsable(id));
    }
    Ok(destroy(transaction, id, found.standing).await?)
}

async fn destroy(
    transaction: &mut Transaction<'_>,
    id: CertificateId,
    standing: CertificateStanding,
) -> Result<(), StoreError> {
    query("UPDATE certificate SET sealed_key = x'', data_key = NULL WHERE certificate_id = ?")
        .bind(id.as_bytes().to_vec())
        .execute(&mut *transaction.connection)
        .await?;
    let destroyed = CertificateStanding {
        key_destroyed_at: standing.key_destroyed_at.or(Some(transaction.now)),
        retire_at: None,
        ..standing
    };
    write(transaction, id, &destroyed).await
}

/// See [`crate::store::batch::Operation::DestroyDataKeys`].
pub(super) async fn destroy_data_keys(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    tenant: &TenantId,
    through: u32,
) -> Result<(), ApplyError> {
    secrets::destroy_data_keys(transaction, scope, tenant, through).await?;
    for pattern in destroy_keys_of(transaction, tenant, through).await? {
        domains::leave(transaction, scope, &pattern).await?;
    }
    Ok(())
}

/// Destroys the keys of the certificates of a tenant that its data keys up to a number sealed: they cannot be opened any more. One
/// statement, however many there are. Gives the domains that point to them.
async fn destroy_keys_of(
    transaction: &mut Transaction<'_>,
    tenant: &TenantId,
    through: u32,
) -> Result<Vec<NamePattern>, StoreError> {
    query(
        "UPDATE certificate SET sealed_key = x'', data_key = NULL, retire_at = NULL, \
         standing = json_set(standing, '$.key_destroyed_at', json(?1), '$.retire_at', json('null')) \
         WHERE tenant_id = ?2 AND LENGTH(sealed_key) > 0 AND (data_key IS NULL OR data_key <= ?3)",
    )
    .bind(json_text(&transaction.now)?)
    .bind(tenant.as_str().to_owned())
    .bind(i64::from(through))
    .execute(&mut *transaction.connection)
    .await?;
    let pointing = query(
        "SELECT d.pattern FROM domain d JOIN certificate c ON c.certificate_id = d.certificate_id \
         WHERE d.tenant_id = ? AND LENGTH(c.sealed_key) = 0",
    )
    .bind(tenant.as_str().to_owned())
    .fetch_all(&mut *transaction.connection)
    .await?;
    pointing
        .iter()
        .map(|row| parsed(row, "pattern", |text| NamePattern::parse(text).ok()))
        .collect()
}

async fn require(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    id: CertificateId,
) -> Result<Retired, ApplyError> {
    let found = find(transaction, id).await?;
    let found = found.ok_or_else(|| ApplyError::Missing(format!("certificate {id}")))?;
    check_scope(scope, &found.tenant)?;
    Ok(found)
}

/// Those whose time has come, but not while a certificate that is still good is to be revoked: its own key may be what revokes it.
/// The rows whose revocation is told are those of [`Revocation::is_told`], as they are written.
///
/// [`Revocation::is_told`]: crate::model::revocation::Revocation::is_told
const DUE: &str = "SELECT certificate_id FROM certificate WHERE retire_at IS NOT NULL AND retire_at <= ?1 \
    AND (not_after <= ?1 OR CASE WHEN NOT json_valid(standing) THEN TRUE \
    ELSE standing ->> '$.revocation' IS NULL \
    OR standing ->> '$.revocation.left_to' IS NOT NULL \
    OR (standing ->> '$.revocation.revoked_at' IS NOT NULL \
    AND COALESCE(standing ->> '$.revocation.taken_for', standing ->> '$.revocation.reason') \
    = standing ->> '$.revocation.reason') END) \
    ORDER BY retire_at LIMIT ?2";

/// Destroys keys whose time has come, each with its audit event; tells how many.
pub(super) async fn sweep(transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
    let due = query(DUE)
        .bind(transaction.now.as_millis())
        .bind(PAGE)
        .fetch_all(&mut *transaction.connection)
        .await?;
    let mut destroyed = 0;
    for row in &due {
        let id = certificate_id(column(row, "certificate_id")?)?;
        let found = match find(transaction, id).await {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(StoreError::Corrupt(why)) => {
                put_off(transaction, id, &why).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if found.serves {
            chosen(transaction, id).await?;
            continue;
        }
        let event = AuditEvent {
            owner: KeyOwner::Tenant(found.tenant.clone()),
            actor: AuditActor::System,
            kind: "certificate.key_destroyed",
            subject: found.name.unwrap_or_else(|| id.to_string()),
            detail: json!({ "certificate": id, "why": "retired" }),
        };
        destroy(transaction, id, found.standing).await?;
        match events::append(transaction, &TenantScope::upkeep(), &event).await {
            Ok(()) => {}
            Err(ApplyError::Store(error)) => return Err(error),
            Err(error) => return Err(StoreError::Corrupt(error.to_string())),
        }
        destroyed += 1;
    }
    Ok(destroyed)
}

/// A certificate that cannot be read would keep all whose time comes after it from their end.
async fn put_off(
    transaction: &mut Transaction<'_>,
    id: CertificateId,
    why: &str,
) -> Result<(), StoreError> {
    tracing::error!(
        certificate = %id, error = why,
        "a stored certificate cannot be read: its key stays, and it is looked at again in a day"
    );
    query("UPDATE certificate SET retire_at = ? WHERE certificate_id = ?")
        .bind(transaction.now.plus(UNREADABLE).as_millis())
        .bind(id.as_bytes().to_vec())
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}
