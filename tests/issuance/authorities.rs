//! Authorities that want a binding, offer profiles, lose accounts, change keys, go away and come back; and domains whose
//! CAA records choose among them.

mod chains;
mod cut_short;

use std::net::SocketAddr;

use serde_json::json;
use vestibule::base::backoff::Backoff;
use vestibule::ca::acme::{self, Binding};
use vestibule::ca::{CertificateAuthority, Material, Opened};
use vestibule::certs::authorities::breaker::{self, Standing};
use vestibule::certs::authorities::{self, Choice, Choices};
use vestibule::dns::{self, Dns};

use vestibule::model::standing::{CertificateStanding, Replace};

use super::*;

/// The settings for this Pebble, to be changed.
fn settings(pebble: &Pebble) -> acme::Settings {
    let Kind::Acme(settings) = acme(pebble) else {
        panic!("this is ACME");
    };
    settings
}

fn named(name: &str, settings: acme::Settings) -> CaSettings {
    CaSettings {
        id: CaId::new(name),
        kind: Kind::Acme(settings),
    }
}

/// An authority by itself, to be handed material as after a kill at any point.
fn adapter(settings: &acme::Settings, tasks: &Tasks) -> Arc<dyn CertificateAuthority> {
    let authorities = ca::Settings {
        authorities: vec![named("test", settings.clone())],
    };
    ca::authorities(&authorities, tasks, &Clock::system())
        .unwrap()
        .remove(0)
}

fn lifetime(credential: &Credential) -> Duration {
    credential
        .facts
        .not_after
        .since(credential.facts.not_before)
}

/// A watch that probes within milliseconds and reads CAA from this Pebble's name server.
fn quick(pebble: &Pebble) -> authorities::Parts {
    let dns = Dns::new(&dns::Settings {
        resolvers: vec![SocketAddr::V4(pebble.name_server())],
        ..dns::Settings::default()
    });
    authorities::Parts {
        dns: Some(dns.unwrap()),
        breaker: breaker::Settings {
            pauses: Backoff {
                first: Duration::from_millis(50),
                factor: 1,
                most: Duration::from_millis(50),
            },
            ..breaker::Settings::default()
        },
        ..authorities::Parts::default()
    }
}

fn bound(secret: &str) -> serde_json::Value {
    json!({
        "externalAccountBindingRequired": true,
        "externalAccountMACKeys": { "kid-1": secret },
    })
}

