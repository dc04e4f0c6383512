//! The judgement as tables, and look-ups with a name server of the tests' own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{CAA, CNAME};
use tokio::net::UdpSocket;

use super::*;
use crate::base::task::Tasks;
use crate::dns::Settings;

const ACCOUNT: &str = "https://ca.test/acct/1";

fn set(records: &[(&str, &str)]) -> CaaSet {
    let record = |(tag, value): &(&str, &str)| CaaRecord {
        critical: tag.starts_with('!'),
        tag: tag.trim_start_matches('!').to_owned(),
        value: (*value).to_owned(),
    };
    CaaSet {
        at: Some(DnsName::parse("example.com").unwrap()),
        records: records.iter().map(record).collect(),
    }
}

/// What the records say to `ca.test` with its account, by HTTP-01, for `pattern`.
fn judged(pattern: &str, records: &[(&str, &str)]) -> (Verdict, Option<String>) {
    let identities = ["ca.test".to_owned(), "other-ca.test".to_owned()];
    let asked = Asked {
        identities: &identities,
        pattern: &NamePattern::parse(pattern).unwrap(),
        account: Some(ACCOUNT),
        methods: &["http-01"],
    };
    let set = set(records);
    let verdict = set.allows(&asked);
    let remedy = set.remedy(&asked, &verdict);
    (verdict, remedy)
}

fn check(records: &[(&str, &str)], expected: &Verdict) {
    let (verdict, _) = judged("a.example.com", records);
    assert_eq!(verdict, *expected, "{records:?}");
}

#[test]
fn the_record_that_decides_is_the_one_that_names_the_authority_or_else_the_first() {
    let decides = |pattern: &str, records: &[(&str, &str)]| {
        let asked = Asked {
            identities: &["ca.test".to_owned()],
            pattern: &NamePattern::parse(pattern).unwrap(),
            account: Some(ACCOUNT),
            methods: &["http-01"],
        };
        let set = set(records);
        let (_, by) = set.ruling(&asked);
        by.map(ToString::to_string)
    };
    let issue = |value: &str| Some(format!("CAA 0 issue \"{value}\""));
    assert_eq!(decides("a.test", &[("iodef", "mailto:x@a.test")]), None);
    let others = [("issue", "x.test"), ("issue", "y.test")];
    assert_eq!(decides("a.test", &others), issue("x.test"));
    let named = [("issue", "x.test"), ("issue", "ca.test")];
    assert_eq!(decides("a.test", &named), issue("ca.test"));
    let account = [("issue", "x.test"), ("issue", "ca.test; accounturi=u")];
    assert_eq!(decides("a.test", &account), issue("ca.test; accounturi=u"));
    let wild = [("issue", "ca.test"), ("issuewild", ";")];
    assert_eq!(
        decides("*.a.test", &wild),
        Some("CAA 0 issuewild \";\"".to_owned())
    );
    let critical = [("issue", "ca.test"), ("!new", "")];
    assert_eq!(
        decides("a.test", &critical),
        Some("CAA 128 new \"\"".to_owned())
    );
}

#[test]
fn the_issue_properties_name_who_may() {
    use Verdict::{Allowed, ForbidsCa};
    check(&[], &Allowed);
    check(&[("issue", "ca.test")], &Allowed);
    check(&[("issue", "CA.test")], &Allowed);
    check(&[("issue", "other-ca.test")], &Allowed);
    check(&[("issue", " \tca.test ; ")], &Allowed);
    check(&[("issue", "third.test")], &ForbidsCa);
    check(&[("issue", "third.test"), ("issue", "ca.test")], &Allowed);
    check(&[("issue", ";")], &ForbidsCa);
    check(&[("issue", "")], &ForbidsCa);
    check(&[("issue", "ca.test.third.test")], &ForbidsCa);
    // Only the others' business.
    check(&[("iodef", "mailto:a@example.com")], &Allowed);
    check(&[("issuewild", "third.test")], &Allowed);
    // RFC 8659 §4.2: a malformed value names nobody.
    check(&[("issue", "ca.test; no parameter")], &ForbidsCa);
    check(&[("issue", "ca.test; a_b=c")], &ForbidsCa);
}

#[test]
fn an_account_and_a_method_narrow_it() {
    use Verdict::{Allowed, ForbidsAccount, ForbidsCa, ForbidsMethod};
    let ours = format!("ca.test; accounturi={ACCOUNT}");
    check(&[("issue", &ours)], &Allowed);
    check(&[("issue", &ours.replace('1', "2"))], &ForbidsAccount);
    let twice = format!("{ours}; accounturi={ACCOUNT}");
    check(&[("issue", &twice)], &ForbidsAccount);
    check(
        &[("issue", "ca.test; validationmethods=dns-01,http-01")],
        &Allowed,
    );
    check(
        &[("issue", "ca.test;validationmethods=dns-01")],
        &ForbidsMethod,
    );
    check(
        &[("issue", "ca.test; ValidationMethods = http-01")],
        &Allowed,
    );
    check(&[("issue", "ca.test; cansignhttpexchanges=yes")], &Allowed);
    let both = format!("{ours}; validationmethods=dns-01");
    check(&[("issue", &both)], &ForbidsMethod);
    // The nearest to leave is told.
    check(&[("issue", "third.test"), ("issue", &both)], &ForbidsMethod);
    check(&[("issue", &both), ("issue", "third.test")], &ForbidsMethod);
    check(
        &[("issue", "third.test; validationmethods=http-01")],
        &ForbidsCa,
    );
}

