//! Verdicts, code by code.

use super::*;
use crate::certs::preflight::cdn::Cdn;
use crate::certs::preflight::facts::Served;
use crate::dns::examine::{Certainty, Records};

const OURS: &str = "198.51.100.1";
const THEIRS: &str = "203.0.113.5";
const THEIRS_6: &str = "2001:db8::5";

fn edge() -> Edge {
    Edge {
        cname_target: Some(DnsName::parse("edge.example.net").unwrap()),
        ipv4: vec![OURS.parse().unwrap()],
        ..Edge::default()
    }
}

fn other(status: u16) -> Found {
    Found::Other {
        status,
        server: Some("nginx".to_owned()),
        at: None,
    }
}

fn silent() -> Found {
    Found::Unreachable("port 80: no answer within 4000 ms".to_owned())
}

/// Facts of a name that leads to these addresses.
fn leading(found: &[(&str, Found)]) -> Facts {
    let fetches: Vec<Fetch> = found
        .iter()
        .map(|(address, found)| Fetch {
            address: address.parse().unwrap(),
            found: found.clone(),
            cdn: None,
        })
        .collect();
    let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
    for fetch in &fetches {
        match fetch.address {
            IpAddr::V4(address) => ipv4.push(address),
            IpAddr::V6(address) => ipv6.push(address),
        }
    }
    Facts {
        name: DnsName::parse("shop.acme.com").unwrap(),
        records: Records {
            aliases: Vec::new(),
            ipv4: if ipv4.is_empty() {
                Answer::Empty
            } else {
                Answer::Found(ipv4)
            },
            ipv6: if ipv6.is_empty() {
                Answer::Empty
            } else {
                Answer::Found(ipv6)
            },
            signatures: Signatures::Good,
        },
        edge_addresses: Vec::new(),
        fetches,
        served: None,
    }
}

fn alias(mut facts: Facts, target: &str) -> Facts {
    facts.records.aliases = vec![target.to_owned()];
    facts
}

fn saying(ipv4: Answer<std::net::Ipv4Addr>, ipv6: Answer<std::net::Ipv6Addr>) -> Facts {
    let mut facts = leading(&[]);
    (facts.records.ipv4, facts.records.ipv6) = (ipv4, ipv6);
    facts
}

fn nxdomain(certainty: Certainty) -> Facts {
    saying(Answer::Nxdomain(certainty), Answer::Nxdomain(certainty))
}

type Expected<'a> = (&'a [(ProblemCode, Weight)], Reach);

#[track_caller]
fn check(facts: &Facts, (verdicts, reach): Expected<'_>) {
    let judged = judge(facts, &edge());
    let found: Vec<(ProblemCode, Weight)> = judged
        .verdicts
        .iter()
        .map(|verdict| (verdict.code, verdict.weight))
        .collect();
    assert_eq!((&*found, judged.reach), (verdicts, reach), "{facts:?}");
    for verdict in judged.verdicts {
        assert!(
            !verdict.evidence.is_empty() && !verdict.fix.is_empty(),
            "{verdict:?}"
        );
    }
}

use ProblemCode as P;
use Weight::{Blocks, Tells};

#[test]
fn what_is_reached_is_well_whoever_stands_before_it() {
    check(&leading(&[(OURS, Found::Ours)]), (&[], Reach::Here));
    // Neither NAT nor a CDN is a fault.
    let mut behind = leading(&[("104.16.1.1", Found::Ours)]);
    behind.fetches[0].cdn = Some(Cdn::Cloudflare);
    check(&behind, (&[], Reach::Here));
    assert_eq!(behind.fronted_by(), Some(Cdn::Cloudflare));
    // One of several that cannot be reached from here says nothing.
    let half = leading(&[(OURS, Found::Ours), (THEIRS_6, Found::NoRoute)]);
    check(&half, (&[], Reach::Here));
}

