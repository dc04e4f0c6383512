//! Tenants and domains.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, query};

use crate::model::certificate::CertificateId;
use crate::model::domain::{DomainState, Source};
use crate::model::problem::Problem;
use crate::model::route::UpstreamName;
use crate::model::standing::Learnt;
use crate::model::{DnsName, NamePattern, TenantId, TenantScope};
use crate::store::batch::{ApplyError, Urgency};
use crate::store::embedded::rows::{
    certificate_id, column, fetched, json_text, of_row, page_of_rows, parsed, parsed_json, problem,
    problem_text, tenant, time, unsigned,
};
use crate::store::embedded::transaction::{Transaction, check_scope};
use crate::store::embedded::{certificates, feed, jobs, retirement};
use crate::store::error::StoreError;
use crate::store::feed::ChangeKind;
use crate::store::job::{JobKey, Priority};
use crate::store::record::{DataKeyRecord, DomainRecord, KeyOwner, Resolved, TenantRecord};
use crate::store::{Page, PageRequest};

/// See [`crate::store::Store::resolve`]: one statement over one snapshot.
pub(super) async fn resolve(
    connection: &mut SqliteConnection,
    name: &DnsName,
) -> Result<Option<Resolved>, StoreError> {
    let wildcard = NamePattern::wildcard_over(name).map(|pattern| pattern.to_string());
    let found = query(
        "SELECT d.pattern, d.tenant_id, d.source, d.state, d.upstream, d.certificate_id, d.problem, d.version, \
                d.created_at, \
                c.tenant_id AS c_tenant_id, c.names, c.ca, c.serial, c.not_before, c.not_after, c.leaf, \
                d.memory, c.sealed_key, c.standing, c.created_at AS c_created_at, h.certificates, k.number, k.wrapped \
         FROM domain d \
         LEFT JOIN certificate c ON c.certificate_id = d.certificate_id \
         LEFT JOIN chain h ON h.chain_id = c.chain_id \
         LEFT JOIN data_key k ON k.owner = d.tenant_id AND k.number = c.data_key \
         WHERE d.pattern IN (?1, ?2) ORDER BY d.pattern = ?1 DESC LIMIT 1",
    )
    .bind(name.as_str().to_owned())
    .bind(wildcard)
    .fetch_optional(connection)
    .await?;
    let Some(row) = found else { return Ok(None) };
    let domain = record(&row)?;
    let certificate = match domain.certificate {
        Some(id) => Some(certificates::record(
            &row,
            id,
            "c_tenant_id",
            "c_created_at",
        )?),
        None => None,
    };
    let data_key = match column::<Option<i64>, _>(&row, "number")? {
        Some(_) => Some(DataKeyRecord {
            owner: KeyOwner::Tenant(domain.tenant.clone()),
            id: unsigned(&row, "number")?,
            wrapped: column(&row, "wrapped")?,
        }),
        None => None,
    };
    Ok(Some(Resolved {
        domain,
        certificate,
        data_key,
    }))
}

/// The domain registered under exactly this pattern.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    pattern: &NamePattern,
) -> Result<Option<DomainRecord>, StoreError> {
    let found = query("SELECT * FROM domain WHERE pattern = ?")
        .bind(pattern.to_string())
        .fetch_optional(connection)
        .await?;
    found.as_ref().map(record).transpose()
}

/// The domain, which must exist and lie within `scope`.
pub(super) async fn require(
    connection: &mut SqliteConnection,
    scope: &TenantScope,
    pattern: &NamePattern,
) -> Result<DomainRecord, ApplyError> {
    let found = find(connection, pattern).await?;
    let domain = found.ok_or_else(|| ApplyError::Missing(format!("domain {pattern}")))?;
    check_scope(scope, &domain.tenant)?;
    Ok(domain)
}

