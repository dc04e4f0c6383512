//! The domain's word on who may certify it: CAA (RFC 8659) with its parameters for accounts and methods (RFC 8657).
//!
//! [`lookup`] climbs the tree, [`CaaSet::allows`] judges, pure. Authorities ask the same with resolvers of their own before
//! they issue; asking first spares an order that must fail. The resolver's cache keeps what was found by its time to live.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::dns::Dns;
use crate::model::{DnsName, NamePattern};

/// Names of one climb that are asked for at once: most domains have fewer labels.
const PARALLEL: usize = 4;
/// Records of one set that are read; nobody needs so many.
const MOST_RECORDS: usize = 64;
/// The tags that authorities know (RFC 8659 §4, RFC 9495, CA/Browser Forum): a critical one among them forbids nothing.
const KNOWN_TAGS: &[&str] = &[
    "issue",
    "issuewild",
    "iodef",
    "issuemail",
    "issuevmc",
    "contactemail",
    "contactphone",
];

/// Whether an answer that was kept will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It will, within its time to live.
    Cached,
    /// It will not: somebody says that the records have been changed. Resolvers behind ours may still keep theirs.
    Fresh,
}

/// One property (RFC 8659 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaRecord {
    /// Whether who does not know the tag must not issue.
    pub critical: bool,
    /// The tag, in lower case.
    pub tag: String,
    /// The value; what is no UTF-8 is replaced.
    pub value: String,
}

impl fmt::Display for CaaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.critical { 128 } else { 0 };
        write!(f, "CAA {flags} {} \"{}\"", self.tag, self.value)
    }
}

/// The relevant record set of a name (RFC 8659 §3): the nearest one up the tree. Empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaaSet {
    /// Whose it is; nobody's where it is empty.
    pub at: Option<DnsName>,
    /// Its records.
    pub records: Vec<CaaRecord>,
}

/// Who would issue what, and how.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The names by which CAA knows the authority, any of which will do (`caaIdentities`, RFC 8555 §9.7.6).
    pub identities: &'a [String],
    /// What is to be certified: `issuewild` is about wildcards alone.
    pub pattern: &'a NamePattern,
    /// The account's URL; where it is not known yet, no account is found unfit.
    pub account: Option<&'a str>,
    /// The kinds of challenge that could prove the name, in the words of RFC 8555 §9.7.8; one that is allowed will do.
    pub methods: &'a [&'a str],
}

/// What CAA says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing stands against it.
    Allowed,
    /// Not this authority.
    ForbidsCa,
    /// This authority, but another account.
    ForbidsAccount,
    /// This authority and account, but not by such a challenge.
    ForbidsMethod,
    /// No authority: a critical record has a tag that none knows.
    UnknownCritical(String),
}

impl CaaSet {
    /// Whether the set allows what is asked (RFC 8659 §4, RFC 8657 §3 and §4).
    #[must_use]
    pub fn allows(&self, asked: &Asked<'_>) -> Verdict {
        self.ruling(asked).0
    }

    /// The same, with the record that decided; none where the set does not say who may issue.
    #[must_use]
    pub fn ruling(&self, asked: &Asked<'_>) -> (Verdict, Option<&CaaRecord>) {
        let unknown =
            |record: &&CaaRecord| record.critical && !KNOWN_TAGS.contains(&record.tag.as_str());
        if let Some(record) = self.records.iter().find(unknown) {
            return (Verdict::UnknownCritical(record.tag.clone()), Some(record));
        }
        let mut ruling = (Verdict::Allowed, None);
        for record in self.relevant(asked.pattern) {
            let found = Issuer::read(&record.value).allows(asked);
            if found == Verdict::Allowed {
                return (found, Some(record));
            }
            if nearness(&found) > nearness(&ruling.0) {
                ruling = (found, Some(record));
            }
        }
        ruling
    }

    /// Whether a record that names the authority names accounts too: only then it matters which one is ours.
    #[must_use]
    pub fn names_accounts(&self, identities: &[String], pattern: &NamePattern) -> bool {
        self.relevant(pattern).any(|record| {
            let issuer = Issuer::read(&record.value);
            issuer.is_one_of(identities) && !issuer.values("accounturi").is_empty()
        })
    }

