//! What public DNS says of one name today, for checks: every address, the aliases on the way, whether its servers fail,
//! whether its signatures verify.
//!
//! Nothing is kept: who asks here wants to know how it is now. "Could not find out" is told apart from "is not there":
//! a resolver that fails for everything says nothing about a name. A name is bogus where a validating resolver refuses
//! it and answers with checking disabled (RFC 4035 §3.2.2), or where the chain of trust, followed here, breaks below a
//! top-level domain for which it holds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsRequestSender as _, FirstAnswer as _};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::base::clock::monotonic;
use crate::dns::Settings;
use crate::dns::lookup::{self, SetupError};
use crate::model::DnsName;

/// Attempts of one question, within the deadline.
const ATTEMPTS: u32 = 2;
/// Addresses of one family that are looked at; nobody needs so many.
const MOST_ADDRESSES: usize = 8;
/// Aliases that are told.
const MOST_ALIASES: usize = 16;
/// Resolvers that are asked with checking disabled.
const MOST_SERVERS: usize = 2;

/// What DNS says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The names that it is an alias of, the next first, without trailing dots.
    pub aliases: Vec<String>,
    /// Its A records.
    pub ipv4: Answer<Ipv4Addr>,
    /// Its AAAA records.
    pub ipv6: Answer<Ipv6Addr>,
    /// Its signatures.
    pub signatures: Signatures,
}

/// An answer about records of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// There are some; at most eight are told, the lowest first.
    Found(Vec<T>),
    /// The name exists without such records.
    Empty,
    /// The name does not exist.
    Nxdomain(Certainty),
    /// The name's own servers fail: the resolver answers for other names.
    Servfail,
    /// We could not find out: why.
    Untold(String),
}

/// Whether a denial can be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It came with the zone's SOA (RFC 2308 §2.1), from a zone that is in public DNS.
    Sure,
    /// It did not, or the name lies below no public suffix: the authority may see another DNS than we do.
    Unsure,
}

/// Whether DNSSEC signatures verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// They do, or there are none and need not be.
    Good,
    /// They do not: validating resolvers, and so every authority, refuse the name.
    Bogus(Witness),
    /// We could not find out: the resolvers pass no signatures on.
    Untold,
}

/// Who says that signatures do not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// The resolver: it refuses the name unless it is told not to check.
    Resolver,
    /// The chain of trust as it was followed here.
    Chain,
}

impl<T> Answer<T> {
    /// The records, where there are any.
    #[must_use]
    pub fn found(&self) -> &[T] {
        match self {
            Self::Found(records) => records,
            Self::Empty | Self::Nxdomain(_) | Self::Servfail | Self::Untold(_) => &[],
        }
    }

    /// The records, none where there are none; nothing where it was not found out.
    #[must_use]
    pub fn told(&self) -> Option<&[T]> {
        match self {
            Self::Found(records) => Some(records),
            Self::Empty | Self::Nxdomain(_) => Some(&[]),
            Self::Servfail | Self::Untold(_) => None,
        }
    }
}

impl Records {
    /// Every address, IPv6 last.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let ipv4 = self.ipv4.found().iter().copied().map(IpAddr::V4);
        ipv4.chain(self.ipv6.found().iter().copied().map(IpAddr::V6))
    }

    /// Whether the name does not exist, or exists without any address, for sure.
    #[must_use]
    pub fn is_surely_nowhere(&self) -> bool {
        matches!(self.ipv4, Answer::Nxdomain(Certainty::Sure))
            && matches!(self.ipv6, Answer::Nxdomain(Certainty::Sure))
    }

    /// Whether the aliases of `name`, whose records these are, lead in a circle, and so nowhere.
    #[must_use]
    pub fn is_circle(&self, name: &DnsName) -> bool {
        let again = |(last, before): (&String, &[String])| before.contains(last);
        let is_itself = |alias: &String| alias == name.as_str();
        self.aliases.iter().any(is_itself) || self.aliases.split_last().is_some_and(again)
    }

    /// The records as evidence: one line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let aliases = self.aliases.iter().map(|name| format!("CNAME {name}"));
        aliases
            .chain(lines("A", &self.ipv4))
            .chain(lines("AAAA", &self.ipv6))
            .collect()
    }
}

fn lines<T: fmt::Display>(kind: &str, answer: &Answer<T>) -> Vec<String> {
    match answer {
        Answer::Found(records) => records.iter().map(|one| format!("{kind} {one}")).collect(),
        Answer::Empty => vec![format!("{kind}: none")],
        Answer::Nxdomain(_) => vec![format!("{kind}: the name does not exist (NXDOMAIN)")],
        Answer::Servfail => vec![format!("{kind}: the name's servers fail (SERVFAIL)")],
        Answer::Untold(why) => vec![format!("{kind}: not found out: {why}")],
    }
}

