//! The API over its real socket.

mod down;
pub(crate) mod stored;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use down::Down;

use super::*;
use crate::base::clock::{Clock, Timestamp};
use crate::base::published::Published;
use crate::ca::private::{self, Private};
use crate::certs;
use crate::certs::authorities::Authorities;
use crate::certs::budget::{self, Keeper, Limits};
use crate::certs::challenge::Challenges;
use crate::certs::preflight::{self, Preflight};
use crate::certs::resolver::Resolver;
use crate::control::actions::{Reload, ReloadRefused, Reloaded};
use crate::control::views::Sources;
use crate::dns;
use crate::dns::examine::Examiner;
use crate::model::certificate::CaId;
use crate::model::edge::Edge;
use crate::model::{DnsName, Snapshot};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Phase, Readiness};
use crate::telemetry::trouble::UpstreamTroubles;

/// The time of every test's clock.
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// A running API, its socket in a folder of its own.
pub(crate) struct Running {
    folder: TempDir,
    tasks: Tasks,
    nudges: Arc<AtomicUsize>,
}

/// The private CA `own`, which asks nobody.
fn one_authority() -> Authorities {
    let id = CaId::new("own");
    let own = Private::new(id, private::Settings::default(), Clock::manual(NOW));
    let parts = certs::authorities::Parts {
        authorities: vec![Arc::new(own)],
        ..certs::authorities::Parts::default()
    };
    Authorities::new(parts, &Tasks::new())
}

/// Asks a resolver that nobody runs.
fn no_preflight() -> Preflight {
    let nobody = dns::Settings {
        resolvers: vec!["127.0.0.1:1".parse().unwrap()],
        deadline: Duration::from_millis(100),
    };
    Preflight::new(preflight::Parts {
        examiner: Examiner::new(&nobody).unwrap(),
        challenges: Challenges::default(),
        edge: Published::new(Edge::default()),
        settings: Published::new(certs::Settings::default()),
        clock: Clock::manual(NOW),
    })
}

/// The budget of one CA with Let's Encrypt's limits.
fn keeper(store: &Arc<dyn Store>) -> Keeper {
    let settings = budget::Settings {
        limits: [(CaId::new("le"), Limits::lets_encrypt())].into(),
        ..budget::Settings::default()
    };
    Keeper::new(
        Arc::clone(store),
        Published::new(settings),
        Metrics::default(),
    )
}

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Running {
    /// Over a store, with a configuration that reloads well.
    pub(crate) async fn start(store: Arc<dyn Store>) -> Self {
        Self::start_with(store, Ok(Reloaded::default())).await
    }

    async fn start_with(store: Arc<dyn Store>, reloaded: Result<Reloaded, ReloadRefused>) -> Self {
        let readiness = Readiness::default();
        readiness.enter(Phase::Serving);
        let views = Views::over(Sources {
            store: Arc::clone(&store),
            snapshot: Published::new(Snapshot::empty()),
            edge: Published::new(Edge {
                cname_target: Some(DnsName::parse("edge.example.net").unwrap()),
                ipv4: vec![[192, 0, 2, 1].into()],
                ..Edge::default()
            }),
            preflight: no_preflight(),
            authorities: one_authority(),
            budget: keeper(&store),
            vault: None,
            resolver: Resolver::new(1 << 20),
            troubles: UpstreamTroubles::default(),
            readiness,
            clock: Clock::manual(NOW),
            started_at: Timestamp::from_seconds(1_700_000_000),
        });
        let reload: Reload = Arc::new(move || Box::pin(std::future::ready(reloaded.clone())));
        let nudges = Arc::new(AtomicUsize::new(0));
        let nudged = Arc::clone(&nudges);
        let nudge = Arc::new(move || {
            nudged.fetch_add(1, Ordering::Relaxed);
        });
        let actions = Actions::new(store, Clock::manual(NOW), reload, nudge);
        let running = Self {
            folder: tempfile::tempdir().unwrap(),
            tasks: Tasks::new(),
            nudges,
        };
        start(&running.socket(), views, actions, &running.tasks)
            .await
            .unwrap();
        running
    }

    async fn without_store() -> Self {
        Self::start(Arc::new(Down)).await
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    async fn ask(&self, method: &str, target: &str) -> Answer {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: serde_json::from_str(body).unwrap_or_default(),
        }
    }
}

