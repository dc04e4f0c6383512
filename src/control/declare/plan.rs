//! From what is declared and what is stored to what is to be done. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::control::declare::{Completeness, Declaration, Warning};
use crate::model::domain::{DomainState, Source};
use crate::model::{NamePattern, TenantId};
use crate::store::Unreadable;
use crate::store::record::DomainRecord;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Domains to write, in the order of their tenants.
    pub steps: Vec<Step>,
    /// What is left out.
    pub warnings: Vec<Warning>,
}

/// One domain's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody has registered the name.
    Register {
        /// The name.
        pattern: NamePattern,
        /// Its owner to be.
        tenant: TenantId,
    },
    /// Its tenant has it already, from elsewhere or retired: the file has it now.
    Adopt(Box<DomainRecord>),
    /// The operator moved it in the files from one tenant to another: a new domain, without anything of the old one.
    Move {
        /// The domain of the old tenant.
        from: Box<DomainRecord>,
        /// The new tenant.
        tenant: TenantId,
    },
    /// No file declares it any more: not served, its job dropped, its certificate kept.
    Retire(Box<DomainRecord>),
}

impl Step {
    /// The tenant that it is about in the end.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        match self {
            Self::Register { tenant, .. } | Self::Move { tenant, .. } => tenant,
            Self::Adopt(record) | Self::Retire(record) => &record.tenant,
        }
    }

    /// The name.
    #[must_use]
    pub const fn pattern(&self) -> &NamePattern {
        match self {
            Self::Register { pattern, .. } => pattern,
            Self::Move { from: record, .. } | Self::Adopt(record) | Self::Retire(record) => {
                &record.pattern
            }
        }
    }
}

/// A tenant's claim on a name.
type Claim<'a> = (&'a TenantId, &'a Arc<str>);

/// Who declares each name, in the order of the files.
fn claims(declaration: &Declaration) -> BTreeMap<&NamePattern, Vec<Claim<'_>>> {
    let mut claims: BTreeMap<&NamePattern, Vec<Claim<'_>>> = BTreeMap::new();
    for tenant in &declaration.tenants {
        for pattern in &tenant.domains {
            let claimants = claims.entry(pattern).or_default();
            if claimants.iter().all(|(id, _)| **id != tenant.id) {
                claimants.push((&tenant.id, &tenant.file));
            }
        }
    }
    claims
}

/// Whether a stored domain matters for the plan: the others need not be kept.
#[must_use]
pub fn concerns(declared: &HashMap<NamePattern, ()>, record: &DomainRecord) -> bool {
    record.source == Source::File || declared.contains_key(&record.pattern)
}

/// What is to be done, given the stored domains that [`concerns`] picks.
#[must_use]
pub fn plan(declaration: &Declaration, stored: &HashMap<NamePattern, DomainRecord>) -> Plan {
    let claims = claims(declaration);
    let mut plan = Plan::default();
    for (pattern, claimants) in &claims {
        let record = stored.get(*pattern);
        let Some(winner) = winner(claimants, record) else {
            continue;
        };
        for loser in claimants.iter().filter(|(id, _)| *id != winner.0) {
            plan.warnings.push(Warning {
                subject: pattern.to_string(),
                detail: format!(
                    "claimed by tenant {} in {} and by tenant {} in {}: it stays with {}; remove the other claim",
                    winner.0, winner.1, loser.0, loser.1, winner.0
                ),
            });
        }
        plan.decide(pattern, winner, record, declaration.completeness);
    }
    if declaration.completeness == Completeness::Whole {
        let vanished = stored.values().filter(|record| {
            record.source == Source::File
                && !matches!(
                    record.state,
                    DomainState::Tombstoned | DomainState::Deleting
                )
                && !claims.contains_key(&record.pattern)
        });
        plan.steps
            .extend(vanished.map(|record| Step::Retire(Box::new(record.clone()))));
    }
    plan.steps
        .sort_by(|a, b| (a.tenant(), a.pattern()).cmp(&(b.tenant(), b.pattern())));
    plan
}

/// Of several claimants the present owner wins, else the first.
fn winner<'a>(claimants: &[Claim<'a>], record: Option<&DomainRecord>) -> Option<Claim<'a>> {
    let owner = record.and_then(|record| {
        claimants
            .iter()
            .find(|(id, _)| **id == record.tenant)
            .copied()
    });
    owner.or_else(|| claimants.first().copied())
}

impl Plan {
    /// Takes out what would be done to stored domains that cannot be read, for nobody knows whose they are.
    pub fn leave_out(&mut self, unreadable: &[Unreadable]) {
        for row in unreadable {
            let concerns = |step: &Step| step.pattern().to_string() == row.key;
            if !self.steps.iter().any(concerns) {
                continue;
            }
            self.steps.retain(|step| !concerns(step));
            self.warnings.push(Warning {
                subject: row.key.clone(),
                detail: format!(
                    "its stored record cannot be read ({}): it stays as it is; restore a backup",
                    row.why
                ),
            });
        }
    }

