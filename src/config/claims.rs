//! Who declares which name: every upstream, tenant, domain and route once over all files, and references
//! only to what a file may use.
//!
//! The main file may use everything that is declared. An included file may use what the main file and it
//! itself declare, and may route only its own tenants and domains: so it stands or falls alone, and one
//! bad file never touches another's tenants. A name below its wildcard that another file declares is that
//! file's: a route for it takes nothing, and is told. So is an authority that an included file's tenant chooses and
//! that is not declared: nothing is ordered from it, nor from one that the tenant did not choose.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::hash::Hash;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::base::file::place;
use crate::base::nearest::nearest;
use crate::config::file::{Declared, Route, Tenant};
use crate::config::mistake::{Finding, Mistakes, quoted_list};
use crate::config::reader::At;
use crate::config::source::Source;
use crate::model::route::PathPrefix;
use crate::model::{NamePattern, TenantId};

/// A route's whole condition.
type RouteKey = (Option<TenantId>, Option<NamePattern>, PathPrefix);

/// What the files so far have declared, each with its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims<'s> {
    upstreams: HashMap<String, Place<'s>>,
    tenants: HashMap<TenantId, Place<'s>>,
    domains: HashMap<NamePattern, Place<'s>>,
    routes: HashMap<RouteKey, Place<'s>>,
    /// By where each leads.
    key_files: HashMap<PathBuf, KeyFile<'s>>,
    /// Of the main file alone, which declares all of them.
    authorities: Vec<String>,
}

/// Whose a key-encryption key's file is.
#[derive(Clone, Debug)]
enum KeyFile<'s> {
    /// The platform's.
    Platform,
    /// A tenant's, and where that is said.
    Tenant(TenantId, Place<'s>),
}

/// A place in a file; its line is counted only where it is told.
#[derive(Clone, Copy, Debug)]
struct Place<'s> {
    source: &'s Source,
    at: usize,
}

impl Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source.location(self.at))
    }
}

/// Whose declarations are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader<'c> {
    /// The main file.
    Main,
    /// A file that the main file, with these claims, includes.
    Included(&'c Claims<'c>),
}

impl<'s> Claims<'s> {
    /// The claims of one file, on top of `others`, which are not changed. Records a mistake for each name
    /// that one of `others` or the file itself declares already.
    pub(super) fn of(
        declared: &Declared,
        others: &Self,
        source: &'s Source,
        mistakes: &Mistakes<'_>,
    ) -> Self {
        let mut own = Self::default();
        let file = (source, mistakes);
        for upstream in &declared.upstreams {
            let name = upstream.name.clone();
            claim(
                file,
                "upstream",
                name,
                (&mut own.upstreams, &others.upstreams),
            );
        }
        for tenant in &declared.tenants {
            let name = tenant.name.clone();
            claim(file, "tenant", name, (&mut own.tenants, &others.tenants));
            own.claim_key_file(tenant, others, file);
            for domain in &tenant.domains {
                let domain = domain.clone();
                claim(file, "domain", domain, (&mut own.domains, &others.domains));
            }
        }
        for route in &declared.routes {
            let key = route_key(route);
            let (seen, others) = (&mut own.routes, &others.routes);
            match others.get(&key).or_else(|| seen.get(&key)) {
                Some(first) => {
                    let finding = Finding::new("a second [[route]] for the same requests")
                        .fix("give it another path, host or tenant, or remove it")
                        .see(format!("{first}: the first one"));
                    mistakes.add(route.place.clone(), finding);
                }
                None => {
                    let at = route.place.start;
                    seen.insert(key, Place { source, at });
                }
            }
        }
        own
    }

    /// The platform's claim on the file of its key.
    pub(super) fn of_platform(key_file: &Path) -> Self {
        Self {
            key_files: HashMap::from([(place(key_file), KeyFile::Platform)]),
            ..Self::default()
        }
    }

