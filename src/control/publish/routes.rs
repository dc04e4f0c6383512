//! The file's upstreams and routes → [`Routes`]. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::control::declare::{Declaration, Warning};
use crate::model::route::{HeaderEdits, PathPrefix, Route, RouteScope, Upstream, UpstreamName};
use crate::model::snapshot::Routes;

/// What a declaration comes to.
#[derive(Debug, Default)]
pub struct Built {
    /// The routes.
    pub routes: Routes,
    /// The upstreams in force.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What was left out.
    pub warnings: Vec<Warning>,
}

/// Builds the routes of `declaration`. Upstreams equal to one of `before` are that one, so that what is known of
/// them (addresses, connections) lives on.
#[must_use]
pub fn build(declaration: &Declaration, before: &[Arc<Upstream>]) -> Built {
    let mut warnings = Vec::new();
    let mut by_name: HashMap<UpstreamName, Arc<Upstream>> = HashMap::new();
    let mut upstreams = Vec::new();
    for declared in &declaration.upstreams {
        if by_name.contains_key(&declared.name) {
            warnings.push(Warning {
                subject: format!("upstream {}", declared.name),
                detail: "declared twice: the first one is used".to_owned(),
            });
            continue;
        }
        let same = before.iter().find(|old| is_same(old, declared));
        let upstream = Arc::clone(same.unwrap_or(declared));
        by_name.insert(upstream.name.clone(), Arc::clone(&upstream));
        upstreams.push(upstream);
    }
    let mut routes = Vec::new();
    for declared in &declaration.routes {
        let Some(upstream) = by_name.get(&declared.upstream) else {
            warnings.push(Warning {
                subject: declared.file.to_string(),
                detail: format!(
                    "a route below {} names the upstream {:?}, which is not configured: add a [[upstream]] of that name",
                    declared.path,
                    declared.upstream.as_str()
                ),
            });
            continue;
        };
        routes.push(Route {
            scope: declared.scope.clone(),
            path: declared.path.clone(),
            upstream: Arc::clone(upstream),
            request_headers: declared.request_headers.clone(),
            response_headers: declared.response_headers.clone(),
            tenants: declared.tenants.clone(),
        });
    }
    let whole = upstreams.iter().map(whole).collect();
    Built {
        routes: Routes::new(routes, whole),
        upstreams,
        warnings,
    }
}

/// The route that leads every path to `upstream`.
fn whole(upstream: &Arc<Upstream>) -> Route {
    Route {
        scope: RouteScope::Everyone,
        path: PathPrefix::root(),
        upstream: Arc::clone(upstream),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        tenants: None,
    }
}

fn is_same(old: &Upstream, new: &Upstream) -> bool {
    old.name == new.name
        && old.addresses == new.addresses
        && old.tls == new.tls
        && old.timeouts == new.timeouts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::declare::DeclaredRoute;
    use crate::model::route::{UpstreamAddress, UpstreamTimeouts, UpstreamTls};
    use crate::model::{DnsName, TenantId};

    fn upstream(name: &str, port: u16) -> Arc<Upstream> {
        Arc::new(Upstream::new(
            UpstreamName::new(name),
            vec![UpstreamAddress::Socket(([127, 0, 0, 1], port).into())],
            UpstreamTls::None,
            UpstreamTimeouts::default(),
        ))
    }

    fn route(upstream: &str) -> DeclaredRoute {
        DeclaredRoute {
            scope: RouteScope::Everyone,
            path: PathPrefix::root(),
            upstream: UpstreamName::new(upstream),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            tenants: None,
            file: "proxy.toml".into(),
        }
    }

    #[test]
    fn a_route_to_an_unknown_upstream_is_a_warning_and_the_others_stand() {
        let declaration = Declaration {
            upstreams: vec![upstream("core", 3000), upstream("core", 3001)],
            routes: vec![route("cor"), route("core")],
            ..Declaration::default()
        };
        let built = build(&declaration, &[]);
        let host = DnsName::parse("a.test").unwrap();
        let tenant = TenantId::parse("acme").unwrap();
        let [.., everyone] = built.routes.candidates(&host, &tenant);
        assert_eq!(everyone.len(), 1);
        assert_eq!(
            everyone[0].upstream.addresses[0].to_string(),
            "127.0.0.1:3000"
        );
        let subjects: Vec<_> = built.warnings.iter().map(|w| &*w.subject).collect();
        assert_eq!(subjects, ["upstream core", "proxy.toml"]);
        assert!(
            built
                .routes
                .to_upstream(&UpstreamName::new("core"))
                .is_some()
        );
    }

    #[test]
    fn an_unchanged_upstream_stays_the_same_object() {
        let before = [upstream("core", 3000), upstream("other", 3000)];
        let declaration = Declaration {
            upstreams: vec![upstream("core", 3000), upstream("other", 3001)],
            ..Declaration::default()
        };
        let built = build(&declaration, &before);
        assert!(Arc::ptr_eq(&built.upstreams[0], &before[0]));
        assert!(!Arc::ptr_eq(&built.upstreams[1], &before[1]));
    }
}
