//! The hook as it behaves and misbehaves: a real HTTP server on the loopback.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use url::Url;

use super::*;
use crate::certs::on_demand::Refusal;
use crate::certs::permission::Mode;
use crate::telemetry::readiness::Condition;

/// What the server does with a request.
#[derive(Clone)]
enum Play {
    Answer(u16, String),
    Redirect,
    Hang,
    /// Answers with allow once the semaphore has a permit.
    When(Arc<Semaphore>),
}

struct Hook {
    url: Url,
    asked: Arc<Mutex<Vec<(String, String)>>>,
    play: Arc<Mutex<Play>>,
    tasks: Tasks,
}

impl Hook {
    async fn start(play: Play) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ask", listener.local_addr().unwrap());
        let hook = Self {
            url: Url::parse(&url).unwrap(),
            asked: Arc::default(),
            play: Arc::new(Mutex::new(play)),
            tasks: Tasks::new(),
        };
        let (asked, play, tasks) = (
            Arc::clone(&hook.asked),
            Arc::clone(&hook.play),
            hook.tasks.clone(),
        );
        hook.tasks.spawn_until_cancelled("hook", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (asked, play) = (Arc::clone(&asked), Arc::clone(&play));
                let service = service_fn(move |request| {
                    answer(Arc::clone(&asked), play.lock().unwrap().clone(), request)
                });
                tasks.spawn_until_cancelled("hook_connection", async move {
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // A client that gives up ends its connection with an error.
                    drop(connection.await);
                });
            }
        });
        hook
    }

    fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn plays(&self, play: Play) {
        *self.play.lock().unwrap() = play;
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn answer(
    asked: Arc<Mutex<Vec<(String, String)>>>,
    play: Play,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = format!("{} {}", request.method(), request.uri());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    asked.lock().unwrap().push((target, body));
    let response = |status: u16, body: String| {
        let status = StatusCode::from_u16(status).unwrap();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
    };
    Ok(match play {
        Play::Answer(status, body) => response(status, body),
        Play::Redirect => {
            let mut redirect = response(302, String::new());
            let location = http::HeaderValue::from_static("/elsewhere");
            redirect
                .headers_mut()
                .insert(http::header::LOCATION, location);
            redirect
        }
        Play::Hang => std::future::pending().await,
        Play::When(go) => {
            go.acquire().await.unwrap().forget();
            response(200, String::new())
        }
    })
}

/// A permission over a hook, with what it registered.
struct Fixture {
    hook: Hook,
    permission: Permission,
    registered: Arc<Mutex<Vec<Registration>>>,
    metrics: Metrics,
    readiness: Readiness,
}

async fn fixture(play: Play, change: impl FnOnce(&mut Settings)) -> Fixture {
    let hook = Hook::start(play).await;
    let mut settings = Settings::new(hook.url.clone());
    settings.rate = 1000;
    settings.rate_per_domain = 1000;
    change(&mut settings);
    let registered: Arc<Mutex<Vec<Registration>>> = Arc::default();
    let written = Arc::clone(&registered);
    let register: Register = Arc::new(move |registration: Registration| {
        let result = match registration.name.as_str() {
            "taken.test" => Err(RegisterError::OwnedByOther {
                name: registration.name.clone(),
                wanted_by: registration.tenant.clone(),
            }),
            _ => {
                written.lock().unwrap().push(registration);
                Ok(())
            }
        };
        std::future::ready(result).boxed()
    });
    let metrics = Metrics::new(0);
    let readiness = Readiness::default();
    let told = (metrics.clone(), readiness.clone());
    let permission = Permission::new(settings, register, told, &hook.tasks).unwrap();
    Fixture {
        hook,
        permission,
        registered,
        metrics,
        readiness,
    }
}

impl Fixture {
    async fn ask(&self, name: &str) -> Result<TenantId, NotAllowed> {
        let client = "192.0.2.7".parse().unwrap();
        self.permission
            .handshake(&DnsName::parse(name).unwrap(), client)
            .await
    }

    fn counted(&self, outcome: Outcome) -> u64 {
        self.metrics.permissions.total(outcome)
    }

    fn condition(&self) -> (&'static str, Option<String>) {
        let conditions = self.readiness.report().conditions;
        let found = conditions
            .into_iter()
            .nth(Condition::PermissionHook as usize);
        let found = found.unwrap();
        (found.status, found.reason.map(String::from))
    }
}

fn unavailable(result: Result<TenantId, NotAllowed>) -> AskError {
    match result {
        Err(NotAllowed::Unavailable(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn ok(body: &str) -> Play {
    Play::Answer(200, body.to_owned())
}

#[tokio::test]
async fn an_allowed_name_is_registered_as_a_tenant_of_its_own_and_remembered() {
    let fixture = fixture(ok("whatever"), |_| {}).await;
    let tenant = fixture.ask("shop.test").await.unwrap();
    assert_eq!(tenant.as_str(), "ask:shop.test");
    assert_eq!(fixture.ask("shop.test").await.unwrap(), tenant);
    let asked = fixture.hook.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [("GET /ask?domain=shop.test".to_owned(), String::new())]
    );
    let registered = fixture.registered.lock().unwrap().clone();
    assert_eq!(registered[0].name.as_str(), "shop.test");
    assert_eq!(registered[0].tenant, tenant);
    assert_eq!(fixture.counted(Outcome::Allowed), 1);
    assert_eq!(fixture.counted(Outcome::AllowedCached), 1);
}

#[tokio::test]
async fn a_rich_answer_names_tenant_and_upstream() {
    let body = r#"{"decision":"allow","tenant":"acme","upstream":"core"}"#;
    let fixture = fixture(ok(body), |settings| settings.mode = Mode::Rich).await;
    assert_eq!(fixture.ask("shop.test").await.unwrap().as_str(), "acme");
    let registered = fixture.registered.lock().unwrap().clone();
    assert_eq!(registered[0].upstream, Some(UpstreamName::new("core")));
    let (target, body) = fixture.hook.asked.lock().unwrap()[0].clone();
    assert_eq!(target, "POST /ask");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&body).unwrap(),
        serde_json::json!({"host": "shop.test", "client_address": "192.0.2.7", "reason": "handshake"})
    );
}

#[tokio::test]
async fn a_denied_name_is_asked_about_once_and_then_refused_from_memory() {
    let fixture = fixture(Play::Answer(404, String::new()), |_| {}).await;
    let name = DnsName::parse("no.test").unwrap();
    for _ in 0..3 {
        let denied = fixture.ask("no.test").await;
        assert!(matches!(denied, Err(NotAllowed::Denied(None))));
    }
    assert_eq!(fixture.hook.calls(), 1);
    assert_eq!(fixture.counted(Outcome::DeniedCached), 2);
    let refusal = fixture.permission.verdicts().refusal(&name, monotonic());
    assert_eq!(refusal, Some(Refusal::UnknownName));
    assert!(fixture.registered.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_holds_as_long_as_it_says() {
    let body = r#"{"decision":"deny","reason":"unpaid","ttl_seconds":0}"#;
    let fixture = fixture(ok(body), |settings| settings.mode = Mode::Rich).await;
    for calls in 1..=2 {
        let denied = fixture.ask("no.test").await;
        assert!(matches!(denied, Err(NotAllowed::Denied(Some(reason))) if &*reason == "unpaid"));
        assert_eq!(fixture.hook.calls(), calls);
    }
}

#[tokio::test]
async fn a_hook_in_trouble_has_denied_nothing_and_nothing_is_remembered() {
    for (play, mode, outcome) in [
        (
            Play::Answer(500, "oops".to_owned()),
            Mode::Simple,
            Outcome::Malformed,
        ),
        (
            Play::Answer(429, String::new()),
            Mode::Simple,
            Outcome::Malformed,
        ),
        (Play::Redirect, Mode::Simple, Outcome::Malformed),
        (ok("<html>"), Mode::Rich, Outcome::Malformed),
        (
            ok(&"x".repeat(MOST_ANSWER_BYTES + 1)),
            Mode::Simple,
            Outcome::Malformed,
        ),
        (Play::Hang, Mode::Simple, Outcome::Timeout),
    ] {
        let fixture = fixture(play, |settings| {
            settings.mode = mode;
            settings.deadline = Duration::from_millis(200);
        })
        .await;
        unavailable(fixture.ask("a.test").await);
        assert_eq!(fixture.counted(outcome), 1);
        // A redirect is not followed: there was one request only.
        assert_eq!(fixture.hook.calls(), 1);
        let name = DnsName::parse("a.test").unwrap();
        let verdicts = fixture.permission.verdicts();
        assert_eq!(verdicts.get(&name, monotonic()), None);
        assert_eq!(verdicts.refusal(&name, monotonic()), None);
    }
}

#[tokio::test]
async fn a_failing_hook_is_a_degraded_condition_until_it_answers() {
    let body = r#"{"decision":"allow","tenant":"Not A Slug"}"#;
    let fixture = fixture(ok(body), |settings| settings.mode = Mode::Rich).await;
    assert_eq!(fixture.condition().0, "unknown");
    unavailable(fixture.ask("a.test").await);
    let (status, reason) = fixture.condition();
    let reason = reason.unwrap();
    assert_eq!(status, "degraded");
    let told = "the permission hook's answer cannot be used: the answer is not understood: ";
    assert!(reason.starts_with(told), "{reason}");
    fixture.hook.plays(Play::Answer(503, String::new()));
    unavailable(fixture.ask("a.test").await);
    let expected = "the permission hook's answer cannot be used: status 503 neither allows nor denies; unknown names are \
                    refused until it answers, known ones go on";
    assert_eq!(fixture.condition(), ("degraded", Some(expected.to_owned())));
    fixture.hook.plays(ok(r#"{"decision":"deny"}"#));
    assert!(matches!(
        fixture.ask("a.test").await,
        Err(NotAllowed::Denied(_))
    ));
    assert_eq!(fixture.condition(), ("well", None));
}

#[tokio::test]
async fn a_hook_that_is_not_there_is_unavailable() {
    let fixture = fixture(ok(""), |settings| {
        // Nothing listens on this loopback address.
        settings.ask = Url::parse("http://127.99.99.99:1/").unwrap();
    })
    .await;
    assert!(matches!(
        unavailable(fixture.ask("a.test").await),
        AskError::NoAnswer(_)
    ));
    assert_eq!(fixture.counted(Outcome::Unreachable), 1);
}

#[tokio::test]
async fn two_hundred_handshakes_of_one_name_make_one_call() {
    let go = Arc::new(Semaphore::new(0));
    let fixture = fixture(Play::When(Arc::clone(&go)), |_| {}).await;
    let asks = join_all((0..200).map(|_| fixture.ask("shop.test")));
    let (answers, ()) = tokio::join!(asks, async { go.add_permits(1) });
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fixture.hook.calls(), 1);
}

#[tokio::test]
async fn above_the_rates_names_are_refused_without_a_call() {
    let fixture = fixture(Play::Answer(404, String::new()), |settings| {
        settings.rate = 7;
        settings.rate_per_domain = 2;
    })
    .await;
    let mut below_one = 0;
    for n in 0..20 {
        let result = fixture.ask(&format!("n{n}.one.test")).await;
        below_one += usize::from(matches!(
            result,
            Err(NotAllowed::Unavailable(AskError::RateOfDomain {
                per_second: 2
            }))
        ));
    }
    // Whatever the machine's speed: a second's worth at once, and what comes back meanwhile.
    assert!(below_one > 0, "no name below one.test was refused");
    let mut refused = 0;
    for n in 0..50 {
        let result = fixture.ask(&format!("n{n}.test")).await;
        refused += usize::from(matches!(
            result,
            Err(NotAllowed::Unavailable(AskError::RateInAll {
                per_second: 7
            }))
        ));
    }
    assert!(refused > 0, "no name was refused");
    assert_eq!(fixture.hook.calls(), (20 - below_one) + (50 - refused));
}

#[tokio::test]
async fn a_failing_hook_is_left_alone_and_found_again() {
    let fixture = fixture(Play::Answer(503, String::new()), |_| {}).await;
    for n in 0..5 {
        unavailable(fixture.ask(&format!("n{n}.test")).await);
    }
    let open = unavailable(fixture.ask("more.test").await);
    assert!(matches!(open, AskError::BreakerOpen));
    assert_eq!(fixture.hook.calls(), 5);
    let name = DnsName::parse("other.test").unwrap();
    let refusal = fixture.permission.verdicts().refusal(&name, monotonic());
    assert_eq!(refusal, Some(Refusal::PermissionUnavailable));
    fixture.hook.plays(ok(""));
    let found = async {
        while fixture.ask("more.test").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .unwrap();
    assert_eq!(fixture.hook.calls(), 6);
}

#[tokio::test]
async fn only_a_denial_stops_a_renewal() {
    let fixture = fixture(Play::Answer(500, String::new()), |_| {}).await;
    let name = DnsName::parse("shop.test").unwrap();
    let standing = fixture.permission.renewal(&name).await;
    assert!(matches!(standing, Standing::Unknown(_)));
    fixture.hook.plays(Play::Answer(403, String::new()));
    let standing = fixture.permission.renewal(&name).await;
    assert!(matches!(standing, Standing::Denied(None)));
    let other = DnsName::parse("other.test").unwrap();
    fixture.hook.plays(ok(""));
    let standing = fixture.permission.renewal(&other).await;
    assert!(matches!(standing, Standing::Allowed));
    assert!(fixture.registered.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_that_another_tenant_owns_is_not_handed_over() {
    let fixture = fixture(ok(""), |_| {}).await;
    let refused = fixture.ask("taken.test").await;
    assert!(matches!(
        refused,
        Err(NotAllowed::Unregistered(RegisterError::OwnedByOther { .. }))
    ));
}
