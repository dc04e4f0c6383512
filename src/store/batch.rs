//! Changes: all of a batch or nothing of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::certificate::{CaId, CertificateId};
use crate::model::domain::{DomainState, Source};
use crate::model::problem::Problem;
use crate::model::route::UpstreamName;
use crate::model::standing::{CertificateStanding, Learnt};
use crate::model::{DnsName, NamePattern, TenantId};
use crate::store::budget::BucketCost;
use crate::store::error::StoreError;
use crate::store::feed::Cursor;
use crate::store::job::{Claim, JobKey, JobStanding, Priority, SavedOrder};
use crate::store::record::{
    AuditActor, CertificateRecord, DataKeyRecord, KeyOwner, MaterialRecord,
};

/// Guards, operations and audit events of one transaction.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Checked first, in the transaction: one that fails stops the whole batch.
    pub guards: Vec<Guard>,
    /// Done in this order.
    pub operations: Vec<Operation>,
    /// Appended to their owners' chains.
    pub audit: Vec<AuditEvent>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more guard.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// With one more operation.
    #[must_use]
    pub fn then(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// With one more audit event.
    #[must_use]
    pub fn audit(mut self, event: AuditEvent) -> Self {
        self.audit.push(event);
        self
    }
}

/// What must be true when the batch is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The claim is still ours: counter and nonce match. An expired lease that nobody took still is.
    ClaimHeld(Claim),
    /// The domain exists at this version.
    DomainVersion(NamePattern, u64),
    /// Nobody has registered the name.
    DomainAbsent(NamePattern),
    /// The domain exists and belongs to this tenant.
    DomainOwnedBy(NamePattern, TenantId),
    /// There is no such material yet.
    MaterialAbsent(CaId, String),
    /// The slot holds such material, with exactly this public part: nobody has written it since it was read.
    MaterialIs(CaId, String, Vec<u8>),
    /// The owner has no data key with this number yet.
    DataKeyAbsent(KeyOwner, u32),
    /// This is what is known of the certificate: nobody has written its standing since it was read.
    StandingIs(CertificateId, Box<CertificateStanding>),
    /// No certificate and no saved order of the owner is sealed with a data key of a lower number than this, and none of its
    /// jobs is claimed: its holder may have what was read before.
    NothingSealedBelow(KeyOwner, u32),
    /// The owner's data key of this number is wrapped exactly so.
    DataKeyIs(Box<DataKeyRecord>),
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClaimHeld(claim) => write!(f, "the claim on {} is held", claim.key),
            Self::DomainVersion(name, version) => write!(f, "{name} is at version {version}"),
            Self::DomainAbsent(name) => write!(f, "{name} is not registered"),
            Self::DomainOwnedBy(name, tenant) => write!(f, "{name} belongs to {tenant}"),
            Self::StandingIs(certificate, _) => {
                write!(
                    f,
                    "the standing of certificate {certificate} is as it was read"
                )
            }
            Self::MaterialAbsent(ca, slot) => write!(f, "CA {ca} has no {slot} yet"),
            Self::NothingSealedBelow(owner, number) => write!(
                f,
                "nothing of {:?} is sealed with a data key below {number}, and none of its jobs runs",
                owner.as_str()
            ),
            Self::DataKeyIs(key) => {
                let (owner, id) = (key.owner.as_str(), key.id);
                write!(f, "data key {id} of {owner:?} is as it was read")
            }
            Self::MaterialIs(ca, slot, _) => write!(f, "{slot} of CA {ca} is as it was read"),
            Self::DataKeyAbsent(owner, id) => {
                write!(f, "{:?} has no data key {id} yet", owner.as_str())
            }
        }
    }
}

