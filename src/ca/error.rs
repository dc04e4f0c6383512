//! How an authority fails: what, at which step, in whose words, and when to try again.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::ca::authority::LARGEST_CERTIFICATE;
use crate::ca::problem;
use crate::model::certificate::CaId;
use crate::model::challenge::ChallengeKind;
use crate::model::problem::{Actor, ProblemCode};
use crate::model::{NamePattern, TenantId};
use crate::net::FetchError;

/// What was being asked of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The directory (RFC 8555 §7.1.1).
    Directory,
    /// A new account, or an existing one.
    Account,
    /// The change of the account's key.
    KeyChange,
    /// A new order.
    NewOrder,
    /// The state of an order.
    Order,
    /// The proof of a name.
    Authorization,
    /// The certificate request.
    Finalize,
    /// The certificate.
    Certificate,
    /// When it wants the certificate renewed (RFC 9773).
    RenewalInfo,
    /// A revocation.
    Revocation,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "reading its directory",
            Self::Account => "opening the account",
            Self::KeyChange => "changing the account's key",
            Self::NewOrder => "placing the order",
            Self::Order => "following the order",
            Self::Authorization => "proving the name",
            Self::Finalize => "handing in the certificate request",
            Self::Certificate => "fetching the certificate",
            Self::RenewalInfo => "asking when it wants the certificate renewed",
            Self::Revocation => "revoking a certificate",
        })
    }
}

/// An authority's problem document (RFC 8555 §6.7), bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The type without its URN prefix: `rateLimited`.
    pub kind: String,
    /// The authority's words.
    pub detail: String,
    /// One for each name concerned: the name, the type, the authority's words.
    pub parts: Vec<Part>,
    /// The kind of challenge that failed, where one did.
    pub challenge: Option<ChallengeKind>,
}

/// A subproblem (RFC 8555 §6.7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The name concerned; empty where the authority does not say.
    pub name: String,
    /// The type without its URN prefix.
    pub kind: String,
    /// The authority's words.
    pub detail: String,
}

