//! Lists of revoked certificates (RFC 5280 §5), each signed by the key that signed the certificates: the present issuing
//! key's, and that of the one before it until everything that it signed has ended.

use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason,
    RevokedCertParams, SerialNumber,
};

use super::{Signer, issuer, lifetime_end, whole_seconds};
use crate::base::clock::Timestamp;
use crate::ca::authority::{ListAuthority, ListKey, Material, NewList, RevokedSerial};
use crate::ca::error::CaError;
use crate::model::certificate::CaId;
use crate::model::issuer_key::IssuerKey;
use crate::model::revocation;

/// An issuing key with its certificate.
pub(super) struct Signing {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) key: IssuerKey,
    /// Its certificate, DER.
    pub(super) chain: Vec<u8>,
    /// When its certificate ends, and with it everything that it signed.
    pub(super) end: Timestamp,
}

impl Signing {
    /// From what is kept, or why not.
    pub(super) fn of(kept: &Material) -> Result<Self, String> {
        Ok(Self {
            issuer: issuer(kept).map_err(|error| error.to_string())?,
            key: identifier(&kept.public)?,
            end: lifetime_end(&kept.public)?,
            chain: kept.public.clone(),
        })
    }

    fn list_key(&self) -> ListKey {
        ListKey {
            key: self.key.clone(),
            until: self.end,
        }
    }
}

/// The identifier of the key in a certificate, DER.
fn identifier(der: &[u8]) -> Result<IssuerKey, String> {
    use x509_parser::extensions::ParsedExtension;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let identifier = certificate.iter_extensions().find_map(|extension| {
        if let ParsedExtension::SubjectKeyIdentifier(key) = extension.parsed_extension() {
            Some(IssuerKey::from_bytes(key.0))
        } else {
            None
        }
    });
    identifier.ok_or_else(|| "its certificate does not identify its key".to_owned())
}

/// Issuing keys that sign nothing any more but their lists.
pub(super) struct Former {
    pub(super) id: CaId,
    pub(super) keys: Vec<Signing>,
    pub(super) lifetime: Duration,
}

impl ListAuthority for Former {
    fn list_keys(&self) -> Vec<ListKey> {
        self.keys.iter().map(Signing::list_key).collect()
    }

    fn list_lifetime(&self) -> Duration {
        self.lifetime
    }

    fn sign_list(&self, key: &IssuerKey, list: &NewList<'_>) -> Result<Vec<u8>, CaError> {
        sign((&self.id, self.keys.iter()), key, list)
    }
}

impl ListAuthority for Signer {
    fn list_keys(&self) -> Vec<ListKey> {
        self.signing().map(Signing::list_key).collect()
    }

    fn list_lifetime(&self) -> Duration {
        self.settings.list_lifetime
    }

    fn sign_list(&self, key: &IssuerKey, list: &NewList<'_>) -> Result<Vec<u8>, CaError> {
        sign((&self.id, self.signing()), key, list)
    }
}

impl Signer {
    fn signing(&self) -> impl Iterator<Item = &Signing> {
        std::iter::once(&self.current).chain(&self.earlier)
    }
}

fn sign<'a>(
    (ca, mut all): (&CaId, impl Iterator<Item = &'a Signing>),
    key: &IssuerKey,
    list: &NewList<'_>,
) -> Result<Vec<u8>, CaError> {
    let unusable = |why: String| CaError::Material {
        ca: ca.clone(),
        slot: format!("issuing key {key}"),
        why,
    };
    let signing = all
        .find(|signing| signing.key == *key)
        .ok_or_else(|| unusable("it is not kept any more".to_owned()))?;
    let params = CertificateRevocationListParams {
        this_update: whole_seconds(list.this_update),
        next_update: whole_seconds(list.next_update),
        crl_number: SerialNumber::from(list.number),
        issuing_distribution_point: None,
        revoked_certs: list.revoked.iter().map(entry).collect(),
        // As in the certificate of the key: both are rcgen's.
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = params.signed_by(&signing.issuer);
    let signed = signed.map_err(|error| unusable(error.to_string()))?;
    Ok(signed.der().to_vec())
}

fn entry(revoked: &RevokedSerial) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from(revoked.serial.clone()),
        revocation_time: whole_seconds(revoked.at),
        reason_code: Some(reason(revoked.reason)),
        invalidity_date: None,
    }
}

const fn reason(reason: revocation::RevocationReason) -> RevocationReason {
    use revocation::RevocationReason as Ours;
    match reason {
        Ours::Unspecified => RevocationReason::Unspecified,
        Ours::KeyCompromise => RevocationReason::KeyCompromise,
        Ours::AffiliationChanged => RevocationReason::AffiliationChanged,
        Ours::Superseded => RevocationReason::Superseded,
        Ours::CessationOfOperation => RevocationReason::CessationOfOperation,
        Ours::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    }
}
