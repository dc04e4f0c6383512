//! Whole checks, with a scripted name server and real HTTP on loopback addresses.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::base::task::Tasks;
use crate::certs::preflight::fixture::{Ground, answer};
use crate::certs::preflight::judge::Reach;
use crate::dns::fixture::Script;
use crate::model::problem::ProblemCode;

fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

#[tokio::test]
async fn a_name_that_leads_here_is_well_and_leaves_no_challenge_behind() {
    let ground = Ground::start(Clock::system()).await;
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
    let ground = Ground::start(Clock::system()).await;
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
async fn a_network_in_front_is_known_from_memory_unless_a_look_has_told_since() {
    let ground = Ground::start(Clock::system()).await;
    ground.leads("shop.acme.com", &["127.0.0.1"]);
    let shop = name("shop.acme.com");
    let (fresh, fronted) = (
        ReachMemory::default(),
        ReachMemory {
            fronted_since: Some(Timestamp::EPOCH),
            ..ReachMemory::default()
        },
    );
    let preflight = &ground.preflight;
    assert!(!preflight.is_fronted(&shop, &fresh));
    assert!(preflight.is_fronted(&shop, &fronted));
    preflight.check_briefly(&shop).await;
    assert!(!preflight.is_fronted(&shop, &fronted));
    // A look that finds nothing out forgets nothing.
    ground.names.says("shop.acme.com", Script::Silence);
    preflight.check_briefly(&shop).await;
    assert!(preflight.is_fronted(&shop, &fronted));
    ground.tasks.cancel();
}

#[tokio::test]
async fn every_address_is_asked_and_the_wrong_one_is_told() {
    let ground = Ground::start(Clock::system()).await;
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
    let ground = Ground::start(Clock::system()).await;
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

/// Notes the first byte of every connection and closes it.
fn note_first_bytes(listener: TcpListener, tasks: &Tasks) -> Arc<Mutex<Vec<u8>>> {
    let noted: Arc<Mutex<Vec<u8>>> = Arc::default();
    let written = Arc::clone(&noted);
    tasks.spawn_until_cancelled("closing", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let first = stream.read_u8().await.unwrap();
            written.lock().unwrap().push(first);
        }
    });
    noted
}

#[tokio::test]
async fn before_an_order_no_handshake_is_waited_for_that_would_hold_nothing_back() {
    const HANDSHAKE: u8 = 0x16;
    let ground = Ground::start(Clock::system()).await;
    let closing = TcpListener::bind(("127.0.0.4", ground.port)).await.unwrap();
    let noted = note_first_bytes(closing, &ground.tasks);
    ground.leads("shop.acme.com", &["127.0.0.4"]);
    let shop = name("shop.acme.com");
    let report = ground.preflight.check_briefly(&shop).await;
    assert!(report.judgement.block().is_none(), "{report:?}");
    assert!(!noted.lock().unwrap().contains(&HANDSHAKE));
    // Whoever reads it is told all.
    let report = ground.preflight.check(&shop).await;
    assert!(report.judgement.block().is_none(), "{report:?}");
    assert!(noted.lock().unwrap().contains(&HANDSHAKE));
    ground.tasks.cancel();
}
