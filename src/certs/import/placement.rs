//! Whose a brought certificate is, and which domains it serves: pure.
//!
//! Every name of a certificate must be the one tenant's: a certificate is never served across tenants, and a name that
//! nobody has registered here is more likely a mistake than a wish. Only a wildcard may reach further than what is
//! registered, for it is served for the domains below it and for nothing else.

use std::fmt;

use crate::model::{NamePattern, TenantId};

/// The most domains that one import changes at once.
pub const MOST_DOMAINS: usize = 1000;

/// A name of the certificate, and the domain that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: NamePattern,
    /// The domain registered under it, or under the wildcard over it, with its tenant; nothing where there is none.
    pub held_by: Option<(NamePattern, TenantId)>,
}

/// What the bringer said.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The tenant; by default the one that owns the names.
    pub tenant: Option<&'a TenantId>,
    /// Only these domains, each registered; by default all that the certificate covers.
    pub domains: &'a [(NamePattern, Option<TenantId>)],
}

/// Why a certificate serves nobody here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// None of its names is registered.
    Nobody(NamePattern),
    /// Its names belong to several tenants.
    SeveralTenants(TenantId, TenantId),
    /// This name belongs to another tenant.
    OtherTenant(NamePattern),
    /// This name is not registered.
    NotRegistered(NamePattern),
    /// It does not hold this domain's name.
    NotCovered(NamePattern),
    /// It holds no registered domain of its own: the names lie below wildcard domains, which need a wildcard.
    OnlyBelowWildcard(NamePattern),
    /// It covers more domains than one import changes.
    TooMany(usize),
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(name) => write!(
                f,
                "{name} is not a registered domain, nor is any other name of the certificate: register it first, or \
                 say with --domain which domain a wildcard is for"
            ),
            Self::SeveralTenants(one, other) => write!(
                f,
                "its names belong to several tenants, {one} and {other}: a certificate serves one tenant alone"
            ),
            Self::OtherTenant(name) => write!(f, "{name} belongs to another tenant"),
            Self::NotRegistered(name) => write!(
                f,
                "{name} is not a domain of the tenant: register it, or bring a certificate without it"
            ),
            Self::NotCovered(name) => write!(f, "it does not hold {name}"),
            Self::OnlyBelowWildcard(name) => write!(
                f,
                "{name} is served as part of a wildcard domain: register {name} itself, or bring a certificate for \
                 the wildcard"
            ),
            Self::TooMany(count) => write!(
                f,
                "it covers {count} domains, more than {MOST_DOMAINS} at once: name some of them with --domain"
            ),
        }
    }
}

impl std::error::Error for PlacementError {}

/// The one tenant that a certificate with these names is for.
///
/// # Errors
/// [`PlacementError`].
pub fn tenant(names: &[Named], wish: Wish<'_>) -> Result<TenantId, PlacementError> {
    let owners = names.iter().filter_map(|named| named.held_by.as_ref());
    let wished = wish.domains.iter().filter_map(|(_, owner)| owner.as_ref());
    let mut owners = owners.map(|(_, tenant)| tenant).chain(wished);
    let tenant = match (wish.tenant, owners.next()) {
        (Some(tenant), _) => tenant.clone(),
        (None, Some(first)) => match owners.find(|owner| *owner != first) {
            Some(other) => {
                return Err(PlacementError::SeveralTenants(first.clone(), other.clone()));
            }
            None => first.clone(),
        },
        (None, None) => {
            let first = names.first().map(|named| named.name.clone());
            return Err(first.map_or(PlacementError::TooMany(0), PlacementError::Nobody));
        }
    };
    for named in names {
        if matches!(&named.held_by, Some((_, owner)) if *owner != tenant) {
            return Err(PlacementError::OtherTenant(named.name.clone()));
        }
    }
    Ok(tenant)
}

/// The domains that the certificate serves from now on. `below` are the registered domains of the tenant that lie below
/// wildcards of the certificate.
///
/// # Errors
/// [`PlacementError`].
pub fn domains(
    names: &[Named],
    below: &[NamePattern],
    wish: Wish<'_>,
) -> Result<Vec<NamePattern>, PlacementError> {
    for Named { name, held_by } in names {
        let reaches = below.iter().any(|domain| holds(name, domain));
        if held_by.is_none() && !reaches {
            return Err(PlacementError::NotRegistered(name.clone()));
        }
    }
    let registered = names.iter().filter_map(|named| match &named.held_by {
        Some((domain, _)) if *domain == named.name => Some(domain),
        _ => None,
    });
    let mut domains: Vec<NamePattern> = registered.chain(below).cloned().collect();
    domains.sort_unstable();
    domains.dedup();
    if !wish.domains.is_empty() {
        for (wished, owner) in wish.domains {
            if owner.is_none() {
                return Err(PlacementError::NotRegistered(wished.clone()));
            }
            if !domains.contains(wished) {
                return Err(PlacementError::NotCovered(wished.clone()));
            }
        }
        domains.retain(|domain| wish.domains.iter().any(|(wished, _)| wished == domain));
    }
    match (domains.len(), names.first()) {
        (0, Some(first)) => Err(PlacementError::OnlyBelowWildcard(first.name.clone())),
        (1..=MOST_DOMAINS, _) => Ok(domains),
        (count, _) => Err(PlacementError::TooMany(count)),
    }
}

