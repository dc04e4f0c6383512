//! `[budget]` and the `limits` of each `[[ca]]`.

use super::set;
use crate::certs::budget::{Limits, Settings};
use crate::config::file::{Budget, Ca, CaKind, CaLimits, KnownLimits, Said};
use crate::model::certificate::CaId;

pub(super) fn settle(section: &Budget, cas: &[Ca]) -> Settings {
    let mut settings = Settings::default();
    let shares = &mut settings.shares;
    set(&mut shares.spend, section.spend.as_ref());
    set(&mut shares.emergencies, section.emergency_reserve.as_ref());
    set(&mut shares.renewals, section.renewal_reserve.as_ref());
    set(&mut shares.visitors, section.handshake_reserve.as_ref());
    set(&mut shares.tenant, section.tenant_share.as_ref());
    // Nobody counts what a CA of our own certifies.
    let public = cas.iter().filter(|ca| ca.kind == CaKind::Acme);
    settings.limits = public
        .map(|ca| (CaId::new(&ca.name.value), limits(ca)))
        .collect();
    settings
}

fn limits(ca: &Ca) -> Limits {
    let directory = ca.directory.as_ref();
    let known = Limits::of_directory(directory.map_or("", |at| at.value.url.as_str()));
    let Some(section) = &ca.limits else {
        return known;
    };
    let mut limits = base(section, known);
    let said = |field: &mut Option<_>, said: &Said| set(field, said.as_ref());
    said(&mut limits.orders, &section.orders);
    said(&mut limits.domain, &section.certificates_per_domain);
    said(&mut limits.exact_set, &section.exact_set);
    said(&mut limits.failures, &section.failures);
    said(&mut limits.consecutive, &section.consecutive_failures);
    set(&mut limits.renewals, section.renewals.as_ref());
    limits
}

/// The numbers that are known, of this authority or another; who counts stays.
fn base(section: &CaLimits, known: Limits) -> Limits {
    let operator = known.operator.clone();
    let base = match section.base.as_ref().map(|at| at.value) {
        Some(KnownLimits::LetsEncrypt) => Limits::lets_encrypt(),
        Some(KnownLimits::LetsEncryptStaging) => Limits::lets_encrypt_staging(),
        Some(KnownLimits::None) => Limits::none(""),
        None => known,
    };
    Limits { operator, ..base }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::certs::budget::{Limit, Renewals};
    use crate::config::mistake::Mistakes;
    use crate::config::source::Source;

    fn settings(text: &str) -> Settings {
        let source = Source::new("proxy.toml", text);
        let mistakes = Mistakes::new(&source);
        let main = crate::config::file::read_main(&source, &mistakes);
        assert!(mistakes.is_empty(), "{text}");
        settle(&main.budget, &main.cas)
    }

    fn limits(of: &str) -> Option<Limits> {
        let ca = "[[ca]]\nname = \"le\"\nkind = \"acme\"\ndirectory";
        let settings = settings(&format!("{ca} = {of}"));
        settings.limits.get(&CaId::new("le")).cloned()
    }

    #[test]
    fn known_authorities_bring_their_limits_and_the_file_has_the_last_word() {
        let hour = Duration::from_secs(3600);
        let production = "\"letsencrypt\"\n";
        assert_eq!(limits(production), Some(Limits::lets_encrypt()));
        let raised = limits(&format!(
            "{production}limits = {{ orders = \"10000/3h\", exact_set = \"none\" }}"
        ));
        let expected = Limits {
            orders: Some(Limit::new(10_000, hour * 3)),
            exact_set: None,
            ..Limits::lets_encrypt()
        };
        assert_eq!(raised, Some(expected));
        let none = limits(&format!("{production}limits = {{ base = \"none\" }}"));
        assert_eq!(none, Some(Limits::none("letsencrypt")));

        let pebble = "\"https://127.0.0.1:14000/dir\"\n";
        assert_eq!(limits(pebble), Some(Limits::none("127.0.0.1:14000")));
        let like = limits(&format!(
            "{pebble}limits = {{ base = \"letsencrypt\", renewals = \"charged\" }}"
        ));
        let expected = Limits {
            operator: "127.0.0.1:14000".into(),
            renewals: Renewals::Charged,
            ..Limits::lets_encrypt()
        };
        assert_eq!(like, Some(expected));
    }

    #[test]
    fn a_ca_of_our_own_is_not_limited_and_shares_are_what_the_file_says() {
        let text =
            "[[ca]]\nname = \"own\"\nkind = \"private\"\n[budget]\nspend = 0.5\ntenant_share = 0.3";
        let settings = settings(text);
        assert!(settings.limits.is_empty());
        assert!((settings.shares.spend - 0.5).abs() < 1e-9);
        assert!((settings.shares.tenant - 0.3).abs() < 1e-9);
        assert!((settings.shares.renewals - 0.2).abs() < 1e-9);
    }
}
