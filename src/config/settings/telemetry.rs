//! `[telemetry]`.

use tracing_subscriber::EnvFilter;

use super::set_from;
use crate::config::file::{AccessLog, LogFormat, Telemetry, VisitorAddress};
use crate::config::mistake::{Finding, Mistakes};
use crate::config::source::Source;
use crate::telemetry::settings::{AccessOutput, ClientAddress, Format, Settings};

pub(super) fn settle(section: &Telemetry, source: &Source, mistakes: &Mistakes<'_>) -> Settings {
    let mut settings = Settings::default();
    if let Some(address) = &section.address {
        settings.address = address.value;
    }
    if let Some(format) = &section.log_format {
        settings.format = match format.value {
            LogFormat::Json => Format::Json,
            LogFormat::Text => Format::Text,
        };
    }
    if let Some(filter) = &section.log_filter {
        if let Err(error) = EnvFilter::builder().parse(&filter.value) {
            let finding = Finding::new(format!("log_filter in [telemetry]: {error}")).expected(
                "\"error\", \"warn\", \"info\", \"debug\", or a list such as \"info,vestibule::certs=debug\"",
            );
            mistakes.add(filter.at.clone(), finding);
        }
        settings.filter.clone_from(&filter.value);
    }
    if let Some(output) = &section.access_log {
        settings.access = match &output.value {
            AccessLog::Stdout => AccessOutput::Stdout,
            AccessLog::Off => AccessOutput::Off,
            AccessLog::File(path) => AccessOutput::File(source.resolve(path)),
        };
    }
    if let Some(address) = &section.client_address {
        settings.client_address = match address.value {
            VisitorAddress::Full => ClientAddress::Full,
            VisitorAddress::Truncated => ClientAddress::Truncated,
            VisitorAddress::None => ClientAddress::None,
        };
    }
    set_from(&mut settings.worst_tenants, section.worst_tenants.as_ref());
    settings
}