/// Whether a certificate's name serves a domain: it is the same, or the wildcard over it.
#[must_use]
pub fn holds(name: &NamePattern, domain: &NamePattern) -> bool {
    match domain {
        NamePattern::Exact(exact) => name.covers(exact),
        NamePattern::Wildcard(_) => name == domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    fn slug(text: &str) -> TenantId {
        TenantId::parse(text).unwrap()
    }

    /// Each as `name`, or `name domain tenant`.
    fn names(texts: &[&str]) -> Vec<Named> {
        let named = texts.iter().map(|text| {
            let mut words = text.split(' ');
            let name = pattern(words.next().unwrap());
            let held_by = words.next().map(|domain| {
                let tenant = words.next().unwrap();
                (pattern(domain), slug(tenant))
            });
            Named { name, held_by }
        });
        named.collect()
    }

    fn placed(
        texts: &[&str],
        below: &[&str],
        wished: &[&str],
    ) -> Result<(String, Vec<String>), PlacementError> {
        let named = names(texts);
        let wished: Vec<_> = names(wished)
            .into_iter()
            .map(|named| (named.name, named.held_by.map(|(_, tenant)| tenant)))
            .collect();
        let wish = Wish {
            tenant: None,
            domains: &wished,
        };
        let below: Vec<_> = below.iter().map(|text| pattern(text)).collect();
        let tenant = tenant(&named, wish)?;
        let domains = domains(&named, &below, wish)?;
        let texts = domains.iter().map(ToString::to_string).collect();
        Ok((tenant.to_string(), texts))
    }

    #[test]
    fn a_certificate_serves_every_registered_domain_that_it_covers() {
        let served = |texts: &[&str], below: &[&str], wished: &[&str]| {
            let (tenant, domains) = placed(texts, below, wished).unwrap();
            assert_eq!(tenant, "acme");
            domains
        };
        let two = ["a.test a.test acme", "b.test b.test acme"];
        assert_eq!(served(&two, &[], &[]), ["a.test", "b.test"]);
        assert_eq!(served(&two, &[], &["b.test b.test acme"]), ["b.test"]);
        let wild = ["*.a.test *.a.test acme"];
        let below = ["x.a.test", "y.a.test"];
        assert_eq!(
            served(&wild, &below, &[]),
            ["x.a.test", "y.a.test", "*.a.test"]
        );
        // A wildcard that is not registered serves what lies below it.
        let unregistered = ["*.a.test", "a.test a.test acme"];
        assert_eq!(
            served(&unregistered, &below[..1], &[]),
            ["a.test", "x.a.test"]
        );
        // A name below a registered wildcard is the tenant's, though it is not served by itself.
        let inner = ["x.a.test *.a.test acme", "a.test a.test acme"];
        assert_eq!(served(&inner, &[], &[]), ["a.test"]);
        assert_eq!(
            served(&["*.a.test"], &["x.a.test"], &["x.a.test x.a.test acme"]),
            ["x.a.test"]
        );
    }

    #[test]
    fn names_of_others_and_of_nobody_are_refused() {
        let refuses = |texts: &[&str], wished: &[&str], expected: PlacementError| {
            assert_eq!(placed(texts, &[], wished), Err(expected));
        };
        refuses(&["a.test"], &[], PlacementError::Nobody(pattern("a.test")));
        let two = ["a.test a.test acme", "b.test b.test globex"];
        refuses(
            &two,
            &[],
            PlacementError::SeveralTenants(slug("acme"), slug("globex")),
        );
        let one = ["a.test a.test acme", "b.test"];
        refuses(&one, &[], PlacementError::NotRegistered(pattern("b.test")));
        let mine = ["a.test a.test acme"];
        refuses(
            &mine,
            &["c.test c.test acme"],
            PlacementError::NotCovered(pattern("c.test")),
        );
        refuses(
            &mine,
            &["c.test"],
            PlacementError::NotRegistered(pattern("c.test")),
        );
        let below = ["x.a.test *.a.test acme"];
        refuses(
            &below,
            &[],
            PlacementError::OnlyBelowWildcard(pattern("x.a.test")),
        );
        refuses(
            &["*.a.test"],
            &["x.b.test x.b.test acme"],
            PlacementError::NotRegistered(pattern("*.a.test")),
        );
    }

    #[test]
    fn a_named_tenant_must_own_every_name() {
        let named = names(&["a.test a.test acme"]);
        let wish = |tenant| Wish {
            tenant,
            domains: &[],
        };
        let (acme, globex) = (slug("acme"), slug("globex"));
        assert_eq!(tenant(&named, wish(Some(&acme))), Ok(acme.clone()));
        assert_eq!(
            tenant(&named, wish(Some(&globex))),
            Err(PlacementError::OtherTenant(pattern("a.test")))
        );
    }
}
