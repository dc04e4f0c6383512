//! From columns to values, and pages of rows.

use std::fmt;

use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row as _, Sqlite, Type};

use crate::base::clock::Timestamp;
use crate::model::certificate::CertificateId;
use crate::model::problem::{Actor, Problem, ProblemCode};
use crate::model::{TenantId, TenantScope};
use crate::store::error::StoreError;
use crate::store::{Page, PageRequest, Unreadable};

/// The value of a column.
pub(super) fn column<'r, T, I>(row: &'r SqliteRow, index: I) -> Result<T, StoreError>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
    I: ColumnIndex<SqliteRow>,
{
    Ok(row.try_get(index)?)
}

/// The value of a column that holds text, read by `parse`.
pub(super) fn parsed<T>(
    row: &SqliteRow,
    name: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let text: &str = column(row, name)?;
    parse(text).ok_or_else(|| StoreError::Corrupt(format!("{name} cannot be {text:?}")))
}

/// The value in a column that holds JSON.
pub(super) fn parsed_json<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    name: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(column(row, name)?)
        .map_err(|error| StoreError::Corrupt(format!("{name}: {error}")))
}

/// A value for a column that holds JSON.
pub(super) fn json_text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Corrupt(format!("a value that is no JSON: {error}")))
}

/// The time in a column.
pub(super) fn time(row: &SqliteRow, name: &'static str) -> Result<Timestamp, StoreError> {
    column::<i64, _>(row, name).map(Timestamp::from_millis)
}

/// The tenant in a column.
pub(super) fn tenant(row: &SqliteRow, name: &'static str) -> Result<TenantId, StoreError> {
    parsed(row, name, |text| TenantId::parse(text).ok())
}

/// A number that is never negative.
pub(super) fn unsigned<T: TryFrom<i64>>(
    row: &SqliteRow,
    name: &'static str,
) -> Result<T, StoreError> {
    let value: i64 = column(row, name)?;
    T::try_from(value).map_err(|_range| StoreError::Corrupt(format!("{name} cannot be {value}")))
}

/// The certificate's identity in a column.
pub(super) fn certificate_id(bytes: &[u8]) -> Result<CertificateId, StoreError> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(CertificateId::from_bytes(bytes)),
        Err(_length) => Err(StoreError::Corrupt(
            "a certificate's identity has not 16 bytes".to_owned(),
        )),
    }
}

/// A number for a column; what does not fit is stored as the largest that does.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A problem as a column holds it.
#[derive(serde::Serialize, serde::Deserialize)]
struct ProblemRow {
    code: ProblemCode,
    detail: String,
    evidence: Vec<String>,
    fix: Option<String>,
    first_seen: i64,
    last_seen: i64,
    next_retry_at: Option<i64>,
}

/// A problem for a column.
pub(super) fn problem_text(problem: Option<&Problem>) -> Option<String> {
    let problem = problem?;
    let row = ProblemRow {
        code: problem.code,
        detail: problem.detail.clone(),
        evidence: problem.evidence.clone(),
        fix: problem.fix.clone(),
        first_seen: problem.first_seen.as_millis(),
        last_seen: problem.last_seen.as_millis(),
        next_retry_at: problem.next_retry_at.map(Timestamp::as_millis),
    };
    serde_json::to_string(&row).ok()
}

/// The problem in a column.
pub(super) fn problem(row: &SqliteRow, name: &'static str) -> Result<Option<Problem>, StoreError> {
    let Some(text) = column::<Option<&str>, _>(row, name)? else {
        return Ok(None);
    };
    let row: ProblemRow = serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("{name}: {error}")))?;
    Ok(Some(Problem {
        code: row.code,
        actor: actor(row.code),
        detail: row.detail,
        evidence: row.evidence,
        fix: row.fix,
        first_seen: Timestamp::from_millis(row.first_seen),
        last_seen: Timestamp::from_millis(row.last_seen),
        next_retry_at: row.next_retry_at.map(Timestamp::from_millis),
    }))
}

const fn actor(code: ProblemCode) -> Actor {
    code.actor()
}

/// The tenant to list for a caller that asks for `wanted` within `scope`: one, or all; nothing where the scope does
/// not reach the one that is wanted.
pub(super) fn narrowed<'a>(
    scope: &'a TenantScope,
    wanted: Option<&'a TenantId>,
) -> Option<Option<&'a TenantId>> {
    match (scope.only(), wanted) {
        (Some(own), Some(wanted)) => (own == wanted).then_some(Some(own)),
        (own, wanted) => Some(own.or(wanted)),
    }
}

/// The items that a page asks for, within the largest size.
pub(super) fn size(page: &PageRequest) -> usize {
    page.most.clamp(1, PageRequest::MOST)
}

/// One more than the page has, to see whether another follows.
pub(super) fn fetched(page: &PageRequest) -> i64 {
    i64::try_from(size(page))
        .unwrap_or(i64::MAX)
        .saturating_add(1)
}

/// A page of what was fetched by [`fetched`].
pub(super) fn page<T>(
    mut items: Vec<T>,
    page: &PageRequest,
    key: impl Fn(&T) -> String,
) -> Page<T> {
    let more = items.len() > size(page);
    items.truncate(size(page));
    let next = items.last().filter(|_| more).map(key);
    Page {
        items,
        next,
        unreadable: Vec::new(),
    }
}

/// A page of rows that were fetched by [`fetched`], each named by the text in its column `key`. One that cannot be read is
/// told apart from the others, for it must not keep them from whoever asks.
pub(super) fn page_of_rows<T>(
    rows: &[SqliteRow],
    request: &PageRequest,
    key: &'static str,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let mut page = nothing();
    for row in rows.iter().take(size(request)) {
        match read(row) {
            Ok(item) => page.items.push(item),
            Err(StoreError::Corrupt(why)) => {
                let key: String = column(row, key)?;
                tracing::error!(
                    row = key,
                    error = why,
                    "a stored row cannot be read: left out"
                );
                page.unreadable.push(Unreadable { key, why });
            }
            Err(error) => return Err(error),
        }
    }
    if rows.len() > size(request) {
        let last = rows.get(size(request).saturating_sub(1));
        page.next = last.map(|row| column(row, key)).transpose()?;
    }
    Ok(page)
}

/// What was read of a row; where it cannot be, the row is named.
pub(super) fn of_row<T>(
    row: impl fmt::Display,
    read: Result<T, StoreError>,
) -> Result<T, StoreError> {
    match read {
        Err(StoreError::Corrupt(why)) => Err(StoreError::Corrupt(format!("{row}: {why}"))),
        read => read,
    }
}

/// A page without items.
pub(super) const fn nothing<T>() -> Page<T> {
    Page {
        items: Vec::new(),
        next: None,
        unreadable: Vec::new(),
    }
}