    fn decide(
        &mut self,
        pattern: &NamePattern,
        (tenant, file): Claim<'_>,
        record: Option<&DomainRecord>,
        completeness: Completeness,
    ) {
        let Some(record) = record else {
            self.steps.push(Step::Register {
                pattern: pattern.clone(),
                tenant: tenant.clone(),
            });
            return;
        };
        if record.tenant == *tenant {
            let is_retired = record.state == DomainState::Tombstoned;
            if record.source != Source::File || is_retired {
                self.steps.push(Step::Adopt(Box::new(record.clone())));
            }
            return;
        }
        if record.source == Source::File && completeness == Completeness::Whole {
            self.steps.push(Step::Move {
                from: Box::new(record.clone()),
                tenant: tenant.clone(),
            });
            return;
        }
        let why = match record.source {
            Source::File => "another file, which cannot be read, may still declare it",
            Source::Hook => "the permission hook registered it",
            Source::Api => "it was registered over the API",
        };
        self.warnings.push(Warning {
            subject: pattern.to_string(),
            detail: format!(
                "declared for tenant {tenant} in {file}, but it belongs to tenant {} ({why}): it stays there",
                record.tenant
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::control::declare::DeclaredTenant;
    use crate::model::standing::DomainMemory;

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).unwrap()
    }

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap()
    }

    fn record(name: &str, owner: &str, source: Source, state: DomainState) -> DomainRecord {
        DomainRecord {
            pattern: pattern(name),
            tenant: tenant(owner),
            source,
            state,
            upstream: None,
            certificate: None,
            problem: None,
            memory: DomainMemory::default(),
            version: 1,
            created_at: Timestamp::EPOCH,
        }
    }

    fn declared(tenants: &[(&str, &[&str])], completeness: Completeness) -> Declaration {
        let tenants = tenants.iter().map(|(id, domains)| DeclaredTenant {
            id: tenant(id),
            domains: domains.iter().map(|name| pattern(name)).collect(),
            file: format!("{id}.toml").into(),
        });
        Declaration {
            tenants: tenants.collect(),
            completeness,
            ..Declaration::default()
        }
    }

    fn stored(records: &[DomainRecord]) -> HashMap<NamePattern, DomainRecord> {
        let records = records.iter().cloned();
        records
            .map(|record| (record.pattern.clone(), record))
            .collect()
    }

    use Completeness::{Partial, Whole};
    use DomainState::{Active, Suspended, Tombstoned};
    use Source::{Api, File, Hook};

    #[test]
    fn every_case_of_one_name() {
        let register = Step::Register {
            pattern: pattern("a.test"),
            tenant: tenant("acme"),
        };
        let adopt = |source, state| Step::Adopt(Box::new(record("a.test", "acme", source, state)));
        let moved = |state| Step::Move {
            from: Box::new(record("a.test", "other", File, state)),
            tenant: tenant("acme"),
        };
        for (before, completeness, expected, warnings) in [
            (None, Whole, Some(register), 0),
            (Some(("acme", File, Active)), Whole, None, 0),
            (Some(("acme", File, Suspended)), Whole, None, 0),
            (
                Some(("acme", File, Tombstoned)),
                Whole,
                Some(adopt(File, Tombstoned)),
                0,
            ),
            (
                Some(("acme", Hook, Active)),
                Partial,
                Some(adopt(Hook, Active)),
                0,
            ),
            (Some(("other", File, Active)), Whole, Some(moved(Active)), 0),
            (
                Some(("other", File, Tombstoned)),
                Whole,
                Some(moved(Tombstoned)),
                0,
            ),
            (Some(("other", File, Active)), Partial, None, 1),
            (Some(("other", Hook, Active)), Whole, None, 1),
            (Some(("other", Api, Tombstoned)), Whole, None, 1),
        ] {
            let before =
                before.map(|(owner, source, state)| record("a.test", owner, source, state));
            let stored = stored(before.as_slice());
            let plan = plan(&declared(&[("acme", &["a.test"])], completeness), &stored);
            assert_eq!(plan.steps, Vec::from_iter(expected), "{before:?}");
            assert_eq!(plan.warnings.len(), warnings, "{before:?}");
        }
    }

    #[test]
    fn what_vanished_is_retired_only_if_every_file_was_read_and_only_if_it_was_declared() {
        let records = [
            record("gone.test", "acme", File, Active),
            record("asked.test", "acme", Hook, Active),
            record("retired.test", "acme", File, Tombstoned),
        ];
        let whole = plan(&declared(&[("acme", &[])], Whole), &stored(&records));
        assert_eq!(whole.steps, [Step::Retire(Box::new(records[0].clone()))]);
        let partial = plan(&declared(&[("acme", &[])], Partial), &stored(&records));
        assert_eq!(partial, Plan::default());
    }

    #[test]
    fn a_name_claimed_twice_stays_with_its_owner_else_with_the_first_and_the_rest_go_on() {
        let both = declared(
            &[("a", &["x.test", "a.test"]), ("b", &["x.test", "b.test"])],
            Whole,
        );
        let fresh = plan(&both, &HashMap::new());
        let owners: Vec<_> = fresh
            .steps
            .iter()
            .map(|step| format!("{}={}", step.pattern(), step.tenant()))
            .collect();
        assert_eq!(owners, ["a.test=a", "x.test=a", "b.test=b"]);
        let detail = &fresh.warnings[0].detail;
        assert!(detail.contains("tenant a in a.toml") && detail.contains("tenant b in b.toml"));
        let owned = plan(&both, &stored(&[record("x.test", "b", File, Active)]));
        assert!(
            owned
                .steps
                .iter()
                .all(|step| *step.pattern() != pattern("x.test"))
        );
        assert_eq!(owned.warnings.len(), 1);
    }
}
