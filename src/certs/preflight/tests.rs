//! Whole checks, with a scripted name server and real HTTP on loopback addresses.

use tokio::net::TcpListener;

use super::*;
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