/// Examines names with the configured resolvers, or the system's, without its hosts file. Clones are the same.
#[derive(Clone)]
pub struct Examiner {
    plain: TokioResolver,
    validating: TokioResolver,
    servers: Vec<SocketAddr>,
    deadline: Duration,
}

/// Names no resolver: they are in the settings.
impl fmt::Debug for Examiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examiner")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Examiner {
    /// An examiner that asks whom `settings` name.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let config = match &*settings.resolvers {
            [] => {
                let (config, _options) = hickory_resolver::system_conf::read_system_conf()
                    .map_err(SetupError::System)?;
                ResolverConfig::from_name_servers(config.name_servers)
            }
            resolvers => {
                let servers = resolvers.iter().copied().map(lookup::server).collect();
                ResolverConfig::from_name_servers(servers)
            }
        };
        let port = |server: &hickory_resolver::config::NameServerConfig| {
            server.connections.first().map_or(53, |first| first.port)
        };
        let servers = config
            .name_servers
            .iter()
            .map(|server| SocketAddr::new(server.ip, port(server)));
        Ok(Self {
            servers: servers.take(MOST_SERVERS).collect(),
            plain: resolver(config.clone(), settings.deadline, Checks::None)?,
            validating: resolver(config, settings.deadline, Checks::Signatures)?,
            deadline: settings.deadline,
        })
    }

    /// What DNS says of `name` now. Takes no longer than four times the configured deadline, and that only where the
    /// resolver fails slowly.
    pub async fn examine(&self, name: &DnsName) -> Records {
        let (mut records, validated) = tokio::join!(self.records(name), self.validated(name));
        let is_refused = records.ipv4 == Answer::Servfail || records.ipv6 == Answer::Servfail;
        records.signatures = if is_refused && self.answers_unchecked(name).await {
            Signatures::Bogus(Witness::Resolver)
        } else {
            validated
        };
        records
    }

    /// The records alone, without a look at signatures.
    pub async fn records(&self, name: &DnsName) -> Records {
        let (v4, v6) = tokio::join!(
            self.ask(name, RecordType::A),
            self.ask(name, RecordType::AAAA)
        );
        let mut aliases = aliases(&[&v4, &v6]);
        if aliases.is_empty() && v4.is_err() && v6.is_err() {
            aliases = self.follow(name).await;
        }
        let fails = [&v4, &v6].iter().any(|found| is_servfail(found));
        let resolver = match fails {
            true => self.resolver_health(name).await,
            false => Health::Well,
        };
        let certainty = certainty(name);
        Records {
            aliases,
            ipv4: answer(v4, certainty, resolver, ipv4),
            ipv6: answer(v6, certainty, resolver, ipv6),
            signatures: Signatures::Untold,
        }
    }

    /// The aliases one by one, where the resolver tells no more than that it failed: it does for those in a circle.
    async fn follow(&self, name: &DnsName) -> Vec<String> {
        let (until, mut at) = (monotonic() + self.deadline, name.clone());
        let mut found: Vec<String> = Vec::new();
        while found.len() < MOST_ALIASES && monotonic() < until {
            let answer = self.ask(&at, RecordType::CNAME).await;
            let Some(next) = aliases(&[&answer]).into_iter().next() else {
                break;
            };
            let is_circle = found.contains(&next) || next == name.as_str();
            let parsed = DnsName::parse(&next);
            found.push(next);
            match parsed {
                Ok(next) if !is_circle => at = next,
                Ok(_) | Err(_) => break,
            }
        }
        found
    }

    async fn ask(&self, name: &DnsName, kind: RecordType) -> Result<Lookup, NetError> {
        let name = absolute(name)?;
        self.plain.clear_lookup_cache(name.clone(), kind);
        let asked = self.plain.lookup(name, kind);
        let found = tokio::time::timeout(self.deadline, asked).await;
        found.unwrap_or(Err(NetError::Timeout))
    }

    /// Whether the resolver answers for the name's top-level domain: then a failure is the name's own.
    async fn resolver_health(&self, name: &DnsName) -> Health {
        let Some(top) = top(name) else {
            return Health::Ill;
        };
        match self.ask(&top, RecordType::A).await {
            Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Health::Well,
            Err(_) => Health::Ill,
        }
    }

    /// Follows the chain of trust.
    async fn validated(&self, name: &DnsName) -> Signatures {
        match self.verify(name, RecordType::A).await {
            Ok(_) => Signatures::Good,
            Err(NetError::Dns(DnsError::DnssecBogus)) => {
                // A resolver that passes no signatures on makes everything look forged, its top-level domain too.
                let Some(top) = top(name).filter(|top| top != name) else {
                    return Signatures::Untold;
                };
                match self.verify(&top, RecordType::SOA).await {
                    Ok(_) => Signatures::Bogus(Witness::Chain),
                    Err(_) => Signatures::Untold,
                }
            }
            Err(_) => Signatures::Untold,
        }
    }

    async fn verify(&self, name: &DnsName, kind: RecordType) -> Result<Lookup, NetError> {
        let asked = self.validating.lookup(absolute(name)?, kind);
        let found = tokio::time::timeout(self.deadline, asked).await;
        found.unwrap_or(Err(NetError::Timeout))
    }

    /// Whether a resolver that refuses the name answers for it once it is told not to check signatures.
    async fn answers_unchecked(&self, name: &DnsName) -> bool {
        for server in &self.servers {
            let answered = unchecked(*server, name, self.deadline).await;
            if matches!(answered, Ok(ResponseCode::NoError | ResponseCode::NXDomain)) {
                return true;
            }
        }
        false
    }
}