    /// A tenant's own key is nobody else's, under whatever name the file goes.
    fn claim_key_file(
        &mut self,
        tenant: &Tenant,
        others: &Self,
        (source, mistakes): (&'s Source, &Mistakes<'_>),
    ) {
        let Some(file) = &tenant.key_file else {
            return;
        };
        let place = place(&source.resolve(&file.value));
        let first = others.key_files.get(&place);
        let Some(first) = first.or_else(|| self.key_files.get(&place)) else {
            let at = file.at.start;
            let claim = KeyFile::Tenant(tenant.name.value.clone(), Place { source, at });
            self.key_files.insert(place, claim);
            return;
        };
        let whose = match first {
            KeyFile::Platform => "the platform's, [keys] file".to_owned(),
            KeyFile::Tenant(other, _) => format!("the key_file of tenant {other}"),
        };
        let what = format!(
            "key_file of tenant {}: {} is {whose} already",
            tenant.name.value,
            file.value.display()
        );
        let finding = Finding::new(what)
            .expected("a file for this tenant alone")
            .fix("name another file; where there is none, a key is made in it");
        let finding = match first {
            KeyFile::Platform => finding,
            KeyFile::Tenant(_, place) => finding.see(format!("{place}: the first one")),
        };
        mistakes.add(file.at.clone(), finding);
    }

    /// Adds the authorities that the main file declares.
    pub(super) fn with_authorities(mut self, names: impl Iterator<Item = String>) -> Self {
        self.authorities.extend(names);
        self
    }

    /// Takes another file's claims over.
    pub(super) fn join(&mut self, other: Self) {
        self.upstreams.extend(other.upstreams);
        self.tenants.extend(other.tenants);
        self.domains.extend(other.domains);
        self.routes.extend(other.routes);
        self.key_files.extend(other.key_files);
    }

    /// Records each use of a name that `reader` may not use or that nobody declares.
    pub(super) fn check_uses(
        &self,
        declared: &Declared,
        reader: Reader<'_>,
        mistakes: &Mistakes<'_>,
    ) {
        if let Reader::Main = reader {
            self.check_authorities(
                declared.tenants.iter().flat_map(|tenant| &tenant.ca),
                mistakes,
            );
        }
        for route in &declared.routes {
            self.check_upstream(&route.upstream, reader, mistakes);
            if let Reader::Included(_) = reader {
                self.check_reach(route, mistakes);
            }
        }
    }

