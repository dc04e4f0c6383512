//! How a CA, or what stands before it, goes wrong at one request.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use rcgen::{CertificateParams, KeyPair};

/// Seconds that a CA of these stories asks to wait.
pub(crate) const ASKED_TO_WAIT: u64 = 2;

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
            Self::Truncated | Self::Hung | Self::OtherKey | Self::OtherSignature => None,
        }
    }

    /// The CA's answer, spoilt.
    pub(super) fn spoil(self, path: &str, response: Response<Bytes>) -> Response<Bytes> {
        let (mut head, body) = response.into_parts();
        let body = match self {
            Self::Truncated if body.is_empty() => {
                head.headers.remove("replay-nonce");
                body
            }
            Self::Truncated => body.slice(..body.len() / 2),
            Self::OtherKey => other_key(path, &body),
            Self::OtherSignature => other_signature(&body),
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

/// The chain with another leaf, of the right form.
fn other_key(path: &str, chain: &Bytes) -> Bytes {
    let chain = String::from_utf8(chain.to_vec()).unwrap();
    let (_, issuers) = chain.split_once("-----END CERTIFICATE-----\n").unwrap();
    let key = KeyPair::generate().unwrap();
    let name = format!("{}.example.com", path.rsplit('/').next().unwrap());
    let leaf = CertificateParams::new([name]).unwrap();
    let leaf = leaf.self_signed(&key).unwrap().pem();
    Bytes::from(leaf + issuers)
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