    /// The record that is to be added where `verdict` stands against `asked`, as a zone file has it.
    #[must_use]
    pub fn remedy(&self, asked: &Asked<'_>, verdict: &Verdict) -> Option<String> {
        let at = self.at.as_ref()?;
        let identity = asked.identities.first()?;
        let wild = self.records.iter().any(|record| record.tag == "issuewild");
        let tag = if asked.pattern.is_wildcard() && wild {
            "issuewild"
        } else {
            "issue"
        };
        let parameters = match verdict {
            Verdict::Allowed | Verdict::UnknownCritical(_) => return None,
            Verdict::ForbidsCa => String::new(),
            Verdict::ForbidsAccount => format!("; accounturi={}", asked.account?),
            Verdict::ForbidsMethod => format!("; validationmethods={}", asked.methods.join(",")),
        };
        Some(format!("{at}. CAA 0 {tag} \"{identity}{parameters}\""))
    }

    /// The records as they are, for the evidence of a problem.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let at = self.at.as_ref().map_or("", DnsName::as_str);
        let line = |record: &CaaRecord| format!("{at}. {record}");
        self.records.iter().map(line).collect()
    }

    /// The properties that decide (RFC 8659 §4.3): for a wildcard `issuewild`, where there is any.
    fn relevant(&self, pattern: &NamePattern) -> impl Iterator<Item = &CaaRecord> {
        let has_wild = self.records.iter().any(|record| record.tag == "issuewild");
        let tag = if pattern.is_wildcard() && has_wild {
            "issuewild"
        } else {
            "issue"
        };
        self.records.iter().filter(move |record| record.tag == tag)
    }
}

/// How near a verdict is to leave: the nearest is told, for it asks for the smallest change.
const fn nearness(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Allowed | Verdict::UnknownCritical(_) => 0,
        Verdict::ForbidsCa => 1,
        Verdict::ForbidsAccount => 2,
        Verdict::ForbidsMethod => 3,
    }
}

/// An issue value, read (RFC 8659 §4.2).
struct Issuer<'a> {
    /// Empty for nobody, which is also what a malformed value says.
    domain: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Issuer<'a> {
    const NOBODY: Self = Self {
        domain: "",
        parameters: Vec::new(),
    };

    fn read(value: &'a str) -> Self {
        let mut parts = value.split(';').map(trimmed);
        let domain = parts.next().unwrap_or_default();
        let mut parameters = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Self::NOBODY;
            };
            let (key, value) = (trimmed(key), trimmed(value));
            let graphic = value.bytes().all(|b| b.is_ascii_graphic());
            if !is_tag(key) || !graphic {
                return Self::NOBODY;
            }
            parameters.push((key, value));
        }
        Self { domain, parameters }
    }

    fn allows(&self, asked: &Asked<'_>) -> Verdict {
        if !self.is_one_of(asked.identities) {
            return Verdict::ForbidsCa;
        }
        // RFC 8657 §3: simple string comparison; of two such parameters neither can be satisfied.
        let account = match (asked.account, &*self.values("accounturi")) {
            (_, []) | (None, [_]) => true,
            (Some(account), [only]) => *only == account,
            (_, _) => false,
        };
        if !account {
            return Verdict::ForbidsAccount;
        }
        let method = match &*self.values("validationmethods") {
            [] => true,
            [only] => only
                .split(',')
                .map(trimmed)
                .any(|word| asked.methods.contains(&word)),
            _ => false,
        };
        if method {
            Verdict::Allowed
        } else {
            Verdict::ForbidsMethod
        }
    }

    fn is_one_of(&self, identities: &[String]) -> bool {
        let named = |identity: &String| identity.eq_ignore_ascii_case(self.domain);
        !self.domain.is_empty() && identities.iter().any(named)
    }

    fn values(&self, key: &str) -> Vec<&'a str> {
        let of_key = |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case(key);
        self.parameters
            .iter()
            .filter(of_key)
            .map(|(_, value)| *value)
            .collect()
    }
}

/// Without the white space that the grammar allows.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Why nobody knows what CAA says.
#[derive(Debug)]
pub enum CaaError {
    /// The name's servers fail, while the resolver answers for other names: no authority will issue (RFC 8659 §5.1).
    ServFail {
        /// At which name of the climb.
        name: DnsName,
    },
    /// DNSSEC signatures do not verify.
    Bogus {
        /// At which name of the climb.
        name: DnsName,
    },
    /// We could not find out; it says nothing about the domain.
    NotTold {
        /// At which name of the climb.
        name: DnsName,
        /// What the resolvers said.
        source: Box<NetError>,
    },
    /// No answer in time; it says nothing about the domain.
    Deadline {
        /// Of which name.
        name: DnsName,
        /// How long they had.
        deadline: Duration,
    },
}