/// Base64url, as websites show it, and the bytes.
const MAC_KEY: (&str, &[u8]) = (
    "emFwIHphcCB6YXAgemFwIHphcCB6YXAgemFwIHphcCE",
    b"zap zap zap zap zap zap zap zap!",
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_bound_to_a_customer_and_a_wrong_key_is_told_and_orders_nothing() {
    let place = Place::claim();
    let pebble = Pebble::start_with(&place, &bound(MAC_KEY.0), &[]);
    let with = |binding: Option<Binding>| acme::Settings {
        binding,
        ..settings(&pebble)
    };
    let key = |id: &str, key: &[u8]| {
        Some(Binding {
            key_id: id.to_owned(),
            hmac_key: Secret::new(key.to_vec()),
        })
    };
    for (binding, told) in [
        (None, "set eab in the [[ca]] named test"),
        (
            key("kid-1", b"another key that is long enough "),
            "compare kid and hmac_key of eab",
        ),
        (key("kid-2", MAC_KEY.1), "with key id \"kid-2\""),
    ] {
        let elsewhere = Place::claim();
        let engine = Engine::start(&elsewhere, Kind::Acme(with(binding)), short()).await;
        engine.run();
        engine.register("a.example.com").await;
        let problem = engine.obtain("a.example.com").await.unwrap_err();
        assert_eq!(problem.code, ProblemCode::CaRejected, "{problem:?}");
        assert!(problem.detail.contains(told), "{problem:?}");
        let standing = engine.accounts.authorities().standing(&CaId::new("test"));
        assert_eq!(standing, Standing::Closed);
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (0, 0));

    let engine = Engine::start(&place, Kind::Acme(with(key("kid-1", MAC_KEY.1))), short()).await;
    engine.run();
    engine.register("a.example.com").await;
    engine.obtain("a.example.com").await.unwrap();
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_has_lost_the_account_is_given_a_new_one() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let engine = Engine::with_pebble(&place, &pebble).await;
    engine.run();
    engine.register("before.example.com").await;
    engine.register("after.example.com").await;
    engine.obtain("before.example.com").await.unwrap();
    drop(pebble);
    let pebble = Pebble::start(&place);
    engine.obtain("after.example.com").await.unwrap();
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 1));
    engine.tasks.cancel();
    engine.tasks.finish(PATIENCE).await;
    // The new one was kept.
    let engine = Engine::with_pebble(&place, &pebble).await;
    engine.run();
    engine.register("again.example.com").await;
    engine.obtain("again.example.com").await.unwrap();
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_of_a_known_key_is_found_without_its_url() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let tasks = Tasks::new();
    let settings = settings(&pebble);
    let key = KeyPair::generate().unwrap().serialize_der();
    // Nobody has an account of this key.
    let pinned = acme::Settings {
        account_key: Some(Secret::new(key)),
        ..settings.clone()
    };
    let unknown = adapter(&pinned, &tasks)
        .open(Vec::new(), Clock::system().now())
        .await;
    let told = unknown.unwrap_err().to_string();
    assert!(
        told.contains("correct it in the [[ca]] named test"),
        "{told}"
    );
    assert_eq!(pebble.accounts(), 0);

    let made = registered(&*adapter(&settings, &tasks)).await;
    let kept = &made.made[0];
    let credentials: serde_json::Value = serde_json::from_slice(kept.secret.expose()).unwrap();
    let key = base64url(credentials["key_pkcs8"].as_str().unwrap());
    let pinned = acme::Settings {
        account_key: Some(Secret::new(key.clone())),
        ..settings.clone()
    };
    let found = adapter(&pinned, &tasks)
        .open(Vec::new(), Clock::system().now())
        .await
        .unwrap();
    assert_eq!(found.account.url(), made.account.url());
    // Material without the URL, as an import may leave it.
    let without = acme::account_material(pebble.directory(), None, &key);
    let found = adapter(&settings, &tasks)
        .open(vec![without], Clock::system().now())
        .await
        .unwrap();
    assert_eq!(found.account.url(), made.account.url());
    assert_eq!(pebble.accounts(), 1);
}

/// An authority opened with an account that is made for it.
async fn registered(ca: &dyn CertificateAuthority) -> Opened {
    let key = ca.first_key(&[]).unwrap().unwrap();
    ca.register(key, Clock::system().now()).await.unwrap()
}

fn base64url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

