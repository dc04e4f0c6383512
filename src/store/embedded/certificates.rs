//! Certificates; the chains that they share lie apart, once each.

use aws_lc_rs::digest;
use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use crate::base::clock::Timestamp;
use crate::keys::sealed::sealed_by;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId, SerialNumber};
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::ApplyError;
use crate::store::embedded::domains;
use crate::store::embedded::rows::{
    certificate_id, column, fetched, json_text, nothing, of_row, page, parsed, parsed_json, tenant,
    time,
};
use crate::store::embedded::transaction::{Transaction, check_scope};
use crate::store::error::StoreError;
use crate::store::record::CertificateRecord;
use crate::store::{Page, PageRequest};

/// One certificate.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    id: CertificateId,
) -> Result<Option<CertificateRecord>, StoreError> {
    let found = query(
        "SELECT c.*, h.certificates FROM certificate c JOIN chain h ON h.chain_id = c.chain_id \
         WHERE c.certificate_id = ?",
    )
    .bind(id.as_bytes().to_vec())
    .fetch_optional(connection)
    .await?;
    let read = |row: &SqliteRow| record(row, id, "tenant_id", "created_at");
    found.as_ref().map(read).transpose()
}

/// A certificate's tenant and names.
pub(super) async fn names(
    connection: &mut SqliteConnection,
    id: CertificateId,
) -> Result<Option<(TenantId, Vec<NamePattern>)>, StoreError> {
    let found = query("SELECT tenant_id, names FROM certificate WHERE certificate_id = ?")
        .bind(id.as_bytes().to_vec())
        .fetch_optional(connection)
        .await?;
    let read = |row: &SqliteRow| Ok((tenant(row, "tenant_id")?, parsed(row, "names", read_names)?));
    found.as_ref().map(read).transpose()
}

/// A page of certificates.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    of: Option<&TenantId>,
    request: &PageRequest,
) -> Result<Page<CertificateRecord>, StoreError> {
    let after = match request.after.as_deref().map(str::parse::<CertificateId>) {
        None => Vec::new(),
        Some(Ok(after)) => after.as_bytes().to_vec(),
        Some(Err(_)) => return Ok(nothing()),
    };
    let rows = match of {
        Some(tenant) => query(
            "SELECT c.*, h.certificates FROM certificate c JOIN chain h ON h.chain_id = c.chain_id \
             WHERE c.tenant_id = ? AND c.certificate_id > ? ORDER BY c.certificate_id LIMIT ?",
        )
        .bind(tenant.as_str().to_owned()),
        None => query(
            "SELECT c.*, h.certificates FROM certificate c JOIN chain h ON h.chain_id = c.chain_id \
             WHERE c.certificate_id > ? ORDER BY c.certificate_id LIMIT ?",
        ),
    }
    .bind(after)
    .bind(fetched(request))
    .fetch_all(connection)
    .await?;
    let read = |row: &SqliteRow| {
        let id = certificate_id(column(row, "certificate_id")?)?;
        record(row, id, "tenant_id", "created_at")
    };
    let certificates = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(page(
        certificates,
        request,
        |certificate: &CertificateRecord| certificate.facts.id.to_string(),
    ))
}

