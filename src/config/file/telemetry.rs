//! `[telemetry]`: what is told, where, and how much of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::reader::{At, Table, Value, Wrong};
use crate::config::value;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum LogFormat {
    Json,
    Text,
}

/// Where the record of each request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum AccessLog {
    Stdout,
    File(PathBuf),
    Off,
}

/// How much of a visitor's address is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum VisitorAddress {
    Full,
    Truncated,
    None,
}

#[derive(Debug, Default)]
pub(in crate::config) struct Telemetry {
    pub(in crate::config) address: Option<At<Option<SocketAddr>>>,
    pub(in crate::config) log_format: Option<At<LogFormat>>,
    pub(in crate::config) log_filter: Option<At<String>>,
    pub(in crate::config) access_log: Option<At<AccessLog>>,
    pub(in crate::config) client_address: Option<At<VisitorAddress>>,
    pub(in crate::config) worst_tenants: Option<At<u32>>,
}

const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const ADDRESSES: &[(&str, VisitorAddress)] = &[
    ("full", VisitorAddress::Full),
    ("truncated", VisitorAddress::Truncated),
    ("none", VisitorAddress::None),
];

pub(super) fn read(mut table: Table<'_>) -> Telemetry {
    let telemetry = Telemetry {
        address: table.optional("address", address),
        log_format: table.optional("log_format", value::word(FORMATS)),
        log_filter: table.optional("log_filter", value::text),
        access_log: table.optional("access_log", access_log),
        client_address: table.optional("client_address", value::word(ADDRESSES)),
        worst_tenants: table.optional("worst_tenants", value::count(0..=100)),
    };
    table.finish();
    telemetry
}

fn access_log(value: &Value<'_>) -> Result<AccessLog, Wrong> {
    const EXPECTED: &str = r#""stdout", "off" or { file = "path" }"#;
    if let Some(mut table) = value.table("access_log of [telemetry]") {
        let file = table.required("file", "the path of a file", value::path);
        table.finish();
        let file = file.ok_or_else(Wrong::told)?;
        return Ok(AccessLog::File(file.value));
    }
    match value.text() {
        Some("stdout") => Ok(AccessLog::Stdout),
        Some("off") => Ok(AccessLog::Off),
        Some(path) if path.contains(['/', '.']) => {
            Err(Wrong::expected(EXPECTED).fix(format!("write {{ file = {path:?} }}")))
        }
        _ => Err(Wrong::expected(EXPECTED)),
    }
}

/// An address, or nothing where the file says `"off"`.
fn address(value: &Value<'_>) -> Result<Option<SocketAddr>, Wrong> {
    match value.text() {
        Some("off") => Ok(None),
        _ => value::socket_address(value).map(Some),
    }
}