#[test]
fn an_account_that_is_not_known_yet_is_not_found_unfit() {
    let identities = ["ca.test".to_owned()];
    let asked = Asked {
        identities: &identities,
        pattern: &NamePattern::parse("a.example.com").unwrap(),
        account: None,
        methods: &["http-01"],
    };
    let set = set(&[("issue", "ca.test; accounturi=https://ca.test/acct/9")]);
    assert_eq!(set.allows(&asked), Verdict::Allowed);
}

#[test]
fn wildcards_have_a_property_of_their_own() {
    use Verdict::{Allowed, ForbidsCa};
    let wild = |records: &[(&str, &str)]| judged("*.example.com", records).0;
    assert_eq!(wild(&[("issue", "ca.test")]), Allowed);
    assert_eq!(wild(&[("issue", "third.test")]), ForbidsCa);
    assert_eq!(
        wild(&[("issue", "third.test"), ("issuewild", "ca.test")]),
        Allowed
    );
    assert_eq!(wild(&[("issue", "ca.test"), ("issuewild", ";")]), ForbidsCa);
}

#[test]
fn a_critical_tag_that_nobody_knows_forbids_everybody() {
    let records = [("issue", "ca.test"), ("!tbs", "Unknown")];
    check(&records, &Verdict::UnknownCritical("tbs".to_owned()));
    check(
        &[("issue", "ca.test"), ("tbs", "Unknown")],
        &Verdict::Allowed,
    );
    check(&[("!issue", "ca.test")], &Verdict::Allowed);
    check(&[("!issuemail", ";")], &Verdict::Allowed);
}

#[test]
fn the_remedy_is_the_record_to_add() {
    let remedy = |pattern: &str, records: &[(&str, &str)]| judged(pattern, records).1;
    let issue = remedy("a.example.com", &[("issue", "third.test")]);
    assert_eq!(
        issue.as_deref(),
        Some("example.com. CAA 0 issue \"ca.test\"")
    );
    let wild = remedy("*.example.com", &[("issuewild", ";")]);
    assert_eq!(
        wild.as_deref(),
        Some("example.com. CAA 0 issuewild \"ca.test\"")
    );
    let account = remedy("a.example.com", &[("issue", "ca.test; accounturi=x")]);
    let expected = format!("example.com. CAA 0 issue \"ca.test; accounturi={ACCOUNT}\"");
    assert_eq!(account, Some(expected));
    let method = remedy(
        "a.example.com",
        &[("issue", "ca.test; validationmethods=dns-01")],
    );
    let expected = "example.com. CAA 0 issue \"ca.test; validationmethods=http-01\"";
    assert_eq!(method.as_deref(), Some(expected));
    assert_eq!(remedy("a.example.com", &[("issue", "ca.test")]), None);
}

#[derive(Clone)]
enum Answer {
    Caa(Vec<CAA>),
    Alias(&'static str, Vec<CAA>),
    ServFail,
    Silence,
}

/// A name server that knows its table, and else that there is nothing.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    table: Arc<Mutex<HashMap<&'static str, Answer>>>,
    tasks: Tasks,
}

impl Server {
    async fn start(table: &[(&'static str, Answer)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            asked: Arc::default(),
            table: Arc::new(Mutex::new(table.iter().cloned().collect())),
            tasks: Tasks::new(),
        };
        let (table, asked) = (Arc::clone(&server.table), Arc::clone(&server.asked));
        server.tasks.spawn_until_cancelled("dns", async move {
            let mut buffer = [0; 1024];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                asked.fetch_add(1, Ordering::Relaxed);
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let name = query.queries[0].name().to_ascii().to_lowercase();
                let known = table.lock().unwrap().get(&*name).cloned();
                if let Some(answer) = answer(&query, known) {
                    socket.send_to(&answer, client).await.unwrap();
                }
            }
        });
        server
    }

    fn says(&self, name: &'static str, answer: Answer) {
        self.table.lock().unwrap().insert(name, answer);
    }

