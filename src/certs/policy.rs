//! Whether a certificate may be ordered, and from which authority: pure, and the only maker of the permit that
//! issuance consumes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::certs::authorities::choice::Unsuitable;
use crate::certs::budget::Class;
use crate::certs::request::IssuanceRequest;
use crate::model::certificate::{CaId, CertificateId};
use crate::model::challenge::ChallengeKind;
use crate::model::domain::DomainState;
use crate::model::problem::ProblemCode;
use crate::store::record::DomainRecord;

/// The longest that an emergency waits for the budget of the preferred authority.
const SOON: Duration = Duration::from_secs(300);

/// An authority that could be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub ca: CaId,
    /// Whether it can be asked for the name now.
    pub suitable: Suitable,
    /// The kinds of challenge that CAA lets it prove the name by, of those that may be tried.
    pub methods: Vec<ChallengeKind>,
    /// The profile that is ordered of it, where it has any and one is configured.
    pub profile: Option<Arc<str>>,
}

/// Whether an authority can be asked for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suitable {
    /// It can.
    Yes,
    /// Something stands against it.
    No(Unsuitable),
}

impl Offer {
    /// What stands against it.
    #[must_use]
    pub const fn unsuitable(&self) -> Option<&Unsuitable> {
        match &self.suitable {
            Suitable::Yes => None,
            Suitable::No(unsuitable) => Some(unsuitable),
        }
    }
}

/// Leave to order one certificate: what, of whom, in whose place. Made only by [`decide`], whatever the reason; used up
/// by issuance.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuancePermit {
    request: IssuanceRequest,
    ca: CaId,
    replaces: Option<CertificateId>,
    methods: Vec<ChallengeKind>,
    profile: Option<Arc<str>>,
}

impl IssuancePermit {
    /// What is wanted, and why.
    #[must_use]
    pub const fn request(&self) -> &IssuanceRequest {
        &self.request
    }

    /// The authority to order of.
    #[must_use]
    pub const fn ca(&self) -> &CaId {
        &self.ca
    }

    /// The certificate of the same authority in whose place the new one comes: the order says so (RFC 9773 §5).
    #[must_use]
    pub const fn replaces(&self) -> Option<CertificateId> {
        self.replaces
    }

    /// The kinds of challenge that the name may be proved by, the one to try first first.
    #[must_use]
    pub fn methods(&self) -> &[ChallengeKind] {
        &self.methods
    }

    /// The profile to order, where one is configured.
    #[must_use]
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Uses the permit up.
    #[must_use]
    pub fn consume(self) -> IssuanceRequest {
        self.request
    }
}

/// Why no certificate is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Nobody has registered the name (any more).
    NotRegistered,
    /// The name belongs to another tenant (by now).
    OtherTenant,
    /// The domain is not served at present.
    NotServed(DomainState),
    /// The permission hook, which allowed the name once, does not any more.
    HookDenies,
    /// No authority is configured.
    NoAuthority,
    /// Something stands against every authority that the tenant may use.
    NoneSuitable(Vec<Offer>),
}

impl Denial {
    /// The problem that it is.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        // An authority that is only away will be back; else the preferred one's reason counts.
        let reason = match self.is_passing() {
            true => Some(ProblemCode::CaOutage),
            false => self.reasons().map(|(_, reason)| reason.code()).next(),
        };
        reason.unwrap_or(ProblemCode::PolicyDenied)
    }

    /// Whether waiting is enough: an authority that would do is only away.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.reasons()
            .any(|(_, reason)| matches!(reason, Unsuitable::Away { .. }))
    }

    /// What repairs it, where there is a single thing to do.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        let code = self.code();
        let mut reasons = self.reasons().map(|(_, reason)| reason);
        reasons
            .find(|reason| reason.code() == code)
            .and_then(Unsuitable::fix)
    }

    /// What was seen, without repetition.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for line in self.reasons().flat_map(|(_, reason)| reason.evidence()) {
            if !all.contains(&line) {
                all.push(line);
            }
        }
        all
    }

    /// What stands against each authority.
    fn reasons(&self) -> impl Iterator<Item = (&CaId, &Unsuitable)> {
        let offers: &[Offer] = match self {
            Self::NoneSuitable(offers) => offers,
            Self::NotRegistered
            | Self::OtherTenant
            | Self::NotServed(_)
            | Self::HookDenies
            | Self::NoAuthority => &[],
        };
        offers
            .iter()
            .filter_map(|offer| Some((&offer.ca, offer.unsuitable()?)))
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered => f.write_str("the name is not registered"),
            Self::OtherTenant => f.write_str("the name belongs to another tenant"),
            Self::NotServed(state) => write!(f, "the domain is {state}"),
            Self::HookDenies => f.write_str(
                "the permission hook does not allow the name any more; what is valid is served until it expires",
            ),
            Self::NoAuthority => {
                f.write_str("no certification authority that the tenant may use is configured; add a [[ca]], or change ca in [[tenant]]")
            }
            Self::NoneSuitable(_) => {
                f.write_str("no configured authority can certify the name")?;
                for (n, (ca, reason)) in self.reasons().enumerate() {
                    let separator = if n == 0 { ": " } else { "; " };
                    write!(f, "{separator}{ca} {reason}")?;
                }
                Ok(())
            }
        }
    }
}

