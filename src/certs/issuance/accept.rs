//! What came back from an authority, checked: only what was ordered becomes a certificate of ours.

use std::sync::Arc;

use rcgen::PublicKeyData as _;

use super::attempt::Attempt;
use super::failure::Cause;
use super::inquiry;
use super::order::Obtained;
use crate::base::secret::Secret;
use crate::ca::TellsRenewal;
use crate::certs::chain;
use crate::certs::credential::{Credential, key_sealed_as, sealed_as};
use crate::certs::policy::IssuancePermit;
use crate::certs::request::Reason;
use crate::model::certificate::{CertificateFacts, CertificateId};
use crate::model::standing::CertificateStanding;
use crate::store::record::CertificateRecord;

impl Attempt<'_> {
    /// Checks what the authority sent; only what was ordered becomes a certificate of ours.
    pub(super) fn accept(
        &self,
        permit: &IssuancePermit,
        obtained: Obtained,
    ) -> Result<(CertificateRecord, Arc<Credential>), Cause> {
        let names = std::slice::from_ref(self.pattern);
        let ca = permit.ca();
        let public_key = obtained.key.subject_public_key_info();
        let ordered = chain::Ordered {
            names,
            public_key: &public_key,
        };
        let now = self.parts.clock.now();
        let leaf = chain::check(&obtained.chain, ordered, now)
            .map_err(|error| Cause::Chain(ca.clone(), error))?;
        let facts = CertificateFacts {
            id: CertificateId::new(),
            tenant: self.tenant.clone(),
            names: names.to_vec(),
            ca: ca.clone(),
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        };
        let standing = CertificateStanding {
            account: obtained.account.url().map(str::to_owned),
            profile: permit.profile().map(str::to_owned),
            renewed_from: match permit.request().reason {
                Reason::Renewal(ref old) => Some(old.id),
                Reason::First | Reason::Expired(_) | Reason::Replacement(..) => None,
            },
            ask_at: Some(match obtained.account.tells_renewal() {
                TellsRenewal::Perhaps => now.plus(inquiry::pause(None)),
                TellsRenewal::No => facts.not_after,
            }),
            ..CertificateStanding::default()
        };
        let mut chain = obtained.chain.into_iter();
        let record = CertificateRecord {
            facts: facts.clone(),
            leaf: chain.next().unwrap_or_default(),
            chain: chain.collect(),
            sealed_key: obtained.sealed_key,
            standing,
            created_at: now,
        };
        let key = Secret::new(obtained.key.serialize_der());
        let credential =
            Credential::from_der(facts, record.leaf.clone(), record.chain.clone(), &key)
                .map_err(Cause::Credential)?;
        Ok((record, Arc::new(credential)))
    }

    /// The stored certificate as a credential, for those who wait for one.
    pub(super) async fn load(&self, record: CertificateRecord) -> Result<Arc<Credential>, Cause> {
        let name = key_sealed_as(&record.facts).unwrap_or_else(|| sealed_as(self.pattern));
        let key = self
            .parts
            .vault
            .open(&self.owner(), &name, &record.sealed_key)
            .await
            .map_err(Cause::Vault)?;
        Credential::from_der(record.facts, record.leaf, record.chain, &key)
            .map(Arc::new)
            .map_err(Cause::Credential)
    }
}