/// Why an authority gives no certificate.
#[derive(Debug)]
pub enum CaError {
    /// Its terms of service have not been agreed to; nobody was asked.
    TermsNotAgreed {
        /// Which authority.
        ca: CaId,
    },
    /// It wants accounts bound to a customer of its own, and the configuration names none.
    BindingRequired {
        /// Which authority.
        ca: CaId,
    },
    /// It does not take the external account binding that is configured.
    BindingRefused {
        /// Which authority.
        ca: CaId,
        /// The identifier of the key that was used.
        key_id: String,
        /// Its words.
        document: Box<Document>,
    },
    /// It has no account of the key that is configured.
    AccountUnknown {
        /// Which authority.
        ca: CaId,
    },
    /// Accounts there do not change their keys.
    NoKeyChange {
        /// Which authority.
        ca: CaId,
    },
    /// It could not be reached, or its answer was not whole.
    Unreachable {
        /// Which authority.
        ca: CaId,
        /// What was being done.
        step: Step,
        /// How the call failed.
        source: Box<FetchError>,
    },
    /// It refused, with a problem document.
    Refused {
        /// Which authority.
        ca: CaId,
        /// What was being done.
        step: Step,
        /// Its words.
        document: Box<Document>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// It answered with an error status and no problem document: a gateway before it, an outage.
    Status {
        /// Which authority.
        ca: CaId,
        /// What was being done.
        step: Step,
        /// The status.
        status: u16,
        /// How the answer begins.
        excerpt: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// It answered with something that is no ACME.
    Garbled {
        /// Which authority.
        ca: CaId,
        /// What was being done.
        step: Step,
        /// What is wrong with it.
        why: String,
    },
    /// It does not know the order, or not for our account.
    NoSuchOrder {
        /// Which authority.
        ca: CaId,
        /// The order's URL.
        url: String,
    },
    /// It offers no way to prove the name that we have.
    NotOffered {
        /// Which authority.
        ca: CaId,
        /// The kinds of challenge that it offers.
        offered: Vec<String>,
    },
    /// It was not done in time.
    Deadline {
        /// Which authority.
        ca: CaId,
        /// What was being done.
        step: Step,
    },
    /// What is kept for it cannot be used.
    Material {
        /// Which authority.
        ca: CaId,
        /// Which material.
        slot: String,
        /// What is wrong with it.
        why: String,
    },
    /// It revokes nothing.
    CannotRevoke {
        /// Which authority.
        ca: CaId,
    },
    /// It does not certify such a name.
    NotCertified {
        /// Which authority.
        ca: CaId,
        /// The name.
        pattern: NamePattern,
    },
    /// A tenant has more domains than the certificate of its own issuing CA can name.
    TooManyDomains {
        /// Which authority.
        ca: CaId,
        /// Whose issuing CA.
        tenant: TenantId,
        /// The names that it is to be confined to.
        names: usize,
    },
}

impl CaError {
    /// Which authority failed.
    #[must_use]
    pub const fn ca(&self) -> &CaId {
        match self {
            Self::TermsNotAgreed { ca }
            | Self::BindingRequired { ca }
            | Self::BindingRefused { ca, .. }
            | Self::AccountUnknown { ca }
            | Self::NoKeyChange { ca }
            | Self::Unreachable { ca, .. }
            | Self::Refused { ca, .. }
            | Self::Status { ca, .. }
            | Self::Garbled { ca, .. }
            | Self::NoSuchOrder { ca, .. }
            | Self::NotOffered { ca, .. }
            | Self::Deadline { ca, .. }
            | Self::Material { ca, .. }
            | Self::CannotRevoke { ca }
            | Self::NotCertified { ca, .. }
            | Self::TooManyDomains { ca, .. } => ca,
        }
    }

    /// What was being asked of the authority; nothing where nobody was asked, or that follows from the failure.
    #[must_use]
    pub const fn step(&self) -> Option<Step> {
        match self {
            Self::Unreachable { step, .. }
            | Self::Refused { step, .. }
            | Self::Status { step, .. }
            | Self::Garbled { step, .. }
            | Self::Deadline { step, .. } => Some(*step),
            Self::TermsNotAgreed { .. }
            | Self::BindingRequired { .. }
            | Self::BindingRefused { .. }
            | Self::AccountUnknown { .. }
            | Self::NoKeyChange { .. }
            | Self::NoSuchOrder { .. }
            | Self::NotOffered { .. }
            | Self::Material { .. }
            | Self::CannotRevoke { .. }
            | Self::NotCertified { .. }
            | Self::TooManyDomains { .. } => None,
        }
    }

    /// The problem code that a tenant and the operator read.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::TermsNotAgreed { .. }
            | Self::BindingRequired { .. }
            | Self::BindingRefused { .. }
            | Self::AccountUnknown { .. }
            | Self::NoKeyChange { .. } => ProblemCode::CaRejected,
            Self::Unreachable { .. } | Self::Garbled { .. } | Self::Deadline { .. } => {
                ProblemCode::CaOutage
            }
            Self::Refused { document, .. } => problem::code(document),
            Self::Status { status, .. } => match status {
                429 => ProblemCode::RateLimitedAccount,
                500.. => ProblemCode::CaOutage,
                _ => ProblemCode::CaRejected,
            },
            Self::NoSuchOrder { .. } => ProblemCode::CaRejected,
            Self::NotOffered { .. }
            | Self::NotCertified { .. }
            | Self::CannotRevoke { .. }
            | Self::TooManyDomains { .. } => ProblemCode::PolicyDenied,
            Self::Material { .. } => ProblemCode::KeyUnreadable,
        }
    }

    /// Who must act.
    #[must_use]
    pub fn class(&self) -> Actor {
        self.code().actor()
    }

