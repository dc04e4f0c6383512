//! Which of a tenant's authorities the CAA records of a name permit, and by which record: for whoever asks. Orders nothing
//! and opens no account.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::choice::Unsuitable;
use super::offers::unreadable;
use super::{Authorities, Watched};
use crate::certs::policy::{Denial, Offer, Suitable};
use crate::dns::caa::{self, Asked, CaaError, CaaRecord, CaaSet, Freshness, Verdict};
use crate::model::certificate::CaId;
use crate::model::challenge::ChallengeOrder;
use crate::model::{NamePattern, TenantId};

/// How long reading the records may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose ruling is wanted, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What is to be certified.
    pub pattern: &'a NamePattern,
    /// Whose authorities; all that are configured where nobody has the name.
    pub tenant: Option<&'a TenantId>,
    /// The kinds of challenge that may be tried.
    pub methods: ChallengeOrder,
    /// The accounts' URLs, as far as there are accounts.
    pub accounts: &'a HashMap<CaId, String>,
}

/// What CAA says about each authority.
#[derive(Debug)]
pub struct Rulings {
    /// The records that count, as they are now, or why nobody can read them.
    pub found: Result<CaaSet, CaaError>,
    /// The authorities in order of preference.
    pub authorities: Vec<(CaId, Ruling)>,
}

/// What CAA says about one authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is our own: CAA is not about it.
    OwnAuthority,
    /// It may issue: by this record, or because none says who may.
    Permitted(Option<String>),
    /// It must not.
    Forbidden {
        /// Why.
        why: Unsuitable,
        /// The record that decided; several say the same where it names another authority.
        by: Option<String>,
    },
    /// Nobody knows, for this reason; it is no obstacle.
    Unknown(String),
}

impl Authorities {
    /// What CAA says about the authorities of a tenant, read anew. Nothing where all of them are our own or there is no
    /// resolver.
    pub async fn rulings(&self, question: &Question<'_>) -> Option<Rulings> {
        let dns = self.0.dns.as_ref()?;
        let candidates = self.asked(question);
        if !candidates.iter().any(|candidate| candidate.is_public()) {
            return None;
        }
        let name = question.pattern.base();
        let found = caa::lookup(dns, name, Freshness::Fresh, PATIENCE).await;
        let mut authorities = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let ruling = match candidate.is_public() {
                true => self.ruling(&candidate, question, &found).await,
                false => Ruling::OwnAuthority,
            };
            authorities.push((candidate.authority.id().clone(), ruling));
        }
        Some(Rulings { found, authorities })
    }

    /// Why no order would be placed for such a name, whatever CAA says and whoever is there: none of the authorities
    /// certifies one. Nothing where one does.
    #[must_use]
    pub fn none_certifies(&self, question: &Question<'_>) -> Option<Denial> {
        let candidates = self.asked(question);
        if candidates.is_empty() {
            return Some(Denial::NoAuthority);
        }
        let mut offers = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            if candidate.authority.certifies(question.pattern) {
                return None;
            }
            offers.push(Offer {
                ca: candidate.authority.id().clone(),
                suitable: Suitable::No(Unsuitable::NotCertified),
                methods: Vec::new(),
                profile: None,
            });
        }
        Some(Denial::NoneSuitable(offers))
    }

    fn asked(&self, question: &Question<'_>) -> Vec<Arc<Watched>> {
        match question.tenant {
            Some(tenant) => self.candidates(tenant, question.pattern),
            None => Vec::clone(&self.0.watched.load()),
        }
    }

    async fn ruling(
        &self,
        candidate: &Watched,
        question: &Question<'_>,
        found: &Result<CaaSet, CaaError>,
    ) -> Ruling {
        let ca = candidate.authority.id();
        let set = match found {
            Err(error) if !error.is_definite() => return Ruling::Unknown(error.to_string()),
            Err(error) => {
                let why = unreadable(error);
                return Ruling::Forbidden { why, by: None };
            }
            Ok(set) if set.records.is_empty() => return Ruling::Permitted(None),
            Ok(set) => set,
        };
        let Ok(meta) = self.meta(ca).await else {
            let why = "its directory, which says what CAA calls it, could not be read";
            return Ruling::Unknown(why.to_owned());
        };
        if meta.caa_identities.is_empty() {
            let why = "it does not say what CAA calls it; set caa_identities in its [[ca]]";
            return Ruling::Unknown(why.to_owned());
        }
        let methods: Vec<_> = question.methods.iter().map(|kind| kind.as_str()).collect();
        let asked = Asked {
            identities: &meta.caa_identities,
            pattern: question.pattern,
            account: question.accounts.get(ca).map(String::as_str),
            methods: &methods,
        };
        let (verdict, by) = set.ruling(&asked);
        let by = by.map(|record| line(set, record));
        if verdict == Verdict::Allowed {
            return Ruling::Permitted(by);
        }
        let why = Unsuitable::Caa {
            remedy: set.remedy(&asked, &verdict),
            records: set.lines(),
            verdict,
        };
        Ruling::Forbidden { why, by }
    }
}

fn line(set: &CaaSet, record: &CaaRecord) -> String {
    let at = set.at.as_ref().map_or("", |at| at.as_str());
    format!("{at}. {record}")
}

impl Rulings {
    /// What stands against every authority: that of the preferred one. Nothing where one may issue, or may not be asked
    /// about.
    #[must_use]
    pub fn obstacle(&self) -> Option<(&CaId, &Unsuitable)> {
        let mut first = None;
        for (ca, ruling) in &self.authorities {
            let Ruling::Forbidden { why, .. } = ruling else {
                return None;
            };
            first = first.or(Some((ca, why)));
        }
        first
    }
}
