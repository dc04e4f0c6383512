//! Certificates for clients, for mutual TLS: named by the tenant and a name that the tenant gives, with no DNS name.

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose};

use super::Signer;
use crate::ca::authority::ClientAuthority;
use crate::ca::error::CaError;
use crate::model::TenantId;

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
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params)
    }
}