/// One change. Each is idempotent under the batch's guards.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Declares a tenant; nothing changes where it exists.
    PutTenant {
        /// Its slug.
        id: TenantId,
        /// Where it is declared.
        source: Source,
    },
    /// Registers a domain, or changes one of the same tenant; the certificate and the problem stay. The name of another
    /// tenant is refused as [`ApplyError::OwnedByOther`].
    PutDomain {
        /// The name.
        pattern: NamePattern,
        /// Its owner.
        tenant: TenantId,
        /// Where it is declared.
        source: Source,
        /// The upstream that the hook chose.
        upstream: Option<UpstreamName>,
    },
    /// Sets a domain's state and problem. Where that takes it back into service, it keeps its certificate only if that may
    /// serve ([`CertificateStanding::may_serve`]) and has its key; else it comes back pending, without one.
    SetDomainState {
        /// The name.
        pattern: NamePattern,
        /// The new state.
        state: DomainState,
        /// The new problem, or none.
        problem: Option<Problem>,
    },
    /// Removes a domain, its job and its challenges. Nothing changes where it does not exist. Its certificates stay as records until upkeep destroys them.
    DeleteDomain {
        /// The name.
        pattern: NamePattern,
    },
    /// Remembers one thing that was learnt about a domain, which must exist; what else is remembered stays, whoever notes
    /// it at the same time. Its version stays: nothing that is served depends on it.
    Remember {
        /// The name.
        pattern: NamePattern,
        /// What was learnt.
        learnt: Box<Learnt>,
    },
    /// Stores a certificate, under each of its names.
    PutCertificate(Box<CertificateRecord>),
    /// Writes what has become of a stored certificate. What the store itself keeps of it stays, and so does a revocation
    /// ([`CertificateStanding::amended_by`]), which only [`Operation::CancelRevocation`] takes away.
    SetCertificateStanding {
        /// The certificate.
        certificate: CertificateId,
        /// All that is known now.
        standing: Box<CertificateStanding>,
    },
    /// Takes a certificate's revocation back, and the wish that it be replaced with it; nothing changes where none was asked
    /// for. Refused as [`ApplyError::NotUsable`] once somebody may know of it.
    CancelRevocation {
        /// The certificate.
        certificate: CertificateId,
    },
    /// Makes a stored certificate the one that serves the domain, as active and without a problem. A domain that is
    /// not served (suspended, being taken down) keeps its state. The certificate must hold the name, and may neither be
    /// revoked (or about to be) nor be without its key. The one before it is superseded; once no domain points to it, its
    /// key is to be destroyed after the time that the store's settings say.
    PointDomain {
        /// The name.
        pattern: NamePattern,
        /// The certificate.
        certificate: CertificateId,
    },
    /// Destroys the private key of a certificate that no domain points to; nothing changes where that was done.
    DestroyKey {
        /// The certificate.
        certificate: CertificateId,
    },
    /// Publishes the answer to a challenge of a registered host.
    PutChallenge {
        /// The host it is asked of.
        host: DnsName,
        /// The last segment of its path; `acme-tls/1` for TLS-ALPN-01, which is asked for without a token.
        token: String,
        /// What to answer (RFC 8555 §8.1).
        key_authorization: String,
        /// How long it stays.
        lifetime: Duration,
    },
    /// Withdraws every challenge of a host.
    DropChallenges {
        /// The host.
        host: DnsName,
    },
    /// Asks for the job of a domain or of a certificate: made if absent; if it waits for later, brought forward, but never before its back-off
    /// ends unless `urgency` says so, nor more urgent until then. A running job is left alone but for its priority. The
    /// domain or certificate must be the tenant's.
    RequestJob {
        /// Which job; never one of upkeep, for which there is [`Operation::RequestUpkeep`].
        key: JobKey,
        /// The tenant it works for.
        tenant: TenantId,
        /// How urgent it is; a job only becomes more urgent.
        priority: Priority,
        /// From when on.
        delay: Duration,
        /// Whether a back-off is heeded.
        urgency: Urgency,
    },
    /// Makes an upkeep job where there is none, due after `delay`; nothing changes where it exists.
    RequestUpkeep {
        /// Its name.
        task: Arc<str>,
        /// From when on.
        delay: Duration,
    },
    /// Keeps the order of a claimed job, so that a successor resumes it.
    SaveOrder {
        /// Which job.
        key: JobKey,
        /// The order, or nothing to forget it.
        order: Option<SavedOrder>,
    },
    /// Ends a claimed job's run: success or failure, and when it runs next.
    FinishJob {
        /// Which job.
        key: JobKey,
        /// How it ended.
        outcome: JobOutcome,
        /// When it runs next, from now.
        next: Duration,
    },
    /// Removes a job.
    DeleteJob {
        /// Which job.
        key: JobKey,
    },
    /// Stores material of a CA, replacing what the slot held.
    PutMaterial(MaterialRecord),
    /// Stores a wrapped data key, replacing the one of the same owner and number (a new wrap of the same key).
    PutDataKey(DataKeyRecord),
    /// Puts a blob that was sealed anew in the place of the one that was read. Nothing changes where the place holds another by
    /// now.
    Reseal(Box<Resealed>),
    /// Destroys the data keys of an owner with lower numbers than this.
    DestroyDataKeysBelow {
        /// Whose.
        owner: KeyOwner,
        /// The lowest that stays.
        number: u32,
    },
    /// Destroys the data keys of a tenant up to a number, and what they sealed of its certificates: none of these may serve again,
    /// and each says since when ([`CertificateStanding::key_destroyed_at`]). A domain in service that points to one leaves it,
    /// and another is asked for.
    DestroyDataKeys {
        /// Whose.
        tenant: TenantId,
        /// The last that goes.
        through: u32,
    },
    /// Stops a bucket for a time, whatever it holds (a CA's Retry-After).
    FreezeBucket {
        /// Which bucket.
        bucket: String,
        /// For how long.
        duration: Duration,
    },
    /// Takes from a bucket what has been spent already, whatever it holds: at worst it is empty.
    ChargeBucket(BucketCost),
    /// Puts the units of an earlier cost back.
    GiveBack(BucketCost),
    /// Fills a bucket; a stop stays.
    FillBucket {
        /// Which bucket.
        bucket: String,
    },
}

