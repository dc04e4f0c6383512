//! What repairs each problem: the exact record or command, for the tenant or the operator who reads it.

use crate::model::NamePattern;
use crate::model::edge::{DnsRecord, Edge};
use crate::model::problem::ProblemCode;

/// What repairs a problem of `pattern` on this edge: never nothing.
#[must_use]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not the customer's to repair stands in a table of its own"
)]
pub fn fix(code: ProblemCode, pattern: &NamePattern, edge: &Edge) -> String {
    use ProblemCode as P;

    let name = pattern.base();
    let zone = name.registered_domain();
    match code {
        P::DnsNxdomain | P::CnameMissing | P::CnameWrongTarget | P::WrongA => {
            lead_here(pattern, edge)
        }
        P::WrongAaaa => wrong_aaaa(pattern, edge),
        P::DnsServfail => format!(
            "repair the name servers of {zone}: they do not answer for {name}; `dig {name} A @ns1...` against each of \
             them shows which"
        ),
        P::DnssecBogus => format!(
            "sign {zone} again with the keys that its DS record names, or remove the DS record at the registrar; \
             `delv {name}` shows what does not verify"
        ),
        P::CdnInFront => format!(
            "let the CDN pass http://{name}/.well-known/acme-challenge/ on to this edge without a redirect to HTTPS, or \
             switch its proxying off for {name}: {}",
            lead_here(pattern, edge)
        ),
        P::CaaForbidsCa => format!(
            "add a CAA record for the authority, such as `{zone} CAA 0 issue \"letsencrypt.org\"`, or remove the CAA \
             records of {name}"
        ),
        P::CaaForbidsAccount => format!(
            "add this edge's account to the CAA record of {zone}: `accounturi=` with the URL in the evidence, or remove \
             the parameter"
        ),
        P::CaaForbidsMethod => {
            format!(
                "add http-01 to `validationmethods` in the CAA record of {zone}, or remove the parameter"
            )
        }
        P::HttpUnreachable | P::GeoBlocked | P::MpicDisagree => format!(
            "let port {} of every address of {name} be reached from every country, without a firewall or a geographic \
             filter before it{}; {}",
            edge.http_port,
            forwarded(edge),
            lead_here(pattern, edge)
        ),
        P::HttpWrongBody => format!(
            "make whatever answers on port {} for {name} pass http://{name}/.well-known/acme-challenge/ on to this edge, \
             or {}",
            edge.http_port,
            lead_here(pattern, edge)
        ),
        P::RedirectLoop => format!(
            "stop redirecting http://{name}/.well-known/acme-challenge/ in a circle, or {}",
            lead_here(pattern, edge)
        ),
        P::TlsAlpnIntercepted => format!(
            "let port 443 of {name} reach this edge without TLS being terminated before it, or allow HTTP-01; {}",
            lead_here(pattern, edge)
        ),
        P::OwnershipMissing => {
            format!("prove that {name} is yours with the TXT record that this domain's page shows")
        }
        P::ClaimedByOther => {
            format!(
                "ask whoever has registered {name} here to remove it, or prove that it is yours"
            )
        }
        P::SafeBrowsing => format!(
            "have {name} reviewed at https://search.google.com/search-console (security issues), then \
             `vestibule domain retry '{pattern}'`"
        ),
        P::NameTooLong => format!("use a shorter name than {name}"),
        P::DelegationMissing => {
            format!(
                "set the record `_acme-challenge.{name} CNAME` that this domain's page shows in the DNS of {zone}"
            )
        }
        P::DnsPropagationTimeout => {
            format!(
                "make all name servers of {zone} answer alike: one of them still has the old zone"
            )
        }
        _ => for_operator(code, pattern),
    }
}

