//! `[on_demand]`: the wait, and the permission hook.

use super::{roots, set, set_from};
use crate::certs::on_demand::Settings;
use crate::certs::permission::{self, Mode};
use crate::config::file::{AskMode, OnDemand};
use crate::config::mistake::{Finding, Mistakes};
use crate::config::source::Source;
use crate::net::Roots;

pub(super) fn settle(section: &OnDemand, mistakes: &Mistakes<'_>) -> Settings {
    let mut settings = Settings::default();
    set(&mut settings.deadline, section.deadline.as_ref());
    set_from(&mut settings.waiters_per_name, section.waiters.as_ref());
    set_from(&mut settings.waiters, section.waiters_total.as_ref());
    let said = section.waiters.as_ref().or(section.waiters_total.as_ref());
    if let Some(at) = said
        && settings.waiters_per_name > settings.waiters
    {
        let finding = Finding::new(format!(
            "{} waiters for one name, but only {} in all",
            settings.waiters_per_name, settings.waiters
        ));
        let finding = finding.expected("waiters not above waiters_total");
        mistakes.add(at.at.clone(), finding.fix("raise waiters_total"));
    }
    settings
}

pub(super) fn permission(
    section: &OnDemand,
    source: &Source,
    mistakes: &Mistakes<'_>,
) -> Option<permission::Settings> {
    let mut settings = permission::Settings::new(section.ask.as_ref()?.value.clone());
    if let Some(mode) = &section.mode {
        settings.mode = match mode.value {
            AskMode::Simple => Mode::Simple,
            AskMode::Rich => Mode::Rich,
        };
    }
    let root = section.ask_root.as_ref();
    if let Some(pem) = root.and_then(|path| roots(path, source, mistakes)) {
        settings.roots = Roots::Pem(pem);
    }
    set(&mut settings.deadline, section.ask_deadline.as_ref());
    set(&mut settings.allow_ttl, section.allow_ttl.as_ref());
    set(&mut settings.deny_ttl, section.deny_ttl.as_ref());
    set(&mut settings.rate, section.ask_rate.as_ref());
    set(
        &mut settings.rate_per_domain,
        section.ask_rate_per_domain.as_ref(),
    );
    Some(settings)
}
