//! How an outbound call fails.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use hyper_util::client::legacy;

/// Why a client could not be made.
#[derive(Debug)]
pub enum SetupError {
    /// The file of roots is not PEM.
    RootPem(rustls_pki_types::pem::Error),
    /// A root is not a usable certificate.
    RootCertificate(rustls::Error),
    /// The file of roots holds no certificate.
    NoRoots,
    /// The TLS provider does not fit; a bug.
    Tls(rustls::Error),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RootPem(_) => "the roots are not valid PEM",
            Self::RootCertificate(_) => "a root is not a usable certificate",
            Self::NoRoots => {
                "the roots hold no certificate; a PEM file with one BEGIN CERTIFICATE block per root is needed"
            }
            Self::Tls(_) => "the TLS client cannot be set up",
        })
    }
}

impl Error for SetupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::RootPem(error) => Some(error),
            Self::RootCertificate(error) | Self::Tls(error) => Some(error),
            Self::NoRoots => None,
        }
    }
}

/// Why there is no whole answer. Names the host, never the path or query.
#[derive(Debug)]
pub enum FetchError {
    /// No connection: the name does not resolve, nobody listens, the TLS handshake fails. The request has not
    /// been sent.
    Connect {
        /// The server.
        host: String,
        /// What failed.
        source: legacy::Error,
    },
    /// The server's certificate does not verify against the client's roots. The request has not been sent.
    Untrusted {
        /// The server.
        host: String,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The connection broke before the answer was whole. The server may have acted on the request.
    Broken {
        /// The server.
        host: String,
        /// What failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The answer was not whole in time. The server may have acted on the request.
    Deadline {
        /// The server.
        host: String,
        /// How long it had.
        deadline: Duration,
    },
    /// The answer is larger than allowed.
    TooLarge {
        /// The server.
        host: String,
        /// The largest allowed answer, in bytes.
        limit: usize,
    },
}

impl FetchError {
    pub(crate) fn from_client(host: &str, error: legacy::Error) -> Self {
        let host = host.to_owned();
        match (untrusted(&error), error.is_connect()) {
            (Some(source), _) => Self::Untrusted { host, source },
            (None, true) => Self::Connect {
                host,
                source: error,
            },
            (None, false) => Self::Broken {
                host,
                source: Box::new(error),
            },
        }
    }

    /// Whether the server may have acted on the request.
    #[must_use]
    pub const fn may_have_acted(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Untrusted { .. } => false,
            Self::Broken { .. } | Self::Deadline { .. } | Self::TooLarge { .. } => true,
        }
    }
}

/// The certificate error somewhere below `error`; errors of I/O hide theirs behind `get_ref`.
fn untrusted(error: &legacy::Error) -> Option<rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(current) = next {
        let below = match current.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => current.source(),
        };
        let found = [Some(current), below].into_iter().flatten();
        for candidate in found {
            if let Some(tls @ rustls::Error::InvalidCertificate(_)) = candidate.downcast_ref() {
                return Some(tls.clone());
            }
        }
        next = below;
    }
    None
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { host, .. } => write!(f, "no connection to {host}"),
            Self::Untrusted { host, .. } => {
                write!(
                    f,
                    "the certificate of {host} is not trusted by the configured roots"
                )
            }
            Self::Broken { host, .. } => write!(f, "{host} broke off before its answer was whole"),
            Self::Deadline { host, deadline } => {
                write!(
                    f,
                    "{host} did not answer within {} ms",
                    deadline.as_millis()
                )
            }
            Self::TooLarge { host, limit } => {
                write!(f, "the answer of {host} is larger than {limit} bytes")
            }
        }
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect { source, .. } => Some(source),
            Self::Untrusted { source, .. } => Some(source),
            Self::Broken { source, .. } => Some(&**source),
            Self::Deadline { .. } | Self::TooLarge { .. } => None,
        }
    }
}
