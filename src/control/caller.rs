//! Who asks, and what that lets them reach.

use crate::model::TenantScope;
use crate::store::record::AuditActor;

/// Who asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever can open the Unix socket or send signals: the user that owns the machine's data. Needs no token.
    Operator,
}

impl Caller {
    /// What the caller may reach.
    #[must_use]
    pub const fn grant(self) -> Grant {
        match self {
            Self::Operator => Grant {
                actor: AuditActor::Operator,
                scope: TenantScope::operator(),
            },
        }
    }
}

/// Leave to act, for as long as one request lasts; comes from a [`Caller`] and from nowhere else. Every view and
/// action takes one, so that none can be called without anybody to answer for it.
#[derive(Clone, Debug)]
pub struct Grant {
    actor: AuditActor,
    scope: TenantScope,
}

impl Grant {
    /// Who acts, for the audit chain.
    #[must_use]
    pub const fn actor(&self) -> &AuditActor {
        &self.actor
    }

    /// Whose rows are within reach.
    #[must_use]
    pub const fn scope(&self) -> &TenantScope {
        &self.scope
    }
}