    fn dns(&self) -> Dns {
        let settings = Settings {
            resolvers: vec![self.address],
            ..Settings::default()
        };
        Dns::new(&settings).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn answer(query: &Message, known: Option<Answer>) -> Option<Vec<u8>> {
    let asked = &query.queries[0];
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.queries.push(asked.clone());
    let mut holds = |name: &Name, found: Vec<CAA>| {
        for caa in found {
            answer.add_answer(Record::from_rdata(name.clone(), 300, RData::CAA(caa)));
        }
    };
    match known {
        Some(Answer::Caa(found)) => holds(asked.name(), found),
        Some(Answer::Alias(target, found)) => {
            let target = Name::from_ascii(target).unwrap();
            holds(&target, found);
            let alias = RData::CNAME(CNAME(target));
            answer.add_answer(Record::from_rdata(asked.name().clone(), 300, alias));
        }
        Some(Answer::ServFail) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Answer::Silence) => return None,
        None => {}
    }
    Some(answer.to_vec().unwrap())
}

fn issue(ca: &str) -> CAA {
    CAA::new_issue(false, Some(Name::from_ascii(ca).unwrap()), Vec::new())
}

async fn asked(server: &Server, name: &str) -> Result<CaaSet, CaaError> {
    let name = DnsName::parse(name).unwrap();
    lookup(
        &server.dns(),
        &name,
        Freshness::Cached,
        Duration::from_secs(5),
    )
    .await
}

#[tokio::test]
async fn the_nearest_records_up_the_tree_count() {
    let server = Server::start(&[
        ("com.", Answer::Caa(vec![issue("tld.test")])),
        ("example.com.", Answer::Caa(vec![issue("zone.test")])),
        ("own.example.com.", Answer::Caa(vec![issue("own.test")])),
    ])
    .await;
    for (name, at, value) in [
        ("a.b.c.d.e.f.example.com", "example.com", "zone.test"),
        ("example.com", "example.com", "zone.test"),
        ("own.example.com", "own.example.com", "own.test"),
        ("a.own.example.com", "own.example.com", "own.test"),
        ("elsewhere.com", "com", "tld.test"),
    ] {
        let found = asked(&server, name).await.unwrap();
        assert_eq!(found.at, Some(DnsName::parse(at).unwrap()), "{name}");
        assert_eq!(found.records[0].value, value, "{name}");
        assert_eq!(found.lines(), [format!("{at}. CAA 0 issue \"{value}\"")]);
    }
    assert_eq!(
        asked(&server, "a.example.net").await.unwrap(),
        CaaSet::default()
    );
}

#[tokio::test]
async fn an_alias_is_followed_and_the_climb_goes_on_from_the_name_itself() {
    let server = Server::start(&[
        (
            "with.example.com.",
            Answer::Alias("cdn.test.", vec![issue("cdn-ca.test")]),
        ),
        (
            "without.example.com.",
            Answer::Alias("cdn.test.", Vec::new()),
        ),
        ("example.com.", Answer::Caa(vec![issue("zone.test")])),
        ("test.", Answer::Caa(vec![issue("wrong.test")])),
    ])
    .await;
    let with = asked(&server, "with.example.com").await.unwrap();
    assert_eq!(with.records[0].value, "cdn-ca.test");
    let without = asked(&server, "without.example.com").await.unwrap();
    assert_eq!(without.records[0].value, "zone.test");
}

#[tokio::test]
async fn servfail_is_the_domains_own_only_where_the_resolver_answers_for_others() {
    let server = Server::start(&[
        ("bad.example.com.", Answer::ServFail),
        ("example.com.", Answer::Caa(vec![issue("zone.test")])),
    ])
    .await;
    let error = asked(&server, "bad.example.com").await.unwrap_err();
    assert!(matches!(&error, CaaError::ServFail { .. }), "{error:?}");
    assert!(error.is_definite());
    // What lies above a name that has records is of no interest.
    server.says("com.", Answer::ServFail);
    assert!(asked(&server, "example.com").await.is_ok());

    server.says("example.com.", Answer::ServFail);
    let error = asked(&server, "bad.example.com").await.unwrap_err();
    assert!(matches!(&error, CaaError::NotTold { .. }), "{error:?}");
    assert!(!error.is_definite());
}

#[tokio::test]
async fn silence_ends_with_the_deadline_and_says_nothing() {
    let server = Server::start(&[("a.example.com.", Answer::Silence)]).await;
    let name = DnsName::parse("a.example.com").unwrap();
    let patience = Duration::from_millis(100);
    let error = lookup(&server.dns(), &name, Freshness::Cached, patience).await;
    let error = error.unwrap_err();
    assert!(matches!(&error, CaaError::Deadline { .. }), "{error:?}");
    assert!(!error.is_definite());
}

#[tokio::test]
async fn an_answer_is_kept_by_its_time_to_live_unless_a_fresh_one_is_wanted() {
    let server = Server::start(&[("example.com.", Answer::Caa(vec![issue("old.test")]))]).await;
    let dns = server.dns();
    let name = DnsName::parse("example.com").unwrap();
    let asked = |freshness| lookup(&dns, &name, freshness, Duration::from_secs(5));
    assert_eq!(
        asked(Freshness::Cached).await.unwrap().records[0].value,
        "old.test"
    );
    server.says("example.com.", Answer::Caa(vec![issue("new.test")]));
    let before = server.asked.load(Ordering::Relaxed);
    assert_eq!(
        asked(Freshness::Cached).await.unwrap().records[0].value,
        "old.test"
    );
    assert!(
        server.asked.load(Ordering::Relaxed) <= before + 1,
        "the name itself is not asked for"
    );
    assert_eq!(
        asked(Freshness::Fresh).await.unwrap().records[0].value,
        "new.test"
    );
}
