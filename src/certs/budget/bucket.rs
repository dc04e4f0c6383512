//! The names of buckets: what is limited, by whom, and for what.

use std::fmt;

use crate::telemetry::labels::BudgetFamily;

/// The name of a bucket, `family:counter:subject`: `domain:letsencrypt:example.com`. The counter is the `[[ca]]`
/// section for what an account is limited by, the authority's operator for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketName {
    /// What is limited.
    pub family: BudgetFamily,
    /// Who counts.
    pub counter: String,
    /// What for: a name, a tenant; empty for the whole account.
    pub subject: String,
}

impl BucketName {
    pub(super) fn new(family: BudgetFamily, counter: &str, subject: impl fmt::Display) -> Self {
        Self {
            family,
            counter: counter.to_owned(),
            subject: subject.to_string(),
        }
    }

    /// Reads a bucket's key; nothing where it is none of ours.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (family, rest) = key.split_once(':')?;
        let family = BudgetFamily::ALL
            .iter()
            .find(|known| known.as_str() == family)?;
        let (counter, subject) = match family {
            // An operator may be `host:port`; names hold no colon.
            BudgetFamily::Domain | BudgetFamily::ExactSet => rest.rsplit_once(':')?,
            // The name of a section holds no colon; a tenant's slug may.
            BudgetFamily::Calls
            | BudgetFamily::Orders
            | BudgetFamily::Failures
            | BudgetFamily::ConsecutiveFailures
            | BudgetFamily::TenantShare => rest.split_once(':')?,
        };
        Some(Self::new(*family, counter, subject))
    }

    /// How the keys of a family begin, for one who counts.
    #[must_use]
    pub fn prefix(family: BudgetFamily, counter: &str) -> String {
        format!("{}:{counter}:", family.as_str())
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, counter) = (self.family.as_str(), &self.counter);
        write!(f, "{family}:{counter}:{}", self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_as_it_is_written() {
        use BudgetFamily as Family;
        for (family, counter, subject) in [
            (Family::Orders, "le", ""),
            (Family::Calls, "le", ""),
            (Family::Domain, "127.0.0.1:14000", "a.test"),
            (Family::ExactSet, "letsencrypt", "*.a.test"),
            (Family::TenantShare, "le", "ask:a.test"),
            (Family::Failures, "le", "a.test"),
            (Family::ConsecutiveFailures, "le", "a.test"),
        ] {
            let name = BucketName::new(family, counter, subject);
            let key = name.to_string();
            assert!(key.starts_with(&BucketName::prefix(family, counter)));
            assert_eq!(BucketName::parse(&key), Some(name));
        }
        for other in ["", "orders", "orders:le", "hook:le:x"] {
            assert_eq!(BucketName::parse(other), None, "{other:?}");
        }
    }
}