#[test]
fn one_wrong_address_among_right_ones_is_told() {
    let six = leading(&[(OURS, Found::Ours), (THEIRS_6, other(404))]);
    check(&six, (&[(P::WrongAaaa, Tells)], Reach::Here));
    let four = leading(&[(OURS, Found::Ours), (THEIRS, other(200))]);
    check(&four, (&[(P::WrongA, Tells)], Reach::Here));
    let private = leading(&[(OURS, Found::Ours), ("10.0.0.1", Found::NotPublic)]);
    check(&private, (&[(P::WrongA, Tells)], Reach::Here));
}

#[test]
fn a_name_that_leads_nowhere_keeps_an_order_back_where_that_is_sure() {
    let sure = nxdomain(Certainty::Sure);
    check(&sure, (&[(P::DnsNxdomain, Blocks)], Reach::Elsewhere));
    let unsure = nxdomain(Certainty::Unsure);
    check(&unsure, (&[(P::DnsNxdomain, Tells)], Reach::Untold));
    check(&leading(&[]), (&[(P::CnameMissing, Blocks)], Reach::Untold));
    let mut local = leading(&[]);
    local.name = DnsName::parse("shop.acme.test").unwrap();
    check(&local, (&[(P::CnameMissing, Tells)], Reach::Untold));
    let dangling = alias(leading(&[]), "old.example.org");
    check(&dangling, (&[(P::CnameWrongTarget, Blocks)], Reach::Untold));
    // An alias of our own name that does not resolve is our own trouble.
    let ours = alias(nxdomain(Certainty::Sure), "edge.example.net");
    check(&ours, (&[(P::CnameWrongTarget, Tells)], Reach::Untold));
}

#[test]
fn servers_that_fail_are_told_from_answers_not_found_out() {
    let fails = saying(Answer::Servfail, Answer::Servfail);
    check(&fails, (&[(P::DnsServfail, Tells)], Reach::Untold));
    let untold = || Answer::Untold("request timed out".to_owned());
    let silent = saying(untold(), Answer::Untold("request timed out".to_owned()));
    check(&silent, (&[(P::CheckFailed, Tells)], Reach::Untold));
    let half = saying(untold(), Answer::Nxdomain(Certainty::Sure));
    check(&half, (&[(P::CheckFailed, Tells)], Reach::Untold));
}

#[test]
fn forged_signatures_keep_an_order_back_where_the_resolver_says_so() {
    let mut refused = saying(Answer::Servfail, Answer::Servfail);
    refused.records.signatures = Signatures::Bogus(Witness::Resolver);
    check(&refused, (&[(P::DnssecBogus, Blocks)], Reach::Untold));
    let mut read_here = leading(&[(OURS, Found::Ours)]);
    read_here.records.signatures = Signatures::Bogus(Witness::Chain);
    check(&read_here, (&[(P::DnssecBogus, Tells)], Reach::Here));
}

#[test]
fn somebody_else_at_every_address_keeps_an_order_back() {
    let a = leading(&[(THEIRS, other(404)), (THEIRS_6, other(200))]);
    check(&a, (&[(P::WrongA, Blocks)], Reach::Elsewhere));
    let aaaa = leading(&[(THEIRS_6, other(404))]);
    check(&aaaa, (&[(P::WrongAaaa, Blocks)], Reach::Elsewhere));
    let cname = alias(leading(&[(THEIRS, other(404))]), "shops.example.org");
    check(&cname, (&[(P::CnameWrongTarget, Blocks)], Reach::Elsewhere));
    let circle = leading(&[(THEIRS, Found::Loop("a redirect in a circle".to_owned()))]);
    check(&circle, (&[(P::RedirectLoop, Blocks)], Reach::Elsewhere));
    let mut cdn = leading(&[("104.16.1.1", other(525))]);
    cdn.fetches[0].cdn = Some(Cdn::Cloudflare);
    check(&cdn, (&[(P::CdnInFront, Blocks)], Reach::Elsewhere));
}

#[test]
fn what_may_be_otherwise_for_an_authority_only_tells() {
    // Robots are kept out; authorities may be let in.
    for status in [401, 403, 429, 500, 503] {
        let refused = leading(&[(THEIRS, other(status))]);
        check(&refused, (&[(P::WrongA, Tells)], Reach::Untold));
    }
    // One of two that nobody answers at may be ours.
    let half = leading(&[(THEIRS, other(404)), (THEIRS_6, silent())]);
    check(&half, (&[(P::WrongA, Tells)], Reach::Untold));
    let nobody = leading(&[(THEIRS, silent())]);
    check(&nobody, (&[(P::HttpUnreachable, Tells)], Reach::Untold));
    let private = leading(&[("10.0.0.1", Found::NotPublic)]);
    check(&private, (&[(P::WrongA, Tells)], Reach::Untold));
}

