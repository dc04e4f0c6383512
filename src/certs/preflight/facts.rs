//! What was seen of a name from outside: its records, and who answers for it.

use std::fmt;
use std::net::IpAddr;

use crate::base::clock::Timestamp;
use crate::certs::preflight::cdn::Cdn;
use crate::dns::examine::Records;
use crate::model::DnsName;

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of which name.
    pub name: DnsName,
    /// What DNS says.
    pub records: Records,
    /// The addresses that the name for tenants' CNAMEs leads to now.
    pub edge_addresses: Vec<IpAddr>,
    /// Our own challenge, asked for at each address.
    pub fetches: Vec<Fetch>,
    /// What the name serves by HTTPS today.
    pub served: Option<Served>,
}

/// What came of asking for our own challenge at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The address.
    pub address: IpAddr,
    /// Who answered.
    pub found: Found,
    /// The content delivery network that answered or that has the address.
    pub cdn: Option<Cdn>,
}

/// Who answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// We do: our own answer came back.
    Ours,
    /// Somebody else does.
    Other {
        /// The status.
        status: u16,
        /// What it says it is.
        server: Option<String>,
        /// Where the answer came from, where that was after redirects.
        at: Option<String>,
    },
    /// Redirects that do not end, or lead where no authority follows.
    Loop(String),
    /// Nobody does, as far as we can tell from here.
    Unreachable(String),
    /// This machine has no way there, so nothing is known.
    NoRoute,
    /// It was not asked: no authority can reach such an address.
    NotPublic,
}

impl Fetch {
    /// Whether it was surely not us who would answer an authority: somebody answered, and did not merely refuse to talk
    /// to us.
    #[must_use]
    pub const fn is_elsewhere(&self) -> bool {
        match &self.found {
            // What keeps robots out, and what is over its limits, may let an authority in.
            Found::Other { status, .. } => {
                !matches!(*status, 401 | 403 | 429) && (*status < 500 || *status >= 520)
            }
            Found::Loop(_) => true,
            Found::Ours | Found::Unreachable(_) | Found::NoRoute | Found::NotPublic => false,
        }
    }
}

/// As evidence: one line.
impl fmt::Display for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match &self.found {
            Found::Ours => write!(f, "{address}: our own challenge came back")?,
            Found::Other { status, server, at } => {
                write!(f, "{address}: somebody else answered with status {status}")?;
                if let Some(server) = server {
                    write!(f, " (server: {server})")?;
                }
                if let Some(at) = at {
                    write!(f, " after a redirect to {at}")?;
                }
            }
            Found::Loop(why) => write!(f, "{address}: {why}")?,
            Found::Unreachable(why) => write!(f, "{address}: {why}")?,
            Found::NoRoute => write!(f, "{address}: this machine has no route there")?,
            Found::NotPublic => write!(
                f,
                "{address}: not a public address; no public authority can reach it"
            )?,
        }
        match self.cdn {
            Some(cdn) => write!(f, ", behind {cdn}"),
            None => Ok(()),
        }
    }
}

/// A certificate that a name serves; unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// At which address.
    pub address: IpAddr,
    /// Who issued it, in its own words.
    pub issuer: String,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            issuer,
            not_after,
        } = self;
        write!(
            f,
            "{address}: HTTPS is served today with a certificate of {issuer}, valid until {not_after}"
        )
    }
}

impl Facts {
    /// Everything as evidence: one line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.records.lines();
        lines.extend(self.fetches.iter().map(Fetch::to_string));
        lines.extend(self.served.as_ref().map(Served::to_string));
        lines
    }

    /// Whether anybody answered, so that it shows who stands in front of the name.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.fetches.iter().any(|fetch| match fetch.found {
            Found::Ours | Found::Other { .. } | Found::Loop(_) => true,
            Found::Unreachable(_) | Found::NoRoute | Found::NotPublic => false,
        })
    }

    /// The content delivery network in front of the name, where there is one.
    #[must_use]
    pub fn fronted_by(&self) -> Option<Cdn> {
        self.fetches.iter().find_map(|fetch| fetch.cdn)
    }
}
