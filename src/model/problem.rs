//! Why a domain does not work, as a closed set of codes: each with who must act.

use std::fmt;

use crate::base::clock::Timestamp;

/// Who must act for a problem to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// The tenant: its DNS, its CDN.
    Customer,
    /// Who runs this proxy: configuration, network, limits.
    Operator,
    /// The certification authority; waiting helps.
    Ca,
    /// The program itself.
    Platform,
}

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $actor:ident;)*) => {
        /// A stable problem code. New ones may be added; none changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemCode { $($(#[$doc])* $variant,)* }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it in the API, in metrics and in logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Who must act.
            #[must_use]
            pub const fn actor(self) -> Actor {
                match self { $(Self::$variant => Actor::$actor,)* }
            }
        }
    };
}

problem_codes! {
    /// The name does not exist in DNS.
    DnsNxdomain = "dns_nxdomain", Customer;
    /// The name's servers fail to answer.
    DnsServfail = "dns_servfail", Customer;
    /// DNSSEC signatures do not verify.
    DnssecBogus = "dnssec_bogus", Customer;
    /// An A record points elsewhere.
    WrongA = "wrong_a", Customer;
    /// An AAAA record points elsewhere.
    WrongAaaa = "wrong_aaaa", Customer;
    /// There is no CNAME to the edge.
    CnameMissing = "cname_missing", Customer;
    /// The CNAME leads elsewhere.
    CnameWrongTarget = "cname_wrong_target", Customer;
    /// A content delivery network answers for the name.
    CdnInFront = "cdn_in_front", Customer;
    /// The domain's CAA records allow none of the configured authorities.
    CaaForbidsCa = "caa_forbids_ca", Customer;
    /// CAA allows the authority, but not this account.
    CaaForbidsAccount = "caa_forbids_account", Customer;
    /// CAA allows the authority, but not this kind of challenge.
    CaaForbidsMethod = "caa_forbids_method", Customer;
    /// The authority could not reach the name on port 80.
    HttpUnreachable = "http_unreachable", Customer;
    /// Something else answered the challenge.
    HttpWrongBody = "http_wrong_body", Customer;
    /// The challenge's URL is redirected in a circle.
    RedirectLoop = "redirect_loop", Customer;
    /// Something else terminates TLS for the name.
    TlsAlpnIntercepted = "tls_alpn_intercepted", Customer;
    /// The name is reachable from some countries only.
    GeoBlocked = "geo_blocked", Customer;
    /// The authority's vantage points disagree.
    MpicDisagree = "mpic_disagree", Customer;
    /// The account's orders are used up for now.
    RateLimitedAccount = "rate_limited_account", Operator;
    /// The registered domain's certificates are used up for now.
    RateLimitedDomain = "rate_limited_domain", Operator;
    /// The same set of names was certified too often.
    RateLimitedExactSet = "rate_limited_exact_set", Operator;
    /// Too many validations failed.
    RateLimitedFailures = "rate_limited_failures", Customer;
    /// The authority paused the name for the account.
    Paused = "paused", Operator;
    /// The authority does not answer or is in trouble.
    CaOutage = "ca_outage", Ca;
    /// The authority refuses the request.
    CaRejected = "ca_rejected", Operator;
    /// Policy does not allow the certificate.
    PolicyDenied = "policy_denied", Operator;
    /// The tenant's quota is used up.
    QuotaExceeded = "quota_exceeded", Operator;
    /// The tenant has not proved that it owns the name.
    OwnershipMissing = "ownership_missing", Customer;
    /// Another tenant owns the name.
    ClaimedByOther = "claimed_by_other", Customer;
    /// The authority lists the name as dangerous.
    SafeBrowsing = "safe_browsing", Customer;
    /// No name fits the certificate.
    NameTooLong = "name_too_long", Customer;
    /// The DNS provider refused our credentials.
    DnsProviderUnauthorized = "dns_provider_unauthorized", Operator;
    /// The DNS provider does not hold the zone.
    DnsZoneNotFound = "dns_zone_not_found", Operator;
    /// The record did not appear in time.
    DnsPropagationTimeout = "dns_propagation_timeout", Customer;
    /// The challenge name is not delegated to us.
    DelegationMissing = "delegation_missing", Customer;
    /// The upstream that the permission hook chose is not configured.
    UpstreamNotConfigured = "upstream_not_configured", Operator;
    /// No connection to the upstream.
    UpstreamUnreachable = "upstream_unreachable", Operator;
    /// The upstream answers too late.
    UpstreamSlow = "upstream_slow", Operator;
    /// Nothing has moved for too long.
    StuckPending = "stuck_pending", Platform;
    /// A private key cannot be opened.
    KeyUnreadable = "key_unreadable", Operator;
    /// We could not find out: not a failure.
    CheckFailed = "check_failed", Platform;
    /// None of the above.
    Unknown = "unknown", Platform;
}

impl ProblemCode {
    /// The code that a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word)
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for ProblemCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ProblemCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        // A row of a newer version may hold a code that this one does not know.
        Ok(Self::from_word(&word).unwrap_or(Self::Unknown))
    }
}

/// One problem of one domain: what is wrong, for whom, since when, and what repairs it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// What is wrong.
    pub code: ProblemCode,
    /// Who must act; follows from the code.
    pub actor: Actor,
    /// One sentence for a person.
    pub detail: String,
    /// What was seen: the authority's words, a record, a status.
    pub evidence: Vec<String>,
    /// The exact record or command that repairs it, where one is known.
    pub fix: Option<String>,
    /// When it was first seen without a success since.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// When we try again by ourselves; never where we do not.
    pub next_retry_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_problem_codes_tells_all_of_every_code() {
        let page = include_str!("../../docs/problems.md");
        let (_, codes) = page.split_once("## The codes").unwrap();
        let sections: Vec<&str> = codes.split("### `").skip(1).collect();
        assert_eq!(sections.len(), ProblemCode::ALL.len());
        for (code, section) in ProblemCode::ALL.iter().zip(sections) {
            assert!(
                section.starts_with(&format!("{code}`")),
                "{code} is not next"
            );
            let actor = serde_json::to_value(code.actor()).unwrap();
            let acts = format!("- **Who acts:** {}\n", actor.as_str().unwrap());
            for part in [
                "- **Tell the customer:** ",
                "- **Support:** ",
                &*acts,
                "- **Fix:** ",
            ] {
                assert!(section.contains(part), "{code}: {part}");
            }
        }
        assert!(page.contains("## Pending for longer than five minutes"));
    }

    #[test]
    fn every_code_has_its_own_word() {
        for code in ProblemCode::ALL {
            assert_eq!(ProblemCode::from_word(code.as_str()), Some(*code));
        }
    }
}