/// Whether an account opened with this material can place orders.
async fn works(
    ca: &dyn CertificateAuthority,
    kept: Vec<Material>,
) -> Result<Vec<Material>, String> {
    let opened = ca
        .open(kept, Clock::system().now())
        .await
        .map_err(|error| error.to_string())?;
    let order = opened
        .account
        .order(&NewOrder::of(&[pattern("a.example.com")]))
        .await;
    order
        .map(|_order| opened.made)
        .map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_account_key_leaves_a_usable_account_wherever_it_is_killed() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let tasks = Tasks::new();
    let ca = adapter(&settings(&pebble), &tasks);
    let first = registered(&*ca).await;
    let url = first.account.url().unwrap().to_owned();
    let old = first.made.into_iter().next().unwrap();
    let next = ca.next_key(std::slice::from_ref(&old)).unwrap().unwrap();
    let kept = vec![old.clone(), next.clone()];
    // Killed after the next key was kept, before the authority was told: the old key it is.
    assert!(works(&*ca, kept.clone()).await.unwrap().is_empty());
    // Asked for again, the key that is kept is used, and no other is made.
    assert!(ca.next_key(&kept).unwrap().is_none());
    // Killed after the authority took it, before that was kept.
    ca.change_key(kept.clone()).await.unwrap();
    let made = works(&*ca, kept.clone()).await.unwrap();
    assert_eq!(
        made[0].slot, old.slot,
        "the new key is to be kept as the account's"
    );
    // The same, and the change is asked for again.
    let changed = ca.change_key(kept).await.unwrap();
    assert_eq!(changed.account.url(), Some(&*url));
    // All kept: the new key is the account's, and the old one is of no use to anybody.
    let kept = vec![changed.made[0].clone(), next];
    assert!(works(&*ca, kept.clone()).await.unwrap().is_empty());
    assert!(works(&*ca, vec![old]).await.is_err());
    // A further change makes a further key.
    assert!(ca.next_key(&kept).unwrap().is_some());
    assert_eq!(pebble.accounts(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_key_is_changed_while_names_are_served_and_stays_changed() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let ca = CaId::new("test");
    let mut urls = Vec::new();
    for name in ["one.example.com", "two.example.com"] {
        let engine = Engine::with_pebble(&place, &pebble).await;
        engine.run();
        engine.register(name).await;
        urls.push(engine.accounts.change_key(&ca).await.unwrap());
        engine.obtain(name).await.unwrap();
        assert_eq!(
            engine.accounts.url(&ca).await.unwrap().as_ref(),
            urls.last()
        );
        engine.tasks.cancel();
        engine.tasks.finish(PATIENCE).await;
    }
    assert_eq!(urls[0], urls[1]);
    assert_eq!((pebble.accounts(), pebble.orders()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_profile_is_ordered_that_the_tenant_or_the_authority_is_given() {
    let place = Place::claim();
    let profiles = json!({ "profiles": {
        "default": { "description": "the usual", "validityPeriod": 7_776_000 },
        "tlsserver": { "description": "for servers", "validityPeriod": 3_888_000 },
        "shortlived": { "description": "six days", "validityPeriod": 576_000 },
    }});
    let pebble = Pebble::start_with(&place, &profiles, &[]);
    for (name, of_ca, of_tenant, expected) in [
        ("server.example.com", Some("tlsserver"), None, 3_888_000),
        (
            "short.example.com",
            Some("tlsserver"),
            Some("shortlived"),
            576_000,
        ),
    ] {
        let settings = acme::Settings {
            profile: of_ca.map(str::to_owned),
            ..settings(&pebble)
        };
        let choice = Choice {
            profile: of_tenant.map(Arc::from),
            ..Choice::default()
        };
        let watch = authorities::Parts {
            choices: Published::new(Arc::new(Choices([(tenant(), choice)].into()))),
            ..authorities::Parts::default()
        };
        let elsewhere = Place::claim();
        let ca = vec![named("test", settings)];
        let engine = Engine::choosing((&elsewhere, &place), ca, watch, short()).await;
        engine.run();
        engine.register(name).await;
        let credential = engine.obtain(name).await.unwrap();
        let off = lifetime(&credential).as_secs().abs_diff(expected);
        assert!(off <= 2, "{name}: {:?}", lifetime(&credential));
        engine.tasks.cancel();
        engine.tasks.finish(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_that_is_not_offered_is_told_with_those_that_are_and_renewals_go_on() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let gone = Kind::Acme(acme::Settings {
        profile: Some("tlsclient".to_owned()),
        ..settings(&pebble)
    });
    let engine = Engine::start(&place, acme(&pebble), short()).await;
    engine.run();
    engine.register("a.example.com").await;
    let first = engine.obtain("a.example.com").await.unwrap();
    engine.tasks.cancel();
    engine.tasks.finish(PATIENCE).await;
    let engine = Engine::start(&place, gone, short()).await;
    engine.run();
    engine.register("b.example.com").await;
    let orders = pebble.orders();
    let problem = engine.obtain("b.example.com").await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::PolicyDenied, "{problem:?}");
    let told = "test does not offer the profile \"tlsclient\"; it offers: default";
    assert!(problem.detail.contains(told), "{problem:?}");
    let standing = CertificateStanding {
        replace: Some(Replace::Asked),
        ..CertificateStanding::default()
    };
    let asked = Batch::new().then(Operation::SetCertificateStanding {
        certificate: first.facts.id,
        standing: Box::new(standing),
    });
    let (by, everyone) = (Deadline::after(PATIENCE), TenantScope::upkeep());
    engine.store.apply(by, &everyone, asked).await.unwrap();
    let renewed = engine.obtain("a.example.com").await.unwrap();
    assert_ne!(renewed.facts.id, first.facts.id);
    assert!(pebble.orders() > orders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_chain_with_alternate_roots_is_served_whole() {
    let place = Place::claim();
    let environment = [
        ("PEBBLE_ALTERNATE_ROOTS", "2"),
        ("PEBBLE_CHAIN_LENGTH", "3"),
    ];
    let pebble = Pebble::start_with(&place, &json!({}), &environment);
    let engine = Engine::with_pebble(&place, &pebble).await;
    engine.run();
    engine.register("a.example.com").await;
    let credential = engine.obtain("a.example.com").await.unwrap();
    assert_eq!(
        credential.certified.cert.len(),
        4,
        "a leaf and three intermediates"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_authority_certifies_while_the_first_is_away_and_the_first_again_when_it_is_back()
{
    let (place, second) = (Place::claim(), Place::claim());
    let one = Pebble::start(&place);
    let two = Pebble::start(&second);
    let both = vec![named("test", settings(&one)), named("two", settings(&two))];
    let watch = quick(&two);
    let metrics = watch.metrics.clone();
    let engine = Engine::choosing((&place, &place), both, watch, short()).await;
    let answering = answer(second.at(HTTP), engine.challenges.clone());
    engine.tasks.spawn_until_cancelled("port_80", answering);
    let (first, next) = (CaId::new("test"), CaId::new("two"));
    // An order that was begun, so that there is one to be forgotten.
    engine.register("begun.example.com").await;
    let account = engine.accounts.account(&first).await.unwrap();
    let begun = account
        .order(&NewOrder::of(&[pattern("begun.example.com")]))
        .await
        .unwrap();
    let key = KeyPair::generate().unwrap();
    engine.leave("begun.example.com", begun.url(), &key).await;
    engine.run();
    for name in ["before.example.com", "away.example.com", "back.example.com"] {
        engine.register(name).await;
    }
    let before = engine.obtain("before.example.com").await.unwrap();
    assert_eq!(before.facts.ca, first);

    drop(one);
    let away = engine.obtain("away.example.com").await.unwrap();
    assert_eq!(away.facts.ca, next);
    assert_eq!(
        engine.accounts.authorities().standing(&first),
        Standing::Open
    );
    assert_eq!(metrics.ca_ready.value(&first), Some(0));
    let begun = engine.obtain("begun.example.com").await.unwrap();
    assert_eq!(begun.facts.ca, next);
    assert_eq!(engine.job("begun.example.com").await.order_url, None);
    assert_eq!((two.orders(), two.issued()), (2, 2));

    let one = Pebble::start(&place);
    let by = monotonic() + PATIENCE;
    while engine.accounts.authorities().standing(&first) == Standing::Open {
        assert!(monotonic() < by, "it has not been found to be back");
        tokio::task::yield_now().await;
    }
    // Its database is empty: it gets a new account by the way.
    let back = engine.obtain("back.example.com").await.unwrap();
    assert_eq!(back.facts.ca, first);
    assert_eq!(
        engine.accounts.authorities().standing(&first),
        Standing::Closed
    );
    assert_eq!(metrics.ca_ready.value(&first), Some(1));
    assert_eq!((one.orders(), two.orders()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caa_chooses_among_the_authorities_and_forbids_without_a_call() {
    let (place, second) = (Place::claim(), Place::claim());
    let one = Pebble::start(&place);
    let two = Pebble::start(&second);
    let known = |name: &str, pebble: &Pebble| {
        let identities = vec![format!("{name}.test")];
        named(
            name,
            acme::Settings {
                caa_identities: identities,
                ..settings(pebble)
            },
        )
    };
    let both = vec![known("one", &one), known("two", &two)];
    let engine = Engine::choosing((&place, &place), both, quick(&one), short()).await;
    let answering = answer(second.at(HTTP), engine.challenges.clone());
    engine.tasks.spawn_until_cancelled("port_80", answering);
    let account = engine.accounts.account(&CaId::new("one")).await.unwrap();
    let account = account.url().unwrap().to_owned();
    engine.run();
    let caa = |host: &str, value: &str| {
        let policies = json!([{ "tag": "issue", "value": value }]);
        one.tell_dns(
            "add-caa",
            &json!({ "host": format!("{host}."), "policies": policies }),
        );
    };
    caa("two.example.com", "two.test");
    caa(
        "ours.example.com",
        &format!("one.test; accounturi={account}"),
    );
    for (name, expected) in [
        ("a.free.example.com", "one"),
        ("a.ours.example.com", "one"),
        ("a.two.example.com", "two"),
    ] {
        engine.register(name).await;
        let credential = engine.obtain(name).await.unwrap();
        assert_eq!(credential.facts.ca.as_str(), expected, "{name}");
        // An account is opened where it is needed, not with every authority that CAA is read for.
        let kept = engine.accounts.url(&CaId::new("two")).await.unwrap();
        assert_eq!(kept.is_some(), expected == "two", "{name}");
    }
    let orders = (one.orders(), two.orders());
    caa("third.example.com", "third.test");
    caa(
        "theirs.example.com",
        "one.test; accounturi=https://one.test/other",
    );
    caa("method.example.com", "one.test; validationmethods=dns-01");
    one.tell_dns("set-servfail", &json!({ "host": "a.bad.example.com." }));
    let theirs = format!("theirs.example.com. CAA 0 issue \"one.test; accounturi={account}\"");
    let (method, third) = (
        "method.example.com. CAA 0 issue \"one.test; validationmethods=http-01,tls-alpn-01\"",
        "third.example.com. CAA 0 issue \"one.test\"",
    );
    for (name, code, record) in [
        (
            "a.third.example.com",
            ProblemCode::CaaForbidsCa,
            Some(third),
        ),
        (
            "a.theirs.example.com",
            ProblemCode::CaaForbidsAccount,
            Some(&*theirs),
        ),
        (
            "a.method.example.com",
            ProblemCode::CaaForbidsMethod,
            Some(method),
        ),
        ("a.bad.example.com", ProblemCode::DnsServfail, None),
    ] {
        engine.register(name).await;
        let problem = engine.obtain(name).await.unwrap_err();
        assert_eq!(problem.code, code, "{problem:?}");
        if let Some(record) = record {
            let fix = format!("add this record: {record}");
            assert_eq!(problem.fix.as_deref(), Some(&*fix), "{problem:?}");
        }
    }
    assert_eq!((one.orders(), two.orders()), orders);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_none_is_told_with_its_remedy() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let page = format!("https://{}/roots/0", place.at(pebble::ACME_MANAGEMENT));
    let missing = pebble.directory().replace("/dir", "/no-such-directory");
    for (directory, told) in [(page, "is no ACME directory"), (missing, "status 404")] {
        let remedy = "set directory in the [[ca]] named test";
        let elsewhere = Place::claim();
        let wrong = acme::Settings {
            directory: directory.clone(),
            ..settings(&pebble)
        };
        let engine = Engine::start(&elsewhere, Kind::Acme(wrong), short()).await;
        engine.run();
        engine.register("a.example.com").await;
        let problem = engine.obtain("a.example.com").await.unwrap_err();
        let words = format!("{}; {}", problem.detail, problem.evidence.join("; "));
        assert!(
            words.contains(told) && words.contains(remedy),
            "{problem:?}"
        );
    }
    assert_eq!(pebble.orders(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_only_authority_is_away_names_wait_without_failing_and_go_on_by_themselves() {
    let place = Place::claim();
    let pebble = Pebble::start(&place);
    let ca = vec![named("test", settings(&pebble))];
    let watch = authorities::Parts {
        dns: None,
        ..quick(&pebble)
    };
    let engine = Engine::choosing((&place, &place), ca, watch, short()).await;
    engine.run();
    for name in ["first.example.com", "second.example.com"] {
        engine.register(name).await;
    }
    drop(pebble);
    let first = engine.obtain("first.example.com").await.unwrap_err();
    assert_eq!(first.code, ProblemCode::CaOutage, "{first:?}");
    let ca = CaId::new("test");
    assert_eq!(engine.accounts.authorities().standing(&ca), Standing::Open);
    let second = engine.obtain("second.example.com").await.unwrap_err();
    assert!(
        second.detail.contains("test is not asked at present: "),
        "{second:?}"
    );
    assert!(second.next_retry_at.is_some());
    let domain = engine.domain("second.example.com").await;
    assert_eq!(domain.problem.unwrap().code, ProblemCode::CaOutage);
    assert_eq!(engine.job("second.example.com").await.failures, 0);

    let mut waiting = ["first.example.com", "second.example.com"]
        .map(|name| engine.outcomes.subscribe(&pattern(name)));
    let _pebble = Pebble::start(&place);
    for told in &mut waiting {
        let issued = async { while !matches!(told.next().await, Outcome::Issued(_)) {} };
        tokio::time::timeout(PATIENCE, issued).await.unwrap();
    }
    assert_eq!(
        engine.accounts.authorities().standing(&ca),
        Standing::Closed
    );
}