/// The certificates under a name, newest first.
pub(super) async fn of_name(
    connection: &mut SqliteConnection,
    pattern: &NamePattern,
    most: usize,
) -> Result<Vec<CertificateRecord>, StoreError> {
    let rows = query(
        "SELECT c.*, h.certificates FROM certificate_name n \
         JOIN certificate c ON c.certificate_id = n.certificate_id \
         JOIN chain h ON h.chain_id = c.chain_id \
         WHERE n.pattern = ? ORDER BY n.certificate_id DESC LIMIT ?",
    )
    .bind(pattern.to_string())
    .bind(i64::try_from(most.min(PageRequest::MOST)).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    let read = |row: &SqliteRow| {
        let id = certificate_id(column(row, "certificate_id")?)?;
        record(row, id, "tenant_id", "created_at")
    };
    rows.iter().map(read).collect()
}

/// The certificates with a serial number, oldest first.
pub(super) async fn by_serial(
    connection: &mut SqliteConnection,
    serial: &SerialNumber,
    most: usize,
) -> Result<Vec<CertificateRecord>, StoreError> {
    let rows = query(
        "SELECT c.*, h.certificates FROM certificate c JOIN chain h ON h.chain_id = c.chain_id \
         WHERE c.serial = ? ORDER BY c.certificate_id LIMIT ?",
    )
    .bind(serial.as_str().to_owned())
    .bind(i64::try_from(most.min(PageRequest::MOST)).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    let read = |row: &SqliteRow| {
        let id = certificate_id(column(row, "certificate_id")?)?;
        record(row, id, "tenant_id", "created_at")
    };
    rows.iter().map(read).collect()
}

/// A certificate from a row that holds its columns, two of them under names of their own.
pub(super) fn record(
    row: &SqliteRow,
    id: CertificateId,
    tenant_column: &'static str,
    created_column: &'static str,
) -> Result<CertificateRecord, StoreError> {
    let columns = (tenant_column, created_column);
    of_row(format_args!("certificate {id}"), read(row, id, columns))
}

fn read(
    row: &SqliteRow,
    id: CertificateId,
    (tenant_column, created_column): (&'static str, &'static str),
) -> Result<CertificateRecord, StoreError> {
    let chain: &[u8] = column(row, "certificates")?;
    Ok(CertificateRecord {
        facts: CertificateFacts {
            id,
            tenant: tenant(row, tenant_column)?,
            names: parsed(row, "names", read_names)?,
            ca: CaId::new(column(row, "ca")?),
            serial: column(row, "serial")?,
            not_before: time(row, "not_before")?,
            not_after: time(row, "not_after")?,
        },
        leaf: column(row, "leaf")?,
        chain: read_chain(chain)
            .ok_or_else(|| StoreError::Corrupt("its chain is broken off".to_owned()))?,
        sealed_key: column(row, "sealed_key")?,
        standing: parsed_json(row, "standing")?,
        created_at: time(row, created_column)?,
    })
}

/// Names in a column: one a line, for a name holds no line feed.
fn write_names(names: &[NamePattern]) -> String {
    let texts: Vec<String> = names.iter().map(NamePattern::to_string).collect();
    texts.join("\n")
}

fn read_names(text: &str) -> Option<Vec<NamePattern>> {
    text.lines()
        .map(|line| NamePattern::parse(line).ok())
        .collect()
}

/// A chain in a column: each certificate as its length (4 bytes, big-endian) and its DER.
fn write_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for der in chain {
        bytes.extend_from_slice(&u32::try_from(der.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(der);
    }
    bytes
}

fn read_chain(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (der, rest) = rest.split_at_checked(length)?;
        chain.push(der.to_vec());
        bytes = rest;
    }
    Some(chain)
}

/// Stores a certificate; nothing changes where its identity is stored already.
pub(super) async fn put(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    certificate: &CertificateRecord,
) -> Result<(), ApplyError> {
    let facts = &certificate.facts;
    check_scope(scope, &facts.tenant)?;
    for name in &facts.names {
        if let Some(domain) = domains::find(transaction.connection, name).await?
            && domain.tenant != facts.tenant
        {
            return Err(ApplyError::OwnedByOther {
                pattern: name.clone(),
                wanted_by: facts.tenant.clone(),
            });
        }
    }
    let chain = write_chain(&certificate.chain);
    let chain_id = digest::digest(&digest::SHA256, &chain).as_ref().to_vec();
    query("INSERT INTO chain (chain_id, certificates) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(chain_id.clone())
        .bind(chain)
        .execute(&mut *transaction.connection)
        .await?;
    query(
        "INSERT INTO certificate (certificate_id, tenant_id, names, ca, serial, not_before, not_after, leaf, \
         chain_id, sealed_key, data_key, created_at, standing, retire_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(facts.id.as_bytes().to_vec())
    .bind(facts.tenant.as_str().to_owned())
    .bind(write_names(&facts.names))
    .bind(facts.ca.as_str().to_owned())
    .bind(facts.serial.clone())
    .bind(facts.not_before.as_millis())
    .bind(facts.not_after.as_millis())
    .bind(certificate.leaf.clone())
    .bind(chain_id)
    .bind(certificate.sealed_key.clone())
    .bind(sealed_by(&certificate.sealed_key).map(i64::from))
    .bind(certificate.created_at.as_millis())
    .bind(json_text(&certificate.standing)?)
    .bind(certificate.standing.retire_at.map(Timestamp::as_millis))
    .execute(&mut *transaction.connection)
    .await?;
    for name in &facts.names {
        query(
            "INSERT INTO certificate_name (pattern, certificate_id) VALUES (?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(name.to_string())
        .bind(facts.id.as_bytes().to_vec())
        .execute(&mut *transaction.connection)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_survive_their_column_and_damage_is_found() {
        for chain in [vec![], vec![vec![1, 2, 3]], vec![vec![], vec![9; 300]]] {
            assert_eq!(read_chain(&write_chain(&chain)), Some(chain));
        }
        let bytes = write_chain(&[vec![1, 2, 3]]);
        assert_eq!(read_chain(&bytes[..6]), None);
        assert_eq!(read_chain(&[0, 0]), None);
    }

    #[test]
    fn names_survive_their_column() {
        let names = ["*.example.com", "example.com"].map(|text| NamePattern::parse(text).unwrap());
        assert_eq!(read_names(&write_names(&names)).unwrap(), names);
        assert_eq!(read_names("not a name"), None);
    }
}
