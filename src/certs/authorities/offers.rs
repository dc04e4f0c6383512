//! One name's authorities in order, each with what stands against it.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::Standing;
use super::choice::Unsuitable;
use super::{Authorities, Watched};
use crate::base::clock::monotonic;
use crate::ca::{CertificateAuthority, Meta};
use crate::certs::accounts::{AccountError, Accounts};
use crate::certs::policy::{Offer, Suitable};
use crate::certs::request::{IssuanceRequest, Reason};
use crate::dns::caa::{self, Asked, CaaError, CaaSet, Freshness, Verdict};
use crate::model::certificate::CaId;
use crate::model::challenge::ChallengeKind;
use crate::model::problem::ProblemCode;
use crate::model::{NamePattern, TenantId};

/// How long CAA is waited for while a visitor waits.
const VISITOR: Duration = Duration::from_secs(1);
/// How long else.
const NOBODY: Duration = Duration::from_secs(5);
/// How long a visitor waits where silence is to be expected.
const SILENT: Duration = Duration::from_millis(100);
/// A profile that a directory did not have is looked for again after this time.
const PROFILE_AGE: Duration = Duration::from_secs(60);

/// What authorities are wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The wish.
    pub request: &'a IssuanceRequest,
    /// The authority of an order that is to be taken up: it comes first.
    pub begun_with: Option<&'a CaId>,
    /// Authorities that are not wanted: they have been asked in vain.
    pub passed: &'a [CaId],
    /// The kinds of challenge that may be tried, the one to try first first; none where none would pass.
    pub methods: &'a [ChallengeKind],
    /// Who waits: it decides how long CAA is waited for.
    pub waits: Waits,
}

/// Who waits for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A visitor in a handshake: a second for CAA, and less where silence is to be expected.
    Visitor,
    /// Nobody: five seconds.
    Nobody,
}

/// The authorities for one name.
#[derive(Debug)]
pub struct Found {
    /// In order of preference.
    pub offers: Vec<Offer>,
    /// Why the account with the first one could not be opened.
    pub not_opened: Option<(CaId, Arc<AccountError>)>,
}

/// Whether anybody may be asked for a name at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// An authority is; or none certifies such a name, away or not.
    Clear,
    /// One order may try an authority that was away.
    Trial,
    /// All that certify such a name are away, or being tried by another order.
    Away,
}

/// What CAA came to.
type Caa = Option<Result<CaaSet, CaaError>>;