/// The domains that point to a certificate.
pub(super) async fn served_by(
    connection: &mut SqliteConnection,
    certificate: CertificateId,
    most: usize,
) -> Result<Vec<DomainRecord>, StoreError> {
    let most = i64::try_from(most.min(PageRequest::MOST)).unwrap_or(i64::MAX);
    let rows = query("SELECT * FROM domain WHERE certificate_id = ? ORDER BY pattern LIMIT ?")
        .bind(certificate.as_bytes().to_vec())
        .bind(most)
        .fetch_all(connection)
        .await?;
    rows.iter().map(record).collect()
}

/// A page of domains.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    of: Option<&TenantId>,
    request: &PageRequest,
) -> Result<Page<DomainRecord>, StoreError> {
    let after = request.after.clone().unwrap_or_default();
    let rows = match of {
        Some(tenant) => query(
            "SELECT * FROM domain WHERE tenant_id = ? AND pattern > ? ORDER BY pattern LIMIT ?",
        )
        .bind(tenant.as_str().to_owned()),
        None => query("SELECT * FROM domain WHERE pattern > ? ORDER BY pattern LIMIT ?"),
    }
    .bind(after)
    .bind(fetched(request))
    .fetch_all(connection)
    .await?;
    page_of_rows(&rows, request, "pattern", record)
}

/// A page of tenants.
pub(super) async fn tenants(
    connection: &mut SqliteConnection,
    only: Option<&TenantId>,
    request: &PageRequest,
) -> Result<Page<TenantRecord>, StoreError> {
    let rows = match only {
        Some(tenant) => query(
            "SELECT * FROM tenant WHERE tenant_id = ? AND tenant_id > ? ORDER BY tenant_id LIMIT ?",
        )
        .bind(tenant.as_str().to_owned()),
        None => query("SELECT * FROM tenant WHERE tenant_id > ? ORDER BY tenant_id LIMIT ?"),
    }
    .bind(request.after.clone().unwrap_or_default())
    .bind(fetched(request))
    .fetch_all(connection)
    .await?;
    let read = |row: &SqliteRow| {
        Ok(TenantRecord {
            id: tenant(row, "tenant_id")?,
            source: parsed(row, "source", Source::from_word)?,
            created_at: time(row, "created_at")?,
        })
    };
    page_of_rows(&rows, request, "tenant_id", read)
}

fn record(row: &SqliteRow) -> Result<DomainRecord, StoreError> {
    let key: &str = column(row, "pattern")?;
    of_row(format_args!("domain {key}"), read(row))
}

fn read(row: &SqliteRow) -> Result<DomainRecord, StoreError> {
    let certificate: Option<&[u8]> = column(row, "certificate_id")?;
    let upstream: Option<&str> = column(row, "upstream")?;
    Ok(DomainRecord {
        pattern: parsed(row, "pattern", |text| NamePattern::parse(text).ok())?,
        tenant: tenant(row, "tenant_id")?,
        source: parsed(row, "source", Source::from_word)?,
        state: parsed(row, "state", DomainState::from_word)?,
        upstream: upstream.map(UpstreamName::new),
        certificate: certificate.map(certificate_id).transpose()?,
        problem: problem(row, "problem")?,
        memory: parsed_json(row, "memory")?,
        version: unsigned(row, "version")?,
        created_at: time(row, "created_at")?,
    })
}

/// Remembers one thing that was learnt about a domain, beside what is known.
pub(super) async fn remember(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    pattern: &NamePattern,
    learnt: &Learnt,
) -> Result<(), ApplyError> {
    let domain = require(transaction.connection, scope, pattern).await?;
    let memory = domain.memory.with(learnt.clone());
    query("UPDATE domain SET memory = ? WHERE pattern = ?")
        .bind(json_text(&memory)?)
        .bind(pattern.to_string())
        .execute(&mut *transaction.connection)
        .await?;
    Ok(())
}

