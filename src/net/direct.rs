//! One look at one address: what answers there by HTTP, and with which certificate by HTTPS.
//!
//! For checks of the world as it is. The address is given, never looked up; nothing is pooled; redirects are not
//! followed; certificates are **not** verified, for it is they that are looked at, and no secret is ever sent.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::DnsName;

const OUR_NAME: &str = concat!("vestibule/", env!("CARGO_PKG_VERSION"), " (preflight)");
/// Of an answer's body; a challenge's is about 90 bytes.
const MOST_BYTES: usize = 4096;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where.
    pub address: SocketAddr,
    /// In whose name: the Host field, and the server name where TLS is spoken.
    pub host: &'a DnsName,
    /// The path and query.
    pub path: &'a str,
    /// How.
    pub scheme: Scheme,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS, with whatever certificate.
    Https,
}

/// What answered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its content; empty where that was longer than 4 KiB, which no challenge is.
    pub body: Bytes,
}

/// Why nothing was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectError {
    /// No connection: refused, reset.
    Connect(String),
    /// This machine has no way there: it may have no IPv6.
    NoRoute(String),
    /// Connected, but no TLS.
    Tls(String),
    /// Connected, but no HTTP.
    Http(String),
    /// Not in time.
    Deadline(Duration),
    /// The path is none; a bug, or a redirect to nonsense.
    BadPath,
}

impl fmt::Display for DirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) | Self::NoRoute(why) => write!(f, "no connection: {why}"),
            Self::Tls(why) => write!(f, "no TLS: {why}"),
            Self::Http(why) => write!(f, "no HTTP answer: {why}"),
            Self::Deadline(deadline) => {
                write!(f, "no answer within {} ms", deadline.as_millis())
            }
            Self::BadPath => f.write_str("not a path that can be asked for"),
        }
    }
}

impl std::error::Error for DirectError {}

/// Asks, and takes the answer as it is.
///
/// # Errors
/// [`DirectError`].
pub async fn get(ask: Ask<'_>, deadline: Duration) -> Result<Seen, DirectError> {
    let asked = async {
        let tcp = connect(ask.address).await?;
        match ask.scheme {
            Scheme::Http => exchange(tcp, ask).await,
            Scheme::Https => exchange(secure(tcp, ask.host).await?, ask).await,
        }
    };
    tokio::time::timeout(deadline, asked)
        .await
        .unwrap_or(Err(DirectError::Deadline(deadline)))
}

/// The end-entity certificate, DER, that is served at `address` for `name`.
///
/// # Errors
/// [`DirectError`].
pub async fn certificate(
    address: SocketAddr,
    name: &DnsName,
    deadline: Duration,
) -> Result<Vec<u8>, DirectError> {
    let looked = async {
        let stream = secure(connect(address).await?, name).await?;
        let chain = stream.get_ref().1.peer_certificates();
        let leaf = chain.and_then(<[CertificateDer<'_>]>::first);
        leaf.map(|der| der.to_vec())
            .ok_or_else(|| DirectError::Tls("no certificate".to_owned()))
    };
    tokio::time::timeout(deadline, looked)
        .await
        .unwrap_or(Err(DirectError::Deadline(deadline)))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, DirectError> {
    TcpStream::connect(address).await.map_err(|error| {
        let why = error.to_string();
        let no_route = [ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable];
        match no_route.contains(&error.kind()) {
            true => DirectError::NoRoute(why),
            false => DirectError::Connect(why),
        }
    })
}

async fn secure(tcp: TcpStream, name: &DnsName) -> Result<TlsStream<TcpStream>, DirectError> {
    let wrong = |error: &dyn fmt::Display| DirectError::Tls(error.to_string());
    let server_name =
        ServerName::try_from(name.as_str().to_owned()).map_err(|error| wrong(&error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Onlooker(provider)))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
        .connect(server_name, tcp)
        .await
        .map_err(|error| wrong(&error))
}

async fn exchange<S>(stream: S, ask: Ask<'_>) -> Result<Seen, DirectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wrong = |error: hyper::Error| DirectError::Http(error.to_string());
    let host =
        HeaderValue::from_str(ask.host.as_str()).map_err(|_not_a_value| DirectError::BadPath)?;
    let request = Request::get(ask.path)
        .header(HOST, host)
        .header(USER_AGENT, OUR_NAME)
        .body(Empty::<Bytes>::new())
        .map_err(|_not_a_path| DirectError::BadPath)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(wrong)?;
    let answered = async move {
        let response = sender.send_request(request).await.map_err(wrong)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await;
        Ok(Seen {
            status: head.status,
            headers: head.headers,
            body: body.map_or_else(|_too_long_or_broken| Bytes::new(), |body| body.to_bytes()),
        })
    };
    let (mut answered, mut connection) = (pin!(answered), pin!(connection));
    tokio::select! {
        seen = &mut answered => seen,
        // What it read before its end still counts.
        _ended = &mut connection => answered.await,
    }
}

/// Believes every certificate: it is here to be looked at.
#[derive(Debug)]
pub(crate) struct Onlooker(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::base::task::Tasks;
    use crate::net::fixture::answering;

    const SOON: Duration = Duration::from_secs(10);

    fn name() -> DnsName {
        DnsName::parse("shop.acme.test").unwrap()
    }

    fn ask(address: SocketAddr, host: &DnsName) -> Ask<'_> {
        Ask {
            address,
            host,
            path: "/.well-known/acme-challenge/x",
            scheme: Scheme::Http,
        }
    }

    #[tokio::test]
    async fn asks_an_address_in_the_name_of_a_host_and_takes_a_redirect_as_it_is() {
        let (address, question) = answering(
            "HTTP/1.1 301 Moved\r\nlocation: https://x.test/\r\nserver: nginx\r\ncontent-length: 2\r\n\r\nhi",
        )
        .await;
        let host = name();
        let seen = get(ask(address, &host), SOON).await.unwrap();
        assert_eq!(seen.status, StatusCode::MOVED_PERMANENTLY);
        assert_eq!(&seen.body[..], b"hi");
        assert_eq!(seen.headers["server"], "nginx");
        let question = question.await.unwrap();
        assert!(question.starts_with("GET /.well-known/acme-challenge/x HTTP/1.1\r\n"));
        assert!(question.contains("host: shop.acme.test\r\n"), "{question}");
    }

    #[tokio::test]
    async fn says_how_nothing_was_seen() {
        let host = name();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = get(ask(address, &host), Duration::from_millis(30)).await;
        assert_eq!(
            silent.unwrap_err(),
            DirectError::Deadline(Duration::from_millis(30))
        );
        drop(listener);
        let nobody = get(ask(address, &host), SOON).await.unwrap_err();
        assert!(matches!(nobody, DirectError::Connect(_)), "{nobody}");
        let (address, _question) = answering("SSH-2.0-OpenSSH\r\n\r\n").await;
        let other = get(ask(address, &host), SOON).await.unwrap_err();
        assert!(matches!(other, DirectError::Http(_)), "{other}");
    }

    #[tokio::test]
    async fn sees_a_certificate_that_nobody_would_trust() {
        let key = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap();
        let served = key.cert.der().to_vec();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                rustls_pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Tasks::new().spawn("server", async move {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            drop(acceptor.accept(stream).await);
        });
        assert_eq!(certificate(address, &name(), SOON).await.unwrap(), served);
    }
}