#[tokio::test]
async fn the_document_names_every_page_and_every_page_is_served() {
    let api = Running::without_store().await;
    let document = api.ask("GET", "/v1/openapi.json").await.body;
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let target = path
            .replace("{name}", "a.test")
            .replace("{code}", "not_found")
            .replace("{id}", "0195a5b0-0000-7000-8000-000000000000");
        for method in ["GET", "POST"] {
            let answer = api.ask(method, &target).await;
            let documented = methods.get(method.to_ascii_lowercase()).is_some();
            assert_ne!(answer.code(), "no_such_page", "{method} {target}");
            assert_eq!(answer.status == 405, !documented, "{method} {target}");
            if documented {
                found.push(format!("{method} {path}"));
            }
        }
    }
    let expected = [
        "GET /v1/budget",
        "GET /v1/cas",
        "POST /v1/cas/{name}/rollover",
        "GET /v1/certificates",
        "POST /v1/certificates/import",
        "POST /v1/certificates/issue-client",
        "GET /v1/certificates/{id}",
        "POST /v1/certificates/{id}/cancel-revocation",
        "POST /v1/certificates/{id}/replace",
        "POST /v1/certificates/{id}/revoke",
        "GET /v1/domains",
        "GET /v1/domains/{name}",
        "POST /v1/domains/{name}/check",
        "POST /v1/domains/{name}/retry",
        "POST /v1/domains/{name}/rollback",
        "POST /v1/drill",
        "GET /v1/events",
        "POST /v1/import/accounts",
        "POST /v1/import/certificates",
        "GET /v1/jobs",
        "GET /v1/keys",
        "POST /v1/keys/exchange",
        "POST /v1/keys/renew-data-key",
        "GET /v1/openapi.json",
        "GET /v1/problems/{code}",
        "POST /v1/reload",
        "GET /v1/status",
        "GET /v1/tenants",
        "POST /v1/tenants/{id}/destroy-keys",
    ];
    assert_eq!(found, expected);
    assert_eq!(endpoints().count(), expected.len());
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            found.push(reference.to_owned());
        }
        match value {
            Value::Object(fields) => fields.values().for_each(|field| references(field, found)),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = openapi::document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn failures_are_problems_with_a_stable_code() {
    let api = Running::without_store().await;
    let bad = [
        ("GET", "/", 404, "no_such_page"),
        ("GET", "/v1/domains/", 404, "no_such_page"),
        ("DELETE", "/v1/tenants", 405, "method_not_allowed"),
        ("GET", "/v1/reload", 405, "method_not_allowed"),
        ("GET", "/v1/tenants?limit=0", 400, "bad_parameter"),
        ("GET", "/v1/tenants?limit=1001", 400, "bad_parameter"),
        ("GET", "/v1/tenants?limit=x", 400, "bad_parameter"),
        ("GET", "/v1/tenants?tenant=a", 400, "bad_parameter"),
        ("GET", "/v1/domains?tenant=A%20B", 400, "bad_parameter"),
        ("GET", "/v1/domains/a..b", 400, "bad_parameter"),
        ("GET", "/v1/domains/%ff", 400, "bad_parameter"),
        ("POST", "/v1/domains/192.0.2.1/retry", 400, "bad_parameter"),
        ("GET", "/v1/certificates/1", 400, "bad_parameter"),
        ("POST", "/v1/certificates/import", 400, "bad_parameter"),
        (
            "POST",
            "/v1/certificates/issue-client",
            400,
            "bad_parameter",
        ),
        ("POST", "/v1/import/accounts", 400, "bad_parameter"),
        ("POST", "/v1/import/certificates", 400, "bad_parameter"),
        (
            "POST",
            "/v1/drill?orders_per_second=0",
            400,
            "bad_parameter",
        ),
        (
            "POST",
            "/v1/drill?orders_per_second=abc",
            400,
            "bad_parameter",
        ),
        ("GET", "/v1/problems/none", 404, "not_found"),
        // A store that fails is neither empty nor "not found".
        ("GET", "/v1/tenants", 503, "store_unavailable"),
        ("GET", "/v1/domains", 503, "store_unavailable"),
        ("GET", "/v1/domains/a.test", 503, "store_unavailable"),
        ("POST", "/v1/domains/a.test/retry", 503, "store_unavailable"),
        ("POST", "/v1/domains/a.test/check", 503, "store_unavailable"),
        ("POST", "/v1/domains/a..b/check", 400, "bad_parameter"),
        ("GET", "/v1/certificates", 503, "store_unavailable"),
        ("GET", "/v1/jobs", 503, "store_unavailable"),
        ("GET", "/v1/budget", 503, "store_unavailable"),
        ("GET", "/v1/events", 503, "store_unavailable"),
    ];
    for (method, target, status, code) in bad {
        let answer = api.ask(method, target).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{method} {target}"
        );
        assert!(
            answer
                .head
                .contains("content-type: application/problem+json")
        );
        assert_eq!(answer.body["status"], status);
        let meaning = api.ask("GET", answer.body["type"].as_str().unwrap()).await;
        assert_eq!(meaning.body["code"], code);
        assert_eq!(answer.head.contains("retry-after: 1"), status == 503);
    }
}

#[tokio::test]
async fn a_reload_tells_what_came_of_it_even_while_the_store_is_down() {
    let done = Reloaded {
        warnings: vec!["tenants.d/bad.toml is left out".to_owned()],
        needs_restart: vec!["store.data".to_owned()],
    };
    let api = Running::start_with(Arc::new(Down), Ok(done)).await;
    let answer = api.ask("POST", "/v1/reload").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["warnings"][0], "tenants.d/bad.toml is left out");
    assert_eq!(answer.body["needs_restart"][0], "store.data");

    let mistakes = vec!["proxy.toml:3:1: unknown key".to_owned()];
    let api = Running::start_with(Arc::new(Down), Err(ReloadRefused { mistakes })).await;
    let answer = api.ask("POST", "/v1/reload").await;
    assert_eq!(
        (answer.status, answer.code()),
        (422, "configuration_refused")
    );
    assert_eq!(answer.body["mistakes"][0], "proxy.toml:3:1: unknown key");
}

#[tokio::test]
async fn the_socket_goes_when_the_tasks_end() {
    let api = Running::without_store().await;
    assert_eq!(api.ask("GET", "/v1/status").await.body["phase"], "serving");
    api.tasks.cancel();
    assert_eq!(api.tasks.finish(Duration::from_secs(5)).await, 0);
    assert!(!api.socket().exists());
}

#[test]
fn a_listener_that_names_no_caller_gets_nothing() {
    // Whoever adds a listener must say who comes by it: the grant is not a default.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let granted = <problem::Granted as axum::extract::FromRequestParts<()>>::from_request_parts(
            &mut parts,
            &(),
        );
        assert!(granted.await.is_err());
    });
}
