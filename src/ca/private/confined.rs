//! What a tenant's own issuing CA may certify: its domains, by critical name constraints (RFC 5280 §4.2.1.10). Should its
//! key be misused, no client that heeds them takes anything for another tenant's names.

use std::collections::BTreeSet;
use std::time::Duration;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::extensions::GeneralName;

use crate::model::{DnsName, NamePattern, TenantId};

/// How long an opened issuing CA is used before the tenant's domains are looked at again.
pub(super) const LOOKED_AT: Duration = Duration::from_secs(600);
/// Names in the constraints; a tenant with more is confined to the registered domains above them. Some 600 of those make
/// the certificate larger than [`crate::ca::LARGEST_CERTIFICATE`], and nothing is issued for the tenant then.
const MOST_NAMES: usize = 200;

/// A tenant, and what its issuing CA is confined to.
#[derive(Clone, Debug)]
pub(super) struct Confined {
    pub(super) tenant: TenantId,
    names: BTreeSet<DnsName>,
}

impl Confined {
    /// To these domains of the tenant.
    pub(super) fn to(tenant: &TenantId, domains: &[NamePattern]) -> Self {
        let mut names: BTreeSet<DnsName> = domains.iter().map(|d| d.base().clone()).collect();
        if names.len() > MOST_NAMES {
            names = names.iter().map(DnsName::registered_domain).collect();
        }
        // A name permits all below it.
        let below = |name: &DnsName| {
            std::iter::successors(name.parent(), DnsName::parent)
                .any(|above| names.contains(&above))
        };
        let names = names.iter().filter(|name| !below(name)).cloned().collect();
        Self {
            tenant: tenant.clone(),
            names,
        }
    }

    /// The slot of the tenant's own.
    pub(super) fn slot(&self, of: &str) -> String {
        format!("{of}:{}", self.tenant)
    }

    /// How many names that are.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// Whether a name lies within.
    pub(super) fn permits(&self, pattern: &NamePattern) -> bool {
        let base = pattern.base();
        self.names.iter().any(|name| base.is_within(name))
    }

    /// As an issuing certificate says it. Addresses are no tenant's.
    pub(super) fn constraints(&self) -> NameConstraints {
        let permitted = self.names.iter();
        let permitted = permitted.map(|name| GeneralSubtree::DnsName(name.to_string()));
        let mut excluded = vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ];
        // Nothing permitted would mean that everything is: the empty name is within every name.
        if self.names.is_empty() {
            excluded.push(GeneralSubtree::DnsName(String::new()));
        }
        NameConstraints {
            permitted_subtrees: permitted.collect(),
            excluded_subtrees: excluded,
        }
    }

    /// Whether an issuing certificate, DER, is confined to exactly these names.
    pub(super) fn confines(&self, der: &[u8]) -> bool {
        permitted(der).is_some_and(|permitted| permitted == self.names)
    }
}

/// The names that an issuing certificate is confined to.
fn permitted(der: &[u8]) -> Option<BTreeSet<DnsName>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let constraints = certificate.name_constraints().ok().flatten()?.value;
    let Some(subtrees) = &constraints.permitted_subtrees else {
        return Some(BTreeSet::new());
    };
    let name = |base: &GeneralName<'_>| {
        if let GeneralName::DNSName(name) = base {
            DnsName::parse(name).ok()
        } else {
            None
        }
    };
    subtrees.iter().map(|subtree| name(&subtree.base)).collect()
}

#[cfg(test)]
mod tests;