/// A blob sealed anew.
#[derive(Clone, Debug)]
pub struct Resealed {
    /// Whose it is.
    pub owner: KeyOwner,
    /// Where it lies.
    pub place: SealedPlace,
    /// What lies there.
    pub from: Vec<u8>,
    /// What is to lie there.
    pub to: Vec<u8>,
}

/// Where a sealed blob lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedPlace {
    /// The private key of a certificate.
    Certificate(CertificateId),
    /// The private key of a saved order.
    Order(JobKey),
    /// Material of a CA.
    Material(CaId, String),
}

/// Whether a request for a job heeds its back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A failing job stays put until its back-off ends.
    HeedBackoff,
    /// The operator wants it now: the back-off is forgotten, the count of failures is not.
    Now,
}

/// How a run of a job ended. Whichever it is, the claim ends with it: a batch guarded by it is refused from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// It did what it was for; failures are forgotten, and so is a saved order. Its next run is a renewal.
    Done,
    /// It failed; counted, with the problem kept. No request brings it forward before its next run, which is no more
    /// urgent than a renewal: whoever waited for this one has been answered.
    Failed(Problem),
    /// It was interrupted through no fault of the domain (shutdown): nothing is counted, and it stays as urgent as it
    /// was.
    Deferred,
    /// It must wait through no fault of the domain (no budget): nothing is counted, and the problem is kept. Only a
    /// request that is more urgent than the job was brings it forward before its next run, or [`Urgency::Now`].
    Held(Problem),
}

/// An event for an audit chain; the store adds place, time and hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// Whose chain.
    pub owner: KeyOwner,
    /// Who.
    pub actor: AuditActor,
    /// What, as a stable word.
    pub kind: &'static str,
    /// The name or thing concerned.
    pub subject: String,
    /// More, as a JSON object; never a secret.
    pub detail: serde_json::Value,
}

/// What a batch has done.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The feed's position after it: changes up to here include it.
    pub position: Cursor,
    /// How each requested job stands now, in the order of the requests.
    pub jobs: Vec<JobStanding>,
}

/// Why a batch was not done.
#[derive(Clone, Debug)]
pub enum ApplyError {
    /// A guard was not true; nothing was done.
    GuardFailed(Guard),
    /// The name belongs to another tenant; nothing was done.
    OwnedByOther {
        /// The name.
        pattern: NamePattern,
        /// The tenant that wanted it.
        wanted_by: TenantId,
    },
    /// A row of this owner lies outside of the caller's scope; nothing was done. A bug of the caller.
    OutOfScope(KeyOwner),
    /// A domain, job or certificate that an operation needs does not exist; nothing was done.
    Missing(String),
    /// The certificate is not in a state for it: its key is destroyed, its revocation asked for, or it still serves.
    /// Nothing was done.
    NotUsable(CertificateId),
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuardFailed(guard) => write!(f, "no longer true: {guard}"),
            Self::OwnedByOther { pattern, wanted_by } => {
                write!(f, "{pattern} belongs to another tenant than {wanted_by}")
            }
            Self::OutOfScope(KeyOwner::Tenant(tenant)) => {
                write!(f, "tenant {tenant} lies outside of the caller's scope")
            }
            Self::OutOfScope(KeyOwner::Platform) => {
                f.write_str("the platform's own rows lie outside of the caller's scope")
            }
            Self::Missing(what) => write!(f, "{what} does not exist"),
            Self::NotUsable(id) => write!(
                f,
                "certificate {id} is revoked, without its key, or still serves"
            ),
            Self::Store(_) => f.write_str("the store failed"),
        }
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::GuardFailed(_)
            | Self::OwnedByOther { .. }
            | Self::OutOfScope(_)
            | Self::NotUsable(_)
            | Self::Missing(_) => None,
        }
    }
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
