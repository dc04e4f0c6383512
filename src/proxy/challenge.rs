//! Port 443's answer to a CA that proves a name by TLS-ALPN-01 (RFC 8737): a certificate of its own, and then nothing.
//!
//! Only a ClientHello that offers `acme-tls/1` and nothing else comes here. What tenants are served with never does:
//! the certificate is made for the published challenge, and a name without one gets an alert.

use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::base::clock::{Instant, monotonic};
use crate::certs::challenge::LookupError;
use crate::certs::challenge::tls_alpn;
use crate::model::DnsName;
use crate::proxy::client_hello::{Hello, Refused};
use crate::proxy::handshake::finish;
use crate::proxy::report::Reject;
use crate::proxy::worker::Worker;
use crate::telemetry::labels::{ChallengeAnswer, ChallengeAsked};

/// How long closing may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Makes the handshake with the certificate of the challenge and closes the connection (RFC 8737 §3).
///
/// # Errors
/// [`Refused`]: no challenge is published for the name, or the store did not tell; the caller sends the alert.
pub(in crate::proxy) async fn answer(
    worker: &Worker,
    hello: Hello,
    arrived: Instant,
) -> Result<(), Refused> {
    let Hello {
        server_name, start, ..
    } = hello;
    let certified = match find(worker, &server_name).await {
        Ok(certified) => certified,
        Err(reject) => return Err(Refused::named(reject, server_name, start.io)),
    };
    let Ok(config) = worker.composer.compose_challenge(certified) else {
        return Err(Refused::named(Reject::Internal, server_name, start.io));
    };
    let deadline = monotonic() + worker.shared.settings.load().deadlines.handshake;
    let mut stream = finish(start, config, deadline)
        .await
        .map_err(|reject| Refused::gone(reject, server_name.clone()))?;
    // Whether the authority hears the farewell changes nothing.
    drop(timeout(FAREWELL, stream.shutdown()).await);
    let duration = monotonic().saturating_duration_since(arrived);
    tracing::debug!(
        target: "vestibule::handshake",
        domain = server_name.as_str(), ?duration, "challenge answered"
    );
    Ok(())
}

async fn find(worker: &Worker, host: &DnsName) -> Result<Arc<CertifiedKey>, Reject> {
    let shared = &worker.shared;
    let here = shared.challenges.published_here(host, tls_alpn::PROTOCOL);
    let from_memory = here.is_some();
    let found = match here {
        Some(found) => Ok(Some(found)),
        None => shared.challenges.tls_alpn01(host).await,
    };
    let outcome = match (&found, from_memory) {
        (Ok(Some(_)), true) => ChallengeAnswer::Memory,
        (Ok(Some(_)), false) => ChallengeAnswer::Store,
        (Ok(None), _) => ChallengeAnswer::Unknown,
        (Err(_), _) => ChallengeAnswer::Failed,
    };
    let asked = (ChallengeAsked::TlsAlpn01, outcome);
    shared.metrics.challenges.count(asked);
    let key_authorization = found.map_err(|error| failed(host, error))?;
    let key_authorization = key_authorization.ok_or(Reject::NoChallenge)?;
    tls_alpn::certificate(host, &key_authorization).map_err(|error| {
        tracing::error!(domain = %host, %error, cause = std::error::Error::source(&error).map(ToString::to_string), "no answer to a challenge");
        Reject::Internal
    })
}

fn failed(host: &DnsName, error: LookupError) -> Reject {
    tracing::debug!(domain = %host, %error, "challenge not looked up");
    Reject::ChallengeUnread
}