#[test]
fn our_own_address_that_cannot_be_reached_from_inside_is_no_failure() {
    let configured = leading(&[(OURS, silent())]);
    check(&configured, (&[(P::CheckFailed, Tells)], Reach::Untold));
    let through_our_name = alias(leading(&[(THEIRS, silent())]), "edge.example.net");
    check(
        &through_our_name,
        (&[(P::CheckFailed, Tells)], Reach::Untold),
    );
    let mut as_our_name = leading(&[(THEIRS, silent())]);
    as_our_name.edge_addresses = vec![THEIRS.parse().unwrap()];
    check(&as_our_name, (&[(P::CheckFailed, Tells)], Reach::Untold));
    let no_route = leading(&[(THEIRS_6, Found::NoRoute)]);
    check(&no_route, (&[(P::CheckFailed, Tells)], Reach::Untold));
    // Something else on our own port 80 is the operator's to find, not a customer who moved.
    let shadowed = leading(&[(OURS, other(404))]);
    check(&shadowed, (&[(P::HttpWrongBody, Tells)], Reach::Untold));
}

#[test]
fn evidence_tells_who_answered_where_and_what_is_served_today() {
    let mut facts = leading(&[(THEIRS, other(404))]);
    facts.served = Some(Served {
        address: THEIRS.parse().unwrap(),
        issuer: "C=US, O=Let's Encrypt, CN=R11".to_owned(),
        not_after: Timestamp::from_seconds(1_700_000_000),
    });
    let judged = judge(&facts, &edge());
    let verdict = judged.block().unwrap();
    assert_eq!(
        verdict.detail,
        "the A records of shop.acme.com lead to another server"
    );
    assert_eq!(
        verdict.evidence,
        [
            "203.0.113.5: somebody else answered with status 404 (server: nginx)",
            "203.0.113.5: HTTPS is served today with a certificate of C=US, O=Let's Encrypt, CN=R11, \
             valid until 2023-11-14T22:13:20Z",
        ]
    );
    assert!(
        verdict
            .fix
            .contains("`shop.acme.com CNAME edge.example.net`")
    );
}

#[test]
fn behind_nat_an_answer_of_our_own_router_keeps_no_order_back() {
    // A page to log in at, which other paths lead to, or nothing at all at an address of ours.
    let own_loop = Found::Loop("a redirect in a circle".to_owned());
    for (found, code) in [
        (other(200), P::HttpWrongBody),
        (own_loop, P::RedirectLoop),
        (silent(), P::CheckFailed),
    ] {
        let own = leading(&[(OURS, found.clone())]);
        check(&own, (&[(code, Tells)], Reach::Untold));
        let by_name = alias(leading(&[(THEIRS, found)]), "edge.example.net");
        check(&by_name, (&[(code, Tells)], Reach::Untold));
    }
    let half = leading(&[(OURS, other(200)), (THEIRS, other(404))]);
    check(&half, (&[(P::WrongA, Tells)], Reach::Untold));
}

#[test]
fn where_the_edge_is_not_described_what_is_seen_from_here_keeps_no_order_back() {
    let circle = Found::Loop("a redirect in a circle".to_owned());
    for facts in [
        leading(&[(THEIRS, other(404)), (THEIRS_6, other(200))]),
        leading(&[(THEIRS, circle)]),
        alias(leading(&[(THEIRS, other(404))]), "shops.example.org"),
        nxdomain(Certainty::Sure),
        leading(&[]),
        alias(leading(&[]), "old.example.org"),
    ] {
        let judged = judge(&facts, &Edge::default());
        assert!(judged.definite().is_some() && judged.block().is_none());
        assert_eq!(judged.reach, Reach::Untold);
    }
}