impl Accounts {
    /// The tenant's authorities in order of preference, each with what stands against it now. Reads the domain's CAA
    /// records beside opening the first account; orders nothing.
    pub async fn offers(&self, subject: &Subject<'_>) -> Found {
        let authorities = self.authorities();
        let pattern = &subject.request.pattern;
        let Subject {
            begun_with, passed, ..
        } = *subject;
        let candidates =
            authorities.begun_first(&subject.request.tenant, pattern, begun_with, passed);
        let first = asked_first(&candidates, pattern);
        let waits = first
            .filter(|candidate| candidate.is_public())
            .map(|_| subject.waits);
        let (caa, not_opened) =
            tokio::join!(authorities.caa(pattern, waits), self.make_ready(first));
        let mut offers = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let offer = self.offer(&candidate, subject, &caa).await;
            offers.push(offer);
        }
        Found { offers, not_opened }
    }

    /// The authority whose account [`Accounts::offers`] opens; nothing where none certifies such a name or all are away.
    #[must_use]
    pub fn first(
        &self,
        tenant: &TenantId,
        pattern: &NamePattern,
        begun_with: Option<&CaId>,
        passed: &[CaId],
    ) -> Option<CaId> {
        let authorities = self.authorities();
        let candidates = authorities.begun_first(tenant, pattern, begun_with, passed);
        asked_first(&candidates, pattern).map(|first| first.authority.id().clone())
    }

    /// Whether any of the tenant's authorities certifies such a name at all.
    #[must_use]
    pub fn certifies(&self, tenant: &TenantId, pattern: &NamePattern) -> bool {
        self.preferred(tenant, pattern).is_some()
    }

    /// The tenant's preferred authority for such a name, whether it is there or not.
    #[must_use]
    pub fn preferred(&self, tenant: &TenantId, pattern: &NamePattern) -> Option<CaId> {
        self.in_order(tenant, pattern).into_iter().next()
    }

    /// The tenant's authorities that certify such a name, the preferred first, whether they are there or not.
    #[must_use]
    pub fn in_order(&self, tenant: &TenantId, pattern: &NamePattern) -> Vec<CaId> {
        self.authorities().in_order(tenant, pattern)
    }

    /// Opens the account, and then reads what the authority says of itself; the order needs the one, choosing the other.
    async fn make_ready(&self, first: Option<&Arc<Watched>>) -> Option<(CaId, Arc<AccountError>)> {
        let ca = first?.authority.id();
        match self.account(ca).await {
            Ok(_account) => {
                // While it cannot be read, nothing is known and nothing stands against the authority.
                self.authorities().meta(ca).await.ok();
                None
            }
            Err(error) => {
                if let AccountError::Ca(error) = &*error {
                    self.authorities().failed(error).await;
                }
                Some((ca.clone(), error))
            }
        }
    }

    async fn offer(&self, candidate: &Watched, subject: &Subject<'_>, caa: &Caa) -> Offer {
        let request = subject.request;
        let ca = candidate.authority.id();
        let mut offer = Offer {
            ca: ca.clone(),
            suitable: Suitable::Yes,
            methods: subject.methods.to_vec(),
            profile: None,
        };
        if !candidate.authority.certifies(&request.pattern) {
            offer.suitable = Suitable::No(Unsuitable::NotCertified);
            return offer;
        }
        // An authority of our own asks for no proof.
        if subject.methods.is_empty() && candidate.is_public() {
            offer.suitable = Suitable::No(Unsuitable::Fronted);
            return offer;
        }
        if !candidate.admits() {
            let trouble = candidate.state().trouble.clone();
            offer.suitable = Suitable::No(Unsuitable::Away { trouble });
            return offer;
        }
        let judged = async {
            let methods = self.judge_caa(&*candidate.authority, subject, caa).await?;
            let profile = self.profile(&*candidate.authority, request).await?;
            Ok((methods, profile))
        };
        match judged.await {
            Ok((methods, profile)) => (offer.methods, offer.profile) = (methods, profile),
            Err(unsuitable) => offer.suitable = Suitable::No(unsuitable),
        }
        offer
    }

    /// What CAA says about the authority. What we could not find out stands against nobody.
    async fn judge_caa(
        &self,
        authority: &dyn CertificateAuthority,
        subject: &Subject<'_>,
        caa: &Caa,
    ) -> Result<Vec<ChallengeKind>, Unsuitable> {
        let all = || Ok(subject.methods.to_vec());
        let found = match caa {
            None => return all(),
            Some(Ok(set)) if set.records.is_empty() => return all(),
            Some(Err(error)) if !error.is_definite() => return all(),
            Some(found) => found,
        };
        let ca = authority.id();
        let Ok(meta) = self.authorities().meta(ca).await else {
            return all();
        };
        // An authority that CAA cannot name is none that heeds it, or none that says.
        if meta.caa_identities.is_empty() {
            return all();
        }
        let set = found.as_ref().map_err(unreadable)?;
        let account = match set.names_accounts(&meta.caa_identities, &subject.request.pattern) {
            true => self.account_url(ca).await,
            false => None,
        };
        let words: Vec<&str> = subject.methods.iter().map(|kind| kind.as_str()).collect();
        let asked = Asked {
            identities: &meta.caa_identities,
            pattern: &subject.request.pattern,
            account: account.as_deref(),
            methods: &words,
        };
        let verdict = set.allows(&asked);
        if verdict == Verdict::Allowed {
            let allowed = |kind: &&ChallengeKind| {
                let methods = &[kind.as_str()];
                set.allows(&Asked { methods, ..asked }) == Verdict::Allowed
            };
            return Ok(subject.methods.iter().filter(allowed).copied().collect());
        }
        Err(Unsuitable::Caa {
            remedy: set.remedy(&asked, &verdict),
            records: set.lines(),
            verdict,
        })
    }

    /// The URL of our account as it is kept. Only where none is, an account is opened: an authority that hangs is to hold up
    /// no order that another one takes.
    async fn account_url(&self, ca: &CaId) -> Option<String> {
        if let Ok(Some(url)) = self.url(ca).await {
            return Some(url);
        }
        let account = self.account(ca).await.ok()?;
        account.url().map(str::to_owned)
    }

    /// The profile to order. A renewal goes on without one that is no longer offered: a certificate of another kind is
    /// better than none.
    async fn profile(
        &self,
        authority: &dyn CertificateAuthority,
        request: &IssuanceRequest,
    ) -> Result<Option<Arc<str>>, Unsuitable> {
        let ca = authority.id();
        let chosen = self.authorities().choice(&request.tenant).profile;
        let Some(wanted) = chosen.or_else(|| authority.profile().map(Arc::from)) else {
            return Ok(None);
        };
        let Some(meta) = self.meta_with(ca, &wanted).await else {
            return Ok(Some(wanted));
        };
        if meta.offers(&wanted) {
            return Ok(Some(wanted));
        }
        if request.reason != Reason::First {
            tracing::warn!(
                %ca, domain = %request.pattern, profile = %wanted,
                "the authority does not offer the configured profile any more: renewing with its default"
            );
            return Ok(None);
        }
        let offered = meta.profiles.iter().map(|profile| profile.name.clone());
        Err(Unsuitable::Profile {
            wanted,
            offered: offered.collect(),
        })
    }

    /// What the directory says; read anew where it did not have the profile, for that may have come since.
    async fn meta_with(&self, ca: &CaId, profile: &str) -> Option<Arc<Meta>> {
        let authorities = self.authorities();
        let known = authorities.meta(ca).await.ok()?;
        if known.offers(profile) {
            return Some(known);
        }
        authorities.meta_since(ca, PROFILE_AGE).await.ok()
    }
}

