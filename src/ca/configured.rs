//! The adapters of the configured authorities, through changes of the configuration: an authority that is configured as
//! before keeps its adapter, and with it its connections and whatever is known by it.

use std::sync::Arc;

use super::{CaSettings, CertificateAuthority, Kind, Settings, acme, private};
use crate::base::clock::Clock;
use crate::base::task::Tasks;
use crate::model::certificate::CaId;
use crate::net::error::SetupError;

/// The authorities, in the order in which they are preferred.
#[derive(Clone, Debug, Default)]
pub struct Configured(Vec<(CaSettings, Arc<dyn CertificateAuthority>)>);

impl Configured {
    /// The authorities of `settings`, each new or changed one with an adapter that is made now. Asks nobody yet: an
    /// authority that is down stops no start.
    ///
    /// # Errors
    /// [`SetupError`] where an authority's roots cannot be read, with its name.
    pub fn changed_to(
        &self,
        settings: &Settings,
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, (CaId, SetupError)> {
        let authorities = settings.authorities.iter().map(|ca| {
            let before = self.0.iter().find(|(before, _)| before == ca);
            let adapter = match before {
                Some((_, adapter)) => Arc::clone(adapter),
                None => adapter(ca, tasks, clock).map_err(|error| (ca.id.clone(), error))?,
            };
            Ok((ca.clone(), adapter))
        });
        authorities.collect::<Result<_, _>>().map(Self)
    }

    /// Their adapters.
    #[must_use]
    pub fn adapters(&self) -> Vec<Arc<dyn CertificateAuthority>> {
        let adapters = self.0.iter().map(|(_, adapter)| Arc::clone(adapter));
        adapters.collect()
    }
}

/// The adapter of every authority in `settings`, made now: see [`Configured::changed_to`].
///
/// # Errors
/// As there.
pub fn authorities(
    settings: &Settings,
    tasks: &Tasks,
    clock: &Clock,
) -> Result<Vec<Arc<dyn CertificateAuthority>>, (CaId, SetupError)> {
    let made = Configured::default().changed_to(settings, tasks, clock);
    made.map(|made| made.adapters())
}

fn adapter(
    ca: &CaSettings,
    tasks: &Tasks,
    clock: &Clock,
) -> Result<Arc<dyn CertificateAuthority>, SetupError> {
    Ok(match &ca.kind {
        Kind::Acme(settings) => Arc::new(acme::Acme::new(
            ca.id.clone(),
            settings.clone(),
            tasks,
            clock.clone(),
        )?),
        Kind::Private(settings) => Arc::new(private::Private::new(
            ca.id.clone(),
            settings.clone(),
            clock.corrected(),
        )),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::Roots;

    fn settings(of: &[(&str, Kind)]) -> Settings {
        let authorities = of.iter().map(|(name, kind)| CaSettings {
            id: CaId::new(name),
            kind: kind.clone(),
        });
        Settings {
            authorities: authorities.collect(),
        }
    }

    fn public(contact: &str) -> Kind {
        let mut settings = acme::Settings::new("https://ca.test/directory");
        settings.contact.push(contact.to_owned());
        Kind::Acme(settings)
    }

    fn private(days: u64) -> Kind {
        Kind::Private(private::Settings {
            leaf_lifetime: Duration::from_secs(days * 86_400),
            ..private::Settings::default()
        })
    }

    #[tokio::test]
    async fn what_is_configured_as_before_keeps_its_adapter_wherever_it_stands() {
        let (tasks, clock) = (Tasks::new(), Clock::system());
        let change = |from: &Configured, to| from.changed_to(&to, &tasks, &clock).unwrap();
        let first = settings(&[("a", public("a@x.test")), ("b", private(7))]);
        let first = change(&Configured::default(), first);
        let [a, b] = &first.adapters()[..] else {
            panic!("two authorities");
        };
        let moved = settings(&[
            ("b", private(7)),
            ("c", private(7)),
            ("a", public("a@x.test")),
        ]);
        let moved = change(&first, moved);
        let [b2, c, a2] = &moved.adapters()[..] else {
            panic!("three authorities");
        };
        assert!(Arc::ptr_eq(a, a2) && Arc::ptr_eq(b, b2) && !Arc::ptr_eq(b, c));
        let changed = change(
            &moved,
            settings(&[("a", public("b@x.test")), ("b", private(8))]),
        );
        let [a3, b3] = &changed.adapters()[..] else {
            panic!("two authorities");
        };
        assert!(!Arc::ptr_eq(a, a3) && !Arc::ptr_eq(b, b3));
        assert_eq!((a3.id(), b3.id()), (a.id(), b.id()));
    }

    #[tokio::test]
    async fn roots_that_cannot_be_read_are_told_with_the_authority_that_names_them() {
        let mut unreadable = acme::Settings::new("https://ca.test/directory");
        unreadable.roots = Roots::Pem(Arc::from(&b"no certificate"[..]));
        let settings = settings(&[("own", private(7)), ("broken", Kind::Acme(unreadable))]);
        let made = Configured::default().changed_to(&settings, &Tasks::new(), &Clock::system());
        let (ca, _error) = made.unwrap_err();
        assert_eq!(ca, CaId::new("broken"));
    }
}
