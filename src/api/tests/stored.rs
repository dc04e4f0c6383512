//! The API over the embedded store.

use serde_json::json;

use super::*;
use crate::model::certificate::{CaId, CertificateFacts, CertificateId};
use crate::model::domain::{DomainState, Source};
use crate::model::problem::{Problem, ProblemCode};
use crate::model::standing::CertificateStanding;
use crate::model::{NamePattern, TenantId, TenantScope};
use crate::store::batch::{JobOutcome, Operation, Urgency};
use crate::store::embedded::{Embedded, Settings};
use crate::store::job::{ClaimRequest, JobKey, JobKind, Paces, Priority};
use crate::store::record::CertificateRecord;
use crate::store::{Batch, Deadline};

/// What must never come out of the API.
const SEALED: &str = "SEALED-KEY-CANARY";

/// A store with two tenants: one domain works, one fails, one waits, one is suspended.
pub(crate) struct Stored {
    pub(crate) store: Arc<Embedded>,
    pub(crate) certificate: CertificateId,
    _folder: TempDir,
    _tasks: Tasks,
}

fn pattern(name: &str) -> NamePattern {
    NamePattern::parse(name).unwrap()
}

fn by() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

fn put_domain(name: &str, tenant: &str) -> Operation {
    Operation::PutDomain {
        pattern: pattern(name),
        tenant: TenantId::parse(tenant).unwrap(),
        source: Source::File,
        upstream: None,
    }
}

fn request_job(name: &str, tenant: &str) -> Operation {
    Operation::RequestJob {
        key: JobKey::Certificate(pattern(name)),
        tenant: TenantId::parse(tenant).unwrap(),
        priority: Priority::Background,
        delay: Duration::ZERO,
        urgency: Urgency::HeedBackoff,
    }
}

impl Stored {
    pub(crate) async fn open() -> Self {
        let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let settings = Settings::in_folder(folder.path().join("data"));
        let store = Embedded::open(settings, Clock::manual(NOW), &tasks)
            .await
            .unwrap();
        let stored = Self {
            store: Arc::new(store),
            certificate: CertificateId::new(),
            _folder: folder,
            _tasks: tasks,
        };
        stored.fill().await;
        stored
    }

    async fn apply(&self, batch: Batch) {
        let scope = TenantScope::operator();
        self.store.apply(by(), &scope, batch).await.unwrap();
    }

    async fn fill(&self) {
        let mut batch = Batch::new();
        for id in ["acme", "globex"] {
            let id = TenantId::parse(id).unwrap();
            let source = Source::File;
            batch = batch.then(Operation::PutTenant { id, source });
        }
        for (name, tenant) in [
            ("works.acme.test", "acme"),
            ("fails.acme.test", "acme"),
            ("*.wild.acme.test", "acme"),
            ("waits.globex.test", "globex"),
            ("off.globex.test", "globex"),
        ] {
            batch = batch.then(put_domain(name, tenant));
        }
        let batch = batch
            .then(Operation::PutCertificate(Box::new(self.certificate())))
            .then(Operation::PointDomain {
                pattern: pattern("works.acme.test"),
                certificate: self.certificate,
            })
            .then(Operation::SetDomainState {
                pattern: pattern("off.globex.test"),
                state: DomainState::Suspended,
                problem: None,
            })
            .then(request_job("fails.acme.test", "acme"));
        self.apply(batch).await;
        self.fail_the_job().await;
    }

    fn certificate(&self) -> CertificateRecord {
        CertificateRecord {
            facts: CertificateFacts {
                id: self.certificate,
                tenant: TenantId::parse("acme").unwrap(),
                names: vec![pattern("works.acme.test")],
                ca: CaId::new("demo"),
                serial: "0a1b".to_owned(),
                not_before: NOW.minus(Duration::from_secs(60)),
                not_after: NOW.plus(Duration::from_secs(86_400)),
            },
            leaf: vec![0x30, 0x01],
            chain: vec![vec![0x30, 0x02]],
            sealed_key: SEALED.as_bytes().to_vec(),
            standing: CertificateStanding::default(),
            created_at: NOW,
        }
    }