/// What repairs a pause, where the authority's words hold the link to do it (Let's Encrypt's do).
#[must_use]
pub fn unpause(evidence: &[String]) -> Option<String> {
    let words = evidence.iter().flat_map(|line| line.split_whitespace());
    let mut links = words.filter(|word| word.starts_with("https://"));
    let link = links.next()?.trim_end_matches(['.', ',', ')']);
    Some(format!(
        "once `vestibule domain check` finds the DNS right, open {link} and unpause the name; it is tried again once a day"
    ))
}

/// What the operator, the authority or the program has to do.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the codes of customers are above; a code without a remedy of its own gets the general one"
)]
fn for_operator(code: ProblemCode, pattern: &NamePattern) -> String {
    use ProblemCode as P;

    let retry = format!("`vestibule domain retry '{pattern}'`");
    match code {
        P::RateLimitedAccount
        | P::RateLimitedDomain
        | P::RateLimitedExactSet => "nothing needs to be done: the next order goes out when the limit allows it; \
             `vestibule budget` shows when, and the authority may raise the limit on request"
            .to_owned(),
        P::RateLimitedFailures => format!(
            "put right what `vestibule domain check '{pattern}'` shows; the next attempt is made when the limit allows it"
        ),
        P::Paused => format!(
            "follow the authority's link in the evidence to unpause the name, once `vestibule domain check '{pattern}'` \
             finds its DNS right; then {retry}"
        ),
        P::CaOutage => "nothing needs to be done: the order is tried again by itself; another [[ca]] is \
             asked meanwhile where the tenant may use one (its own `ca` in proxy.toml must name it; without `ca`, no \
             private one follows a public one)"
            .to_owned(),
        P::CaRejected => format!(
            "read the authority's words in the evidence, correct the [[ca]] section in proxy.toml, then {retry}"
        ),
        P::PolicyDenied => format!(
            "configure an authority that may certify {pattern} ([[ca]] in proxy.toml), or allow the name, then {retry}"
        ),
        P::QuotaExceeded => "raise the tenant's quota, or remove a domain of it".to_owned(),
        P::DnsProviderUnauthorized => {
            "give the DNS provider's credentials in proxy.toml the right to change the zone".to_owned()
        }
        P::DnsZoneNotFound => format!(
            "create the zone of {} with the configured DNS provider, or configure the provider that holds it",
            pattern.base().registered_domain()
        ),
        P::UpstreamNotConfigured => {
            "add a [[upstream]] of that name to proxy.toml; or let the hook choose one that is there, then remove and add the domain".to_owned()
        }
        P::UpstreamUnreachable => {
            "start the upstream, or correct its `addresses` in proxy.toml; `vestibule doctor` tries each".to_owned()
        }
        P::UpstreamSlow => {
            "find out why the upstream answers late, or raise `response_timeout` of its [[upstream]]".to_owned()
        }
        P::StuckPending => format!(
            "{retry}; if it stays, `vestibule status` and `vestibule job list` show what issuance waits for"
        ),
        P::KeyUnreadable => "put the key-encryption key that wraps its keys back in place: `vestibule keys show` names the file; nothing is \
             ordered meanwhile"
            .to_owned(),
        P::CheckFailed => format!(
            "nothing needs to be done: it says nothing about the domain; `vestibule domain check '{pattern}'` tries again"
        ),
        _ => format!("report it with the evidence; then {retry}"),
    }
}

/// The records that lead a name here.
fn lead_here(pattern: &NamePattern, edge: &Edge) -> String {
    let zone = pattern.base().registered_domain();
    let ways = edge.requirements(pattern);
    let written: Vec<String> = ways.iter().map(|way| records(way)).collect();
    match written.is_empty() {
        true => format!(
            "point {pattern} to this edge in the DNS of {zone} (describe the edge under [edge] in proxy.toml, and the \
             exact record is shown here)"
        ),
        false => format!(
            "in the DNS of {zone} replace the A, AAAA and CNAME records of {pattern} by {}",
            written.join(", or by ")
        ),
    }
}

/// What has to pass the port on, where this edge listens at another.
fn forwarded(edge: &Edge) -> String {
    let forwarding = edge.forwarding();
    forwarding.map_or_else(String::new, |what| format!(", and forward {what}"))
}

