//! `[[ca]]`: authorities that can be asked at all.

use std::collections::HashMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::{roots, set};
use crate::base::secret::Secret;
use crate::ca::acme::{self, Binding};
use crate::ca::{CaSettings, Kind, Settings, Sharing, private};
use crate::config::file::{Ca, CaKind, ExternalAccount, SecretPlace};
use crate::config::mistake::{Finding, Mistakes};
use crate::config::reader::At;
use crate::config::secrets;
use crate::config::source::Source;
use crate::model::certificate::CaId;
use crate::model::edge::Edge;
use crate::net::Roots;

pub(super) fn settle(
    sections: &[Ca],
    edge: &Edge,
    source: &Source,
    mistakes: &Mistakes<'_>,
) -> Settings {
    if sections.is_empty() && mistakes.is_empty() {
        let finding = Finding::new("no [[ca]]: no certificate could be obtained")
            .expected("at least one certification authority")
            .fix("add [[ca]] with name = \"internal\" and kind = \"private\" to begin with");
        mistakes.add(0..0, finding.hide_source());
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    let authorities = sections.iter().map(|ca| {
        let name = ca.name.value.as_str();
        match names.get(name) {
            // That it has no name is told already.
            _ if name.is_empty() => {}
            Some(first) => {
                let first = source.location(*first);
                let finding = Finding::new(format!("ca {name:?} is declared twice"))
                    .fix("give it another name")
                    .see(format!("{first}: the first one"));
                mistakes.add(ca.name.at.clone(), finding);
            }
            None => _ = names.insert(name, ca.name.at.start),
        }
        let kind = match ca.kind {
            CaKind::Acme => Kind::Acme(acme(ca, source, mistakes)),
            CaKind::Private => Kind::Private(private(ca, edge)),
        };
        let id = CaId::new(name);
        CaSettings { id, kind }
    });
    Settings {
        authorities: authorities.collect(),
    }
}

fn private(ca: &Ca, edge: &Edge) -> private::Settings {
    let mut settings = private::Settings::default();
    set(&mut settings.leaf_lifetime, ca.lifetime.as_ref());
    if ca.per_tenant.as_ref().is_some_and(|at| at.value) {
        settings.sharing = Sharing::PerTenant;
    }
    set(&mut settings.list_lifetime, ca.crl_lifetime.as_ref());
    settings.list_base = match &ca.crl_url {
        Some(url) => Some(url.value.as_str().trim_end_matches('/').to_owned()),
        None => edge.http_base(),
    };
    settings
}

fn acme(ca: &Ca, source: &Source, mistakes: &Mistakes<'_>) -> acme::Settings {
    let directory = ca.directory.as_ref();
    let url = directory.map_or("", |directory| directory.value.url.as_str());
    let mut settings = acme::Settings::new(url);
    settings.contact = ca.contact.iter().map(|at| at.value.clone()).collect();
    settings.terms_agreed = ca.terms_agreed.as_ref().is_some_and(|at| at.value);
    if !settings.terms_agreed {
        let at = ca
            .terms_agreed
            .as_ref()
            .map_or_else(|| ca.place.clone(), |at| at.at.clone());
        let finding = Finding::new("the CA's terms of service are not agreed to")
            .expected("terms_agreed = true, without which nothing is ordered")
            .fix("read the CA's terms of service, then write terms_agreed = true");
        mistakes.add(at, finding);
    }
    settings.profile = ca.profile.as_ref().map(|at| at.value.clone());
    settings.preferred_chain = ca.preferred_chain.as_ref().map(|at| at.value.clone());
    let identities = ca.caa_identities.iter();
    settings.caa_identities = identities.map(|at| at.value.to_string()).collect();
    settings.account_key = ca
        .account_key
        .as_ref()
        .and_then(|place| account_key(place, source, mistakes));
    if let Some(root) = &ca.root
        && let Some(pem) = roots(root, source, mistakes)
    {
        settings.roots = Roots::Pem(pem);
    }
    match (&ca.eab, directory) {
        (Some(eab), _) => settings.binding = binding(eab, source, mistakes),
        (None, Some(directory)) if directory.value.wants_binding => {
            let finding =
                Finding::new("this CA takes orders only from accounts bound to one of its own")
                    .expected("eab = { kid = \"…\", hmac_key = { file = \"…\" } }")
                    .fix("create an external account binding on the CA's website");
            mistakes.add(directory.at.clone(), finding);
        }
        (None, _) => {}
    }
    settings
}

/// The PKCS#8 DER of a key in PEM.
fn account_key(
    place: &At<SecretPlace>,
    source: &Source,
    mistakes: &Mistakes<'_>,
) -> Option<Secret> {
    let wrong = |what: String| {
        let finding = Finding::new(format!("account_key: {what}"))
            .expected("the key of an existing account in PEM: PKCS#8, ECDSA P-256")
            .fix("turn another form into it with `openssl pkcs8 -topk8 -nocrypt -in KEY`");
        mistakes.add(place.at.clone(), finding);
    };
    let pem = match secrets::read(&place.value, source) {
        Ok(pem) => pem,
        Err(error) => {
            wrong(error.to_string());
            return None;
        }
    };
    let Ok(der) = PrivatePkcs8KeyDer::from_pem_slice(pem.expose()) else {
        wrong("what is there is no PKCS#8 key in PEM".to_owned());
        return None;
    };
    let der = der.secret_pkcs8_der();
    if EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).is_err() {
        wrong("the key is not of ECDSA P-256".to_owned());
        return None;
    }
    Some(Secret::new(der.to_vec()))
}

fn binding(eab: &ExternalAccount, source: &Source, mistakes: &Mistakes<'_>) -> Option<Binding> {
    let key = match secrets::read(&eab.hmac_key.value, source) {
        Ok(secret) => secret,
        Err(error) => {
            let finding = Finding::new(format!("hmac_key of eab: {error}"));
            mistakes.add(eab.hmac_key.at.clone(), finding);
            return None;
        }
    };
    // Websites show it in base64url without padding (RFC 8555 §7.3.4); a few in plain base64.
    let text = key.expose_str().unwrap_or_default().trim_end_matches('=');
    let decoded = URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_not_url_safe| STANDARD.decode(key.expose()));
    match decoded {
        Ok(bytes) if !bytes.is_empty() => Some(Binding {
            key_id: eab.kid.value.clone(),
            hmac_key: Secret::new(bytes),
        }),
        _ => {
            let finding = Finding::new("hmac_key of eab: what is there is not base64url")
                .expected("the key as the CA's website shows it");
            mistakes.add(eab.hmac_key.at.clone(), finding);
            None
        }
    }
}
