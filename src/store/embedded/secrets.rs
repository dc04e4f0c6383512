//! Wrapped data keys, and the materials of CAs.

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use crate::model::certificate::CaId;
use crate::model::{TenantId, TenantScope};
use crate::store::batch::ApplyError;
use crate::store::embedded::feed;
use crate::store::embedded::rows::{column, fetched, nothing, page, tenant, time, unsigned};
use crate::store::embedded::transaction::{Transaction, check_owner, check_scope};
use crate::store::error::StoreError;
use crate::store::feed::ChangeKind;
use crate::store::record::{DataKeyRecord, KeyOwner, MaterialRecord};
use crate::store::{Page, PageRequest};

/// An owner's data key: the newest, or the one with this number.
pub(super) async fn data_key(
    connection: &mut SqliteConnection,
    owner: &KeyOwner,
    id: Option<u32>,
) -> Result<Option<DataKeyRecord>, StoreError> {
    let found = query(
        "SELECT number, wrapped FROM data_key WHERE owner = ?1 AND (?2 IS NULL OR number = ?2) \
         ORDER BY number DESC LIMIT 1",
    )
    .bind(owner.as_str().to_owned())
    .bind(id.map(i64::from))
    .fetch_optional(connection)
    .await?;
    let read = |row: &SqliteRow| {
        Ok(DataKeyRecord {
            owner: owner.clone(),
            id: unsigned(row, "number")?,
            wrapped: column(row, "wrapped")?,
        })
    };
    found.as_ref().map(read).transpose()
}

/// A page of data keys.
pub(super) async fn data_keys(
    connection: &mut SqliteConnection,
    of: Option<&TenantId>,
    request: &PageRequest,
) -> Result<Page<DataKeyRecord>, StoreError> {
    let after = match request.after.as_deref() {
        None => ("", -1),
        Some(text) => match text.rsplit_once(':').map(|(o, n)| (o, n.parse::<i64>())) {
            Some((owner, Ok(number))) => (owner, number),
            Some(_) | None => return Ok(nothing()),
        },
    };
    let rows = query(
        "SELECT owner, number, wrapped FROM data_key WHERE (owner, number) > (?1, ?2) \
         AND (?3 IS NULL OR owner = ?3) ORDER BY owner, number LIMIT ?4",
    )
    .bind(after.0.to_owned())
    .bind(after.1)
    .bind(of.map(|tenant| tenant.as_str().to_owned()))
    .bind(fetched(request))
    .fetch_all(connection)
    .await?;
    let read = |row: &SqliteRow| {
        let owner = match column::<&str, _>(row, "owner")? {
            "" => KeyOwner::Platform,
            _ => KeyOwner::Tenant(tenant(row, "owner")?),
        };
        Ok(DataKeyRecord {
            owner,
            id: unsigned(row, "number")?,
            wrapped: column(row, "wrapped")?,
        })
    };
    let keys = rows.iter().map(read).collect::<Result<_, StoreError>>()?;
    Ok(page(keys, request, |key: &DataKeyRecord| {
        format!("{}:{}", key.owner.as_str(), key.id)
    }))
}

/// Stores a wrapped data key.
pub(super) async fn put_data_key(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    key: &DataKeyRecord,
) -> Result<(), ApplyError> {
    check_owner(scope, &key.owner)?;
    query(
        "INSERT INTO data_key (owner, number, wrapped) VALUES (?1, ?2, ?3) \
         ON CONFLICT (owner, number) DO UPDATE SET wrapped = ?3",
    )
    .bind(key.owner.as_str().to_owned())
    .bind(i64::from(key.id))
    .bind(key.wrapped.clone())
    .execute(&mut *transaction.connection)
    .await?;
    Ok(())
}

/// Destroys the data keys of a tenant up to a number.
pub(super) async fn destroy_data_keys(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    tenant: &TenantId,
    through: u32,
) -> Result<(), ApplyError> {
    check_scope(scope, tenant)?;
    query("DELETE FROM data_key WHERE owner = ? AND number <= ?")
        .bind(tenant.as_str().to_owned())
        .bind(i64::from(through))
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// Destroys the data keys of an owner below a number.
pub(super) async fn destroy_data_keys_below(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    owner: &KeyOwner,
    number: u32,
) -> Result<(), ApplyError> {
    check_owner(scope, owner)?;
    query("DELETE FROM data_key WHERE owner = ? AND number < ?")
        .bind(owner.as_str().to_owned())
        .bind(i64::from(number))
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// Material of a CA.
pub(super) async fn material(
    connection: &mut SqliteConnection,
    ca: &CaId,
    slot: &str,
) -> Result<Option<MaterialRecord>, StoreError> {
    let found = query("SELECT * FROM material WHERE ca = ? AND slot = ?")
        .bind(ca.as_str().to_owned())
        .bind(slot.to_owned())
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(material_of).transpose()
}

/// A page of material of all CAs.
pub(super) async fn materials(
    connection: &mut SqliteConnection,
    request: &PageRequest,
) -> Result<Page<MaterialRecord>, StoreError> {
    /// Between the two in a page's key: in neither.
    const SEPARATOR: char = '\n';
    let after = request.after.as_deref();
    let after = after.map_or(Some(("", "")), |text| text.split_once(SEPARATOR));
    let Some((ca, slot)) = after else {
        return Ok(nothing());
    };
    let rows = query("SELECT * FROM material WHERE (ca, slot) > (?, ?) ORDER BY ca, slot LIMIT ?")
        .bind(ca.to_owned())
        .bind(slot.to_owned())
        .bind(fetched(request))
        .fetch_all(connection)
        .await?;
    let found: Vec<_> = rows.iter().map(material_of).collect::<Result<_, _>>()?;
    Ok(page(found, request, |material: &MaterialRecord| {
        format!("{}{SEPARATOR}{}", material.ca, material.slot)
    }))
}

fn material_of(row: &SqliteRow) -> Result<MaterialRecord, StoreError> {
    Ok(MaterialRecord {
        ca: CaId::new(column::<&str, _>(row, "ca")?),
        slot: column(row, "slot")?,
        public: column(row, "public")?,
        sealed: column(row, "sealed")?,
        created_at: time(row, "created_at")?,
    })
}

/// Stores material of a CA.
pub(super) async fn put_material(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    material: &MaterialRecord,
) -> Result<(), ApplyError> {
    check_owner(scope, &KeyOwner::Platform)?;
    query(
        "INSERT INTO material (ca, slot, public, sealed, created_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (ca, slot) DO UPDATE SET public = ?3, sealed = ?4, created_at = ?5",
    )
    .bind(material.ca.as_str().to_owned())
    .bind(material.slot.clone())
    .bind(material.public.clone())
    .bind(material.sealed.clone())
    .bind(material.created_at.as_millis())
    .execute(&mut *transaction.connection)
    .await?;
    feed::record(transaction, ChangeKind::Material, material.ca.as_str()).await
}
