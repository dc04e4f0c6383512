//! Blobs that are sealed anew with a newer data key, in place.

use sqlx::sqlite::SqliteConnection;
use sqlx::{query, query_scalar};

use crate::keys::sealed::sealed_by;
use crate::model::TenantScope;
use crate::store::batch::{ApplyError, Resealed, SealedPlace};
use crate::store::embedded::transaction::{Transaction, check_owner};
use crate::store::error::StoreError;
use crate::store::record::KeyOwner;

/// Puts a blob in the place of another, where that still lies there.
pub(super) async fn reseal(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    blob: &Resealed,
) -> Result<(), ApplyError> {
    // Whose material is, its row does not tell: the blob opens for its owner alone, and only the platform's work writes it.
    match &blob.place {
        SealedPlace::Material(..) => check_owner(scope, &KeyOwner::Platform)?,
        SealedPlace::Certificate(_) | SealedPlace::Order(_) => check_owner(scope, &blob.owner)?,
    }
    let owner = blob.owner.as_str().to_owned();
    let (to, from) = (blob.to.clone(), blob.from.clone());
    let number = sealed_by(&blob.to).map(i64::from);
    let statement = match &blob.place {
        SealedPlace::Certificate(id) => query(
            "UPDATE certificate SET sealed_key = ?1, data_key = ?2 \
             WHERE sealed_key = ?3 AND tenant_id = ?4 AND certificate_id = ?5",
        )
        .bind(to)
        .bind(number)
        .bind(from)
        .bind(owner)
        .bind(id.as_bytes().to_vec()),
        SealedPlace::Order(key) => query(
            "UPDATE job SET order_key = ? WHERE order_key = ? AND tenant_id = ? AND job_key = ?",
        )
        .bind(to)
        .bind(from)
        .bind(owner)
        .bind(key.to_string()),
        SealedPlace::Material(ca, slot) => {
            query("UPDATE material SET sealed = ? WHERE sealed = ? AND ca = ? AND slot = ?")
                .bind(to)
                .bind(from)
                .bind(ca.as_str().to_owned())
                .bind(slot.clone())
        }
    };
    statement.execute(&mut *transaction.connection).await?;
    Ok(())
}

/// See [`crate::store::batch::Guard::NothingSealedBelow`].
pub(super) async fn nothing_sealed_below(
    connection: &mut SqliteConnection,
    owner: &KeyOwner,
    number: u32,
) -> Result<bool, StoreError> {
    let KeyOwner::Tenant(tenant) = owner else {
        return Ok(true);
    };
    let sealed: bool = query_scalar(
        "SELECT EXISTS (SELECT 1 FROM certificate WHERE tenant_id = ?1 AND data_key < ?2) \
         OR EXISTS (SELECT 1 FROM job WHERE tenant_id = ?1 AND (holder IS NOT NULL \
         OR (SUBSTR(order_key, 1, 1) = x'01' AND SUBSTR(order_key, 2, 4) < ?3)))",
    )
    .bind(tenant.as_str().to_owned())
    .bind(i64::from(number))
    .bind(number.to_be_bytes().to_vec())
    .fetch_one(connection)
    .await?;
    Ok(!sealed)
}