impl Authorities {
    /// The tenant's authorities that certify such a name, the preferred first, whether they are there or not.
    #[must_use]
    pub fn in_order(&self, tenant: &TenantId, pattern: &NamePattern) -> Vec<CaId> {
        let candidates = self.candidates(tenant, pattern);
        let certifies = |candidate: &Arc<Watched>| candidate.authority.certifies(pattern);
        let able = candidates.into_iter().filter(certifies);
        able.map(|candidate| candidate.authority.id().clone())
            .collect()
    }

    /// The authorities that may be asked for a tenant's name, in the tenant's order. Where the one that is preferred for
    /// the name is public, those of our own are among them only if the tenant names its authorities: no browser trusts
    /// theirs, and a public certificate that is still good is worth more.
    pub(super) fn candidates(&self, tenant: &TenantId, pattern: &NamePattern) -> Vec<Arc<Watched>> {
        let chosen = self.choice(tenant).authorities;
        if !chosen.is_empty() {
            return chosen.iter().filter_map(|ca| self.watched(ca)).collect();
        }
        let mut all = Vec::clone(&self.0.watched.load());
        let preferred = all
            .iter()
            .find(|candidate| candidate.authority.certifies(pattern));
        if preferred.is_some_and(|preferred| preferred.is_public()) {
            all.retain(|candidate| candidate.is_public());
        }
        all
    }

    /// Their names, in the order of the configuration.
    #[must_use]
    pub fn names(&self) -> Vec<CaId> {
        let watched = self.0.watched.load();
        watched
            .iter()
            .map(|one| one.authority.id().clone())
            .collect()
    }

    /// The tenant's authorities in order of preference, but for those that were `passed`. An order that is begun is seen
    /// through where it is, whoever is preferred by now.
    fn begun_first(
        &self,
        tenant: &TenantId,
        pattern: &NamePattern,
        begun_with: Option<&CaId>,
        passed: &[CaId],
    ) -> Vec<Arc<Watched>> {
        let mut candidates = self.candidates(tenant, pattern);
        candidates.retain(|candidate| !passed.contains(candidate.authority.id()));
        if let Some(begun) = begun_with {
            candidates.sort_by_key(|candidate| candidate.authority.id() != begun);
        }
        candidates
    }

