//! `vestibule budget forecast`: how long new names take at the limits that the configuration tells.

use std::io::Write;

use serde_json::json;

use super::reach::configuration;
use super::{ClientError, ForecastOptions};
use crate::certs::budget::forecast::{Estimate, Forecast, Import, forecast as estimate};
use crate::certs::budget::{Book, Limits, Settings};
use crate::config::load::load;
use crate::config::mistake::Report;
use crate::model::certificate::CaId;

/// Writes an estimate for each CA with limits.
pub(super) fn forecast(
    options: &ForecastOptions,
    output: &mut dyn Write,
) -> Result<(), ClientError> {
    let loaded = load(&configuration(options.config.as_deref())).map_err(|mistakes| {
        ClientError::Configuration(format!(
            "the configuration cannot be used\n\n{}",
            Report(&mistakes)
        ))
    })?;
    let text = told(options, &loaded.settings.budget)?;
    output
        .write_all(text.as_bytes())
        .map_err(ClientError::Output)
}

fn told(options: &ForecastOptions, settings: &Settings) -> Result<String, ClientError> {
    let wanted = |ca: &CaId| options.ca.as_deref().is_none_or(|name| ca.as_str() == name);
    let books = settings.limits.iter().filter(|(ca, _)| wanted(ca));
    let texts = books.map(|(ca, limits)| of_ca(options, settings, (ca, limits)));
    let text: String = texts.collect();
    match (text.is_empty(), &options.ca) {
        (false, _) => Ok(text),
        (true, None) if options.json => Ok(String::new()),
        (true, None) => {
            Ok("no CA with limits is configured: nothing holds new names back\n".to_owned())
        }
        (true, Some(name)) => Err(ClientError::Configuration(format!(
            "no [[ca]] of kind \"acme\" is named {name:?}"
        ))),
    }
}

fn of_ca(options: &ForecastOptions, settings: &Settings, (ca, limits): (&CaId, &Limits)) -> String {
    let book = Book {
        ca: ca.clone(),
        limits: limits.clone(),
        shares: settings.shares,
    };
    let import = Import {
        names: options.names,
        per_domain: options.per_domain,
    };
    let Forecast { full, ours } = estimate(&book, import);
    let names = options.names;
    let percent = (settings.shares.spend * 100.0).round();
    if options.json {
        let told = json!({
            "ca": ca.as_str(), "names": names, "per_domain": options.per_domain,
            "full": machine_readable(&full), "ours": machine_readable(&ours), "spend_percent": percent,
        });
        return format!("{told}\n");
    }
    if ours.bound_by.is_none() {
        return format!("{ca}: no limit holds {names} new names back\n");
    }
    format!(
        "{ca}: {names} new names take {} at the full limit, {} at the {percent} % that we spend\n",
        written(&full),
        written(&ours)
    )
}

fn machine_readable(estimate: &Estimate) -> serde_json::Value {
    json!({
        "seconds": estimate.takes.as_secs(),
        "bound_by": estimate.bound_by.map(|family| family.as_str()),
    })
}

/// `521 days (by orders)`.
fn written(estimate: &Estimate) -> String {
    let by = estimate.bound_by.map_or("", |family| family.as_str());
    match estimate.days() {
        0 => "no time".to_owned(),
        1 => format!("a day (by {by})"),
        days => format!("{days} days (by {by})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(names: u64, per_domain: u64, ca: Option<&str>) -> Result<String, ClientError> {
        let settings = Settings {
            limits: [
                (CaId::new("le"), Limits::lets_encrypt()),
                (CaId::new("pebble"), Limits::none("pebble")),
            ]
            .into(),
            ..Settings::default()
        };
        let options = ForecastOptions {
            names,
            per_domain,
            ca: ca.map(str::to_owned),
            config: None,
            json: false,
        };
        told(&options, &settings)
    }

    #[test]
    fn machines_get_an_object_a_line() {
        let settings = Settings {
            limits: [(CaId::new("le"), Limits::lets_encrypt())].into(),
            ..Settings::default()
        };
        let options = ForecastOptions {
            names: 1000,
            per_domain: 1000,
            ca: None,
            config: None,
            json: true,
        };
        let told: serde_json::Value =
            serde_json::from_str(&told(&options, &settings).unwrap()).unwrap();
        assert_eq!((&told["ca"], &told["names"]), (&json!("le"), &json!(1000)));
        assert_eq!(told["ours"]["bound_by"], "domain");
        assert_eq!(told["spend_percent"], 80.0);
        let days = told["full"]["seconds"].as_u64().unwrap() / 86_400;
        assert_eq!(days, 133);
    }

    #[test]
    fn a_million_names_take_417_days_and_521_at_80_percent() {
        assert_eq!(
            told_of(1_000_000, 1, None).unwrap(),
            "le: 1000000 new names take 417 days (by orders) at the full limit, 521 days (by orders) at the 80 % that we spend\n\
             pebble: no limit holds 1000000 new names back\n"
        );
    }

    #[test]
    fn one_registered_domain_or_one_ca_may_be_asked_for() {
        let of_domain = told_of(1000, 1000, Some("le")).unwrap();
        assert!(of_domain.starts_with("le: 1000 new names take 133 days (by domain)"));
        assert!(!of_domain.contains("pebble"));
        let few = told_of(5, 1, Some("le")).unwrap();
        assert!(few.contains("take no time at the full limit"), "{few}");
        let unknown = told_of(5, 1, Some("other")).unwrap_err();
        assert!(unknown.to_string().contains("\"other\""), "{unknown}");
    }
}
