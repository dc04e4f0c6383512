//! How certificates are obtained and renewed.

use std::time::Duration;

use crate::certs::preflight;
use crate::certs::renewal;
use crate::model::challenge::ChallengeOrder;

/// What the configuration decides for issuance. The defaults suit any CA; stories and tests make them short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// When a name that has no certificate yet gets its first one. Default: in its first handshake.
    pub obtain: Obtain,
    /// How names are proved, the preferred kind first. Default: HTTP-01, then TLS-ALPN-01.
    pub challenges: ChallengeOrder,
    /// When a certificate is renewed, and how long a failure waits.
    pub renewal: renewal::Settings,
    /// What is looked at before an authority is asked.
    pub preflight: preflight::Settings,
    /// How long a job is ours without a sign of life; another process goes on after that. A process that starts on the
    /// data directory of one that died goes on at once.
    /// Default 30 s.
    pub lease: Duration,
    /// How long one attempt may take in all. Default 5 minutes.
    pub job_deadline: Duration,
    /// Issuances at once; with one authority of several, all but a quarter of them. Default 16.
    pub parallel: usize,
    /// How often due jobs are looked for where nothing announces them. Default 1 s.
    pub poll: Duration,
    /// How often every domain is checked for its job, and certificates are counted by expiry. Default 1 h.
    pub upkeep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            obtain: Obtain::default(),
            challenges: ChallengeOrder::default(),
            renewal: renewal::Settings::default(),
            preflight: preflight::Settings::default(),
            lease: Duration::from_secs(30),
            job_deadline: Duration::from_secs(300),
            parallel: 16,
            poll: Duration::from_secs(1),
            upkeep: Duration::from_secs(3600),
        }
    }
}

/// When a registered name gets its first certificate. Renewals come in time either way, visited or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Obtain {
    /// In its first handshake: a name whose DNS does not lead here yet costs the CA's limits nothing.
    #[default]
    AtFirstVisit,
    /// As soon as it is registered: for names whose DNS leads here already.
    AtOnce,
}
