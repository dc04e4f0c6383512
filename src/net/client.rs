//! The client itself.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{DATE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::base::clock::Timestamp;
use crate::base::task::Tasks;
use crate::net::error::{FetchError, SetupError};
use crate::net::retry_after;

/// Who is asking, on every request.
const OUR_NAME: &str = concat!("vestibule/", env!("CARGO_PKG_VERSION"));
/// An idle connection is closed after this long, well before servers commonly do, so that few requests meet a
/// connection that is just being closed.
const IDLE: Duration = Duration::from_secs(20);
/// Idle connections kept per host.
const MOST_IDLE: usize = 32;
/// A TCP keep-alive probe goes out after this long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whom a server's certificate must chain to. Default: [`Roots::Public`].
    pub roots: Roots,
    /// Whether plain HTTP is spoken at all. Default: [`Schemes::HttpsOnly`].
    pub schemes: Schemes,
    /// How long a TCP connection may take, per address tried. Default 5 s.
    pub connect_deadline: Duration,
    /// How long a whole call may take, its connection and its answer included. Default 30 s.
    pub deadline: Duration,
    /// The largest answer, in bytes. Default 1 MiB.
    pub most_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            roots: Roots::Public,
            schemes: Schemes::HttpsOnly,
            connect_deadline: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
            most_bytes: 1024 * 1024,
        }
    }
}

/// The roots that a server's certificate must chain to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Mozilla's, compiled in.
    Public,
    /// Only those of this PEM text: a private authority.
    Pem(Arc<[u8]>),
}

/// Which schemes a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// `https` only (RFC 8555 §6.1 demands it of ACME).
    HttpsOnly,
    /// `http` too: a permission hook on the same machine.
    HttpsOrHttp,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status; every status is an answer, none an error.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its content, within the client's limit.
    pub body: Bytes,
}

impl Answer {
    /// What time it was for the server when it answered (RFC 9110 §6.6.1), where it says so understandably.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        retry_after::date(self.headers.get(DATE)?)
    }

    /// How long the server asks to wait (RFC 9110 §10.2.3), where it says so understandably.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        retry_after::read(&self.headers, now)
    }
}

/// An outbound client with its own pool of connections. Clones share it.
#[derive(Clone)]
pub struct HttpClient {
    pool: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    deadline: Duration,
    most_bytes: usize,
}

impl HttpClient {
    /// A client whose connections live in `tasks`.
    ///
    /// # Errors
    /// [`SetupError`] where the roots cannot be read.
    pub fn new(tasks: &Tasks, settings: &Settings) -> Result<Self, SetupError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Tls)?
            .with_root_certificates(roots(&settings.roots)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.connect_deadline));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls);
        let https = match settings.schemes {
            Schemes::HttpsOnly => https.https_only(),
            Schemes::HttpsOrHttp => https.https_or_http(),
        };
        let pool = Client::builder(Connections(tasks.clone()))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build(https.enable_http1().wrap_connector(tcp));
        Ok(Self {
            pool,
            deadline: settings.deadline,
            most_bytes: settings.most_bytes,
        })
    }

    /// Sends `request` and reads the whole answer, within the client's deadline. Redirects are answers.
    ///
    /// # Errors
    /// [`FetchError`] where there is no whole answer.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Answer, FetchError> {
        self.send_within(request, self.deadline).await
    }

    /// Like [`HttpClient::send`], but within `deadline` where that is shorter than the client's own.
    ///
    /// # Errors
    /// [`FetchError`] where there is no whole answer.
    pub async fn send_within(
        &self,
        mut request: Request<Bytes>,
        deadline: Duration,
    ) -> Result<Answer, FetchError> {
        let deadline = deadline.min(self.deadline);
        let host = authority(request.uri());
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        let exchange = self.exchange(&host, request.map(Full::new));
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_elapsed) => Err(FetchError::Deadline { host, deadline }),
        }
    }

    async fn exchange(
        &self,
        host: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, FetchError> {
        let response = self
            .pool
            .request(request)
            .await
            .map_err(|error| FetchError::from_client(host, error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.most_bytes)
            .collect()
            .await
            .map_err(|error| match error.is::<LengthLimitError>() {
                true => FetchError::TooLarge {
                    host: host.to_owned(),
                    limit: self.most_bytes,
                },
                false => FetchError::Broken {
                    host: host.to_owned(),
                    source: error,
                },
            })?;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

/// Names nothing of the pool.
impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("deadline", &self.deadline)
            .field("most_bytes", &self.most_bytes)
            .finish_non_exhaustive()
    }
}

/// Host and port, for errors: never the path or the query, which may hold secrets.
fn authority(uri: &Uri) -> String {
    uri.authority().map_or_else(
        || "(no host)".to_owned(),
        |a| a.host().to_owned() + &port(a),
    )
}

fn port(authority: &http::uri::Authority) -> String {
    authority
        .port_u16()
        .map_or_else(String::new, |port| format!(":{port}"))
}

fn roots(roots: &Roots) -> Result<RootCertStore, SetupError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Public => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::Pem(text) => {
            for der in CertificateDer::pem_slice_iter(text) {
                store
                    .add(der.map_err(SetupError::RootPem)?)
                    .map_err(SetupError::RootCertificate)?;
            }
        }
    }
    match store.is_empty() {
        true => Err(SetupError::NoRoots),
        false => Ok(store),
    }
}