async fn unchecked(
    server: SocketAddr,
    name: &DnsName,
    deadline: Duration,
) -> Result<ResponseCode, NetError> {
    let mut stream = UdpClientStream::builder(server, TokioRuntimeProvider::default())
        .with_timeout(Some(deadline))
        .build();
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.recursion_desired = true;
    let query = Query::query(absolute(name)?, RecordType::A);
    let mut request = DnsRequest::from_query(query, options);
    request.metadata.checking_disabled = true;
    let answer = stream.send_message(request).first_answer().await?;
    Ok(answer.response_code)
}

/// Whether the resolver is to be believed when it fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Ill,
}

/// What a resolver of ours checks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    None,
    Signatures,
}

fn resolver(
    config: ResolverConfig,
    deadline: Duration,
    checks: Checks,
) -> Result<TokioResolver, SetupError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(config, provider);
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.validate = checks == Checks::Signatures;
    options.timeout = deadline / ATTEMPTS;
    options.attempts = 1;
    // Keys and delegations of others are kept for as long as they say, at most; a customer's change is seen soon.
    options.positive_max_ttl = Some(Duration::from_secs(60));
    options.negative_max_ttl = Some(Duration::from_secs(5));
    builder.build().map_err(SetupError::Unusable)
}

fn absolute(name: &DnsName) -> Result<Name, NetError> {
    let mut name = Name::from_ascii(name.as_str())?;
    // No search domains.
    name.set_fqdn(true);
    Ok(name)
}

fn top(name: &DnsName) -> Option<DnsName> {
    std::iter::successors(Some(name.clone()), DnsName::parent).last()
}

/// How much a denial of `name` is worth at best.
fn certainty(name: &DnsName) -> Certainty {
    match name.has_public_suffix() {
        true => Certainty::Sure,
        false => Certainty::Unsure,
    }
}

fn is_servfail(found: &Result<Lookup, NetError>) -> bool {
    matches!(
        found,
        Err(NetError::Dns(DnsError::ResponseCode(
            ResponseCode::ServFail
        )))
    )
}

fn aliases(found: &[&Result<Lookup, NetError>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for lookup in found.iter().filter_map(|found| found.as_ref().ok()) {
        for record in lookup.answers() {
            if let RData::CNAME(target) = &record.data {
                let target = target.0.to_lowercase().to_ascii();
                let target = target.trim_end_matches('.').to_owned();
                if !names.contains(&target) && names.len() < MOST_ALIASES {
                    names.push(target);
                }
            }
        }
    }
    names
}

fn ipv4(data: &RData) -> Option<Ipv4Addr> {
    if let RData::A(address) = data {
        return Some(address.0);
    }
    None
}

fn ipv6(data: &RData) -> Option<Ipv6Addr> {
    if let RData::AAAA(address) = data {
        return Some(address.0);
    }
    None
}

fn answer<T: Ord>(
    found: Result<Lookup, NetError>,
    certainty: Certainty,
    resolver: Health,
    read: impl Fn(&RData) -> Option<T>,
) -> Answer<T> {
    match found {
        Ok(lookup) => {
            let records = lookup
                .answers()
                .iter()
                .filter_map(|record| read(&record.data));
            let mut records: Vec<T> = records.collect();
            // Resolvers rotate them: neither what is cut off nor what is compared may hang on that.
            records.sort_unstable();
            records.dedup();
            records.truncate(MOST_ADDRESSES);
            match records.is_empty() {
                true => Answer::Empty,
                false => Answer::Found(records),
            }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let absent = none.response_code == ResponseCode::NXDomain;
            match (absent, none.soa.is_some()) {
                (true, true) => Answer::Nxdomain(certainty),
                (true, false) => Answer::Nxdomain(Certainty::Unsure),
                (false, _) => Answer::Empty,
            }
        }
        Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)))
            if resolver == Health::Well =>
        {
            Answer::Servfail
        }
        Err(error) => Answer::Untold(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