    /// Whether anybody may be asked for a tenant's name at present. Asks nobody.
    #[must_use]
    pub fn outlook(&self, tenant: &TenantId, pattern: &NamePattern) -> Outlook {
        let mut outlook = None;
        for candidate in self.candidates(tenant, pattern) {
            if !candidate.authority.certifies(pattern) {
                continue;
            }
            let state = candidate.state();
            let admits = state.breaker.admits(monotonic());
            match (state.breaker.standing(), admits) {
                (Standing::Closed, _) => return Outlook::Clear,
                (Standing::HalfOpen, true) => outlook = Some(Outlook::Trial),
                (Standing::HalfOpen | Standing::Open, _) => {
                    outlook = outlook.or(Some(Outlook::Away));
                }
            }
        }
        outlook.unwrap_or(Outlook::Clear)
    }

    /// The tenant's authorities, each away or of no use for the name: what [`Outlook::Away`] means, for people.
    #[must_use]
    pub fn absent(&self, tenant: &TenantId, pattern: &NamePattern) -> Vec<Offer> {
        let absent = |candidate: &Watched| Offer {
            ca: candidate.authority.id().clone(),
            suitable: Suitable::No(match candidate.authority.certifies(pattern) {
                true => Unsuitable::Away {
                    trouble: candidate.state().trouble.clone(),
                },
                false => Unsuitable::NotCertified,
            }),
            methods: Vec::new(),
            profile: None,
        };
        let candidates = self.candidates(tenant, pattern);
        candidates
            .iter()
            .map(|candidate| absent(candidate))
            .collect()
    }

    /// Waits until an authority turns: is given up, or tried, or asked again.
    pub fn turned(&self) -> impl Future<Output = ()> {
        self.0.turned.notified()
    }

    /// The CAA records of a name, unless nobody wants them or nobody can read them. Only a look-up that waited for as long
    /// as it may tells of silence, else one slow answer would make every later one come too late.
    async fn caa(&self, pattern: &NamePattern, waits: Option<Waits>) -> Caa {
        let (dns, waits) = (self.0.dns.as_ref()?, waits?);
        let (silence, domain) = (&self.0.silence, pattern.base().registered_domain());
        let hurries = waits == Waits::Visitor && silence.is_expected(&domain, monotonic());
        let patience = match waits {
            Waits::Visitor if hurries => SILENT,
            Waits::Visitor => VISITOR,
            Waits::Nobody => NOBODY,
        };
        let found = caa::lookup(dns, pattern.base(), Freshness::Cached, patience).await;
        if let Err(error) = &found {
            tracing::info!(domain = %pattern, %error, "CAA is not known");
        }
        match &found {
            Err(CaaError::Deadline { .. }) if hurries => {}
            Err(CaaError::Deadline { .. }) => silence.note(domain, monotonic()),
            Ok(_) | Err(_) => silence.heard(&domain),
        }
        Some(found)
    }
}

/// The one whose account is opened, whatever stands against it otherwise.
fn asked_first<'c>(
    candidates: &'c [Arc<Watched>],
    pattern: &NamePattern,
) -> Option<&'c Arc<Watched>> {
    let mut candidates = candidates.iter();
    candidates.find(|candidate| candidate.authority.certifies(pattern) && candidate.admits())
}

impl Watched {
    /// Whether it is an authority elsewhere, not one of our own.
    pub(super) fn is_public(&self) -> bool {
        self.authority.directory().is_some()
    }

    fn admits(&self) -> bool {
        self.state().breaker.admits(monotonic())
    }
}

pub(super) fn unreadable(error: &CaaError) -> Unsuitable {
    let code = match error {
        CaaError::Bogus { .. } => ProblemCode::DnssecBogus,
        CaaError::ServFail { .. } | CaaError::NotTold { .. } | CaaError::Deadline { .. } => {
            ProblemCode::DnsServfail
        }
    };
    Unsuitable::CaaUnreadable {
        code,
        why: error.to_string(),
    }
}
