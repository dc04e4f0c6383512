//! `[[upstream]]`, `[[route]]` and `[[tenant]]` of one file, as the control plane takes them.

use std::sync::Arc;

use super::{roots, set};
use crate::certs::authorities::{Choice, Choices};
use crate::certs::settings::Obtain;
use crate::certs::vault::own::OwnKeys;
use crate::config::file::{self, Declared, Protocol};
use crate::config::mistake::Mistakes;
use crate::config::source::Source;
use crate::control::declare::{Completeness, Declaration, DeclaredRoute, DeclaredTenant};
use crate::model::certificate::CaId;
use crate::model::route::{
    PathPrefix, RouteScope, Upstream, UpstreamName, UpstreamTimeouts, UpstreamTls,
};

pub(in crate::config) fn settle(
    declared: &Declared,
    source: &Source,
    mistakes: &Mistakes<'_>,
) -> Declaration {
    let file: Arc<str> = Arc::from(source.name());
    let tenants = declared.tenants.iter().map(|tenant| DeclaredTenant {
        id: tenant.name.value.clone(),
        domains: tenant.domains.iter().map(|at| at.value.clone()).collect(),
        file: Arc::clone(&file),
    });
    let upstreams = declared.upstreams.iter();
    let upstreams = upstreams.map(|section| Arc::new(upstream(section, source, mistakes)));
    let routes = declared.routes.iter().map(|section| route(section, &file));
    Declaration {
        tenants: tenants.collect(),
        upstreams: upstreams.collect(),
        routes: routes.collect(),
        completeness: Completeness::Whole,
        choices: choices(declared),
        obtain: Obtain::default(),
        own_keys: own_keys(declared, source),
    }
}

/// Which tenants have a key-encryption key of their own, and which have none.
fn own_keys(declared: &Declared, source: &Source) -> OwnKeys {
    let mut keys = OwnKeys::default();
    for tenant in &declared.tenants {
        let id = tenant.name.value.clone();
        match &tenant.key_file {
            Some(file) => {
                keys.files.insert(id, source.resolve(&file.value));
            }
            None => keys.without.push(id),
        }
    }
    keys
}

/// What tenants choose among the authorities.
fn choices(declared: &Declared) -> Choices {
    let chosen = declared.tenants.iter().filter_map(|tenant| {
        let choice = Choice {
            authorities: tenant.ca.iter().map(|at| CaId::new(&at.value)).collect(),
            profile: tenant.profile.as_ref().map(|at| Arc::from(&*at.value)),
        };
        (choice != Choice::default()).then(|| (tenant.name.value.clone(), choice))
    });
    Choices(chosen.collect())
}

fn upstream(section: &file::Upstream, source: &Source, mistakes: &Mistakes<'_>) -> Upstream {
    let tls = match section.protocol {
        Protocol::Http => UpstreamTls::None,
        Protocol::Https => UpstreamTls::Verified {
            server_name: section.server_name.as_ref().map(|at| at.value.clone()),
            roots: section
                .root
                .as_ref()
                .and_then(|path| roots(path, source, mistakes)),
        },
    };
    let mut timeouts = UpstreamTimeouts::default();
    set(&mut timeouts.connect, section.connect_timeout.as_ref());
    set(&mut timeouts.response, section.response_timeout.as_ref());
    set(&mut timeouts.idle, section.idle_timeout.as_ref());
    let addresses = section.addresses.iter().map(|at| at.value.clone());
    let name = UpstreamName::new(&section.name.value);
    Upstream::new(name, addresses.collect(), tls, timeouts)
}

fn route(section: &file::Route, file: &Arc<str>) -> DeclaredRoute {
    let scope = match (&section.host, &section.tenant) {
        (Some(host), _) => RouteScope::Host(host.value.clone()),
        (None, Some(tenant)) => RouteScope::Tenant(tenant.value.clone()),
        (None, None) => RouteScope::Everyone,
    };
    let path = section.path.as_ref().map(|at| at.value.clone());
    DeclaredRoute {
        scope,
        path: path.unwrap_or_else(PathPrefix::root),
        upstream: UpstreamName::new(&section.upstream.value),
        request_headers: section.request_headers.0.clone(),
        response_headers: section.response_headers.0.clone(),
        tenants: None,
        file: Arc::clone(file),
    }
}