    /// Records each authority that a tenant chooses and the main file does not declare. The main file is refused for it.
    /// An included file stands, for what it says of its tenants is what keeps other authorities from them.
    pub(super) fn check_authorities<'a>(
        &self,
        chosen: impl Iterator<Item = &'a At<String>>,
        mistakes: &Mistakes<'_>,
    ) {
        for name in chosen {
            check_authority(name, &self.authorities, mistakes);
        }
    }

    fn check_upstream(&self, name: &At<String>, reader: Reader<'_>, mistakes: &Mistakes<'_>) {
        let main = match reader {
            Reader::Main => None,
            Reader::Included(main) => Some(main),
        };
        let known = |claims: &Claims<'_>| claims.upstreams.contains_key(&name.value);
        if known(self) || main.is_some_and(known) {
            return;
        }
        let names = self.upstreams.keys();
        let names = names.chain(main.into_iter().flat_map(|main| main.upstreams.keys()));
        let mut names: Vec<&str> = names.map(String::as_str).collect();
        names.sort_unstable();
        let finding = Finding::new(format!("unknown upstream {:?}", name.value));
        let near = nearest(&name.value, names.iter().copied());
        let fix = match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("add an [[upstream]] with name = {:?}", name.value),
        };
        let expected = match reader {
            Reader::Main => quoted_list(names),
            Reader::Included(_) => {
                format!(
                    "an upstream of the main file or of this one: {}",
                    quoted_list(names)
                )
            }
        };
        mistakes.add(name.at.clone(), finding.expected(expected).fix(fix));
    }

    /// An included file routes only what it declares.
    fn check_reach(&self, route: &Route, mistakes: &Mistakes<'_>) {
        let (at, what): (Range<usize>, String) = match (&route.host, &route.tenant) {
            (Some(host), _) if self.holds(&host.value) => return,
            (None, Some(tenant)) if self.tenants.contains_key(&tenant.value) => return,
            (Some(host), _) => (host.at.clone(), format!("a [[route]] for {}", host.value)),
            (None, Some(tenant)) => (
                tenant.at.clone(),
                format!("a [[route]] for tenant {:?}", tenant.value.as_str()),
            ),
            (None, None) => (
                route.place.clone(),
                "a [[route]] for every domain".to_owned(),
            ),
        };
        let finding = Finding::new(format!("{what} in an included file"));
        let finding = finding.expected("a tenant or a domain that this file declares");
        mistakes.add(
            at,
            finding.fix("add \"tenant\", or move the route to the main file"),
        );
    }

    /// Records each route of an included file for a host that another file declares: it is allowed by a wildcard of the
    /// file's own, and never used.
    pub(super) fn check_taken(
        &self,
        hosts: &[At<NamePattern>],
        source: &Source,
        mistakes: &Mistakes<'_>,
    ) {
        for host in hosts {
            let Some(declared) = self.domains.get(&host.value) else {
                continue;
            };
            if declared.source.name() == source.name() {
                continue;
            }
            let what = format!(
                "a [[route]] for {}, which another file declares",
                host.value
            );
            let finding = Finding::new(what)
                .expected("a tenant or a domain that this file declares")
                .fix("remove the route: it is not used, for the requests are another tenant's")
                .see(format!("{declared}: the domain"));
            mistakes.add(host.at.clone(), finding);
        }
    }

    /// Whether a declared domain is, or covers, what `host` stands for.
    pub(super) fn holds(&self, host: &NamePattern) -> bool {
        self.domains.contains_key(host)
            || match host {
                NamePattern::Exact(name) => NamePattern::wildcard_over(name)
                    .is_some_and(|parent| self.domains.contains_key(&parent)),
                NamePattern::Wildcard(_) => false,
            }
    }

    /// Records each route of the main file for a tenant or a host that no file declares.
    pub(super) fn check_main_reach(&self, declared: &Declared, mistakes: &Mistakes<'_>) {
        for route in &declared.routes {
            if let Some(tenant) = &route.tenant
                && !self.tenants.contains_key(&tenant.value)
            {
                let mut names: Vec<&str> = self.tenants.keys().map(TenantId::as_str).collect();
                names.sort_unstable();
                let finding = Finding::new(format!("unknown tenant {:?}", tenant.value.as_str()));
                let fix = match nearest(tenant.value.as_str(), names.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("add a [[tenant]] with name = {:?}", tenant.value.as_str()),
                };
                let finding = finding.expected(quoted_list(names)).fix(fix);
                mistakes.add(tenant.at.clone(), finding);
            }
            if let Some(host) = &route.host
                && !self.holds(&host.value)
            {
                let finding = Finding::new(format!("no tenant has the domain {}", host.value));
                let finding = finding.fix("add it to the domains of a [[tenant]]");
                mistakes.add(host.at.clone(), finding);
            }
        }
    }

    /// Domains, tenants, upstreams and routes, counted.
    pub(super) fn counts(&self) -> [usize; 4] {
        [
            self.domains.len(),
            self.tenants.len(),
            self.upstreams.len(),
            self.routes.len(),
        ]
    }
}

fn route_key(route: &Route) -> RouteKey {
    let tenant = route.tenant.as_ref().map(|tenant| tenant.value.clone());
    let host = route.host.as_ref().map(|host| host.value.clone());
    let path = route.path.as_ref().map(|path| path.value.clone());
    (tenant, host, path.unwrap_or_else(PathPrefix::root))
}

fn claim<'s, K: Hash + Eq + Display>(
    (source, mistakes): (&'s Source, &Mistakes<'_>),
    kind: &str,
    name: At<K>,
    (own, others): (&mut HashMap<K, Place<'s>>, &HashMap<K, Place<'s>>),
) {
    match others.get(&name.value).or_else(|| own.get(&name.value)) {
        Some(first) => {
            let finding = Finding::new(format!("{kind} {} is declared twice", name.value))
                .fix("remove one of them")
                .see(format!("{first}: the first one"));
            mistakes.add(name.at, finding);
        }
        None => {
            let at = name.at.start;
            own.insert(name.value, Place { source, at });
        }
    }
}

/// An authority that a tenant chooses is one of the main file's.
fn check_authority(name: &At<String>, known: &[String], mistakes: &Mistakes<'_>) {
    if known.contains(&name.value) {
        return;
    }
    let names = || known.iter().map(String::as_str);
    let finding = Finding::new(format!(
        "ca in [[tenant]]: there is no [[ca]] named {:?}",
        name.value
    ));
    let finding = match names().next() {
        Some(_) => finding.expected(format!("one of {}", quoted_list(names()))),
        None => finding,
    };
    let fix = match nearest(&name.value, names()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add a [[ca]] with name = {:?} to the main file", name.value),
    };
    mistakes.add(name.at.clone(), finding.fix(fix));
}