    async fn fail_the_job(&self) {
        let request = ClaimRequest {
            kind: JobKind::Certificate,
            holder: uuid::Uuid::nil(),
            most: 1,
            lease: Duration::from_secs(60),
            paces: Paces::default(),
        };
        let claimed = self.store.claim(by(), &request).await.unwrap();
        let problem = Problem {
            code: ProblemCode::WrongA,
            actor: ProblemCode::WrongA.actor(),
            detail: "the A record points elsewhere".to_owned(),
            evidence: vec!["203.0.113.5".to_owned()],
            fix: Some("fails.acme.test CNAME edge.example.net".to_owned()),
            first_seen: NOW,
            last_seen: NOW,
            next_retry_at: Some(NOW.plus(Duration::from_secs(3600))),
        };
        let finish = Operation::FinishJob {
            key: claimed.jobs[0].claim.key.clone(),
            outcome: JobOutcome::Failed(problem),
            next: Duration::from_secs(3600),
        };
        self.apply(Batch::new().then(finish)).await;
    }
}

/// Whether `value` has the form that `schema` gives it; the words say where it has not.
fn check_form(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return check_form(document, target, value, at);
    }
    if let Some(either) = schema["anyOf"].as_array() {
        let fits = |one| check_form(document, one, value, at).is_ok();
        return either
            .iter()
            .any(fits)
            .then_some(())
            .ok_or_else(|| format!("{at}: {value} fits none"));
    }
    let right = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    };
    let word = schema["enum"].as_array();
    if !right || word.is_some_and(|words| !words.contains(value)) {
        return Err(format!("{at}: {value} is not {schema}"));
    }
    for item in value.as_array().into_iter().flatten() {
        check_form(document, &schema["items"], item, &format!("{at}[]"))?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        value
            .get(name)
            .ok_or_else(|| format!("{at} has no {name}"))?;
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => check_form(document, schema, field, &format!("{at}.{name}"))?,
            None if schema["additionalProperties"] == false => {
                return Err(format!("{at}.{name} is not in the document"));
            }
            None => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn answers_have_the_form_that_the_document_gives_them() {
    let stored = Stored::open().await;
    let api = Running::start(Arc::clone(&stored.store) as _).await;
    let document = api.ask("GET", "/v1/openapi.json").await.body;
    let certificate = format!("/v1/certificates/{}", stored.certificate);
    let asked = [
        ("GET", "/v1/status", "Status"),
        ("GET", "/v1/tenants", "TenantPage"),
        ("GET", "/v1/cas", "CaPage"),
        ("POST", "/v1/cas/unknown/rollover", "Problem"),
        ("GET", "/v1/domains", "DomainPage"),
        ("GET", "/v1/domains/works.acme.test", "Domain"),
        ("GET", "/v1/domains/fails.acme.test", "Domain"),
        ("GET", "/v1/domains/*.wild.acme.test", "Domain"),
        ("POST", "/v1/domains/WORKS.acme.test./retry", "Retry"),
        ("POST", "/v1/domains/works.acme.test/check", "Check"),
        ("POST", "/v1/domains/unknown.test/check", "Check"),
        ("GET", "/v1/certificates", "CertificatePage"),
        ("GET", &certificate, "CertificateWithChain"),
        ("GET", "/v1/jobs", "JobPage"),
        ("GET", "/v1/budget", "Budgets"),
        ("GET", "/v1/events?tenant=acme", "EventPage"),
        ("GET", "/v1/events", "EventPage"),
        ("POST", "/v1/reload", "Reload"),
        ("GET", "/v1/problems/conflict", "ProblemCode"),
        ("GET", "/v1/domains/unknown.test", "Problem"),
    ];
    for (method, target, schema) in asked {
        let answer = api.ask(method, target).await;
        let schema = &document["components"]["schemas"][schema];
        check_form(&document, schema, &answer.body, target).unwrap();
        let text = answer.body.to_string();
        assert!(
            !text.contains(SEALED) && !text.contains("sealed"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn a_domain_tells_its_state_what_is_wrong_and_what_repairs_it() {
    let stored = Stored::open().await;
    let api = Running::start(Arc::clone(&stored.store) as _).await;
    let works = api.ask("GET", "/v1/domains/works.acme.test").await.body;
    assert_eq!(
        (&works["state"], &works["tls_status"]),
        (&json!("active"), &json!("issued"))
    );
    assert_eq!(works["certificate"]["id"], json!(stored.certificate));
    assert_eq!(works["problem"], Value::Null);
    let fails = api.ask("GET", "/v1/domains/fails.acme.test").await.body;
    assert_eq!(
        (&fails["state"], &fails["tls_status"]),
        (&json!("issuing"), &json!("failed"))
    );
    assert_eq!(fails["problem"]["code"], "wrong_a");
    assert_eq!(fails["problem"]["actor"], "customer");
    assert_eq!(
        fails["problem"]["fix"],
        "fails.acme.test CNAME edge.example.net"
    );
    assert_eq!(fails["failures"], 1);
    assert_eq!(
        fails["next_attempt_at"],
        json!(NOW.plus(Duration::from_secs(3600)))
    );
    let cname = json!({"type": "CNAME", "name": "fails.acme.test", "value": "edge.example.net"});
    assert_eq!(fails["dns_requirements"][0][0], cname);
    let off = api.ask("GET", "/v1/domains/off.globex.test").await.body;
    assert_eq!(off["state"], "suspended");
}

#[tokio::test]
async fn a_check_tells_by_what_the_name_is_registered() {
    let stored = Stored::open().await;
    let api = Running::start(Arc::clone(&stored.store) as _).await;
    for (name, expected) in [
        (
            "works.acme.test",
            json!({"name": "works.acme.test", "tenant": "acme", "state": "active"}),
        ),
        (
            "below.wild.acme.test",
            json!({"name": "*.wild.acme.test", "tenant": "acme", "state": "pending_dns"}),
        ),
        (
            "off.globex.test",
            json!({"name": "off.globex.test", "tenant": "globex", "state": "suspended"}),
        ),
        ("wild.acme.test", Value::Null),
        ("*.unknown.test", Value::Null),
    ] {
        let answer = api.ask("POST", &format!("/v1/domains/{name}/check")).await;
        assert_eq!(answer.body["registered"], expected, "{name}");
    }
}

#[tokio::test]
async fn an_empty_list_of_a_tenant_that_is_not_there_is_no_list() {
    let stored = Stored::open().await;
    let api = Running::start(Arc::clone(&stored.store) as _).await;
    for list in ["domains", "certificates", "jobs", "events"] {
        let answer = api.ask("GET", &format!("/v1/{list}?tenant=globax")).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{list}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert_eq!(detail, "there is no tenant globax; did you mean globex?");
        let none = api.ask("GET", &format!("/v1/{list}?tenant=globex")).await;
        assert_eq!(none.status, 200, "{list}");
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_by_tenant() {
    let stored = Stored::open().await;
    let api = Running::start(Arc::clone(&stored.store) as _).await;
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = api
            .ask("GET", &format!("/v1/domains?limit=2{after}"))
            .await
            .body;
        let items = page["items"].as_array().unwrap().clone();
        assert!(items.len() <= 2);
        names.extend(
            items
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => {
                let next = url::form_urlencoded::byte_serialize(next.as_bytes());
                after = format!("&after={}", next.collect::<String>());
            }
            None => break,
        }
    }
    assert_eq!(names.len(), 5);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5);
    let globex = api.ask("GET", "/v1/domains?tenant=globex").await.body;
    assert_eq!(globex["items"].as_array().unwrap().len(), 2);
    let garbage = api.ask("GET", "/v1/events?after=%27--garbage").await;
    assert_eq!((garbage.status, &garbage.body["items"]), (200, &json!([])));
}

#[tokio::test]
async fn a_retry_ends_the_back_off_wakes_the_workers_and_is_on_record() {
    let stored = Stored::open().await;
    let api = Running::start(Arc::clone(&stored.store) as _).await;
    let answer = api.ask("POST", "/v1/domains/fails.acme.test/retry").await;
    assert_eq!(answer.status, 202);
    assert_eq!(
        answer.body,
        json!({"domain": "fails.acme.test", "job": "queued", "due_in_seconds": 0})
    );
    assert_eq!(api.nudges.load(Ordering::Relaxed), 1);
    let jobs = api.ask("GET", "/v1/jobs?tenant=acme").await.body;
    let job = &jobs["items"][0];
    assert_eq!(
        (&job["status"], &job["priority"]),
        (&json!("due"), &json!("expiring"))
    );
    assert_eq!(job["failures"], 1);
    let events = api.ask("GET", "/v1/events?tenant=acme").await.body;
    let event = events["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(event["kind"], "domain.retry_requested");
    assert_eq!(
        (&event["actor"], &event["subject"]),
        (&json!("operator"), &json!("fails.acme.test"))
    );

    let unknown = api.ask("POST", "/v1/domains/unknown.test/retry").await;
    assert_eq!((unknown.status, unknown.code()), (404, "not_found"));
    let off = api.ask("POST", "/v1/domains/off.globex.test/retry").await;
    assert_eq!((off.status, off.code()), (409, "not_served"));
    assert_eq!(api.nudges.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_budget_tells_what_is_left_what_is_stopped_and_when_the_next_order_may_go() {
    let stored = Stored::open().await;
    let store: Arc<dyn Store> = Arc::clone(&stored.store) as _;
    let keeper = keeper(&store);
    let book = keeper.book(&CaId::new("le")).unwrap();
    let tenant = TenantId::parse("acme").unwrap();
    // 80 % of 50 certificates, less the reserves of 45 %.
    for n in 0..22 {
        let names = [pattern(&format!("n{n}.shared.test"))];
        let order = budget::Order {
            names: &names,
            tenant: &tenant,
            class: budget::Class::Bulk,
            history: budget::History::New,
        };
        keeper.take(&book, &order).await.unwrap();
    }
    let stop = Operation::FreezeBucket {
        bucket: "orders:le:".to_owned(),
        duration: Duration::from_secs(3600),
    };
    let scope = TenantScope::operator();
    let stopped = store.apply(by(), &scope, Batch::new().then(stop)).await;
    stopped.unwrap();

    let api = Running::start(store).await;
    let answer = api.ask("GET", "/v1/budget").await.body;
    let le = &answer["items"][0];
    assert_eq!(
        (&le["ca"], &le["spend_percent"], &le["renewals_charged"]),
        (&json!("le"), &json!(80), &json!(false))
    );
    let bulk = &le["classes"][3];
    assert_eq!(
        (&bulk["class"], &bulk["left"]),
        (&json!("bulk"), &json!(110))
    );
    // NOW and an hour.
    assert_eq!(bulk["next_at"], "2027-01-15T09:00:00Z");
    let limit = |name: &str| {
        let limits = le["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["bucket"] == name).unwrap()
    };
    let orders = limit("orders");
    assert_eq!(orders["limit"], "300 in 3h");
    assert_eq!(
        (&orders["ours"], &orders["left"]),
        (&json!(240), &json!(218))
    );
    assert_eq!(
        orders["emptiest"][0]["stopped_until"],
        "2027-01-15T09:00:00Z"
    );
    let domain = limit("domain");
    assert_eq!(
        (&domain["in_use"], &domain["left"]),
        (&json!(1), &json!(18))
    );
    assert_eq!(domain["emptiest"][0]["subject"], "shared.test");
    assert_eq!(limit("tenant_share")["emptiest"][0]["subject"], "acme");
    assert_eq!(limit("exact_set")["in_use"], 22);
    assert_eq!(limit("exact_set")["emptiest"].as_array().unwrap().len(), 10);
}