    /// How long the authority asks to wait: never try again sooner. Where it says nothing, the back-off decides.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Refused { retry_after, .. } | Self::Status { retry_after, .. } = self {
            *retry_after
        } else {
            None
        }
    }

    /// Whether the same call may well succeed at once if made again: the network, a gateway. Only where asking twice
    /// does no harm.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let says_when = self.retry_after().is_some();
        match self {
            Self::Unreachable { source, .. } => !matches!(**source, FetchError::Untrusted { .. }),
            Self::Status { status, .. } => *status >= 500 && !says_when,
            Self::Refused { document, .. } => document.kind == "serverInternal" && !says_when,
            Self::Garbled { .. } => true,
            Self::TermsNotAgreed { .. }
            | Self::BindingRequired { .. }
            | Self::BindingRefused { .. }
            | Self::AccountUnknown { .. }
            | Self::NoKeyChange { .. }
            | Self::NoSuchOrder { .. }
            | Self::NotOffered { .. }
            | Self::Deadline { .. }
            | Self::Material { .. }
            | Self::CannotRevoke { .. }
            | Self::NotCertified { .. }
            | Self::TooManyDomains { .. } => false,
        }
    }

    /// Whether it shows that the authority is not there, or not well. Refusals and limits do not, nor an answer that says
    /// when to come again.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        let says_when = self.retry_after().is_some();
        match self {
            Self::Unreachable { .. } | Self::Garbled { .. } => true,
            Self::Status { status, .. } => *status >= 500 && !says_when,
            Self::Refused { document, .. } => document.kind == "serverInternal" && !says_when,
            // How long the proof of a name takes is not the authority's doing alone.
            Self::Deadline { step, .. } => *step != Step::Authorization,
            Self::TermsNotAgreed { .. }
            | Self::BindingRequired { .. }
            | Self::BindingRefused { .. }
            | Self::AccountUnknown { .. }
            | Self::NoKeyChange { .. }
            | Self::NoSuchOrder { .. }
            | Self::NotOffered { .. }
            | Self::Material { .. }
            | Self::CannotRevoke { .. }
            | Self::NotCertified { .. }
            | Self::TooManyDomains { .. } => false,
        }
    }

    /// Whether the authority said it, so that it must be there.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::BindingRefused { .. }
            | Self::AccountUnknown { .. }
            | Self::Refused { .. }
            | Self::Status { .. }
            | Self::NoSuchOrder { .. }
            | Self::NotOffered { .. } => true,
            Self::TermsNotAgreed { .. }
            | Self::BindingRequired { .. }
            | Self::NoKeyChange { .. }
            | Self::Unreachable { .. }
            | Self::Garbled { .. }
            | Self::Deadline { .. }
            | Self::Material { .. }
            | Self::CannotRevoke { .. }
            | Self::NotCertified { .. }
            | Self::TooManyDomains { .. } => false,
        }
    }

    /// Whether only the nonce was stale (RFC 8555 §6.5): the request was not looked at, and may be made again.
    #[must_use]
    pub fn is_bad_nonce(&self) -> bool {
        matches!(self, Self::Refused { document, .. } if document.kind == "badNonce")
    }

    /// Whether an order that said what it replaces may have been refused for that alone: replaced already, ordered by
    /// another account, unknown, or not understood (RFC 9773 §5). Authorities disagree about the type.
    #[must_use]
    pub fn may_refuse_replaced(&self) -> bool {
        if let Self::Refused { document, .. } = self {
            return matches!(
                document.kind.as_str(),
                "alreadyReplaced"
                    | "conflict"
                    | "malformed"
                    | "unauthorized"
                    | "notFound"
                    | "about:blank"
                    | ""
            );
        }
        matches!(
            self,
            Self::Status {
                status: 400 | 403 | 404 | 409,
                ..
            }
        )
    }

    /// Whether the authority no longer knows our account.
    #[must_use]
    pub fn is_account_gone(&self) -> bool {
        matches!(self, Self::Refused { document, .. } if document.kind == "accountDoesNotExist")
    }

    /// What was seen, in the words of those who said it: for the evidence of a problem.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        match self {
            Self::Refused { document, .. } | Self::BindingRefused { document, .. } => {
                let whole = format!("{}: {}", document.kind, document.detail);
                let parts = document.parts.iter().map(Part::to_string);
                std::iter::once(whole).chain(parts).collect()
            }
            Self::Status {
                status, excerpt, ..
            } => vec![format!("status {status}: {excerpt}")],
            Self::Unreachable { source, .. } => causes(&**source),
            Self::Garbled { why, .. } | Self::Material { why, .. } => vec![why.clone()],
            Self::NotOffered { offered, .. } => vec![format!("offered: {}", offered.join(", "))],
            Self::NoSuchOrder { url, .. } => vec![url.clone()],
            Self::TermsNotAgreed { .. }
            | Self::BindingRequired { .. }
            | Self::AccountUnknown { .. }
            | Self::NoKeyChange { .. }
            | Self::Deadline { .. }
            | Self::CannotRevoke { .. }
            | Self::NotCertified { .. }
            | Self::TooManyDomains { .. } => Vec::new(),
        }
    }
}

