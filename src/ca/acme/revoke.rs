//! Revocation signed by the certificate's own key (RFC 8555 §7.6), which instant-acme does not do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::directory::Directory;
use super::jws::{self, Signer};
use super::transport::Line;
use crate::base::secret::Secret;
use crate::ca::authority::{Acceptance, RevokedLeaf};
use crate::ca::error::{CaError, Step};

/// Tells the authority at `directory`.
pub(super) async fn by_key(
    line: &Line,
    directory: &str,
    leaf: RevokedLeaf<'_>,
    key: &Secret,
) -> Result<Acceptance, CaError> {
    let signer = Signer::of(key.expose()).ok_or_else(|| CaError::Material {
        ca: line.id().clone(),
        slot: "the certificate's private key".to_owned(),
        why: "it is of a kind that cannot sign a revocation".to_owned(),
    })?;
    let directory = Directory::read(line, directory).await?;
    let url = directory.revoke_cert.as_deref();
    let url = url.ok_or_else(|| CaError::CannotRevoke {
        ca: line.id().clone(),
    })?;
    let payload = json!({
        "certificate": URL_SAFE_NO_PAD.encode(leaf.der),
        "reason": leaf.reason.code(),
    });
    let sign = |nonce: &str| {
        let (algorithm, key) = (signer.algorithm(), signer.jwk());
        let protected = json!({ "alg": algorithm, "jwk": key, "nonce": nonce, "url": url });
        signer.sign(&protected, &payload)
    };
    let posted = jws::post(line, Step::Revocation, (&directory, url), sign).await;
    taken(posted.map(|_answer| ()))
}

/// That it is revoked already is what was wanted (RFC 8555 §7.6).
pub(super) fn taken(result: Result<(), CaError>) -> Result<Acceptance, CaError> {
    match result {
        Err(CaError::Refused { document, .. }) if document.kind == "alreadyRevoked" => {
            Ok(Acceptance::Before)
        }
        result => result.map(|()| Acceptance::Now),
    }
}
