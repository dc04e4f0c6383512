//! Certificates for clients, for mutual TLS: named by the tenant (`O`) and a name that the tenant gives (`UID`, RFC 4519
//! §2.39), with no DNS name.
//!
//! The common name says the client's name too, where it has no dot. One with a dot OpenSSL takes for a host's, where a
//! certificate has no DNS name, and holds it against the name constraints of the issuing CA: it would refuse `alice.smith`.

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose};

use super::Signer;
use crate::ca::authority::ClientAuthority;
use crate::ca::error::CaError;
use crate::model::TenantId;

/// The user id, `UID`.
const USER_ID: &[u64] = &[0, 9, 2342, 19_200_300, 100, 1, 1];

impl ClientAuthority for Signer {
    fn certify(
        &self,
        tenant: &TenantId,
        name: &str,
        request: &[u8],
    ) -> Result<Vec<Vec<u8>>, CaError> {
        let leaf = self.client(tenant, name);
        let leaf = leaf.map_err(|error| self.refused(&error))?;
        Ok(vec![
            self.signed(&leaf, request)?,
            self.current.chain.clone(),
        ])
    }
}

impl Signer {
    fn client(&self, tenant: &TenantId, name: &str) -> Result<CertificateParams, rcgen::Error> {
        let mut params = self.leaf(&[])?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, tenant.as_str());
        subject.push(DnType::from_oid(USER_ID), name);
        if !name.contains('.') {
            subject.push(DnType::CommonName, name);
        }
        params.distinguished_name = subject;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params)
    }
}