#[test]
fn what_a_private_view_of_dns_denies_keeps_no_order_back() {
    let mut private = nxdomain(Certainty::Sure);
    private.edge_addresses = vec!["10.0.0.7".parse().unwrap()];
    check(&private, (&[(P::DnsNxdomain, Tells)], Reach::Untold));
    let mut our_zone = nxdomain(Certainty::Sure);
    our_zone.name = DnsName::parse("shop.example.net").unwrap();
    check(&our_zone, (&[(P::DnsNxdomain, Tells)], Reach::Untold));
    let mut public = nxdomain(Certainty::Sure);
    public.edge_addresses = vec!["1.1.1.1".parse().unwrap()];
    check(&public, (&[(P::DnsNxdomain, Blocks)], Reach::Elsewhere));
}

#[test]
fn aliases_that_lead_in_a_circle_are_told_whatever_the_resolver_makes_of_them() {
    for answer in [Answer::Empty, Answer::Servfail] {
        let mut circle = saying(answer, Answer::Servfail);
        circle.records.aliases = vec!["b.example.org".to_owned(), "shop.acme.com".to_owned()];
        check(&circle, (&[(P::CnameWrongTarget, Blocks)], Reach::Untold));
        assert_eq!(
            judge(&circle, &edge()).verdicts[0].detail,
            "the aliases of shop.acme.com lead in a circle: shop.acme.com → b.example.org → shop.acme.com"
        );
    }
    let mut further_on = saying(Answer::Servfail, Answer::Servfail);
    further_on.records.aliases = ["b.test", "c.test", "b.test"].map(str::to_owned).into();
    check(
        &further_on,
        (&[(P::CnameWrongTarget, Blocks)], Reach::Untold),
    );
}

fn reported(code: ProblemCode) -> Problem {
    Problem {
        code,
        actor: code.actor(),
        detail: "the authority's".to_owned(),
        evidence: vec!["unauthorized: Invalid response".to_owned()],
        fix: None,
        first_seen: Timestamp::from_seconds(90),
        last_seen: Timestamp::from_seconds(100),
        next_retry_at: Some(Timestamp::from_seconds(160)),
    }
}

#[test]
fn an_authoritys_problem_is_refined_by_the_cause_behind_it() {
    let facts = leading(&[(OURS, Found::Ours), (THEIRS_6, other(404))]);
    let judged = judge(&facts, &edge());
    let refined = refine(reported(P::HttpWrongBody), None, &judged);
    assert_eq!(refined.code, P::WrongAaaa);
    assert_eq!(
        refined.evidence,
        [
            "unauthorized: Invalid response",
            "2001:db8::5: somebody else answered with status 404 (server: nginx)"
        ]
    );
    assert!(refined.fix.unwrap().contains("remove every AAAA record"));
    assert_eq!(refined.first_seen, Timestamp::from_seconds(100));
    assert_eq!(refined.next_retry_at, Some(Timestamp::from_seconds(160)));
    // Seen before: since then.
    let earlier = Problem {
        first_seen: Timestamp::from_seconds(10),
        ..reported(P::WrongAaaa)
    };
    let refined = refine(reported(P::HttpWrongBody), Some(&earlier), &judged);
    assert_eq!(refined.first_seen, Timestamp::from_seconds(10));
}

#[test]
fn what_is_not_about_reaching_the_name_stays_as_the_authority_said_it() {
    let facts = leading(&[(THEIRS, other(404))]);
    let judged = judge(&facts, &edge());
    for code in [
        P::Paused,
        P::CaaForbidsCa,
        P::RateLimitedAccount,
        P::CaOutage,
        P::SafeBrowsing,
    ] {
        assert_eq!(refine(reported(code), None, &judged), reported(code));
    }
    let well = judge(&leading(&[(OURS, Found::Ours)]), &edge());
    assert_eq!(
        refine(reported(P::HttpUnreachable), None, &well),
        reported(P::HttpUnreachable)
    );
    let name = DnsName::parse("shop.acme.com").unwrap();
    let failed = Judgement::check_failed(&name, "too late", &edge());
    assert_eq!(
        refine(reported(P::HttpUnreachable), None, &failed),
        reported(P::HttpUnreachable)
    );
}
