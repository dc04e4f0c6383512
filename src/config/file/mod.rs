//! The file as it is written: one struct per section, a value beside the place where it stands, absent where
//! the key is. What the values mean together is decided in `settings`; defaults belong to each module.
//!
//! A section is one file here and reads itself from its table; messages about a single value come from
//! `value`, about keys from `reader`.

mod admin;
mod budget;
mod ca;
mod ca_limits;
mod certificates;
mod dns;
mod edge;
mod include;
mod keys;
mod limits;
mod listen;
mod on_demand;
mod preflight;
mod route;
mod secret;
mod store;
mod telemetry;
mod tenant;
mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

pub(super) use admin::Admin;
pub(super) use budget::Budget;
pub(super) use ca::{Ca, CaKind, ExternalAccount};
pub(super) use ca_limits::{CaLimits, KnownLimits, Said};
pub(super) use certificates::Certificates;
pub(super) use dns::Dns;
pub(super) use edge::Edge;
pub(super) use keys::Keys;
pub(super) use limits::Limits;
pub(super) use listen::{Listen, OldestTls};
pub(super) use on_demand::{AskMode, OnDemand};
pub(super) use preflight::Preflight;
pub(super) use route::Route;
pub(super) use secret::SecretPlace;
pub(super) use store::Store;
pub(super) use telemetry::{AccessLog, LogFormat, Telemetry, VisitorAddress};
pub(super) use tenant::Tenant;
pub(super) use upstream::{Protocol, Upstream};

use crate::config::mistake::{Finding, Mistakes};
use crate::config::reader::{At, Table};
use crate::config::source::Source;

/// `proxy.toml`.
#[derive(Debug, Default)]
pub(super) struct Main {
    pub(super) include: Vec<At<PathBuf>>,
    pub(super) listen: Listen,
    pub(super) edge: Edge,
    pub(super) telemetry: Telemetry,
    pub(super) admin: Admin,
    pub(super) store: Store,
    pub(super) keys: Keys,
    pub(super) limits: Limits,
    pub(super) dns: Dns,
    pub(super) cas: Vec<Ca>,
    pub(super) budget: Budget,
    pub(super) certificates: Certificates,
    pub(super) preflight: Preflight,
    pub(super) on_demand: OnDemand,
    pub(super) declared: Declared,
}

/// What an included file may hold, and `proxy.toml` too.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) routes: Vec<Route>,
    pub(super) tenants: Vec<Tenant>,
}

/// Reads `proxy.toml`.
pub(super) fn read_main(source: &Source, mistakes: &Mistakes<'_>) -> Main {
    parsed(source, mistakes, |mut top| {
        let main = Main {
            include: include::read(&mut top),
            listen: section(&mut top, "listen", "[listen]", listen::read),
            edge: section(&mut top, "edge", "[edge]", edge::read),
            telemetry: section(&mut top, "telemetry", "[telemetry]", telemetry::read),
            admin: section(&mut top, "admin", "[admin]", admin::read),
            store: section(&mut top, "store", "[store]", store::read),
            keys: section(&mut top, "keys", "[keys]", keys::read),
            limits: section(&mut top, "limits", "[limits]", limits::read),
            dns: section(&mut top, "dns", "[dns]", dns::read),
            cas: sections(&mut top, "ca", "[[ca]]", ca::read),
            budget: section(&mut top, "budget", "[budget]", budget::read),
            certificates: section(
                &mut top,
                "certificates",
                "[certificates]",
                certificates::read,
            ),
            preflight: section(&mut top, "preflight", "[preflight]", preflight::read),
            on_demand: section(&mut top, "on_demand", "[on_demand]", on_demand::read),
            declared: read_declared(&mut top),
        };
        top.finish();
        main
    })
}

/// Reads an included file.
pub(super) fn read_included(source: &Source, mistakes: &Mistakes<'_>) -> Declared {
    const ONLY_MAIN: [&str; 14] = [
        "include",
        "listen",
        "edge",
        "telemetry",
        "admin",
        "store",
        "keys",
        "limits",
        "dns",
        "ca",
        "budget",
        "certificates",
        "preflight",
        "on_demand",
    ];
    parsed(source, mistakes, |mut top| {
        for key in ONLY_MAIN {
            top.forbid(
                key,
                "belongs into the main file: an included one holds tenants, routes and upstreams",
            );
        }
        let declared = read_declared(&mut top);
        top.finish();
        declared
    })
}

fn read_declared(top: &mut Table<'_>) -> Declared {
    Declared {
        upstreams: sections(top, "upstream", "[[upstream]]", upstream::read),
        routes: sections(top, "route", "[[route]]", route::read),
        tenants: sections(top, "tenant", "[[tenant]]", tenant::read),
    }
}

fn section<'a, T: Default>(
    top: &mut Table<'a>,
    key: &'static str,
    title: &'static str,
    read: impl FnOnce(Table<'a>) -> T,
) -> T {
    top.table(key, title).map(read).unwrap_or_default()
}

fn sections<'a, T>(
    top: &mut Table<'a>,
    key: &'static str,
    title: &'static str,
    read: impl FnMut(Table<'a>) -> Option<T>,
) -> Vec<T> {
    let tables = top.tables(key, title).into_iter();
    tables.filter_map(read).collect()
}

/// Parses the text and reads its top table, or records why it is not TOML, and what else is wrong in the parts
/// that are.
fn parsed<T: Default>(
    source: &Source,
    mistakes: &Mistakes<'_>,
    read: impl FnOnce(Table<'_>) -> T,
) -> T {
    let whole = match DeTable::parse(source.text()) {
        Ok(table) => return read(Table::new(table.get_ref(), 0..0, "", mistakes)),
        Err(error) => error,
    };
    let rest = without_broken_blocks(source, mistakes);
    match DeTable::parse(&rest) {
        Ok(table) => {
            let others = Mistakes::new(source);
            read(Table::new(table.get_ref(), 0..0, "", &others));
            // What is not there may stand where no TOML is.
            let others = others.into_sorted().into_iter();
            mistakes.take_over(others.filter(|mistake| !mistake.is_absence()));
        }
        Err(error) => mistakes.add(error.span().unwrap_or(0..0), syntax(error.message())),
    }
    if mistakes.is_empty() {
        mistakes.add(whole.span().unwrap_or(0..0), syntax(whole.message()));
    }
    T::default()
}

/// The text with blanks in place of every block that is not TOML by itself; each is recorded, with its first
/// error, for those after it mostly follow from it.
fn without_broken_blocks(source: &Source, mistakes: &Mistakes<'_>) -> String {
    let mut rest = String::with_capacity(source.text().len());
    for block in source.blocks() {
        let text = source.text().get(block.clone()).unwrap_or_default();
        match DeTable::parse(text) {
            Ok(_) => rest.push_str(text),
            Err(error) => {
                let at = error.span().unwrap_or(0..0);
                let at = block.start + at.start..block.start + at.end;
                mistakes.add(at, syntax(error.message()));
                rest.extend(
                    text.bytes()
                        .map(|byte| if byte == b'\n' { '\n' } else { ' ' }),
                );
            }
        }
    }
    rest
}

fn syntax(message: &str) -> Finding {
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let finding = Finding::new(format!("not valid TOML: {what}"));
    match (expected, what) {
        (Some(expected), _) => finding.expected(expected),
        (None, "duplicate key") => finding.fix("keep one of them"),
        (None, _) => finding,
    }
}

/// Seconds, for the bounds of durations.
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
