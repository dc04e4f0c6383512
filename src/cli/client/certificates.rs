//! Certificates listed, and one of them shown: by its id, or by the serial number of a file that somebody found.

use std::io::Write;

use serde_json::Value;

use crate::cli::client::connection::{ClientError, Connection, Method};
use crate::cli::client::{ClientOptions, ListOptions, Listed, connect, pages_of, show, write_one};
use crate::model::certificate::CertificateId;

/// `vestibule certificate list`.
pub(super) async fn list(
    list: &ListOptions,
    serial: Option<&str>,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let listed = Listed {
        resource: "certificates",
        only: serial.map(|serial| ("serial", serial)),
        columns: show::CERTIFICATES,
        row: show::named,
    };
    pages_of(list, &listed, output).await
}

/// `vestibule certificate show`.
pub(super) async fn show(
    client: &ClientOptions,
    wanted: &str,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let mut connection = connect(client).await?;
    let id = match is_id(wanted) {
        true => wanted.to_owned(),
        false => id_of_serial(&mut connection, wanted).await?,
    };
    let path = ["certificates", id.as_str()];
    let answer = connection.ask(Method::Get, &path, &[]).await?;
    write_one(client, &answer, show::certificate, output)
}

/// An id has hyphens, which no serial number has.
fn is_id(text: &str) -> bool {
    text.contains('-') && text.parse::<CertificateId>().is_ok()
}

async fn id_of_serial(connection: &mut Connection, serial: &str) -> Result<String, ClientError> {
    let query = [("serial", serial)];
    let page = connection
        .ask(Method::Get, &["certificates"], &query)
        .await?;
    let found = show::items(&page, "items");
    let ids: Vec<&str> = found
        .iter()
        .filter_map(|item| item.get("id").and_then(Value::as_str))
        .collect();
    let refused = |detail: String| ClientError::Problem {
        title: "Not found".to_owned(),
        detail,
        mistakes: Vec::new(),
    };
    match ids.as_slice() {
        [id] => Ok((*id).to_owned()),
        [] => Err(refused(format!(
            "there is no certificate with the id or serial number {serial}"
        ))),
        several => Err(refused(format!(
            "{} certificates have the serial number {serial}; name one by its id: {}",
            several.len(),
            several.join(", ")
        ))),
    }
}