fn records(way: &[DnsRecord]) -> String {
    let records: Vec<String> = way.iter().map(|record| format!("`{record}`")).collect();
    records.join(" and ")
}

/// A wrong AAAA alone spoils everything, for authorities prefer IPv6: without one all is well.
fn wrong_aaaa(pattern: &NamePattern, edge: &Edge) -> String {
    let zone = pattern.base().registered_domain();
    let ours: Vec<String> = edge
        .ipv6
        .iter()
        .map(|address| format!("`{pattern} AAAA {address}`"))
        .collect();
    match ours.is_empty() {
        true => format!(
            "in the DNS of {zone} remove every AAAA record of {pattern}: this edge has no IPv6 address"
        ),
        false => format!(
            "in the DNS of {zone} replace the AAAA records of {pattern} by {}",
            ours.join(" and ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DnsName;

    fn edge() -> Edge {
        Edge {
            cname_target: Some(DnsName::parse("edge.example.net").unwrap()),
            ipv4: vec!["192.0.2.1".parse().unwrap()],
            ..Edge::default()
        }
    }

    fn fixed(code: ProblemCode, pattern: &str, edge: &Edge) -> String {
        fix(code, &NamePattern::parse(pattern).unwrap(), edge)
    }

    #[test]
    fn every_code_has_a_remedy_on_any_edge() {
        for code in ProblemCode::ALL {
            for edge in [edge(), Edge::default()] {
                for pattern in ["shop.acme.com", "acme.com", "*.acme.com"] {
                    let fix = fixed(*code, pattern, &edge);
                    assert!(fix.len() > 10 && !fix.ends_with('.'), "{code}: {fix}");
                }
            }
        }
    }

    #[test]
    fn a_pause_is_undone_at_the_authoritys_own_link() {
        let evidence = |words: &str| unpause(&["rateLimited".to_owned(), words.to_owned()]);
        let found = evidence("Please visit: https://portal.example.org/unpause?jwt=abc.def.");
        assert!(
            found
                .unwrap()
                .contains("open https://portal.example.org/unpause?jwt=abc.def and")
        );
        assert_eq!(evidence("Your account is paused"), None);
    }

    #[test]
    fn a_port_that_this_edge_does_not_listen_at_is_to_be_forwarded() {
        let behind = Edge {
            http_listening: vec![8080],
            ..edge()
        };
        let fix = |edge| fixed(ProblemCode::HttpUnreachable, "shop.acme.com", edge);
        let forwarded = ", and forward port 80 to the 8080 that this edge listens at; ";
        assert!(fix(&behind).contains(forwarded));
        assert!(!fix(&edge()).contains("forward"));
    }

    #[test]
    fn names_the_exact_record() {
        assert_eq!(
            fixed(ProblemCode::CnameMissing, "shop.acme.com", &edge()),
            "in the DNS of acme.com replace the A, AAAA and CNAME records of shop.acme.com by \
             `shop.acme.com CNAME edge.example.net`, or by `shop.acme.com A 192.0.2.1`"
        );
        assert!(
            fixed(ProblemCode::WrongA, "acme.com", &edge())
                .contains("by `acme.com A 192.0.2.1`, or by `acme.com CNAME edge.example.net`")
        );
        assert_eq!(
            fixed(ProblemCode::WrongAaaa, "shop.acme.com", &edge()),
            "in the DNS of acme.com remove every AAAA record of shop.acme.com: this edge has no IPv6 address"
        );
        let six = Edge {
            ipv6: vec!["2001:db8::1".parse().unwrap()],
            ..edge()
        };
        assert_eq!(
            fixed(ProblemCode::WrongAaaa, "shop.acme.com", &six),
            "in the DNS of acme.com replace the AAAA records of shop.acme.com by `shop.acme.com AAAA 2001:db8::1`"
        );
    }
}