/// The error and what caused it, outermost first.
fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next.filter(|_| texts.len() < 6) {
        texts.push(error.to_string());
        next = error.source();
    }
    texts
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.name, self.kind, self.detail)
    }
}

/// What may be wrong where the directory itself is.
fn remedy(ca: &CaId, step: Step) -> String {
    match step {
        Step::Directory => format!(
            "; if it goes on, set directory in the [[ca]] named {ca} to the URL in the authority's documentation"
        ),
        Step::Account
        | Step::KeyChange
        | Step::NewOrder
        | Step::Order
        | Step::Authorization
        | Step::Finalize
        | Step::Certificate
        | Step::RenewalInfo
        | Step::Revocation => String::new(),
    }
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TermsNotAgreed { ca } => write!(
                f,
                "the terms of service of {ca} are not agreed to; read them and set terms_agreed = true \
                 in the [[ca]] named {ca}"
            ),
            Self::BindingRequired { ca } => write!(
                f,
                "{ca} opens accounts only for its customers; set eab in the [[ca]] named {ca} to the \
                 key id and HMAC key from its website"
            ),
            Self::BindingRefused { ca, key_id, .. } => write!(
                f,
                "{ca} does not take the external account binding with key id {key_id:?}; nothing is ordered; compare \
                 kid and hmac_key of eab in the [[ca]] named {ca} with what its website shows, or make a new key there"
            ),
            Self::AccountUnknown { ca } => write!(
                f,
                "{ca} has no account of the key in account_key; correct it in the [[ca]] named {ca}, or remove it to \
                 open a new account"
            ),
            Self::NoKeyChange { ca } => {
                write!(f, "accounts of {ca} have no key that can be changed")
            }
            Self::Unreachable { ca, step, .. } => write!(f, "{ca} failed while {step}"),
            Self::Refused {
                ca, step, document, ..
            } => write!(f, "{ca} refused while {step}: {}", document.detail),
            Self::Status {
                ca, step, status, ..
            } => write!(
                f,
                "{ca} answered with status {status} while {step}{}",
                remedy(ca, *step)
            ),
            Self::Garbled { ca, step, .. } => {
                write!(
                    f,
                    "{ca} answered with something that is no ACME while {step}{}",
                    remedy(ca, *step)
                )
            }
            Self::NoSuchOrder { ca, .. } => write!(f, "{ca} does not know the order any more"),
            Self::NotOffered { ca, .. } => {
                write!(
                    f,
                    "{ca} does not offer to prove the name by any kind of challenge that [certificates] challenges \
                     names and that suits the name"
                )
            }
            Self::Deadline { ca, step } => write!(f, "{ca} was not done in time while {step}"),
            Self::Material { ca, slot, .. } => {
                write!(f, "what is kept for {ca} as {slot} cannot be used")
            }
            Self::CannotRevoke { ca } => {
                write!(
                    f,
                    "{ca} takes no revocations; what it issued ends with its lifetime"
                )
            }
            Self::NotCertified { ca, pattern } => {
                write!(
                    f,
                    "{ca} cannot certify {pattern}: a wildcard needs proof by DNS"
                )
            }
            Self::TooManyDomains { ca, tenant, names } => write!(
                f,
                "tenant {tenant} has {names} registered domains, and the certificate of its own issuing CA of {ca}, which \
                 names them all, would be larger than {LARGEST_CERTIFICATE} bytes: divide them among tenants, or name a \
                 [[ca]] without per_tenant in the ca of the [[tenant]]"
            ),
        }
    }
}

impl Error for CaError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Self::Unreachable { source, .. } = self {
            Some(&**source)
        } else {
            None
        }
    }
}