/// Decides on a request, given the domain as it is registered now and the authorities in order of preference.
///
/// # Errors
/// [`Denial`] says why not.
pub fn decide(
    request: IssuanceRequest,
    domain: Option<&DomainRecord>,
    offers: &[Offer],
) -> Result<IssuancePermit, Denial> {
    let domain = domain
        .filter(|domain| domain.pattern == request.pattern)
        .ok_or(Denial::NotRegistered)?;
    if domain.tenant != request.tenant {
        return Err(Denial::OtherTenant);
    }
    if !domain.state.is_served() || domain.state == DomainState::Moved {
        return Err(Denial::NotServed(domain.state));
    }
    if offers.is_empty() {
        return Err(Denial::NoAuthority);
    }
    let offer = offers
        .iter()
        .find(|offer| offer.suitable == Suitable::Yes)
        .ok_or_else(|| Denial::NoneSuitable(offers.to_vec()))?;
    let replaces = request
        .reason
        .certificate()
        .filter(|facts| facts.ca == offer.ca)
        .map(|facts| facts.id);
    Ok(IssuancePermit {
        request,
        ca: offer.ca.clone(),
        replaces,
        methods: offer.methods.clone(),
        profile: offer.profile.clone(),
    })
}

/// How long an order waits for the budget of an authority before the next one in order is asked instead: not at all
/// where a visitor waits or nothing serves any more, a tenth of the time that is left where what serves is good for
/// `left`, and as long as it takes where nobody waits: bulk work is to spend no other authority's limits. Nor is a name
/// whose validations fail: it would fail with the next one too.
#[must_use]
pub fn patience(class: Class, left: Duration, limited: ProblemCode) -> Duration {
    if limited == ProblemCode::RateLimitedFailures {
        return Duration::MAX;
    }
    match class {
        Class::Visitor => Duration::ZERO,
        Class::Emergency => (left / 10).min(SOON),
        Class::Renewal => left / 10,
        Class::Bulk => Duration::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::certs::request::Reason;
    use crate::dns::caa::Verdict;
    use crate::model::domain::Source;
    use crate::model::{NamePattern, TenantId};

    fn request(pattern: &str, tenant: &str) -> IssuanceRequest {
        IssuanceRequest {
            pattern: NamePattern::parse(pattern).unwrap(),
            tenant: TenantId::parse(tenant).unwrap(),
            reason: Reason::First,
        }
    }

    fn domain(pattern: &str, tenant: &str, state: DomainState) -> DomainRecord {
        DomainRecord {
            pattern: NamePattern::parse(pattern).unwrap(),
            tenant: TenantId::parse(tenant).unwrap(),
            source: Source::File,
            state,
            upstream: None,
            certificate: None,
            problem: None,
            memory: crate::model::standing::DomainMemory::default(),
            version: 1,
            created_at: Timestamp::EPOCH,
        }
    }

    fn offers(offers: &[(&str, Suitable)]) -> Vec<Offer> {
        let offer = |(ca, suitable): &(&str, Suitable)| Offer {
            ca: CaId::new(ca),
            suitable: suitable.clone(),
            methods: Vec::new(),
            profile: None,
        };
        offers.iter().map(offer).collect()
    }

    fn wildcard() -> Suitable {
        Suitable::No(Unsuitable::NotCertified)
    }

    fn caa(verdict: Verdict, remedy: &str) -> Suitable {
        Suitable::No(Unsuitable::Caa {
            verdict,
            remedy: Some(remedy.to_owned()),
            records: vec!["a.test. CAA 0 issue \"other.test\"".to_owned()],
        })
    }

    #[test]
    fn the_more_urgent_an_order_the_sooner_another_authority_is_asked() {
        const DAY: Duration = Duration::from_secs(86_400);
        let check = |class, left, expected| {
            let patience = patience(class, left, ProblemCode::RateLimitedDomain);
            assert_eq!(patience, expected);
        };
        check(Class::Visitor, Duration::ZERO, Duration::ZERO);
        check(Class::Emergency, Duration::ZERO, Duration::ZERO);
        check(Class::Emergency, Duration::from_secs(600), DAY / 1440);
        check(Class::Emergency, DAY, Duration::from_secs(300));
        check(Class::Renewal, DAY * 30, DAY * 3);
        check(Class::Renewal, DAY * 3, DAY * 3 / 10);
        check(Class::Bulk, Duration::ZERO, Duration::MAX);
        let failing = ProblemCode::RateLimitedFailures;
        let patience = patience(Class::Visitor, Duration::ZERO, failing);
        assert_eq!(patience, Duration::MAX);
    }

    #[test]
    fn a_denial_names_each_authority_with_its_reason_and_the_remedy_of_the_preferred() {
        let away = || {
            Suitable::No(Unsuitable::Away {
                trouble: Vec::new(),
            })
        };
        let check = |given: &[(&str, Suitable)], code: ProblemCode, fix: Option<&str>| {
            let denial = Denial::NoneSuitable(offers(given));
            assert_eq!(denial.code(), code, "{denial}");
            assert_eq!(denial.fix().as_deref(), fix, "{denial}");
            for (ca, _) in given {
                assert!(denial.to_string().contains(&format!("{ca} ")), "{denial}");
            }
        };
        let (one, two) = (
            caa(Verdict::ForbidsCa, "r1"),
            caa(Verdict::ForbidsAccount, "r2"),
        );
        let forbidden = [("one", one.clone()), ("two", two.clone())];
        let add = Some("add this record: r1");
        check(&forbidden, ProblemCode::CaaForbidsCa, add);
        let denial = Denial::NoneSuitable(offers(&forbidden));
        assert_eq!(denial.evidence().len(), 1);
        // Waiting is enough.
        check(
            &[("one", one), ("two", away())],
            ProblemCode::CaOutage,
            None,
        );
        check(
            &[("one", wildcard())],
            ProblemCode::PolicyDenied,
            Unsuitable::NotCertified.fix().as_deref(),
        );
        check(
            &[("one", Suitable::No(Unsuitable::Fronted))],
            ProblemCode::CdnInFront,
            Unsuitable::Fronted.fix().as_deref(),
        );
        check(
            &[("one", two)],
            ProblemCode::CaaForbidsAccount,
            Some("add this record: r2"),
        );
    }

    fn check(
        domain: Option<&DomainRecord>,
        given: &[(&str, Suitable)],
        expected: &Result<&str, Denial>,
    ) {
        let decided = decide(request("a.test", "acme"), domain, &offers(given));
        let ca = decided.map(|permit| permit.ca().clone());
        assert_eq!(ca.as_ref().map(CaId::as_str), expected.as_ref().copied());
    }

    #[test]
    fn the_first_suitable_authority_is_asked() {
        let known = domain("a.test", "acme", DomainState::PendingDns);
        check(
            Some(&known),
            &[("one", Suitable::Yes), ("two", Suitable::Yes)],
            &Ok("one"),
        );
        check(
            Some(&known),
            &[("one", wildcard()), ("two", Suitable::Yes)],
            &Ok("two"),
        );
        check(
            Some(&known),
            &[("one", wildcard())],
            &Err(Denial::NoneSuitable(offers(&[("one", wildcard())]))),
        );
        check(Some(&known), &[], &Err(Denial::NoAuthority));
    }

    #[test]
    fn only_the_registered_owner_of_a_served_domain_gets_a_certificate() {
        let ca = [("one", Suitable::Yes)];
        check(None, &ca, &Err(Denial::NotRegistered));
        let other_name = domain("b.test", "acme", DomainState::Active);
        check(Some(&other_name), &ca, &Err(Denial::NotRegistered));
        let other = domain("a.test", "globex", DomainState::Active);
        check(Some(&other), &ca, &Err(Denial::OtherTenant));
        for state in DomainState::ALL {
            use DomainState as State;
            let stopped = [
                State::Moved,
                State::Suspended,
                State::Deleting,
                State::Tombstoned,
            ];
            let expected = match stopped.contains(&state) {
                true => Err(Denial::NotServed(state)),
                false => Ok("one"),
            };
            check(Some(&domain("a.test", "acme", state)), &ca, &expected);
        }
    }
}
