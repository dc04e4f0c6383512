//! How a CA, or what stands before it, goes wrong at one request.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SubjectPublicKeyInfo};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;

/// Seconds that a CA of these stories asks to wait.
pub(crate) const ASKED_TO_WAIT: u64 = 2;
const DAY: Duration = Duration::DAY;
const END: &str = "-----END CERTIFICATE-----\n";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 429 with a problem document and `Retry-After`.
    RateLimited,
    /// 503 in the same form.
    Busy,
    /// 502 with a gateway's page.
    Gateway,
    /// The CA's own answer, but only half of it; without its nonce where it has no content.
    Truncated,
    /// No answer, ever.
    Hung,
    /// A certificate for the name and a key that is not ours.
    OtherKey,
    /// The CA's certificate with its signature changed.
    OtherSignature,
    /// The CA's certificate below another authority's.
    OtherChain,
    /// A certificate for the name and our key that has ended.
    Expired,
    /// One that begins tomorrow.
    NotYet,
}

impl Fault {
    /// The answer that the CA is not asked for.
    pub(super) fn instead(self) -> Option<Response<Bytes>> {
        let problem = |status, kind, detail| {
            let text = format!(
                r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"{detail}","status":{status}}}"#
            );
            let mut response = answer(status, "application/problem+json", text);
            let wait = HeaderValue::from(ASKED_TO_WAIT);
            response.headers_mut().insert(RETRY_AFTER, wait);
            response
        };
        match self {
            Self::RateLimited => Some(problem(429, "rateLimited", "too many requests")),
            Self::Busy => Some(problem(503, "serverInternal", "busy, come back later")),
            Self::Gateway => {
                let page = "<html><h1>502 Bad Gateway</h1></html>".to_owned();
                Some(answer(502, "text/html", page))
            }
            Self::Truncated
            | Self::Hung
            | Self::OtherKey
            | Self::OtherSignature
            | Self::OtherChain
            | Self::Expired
            | Self::NotYet => None,
        }
    }

    /// The CA's answer, spoilt.
    pub(super) fn spoil(self, response: Response<Bytes>) -> Response<Bytes> {
        let (mut head, body) = response.into_parts();
        let body = match self {
            Self::Truncated if body.is_empty() => {
                head.headers.remove("replay-nonce");
                body
            }
            Self::Truncated => body.slice(..body.len() / 2),
            Self::OtherKey => Sent::read(&body).with_leaf(&Leaf::OtherKey),
            Self::OtherSignature => other_signature(&body),
            Self::OtherChain => Sent::read(&body).below_another(),
            Self::Expired => Sent::read(&body).with_leaf(&Leaf::From(-2 * DAY)),
            Self::NotYet => Sent::read(&body).with_leaf(&Leaf::From(DAY)),
            Self::RateLimited | Self::Busy | Self::Gateway | Self::Hung => body,
        };
        head.headers.remove(http::header::CONTENT_LENGTH);
        Response::from_parts(head, body)
    }
}

fn answer(status: u16, kind: &'static str, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let kind = HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

/// A leaf in place of the CA's, for the same names.
enum Leaf {
    /// For a key that is not ours.
    OtherKey,
    /// For our key, valid for a day from so long after now.
    From(Duration),
}

/// What the CA sent.
struct Sent {
    /// The names of the leaf.
    names: Vec<String>,
    /// Its key, ours.
    key: SubjectPublicKeyInfo,
    leaf: String,
    issuers: String,
}

impl Sent {
    fn read(chain: &Bytes) -> Self {
        let text = String::from_utf8(chain.to_vec()).unwrap();
        let end = text.find(END).unwrap() + END.len();
        let (leaf, issuers) = text.split_at(end);
        let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let names = names.value.general_names.iter().map(|name| {
            if let GeneralName::DNSName(name) = name {
                (*name).to_owned()
            } else {
                panic!("the CA certified {name}")
            }
        });
        Self {
            names: names.collect(),
            key: SubjectPublicKeyInfo::from_der(certificate.public_key().raw).unwrap(),
            leaf: leaf.to_owned(),
            issuers: issuers.to_owned(),
        }
    }

    /// The chain with another leaf, of the right form.
    fn with_leaf(&self, leaf: &Leaf) -> Bytes {
        let mut params = CertificateParams::new(self.names.clone()).unwrap();
        let by = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
        let signed = match leaf {
            Leaf::OtherKey => params.signed_by(&KeyPair::generate().unwrap(), &by),
            Leaf::From(from) => {
                params.not_before = OffsetDateTime::now_utc() + *from;
                params.not_after = params.not_before + DAY;
                params.signed_by(&self.key, &by)
            }
        };
        Bytes::from(signed.unwrap().pem() + &self.issuers)
    }

    /// The CA's leaf, and an authority that did not sign it.
    fn below_another(&self) -> Bytes {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let other = params.self_signed(&KeyPair::generate().unwrap());
        Bytes::from(self.leaf.clone() + &other.unwrap().pem())
    }
}

/// The chain with one character of the leaf's last line of signature replaced: all else still parses.
fn other_signature(chain: &Bytes) -> Bytes {
    let text = String::from_utf8(chain.to_vec()).unwrap();
    let end = text.find("\n-----END CERTIFICATE-----").unwrap();
    // Whole groups of four characters lie before it, whatever the padding.
    let at = end - 12;
    let mut octets = text.into_bytes();
    octets[at] = if octets[at] == b'A' { b'B' } else { b'A' };
    Bytes::from(octets)
}