/// Declares a tenant.
pub(super) async fn put_tenant(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    id: &TenantId,
    source: Source,
) -> Result<(), ApplyError> {
    check_scope(scope, id)?;
    let done = query(
        "INSERT INTO tenant (tenant_id, source, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(id.as_str().to_owned())
    .bind(source.as_str())
    .bind(transaction.now.as_millis())
    .execute(&mut *transaction.connection)
    .await?;
    match done.rows_affected() {
        0 => Ok(()),
        _ => feed::record(transaction, ChangeKind::Tenant, id.as_str()).await,
    }
}

async fn tenant_exists(
    connection: &mut SqliteConnection,
    id: &TenantId,
) -> Result<bool, StoreError> {
    let found = query("SELECT 1 FROM tenant WHERE tenant_id = ?")
        .bind(id.as_str().to_owned())
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// What a registration says.
pub(super) struct Registration<'a> {
    pub(super) pattern: &'a NamePattern,
    pub(super) tenant: &'a TenantId,
    pub(super) source: Source,
    pub(super) upstream: Option<&'a UpstreamName>,
}

/// Registers a domain, or changes one of the same tenant.
pub(super) async fn put(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    wanted: &Registration<'_>,
) -> Result<(), ApplyError> {
    check_scope(scope, wanted.tenant)?;
    let key = wanted.pattern.to_string();
    let upstream = wanted.upstream.map(|name| name.as_str().to_owned());
    match find(transaction.connection, wanted.pattern).await? {
        Some(found) if found.tenant != *wanted.tenant => {
            return Err(ApplyError::OwnedByOther {
                pattern: wanted.pattern.clone(),
                wanted_by: wanted.tenant.clone(),
            });
        }
        Some(found)
            if found.source == wanted.source && found.upstream.as_ref() == wanted.upstream =>
        {
            return Ok(());
        }
        Some(_) => {
            query(
                "UPDATE domain SET source = ?, upstream = ?, version = version + 1 WHERE pattern = ?",
            )
            .bind(wanted.source.as_str())
            .bind(upstream)
            .bind(key.clone())
            .execute(&mut *transaction.connection)
            .await?;
        }
        None => {
            if !tenant_exists(transaction.connection, wanted.tenant).await? {
                return Err(ApplyError::Missing(format!("tenant {}", wanted.tenant)));
            }
            query(
                "INSERT INTO domain (pattern, tenant_id, source, state, upstream, version, created_at) \
                 VALUES (?, ?, ?, ?, ?, 1, ?)",
            )
            .bind(key.clone())
            .bind(wanted.tenant.as_str().to_owned())
            .bind(wanted.source.as_str())
            .bind(DomainState::PendingDns.as_str())
            .bind(upstream)
            .bind(transaction.now.as_millis())
            .execute(&mut *transaction.connection)
            .await?;
        }
    }
    feed::record(transaction, ChangeKind::Domain, &key).await
}

/// Sets a domain's state and problem. One that comes back into service leaves a certificate that may not serve.
pub(super) async fn set_state(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    pattern: &NamePattern,
    state: DomainState,
    problem: Option<&Problem>,
) -> Result<(), ApplyError> {
    let domain = require(transaction.connection, scope, pattern).await?;
    if domain.state == state && domain.problem.as_ref() == problem {
        return Ok(());
    }
    let unusable = match domain.certificate {
        Some(id) if !domain.state.is_served() && state.is_served() => {
            (!retirement::may_serve(transaction, id).await?).then_some(id)
        }
        Some(_) | None => None,
    };
    let (state, certificate) = match unusable {
        Some(_) => (DomainState::PendingDns, None),
        None => (state, domain.certificate),
    };
    let key = pattern.to_string();
    query(
        "UPDATE domain SET state = ?, problem = ?, certificate_id = ?, version = version + 1 WHERE pattern = ?",
    )
    .bind(state.as_str())
    .bind(problem_text(problem))
    .bind(certificate.map(|id| id.as_bytes().to_vec()))
    .bind(key.clone())
    .execute(&mut *transaction.connection)
    .await?;
    if let Some(unusable) = unusable {
        retirement::left(transaction, unusable, None).await?;
    }
    feed::record(transaction, ChangeKind::Domain, &key).await
}

/// A domain in service leaves its certificate, which may not serve any more, and asks for another.
pub(super) async fn leave(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    pattern: &NamePattern,
) -> Result<(), ApplyError> {
    let domain = require(transaction.connection, scope, pattern).await?;
    if !domain.state.is_served() {
        return Ok(());
    }
    let key = pattern.to_string();
    query(
        "UPDATE domain SET state = ?, problem = NULL, certificate_id = NULL, version = version + 1 WHERE pattern = ?",
    )
    .bind(DomainState::PendingDns.as_str())
    .bind(key.clone())
    .execute(&mut *transaction.connection)
    .await?;
    let job = jobs::Request {
        key: &JobKey::Certificate(pattern.clone()),
        tenant: &domain.tenant,
        priority: Priority::Renewal,
        delay: Duration::ZERO,
        urgency: Urgency::HeedBackoff,
    };
    jobs::request(transaction, scope, &job).await?;
    feed::record(transaction, ChangeKind::Domain, &key).await
}

/// Makes a certificate the one that serves a domain.
pub(super) async fn point(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    pattern: &NamePattern,
    certificate: CertificateId,
) -> Result<(), ApplyError> {
    let domain = require(transaction.connection, scope, pattern).await?;
    let names = certificates::names(transaction.connection, certificate).await?;
    let holds = |(tenant, names): &(TenantId, Vec<NamePattern>)| {
        *tenant == domain.tenant && names.iter().any(|name| holds(name, pattern))
    };
    if !names.is_some_and(|found| holds(&found)) {
        return Err(ApplyError::Missing(format!(
            "certificate {certificate} of {} for {pattern}",
            domain.tenant
        )));
    }
    if !retirement::may_serve(transaction, certificate).await? {
        return Err(ApplyError::NotUsable(certificate));
    }
    let state = match domain.state.is_served() {
        true => DomainState::Active,
        false => domain.state,
    };
    if domain.certificate == Some(certificate) && domain.state == state && domain.problem.is_none()
    {
        return Ok(());
    }
    let key = pattern.to_string();
    query(
        "UPDATE domain SET certificate_id = ?, state = ?, problem = NULL, version = version + 1 \
         WHERE pattern = ?",
    )
    .bind(certificate.as_bytes().to_vec())
    .bind(state.as_str())
    .bind(key.clone())
    .execute(&mut *transaction.connection)
    .await?;
    if domain.certificate != Some(certificate) {
        retirement::chosen(transaction, certificate).await?;
        if let Some(before) = domain.certificate {
            retirement::left(transaction, before, Some(certificate)).await?;
        }
    }
    feed::record(transaction, ChangeKind::Domain, &key).await
}

/// Whether a certificate's name serves a domain: it is the same, or the wildcard over it.
fn holds(name: &NamePattern, domain: &NamePattern) -> bool {
    match domain {
        NamePattern::Exact(exact) => name.covers(exact),
        NamePattern::Wildcard(_) => name == domain,
    }
}

/// Removes a domain with its job and its challenges.
pub(super) async fn delete(
    transaction: &mut Transaction<'_>,
    scope: &TenantScope,
    pattern: &NamePattern,
) -> Result<(), ApplyError> {
    let Some(domain) = find(transaction.connection, pattern).await? else {
        return Ok(());
    };
    check_scope(scope, &domain.tenant)?;
    let key = pattern.to_string();
    let statements = [
        "DELETE FROM domain WHERE pattern = ?",
        "DELETE FROM job WHERE job_key = 'certificate:' || ?",
        "DELETE FROM challenge WHERE host = ?",
    ];
    for statement in statements {
        query(statement)
            .bind(key.clone())
            .execute(&mut *transaction.connection)
            .await?;
    }
    if let Some(certificate) = domain.certificate {
        retirement::left(transaction, certificate, None).await?;
    }
    feed::record(transaction, ChangeKind::Domain, &key).await
}