/// Drives the pool's connections as tasks of ours.
#[derive(Clone)]
struct Connections(Tasks);

impl<F> hyper::rt::Executor<F> for Connections
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        self.0
            .spawn_until_cancelled("outbound_connection", connection);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::fixture::answering;

    fn client() -> HttpClient {
        let settings = Settings {
            schemes: Schemes::HttpsOrHttp,
            most_bytes: 10,
            ..Settings::default()
        };
        HttpClient::new(&Tasks::new(), &settings).unwrap()
    }

    fn ask(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    #[tokio::test]
    async fn says_who_asks_and_takes_a_redirect_as_an_answer() {
        let answer = "HTTP/1.1 307 Over There\r\nlocation: /x\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nhi";
        let (address, question) = answering(answer).await;
        let answer = client()
            .send(ask(&format!("http://{address}/path?q")))
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(&answer.body[..], b"hi");
        assert_eq!(
            answer.retry_after(Timestamp::EPOCH),
            Some(Duration::from_secs(7))
        );
        let question = question.await.unwrap();
        assert!(question.starts_with("GET /path?q HTTP/1.1\r\n"));
        assert!(question.contains(&format!("user-agent: {OUR_NAME}\r\n")));
    }

    #[tokio::test]
    async fn an_answer_beyond_the_limit_is_an_error() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n01234567890".to_owned();
        let (address, _question) = answering(&answer).await;
        let error = client().send(ask(&format!("http://{address}/"))).await;
        assert!(matches!(error, Err(FetchError::TooLarge { limit: 10, .. })));
    }

    #[tokio::test]
    async fn a_silent_server_meets_the_deadline_and_the_error_hides_the_path() {
        let (address, _question) = answering("").await;
        let error = client()
            .send_within(
                ask(&format!("http://{address}/secret")),
                Duration::from_millis(30),
            )
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::Deadline { .. }) && error.may_have_acted());
        assert_eq!(
            error.to_string(),
            format!("{address} did not answer within 30 ms")
        );
    }

    #[tokio::test]
    async fn nobody_listening_is_a_connect_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = client().send(ask(&format!("http://{address}/"))).await;
        assert!(
            matches!(error, Err(ref e @ FetchError::Connect { .. }) if !e.may_have_acted()),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_authority_is_told_apart() {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
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
        let port = listener.local_addr().unwrap().port();
        Tasks::new().spawn("server", async move {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            assert!(acceptor.accept(stream).await.is_err());
        });
        let error = client()
            .send(ask(&format!("https://localhost:{port}/")))
            .await;
        assert!(
            matches!(error, Err(FetchError::Untrusted { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn roots_that_hold_no_certificate_are_refused() {
        let made = |text: &str| {
            let settings = Settings {
                roots: Roots::Pem(text.as_bytes().into()),
                ..Settings::default()
            };
            HttpClient::new(&Tasks::new(), &settings).map(|_client| ())
        };
        assert!(matches!(made("nothing"), Err(SetupError::NoRoots)));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(made(garbage), Err(SetupError::RootCertificate(_))));
    }
}
