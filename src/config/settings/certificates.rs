//! `[certificates]` and `[preflight]`.

use super::{set, set_from};
use crate::certs::settings::Settings;
use crate::config::file::{Certificates, Preflight};

pub(super) fn settle(section: &Certificates, preflight: &Preflight) -> Settings {
    let mut settings = Settings::default();
    set(&mut settings.obtain, section.obtain.as_ref());
    set(&mut settings.challenges, section.challenges.as_ref());
    let renewal = &mut settings.renewal;
    set(&mut renewal.fraction, section.renew_after.as_ref());
    set(
        &mut renewal.short_fraction,
        section.renew_short_after.as_ref(),
    );
    set(&mut renewal.short, section.short_lifetime.as_ref());
    set(&mut renewal.first_retry, section.first_retry.as_ref());
    set_from(&mut settings.parallel, section.parallel.as_ref());
    set(
        &mut settings.job_deadline,
        section.attempt_deadline.as_ref(),
    );
    set(&mut settings.lease, section.lease.as_ref());
    let checks = &mut settings.preflight;
    set(&mut checks.mode, preflight.mode.as_ref());
    set(&mut checks.deadline, preflight.deadline.as_ref());
    set(&mut checks.dial, preflight.dial.as_ref());
    set(&mut checks.recheck, preflight.recheck.as_ref());
    set(&mut checks.moved_after, preflight.moved_after.as_ref());
    settings
}