impl CaaError {
    /// Whether it is a fact about the domain that every authority will meet, not trouble of ours.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        matches!(self, Self::ServFail { .. } | Self::Bogus { .. })
    }
}

impl fmt::Display for CaaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServFail { name } => write!(
                f,
                "the name servers of {name} fail (SERVFAIL) when asked for CAA; no authority issues then"
            ),
            Self::Bogus { name } => write!(
                f,
                "the DNSSEC signatures of {name} do not verify for CAA; no authority issues then"
            ),
            Self::NotTold { name, .. } => write!(f, "the CAA records of {name} could not be read"),
            Self::Deadline { name, deadline } => write!(
                f,
                "no resolver gave the CAA records of {name} within {} ms",
                deadline.as_millis()
            ),
        }
    }
}

impl std::error::Error for CaaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotTold { source, .. } => Some(&**source),
            Self::ServFail { .. } | Self::Bogus { .. } | Self::Deadline { .. } => None,
        }
    }
}

/// The relevant record set of `name`, within `patience` in all. For a wildcard give the name below the `*.`.
///
/// # Errors
/// [`CaaError`]; only where [`CaaError::is_definite`] does it say anything about the domain.
pub async fn lookup(
    dns: &Dns,
    name: &DnsName,
    freshness: Freshness,
    patience: Duration,
) -> Result<CaaSet, CaaError> {
    tokio::time::timeout(patience, climb(dns, name, freshness))
        .await
        .unwrap_or_else(|_elapsed| {
            Err(CaaError::Deadline {
                name: name.clone(),
                deadline: patience,
            })
        })
}

/// From the name towards the root (RFC 8659 §3), several at once, judged in order.
async fn climb(dns: &Dns, name: &DnsName, freshness: Freshness) -> Result<CaaSet, CaaError> {
    let names = std::iter::successors(Some(name.clone()), DnsName::parent);
    let mut found = stream::iter(names)
        .map(|name| async move {
            let found = records(dns, &name, freshness).await;
            (name, found)
        })
        .buffered(PARALLEL);
    let mut answered = false;
    let mut failed = None;
    while let Some((name, result)) = found.next().await {
        answered |= result.is_ok();
        match result {
            Err(error) if failed.is_none() => failed = Some((name, error)),
            Ok(records) if failed.is_none() && !records.is_empty() => {
                let at = Some(name);
                return Ok(CaaSet { at, records });
            }
            Ok(_) | Err(_) => {}
        }
    }
    let Some((name, error)) = failed else {
        return Ok(CaaSet::default());
    };
    if let NetError::Dns(DnsError::DnssecBogus) = error {
        return Err(CaaError::Bogus { name });
    }
    // It is the domain's own failure only where the resolver is well: where it answered for another name.
    let servfail = ResponseCode::ServFail;
    if answered
        && matches!(&error, NetError::Dns(DnsError::ResponseCode(code)) if *code == servfail)
    {
        return Err(CaaError::ServFail { name });
    }
    let source = Box::new(error);
    Err(CaaError::NotTold { name, source })
}

/// The CAA records at exactly this name; aliases are followed by the resolver.
async fn records(
    dns: &Dns,
    name: &DnsName,
    freshness: Freshness,
) -> Result<Vec<CaaRecord>, NetError> {
    let mut asked = Name::from_ascii(name.as_str())?;
    // No search domains.
    asked.set_fqdn(true);
    let resolver = dns.resolver();
    if freshness == Freshness::Fresh {
        resolver.clear_lookup_cache(asked.clone(), RecordType::CAA);
    }
    let found = match resolver.lookup(asked, RecordType::CAA).await {
        Ok(found) => found,
        Err(NetError::Dns(DnsError::NoRecordsFound(_) | DnsError::Nsec { .. })) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let records = found.answers().iter().filter_map(|answer| {
        let RData::CAA(caa) = &answer.data else {
            return None;
        };
        Some(CaaRecord {
            critical: caa.issuer_critical,
            tag: caa.tag.to_ascii_lowercase(),
            value: String::from_utf8_lossy(&caa.value).into_owned(),
        })
    });
    Ok(records.take(MOST_RECORDS).collect())
}

#[cfg(test)]
mod tests;
