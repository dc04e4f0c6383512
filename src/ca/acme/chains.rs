//! Which of the chains that an authority offers for a certificate is served (RFC 8555 §7.4.2): its default one, or the one
//! whose topmost certificate the issuer of the operator's choice has signed. instant-acme does not show the others.

use http::HeaderMap;
use http::header::LINK;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::directory::Directory;
use super::jws::{self, Signer};
use super::transport::{Line, bounded};
use crate::ca::error::{CaError, Step};

/// Certificates of a chain that are read.
const MOST_CERTIFICATES: usize = 10;
/// Chains beside the default one that are looked at.
const MOST_ALTERNATES: usize = 8;

/// A chain, DER, leaf first.
pub(super) type Chain = Vec<Vec<u8>>;

/// The operator's choice, and what it takes to fetch another chain.
pub(super) struct Chains {
    /// The common name of the wanted issuer.
    pub preferred: String,
    /// The URL of the authority's directory.
    pub directory: String,
    /// The account's URL.
    pub account: String,
    /// The account's key.
    pub signer: Signer,
}

impl Chains {
    /// The chain of choice among the default one and those at `alternates`; the default one where there is none, or it
    /// cannot be fetched: a certificate under another root is better than none.
    pub(super) async fn choose(&self, line: &Line, default: Chain, alternates: &[String]) -> Chain {
        let mut offered = vec![issuer(&default)];
        if self.is_preferred(&default) {
            return default;
        }
        for url in alternates.iter().take(MOST_ALTERNATES) {
            match self.fetch(line, url).await {
                // For the same certificate, or it is of no use.
                Ok(chain) if chain.first() != default.first() => {}
                Ok(chain) if self.is_preferred(&chain) => return chain,
                Ok(chain) => offered.push(issuer(&chain)),
                Err(error) => {
                    tracing::warn!(ca = %line.id(), %error, "a chain that the authority offers could not be fetched");
                }
            }
        }
        tracing::warn!(
            ca = %line.id(), preferred_chain = self.preferred, offered = %offered.join(", "),
            "the authority offers no chain from the preferred issuer: its default one is served; correct \
             preferred_chain of its [[ca]] to one that is offered"
        );
        default
    }

    fn is_preferred(&self, chain: &Chain) -> bool {
        issuer(chain) == self.preferred
    }

    /// The chain at `url`, by POST-as-GET (RFC 8555 §6.3).
    async fn fetch(&self, line: &Line, url: &str) -> Result<Chain, CaError> {
        let directory = Directory::read(line, &self.directory).await?;
        let sign = |nonce: &str| {
            let (algorithm, account) = (self.signer.algorithm(), &self.account);
            let protected = json!({ "alg": algorithm, "kid": account, "nonce": nonce, "url": url });
            self.signer.sign_empty(&protected)
        };
        let answer = jws::post(line, Step::Certificate, (&directory, url), sign).await?;
        read(&answer.body).map_err(|why| CaError::Garbled {
            ca: line.id().clone(),
            step: Step::Certificate,
            why,
        })
    }
}

/// Reads a chain as an authority sends it: nothing but certificates in PEM, leaf first (RFC 8555 §9.1). What is wrong with
/// it, otherwise.
pub(super) fn read(pem: &[u8]) -> Result<Chain, String> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .take(MOST_CERTIFICATES)
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<Chain, _>>();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err("the chain is empty".to_owned()),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

/// The URLs of the other chains that an answer names: `Link: <…>;rel="alternate"` (RFC 8288).
pub(super) fn alternates(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(LINK).iter();
    let links = values.filter_map(|value| value.to_str().ok());
    links
        .flat_map(|links| links.split('<').skip(1))
        .filter_map(|link| link.split_once('>'))
        .filter(|(url, parameters)| url.starts_with("https://") && is_alternate(parameters))
        .map(|(url, _)| url.to_owned())
        .take(MOST_ALTERNATES)
        .collect()
}

fn is_alternate(parameters: &str) -> bool {
    let relation = parameters.split([';', ',']).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_relation = name.trim().eq_ignore_ascii_case("rel");
        is_relation.then(|| value.trim().trim_matches('"'))
    });
    let mut relations = relation.unwrap_or_default().split_whitespace();
    relations.any(|relation| relation.eq_ignore_ascii_case("alternate"))
}

/// The common name of the issuer of a chain's topmost certificate; empty where it has none.
fn issuer(chain: &Chain) -> String {
    let top = chain.last().map(Vec::as_slice).unwrap_or_default();
    let Ok((_, top)) = x509_parser::parse_x509_certificate(top) else {
        return String::new();
    };
    let name = top.issuer().iter_common_name().next();
    let name = name.and_then(|name| name.as_str().ok());
    bounded(name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    use super::*;

    #[test]
    fn the_other_chains_are_those_that_links_call_alternate() {
        let check = |values: &[&str], expected: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(LINK, value.parse().unwrap());
            }
            assert_eq!(alternates(&headers), expected, "{values:?}");
        };
        let index = "<https://ca.test/dir>;rel=\"index\"";
        check(&[], &[]);
        check(&[index], &[]);
        check(
            &[index, "<https://ca.test/1>;rel=\"alternate\""],
            &["https://ca.test/1"],
        );
        check(
            &[
                "<https://ca.test/1>; title=x; REL=alternate, <https://ca.test/2,3>;rel=\"next Alternate\"",
            ],
            &["https://ca.test/1", "https://ca.test/2,3"],
        );
        check(
            &["<https://ca.test/1>", "<https://ca.test/2", "rel=alternate"],
            &[],
        );
        check(&["<http://ca.test/1>;rel=alternate"], &[]);
        let many = ["<https://ca.test/1>;rel=alternate"; 20];
        assert_eq!(many.len(), 20);
        check(&many, &["https://ca.test/1"; MOST_ALTERNATES]);
    }

    #[test]
    fn a_chain_is_known_by_the_issuer_of_its_topmost_certificate() {
        let key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.distinguished_name
            .push(DnType::CommonName, "Some Root X1");
        let root = Issuer::new(root, &key);
        let certificate = |issuer| {
            let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
            params.signed_by(&key, issuer).unwrap().der().to_vec()
        };
        let chain = vec![b"whatever".to_vec(), certificate(&root)];
        assert_eq!(issuer(&chain), "Some Root X1");
        assert_eq!(issuer(&vec![b"no certificate".to_vec()]), "");
        assert_eq!(issuer(&Vec::new()), "");
    }

    #[test]
    fn what_is_no_chain_is_told() {
        assert_eq!(
            read(b"no certificate"),
            Err("the chain is empty".to_owned())
        );
        let broken = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        assert!(read(broken).unwrap_err().starts_with("not PEM: "));
    }
}
