//! Whole checks, with a scripted name server and real HTTP on loopback addresses.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::base::task::Tasks;
use crate::certs::preflight::judge::Reach;
use crate::dns::fixture::{NameServer, Script};
use crate::model::problem::ProblemCode;

/// A check with what it needs around it: our own port 80 at 127.0.0.1.
struct Ground {
    preflight: Preflight,
    names: NameServer,
    challenges: Challenges,
    port: u16,
    tasks: Tasks,
}

impl Ground {
    async fn start() -> Self {
        let tasks = Tasks::new();
        let names = NameServer::start(&tasks).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let challenges = Challenges::default();
        answer(listener, challenges.clone(), &tasks);
        let settings = crate::certs::Settings {
            preflight: Settings {
                dial: Dial::Any,
                deadline: Duration::from_secs(30),
                ..Settings::default()
            },
            ..crate::certs::Settings::default()
        };
        let edge = Edge {
            http_port: port,
            https_port: port,
            ..Edge::default()
        };
        let parts = Parts {
            examiner: Examiner::new(&names.settings).unwrap(),
            challenges: challenges.clone(),
            edge: Published::new(edge),
            settings: Published::new(settings),
            clock: Clock::system(),
        };
        Self {
            preflight: Preflight::new(parts),
            names,
            challenges,
            port,
            tasks,
        }
    }

    fn leads(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        self.names
            .says(name, Script::Leads(Vec::new(), addresses.collect()));
    }
}

/// Answers challenges as port 80 does.
fn answer(listener: TcpListener, challenges: Challenges, tasks: &Tasks) {
    tasks.spawn_until_cancelled("port 80", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            let asked = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let token = asked.split(['/', ' ']).nth(4).unwrap_or_default();
            let host = asked
                .split("host: ")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            let host = host.and_then(|host| DnsName::parse(host).ok());
            let found = host.and_then(|host| challenges.published_here(&host, token));
            let text = match found {
                Some(body) => format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                ),
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            stream.write_all(text.as_bytes()).await.ok();
        }
    });
}

fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

#[tokio::test]
async fn a_name_that_leads_here_is_well_and_leaves_no_challenge_behind() {
    let ground = Ground::start().await;
    ground.leads("shop.acme.com", &["127.0.0.1"]);
    let report = ground.preflight.check(&name("shop.acme.com")).await;
    assert_eq!(report.judgement.verdicts, []);
    assert_eq!(report.judgement.reach, Reach::Here);
    assert!(format!("{:?}", ground.challenges).contains("own: {}"));
    let remembered = ground.preflight.remembered(&name("shop.acme.com")).unwrap();
    assert!(Arc::ptr_eq(&report, &remembered));
    assert!(
        ground
            .preflight
            .remembered(&name("other.acme.com"))
            .is_none()
    );
    ground.tasks.cancel();
}

#[tokio::test]
async fn a_challenge_of_an_order_in_progress_outlives_a_check() {
    let ground = Ground::start().await;
    ground.leads("shop.acme.com", &["127.0.0.1"]);
    let shop = name("shop.acme.com");
    ground
        .challenges
        .publish(&shop, "DGyRejmCefe7v4NfDGDKfA", "theirs");
    ground.preflight.check(&shop).await;
    let kept = ground
        .challenges
        .published_here(&shop, "DGyRejmCefe7v4NfDGDKfA");
    assert_eq!(kept.as_deref(), Some("theirs"));
    ground.tasks.cancel();
}

#[tokio::test]
async fn every_address_is_asked_and_the_wrong_one_is_told() {
    let ground = Ground::start().await;
    let other = TcpListener::bind(("127.0.0.2", ground.port)).await.unwrap();
    answer(other, Challenges::default(), &ground.tasks);
    ground.leads("shop.acme.com", &["127.0.0.1", "127.0.0.2"]);
    let report = ground.preflight.check(&name("shop.acme.com")).await;
    let [verdict] = &*report.judgement.verdicts else {
        panic!("{report:?}");
    };
    assert_eq!(verdict.code, ProblemCode::WrongA);
    assert_eq!(
        verdict.evidence,
        ["127.0.0.2: somebody else answered with status 404"]
    );
    assert!(report.judgement.block().is_none());
    // Where it is the only one, every authority would meet the same.
    ground.leads("shop.acme.com", &["127.0.0.2"]);
    let report = ground.preflight.check(&name("shop.acme.com")).await;
    assert_eq!(report.judgement.block().unwrap().code, ProblemCode::WrongA);
    assert_eq!(report.judgement.reach, Reach::Elsewhere);
    ground.tasks.cancel();
}

#[tokio::test]
async fn dns_that_fails_is_told_by_how_it_fails() {
    let ground = Ground::start().await;
    for (script, expected) in [
        (Script::Nxdomain, ProblemCode::DnsNxdomain),
        (Script::Servfail, ProblemCode::DnsServfail),
        (Script::Bogus, ProblemCode::DnssecBogus),
        (Script::Silence, ProblemCode::CheckFailed),
        (
            Script::Leads(vec!["gone.example.org"], Vec::new()),
            ProblemCode::CnameWrongTarget,
        ),
    ] {
        ground.names.says("shop.acme.com", script);
        let report = ground.preflight.check(&name("shop.acme.com")).await;
        assert_eq!(report.judgement.verdicts[0].code, expected);
        assert_eq!(report.judgement.verdicts.len(), 1, "{report:?}");
    }
    ground.tasks.cancel();
}
